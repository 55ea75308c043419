from imgdl_pipeline.core.download.breaker import CircuitBreaker


def test_a_host_is_given_up_after_so_many_failures_in_a_row():
    breaker = CircuitBreaker(failures=3)
    for _ in range(3):
        assert breaker.refusal("h.org") is None
        breaker.failed("h.org")
    refusal = breaker.refusal("h.org")
    assert (refusal.code, refusal.retryable) == ("connection", False)
    assert "3 connections to h.org failed in a row" in refusal.detail


def test_an_answer_in_between_starts_the_count_anew():
    breaker = CircuitBreaker(failures=3)
    for _ in range(5):
        breaker.failed("h.org")
        breaker.failed("h.org")
        breaker.succeeded("h.org")
    assert breaker.refusal("h.org") is None


def test_another_host_is_not_concerned():
    breaker = CircuitBreaker(failures=1)
    breaker.failed("dead.org")
    assert breaker.refusal("h.org") is None


def test_a_late_answer_does_not_take_back_that_a_host_was_given_up():
    breaker = CircuitBreaker(failures=1)
    breaker.failed("h.org")
    breaker.succeeded("h.org")
    assert breaker.refusal("h.org") is not None
