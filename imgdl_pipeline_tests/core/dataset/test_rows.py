import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest

from imgdl_pipeline.core.dataset.rows import caption_of, chosen_rows, key_of
from imgdl_pipeline.core.dataset.where import WhereError
from imgdl_pipeline.core.model.schemas import CATALOG, NEAR_DUPLICATES, REMOVED
from imgdl_pipeline.core.storage.layout import NEAR_DUPLICATES_PATH
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.removed import Removed
from imgdl_pipeline_tests.support.datasets import Gallery, settings_of, url_of
from imgdl_pipeline_tests.support.rows import catalog_of

NOTHING = Removed(REMOVED.empty_table())


def urls(gallery, where=None, removed=NOTHING):
    with chosen_rows(gallery.store, gallery.name, settings_of(where=where), removed) as rows:
        table = pa.concat_tables(rows.batches())
        assert table.num_rows == rows.num_rows
    assert table.schema.equals(CATALOG)
    return [int(url.rpartition("/")[2].partition(".")[0]) for url in table["url"].to_pylist()]


def write_groups(store, *rows):
    """Near duplicates: gallery, number, group, whether it represents the group."""
    table = NEAR_DUPLICATES.empty_table().from_pylist(
        [
            {
                "gallery": name,
                "url": url_of(number),
                "group": group,
                "representative": is_first,
                "distance": 0,
            }
            for name, number, group, is_first in rows
        ],
        schema=NEAR_DUPLICATES,
    )
    store.write_table(NEAR_DUPLICATES_PATH, table)


def test_all_that_are_ok_are_chosen_in_the_catalogs_order(gallery):
    assert urls(gallery.put(3, 1, 2)) == [3, 1, 2]
    assert urls(gallery, "width >= 102") == [3, 2]


def test_no_condition_brings_back_what_is_not_ok(gallery):
    assert urls(gallery.put(1), "status != 'ok' or true") == [1]


def test_what_must_not_be_kept_is_not_chosen_though_the_catalog_has_it(gallery):
    gallery.put(1, 2, 3, 4)
    entries = [
        {"url": url_of(1)},
        {"sha256": gallery.rows[2]["sha256"]},
        {"phash": gallery.rows[3]["phash"], "distance": 0},
    ]
    removed = Removed(REMOVED.empty_table().from_pylist(entries, schema=REMOVED))
    assert urls(gallery, removed=removed) == [4]
    assert urls(gallery, "true", removed=removed) == [4]


def test_without_a_catalog_the_error_says_what_to_do(store):
    with pytest.raises(StoreError, match=r"catalog\.parquet does not exist: run the gallery first"):
        chosen_rows(store, "g", settings_of(), NOTHING).__enter__()


def test_a_condition_that_fails_on_the_data_is_an_error(gallery):
    with pytest.raises(WhereError, match="Could not convert"):
        urls(gallery.put(1), "cast(url as int) > 1")


def test_a_condition_may_use_groups_and_who_looks_like_nobody_represents_itself(gallery):
    write_groups(gallery.store, ("g", 1, 7, False), ("g", 2, 7, True), ("other", 3, 7, False))
    gallery.put(1, 2, 3, 4)
    assert urls(gallery, "representative") == [2, 3, 4]
    assert urls(gallery, '"group" = 7') == [1, 2]
    assert urls(gallery, '"group" is null') == [3, 4]


def test_without_near_duplicates_everybody_is_alone(gallery):
    gallery.put(1, 2)
    assert urls(gallery, "representative") == [1, 2]
    assert urls(gallery, '"group" is not null') == []


def test_the_group_of_another_gallerys_same_link_does_not_count(gallery):
    write_groups(gallery.store, ("other", 1, 7, False), ("g", 1, 9, True))
    assert urls(gallery.put(1), '"group" = 9 and representative') == [1]


def test_a_key_is_twenty_hex_digits_of_the_links_sha256():
    url = "https://example.org/é.jpg"
    assert key_of(url) == hashlib.sha256(url.encode()).hexdigest()[:20]


ATTRIBUTES = {
    "title": " Sea \n",
    "tags": ["a", 2],
    "empty": "  ",
    "number": 0,
    "no": None,
    "yes": True,
    "nested": {"x": 1},
    "dotted.name": "found",
    "emoji": "😀",
}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (None, None),
        ("attributes.title", "Sea"),
        ("attributes.tags", "a, 2"),
        ("attributes.empty", None),
        ("attributes.number", "0"),
        ("attributes.no", None),
        ("attributes.missing", None),
        ("attributes.yes", None),
        ("attributes.dotted.name", "found"),
        ("attributes.emoji", "😀"),
        ("embedded.caption", None),
        ("exif.ImageDescription", "by the sea"),
        ("width", "640"),
        ("license_id", None),
        ("color_profile", "Display P3"),
    ],
)
def test_a_caption_is_a_column_or_a_value_in_one(caption, expected):
    [row] = catalog_of(
        {
            "url": "u",
            "width": 640,
            "color_profile": "Display P3",
            "attributes": json.dumps(ATTRIBUTES),
            "exif": '{"ImageDescription": "by the sea"}',
        }
    ).to_pylist()
    assert caption_of(row, caption) == expected


def test_a_shard_has_the_groups_of_its_gallerys_images(store):
    shard = Gallery(store, "g/0001").put(1, 2, 3)
    write_groups(store, ("g", 1, 7, True), ("g", 2, 7, False), ("other", 3, 8, False))
    assert urls(shard, "representative") == [1, 3]
    assert urls(shard, '"group" = 7') == [1, 2]


def test_rows_are_chosen_again_read_by_column_and_in_another_order(gallery):
    gallery.put(3, 1, 2)
    with chosen_rows(gallery.store, gallery.name, settings_of(), NOTHING) as rows:
        assert rows.column("url").to_pylist() == [url_of(number) for number in (3, 1, 2)]
        some = rows.filter(np.array([True, False, True]))
        assert some.num_rows == 2
        assert some.column("width").to_pylist() == [103, 102]
        [table] = some.arranged(np.array([1, 0]), ["width", "url"])
        assert table.to_pydict() == {"width": [102, 103], "url": [url_of(2), url_of(3)]}
        assert rows.column("width").to_pylist() == [103, 101, 102]


def test_a_catalog_that_is_replaced_meanwhile_is_read_as_it_was(gallery):
    gallery.put(1, 2)
    with chosen_rows(gallery.store, gallery.name, settings_of(), NOTHING) as rows:
        gallery.drop(1)
        assert rows.column("url").to_pylist() == [url_of(1), url_of(2)]
