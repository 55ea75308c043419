import socket
import threading

import pytest

from imgdl_pipeline.core.http import lookups
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.lookups import LOOKUPS, REMEMBERED_S, Resolver, call_with_deadline
from imgdl_pipeline.core.model.outcome import FetchError, Reason


@pytest.fixture(autouse=True)
def in_time():
    with deadline_scope(Deadline(20, threading.Event())):
        yield


@pytest.fixture
def asked(monkeypatch):
    """The hosts that the name server was asked for; it knows `*.example` only."""
    hosts = []

    def resolve(host, port, **_):
        hosts.append(host)
        if not host.endswith(".example"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("198.51.100.7", port or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return hosts


def test_a_call_that_hangs_is_left_behind():
    hanging = threading.Event()
    with deadline_scope(Deadline(0.1, threading.Event())), pytest.raises(TimeoutError):
        call_with_deadline(lambda: hanging.wait(30))
    hanging.set()


def test_a_call_gives_its_result_or_its_error():
    assert call_with_deadline(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        call_with_deadline(lambda: 1 / 0)


def test_a_thread_makes_one_call_after_the_other(monkeypatch):
    monkeypatch.setattr(lookups, "_lookups", lookups._Lookups())
    threads = set()
    for _ in range(20):
        before = set(threads)
        threads.add(call_with_deadline(threading.get_ident))
        while threads == before and lookups._lookups._idle == 0:  # it says so right after its call
            pass
    assert len(threads) <= 3


def test_no_more_calls_than_there_are_places_run_at_a_time(monkeypatch):
    monkeypatch.setattr(lookups, "_lookups", lookups._Lookups())
    gate = threading.Event()
    started = [threading.Event() for _ in range(LOOKUPS)]

    def call(own):
        with deadline_scope(Deadline(20, threading.Event())):
            call_with_deadline(lambda: (own.set(), gate.wait(20)))

    callers = [threading.Thread(target=call, args=(own,)) for own in started]
    for caller in callers:
        caller.start()
    assert all(own.wait(10) for own in started)
    with deadline_scope(Deadline(0.1, threading.Event())), pytest.raises(TimeoutError):
        call_with_deadline(lambda: 42)
    gate.set()
    for caller in callers:
        caller.join(10)
    assert call_with_deadline(lambda: 42) == 42


def test_an_answer_is_remembered_for_a_minute_for_every_port(asked):
    now = [0.0]
    resolver = Resolver(clock=lambda: now[0])
    assert resolver.find("h.example", 80) == [(socket.AF_INET, ("198.51.100.7", 80))]
    assert resolver.find("h.example", 443) == [(socket.AF_INET, ("198.51.100.7", 443))]
    assert asked == ["h.example"]
    now[0] = REMEMBERED_S
    resolver.find("h.example", 80)
    assert asked == ["h.example"] * 2


def test_that_a_host_does_not_exist_is_remembered_too(asked):
    resolver = Resolver()
    for _ in range(3):
        with pytest.raises(FetchError, match="has no address") as caught:
            resolver.find("h.invalid", 80)
        assert (caught.value.reason, caught.value.retryable) == (Reason.DNS, False)
    assert asked == ["h.invalid"]


def test_a_passing_trouble_is_not_remembered(monkeypatch):
    tries = []

    def resolve(*_, **__):
        tries.append(1)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(FetchError) as caught:
            resolver.find("h.example", 80)
        assert caught.value.retryable
    assert len(tries) == 2


def test_what_is_forgotten_is_asked_for_again(asked):
    resolver = Resolver()
    resolver.find("h.example", 80)
    resolver.forget("h.example")
    resolver.forget("other.example")
    resolver.find("h.example", 80)
    assert asked == ["h.example"] * 2


def test_the_answers_of_many_hosts_are_bounded(asked, monkeypatch):
    monkeypatch.setattr(lookups, "REMEMBERED_HOSTS", 2)
    resolver = Resolver()
    for number in range(5):
        resolver.find(f"h{number}.example", 80)
    assert repr(resolver) == "<Resolver 2 hosts>"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_needs_no_thread(host, monkeypatch):
    monkeypatch.setattr(lookups, "call_with_deadline", lambda _: pytest.fail("a thread was used"))
    assert [address[:2] for _, address in Resolver().find(host, 80)] == [(host, 80)]
