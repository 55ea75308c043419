import pytest

from imgdl_pipeline.core.download.breaker import CircuitBreaker
from imgdl_pipeline.core.model.outcome import FetchError, Reason, RetryAfter, UnreachableError

UNREACHABLE = UnreachableError("refused")
BUSY = RetryAfter("the server answered 429", 119.0, http_status=429)
BROKEN = FetchError(Reason.HTTP, "the server answered 500", http_status=500, retryable=True)
HANGS = FetchError(Reason.TIMEOUT, "not done within 30 s", retryable=True)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def fail(breaker, error, host="h.org", url="http://h.org/a.jpg", wait_s=0.0, **how):
    assert breaker.begin(host) is None
    breaker.failed(host, url, error, wait_s, **how)


def test_a_host_is_given_up_after_so_many_failed_connections_in_a_row():
    breaker = CircuitBreaker(failures=3)
    for _ in range(3):
        fail(breaker, UNREACHABLE)
    refusal = breaker.begin("h.org")
    assert (refusal.code, refusal.retryable) == ("connection", False)
    assert "3 connections to h.org failed in a row" in refusal.detail


def test_an_answer_in_between_starts_the_count_anew():
    breaker = CircuitBreaker(failures=3)
    for _ in range(5):
        fail(breaker, UNREACHABLE)
        fail(breaker, UNREACHABLE)
        breaker.begin("h.org")
        breaker.answered("h.org")
    assert breaker.begin("h.org") is None


def test_another_host_is_not_concerned():
    breaker = CircuitBreaker(failures=1)
    fail(breaker, UNREACHABLE, "dead.org")
    assert breaker.begin("h.org") is None


def test_a_late_answer_does_not_take_back_that_a_host_was_given_up():
    breaker = CircuitBreaker(failures=1)
    breaker.begin("h.org")
    fail(breaker, UNREACHABLE)
    breaker.answered("h.org")
    assert breaker.begin("h.org") is not None


@pytest.mark.parametrize(
    "error", [BUSY, HANGS, FetchError(Reason.HTTP, "500", http_status=500, retryable=True)]
)
def test_a_host_that_gives_nothing_for_its_patience_is_given_up_with_its_last_trouble(clock, error):
    breaker = CircuitBreaker(patience_s=300, clock=clock)
    for _ in range(10):
        fail(breaker, error, wait_s=30.0)
        clock.now += 30.0
    refusal = breaker.begin("h.org")
    assert (refusal.code, refusal.retryable) == (error.code, False)
    assert "in 300 s (host_patience), the host gave no image" in refusal.detail
    assert error.detail in refusal.detail


def test_one_definite_answer_gives_a_host_all_of_its_patience_again(clock):
    breaker = CircuitBreaker(patience_s=300, clock=clock)
    for _ in range(3):
        fail(breaker, HANGS, wait_s=290.0)
        clock.now += 290.0
        assert breaker.begin("h.org") is None
        breaker.answered("h.org")


def test_time_in_which_nobody_asks_a_host_does_not_count(clock):
    breaker = CircuitBreaker(patience_s=300, clock=clock)
    fail(breaker, HANGS)
    clock.now += 10_000.0
    fail(breaker, HANGS)
    assert breaker.begin("h.org") is None
    assert breaker.patience_left("h.org") == pytest.approx(300.0)


def test_time_in_which_links_wait_for_a_hosts_pace_counts(clock):
    breaker = CircuitBreaker(patience_s=300, clock=clock)
    fail(breaker, HANGS)
    breaker.waits("h.org", clock.now + 400.0)
    clock.now += 400.0
    assert "host_patience" in breaker.begin("h.org").detail


def test_a_host_that_was_never_asked_has_all_of_its_patience():
    assert CircuitBreaker(patience_s=7).patience_left("h.org") == 7


def test_an_attempt_that_is_put_back_says_nothing_about_its_host(clock):
    breaker = CircuitBreaker(patience_s=300, clock=clock)
    for _ in range(100):
        assert breaker.begin("h.org") is None
        breaker.released("h.org")
        clock.now += 30.0


def test_one_link_does_not_speak_for_its_host_but_three_do():
    breaker = CircuitBreaker()
    for _ in range(9):
        fail(breaker, BUSY, url="http://h.org/the-same.jpg", is_long=True)
    for number in range(2):
        fail(breaker, BUSY, url=f"http://h.org/{number}.jpg", is_long=True)
    refusal = breaker.begin("h.org")
    assert refusal.code == "http_429"
    assert "asked 3 links for a pause longer than this run waits" in refusal.detail


def test_a_good_answer_between_long_pauses_speaks_for_the_host():
    breaker = CircuitBreaker()
    for number in range(20):
        fail(breaker, BUSY, url=f"http://h.org/{number}.jpg", is_long=True)
        assert breaker.begin("h.org") is None
        breaker.answered("h.org")
