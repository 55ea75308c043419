import pytest

from imgdl_pipeline.core.outcome import FetchError, Reason
from imgdl_pipeline.core.retry import Retry

PASSING = FetchError(Reason.TIMEOUT, "slow", passing=True)
FINAL = FetchError(Reason.HTTP, "gone", http_status=404)


def test_what_is_final_is_not_tried_again():
    assert Retry().wait(FINAL, 1) is None


def test_the_last_attempt_is_the_last():
    assert Retry(attempts=3).wait(PASSING, 2) is not None
    assert Retry(attempts=3).wait(PASSING, 3) is None


def test_the_longest_wait_doubles_up_to_a_bound():
    retry = Retry(attempts=99, first_s=1, longest_s=10, jitter=lambda: 1.0)
    assert [retry.wait(PASSING, attempts) for attempts in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_jitter_takes_a_share_of_it(share):
    assert Retry(jitter=lambda: share).wait(PASSING, 2) == 2 * share


def test_a_hosts_own_word_counts_more():
    assert Retry(jitter=lambda: 0.0).wait(PASSING, 1, asked_s=17) == 17


def test_a_host_that_asks_for_too_long_is_not_waited_for():
    assert Retry(longest_asked_s=60).wait(PASSING, 1, asked_s=61) is None
