"""A host is asked for its robots.txt once a day, whatever the number of runs."""

import json
import os
import subprocess
import sys
from datetime import datetime, timezone

import pytest

from imgdl_pipeline.core.download import kept_robots
from imgdl_pipeline.core.download.kept_robots import KeptRobots
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.http.host_files import Answer
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.schemas import DOWNLOADS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import ROBOTS_DAYS, downloads_path, links_path, robots_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.pictures import jpeg

ORIGIN = "https://h.org"
DAY, NOON = "2026-11-27", datetime(2026, 11, 27, 12, tzinfo=timezone.utc).timestamp()
FILE = Answer(200, b"User-agent: *\nDisallow: /no\n\xff\0")


def kept(store, agent="us/1", after_s=0.0):
    return KeptRobots(store, agent, lambda: NOON + after_s)


@pytest.mark.parametrize("answer", [FILE, Answer(204), Answer(404), Answer(503), Answer(429)])
def test_an_answer_is_the_same_for_another_run(any_store, answer):
    assert kept(any_store).get(ORIGIN) is None
    kept(any_store).put(ORIGIN, answer)
    assert kept(any_store, after_s=60).get(ORIGIN) == answer
    assert kept(any_store).get("https://other.org") is None


@pytest.mark.parametrize(
    ("answer", "seconds", "agent", "is_kept"),
    [
        (FILE, 43_000, "us/1", True),
        (FILE, 43_201, "us/1", False),
        (FILE, 60, "them/2", True),
        (Answer(404), 43_000, "us/1", True),
        (Answer(404), 60, "them/2", False),
        (Answer(503), 599, "us/1", True),
        (Answer(503), 600, "us/1", False),
        (Answer(503), 60, "them/2", False),
        (FILE, -299, "us/1", True),
        (FILE, -301, "us/1", False),
    ],
)
def test_how_long_and_for_whom_an_answer_counts(store, answer, seconds, agent, is_kept):
    kept(store).put(ORIGIN, answer)
    assert (kept(store, agent, seconds).get(ORIGIN) == answer) is is_kept


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: b"rubbish",
        lambda text: b"[]\n",
        lambda text: text[:-1],
        lambda text: text + b"Allow: /\n",
        lambda text: text.replace(b"h.org", b"x.org"),
        lambda text: text.replace(b'"status": 200', b'"status": "200"'),
        lambda text: text.replace(b'"fetched_at": ', b'"fetched_at": 1'),
        lambda text: text.replace(b'"fetched_at": 1', b'"fetched_at": NaN, "x": 1'),
    ],
)
def test_a_file_that_is_damaged_counts_as_none(store, change):
    kept(store).put(ORIGIN, FILE)
    path = robots_path(DAY, ORIGIN)
    store.put(path, change(store.get(path)))
    assert kept(store).get(ORIGIN) is None


def test_a_store_that_fails_costs_no_run(store, monkeypatch, caplog):
    def fail(*_):
        raise StoreError("the network is gone")

    for name in ("get", "put", "folders"):
        monkeypatch.setattr(store, name, fail)
    kept(store).put(ORIGIN, FILE)
    assert kept(store).get(ORIGIN) is None
    kept(store).forget_past_days()
    assert caplog.text.count("the network is gone") == 3


def test_the_files_of_past_days_are_deleted(any_store, monkeypatch):
    for days in (0, 1, 2, 3):
        for host in ("a", "b", "c"):
            kept(any_store, after_s=-86_400 * days).put(f"https://{host}.org", FILE)
    any_store.put(f"{ROBOTS_DAYS}/notes/x.txt", b"not ours")
    monkeypatch.setattr(kept_robots, "FORGOTTEN_FILES", 2)
    for left in (12, 11, 10 - 1, 8, 8):
        kept(any_store).forget_past_days()
        files = [file.path for file in any_store.list(ROBOTS_DAYS)]
        assert len(files) <= left
    assert {path.split("/")[2] for path in files} == {"2026-11-27", "2026-11-26", "notes"}


# Whole runs


def listed(store, server, gallery, *paths):
    links = [Link(server.serve(f"/{gallery}{path}", jpeg(), Content_Type="image/jpeg")) for path in paths]
    store.write_table(links_path(gallery), links_table(links, datetime.now(timezone.utc)))


def reasons(store, gallery):
    table = store.read_table(downloads_path(gallery), DOWNLOADS)
    return [row["reason"] for row in sorted(table.to_pylist(), key=lambda row: row["url"])]


@pytest.fixture
def settings():
    return DownloadSettings(allow_addresses=("127.0.0.0/8",), user_agent="us/1")


def test_a_second_run_on_the_same_day_does_not_ask_but_obeys(store, server, settings):
    server.serve("/robots.txt", b"User-agent: *\nDisallow: /*no.jpg\nUser-agent: them\nDisallow: /*yes.jpg")
    for gallery in ("a", "b", "c"):
        listed(store, server, gallery, "/no.jpg", "/yes.jpg")
    download_gallery("a", store, settings)
    assert (server.paths().count("/robots.txt"), reasons(store, "a")) == (1, ["robots", None])
    download_gallery("b", store, settings)
    download_gallery("a", store, settings, force=True)
    assert (server.paths().count("/robots.txt"), reasons(store, "b")) == (1, ["robots", None])
    download_gallery("c", store, settings.overridden_by({"user_agent": "them/2"}))
    assert (server.paths().count("/robots.txt"), reasons(store, "c")) == (1, [None, "robots"])


def test_what_a_kept_robots_txt_says_of_use_counts_for_each_purpose(store, server, settings):
    server.serve("/robots.txt", b"User-agent: *\nContent-Usage: search=n\nAllow: /")
    for gallery in ("a", "b"):
        listed(store, server, gallery, "/1.jpg")
        download_gallery(gallery, store, settings)
        assert reasons(store, gallery) == [None]
    download_gallery("b", store, settings.overridden_by({"purpose": "search"}), force=True)
    assert reasons(store, "b") == ["opt_out"]
    assert server.paths().count("/robots.txt") == 1


def test_a_kept_crawl_delay_is_heeded(store, server, settings):
    server.serve("/robots.txt", b"User-agent: *\nCrawl-delay: 0.2")
    for gallery in ("a", "b"):
        listed(store, server, gallery, *(f"/{number}.jpg" for number in range(6)))
        run = download_gallery(gallery, store, settings)
        assert run.seconds > 1.0


def test_a_host_in_trouble_is_not_asked_by_the_next_run(store, server, settings):
    server.serve("/robots.txt", b"", 503, Retry_After="0")
    for gallery in ("a", "b"):
        listed(store, server, gallery, "/1.jpg")
        download_gallery(gallery, store, settings)
    assert server.paths() == ["/robots.txt"] * 3
    assert reasons(store, "b") == ["robots"]


def test_two_processes_at_once_ask_at_most_once_each(any_store, server):
    code = (
        "import sys; from imgdl_pipeline.core.download import run\n"
        "from imgdl_pipeline.core.model.settings import DownloadSettings\n"
        "from imgdl_pipeline.core.storage.store import Store\n"
        "settings = DownloadSettings(allow_addresses=('127.0.0.0/8',))\n"
        "run.download_gallery(sys.argv[2], Store(sys.argv[1]), settings, checks_early=False)\n"
    )
    server.serve("/robots.txt", b"User-agent: *\nDisallow: /*no.jpg")
    for gallery in ("a", "b"):
        listed(any_store, server, gallery, "/no.jpg", *(f"/yes{number}.jpg" for number in range(20)))
    runs = [
        subprocess.Popen([sys.executable, "-c", code, any_store.root, gallery], env=dict(os.environ))
        for gallery in ("a", "b")
    ]
    assert [run.wait(120) for run in runs] == [0, 0]
    assert server.paths().count("/robots.txt") <= 2
    for gallery in ("a", "b"):
        assert reasons(any_store, gallery) == ["robots", *[None] * 20]


def test_what_is_kept_is_readable_by_a_person(store):
    kept(store).put(ORIGIN, FILE)
    line, _, body = store.get(robots_path(DAY, ORIGIN)).partition(b"\n")
    assert (json.loads(line)["origin"], body) == (ORIGIN, FILE.body)
