import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from PIL import Image

from imgdl_pipeline.core.catalog import build as catalog
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.retry import Retry
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, FACTS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.layout import catalog_path, checked_path, downloads_path, links_path
from imgdl_pipeline.core.storage.ledger import Download, Ledger
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.rows import kill

MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)
TUESDAY = MONDAY + timedelta(days=1)


@pytest.fixture
def run(store, loopback):
    """Lists links, downloads them and builds the catalog; gives its rows by the link's path."""

    def run_(*links, at=MONDAY, **changes):
        store.write_table(links_path("g"), links_table(links, at))
        download_gallery("g", store, loopback.overridden_by(changes), retry=Retry(attempts=1))
        built = build_catalog("g", store, DownloadSettings(**changes))
        assert built.catalog.schema.equals(CATALOG)
        assert store.read_table(catalog_path("g"), CATALOG).equals(built.catalog)
        return {row["url"].rpartition("/")[2]: row for row in built.catalog.to_pylist()}

    return run_


def test_an_image_has_every_fact(run, server, store):
    picture = jpeg(1, (200, 100), progressive=True)
    url = server.serve("/a.jpg", picture, ETag='"v1"', Last_Modified="Mon, 01 Jun 2026 00:00:00 GMT")
    row = run(Link(url, {"title": "A", "license": "CC0-1.0"}))["a.jpg"]
    assert store.get(row["path"]) == picture
    assert (row["status"], row["reason"], row["detail"]) == ("ok", None, None)
    assert (row["width"], row["height"], row["mode"], row["progressive"]) == (200, 100, "RGB", True)
    assert (row["bytes"], len(row["sha256"]), len(row["phash"])) == (len(picture), 64, 16)
    assert (row["http_status"], row["attempts"], row["etag"]) == (200, 1, '"v1"')
    assert row["last_modified"] == "Mon, 01 Jun 2026 00:00:00 GMT"
    assert row["first_seen"] == row["last_seen"] == MONDAY
    assert row["fetched_at"] > MONDAY
    assert json.loads(row["attributes"]) == {"title": "A", "license": "CC0-1.0"}
    assert json.loads(row["exif"]) == {}
    assert row["duplicate_of"] is None


def test_a_link_without_an_image_has_its_reason_and_no_facts(run, server):
    row = run(Link(server.url("/dead.jpg")))["dead.jpg"]
    assert (row["status"], row["reason"], row["http_status"]) == ("failed", "http_404", 404)
    assert row["detail"] == "the server answered 404 Not Found"
    facts = ("path", "sha256", "bytes", "width", "height", "mode", "progressive", "phash", "exif")
    assert [row[name] for name in facts] == [None] * len(facts)


def test_a_damaged_image_is_a_row_and_no_file(run, server, store):
    row = run(Link(server.serve("/cut.jpg", jpeg()[:-500])))["cut.jpg"]
    assert (row["status"], row["reason"], row["path"], row["sha256"]) == ("invalid", "truncated", None, None)
    assert list(store.list("images")) == []
    [known] = store.read_table(downloads_path("g"), DOWNLOADS).to_pylist()
    assert (known["status"], known["reason"]) == ("invalid", "truncated")


def test_a_damaged_image_is_fetched_again_by_the_next_run(run, server):
    link = Link(server.serve("/a.jpg", jpeg()[:-500]))
    run(link)
    server.serve("/a.jpg", jpeg())
    assert run(link)["a.jpg"]["status"] == "ok"


def test_too_many_pixels_is_a_row(run, server):
    row = run(Link(server.serve("/a.jpg", jpeg(1, (200, 100)))), max_pixels=19_999)["a.jpg"]
    assert (row["status"], row["reason"]) == ("invalid", "too_many_pixels")
    assert row["detail"] == "200 × 100 is 20000 pixels, and max_pixels is 19999"


def test_copies_name_the_first_link_with_the_same_bytes(run, server):
    same, other = jpeg(1), jpeg(2)
    names = {"a": same, "b": other, "c": same, "d": same}
    rows = run(*(Link(server.serve(f"/{name}.jpg", data)) for name, data in names.items()))
    first = server.url("/a.jpg")
    assert [rows[f"{name}.jpg"]["duplicate_of"] for name in names] == [None, None, first, first]


def test_rows_stand_in_the_lists_order(run, server):
    names = ["c", "a", "d", "b"]
    rows = run(*(Link(server.serve(f"/{name}.jpg", jpeg())) for name in names))
    assert list(rows) == ["c.jpg", "a.jpg", "d.jpg", "b.jpg"]


def test_first_seen_stays_and_last_seen_moves(run, server):
    link = Link(server.serve("/a.jpg", jpeg()))
    run(link, at=MONDAY)
    row = run(link, at=TUESDAY)["a.jpg"]
    assert (row["first_seen"], row["last_seen"]) == (MONDAY, TUESDAY)


def test_a_link_that_is_listed_no_more_keeps_its_row_and_its_last_seen(run, server):
    gone = Link(server.serve("/gone.jpg", jpeg(1)), {"title": "still known"})
    run(gone, Link(server.url("/dead.jpg")), at=MONDAY)
    rows = run(Link(server.serve("/new.jpg", jpeg(2))), at=TUESDAY)
    assert list(rows) == ["new.jpg", "gone.jpg", "dead.jpg"]
    assert (rows["gone.jpg"]["first_seen"], rows["gone.jpg"]["last_seen"]) == (MONDAY, MONDAY)
    assert json.loads(rows["gone.jpg"]["attributes"]) == {"title": "still known"}
    assert (rows["new.jpg"]["first_seen"], rows["new.jpg"]["last_seen"]) == (TUESDAY, TUESDAY)


def test_new_attributes_replace_the_old(run, server):
    url = server.serve("/a.jpg", jpeg())
    run(Link(url, {"title": "old"}))
    assert json.loads(run(Link(url, {"title": "new"}))["a.jpg"]["attributes"]) == {"title": "new"}


def test_only_files_that_are_not_known_are_checked(run, server, store):
    links = [Link(server.serve(f"/{number}.jpg", jpeg(number))) for number in range(3)]
    run(*links[:2])
    store.write_table(links_path("g"), links_table(links, TUESDAY))
    assert build_catalog("g", store, DownloadSettings()).checked == 0


def test_a_catalog_without_news_is_not_written_again(run, server, store, tmp_path):
    run(Link(server.serve("/a.jpg", jpeg())))
    file = tmp_path / "store" / catalog_path("g")
    before = file.stat().st_mtime_ns
    build_catalog("g", store, DownloadSettings())
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [("alter", "invalid", "hash_mismatch"), ("remove", "failed", "incomplete")],
)
def test_a_file_that_was_altered_or_removed_before_it_was_checked_is_told(
    server, store, loopback, change, status, reason
):
    store.write_table(links_path("g"), links_table([Link(server.serve("/a.jpg", jpeg()))], MONDAY))
    path = download_gallery("g", store, loopback).ledger["path"][0].as_py()
    store.put(path, jpeg(9)) if change == "alter" else store.delete([path])
    [row] = build_catalog("g", store, DownloadSettings()).catalog.to_pylist()
    assert (row["status"], row["reason"]) == (status, reason)
    assert store.get(path) is None


def test_a_killed_builds_verdicts_are_not_lost(server, store, loopback):
    """Between the ledger and the catalog: the ledger alone tells the next build what was found."""
    store.write_table(links_path("g"), links_table([Link(server.serve("/a.jpg", jpeg()[:-500]))], MONDAY))
    download_gallery("g", store, loopback)
    build_catalog("g", store, DownloadSettings())
    store.delete([catalog_path("g")])
    [row] = build_catalog("g", store, DownloadSettings()).catalog.to_pylist()
    assert (row["status"], row["reason"]) == ("invalid", "truncated")


def test_exif_travels_to_the_catalog(run, server):
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    row = run(Link(server.serve("/a.jpg", jpeg(exif=exif.tobytes()))))["a.jpg"]
    assert json.loads(row["exif"]) == {"Make": "Canon"}


def test_without_a_link_list_it_says_what_to_do(store):
    with pytest.raises(StoreError, match="materialize gallery_links first"):
        build_catalog("g", store, DownloadSettings())


def test_a_gallery_whose_links_were_not_tried_has_an_empty_catalog(store):
    store.write_table(links_path("g"), links_table([Link("https://h.org/a.jpg")], MONDAY))
    assert build_catalog("g", store, DownloadSettings()).catalog.num_rows == 0


def test_progress_is_told_for_each_checked_file(server, store, loopback):
    links = [Link(server.serve(f"/{number}.jpg", jpeg(number))) for number in range(5)]
    store.write_table(links_path("g"), links_table(links, MONDAY))
    download_gallery("g", store, loopback, checks_early=False)
    told = []
    build_catalog("g", store, DownloadSettings(), on_progress=told.append)
    assert told == [Counted(number, 5, "new images checked") for number in range(1, 6)]


def test_what_was_checked_while_it_was_downloaded_has_the_same_facts_and_is_not_decoded_again(
    server, tmp_path, loopback
):
    pictures = [jpeg(1), jpeg(2, (64, 64), "L"), jpeg(3, progressive=True), jpeg(4)[:-500]]
    links = [Link(server.serve(f"/{number}.jpg", data)) for number, data in enumerate(pictures)]
    facts, decoded = {}, {}
    for early in (True, False):
        store, told = Store(str(tmp_path / str(early))), []
        store.write_table(links_path("g"), links_table(links, MONDAY))
        download_gallery("g", store, loopback, checks_early=early)
        built = build_catalog("g", store, loopback, on_progress=told.append)
        facts[early] = built.catalog.select(FACTS.names)
        decoded[early] = len(told)
        assert built.checked == 4
        assert build_catalog("g", store, loopback).checked == 0
    assert facts[True].equals(facts[False])
    assert decoded == {True: 0, False: 4}


def test_the_catalog_works_on_s3_as_on_a_disk(s3_bucket, server, loopback):
    store = Store(s3_bucket)
    links = [Link(server.serve("/a.jpg", jpeg())), Link(server.serve("/cut.jpg", jpeg()[:-99]))]
    store.write_table(links_path("g"), links_table(links, MONDAY))
    download_gallery("g", store, loopback)
    rows = build_catalog("g", store, DownloadSettings()).catalog.to_pylist()
    assert [row["status"] for row in rows] == ["ok", "invalid"]
    assert store.get(rows[0]["path"]) == jpeg()
    assert Image.open(io.BytesIO(store.get(rows[0]["path"]))).size == (320, 240)
    with Ledger(store, "g") as ledger:
        assert ledger.table.num_rows == 2


def test_an_empty_gallery_has_its_three_files(run, store):
    assert run() == {}
    assert store.read_table(downloads_path("g"), DOWNLOADS).num_rows == 0


def test_a_verdict_outlives_the_checkpoints_of_a_killed_run(server, store, loopback):
    store.write_table(links_path("g"), links_table([Link(server.serve("/a.jpg", jpeg()[:-500]))], MONDAY))
    known = download_gallery("g", store, loopback).ledger.to_pylist()[0]
    killed = Ledger(store, "g")
    killed.__enter__()
    killed.add(Download(**known))
    killed.checkpoint()
    kill(killed)
    build_catalog("g", store, DownloadSettings())
    [row] = store.read_table(downloads_path("g"), DOWNLOADS).to_pylist()
    assert (row["status"], row["reason"], row["path"]) == ("invalid", "truncated", None)


def test_what_was_checked_before_an_interrupt_is_not_checked_again(store, loopback, server, monkeypatch):
    links = [Link(server.serve(f"/{number}.jpg", jpeg(number))) for number in range(40)]
    store.write_table(links_path("g"), links_table(links, MONDAY))
    download_gallery("g", store, loopback, checks_early=False)
    monkeypatch.setattr("imgdl_pipeline.core.catalog.build.CHECKPOINT_S", 0.0)

    def interrupt(progress):
        if progress.done == 39:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_catalog("g", store, loopback, on_progress=interrupt)
    told = []
    built = build_catalog("g", store, loopback, on_progress=told.append)
    assert len(told) == 2
    assert set(built.catalog["status"].to_pylist()) == {"ok"}
    assert None not in built.catalog["phash"].to_pylist()
    assert list(store.list(checked_path("g"))) == []


@pytest.fixture
def unchecked(store, loopback, server):
    """Puts so many images into the store that nobody has checked."""

    def download(count):
        links = [Link(server.serve(f"/{number}.jpg", jpeg(number, (16, 16)))) for number in range(count)]
        store.write_table(links_path("g"), links_table(links, MONDAY))
        download_gallery("g", store, loopback, checks_early=False)
        return store

    return download


def test_an_interrupted_check_ends_with_the_image_at_hand(unchecked, loopback, monkeypatch):
    store = unchecked(40)
    is_ending, checked = threading.Event(), []

    class Executor(ThreadPoolExecutor):
        def shutdown(self, *args, **options):
            is_ending.set()
            super().shutdown(*args, **options)

    class Workers(JpegWorkers):
        def validate_stored(self, open_image, size, limits, sha256=None):
            checked.append(sha256)
            if len(checked) == 5:  # while the second batch's first is decoded, the run ends
                is_ending.wait(10)
            return super().validate_stored(open_image, size, limits, sha256)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(catalog, "BATCH_FILES", 4)
    monkeypatch.setattr(catalog, "ThreadPoolExecutor", Executor)
    with Workers(1) as jpegs, pytest.raises(KeyboardInterrupt):
        build_catalog("g", store, loopback, jpegs=jpegs, on_progress=interrupt)
    assert len(checked) == 5


def test_no_thread_is_left_when_a_checkpoint_fails(unchecked, loopback, monkeypatch):
    store = unchecked(40)

    def fail(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(catalog, "CHECKPOINT_S", 0)
    monkeypatch.setattr(Checkpoints, "add", fail)
    with pytest.raises(StoreError) as caught:
        build_catalog("g", store, loopback)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("validate")]
    assert (str(caught.value), left) == ("the disk is full", [])


def test_few_images_are_checked_at_the_same_time(unchecked, loopback):
    store = unchecked(2)
    both_at_work = threading.Barrier(2)

    class Workers(JpegWorkers):
        def validate_stored(self, open_image, size, limits, sha256=None):
            both_at_work.wait(10)
            return super().validate_stored(open_image, size, limits, sha256)

    with Workers(2) as jpegs:
        assert build_catalog("g", store, loopback, jpegs=jpegs).checked == 2
