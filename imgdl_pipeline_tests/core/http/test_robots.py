import gzip
import threading

import pytest

from imgdl_pipeline.core.http import host_files
from imgdl_pipeline.core.http.address_guard import AddressGuard
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.host_files import MAX_BYTES
from imgdl_pipeline.core.http.robots import Robots
from imgdl_pipeline.core.http.transport import new_session
from imgdl_pipeline.core.model.outcome import FetchError
from imgdl_pipeline.core.model.settings import DownloadSettings

AGENT = "imgdl_pipeline/1.0 (+https://h.org)"


def verdict(server, path="/a.jpg", robots=None):
    robots = robots or Robots(AGENT)
    session = new_session(AddressGuard(["127.0.0.1/32"]), DownloadSettings(user_agent=AGENT))
    with deadline_scope(Deadline(10, threading.Event())):
        try:
            robots.check(server.url(path), session)
        except FetchError as error:
            return error.code
    return "allowed"


def rules(server, text, *, gzipped=False):
    body = gzip.compress(text.encode()) if gzipped else text.encode()
    encoding = {"Content_Encoding": "gzip"} if gzipped else {}
    server.serve("/robots.txt", body, Content_Type="text/plain", **encoding)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("", "/a.jpg", "allowed"),
        ("User-agent: *\nDisallow:", "/a.jpg", "allowed"),
        ("User-agent: *\nDisallow: /", "/a.jpg", "robots"),
        ("User-agent: *\nDisallow: /private", "/private/a.jpg", "robots"),
        ("User-agent: *\nDisallow: /\nAllow: /open/", "/open/a.jpg", "allowed"),
        ("User-agent: *\nDisallow: /*.jpg$", "/a.jpg", "robots"),
        ("User-agent: otherbot\nDisallow: /", "/a.jpg", "allowed"),
        ("User-agent: imgdl_pipeline\nDisallow: /\n\nUser-agent: *\nAllow: /", "/a.jpg", "robots"),
        ("<html>not a robots.txt</html>", "/a.jpg", "allowed"),
        ("\0\xff rubbish \x01" * 50, "/a.jpg", "allowed"),
        ("\ufeffUser-agent: *\nDisallow: /", "/a.jpg", "robots"),
        ("User-agent: imgdl_pipeline/0.1\nDisallow: /", "/a.jpg", "robots"),
        ("User-agent: *\nDisallow: /\n\nUser-agent: imgdl_pipeline\nDisallow:", "/a.jpg", "allowed"),
    ],
)
def test_the_rules_are_read_as_they_are_written(server, text, path, expected):
    rules(server, text)
    assert verdict(server, path) == expected


@pytest.mark.parametrize(("status", "expected"), [(404, "allowed"), (403, "allowed"), (410, "allowed")])
def test_a_file_that_is_not_there_allows_everything(server, status, expected):
    server.serve("/robots.txt", b"", status)
    assert verdict(server) == expected


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_allows_nothing_and_is_asked_three_times(server, status):
    server.serve("/robots.txt", b"", status)
    robots = Robots(AGENT)
    verdicts = [verdict(server, robots=robots) for _ in range(5)]
    assert verdicts == [f"http_{status}"] * 3 + ["robots"] * 2
    assert len(server.paths()) == 3


def test_a_server_that_was_in_trouble_for_a_moment_is_asked_again(server):
    server.serve("/robots.txt", b"", 503)
    robots = Robots(AGENT)
    assert verdict(server, robots=robots) == "http_503"
    rules(server, "User-agent: *\nDisallow: /private")
    verdicts = [verdict(server, path, robots) for path in ("/a.jpg", "/private/a.jpg")]
    assert verdicts == ["allowed", "robots"]


def test_who_has_waited_for_another_threads_answer_shares_its_failure(server):
    waits = threading.Event()

    class Noting(Deadline):
        def slice(self):
            if threading.current_thread().name == "second":
                waits.set()
            return super().slice()

    def answer(handler):
        second.start()
        waits.wait(10)
        handler.answer(503, b"")

    def ask():
        session = new_session(AddressGuard(["127.0.0.1/32"]), DownloadSettings(user_agent=AGENT))
        with deadline_scope(Noting(10, threading.Event())), pytest.raises(FetchError, match="answered 503"):
            robots.check(server.url("/a.jpg"), session)
        shared.append(threading.current_thread().name)

    server.routes["/robots.txt"] = answer
    robots, shared = Robots(AGENT), []
    second = threading.Thread(target=ask, name="second")
    ask()
    second.join()
    assert len(shared) == 2
    assert len(server.paths()) == 1


@pytest.mark.parametrize("target", ["ftp://h.org/robots.txt", "http://10.0.0.1/robots.txt"])
def test_a_file_that_is_said_to_lie_where_we_do_not_go_is_none_and_asked_for_once(server, target):
    server.redirect("/robots.txt", target)
    robots = Robots(AGENT)
    assert [verdict(server, robots=robots) for _ in range(5)] == ["allowed"] * 5
    assert len(server.paths()) == 1


def test_a_compressed_file_is_read(server):
    rules(server, "User-agent: *\nDisallow: /private", gzipped=True)
    assert verdict(server, "/private/a.jpg") == "robots"


def test_what_many_hosts_say_is_forgotten_before_it_takes_much_memory(server, monkeypatch):
    monkeypatch.setattr(host_files, "KEPT_BYTES", 2_500)
    rules(
        server,
        "User-agent: *\n"
        + "".join(f"Disallow: /private/{number}\n" for number in range(10))
        + "Disallow: /private",
    )
    robots, port = Robots(AGENT), server.server_port
    session = new_session(AddressGuard(["127.0.0.1/32", "::1/128"]), DownloadSettings(user_agent=AGENT))
    with deadline_scope(Deadline(10, threading.Event())):
        for host in ("127.0.0.1", "127.0.0.1", "localhost", "127.0.0.1"):
            with pytest.raises(FetchError, match="robots"):
                robots.check(f"http://{host}:{port}/private/a.jpg", session)
    assert len(server.paths()) == 3
    assert repr(robots) == "<Robots <HostFiles /robots.txt 1 hosts, 2516 bytes>>"


def test_a_host_that_cannot_be_asked_has_the_links_own_reason(server):
    server.routes["/robots.txt"] = lambda handler: handler.hang_up()
    session = new_session(AddressGuard(["127.0.0.1/32"]), DownloadSettings(user_agent=AGENT))
    with deadline_scope(Deadline(10, threading.Event())), pytest.raises(OSError, match="reset"):
        Robots(AGENT).check(server.url("/a.jpg"), session)


def test_redirects_are_followed_and_too_many_allow_everything(server):
    server.redirect("/robots.txt", "/robots2.txt")
    server.serve("/robots2.txt", b"User-agent: *\nDisallow: /", Content_Type="text/plain")
    assert verdict(server) == "robots"
    server.redirect("/robots2.txt", "/robots.txt")
    assert verdict(server) == "allowed"


def test_no_more_of_the_file_is_read_than_the_standard_asks_for(server):
    rules(server, "#" * MAX_BYTES + "\nUser-agent: *\nDisallow: /")
    assert verdict(server) == "allowed"


def test_many_threads_ask_a_host_once(server):
    rules(server, "User-agent: *\nDisallow: /private")
    robots, verdicts = Robots(AGENT), []
    threads = [
        threading.Thread(target=lambda: verdicts.append(verdict(server, robots=robots))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["allowed"] * 8
    assert server.paths() == ["/robots.txt"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("User-agent: a\nUser-agent: imgdl_pipeline\nDisallow: /\n\nUser-agent: b\nDisallow: /b", "robots"),
        ("User-agent: imgdl_pipeline\nDisallow: /b\n\nUser-agent: b\nDisallow: /", "allowed"),
        ("user-agent:IMGDL_pipeline # us\ndisallow: /", "robots"),
        ("User-agent: *\nDisallow: /b\nUser-agent: a\nUser-agent: *\nDisallow: /", "robots"),
        ("User-agent: *\n# a note\n\nUser-agent: b\nDisallow: /", "robots"),
    ],
)
def test_the_groups_of_others_do_not_run_into_ours(server, text, expected):
    rules(server, text)
    assert verdict(server) == expected


def test_a_host_that_cannot_be_asked_is_asked_three_times_in_all(server):
    server.routes["/robots.txt"] = lambda handler: handler.hang_up()
    session = new_session(AddressGuard(["127.0.0.1/32"]), DownloadSettings(user_agent=AGENT))
    robots = Robots(AGENT)
    with deadline_scope(Deadline(10, threading.Event())):
        for _ in range(3):
            with pytest.raises(OSError, match="reset"):
                robots.check(server.url("/a.jpg"), session)
        for _ in range(50):
            with pytest.raises(FetchError, match=r"connection: not tried: robots\.txt could not be asked"):
                robots.check(server.url("/a.jpg"), session)
    assert len(server.paths()) == 3
