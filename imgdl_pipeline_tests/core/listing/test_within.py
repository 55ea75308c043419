"""Code that is called for a limited time, whatever it does; `list_timeout` is what ends a listing."""

import itertools
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Literal

import pytest

from imgdl_pipeline.core import sources
from imgdl_pipeline.core.http.deadline import Cancelled
from imgdl_pipeline.core.listing import within
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.listing.within import Interrupted, call_within
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import SourceSettings
from imgdl_pipeline.core.sources.client import SourceClient, SourceError

SECONDS = 0.3


@pytest.fixture
def stop():
    return threading.Event()


@pytest.fixture
def locked():
    """A lock that is free only when the test is over: waiting for it is a call of C that nothing ends."""
    if sys.gettrace() is not None:
        pytest.skip("a traced Python 3.11 spins while an exception waits for another thread")
    lock = threading.Lock()
    with lock:
        yield lock
    for thread in listings():
        thread.join(10)


def listings():
    return [thread for thread in threading.enumerate() if thread.name == "imgdl-listing"]


def compute():
    for _ in itertools.count():
        pass


def test_a_value_is_returned(stop):
    assert call_within(10, stop, lambda: 7) == 7
    assert call_within(10, stop, lambda: None) is None
    assert not stop.is_set()
    assert listings() == []


@pytest.mark.parametrize(
    "error", [ValueError("x"), SourceError("x"), Cancelled(), KeyboardInterrupt(), SystemExit(3)]
)
def test_what_is_raised_is_raised_in_the_calling_thread(stop, error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        call_within(10, stop, fail)
    assert caught.value is error
    assert not stop.is_set()


def test_the_function_runs_in_a_thread_of_its_own(stop):
    assert call_within(10, stop, threading.current_thread) is not threading.current_thread()


def test_a_loop_that_only_computes_is_interrupted(stop):
    with pytest.raises(TimeoutError, match=r"not done within 0\.3 s"):
        call_within(SECONDS, stop, compute)
    assert stop.is_set()
    assert listings() == []


def test_code_that_swallows_every_exception_is_interrupted(stop):
    def stubborn():
        while True:
            try:
                compute()
            except Exception:  # noqa: BLE001
                continue

    with pytest.raises(TimeoutError):
        call_within(SECONDS, stop, stubborn)
    assert listings() == []


def test_code_that_swallows_an_interrupt_is_interrupted_again(stop):
    swallowed = []

    def stubborn():
        while True:
            try:
                compute()
            except BaseException as error:
                swallowed.append(type(error))
                if len(swallowed) == 2:
                    raise

    with pytest.raises(TimeoutError):
        call_within(SECONDS, stop, stubborn)
    assert swallowed == [Interrupted] * 2
    assert listings() == []


def test_a_wait_that_ends_when_it_should_stop_is_not_interrupted(stop):
    """It may still finish what it began."""
    finished = threading.Event()

    def wait():
        stop.wait()
        finished.set()

    with pytest.raises(TimeoutError):
        call_within(SECONDS, stop, wait)
    assert finished.is_set()


def test_a_call_of_c_that_does_not_end_is_left_to_itself(stop, locked, monkeypatch, caplog):
    monkeypatch.setattr(within, "STOP_S", 0.3)
    with pytest.raises(TimeoutError):
        call_within(SECONDS, stop, locked.acquire)
    assert "the source does not end; it is left to itself" in caplog.text
    [thread] = listings()
    assert thread.daemon


# The same, of another package's source


class Shop(SourceSettings):
    """Another package's source, which lists one link and then does something else."""

    type: Literal["shop"]
    then: str


@pytest.fixture
def then(monkeypatch):
    """Installs the source as an entry point would; returns what it may do after its first link, by name."""
    deeds = {}

    def list_links(source: Shop, client: SourceClient):
        yield Link("https://shop.example/new.jpg")
        deeds[source.then](client)

    module = ModuleType("shop")
    module.list_links = list_links
    entry = SimpleNamespace(name="shop", value="shop", load=lambda: module)
    monkeypatch.setattr(sources, "entry_points", lambda group: [entry])
    sources._modules.cache_clear()
    yield deeds
    sources._modules.cache_clear()


@pytest.fixture
def list_shop(store, loopback):
    def list_(then, list_timeout=SECONDS):
        return list_gallery("g", Shop(type="shop", then=then), store, loopback, list_timeout=list_timeout)

    return list_


def swallow(client):
    while True:
        try:
            client.left()
            compute()
        except Exception:  # noqa: BLE001
            continue


def test_another_packages_source_is_listed(then, list_shop):
    then["end"] = lambda client: None
    assert list_shop("end", 10)["url"].to_pylist() == ["https://shop.example/new.jpg"]


@pytest.mark.parametrize(
    "deed",
    [
        lambda client: compute(),
        swallow,
        lambda client: client.stop.wait(),
        lambda client: client._wait(60),
    ],
    ids=["it computes", "it swallows exceptions", "it waits for its stop", "it waits as the client does"],
)
def test_a_source_that_takes_too_long_fails_in_words_and_the_old_list_stays(then, list_shop, store, deed):
    then["end"] = lambda client: None
    list_shop("end", 10)
    before = read_links(store, "g")
    then["go on"] = deed
    words = r"^the source did not list its links within 0\.3 s; list_timeout allows more$"
    with pytest.raises(SourceError, match=words):
        list_shop("go on")
    assert read_links(store, "g").equals(before)
    assert listings() == []


def test_a_source_that_nothing_ends_fails_all_the_same_and_the_old_list_stays(
    then, list_shop, store, locked, monkeypatch, caplog
):
    monkeypatch.setattr(within, "STOP_S", 0.3)
    then.update({"end": lambda client: None, "hang": lambda client: locked.acquire()})
    list_shop("end", 10)
    before = read_links(store, "g")
    with pytest.raises(SourceError, match=r"did not list its links within 0\.3 s; list_timeout allows more"):
        list_shop("hang")
    assert "it is left to itself" in caplog.text
    assert read_links(store, "g").equals(before)


def test_a_source_that_fails_is_named_with_its_line_and_the_old_list_stays(then, list_shop, store):
    then.update({"end": lambda client: None, "fail": lambda client: {}["no such key"]})
    list_shop("end", 10)
    with pytest.raises(
        SourceError, match=r"not what was expected: KeyError in test_within\.py:\d+: 'no such key'"
    ):
        list_shop("fail")
    assert read_links(store, "g").num_rows == 1


def test_a_server_that_drips_is_stopped_at_the_time_limit(then, list_shop, server):
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        while not server.release.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    server.routes["/api"] = drip
    then["ask"] = lambda client: client.json(server.url("/api"))
    with pytest.raises(SourceError, match=r"did not list its links within 0\.3 s; list_timeout allows more"):
        list_shop("ask")


def test_what_a_source_has_said_is_in_its_lists_warnings(then, list_shop):
    then["say"] = lambda client: client.warn("the shop\nis closing: https://a:b@h.org/?token=s3cr3t")
    links = list_shop("say", 10)
    assert list_warnings(links) == ["the shop is closing: https://…@h.org/?token=…"]
