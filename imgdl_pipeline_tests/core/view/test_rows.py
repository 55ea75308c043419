import json
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest

from imgdl_pipeline.core.model.schemas import CATALOG, NEAR_DUPLICATES
from imgdl_pipeline.core.storage.layout import NEAR_DUPLICATES_PATH
from imgdl_pipeline.core.view.rows import (
    CUT,
    NAME_CHARS,
    TEXT_CHARS,
    coded,
    index_of,
    near_duplicates,
    newest_rows,
    shown_row,
    shown_text,
)
from imgdl_pipeline_tests.support.rows import catalog_of, file_of

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def hours(count):
    return NOON + timedelta(hours=count)


def index(*rows, known=None):
    return index_of(catalog_of(*rows), known or {}, links=len(rows), block_rows=250)


class TestNewestRows:
    def urls(self, limit, *rows):
        return newest_rows(file_of(catalog_of(*rows)), limit)["url"].to_pylist()

    def test_the_newest_come_first_and_others_in_the_catalogs_order(self):
        rows = [{"url": url, "fetched_at": hours(at)} for url, at in (("b", 1), ("c", 2), ("a", 1))]
        assert self.urls(9, *rows) == ["c", "b", "a"]
        assert self.urls(2, *rows) == ["c", "b"]

    def test_a_link_without_an_image_is_as_new_as_its_link(self):
        old = {"url": "old", "status": "failed", "first_seen": hours(0), "last_seen": hours(9)}
        new = {"url": "new", "status": "failed", "first_seen": hours(2)}
        ok = {"url": "ok", "fetched_at": hours(1), "first_seen": hours(-9)}
        assert self.urls(9, {"url": "never"}, old, new, ok) == ["new", "ok", "old", "never"]

    def test_a_catalog_without_rows_has_none(self):
        assert newest_rows(file_of(CATALOG.empty_table()), 3).num_rows == 0


class TestNearDuplicates:
    def test_a_shard_has_the_groups_of_its_gallerys_images(self, store):
        row = {
            "gallery": "g",
            "url": "a",
            "phash": "0" * 16,
            "group": 7,
            "distance": 0,
            "representative": True,
        }
        store.write_table(NEAR_DUPLICATES_PATH, pa.Table.from_pylist([row], schema=NEAR_DUPLICATES))
        assert near_duplicates(store, "g/0001").keys() == near_duplicates(store, "g").keys() == {"a"}

    def test_there_are_none_before_any_were_looked_for(self, store):
        assert near_duplicates(store, "g") == {}

    def test_a_row_has_its_group_while_its_image_is_the_same(self, store):
        group = {"phash": "0" * 16, "group": 7, "distance": 2, "representative": False}
        rows = [
            {"gallery": gallery, "url": url, "sha256": f"{sha:064}", **group}
            for gallery, url, sha in (("g", "same", 1), ("g", "changed", 2), ("other", "alone", 3))
        ]
        store.write_table(NEAR_DUPLICATES_PATH, pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES))
        known = near_duplicates(store, "g")
        assert set(known) == {"same", "changed"}
        mine = [
            {"url": url, "sha256": f"{sha:064}"} for url, sha in (("same", 1), ("changed", 9), ("alone", 3))
        ]
        assert index(*mine, known=known)["group"] == [7, None, None]
        shown = shown_row({"url": "same", "sha256": f"{1:064}", "path": None}, known)
        assert shown == {"sha256": f"{1:064}", "group": 7, "distance": 2, "representative": False}


class TestIndex:
    def test_it_has_a_value_for_each_row(self):
        made = index(
            {"url": "https://A.org/x.jpg", "width": 3, "height": 2, "bytes": 9, "license_id": "CC0-1.0"},
            {"url": "https://b.org:8080/y.jpg", "status": "failed", "reason": "dns", "last_seen": NOON},
        )
        assert made["status"] == {"values": ["ok", "failed"], "rows": [0, 1]}
        assert made["reason"] == {"values": ["dns"], "rows": [-1, 0]}
        assert made["license_id"] == {"values": ["CC0-1.0"], "rows": [0, -1]}
        assert made["host"] == {"values": ["a.org", "b.org"], "rows": [0, 1]}
        assert (made["width"], made["height"], made["bytes"]) == ([3, None], [2, None], [9, None])
        assert made["listed"] == "2026-11-22T12:00:00+00:00"
        assert (made["rows"], made["links"], made["block"]) == (2, 2, 250)

    @pytest.mark.parametrize("url", ["http://[", "", "no url", "data:image/jpeg,x", "http://h\u2100.org/"])
    def test_a_url_without_a_host_has_none(self, url):
        assert index({"url": url})["host"] == {"values": [], "rows": [-1]}

    @pytest.mark.parametrize(
        ("url", "attributes", "name"),
        [
            ("https://h.org/a/b%20c.jpg", None, "b c.jpg"),
            ("https://h.org/a/?x=1", '{"title": ""}', "a"),
            ("https://h.org/", "{}", "https://h.org/"),
            ("http://[", None, "http://["),
            ("https://h.org/a.jpg", '{"title": " A hill "}', "A hill"),
            ("https://h.org/a.jpg", '{"title": ["A"]}', "a.jpg"),
            ("https://h.org/a.jpg", '["title"]', "a.jpg"),
            ("https://h.org/a.jpg", "{no JSON", "a.jpg"),
            ("https://h.org/a.jpg", json.dumps({"title": "x" * 500}), "x" * NAME_CHARS + CUT),
        ],
    )
    def test_an_image_is_called_by_its_title_or_its_url(self, url, attributes, name):
        assert index({"url": url, "attributes": attributes})["name"] == [name]

    def test_every_column_that_a_row_may_have_is_described(self):
        assert set(index()["columns"]) == {*CATALOG.names, "group", "distance", "representative"}

    def test_a_catalog_without_rows_has_an_index(self):
        assert index()["listed"] is None


def test_values_are_coded_in_the_order_in_which_they_come():
    assert coded(["b", None, "a", "b"]) == {"values": ["b", "a"], "rows": [0, -1, 1, 0]}


class TestShownRow:
    def test_nulls_and_the_url_are_left_out_and_times_are_text(self):
        row = {"url": "u", "sha256": None, "fetched_at": NOON, "progressive": False, "bytes": 0}
        assert shown_row(row, {}) == {
            "fetched_at": "2026-11-22T12:00:00+00:00",
            "progressive": False,
            "bytes": 0,
        }

    def test_what_json_has_no_number_for_is_text(self):
        shown = shown_row({"url": "u", "sha256": None, "latitude": float("nan"), "longitude": 1.5}, {})
        assert shown == {"latitude": "nan", "longitude": 1.5}


class TestShownText:
    def test_secrets_are_hidden(self):
        assert shown_text("https://me:pass@h.org/a.jpg?X-Amz-Signature=abc") == (
            "https://…@h.org/a.jpg?X-Amz-Signature=…"
        )

    def test_lines_stay(self):
        assert shown_text("a\n b") == "a\n b"

    def test_a_long_text_is_cut_and_shows_it(self):
        assert shown_text("x" * TEXT_CHARS) == "x" * TEXT_CHARS
        assert shown_text("x" * (TEXT_CHARS + 1)) == "x" * TEXT_CHARS + CUT
        assert shown_text("https://h/?sig=" + "x" * 1_000_000) == "https://h/?sig=…" + CUT
