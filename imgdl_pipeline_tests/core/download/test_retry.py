from datetime import datetime, timedelta, timezone

import pytest

from imgdl_pipeline.core.download.retry import PERMANENT, Retry, in_cooldown
from imgdl_pipeline.core.model.outcome import FetchError, Reason
from imgdl_pipeline.core.storage.ledger import Download, download_table

PASSING = FetchError(Reason.TIMEOUT, "slow", retryable=True)
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


NOW = datetime(2026, 11, 22, 6, tzinfo=timezone.utc)


def ledger_row(reason, failures, hours_ago):
    status = "failed" if reason else "ok"
    tried_at = NOW - timedelta(hours=hours_ago)
    return Download("u", status, tried_at, 1, 0.1, reason=reason, failures=failures)


def is_left_alone(*args):
    return in_cooldown(download_table([ledger_row(*args)]), NOW).to_pylist()[0]


@pytest.mark.parametrize(
    ("failures", "pause_h"), [(2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 640), (8, 720), (99, 720)]
)
def test_a_lasting_reason_is_tried_again_at_growing_intervals_up_to_30_days(failures, pause_h):
    assert is_left_alone("http_404", failures, pause_h - 0.01)
    assert not is_left_alone("http_404", failures, pause_h)


@pytest.mark.parametrize("failures", [None, 0, 1])
def test_the_next_run_tries_a_first_failure_again_whatever_its_reason(failures):
    assert not is_left_alone("http_404", failures, 0)


@pytest.mark.parametrize("reason", ["http_404", "http_410", "http_403", "not_jpeg", "opt_out", "too_large"])
def test_what_tomorrow_will_hardly_change_is_lasting(reason):
    assert is_left_alone(reason, 2, 1)


@pytest.mark.parametrize(
    "reason",
    ["http_503", "http_429", "timeout", "dns", "connection", "tls", "incomplete", "scheme", "robots", None],
)
def test_what_passes_or_costs_nothing_is_tried_by_every_run(reason):
    assert not is_left_alone(reason, 9, 1)


def test_every_reason_is_either_lasting_or_known_to_pass():
    retryable = {
        "HTTP",
        "TIMEOUT",
        "DNS",
        "CONNECTION",
        "TLS",
        "INCOMPLETE",
        "PRIVATE_ADDRESS",
        "SCHEME",
        "ROBOTS",
    }
    assert {each.name for each in Reason} == retryable | {each.name for each in PERMANENT}
