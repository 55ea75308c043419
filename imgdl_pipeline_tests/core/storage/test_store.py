import errno
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS, SCHEMA_VERSION_KEY
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, image_path, links_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

NAME = re.compile(r"images/g/[0-9a-f]{2}/[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9])?-[0-9a-f]{20}\.jpg")


def test_the_paths_are_the_contracts():
    assert links_path("g") == "links/gallery=g/links.parquet"
    assert downloads_path("g") == "downloads/gallery=g/downloads.parquet"
    assert catalog_path("g") == "catalog/gallery=g/catalog.parquet"
    assert image_path("g", "https://h.org/x.jpg").startswith("images/g/")


@pytest.mark.parametrize(
    ("url", "stem"),
    [
        ("https://h.org/dir/Sunset%20Hills.JPG?w=1", "Sunset_Hills"),
        ("https://h.org/photo.jpeg", "photo"),
        ("https://h.org/caf%C3%A9.jpg", "cafe"),
        ("https://h.org/%E5%BC%A0.jpg", "image"),
        ("https://h.org/a%2F..%2F..%2Fetc%2Fpasswd", "a_.._.._etc_passwd"),
        ("https://h.org/..", "image"),
        ("https://h.org/%00nul%00.jpg", "nul"),
        ("https://h.org/", "image"),
        ("https://h.org", "image"),
        ("http://[broken", "image"),
        ("https://h.org/CON", "CON"),
        ("https://h.org/" + "x" * 300 + ".jpg", "x" * 80),
        ("https://h.org/archive.tar", "archive.tar"),
    ],
)
def test_a_name_keeps_the_links_own_stem_made_safe(url, stem):
    path = image_path("g", url)
    assert NAME.fullmatch(path)
    assert path.rpartition("/")[2].rpartition("-")[0] == stem


@given(st.one_of(st.text(), st.text().map(lambda text: "https://h.org/" + quote(text, errors="replace"))))
def test_any_link_has_a_safe_name_inside_the_gallerys_folder(url):
    assert NAME.fullmatch(image_path("g", url))


@given(st.text(), st.text())
def test_two_links_never_share_a_file_even_where_case_is_not_told_apart(one, other):
    same = image_path("g", one).lower() == image_path("g", other).lower()
    assert same == (one == other)


def test_what_was_put_is_got_and_listed(store):
    store.put("images/g/00/a.jpg", b"one")
    store.put("images/g/01/b.jpg", b"three")
    store.put("images/g2/00/c.jpg", b"")
    assert store.get("images/g/00/a.jpg") == b"one"
    assert {(file.path, file.bytes) for file in store.list("images/g")} == {
        ("images/g/00/a.jpg", 3),
        ("images/g/01/b.jpg", 5),
    }


def test_a_file_that_is_not_there_is_none_and_deleting_it_is_no_error(store):
    assert store.get("nothing") is None
    store.delete(["nothing"])
    assert list(store.list("images/nothing")) == []


def test_a_reader_never_sees_half_a_file(store):
    sizes = [1_000_000, 2_000_000]
    store.put("f", b"x" * sizes[0])
    stop, seen = threading.Event(), set()

    def read():
        while not stop.is_set():
            seen.add(len(store.get("f")))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(40):
        store.put("f", b"x" * sizes[turn % 2])
    stop.set()
    reader.join()
    assert seen <= set(sizes)


def test_a_file_in_a_folders_place_says_so(tmp_path, store):
    store.put("images", b"not a folder")
    with pytest.raises(StoreError, match=r"cannot store .*/images/g/f: .+"):
        store.put("images/g/f", b"x")


def test_a_table_comes_back_as_it_was(store):
    table = pa.Table.from_pylist([{"url": "https://h.org/é.jpg", "attributes": "{}"}], schema=LINKS)
    store.write_table("links/l.parquet", table)
    assert store.read_table("links/l.parquet", LINKS).equals(table)
    assert store.read_table("links/none.parquet", LINKS) is None


def test_every_file_tells_its_schema_version(store, tmp_path):
    store.write_table("l.parquet", LINKS.empty_table())
    metadata = pq.read_schema(tmp_path / "store/l.parquet").metadata
    assert metadata[SCHEMA_VERSION_KEY] == b"4"


def test_a_table_of_another_schema_version_is_refused(store, tmp_path):
    table = LINKS.empty_table().replace_schema_metadata({SCHEMA_VERSION_KEY: b"99"})
    pq.write_table(table, tmp_path / "store/l.parquet")
    with pytest.raises(
        StoreError, match=r"schema version 99, and this imgdl_pipeline reads up to 4: .* so update"
    ):
        store.read_table("l.parquet", LINKS)


def test_rubbish_is_no_table(store):
    store.put("l.parquet", b"rubbish")
    with pytest.raises(StoreError, match="is not a Parquet file"):
        store.read_table("l.parquet", LINKS)


def test_a_relative_root_is_the_current_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Store("data").location("images") == str(tmp_path / "data/images")


def test_an_s3_bucket_is_a_store_like_any_other(s3_bucket):
    store = Store(f"{s3_bucket}/some/prefix/")
    store.put("images/g/00/a.jpg", b"one")
    assert store.get("images/g/00/a.jpg") == b"one"
    assert [file.path for file in store.list("images/g")] == ["images/g/00/a.jpg"]
    assert store.location("images") == f"{s3_bucket}/some/prefix/images"
    store.write_table("l.parquet", LINKS.empty_table())
    assert store.read_table("l.parquet", LINKS).num_rows == 0
    store.delete(["images/g/00/a.jpg"])
    assert store.get("images/g/00/a.jpg") is None


def test_a_large_file_is_stored_from_disk(store, tmp_path):
    file = tmp_path / "large"
    file.write_bytes(b"0123456789" * 1_000_000)
    with Path(file).open("rb") as opened:
        store.put("large", opened)
    assert store.get("large") == file.read_bytes()


@pytest.mark.parametrize("schema", [LINKS, DOWNLOADS, CATALOG], ids=["links", "downloads", "catalog"])
def test_a_file_of_version_1_is_read_with_nulls_for_what_came_later(schema, tmp_path, request):
    """The files in version_1 were written by the version that introduced them, and stay as they are."""
    old = Path(__file__).parents[2] / "support" / "version_1"
    name = request.node.callspec.id
    assert pq.read_schema(old / f"{name}.parquet").metadata[SCHEMA_VERSION_KEY] == b"1"
    table = Store(str(old)).read_table(f"{name}.parquet", schema)
    assert table.schema.equals(schema)
    assert [url[-5:] for url in table["url"].to_pylist()] == ["a.jpg", "b.jpg"]
    added = {"links": "request_headers", "downloads": "failures"}.get(name)
    if added:
        assert table[added].to_pylist() == [None, None]


def test_a_table_that_is_not_ours_is_refused(store, tmp_path):
    pq.write_table(LINKS.empty_table().replace_schema_metadata(None), tmp_path / "store/l.parquet")
    with pytest.raises(StoreError, match="was not written by imgdl_pipeline"):
        store.read_table("l.parquet", LINKS)


def test_a_column_that_should_be_there_is_missed(store, tmp_path):
    table = LINKS.empty_table().drop_columns(["request_headers"])
    pq.write_table(table, tmp_path / "store/l.parquet")
    with pytest.raises(StoreError, match="has no column request_headers"):
        store.read_table("l.parquet", LINKS)


@pytest.mark.parametrize("has_links", [True, False])
def test_of_many_that_create_a_file_one_succeeds_also_without_hard_links(store, monkeypatch, has_links):
    def refused(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refused)
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda number: store.create("a/b.json", b"%d" % number), range(40)))
    assert sum(created) == 1
    assert store.get("a/b.json") == b"%d" % created.index(True)
    assert [file.path for file in store.list("a")] == ["a/b.json"]


def test_a_file_that_cannot_be_created_is_an_error_that_says_why(store, tmp_path):
    store.put("a", b"a file")
    with pytest.raises(StoreError, match=r"cannot store .*(Not a directory|File exists)"):
        store.create("a/b.json", b"x")


def test_a_store_is_pickled_as_its_root_and_opened_again_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("relative")
    store.put("a/b", b"data")
    pickled = pickle.dumps(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(pickled)
    assert (type(again), again.root, again.get("a/b")) == (Store, str(tmp_path / "relative"), b"data")


def test_a_pickled_store_has_no_credentials(s3_bucket):
    pickled = pickle.dumps(Store(f"{s3_bucket}/prefix"))
    assert pickle.loads(pickled).root == f"{s3_bucket}/prefix"
    assert len(pickled) < 200


FORKED = """
import os, sys
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

store = Store(sys.argv[1])
if sys.argv[2] == "used":
    store.put("parent", b"")
pid = os.fork()
if not pid:
    try:
        store.put("child", b"")
    except StoreError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(("before", "words"), [("used", "was forked from one that has used"), ("unused", "")])
def test_a_process_that_is_forked_from_one_that_has_used_a_store_is_told_so(tmp_path, before, words):
    """It would wait for ever for threads that it does not have."""
    command = [sys.executable, "-c", FORKED, str(tmp_path), before]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert words in told
    assert (tmp_path / "child").exists() is (not words)
