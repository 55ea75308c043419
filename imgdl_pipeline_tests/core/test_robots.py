import threading

import pytest

from imgdl_pipeline.core.deadline import Deadline, working_until
from imgdl_pipeline.core.guard import AddressGuard
from imgdl_pipeline.core.outcome import FetchError
from imgdl_pipeline.core.robots import MAX_BYTES, Robots, only_our_groups
from imgdl_pipeline.core.settings import DownloadSettings
from imgdl_pipeline.core.transport import new_session

AGENT = "imgdl_pipeline/1.0 (+https://h.org)"


def verdict(server, path="/a.jpg", robots=None):
    robots = robots or Robots(AGENT)
    session = new_session(AddressGuard(["127.0.0.1/32"]), DownloadSettings(user_agent=AGENT))
    with working_until(Deadline(10, threading.Event())):
        try:
            robots.check(server.url(path), session)
        except FetchError as error:
            return error.code
    return "allowed"


def rules(server, text, **more):
    server.serve("/robots.txt", text.encode(), Content_Type="text/plain", **more)


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
def test_a_server_in_trouble_allows_nothing(server, status):
    server.serve("/robots.txt", b"", status)
    assert verdict(server) == "robots"


def test_a_host_that_cannot_be_asked_has_the_links_own_reason(server):
    server.routes["/robots.txt"] = lambda handler: handler.hang_up()
    session = new_session(AddressGuard(["127.0.0.1/32"]), DownloadSettings(user_agent=AGENT))
    with working_until(Deadline(10, threading.Event())), pytest.raises(OSError, match="reset"):
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


def test_a_file_of_very_many_agents_and_rules_is_read_in_no_time():
    agents = "".join(f"User-agent: bot{number}\n" for number in range(5_000))
    rules_ = "".join(f"Disallow: /{number}/\n" for number in range(10_000))
    text = only_our_groups(f"{agents}User-agent: *\n{rules_}", "imgdl_pipeline")
    assert text.splitlines()[:3] == ["User-agent: another", "User-agent: *", "Disallow: /0/"]
    assert text.count("User-agent") == 2


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
    with working_until(Deadline(10, threading.Event())):
        for _ in range(3):
            with pytest.raises(OSError, match="reset"):
                robots.check(server.url("/a.jpg"), session)
        for _ in range(50):
            with pytest.raises(FetchError, match=r"connection: not tried: robots\.txt could not be asked"):
                robots.check(server.url("/a.jpg"), session)
    assert len(server.paths()) == 3
