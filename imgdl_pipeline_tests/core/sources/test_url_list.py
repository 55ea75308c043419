import csv
import gc
import gzip
import io
import json
import logging
import resource
import tempfile
import tracemalloc
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from imgdl_pipeline.core import sources
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.model import links as model_links
from imgdl_pipeline.core.model.links import ATTRIBUTES_CHARS, Link
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import url_list
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.list_formats import READERS
from imgdl_pipeline.core.sources.url_list import UrlListSource

ROWS = [
    {"url": "https://h.org/a.jpg", "title": "A, the first", "n": 1},
    {"url": "https://h.org/b.jpg?x=1", "title": 'B "the second"', "n": 2},
]


def listed(path, **keys):
    settings = DownloadSettings(allow_addresses=("127.0.0.1/32",))
    with SourceClient(settings, {}, sleep=lambda seconds: None) as client:
        return list(sources.list_links(UrlListSource(type="url_list", path=str(path), **keys), client))


def separated(rows, delimiter):
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet(rows):
    return parquet_of(pa.Table.from_pylist(rows))


def parquet_of(columns, **keys):
    file = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), file, **keys)
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


# Kinds of lists that users have

A, B = "https://h.org/0.jpg", "https://h.org/1.jpg"

CASES = {
    "lists of links": ("l.parquet", parquet([{"url": [A, B]}, {"url": [A]}]), [Link(A), Link(B), Link(A)]),
    "a year beyond 9999": (
        "l.parquet",
        parquet_of({"url": [A, B], "t": pa.array([2**60, 0], pa.timestamp("us"))}),
        [Link(A, {"t": f"<value out of range: {2**60}>"}), Link(B, {"t": datetime(1970, 1, 1)})],
    ),
    "rows without a URL": (
        "l.jsonl",
        f'{{"url":null}}\n{{"cap":"x"}}\n{{"url":"{A}"}}\n'.encode(),
        [Link(A)],
    ),
    "stray quotes": (
        "l.tsv",
        f'caption\turl\n"a" cat on a 12" mat\t{A}\nplain\t{B}\n'.encode(),
        [Link(A, {"caption": '"a" cat on a 12" mat'}), Link(B, {"caption": "plain"})],
    ),
    "semicolons": ("l.csv", f"url;cap\n{A};x\n".encode(), [Link(A, {"cap": "x"})]),
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", CASES)
def test_a_list_that_users_have_is_read(tmp_path, name, ending):
    file, data, links = CASES[name]
    (tmp_path / f"{file}{ending}").write_bytes(gzip.compress(data) if ending else data)
    assert listed(tmp_path / f"{file}{ending}") == links


def test_a_list_with_two_url_columns_is_an_error_that_names_both(tmp_path):
    (tmp_path / "l.csv").write_text(f"url,cap,url\n{A},a,thumb\n")
    with pytest.raises(SourceError) as caught:
        listed(tmp_path / "l.csv")
    assert str(caught.value) == (
        f"{tmp_path}/l.csv: columns 1 and 3 have the same name, 'url' and 'url'; rename one of them"
    )


# Settings


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "^", "~"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_setting_names_the_delimiter(tmp_path, ending, delimiter):
    (tmp_path / f"l.{ending}").write_text(f"url{delimiter}a,b\n{A}{delimiter}x,y\n")
    assert listed(tmp_path / f"l.{ending}", delimiter=delimiter) == [Link(A, {"a,b": "x,y"})]


@pytest.mark.parametrize("encoding", ["cp1252", "UTF-16", "latin-1", "mac-roman", "shift_jis"])
def test_a_setting_names_the_encoding(tmp_path, encoding):
    text = "ｶ" if encoding == "shift_jis" else "é"
    (tmp_path / "l.csv").write_bytes(f"url,t\n{A},{text}\n".encode(encoding))
    assert listed(tmp_path / "l.csv", encoding=encoding) == [Link(A, {"t": text})]


@pytest.mark.parametrize("encoding", ["utf-9", "", "excel", "rot13", "undefined", "utf\0-8"])
def test_an_encoding_that_is_unknown_fails_at_load(encoding):
    with pytest.raises(ValidationError, match="encoding"):
        UrlListSource(type="url_list", path="l.csv", encoding=encoding)


def test_an_unknown_encoding_is_told_which_are_known():
    with pytest.raises(ValidationError, match="'utf-9' is no encoding; utf-8, utf-16 and cp1252 are"):
        UrlListSource(type="url_list", path="l.csv", encoding="utf-9")


@pytest.mark.parametrize("keys", [{"delimiter": ""}, {"delimiter": "\\t"}, {"url_column": ""}, {"path": ""}])
def test_a_setting_that_cannot_be_meant_fails_at_load(keys):
    with pytest.raises(ValidationError, match=next(iter(keys))):
        UrlListSource(**{"type": "url_list", "path": "l.csv", **keys})


# Folders


def test_a_folder_is_read_file_by_file(tmp_path):
    folder = tmp_path / "lists [old]"
    folder.mkdir()
    for number, format_ in enumerate(FILES):
        data = FILES[format_]
        ending = "" if number % 2 else ".gz"
        (folder / f"{number}.{format_}{ending}").write_bytes(gzip.compress(data) if ending else data)
    (folder / "6.NDJSON").write_bytes(FILES["jsonl"])
    for name in ("_SUCCESS", "README.md", ".DS_Store", "l.xls"):
        (folder / name).write_text("no list")
    (folder / "folder.csv").mkdir()
    (folder / "folder.csv" / "l.txt").write_text("https://h.org/deeper.jpg")
    assert listed(folder) == [link for format_ in [*FILES, "jsonl"] for link in expected(format_)]
    assert listed(f"{folder}/") == listed(folder)


def test_a_file_of_a_folder_that_is_named_like_an_ending_has_none(tmp_path):
    (tmp_path / "l.txt").write_text(A)
    (tmp_path / "csv").write_text("no list")
    assert listed(tmp_path) == [Link(A)]


def test_a_folder_without_a_list_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=f"{tmp_path}: no file in this folder is one of txt, csv"):
        listed(tmp_path)
    (tmp_path / "README.md").touch()
    with pytest.raises(SourceError, match=f"{tmp_path}: no file in this folder is one of txt, csv"):
        listed(tmp_path)


def test_a_text_may_have_an_id_before_each_link(tmp_path):
    (tmp_path / "fall11_urls.txt").write_text(f"n01440764_36\t{A}\nn01440764_39 {B}\n")
    assert listed(tmp_path / "fall11_urls.txt") == [
        Link(A, {"id": "n01440764_36"}),
        Link(B, {"id": "n01440764_39"}),
    ]


def test_the_line_of_an_error_is_right_far_into_a_file(tmp_path):
    lines = ["url,t", *(f"{A}?{number},x" for number in range(12_345))]
    (tmp_path / "l.csv").write_text("\n".join([*lines, "short", *lines[1:]]))
    with pytest.raises(SourceError, match=r"l\.csv:12347: 1 cells, and the header has 2"):
        listed(tmp_path / "l.csv")


# Compressed files


def test_the_first_bytes_decide_whether_a_file_is_compressed(tmp_path):
    (tmp_path / "a.txt").write_bytes(gzip.compress(A.encode()))
    (tmp_path / "b.txt.gz").write_bytes(B.encode())
    assert listed(tmp_path) == [Link(A), Link(B)]


def test_a_compressed_file_may_have_several_members(tmp_path):
    (tmp_path / "l.txt.gz").write_bytes(
        gzip.compress(f"{A}\n".encode()) + gzip.compress(B.encode()) + b"\0" * 9
    )
    assert listed(tmp_path / "l.txt.gz") == [Link(A), Link(B)]


def damaged(data, kind):
    whole = gzip.compress(data, 0)
    return {
        "cut": whole[:-20],
        "cut in its header": whole[:5],
        "checksum": whole[:-8] + bytes(8),
        "junk behind": whole + b"junk",
        "header": whole[:2] + b"\x63" + whole[3:],
        "block": whole[:10] + b"\xff" + whole[11:],
    }[kind]


@pytest.mark.parametrize("kind", ["cut", "cut in its header", "checksum", "junk behind", "header", "block"])
@pytest.mark.parametrize("format_", FILES)
def test_a_damaged_compressed_file_is_an_error(tmp_path, format_, kind):
    (tmp_path / f"l.{format_}.gz").write_bytes(damaged(FILES[format_], kind))
    with pytest.raises(SourceError, match=rf"l\.{format_}\.gz: damaged gzip: "):
        listed(tmp_path / f"l.{format_}.gz")


@pytest.mark.parametrize("format_", FILES)
def test_a_file_that_is_too_long_decompressed_is_an_error(tmp_path, monkeypatch, format_):
    monkeypatch.setattr(url_list, "LIST_BYTES", len(FILES[format_]))
    (tmp_path / f"l.{format_}.gz").write_bytes(gzip.compress(FILES[format_]))
    assert listed(tmp_path / f"l.{format_}.gz") == expected(format_)
    monkeypatch.setattr(url_list, "LIST_BYTES", len(FILES[format_]) - 1)
    with pytest.raises(SourceError, match=r"is longer than \d+ bytes \(LIST_BYTES\)"):
        listed(tmp_path / f"l.{format_}.gz")


@pytest.mark.parametrize("format_", FILES)
def test_a_bomb_is_an_error_before_it_is_large(tmp_path, monkeypatch, format_):
    """50 MB of blanks, of which only the first is read."""
    monkeypatch.setattr(url_list, "LIST_BYTES", 1_000_000)
    with gzip.open(tmp_path / f"l.{format_}.gz", "wb", 1) as file:
        for _ in range(50):
            file.write((b" " * 999 + b"\n") * 1_000)
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=r"is longer than 1000000 bytes \(LIST_BYTES\)"):
            listed(tmp_path / f"l.{format_}.gz")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_a_list_on_the_web_or_in_a_bucket_has_a_limited_length(server, s3_bucket, s3_server, monkeypatch):
    monkeypatch.setattr(url_list, "LIST_BYTES", 1_000)
    data = f"{A}\n".encode() * 10_000
    requests.put(f"{s3_server}/{s3_bucket[5:]}/l.txt", data=data, timeout=10).raise_for_status()
    with pytest.raises(SourceError, match=r"/l\.txt: .*longer than 1000 bytes"):
        listed(f"{s3_bucket}/l.txt")
    with pytest.raises(SourceError, match=r"/l\.txt: .*1000"):
        listed(server.serve("/l.txt", data))
    with pytest.raises(SourceError, match=r"/l\.txt\.gz: .*longer than 1000 bytes"):
        listed(server.serve("/l.txt.gz", gzip.compress(data)))


# A full disk


@contextmanager
def full_disk(limit):
    """Let no file of this process grow beyond a number of bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("rows", [20, 20_000])
@pytest.mark.parametrize("place", ["a compressed parquet file", "the web", "a bucket"])
def test_a_full_disk_is_named_and_is_no_fault_of_the_list(request, tmp_path, place, rows):
    urls = [f"https://h.org/{number}.jpg" for number in range(rows)]
    text = "\n".join(urls).encode()
    tempfile.gettempdir()
    if place == "the web":
        path = request.getfixturevalue("server").serve("/l.txt", text)
    elif place == "a bucket":
        path = f"{request.getfixturevalue('s3_bucket')}/l.txt"
        url = path.replace("s3:/", request.getfixturevalue("s3_server"))
        requests.put(url, data=text, timeout=10).raise_for_status()
    else:
        path = tmp_path / "l.parquet.gz"
        path.write_bytes(gzip.compress(parquet_of({"url": urls}, use_dictionary=False, compression="none")))
    assert len(listed(path)) == rows
    with full_disk(100), pytest.raises(ResourceError) as caught:
        listed(path)
    assert str(caught.value).startswith(f"cannot write a temporary file in {tempfile.gettempdir()}: ")
    del caught
    gc.collect()  # a temporary file that was left open is a warning, and so an error


# Through to the gallery's list


def gallery_list(path, store, **keys):
    source = UrlListSource(type="url_list", path=str(path), **keys)
    links = list_gallery("g", source, store, DownloadSettings())
    return read_links(store, "g"), list_warnings(links)


def test_a_long_text_that_a_small_file_repeats_is_cut_with_a_warning(tmp_path, store):
    long, count = "x" * (ATTRIBUTES_CHARS + 10_000), 10_000
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([long]))
    urls = [f"https://h.org/{number}.jpg" for number in range(count)]
    (tmp_path / "l.parquet").write_bytes(parquet_of({"url": urls, "t": texts, "n": range(count)}))
    assert (tmp_path / "l.parquet").stat().st_size < 300_000
    tracemalloc.start()
    try:
        links, warnings = gallery_list(tmp_path / "l.parquet", store)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000_000
    assert warnings == [
        f"g: {count} links have attributes of more than {ATTRIBUTES_CHARS} characters (ATTRIBUTES_CHARS); "
        "their long texts are cut, or all of them left out"
    ]
    assert links["url"].to_pylist() == urls
    assert json.loads(links["attributes"][7].as_py()) == {"t": "x" * 999 + "…", "n": 7}


@pytest.mark.parametrize(("name", "limit"), [("MAX_LINKS", 2), ("MAX_LIST_BYTES", 50)])
def test_a_list_that_is_too_large_is_an_error_that_names_the_limit(tmp_path, store, monkeypatch, name, limit):
    (tmp_path / "l.txt").write_text("".join(f"{A}?{number}\n" for number in range(3)))
    monkeypatch.setattr(model_links, name, limit)
    with pytest.raises(SourceError, match=rf"^the list is too large: .* {limit} .*\({name}\)$"):
        gallery_list(tmp_path / "l.txt", store)


def test_rows_without_a_link_are_a_warning_of_the_gallerys_list(tmp_path, store):
    (tmp_path / "l.jsonl").write_text(f'{{"url": null}}\n{{"cap": "x"}}\n{{"url": "{A}"}}\n')
    links, warnings = gallery_list(tmp_path / "l.jsonl", store)
    assert links["url"].to_pylist() == [A]
    assert warnings == [f"{tmp_path}/l.jsonl: 2 of 3 rows have no url"]


def test_a_link_with_a_password_is_listed_without_it(tmp_path, store):
    (tmp_path / "l.csv").write_text("url,t\nhttps://me:hush@h.org/a.jpg#top,x\n")
    links, _ = gallery_list(tmp_path / "l.csv", store)
    assert links["url"].to_pylist() == ["https://h.org/a.jpg"]
    assert "Authorization" in links["request_headers"][0].as_py()
