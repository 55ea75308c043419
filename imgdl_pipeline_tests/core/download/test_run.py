import base64
import hashlib
import itertools
import socket
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone

import pytest

from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.retry import Retry
from imgdl_pipeline.core.download.run import Progress, download_gallery
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.schemas import DOWNLOADS
from imgdl_pipeline.core.model.settings import HOST_SLOTS, DownloadSettings
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, image_path, links_path
from imgdl_pipeline.core.storage.ledger import Download, Ledger
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import WebServer, deaf_port

PICTURE = jpeg()
NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
AT_ONCE = Retry(attempts=4, first_s=0.0)


def listed(store, *urls, **attributes):
    links = [Link(url, attributes) for url in urls]
    store.write_table(links_path("g"), links_table(links, datetime.now(timezone.utc)))


def rows(run):
    return {row["url"]: row for row in run.ledger.to_pylist()}


def download(store, settings, **more):
    return download_gallery("g", store, settings, **{"retry": AT_ONCE, **more})


def row(url, **changes):
    return Download(
        **{"url": url, "status": "ok", "tried_at": NOW, "attempts": 1, "elapsed_s": 0.1, **changes}
    )


def test_each_link_has_one_row_and_each_image_its_file(store, server, loopback):
    good = [server.serve(f"/{number}.jpg", jpeg(number)) for number in range(20)]
    dead = server.url("/dead.jpg")
    listed(store, *good, dead)
    run = download(store, loopback)
    assert len(rows(run)) == 21
    assert rows(run)[dead]["reason"] == "http_404"
    assert all(store.get(rows(run)[url]["path"]) == jpeg(number) for number, url in enumerate(good))
    assert store.read_table(downloads_path("g"), DOWNLOADS).equals(run.ledger)


def test_a_second_run_asks_only_for_what_has_no_image(store, server, loopback):
    listed(store, server.serve("/a.jpg", PICTURE), server.url("/dead.jpg"))
    download(store, loopback)
    server.requests.clear()
    run = download(store, loopback)
    assert server.paths() == ["/dead.jpg"]
    assert [each["url"] for each in run.tried.to_pylist()] == [server.url("/dead.jpg")]


def test_a_link_whose_file_is_gone_is_fetched_again(store, server, loopback):
    listed(store, server.serve("/a.jpg", PICTURE))
    path = rows(download(store, loopback))[server.url("/a.jpg")]["path"]
    store.delete([path])
    download(store, loopback)
    assert store.get(path) == PICTURE


def test_new_links_are_fetched_and_old_rows_stay(store, server, loopback):
    listed(store, server.serve("/a.jpg", PICTURE))
    download(store, loopback)
    listed(store, server.serve("/b.jpg", PICTURE))
    assert set(rows(download(store, loopback))) == {server.url("/a.jpg"), server.url("/b.jpg")}


def test_passing_trouble_is_tried_again_up_to_the_attempts(store, server, loopback):
    listed(store, server.serve("/busy.jpg", b"", 500), server.serve("/gone.jpg", b"", 410))
    run = download(store, loopback)
    assert rows(run)[server.url("/busy.jpg")]["attempts"] == 4
    assert rows(run)[server.url("/gone.jpg")]["attempts"] == 1
    assert server.paths().count("/busy.jpg") == 4


def test_what_comes_at_the_second_attempt_is_ok(store, server, loopback):
    def answer(handler):
        first = server.paths().count("/a.jpg") == 1
        handler.answer(503 if first else 200, b"" if first else PICTURE, Retry_After="0")

    server.routes["/a.jpg"] = answer
    listed(store, server.url("/a.jpg"))
    assert rows(download(store, loopback))[server.url("/a.jpg")]["attempts"] == 2


def test_a_hash_from_the_source_is_checked(store, server, loopback):
    listed(store, server.serve("/a.jpg", PICTURE), sha1="0" * 40)
    assert rows(download(store, loopback))[server.url("/a.jpg")]["reason"] == "hash_mismatch"


def test_a_limit_fetches_no_more_links_than_that(store, server, loopback):
    listed(store, *(server.serve(f"/{number}.jpg", PICTURE) for number in range(9)))
    assert len(rows(download(store, loopback, limit=4))) == 4
    assert len(rows(download(store, loopback, limit=4))) == 8


def test_without_a_link_list_it_says_what_to_do(store, loopback):
    with pytest.raises(StoreError, match=r"links\.parquet does not exist: materialize gallery_links first"):
        download(store, loopback)


def test_an_empty_list_is_a_run_without_rows(store, loopback):
    listed(store)
    assert download(store, loopback).ledger.num_rows == 0


def test_a_store_that_fails_ends_the_run_with_its_own_error(store, server, loopback):
    listed(store, *(server.serve(f"/{number}.jpg", PICTURE) for number in range(30)))
    store.put("images/g", b"a file where the folder should be")
    with pytest.raises(StoreError, match="cannot store"):
        download(store, loopback)


def test_an_error_of_our_own_is_a_row_and_not_the_end(store, server, loopback, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("imgdl_pipeline.core.download.work.image_path", broken)
    listed(store, server.serve("/a.jpg", PICTURE))
    [only] = rows(download(store, loopback)).values()
    assert (only["reason"], only["detail"]) == ("connection", "unexpected ZeroDivisionError: a bug")


def test_an_interrupted_run_keeps_what_was_done_and_leaves_no_thread(store, server, loopback):
    listed(store, *(server.serve(f"/{number}.jpg", PICTURE) for number in range(50)))

    def interrupt(progress):
        if progress.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(store, loopback, on_progress=interrupt)
    assert not [
        each for each in threading.enumerate() if each.name.startswith(("DownloadWorker", "validate"))
    ]
    kept = store.read_table(downloads_path("g"), DOWNLOADS).num_rows
    assert 10 <= kept < 50
    server.requests.clear()
    assert download(store, loopback).ledger.num_rows == 50
    assert len(server.paths()) == 50 - kept


def test_progress_is_told_after_every_link(store, server, loopback):
    listed(store, *(server.serve(f"/{number}.jpg", PICTURE) for number in range(3)), server.url("/no"))
    told = []
    download(store, loopback, on_progress=told.append)
    finished = [(each.done, each.total) for each in told if not each.busy]
    assert finished == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert told[-1].failed == 1


def test_progress_reads_as_a_sentence():
    told = str(Progress(done=50, total=200, failed=3, seconds=10.0))
    assert told == "50 of 200 links, 5.0 a second, 30 s to go, 3 without an image"
    told = str(Progress(done=0, total=200, failed=0, seconds=10.0, busy=8))
    assert told == "0 of 200 links, 0.0 a second, none done yet, 0 without an image, 8 being asked for"


def test_a_run_that_waits_says_so_before_its_first_link_is_done(store, server, loopback):
    waited = threading.Event()
    server.routes["/slow.jpg"] = lambda handler: (waited.wait(10), handler.answer(200, PICTURE))
    listed(store, server.url("/slow.jpg"))

    def tell(progress):
        if progress.busy:
            told.append(progress)
            waited.set()

    told = []
    assert download(store, loopback, on_progress=tell).fetched.num_rows == 1
    assert (told[0].done, told[0].busy) == (0, 1)


class TestRecheck:
    def test_an_old_image_is_asked_for_conditionally_and_kept(self, store, server, loopback):
        url = self.first_run(store, server, loopback)
        server.routes["/a.jpg"] = lambda handler: handler.answer(304, b"")
        before = self.age(store)
        after = rows(download(store, loopback.overridden_by({"recheck": 1})))[url]
        assert server.requests[-1][1]["If-None-Match"] == '"v1"'
        assert after == {**before, "tried_at": after["tried_at"], "checked_at": after["tried_at"]}
        assert after["tried_at"] > before["tried_at"]

    def test_changed_bytes_replace_the_old_ones(self, store, server, loopback):
        url = self.first_run(store, server, loopback)
        self.age(store)
        server.serve("/a.jpg", jpeg(99))
        after = rows(download(store, loopback.overridden_by({"recheck": 1})))[url]
        assert store.get(after["path"]) == jpeg(99)

    def test_a_server_in_trouble_does_not_cost_the_image(self, store, server, loopback):
        url = self.first_run(store, server, loopback)
        self.age(store)
        server.serve("/a.jpg", b"", 500)
        after = rows(download(store, loopback.overridden_by({"recheck": 1})))[url]
        assert (after["status"], store.get(after["path"])) == ("ok", PICTURE)

    def test_a_young_image_is_not_asked_for(self, store, server, loopback):
        self.first_run(store, server, loopback)
        assert download(store, loopback.overridden_by({"recheck": 1})).tried.num_rows == 0

    @pytest.mark.parametrize("body", [b"<html>please log in</html>", b"", PICTURE[:-500]])
    def test_bytes_that_are_no_jpeg_do_not_cost_it(self, store, server, loopback, body):
        url = self.first_run(store, server, loopback)
        self.age(store)
        server.serve("/a.jpg", body)
        after = rows(download(store, loopback.overridden_by({"recheck": 1})))[url]
        assert (after["status"], store.get(after["path"])) == ("ok", PICTURE)

    def test_an_owner_who_opts_out_is_heeded(self, store, server, loopback):
        url = self.first_run(store, server, loopback)
        path = self.age(store)["path"]
        server.serve("/a.jpg", PICTURE, X_Robots_Tag="noai")
        after = rows(download(store, loopback.overridden_by({"recheck": 1})))[url]
        assert (after["reason"], after["path"], store.get(path)) == ("opt_out", None, None)

    def test_only_what_was_fetched_counts_as_fetched(self, store, server, loopback):
        self.first_run(store, server, loopback)
        server.routes["/a.jpg"] = lambda handler: handler.answer(304, b"")
        self.age(store)
        run = download(store, loopback.overridden_by({"recheck": 1}))
        assert (run.tried.num_rows, run.fetched.num_rows) == (1, 0)

    def first_run(self, store, server, loopback):
        url = server.serve("/a.jpg", PICTURE, ETag='"v1"')
        listed(store, url)
        download(store, loopback)
        return url

    def test_an_image_that_could_not_be_asked_about_is_asked_about_by_the_next_run(
        self, store, server, loopback
    ):
        self.first_run(store, server, loopback)
        aged = self.age(store)
        server.serve("/a.jpg", b"", 503)
        download(store, loopback.overridden_by({"recheck": 1}))
        [row] = store.read_table(downloads_path("g"), DOWNLOADS).to_pylist()
        assert (row["status"], row["tried_at"]) == ("ok", aged["tried_at"])

    def age(self, store):
        with Ledger(store, "g") as ledger:
            [known] = ledger.table.to_pylist()
            aged = {**known, "tried_at": known["tried_at"] - timedelta(days=2)}
            ledger.add(Download(**aged))
        return aged


# Every setting changes something: a case for each, and the test fails for a setting without one.


def changes_workers(store, server, settings):
    together = threading.Barrier(12)

    def answer(handler):
        together.wait(10)
        handler.answer(200, PICTURE)

    for number in range(12):
        server.routes[f"/{number}.jpg"] = answer
    listed(store, *(server.url(f"/{number}.jpg") for number in range(12)))
    run = download(store, settings.overridden_by({"workers": 12, "per_host": 12}))
    assert {each["status"] for each in rows(run).values()} == {"ok"}


def most_at_once(count, store, server, settings):
    """Download so many images; the most requests that the server had at a time."""
    now, most, lock = 0, 0, threading.Lock()

    def answer(handler):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        body = jpeg(1, (900, 700))
        with lock:
            now -= 1
        handler.answer(200, body)

    for number in range(count):
        server.routes[f"/{number}.jpg"] = answer
    listed(store, *(server.url(f"/{number}.jpg") for number in range(count)))
    download(store, settings)
    return most


def changes_per_host(store, server, settings):
    assert most_at_once(12, store, server, settings.overridden_by({"per_host": 1})) == 1


def only_row(store, settings, **changes):
    [only] = rows(download(store, settings.overridden_by(changes), retry=None)).values()
    return only


def changes_timeout(store, server, settings):
    server.routes["/a.jpg"] = lambda handler: server.release.wait(30)
    listed(store, server.url("/a.jpg"))
    assert only_row(store, settings, timeout=0.3)["detail"] == "not done within 0.3 s"


def changes_attempts(store, server, settings):
    listed(store, server.serve("/a.jpg", b"", 503, Retry_After="0"))
    assert only_row(store, settings, attempts=3)["attempts"] == 3


def changes_max_bytes(store, server, settings):
    listed(store, server.serve("/a.jpg", PICTURE))
    assert only_row(store, settings, max_bytes=100)["reason"] == "too_large"


def changes_host_patience(store, server, settings):
    listed(store, *(server.serve(f"/{number}.jpg", b"", 500) for number in range(50)))
    run = download(store, settings.overridden_by({"host_patience": 0.01, "per_host": 1}))
    assert sum("host_patience" in row["detail"] for row in rows(run).values()) > 40


def changes_time_limit(store, server, settings):
    listed(store, server.serve("/a.jpg", PICTURE))
    assert download(store, settings.overridden_by({"time_limit": 1e-6})).waiting == 1


def changes_processes(store, server, settings):
    urls = [server.serve(f"/{number}.jpg", PICTURE) for number in range(60)]
    listed(store, *urls, *(url.replace("127.0.0.1", "localhost") for url in urls))
    names = set()
    download(
        store,
        settings.overridden_by({"processes": 2}),
        on_progress=lambda _: names.update(each.name for each in threading.enumerate()),
    )
    assert {"imgdl-process-0", "imgdl-process-1"} <= names


def changes_requests_per_second(store, server, settings):
    server.serve("/robots.txt", b"")
    listed(store, *(server.serve(f"/{number}.jpg", PICTURE) for number in range(3)))
    run = download(store, settings.overridden_by({"requests_per_second": 8}))
    assert {row["status"] for row in rows(run).values()} == {"ok"}
    assert run.seconds >= 2 / 8


def changes_allow_addresses(store, server, settings):
    listed(store, server.serve("/a.jpg", PICTURE))
    assert only_row(store, settings, allow_addresses=())["reason"] == "private_address"


def changes_robots_txt(store, server, settings):
    server.serve("/robots.txt", b"User-agent: *\nDisallow: /")
    listed(store, server.serve("/a.jpg", PICTURE))
    assert only_row(store, settings, robots_txt=True)["reason"] == "robots"
    assert only_row(store, settings, robots_txt=False)["status"] == "ok"


def changes_opt_out_headers(store, server, settings):
    listed(store, server.serve("/a.jpg", PICTURE, X_Robots_Tag="noai"))
    assert only_row(store, settings)["reason"] == "opt_out"
    assert only_row(store, settings, opt_out_headers=False)["status"] == "ok"


def changes_purpose(store, server, settings):
    listed(store, server.serve("/a.jpg", PICTURE, X_Robots_Tag="noai"))
    assert only_row(store, settings)["reason"] == "opt_out"
    assert only_row(store, settings, purpose="search")["status"] == "ok"


def changes_user_agent(store, server, settings):
    listed(store, server.serve("/a.jpg", PICTURE))
    only_row(store, settings, user_agent="me/1.0 (+https://h.org)")
    assert server.requests[0][1]["User-Agent"] == "me/1.0 (+https://h.org)"


ELSEWHERE = {
    "max_pixels": "test_catalog.py",
    "max_decode_bytes": "test_validation.py",
    "recheck": "TestRecheck",
    "environment_proxies": "test_transport.py",
}


@pytest.mark.parametrize("name", DownloadSettings.model_fields)
def test_every_setting_changes_something(name, store, server, loopback):
    if name not in ELSEWHERE:
        globals()[f"changes_{name}"](store, server, loopback)


def test_a_host_that_refuses_connections_is_given_up_and_the_others_go_on(store, server, loopback):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = f"http://127.0.0.1:{gone.getsockname()[1]}"
    good = [server.serve(f"/{number}.jpg", PICTURE) for number in range(5)]
    listed(store, *(f"{dead}/{number}.jpg" for number in range(200)), *good)
    told = rows(download(store, loopback.overridden_by({"attempts": 4})))
    assert all(told[url]["status"] == "ok" for url in good)
    dead_rows = [row for url, row in told.items() if url.startswith(dead)]
    assert {row["reason"] for row in dead_rows} == {"connection"}
    assert sum(row["attempts"] for row in dead_rows) < 200
    assert sum("not tried" in row["detail"] for row in dead_rows) > 150


def test_a_busy_host_is_left_alone_by_all_workers_while_the_others_go_on(store, server, loopback):
    """Another port is another host: all of it is worked through while the busy one is paused."""
    with WebServer() as other:
        busy = [server.serve(f"/{number}.jpg", b"", 429, Retry_After="100") for number in range(20)]
        good = [other.serve(f"/{number}.jpg", PICTURE) for number in range(20)]
        listed(store, *(url for urls in zip(busy, good, strict=True) for url in urls))

        def interrupt(progress):
            if progress.done == 20 and server.paths():
                raise KeyboardInterrupt

        settings = loopback.overridden_by({"attempts": 3, "per_host": 1})
        with pytest.raises(KeyboardInterrupt):
            download(store, settings, on_progress=interrupt)
    known = store.read_table(downloads_path("g"), DOWNLOADS)
    assert sorted(known["url"].to_pylist()) == sorted(good)
    assert len(server.paths()) == 1


def test_a_busy_host_goes_on_after_its_pause(store, server, loopback):
    asked_at = []

    def busy_at_first(handler):
        asked_at.append(time.monotonic())
        is_first = len(asked_at) == 1
        handler.answer(429 if is_first else 200, b"" if is_first else PICTURE, Retry_After="1")

    urls = [server.url(f"/{number}.jpg") for number in range(20)]
    for number in range(20):
        server.routes[f"/{number}.jpg"] = busy_at_first
    listed(store, *urls)
    run = download(store, loopback.overridden_by({"attempts": 3, "per_host": 1}))
    assert {row["status"] for row in rows(run).values()} == {"ok"}
    assert asked_at[1] - asked_at[0] >= 1.0


def test_a_dead_target_of_redirects_does_not_cost_the_host_that_redirects(store, server, loopback):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = f"http://127.0.0.1:{gone.getsockname()[1]}/x.jpg"
    redirects = [server.redirect(f"/to{number}.jpg", dead) for number in range(60)]
    good = [server.serve(f"/{number}.jpg", PICTURE) for number in range(60)]
    listed(store, *redirects, *good)
    told = rows(download(store, loopback))
    assert all(told[url]["status"] == "ok" for url in good)
    assert {told[url]["reason"] for url in redirects} == {"connection"}


def test_a_host_that_asks_three_links_for_an_hour_is_not_asked_again_in_this_run(store, server, loopback):
    urls = [server.serve(f"/{number}.jpg", b"", 429, Retry_After="3600") for number in range(100)]
    listed(store, *urls)
    told = rows(download(store, loopback))
    assert {row["reason"] for row in told.values()} == {"http_429"}
    assert len(server.paths()) < 20
    assert (
        sum("asked 3 links for a pause longer than this run" in row["detail"] for row in told.values()) > 80
    )


def test_one_link_that_asks_for_a_day_does_not_cost_the_other_links_of_its_host(store, server, loopback):
    slow = server.serve("/slow.jpg", b"", 503, Retry_After="86400")
    good = [server.serve(f"/{number}.jpg", PICTURE) for number in range(30)]
    listed(store, slow, *good)
    told = rows(download(store, loopback))
    assert told[slow]["reason"] == "http_503"
    assert {told[url]["status"] for url in good} == {"ok"}


def handshakes_never(store, server):
    """A port that takes connections and never answers, as one that should speak TLS."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=1000)
    return silent, f"https://127.0.0.1:{silent.getsockname()[1]}"


def drip(handler):
    while not handler.server.release.wait(0.02):
        handler.wfile.write(b"H")


TROUBLE = {
    "429 with a pause": lambda handler: handler.answer(429, b"", Retry_After="119"),
    "429 without one": lambda handler: handler.answer(429, b""),
    "503 with a pause": lambda handler: handler.answer(503, b"", Retry_After="1"),
    "500": lambda handler: handler.answer(500, b""),
    "silence": lambda handler: handler.server.release.wait(60),
    "a drip": drip,
    "hanging up": lambda handler: handler.hang_up(),
}


LASTING = ("silence", "a drip")
"""Trouble that takes the whole timeout, which is long enough for the other host on a busy machine."""


@pytest.mark.parametrize(
    "trouble",
    [pytest.param(each, marks=pytest.mark.long if each in LASTING else ()) for each in TROUBLE],
)
def test_ten_thousand_links_at_a_host_in_trouble_end_with_its_patience(trouble, store, server, loopback):
    with WebServer() as bad:
        bad.forward = TROUBLE[trouble]
        good = [server.serve(f"/{number}.jpg", PICTURE) for number in range(40)]
        listed(store, *(bad.url(f"/{number}.jpg") for number in range(10_000)), *good)
        settings = loopback.overridden_by({"host_patience": 1.0, "robots_txt": False})
        run = download(store, settings, retry=None)
    told = rows(run)
    assert {told[url]["status"] for url in good} == {"ok"}
    assert len(told) == 10_040
    assert {row["status"] for row in told.values()} == {"ok", "failed"}
    given_up = [row for row in told.values() if "not tried: in 1 s (host_patience)" in (row["detail"] or "")]
    assert len(given_up) > 9_000
    assert not any(row["failures"] for row in given_up), "the next run tries them"


def test_a_port_that_never_shakes_hands_ends_with_its_hosts_patience(store, server, loopback):
    silent, origin = handshakes_never(store, server)
    with silent:
        good = server.serve("/good.jpg", PICTURE)
        listed(store, *(f"{origin}/{number}.jpg" for number in range(500)), good)
        settings = loopback.overridden_by({"host_patience": 1.0, "timeout": 0.4, "robots_txt": False})
        told = rows(download(store, settings))
    assert told[good]["status"] == "ok"
    assert sum("host_patience" in (row["detail"] or "") for row in told.values()) > 400


def test_a_slow_host_that_gives_images_is_never_given_up(store, server, loopback):
    gate = threading.Barrier(3)

    def slow(handler):
        try:
            gate.wait(0.2)  # never: only two ask at a time
        except threading.BrokenBarrierError:
            gate.reset()
        handler.answer(200, PICTURE)

    for number in range(12):
        server.routes[f"/{number}.jpg"] = slow
    listed(store, *(server.url(f"/{number}.jpg") for number in range(12)))
    settings = loopback.overridden_by({"host_patience": 0.4, "per_host": 2, "robots_txt": False})
    run = download(store, settings)
    assert run.seconds > 0.8
    assert {row["status"] for row in rows(run).values()} == {"ok"}


def test_a_404_is_a_definite_answer_of_its_host(store, server, loopback):
    urls = [server.serve(f"/{number}.jpg", b"", 404 if number % 2 else 500) for number in range(40)]
    listed(store, *urls)
    settings = loopback.overridden_by({"host_patience": 0.05, "per_host": 1, "attempts": 1})
    told = rows(download(store, settings, retry=None))
    assert not any("host_patience" in row["detail"] for row in told.values())


def test_after_the_time_limit_no_link_begins_and_what_is_in_flight_ends(store, server, loopback):
    begun = threading.Event()

    def slow(handler):
        begun.set()
        handler.server.release.wait(1.2)
        handler.answer(200, PICTURE)

    for number in range(100):
        server.routes[f"/{number}.jpg"] = slow
    listed(store, *(server.url(f"/{number}.jpg") for number in range(100)))
    settings = loopback.overridden_by({"time_limit": 1.0, "robots_txt": False})
    run = download(store, settings)
    assert len(server.paths()) == len(rows(run)) == 8
    assert {row["status"] for row in rows(run).values()} == {"ok"}
    assert run.waiting == 92
    assert run.seconds < 5
    server.release.set()
    assert download(store, loopback).tried.num_rows == 92, "the next run takes the rest"


def test_a_link_that_the_time_limit_leaves_between_two_attempts_keeps_its_last_error(store, server, loopback):
    url = server.serve("/a.jpg", b"", 503, Retry_After="100")
    listed(store, url)
    run = download(store, loopback.overridden_by({"time_limit": 0.5, "attempts": 4}), retry=None)
    assert (rows(run)[url]["reason"], run.waiting) == ("http_503", 1)


def test_a_limit_says_how_many_links_it_leaves(store, server, loopback):
    listed(store, *(server.serve(f"/{number}.jpg", PICTURE) for number in range(5)))
    assert download(store, loopback, limit=2).waiting == 3


def most_in_a_second(times):
    return max(sum(start <= at < start + 1.0 for at in times) for start in times)


def counted(server, count, settings, store):
    """Download so many images; when the server got each request, of robots.txt and redirects too."""
    times = []

    def answer(handler):
        times.append(time.monotonic())
        is_redirect = handler.path.endswith("0.jpg")
        location = {"Location": "/to" + handler.path[1:-5] + "1.jpg"} if is_redirect else {}
        body = b"" if handler.path == "/robots.txt" or is_redirect else PICTURE
        handler.answer(302 if is_redirect else 200, body, **location)

    server.forward = answer
    listed(store, *(server.url(f"/{number}.jpg") for number in range(count)))
    run = download(store, settings)
    assert {row["status"] for row in rows(run).values()} == {"ok"}
    return times


def test_no_second_holds_more_requests_to_a_host_than_the_setting_allows(store, server, loopback):
    times = counted(
        server, 30, loopback.overridden_by({"requests_per_second": 12, "robots_txt": True}), store
    )
    assert len(times) == 30 + 2 + 3
    assert most_in_a_second(times) <= 12
    assert (len(times) - 1) / (times[-1] - times[0]) > 10, "and not much fewer either"


def test_a_robots_txt_that_redirects_is_followed_however_slowly_its_host_is_asked(store, server, loopback):
    server.redirect("/robots.txt", "/rules.txt")
    server.serve("/rules.txt", b"User-agent: *\nDisallow: /no")
    allowed, forbidden = server.serve("/a.jpg", PICTURE), server.serve("/no.jpg", PICTURE)
    listed(store, allowed, forbidden)
    told = rows(download(store, loopback.overridden_by({"requests_per_second": 3, "robots_txt": True})))
    assert (told[allowed]["status"], told[forbidden]["reason"]) == ("ok", "robots")
    assert sorted(server.paths()) == ["/.well-known/tdmrep.json", "/a.jpg", "/robots.txt", "/rules.txt"]


def test_a_host_that_answers_500_is_asked_more_slowly(store, server, loopback):
    listed(store, *(server.serve(f"/{number}.jpg", b"", 500) for number in range(2_000)))
    settings = loopback.overridden_by({"host_patience": 1.5, "attempts": 4, "robots_txt": False})
    run = download(store, settings, retry=None)
    assert len(server.paths()) < 60
    assert run.seconds < 5


def test_a_password_that_a_server_repeats_is_in_no_row(store, server, loopback):
    def answer(handler):
        repeated = handler.headers["Authorization"]
        handler.send_raw(f"HTTP/1.1 403 no {repeated} bob:s3cret\r\nETag: {repeated}\r\n\r\n".encode())

    server.routes["/a.jpg"] = answer
    link = Link.from_text(server.url("/a.jpg").replace("http://", "http://bob:s3cret@"))
    store.write_table(links_path("g"), links_table([link], NOW))
    [only] = rows(download(store, loopback)).values()
    token = base64.b64encode(b"bob:s3cret").decode()
    assert not any(word in str(only) for word in ("s3cret", token))
    assert only["reason"] == "http_403"


def test_a_crawl_delay_in_robots_txt_is_heeded(store, server, loopback):
    times = []

    def answer(handler):
        times.append(time.monotonic())
        is_rules = handler.path == "/robots.txt"
        handler.answer(200, b"User-agent: *\nCrawl-delay: 0.4\n" if is_rules else PICTURE)

    server.forward = answer
    listed(store, *(server.url(f"/{number}.jpg") for number in range(4)))
    download(store, loopback.overridden_by({"robots_txt": True}))
    assert all(later - earlier > 0.39 for earlier, later in itertools.pairwise(times[1:]))


def test_a_host_that_answers_429_is_asked_more_slowly_until_it_answers_well(store, server, loopback):
    """A server with a hidden limit: 20 a second, and five at once."""
    times, tokens, filled_at, lock = [], 5.0, time.monotonic(), threading.Lock()

    def answer(handler):
        nonlocal tokens, filled_at
        with lock:
            now = time.monotonic()
            tokens, filled_at = min(5.0, tokens + (now - filled_at) * 20), now
            is_good = tokens >= 1
            tokens -= is_good
            times.append((now, is_good))
        handler.answer(200 if is_good else 429, PICTURE if is_good else b"")

    server.forward = answer
    listed(store, *(server.url(f"/{number}.jpg") for number in range(60)))
    settings = loopback.overridden_by({"robots_txt": False, "attempts": 10})
    run = download(store, settings, retry=None)
    assert {row["status"] for row in rows(run).values()} == {"ok"}
    assert sum(not is_good for _, is_good in times) < 20


def test_a_temporary_file_that_cannot_be_written_ends_the_run(store, server, loopback, monkeypatch):
    def full(*_):
        raise ResourceError("cannot write a temporary file: No space left on device")

    monkeypatch.setattr("imgdl_pipeline.core.download.body._Kept.add", full)
    listed(store, server.serve("/a.jpg", PICTURE))
    with pytest.raises(ResourceError, match="No space left"):
        download(store, loopback)


def test_a_password_in_a_link_reaches_its_host_and_no_file_but_the_list(store, server, loopback):
    def answer(handler):
        token = base64.b64encode(b"me:hunter2").decode()
        granted = handler.headers.get("Authorization") == f"Basic {token}"
        handler.answer(200 if granted else 401, PICTURE if granted else b"")

    server.routes["/a.jpg"] = answer
    links = [Link.from_text(server.url(path).replace("//", "//me:hunter2@")) for path in ("/a.jpg", "/b.jpg")]
    store.write_table(links_path("g"), links_table(links, NOW))
    told = rows(download(store, loopback))
    assert told[server.url("/a.jpg")]["status"] == "ok"
    assert told[server.url("/b.jpg")]["reason"] == "http_404"
    build_catalog("g", store, loopback)
    for path in (downloads_path("g"), catalog_path("g")):
        assert b"hunter2" not in store.get(path)
        assert token_of("me:hunter2") not in store.get(path)


def token_of(secret):
    return base64.b64encode(secret.encode())


def test_a_lasting_failure_is_left_alone_for_longer_and_longer(store, server, loopback):
    url = server.url("/dead.jpg")
    listed(store, url)
    assert [rows(download(store, loopback))[url]["failures"] for _ in range(3)] == [1, 2, 2]
    assert server.paths() == ["/dead.jpg"] * 2
    download(store, loopback, force=True)
    assert server.paths() == ["/dead.jpg"] * 3


def test_a_file_that_is_damaged_run_after_run_counts_its_failures_and_a_good_one_forgets_them(
    store, server, loopback
):
    url = server.serve("/a.jpg", PICTURE[:-500])
    listed(store, url)
    counted = []
    for _ in range(3):
        download(store, loopback)
        build_catalog("g", store, loopback)
        [row] = store.read_table(downloads_path("g"), DOWNLOADS).to_pylist()
        counted.append((row["reason"], row["failures"]))
    assert counted == [("truncated", 1), ("truncated", 2), ("truncated", 2)]
    server.serve("/a.jpg", PICTURE)
    path = rows(download(store, loopback, force=True))[url]["path"]
    store.delete([path])
    server.serve("/a.jpg", b"", 404)
    assert rows(download(store, loopback))[url]["failures"] == 1


def test_a_forced_run_asks_for_known_images_conditionally(store, server, loopback):
    listed(store, server.serve("/a.jpg", PICTURE, ETag='"v1"'))
    download(store, loopback)
    server.routes["/a.jpg"] = lambda handler: handler.answer(304, b"")
    run = download(store, loopback, force=True)
    assert (run.tried.num_rows, run.fetched.num_rows) == (1, 0)
    assert server.requests[-1][1]["If-None-Match"] == '"v1"'


def test_a_host_whose_owner_allows_two_requests_at_a_time_gets_no_more(store, server, loopback, monkeypatch):
    monkeypatch.setitem(HOST_SLOTS, "127.0.0.1", 2)
    settings = loopback.overridden_by({"workers": 16, "per_host": 16})
    assert most_at_once(16, store, server, settings) == 2
    for scheme in ("http", "https"):
        host = host_of(f"{scheme}://upload.wikimedia.org/a.jpg")
        assert [DownloadSettings(per_host=number).slots(host) for number in (1, 16)] == [1, 2]


def test_a_host_that_is_redirected_to_gets_no_more_requests_at_a_time_than_any_other(store, server, loopback):
    with ExitStack() as stack:
        hosts = [stack.enter_context(WebServer()) for _ in range(4)]
        settings = loopback.overridden_by({"workers": 16, "per_host": 2})
        in_flight, most, lock = [0], [0], threading.Lock()

        def answer(handler):
            with lock:
                in_flight[0] += 1
                most[0] = max(most[0], in_flight[0])
            server.release.wait(0.02)
            with lock:
                in_flight[0] -= 1
            handler.answer(200, PICTURE)

        urls = []
        for number, host in enumerate(hosts * 6):
            server.routes[f"/{number}.jpg"] = answer
            urls.append(host.redirect(f"/{number}.jpg", server.url(f"/{number}.jpg")))
        listed(store, *urls)
        assert {row["status"] for row in rows(download(store, settings)).values()} == {"ok"}
    assert most == [2]


@pytest.mark.parametrize("seconds", ["1", "3600"])
def test_a_pause_that_a_redirects_target_asks_for_is_kept(store, server, loopback, seconds):
    with WebServer() as target:
        busy = target.serve("/busy.jpg", b"", 429, Retry_After=seconds)
        listed(store, *(server.redirect(f"/{number}.jpg", busy) for number in range(40)))
        settings = loopback.overridden_by({"host_patience": 3})
        told = rows(download(store, settings, retry=Retry(attempts=1)))
        assert {row["reason"] for row in told.values()} == {"http_429"}
        assert len(target.paths()) <= (8 if seconds == "3600" else 8 * 3)


def test_a_pause_is_kept_also_when_its_link_is_not_tried_again(store, server, loopback):
    busy = [server.serve(f"/{number}.jpg", b"", 429, Retry_After="1") for number in range(17)]
    listed(store, *busy)
    settings = loopback.overridden_by({"host_patience": 2.5})
    run = download(store, settings, retry=Retry(attempts=1))
    assert {row["reason"] for row in rows(run).values()} == {"http_429"}
    assert run.seconds >= 2
    assert len(server.paths()) <= 17


def test_a_host_whose_connections_time_out_is_given_up(store, loopback):
    with deaf_port() as port:
        listed(store, *(f"http://127.0.0.1:{port}/{number}.jpg" for number in range(100)))
        run = download(store, loopback.overridden_by({"timeout": 0.3}), retry=Retry(attempts=1))
    told = rows(run).values()
    assert {row["reason"] for row in told} == {"timeout", "connection"}
    assert sum(row["attempts"] == 0 for row in told) >= 50
    assert run.seconds < 10


@pytest.mark.parametrize("size", [100.0, "100.0", 100, "100"])
def test_a_byte_count_is_checked_however_a_table_writes_it(store, server, loopback, size):
    listed(store, server.serve("/a.jpg", PICTURE), bytes=size)
    [row] = rows(download(store, loopback)).values()
    assert row["reason"] == "hash_mismatch"


def test_an_outage_does_not_count_when_a_link_dies_later(store, server, loopback):
    url = server.serve("/a.jpg", b"", 500)
    listed(store, url)
    for _ in range(4):
        assert rows(download(store, loopback))[url]["failures"] == 0
    server.serve("/a.jpg", b"", 404)
    assert [rows(download(store, loopback))[url]["failures"] for _ in range(2)] == [1, 2]


def test_an_image_that_is_not_as_long_as_it_was_is_fetched_again(store, server, loopback):
    """As a power failure may leave one, or somebody's editor."""
    url = server.serve("/a.jpg", PICTURE)
    listed(store, url)
    path = rows(download(store, loopback))[url]["path"]
    store.put(path, b"")
    download(store, loopback)
    assert store.get(path) == PICTURE


def test_a_recheck_that_gives_the_same_bytes_rewrites_nothing(store, server, loopback, tmp_path):
    url = server.serve("/a.jpg", PICTURE, ETag='"v1"')
    listed(store, url)
    known = rows(download(store, loopback))[url]
    file = tmp_path / "store" / known["path"]
    before = file.stat()
    server.serve("/a.jpg", PICTURE, ETag='"v2"')
    run = download(store, loopback, force=True)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert run.fetched.num_rows == 0
    assert rows(run)[url]["etag"] == '"v2"'
    assert rows(run)[url]["fetched_at"] == known["fetched_at"]
    assert build_catalog("g", store, loopback).checked == 1
    assert build_catalog("g", store, loopback).checked == 0


def test_a_passing_failure_forgets_no_lasting_ones(store, server, loopback):
    url = server.url("/a.jpg")
    listed(store, url)
    counted = []
    for status in (404, 404, 500, 404):
        server.serve("/a.jpg", b"", status)
        counted.append(rows(download(store, loopback, force=True))[url]["failures"])
    assert counted == [1, 2, 2, 3]


def test_a_whole_file_whose_row_was_lost_is_adopted_and_not_asked_for(store, server, loopback):
    urls = [server.serve(f"/{number}.jpg", jpeg(number)) for number in range(3)]
    listed(store, *urls)
    for number, url in enumerate(urls[:2]):
        store.put(image_path("g", url), jpeg(number))
    run = download(store, loopback)
    assert server.paths() == ["/2.jpg"]
    assert {row["status"] for row in rows(run).values()} == {"ok"}
    assert rows(run)[urls[0]]["sha256"] == hashlib.sha256(jpeg(0)).hexdigest()


def test_a_file_whose_row_was_lost_and_that_is_not_what_its_source_describes_is_fetched(
    store, server, loopback
):
    url = server.serve("/a.jpg", PICTURE)
    listed(store, url, sha256=hashlib.sha256(PICTURE).hexdigest())
    store.put(image_path("g", url), jpeg(9))
    run = download(store, loopback)
    assert server.paths() == ["/a.jpg"]
    assert store.get(rows(run)[url]["path"]) == PICTURE


def test_a_file_whose_link_is_refused_is_swept_and_not_adopted(store, server, loopback):
    listed(store, server.serve("/a.jpg", PICTURE), server.serve("/no.jpg", PICTURE, X_Robots_Tag="noai"))
    download(store, loopback)
    stray = image_path("g", server.url("/no.jpg"))
    store.put(stray, PICTURE)
    run = download(store, loopback)
    assert store.get(stray) is None
    assert rows(run)[server.url("/no.jpg")]["reason"] == "opt_out"


def test_a_row_that_lies_in_the_future_is_due_and_does_not_count_as_tried(store, server, loopback):
    url = server.serve("/a.jpg", PICTURE)
    listed(store, url)
    with Ledger(store, "g") as ledger:
        ledger.add(row(url, status="failed", reason="http_404", failures=9, tried_at=NOW.replace(year=2200)))
    listed(store)
    assert download(store, loopback).tried.num_rows == 0
    listed(store, url)
    assert rows(download(store, loopback))[url]["status"] == "ok"


def test_a_users_own_file_among_the_images_is_left_alone(store, server, loopback):
    listed(store, server.serve("/a.jpg", PICTURE))
    download(store, loopback)
    store.put("images/g/notes.txt", b"mine")
    download(store, loopback)
    assert store.get("images/g/notes.txt") == b"mine"


def test_a_lost_ledger_costs_no_image(store, server, loopback):
    listed(store, *(server.serve(f"/{number}.jpg", jpeg(number)) for number in range(3)))
    download(store, loopback)
    build_catalog("g", store, loopback)
    listed(store, server.url("/0.jpg"))
    store.delete([downloads_path("g")])
    server.requests.clear()
    for _ in range(2):
        download(store, loopback)
        assert build_catalog("g", store, loopback).catalog["status"].to_pylist() == ["ok"] * 3
    assert server.requests == []
    assert len(list(store.list("images/g"))) == 3
