import csv
import gzip
import io
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core import sources
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.list_formats import READERS
from imgdl_pipeline.core.sources.url_list import UrlListSource

ROWS = [
    {"url": "https://h.org/a.jpg", "title": "A, the first", "n": 1},
    {"url": "https://h.org/b.jpg?x=1", "title": 'B "the second"', "n": 2},
]


def listed(path, **keys):
    with SourceClient(DownloadSettings(allow_addresses=("127.0.0.1/32",)), {}) as client:
        return list(sources.list_links(UrlListSource(type="url_list", path=str(path), **keys), client))


def separated(rows, delimiter):
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet(rows):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


FILES = {
    "txt": "\n".join(row["url"] for row in ROWS).encode(),
    "csv": separated(ROWS, ","),
    "tsv": separated(ROWS, "\t"),
    "json": json.dumps(ROWS).encode(),
    "jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "parquet": parquet(ROWS),
}


def expected(format_):
    if format_ == "txt":
        return [Link(row["url"]) for row in ROWS]
    as_ = str if format_ in ("csv", "tsv") else int
    return [Link(row["url"], {"title": row["title"], "n": as_(row["n"])}) for row in ROWS]


def test_every_format_of_the_settings_has_a_reader_and_a_file_here():
    assert list(FILES) == list(READERS)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("format_", FILES)
def test_every_format_is_read_plain_and_compressed(tmp_path, format_, ending):
    data = gzip.compress(FILES[format_]) if ending else FILES[format_]
    (tmp_path / f"list.{format_}{ending}").write_bytes(data)
    assert listed(tmp_path / f"list.{format_}{ending}") == expected(format_)


@pytest.mark.parametrize("format_", FILES)
def test_every_format_is_read_under_a_foreign_name_when_it_is_named(tmp_path, format_):
    (tmp_path / "list").write_bytes(FILES[format_])
    assert listed(tmp_path / "list", format=format_) == expected(format_)


@pytest.mark.parametrize("format_", FILES)
def test_every_format_is_read_over_http(server, format_):
    url = server.serve(f"/list.{format_}", FILES[format_], Content_Type="application/octet-stream")
    assert listed(f"{url}?token=1") == expected(format_)


def test_a_list_is_read_from_s3_and_a_glob_there_too(s3_bucket, s3_server):
    bucket = s3_bucket.removeprefix("s3://")
    for key in ("lists/b.txt", "lists/a.txt.gz", "lists/c.csv"):
        data = f"https://h.org/{key}\n".encode()
        body = gzip.compress(data) if key.endswith(".gz") else data
        requests.put(f"{s3_server}/{bucket}/{key}", data=body, timeout=10).raise_for_status()
    assert [link.url for link in listed(f"{s3_bucket}/lists/b.txt")] == ["https://h.org/lists/b.txt"]
    assert [link.url for link in listed(f"{s3_bucket}/lists/*.txt*")] == [
        "https://h.org/lists/a.txt.gz",
        "https://h.org/lists/b.txt",
    ]
    with pytest.raises(SourceError, match="nothing matches"):
        listed(f"{s3_bucket}/lists/*.jsonl")
    with pytest.raises(SourceError, match=r"lists/none\.txt"):
        listed(f"{s3_bucket}/lists/none.txt")


def test_a_glob_reads_its_files_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"https://h.org/{name}.jpg")
    assert [link.url[-5] for link in listed(tmp_path / "*.txt")] == ["a", "b", "c"]


def test_a_relative_path_is_the_current_folders(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text("https://h.org/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert listed("list.txt") == [Link("https://h.org/a.jpg")]


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(tmp_path):
    (tmp_path / "list[1].txt").write_text("https://h.org/a.jpg")
    assert listed(tmp_path / "list[1].txt") == [Link("https://h.org/a.jpg")]


def test_another_column_may_hold_the_link(tmp_path):
    (tmp_path / "l.csv").write_text("image_url,url\nhttps://h.org/a.jpg,https://h.org/page\n")
    assert listed(tmp_path / "l.csv", url_column="image_url") == [
        Link("https://h.org/a.jpg", {"url": "https://h.org/page"})
    ]


def test_comments_and_empty_lines_of_a_text_are_no_links(tmp_path):
    (tmp_path / "l.txt").write_text("\ufeff# mine\n\n  https://h.org/a.jpg  \n   \n# https://h.org/b.jpg\n")
    assert listed(tmp_path / "l.txt") == [Link("https://h.org/a.jpg")]


def test_json_may_hold_links_alone(tmp_path):
    (tmp_path / "l.json").write_text('["https://h.org/a.jpg", {"url": "https://h.org/b.jpg"}]')
    assert listed(tmp_path / "l.json") == [Link("https://h.org/a.jpg"), Link("https://h.org/b.jpg")]


def test_rows_without_a_link_are_passed_over_and_counted(tmp_path, caplog):
    (tmp_path / "l.jsonl").write_text('{"url": null}\n{"url": " "}\n{"url": "https://h.org/a.jpg"}\n')
    with caplog.at_level(logging.WARNING):
        assert listed(tmp_path / "l.jsonl") == [Link("https://h.org/a.jpg")]
    assert "l.jsonl: 2 of 3 rows have no url" in caplog.text


BROKEN = {
    "a.csv": (b"title\nx\n", "a.csv: there is no 'url', only 'title'; name it in source.url_column"),
    "b.csv": (b"url,t\nhttps://h.org/a,1\nhttps://h.org/b\n", "b.csv:3: 1 cells, and the header has 2"),
    "d.csv": (b"", "d.csv: there is no 'url', only none"),
    "f.json": (b'[\n"https://h.org/a",\n"b" "c"]', "f.json:3: "),
    "g.json": (
        b'{"url": "https://h.org/a"}',
        "g.json:1: a list of links is expected, and the object holds none",
    ),
    "g2.json": (
        b'{"a": {"b": [1]}, "c": 1}',
        "a list of links is expected, and the object holds none; there are lists deeper, at a.b",
    ),
    "h.json": (b'["https://h.org/a", 5]', "h.json: item 1: a link or an object is expected"),
    "i.jsonl": (b'"https://h.org/a"\n{"url": \n', "i.jsonl:2: "),
    "j.jsonl": (b'{"href": "https://h.org/a"}\n', "j.jsonl: there is no 'url', only 'href'"),
    "k.parquet": (b"PAR1 rubbish", "k.parquet: not valid Parquet"),
    "l.parquet": (parquet([{"href": "x"}]), "l.parquet: there is no 'url', only 'href'"),
    "m.txt.gz": (gzip.compress(b"x" * 1000)[:-20], "m.txt.gz: damaged gzip"),
    "n.xls": (b"x", "n.xls: its ending names none of txt, csv, tsv, json, jsonl, parquet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_list_is_an_error_with_its_file_and_line(tmp_path, name):
    data, words = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError) as caught:
        listed(tmp_path / name)
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=f"{tmp_path}/none.txt: there is no such file"):
        listed("none.txt")


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
ROW = st.fixed_dictionaries({"url": CELL.map(lambda text: f"https://h.org/{text.strip()}"), "t": CELL})


@given(st.lists(ROW, min_size=1, max_size=8), st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet"]))
def test_what_was_written_is_read(tmp_path_factory, rows, format_):
    data = {
        "csv": lambda: separated(rows, ","),
        "tsv": lambda: separated(rows, "\t"),
        "json": lambda: json.dumps(rows).encode(),
        "jsonl": lambda: "\n".join(map(json.dumps, rows)).encode(),
        "parquet": lambda: parquet(rows),
    }[format_]()
    path = tmp_path_factory.mktemp("lists") / f"l.{format_}"
    path.write_bytes(data)
    assert listed(path) == [Link.from_text(row["url"], {"t": row["t"]}) for row in rows]


@given(st.binary(max_size=300), st.sampled_from(list(READERS)))
def test_rubbish_is_links_or_an_error_for_people(tmp_path_factory, data, format_):
    path = tmp_path_factory.mktemp("lists") / "l"
    path.write_bytes(data)
    try:
        listed(path, format=format_)
    except SourceError as error:
        assert str(path) in str(error)
