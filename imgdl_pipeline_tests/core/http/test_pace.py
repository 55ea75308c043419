import heapq
import itertools
import math
import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.http.pace import LONGEST_CRAWL_DELAY_S, LONGEST_TURN_S, SLOWEST, Pace, Paces, TooSoon


def test_without_a_limit_no_request_waits():
    pace = Pace()
    for _ in range(100):
        pace.sent(5.0)
        assert pace.wait(5.0) == 0.0


@given(
    st.floats(0.5, 50.0),
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=200),
)
def test_no_second_holds_more_requests_than_the_limit(limit, pauses):
    pace, now, sent = Pace(limit), 0.0, []
    for pause in pauses:
        now += pause
        at = now + pace.wait(now)
        pace.sent(now)
        sent.append(at)
    for place, start in enumerate(sent):
        assert sum(at < start + 1.0 for at in sent[place:]) <= math.ceil(limit)


def test_a_link_is_handed_out_no_sooner_than_its_request_may_be_sent():
    pace = Pace(2.0)
    due = pace.handed_out(0.0)
    pace.sent(0.0)
    assert pace.wait(due) == 0.0


def test_a_crawl_delay_slows_its_host_and_no_other():
    paces = Paces(clock=lambda: 0.0)
    paces.crawl_delay("slow.org", 2.0)
    assert paces.take("slow.org") == 0.0
    with pytest.raises(TooSoon) as raised:
        paces.check("slow.org")
    assert raised.value.seconds == pytest.approx(2.0, rel=0.1)
    assert paces.take("h.org") == paces.take("h.org") == 0.0


def test_a_crawl_delay_of_a_day_counts_as_the_longest_that_is_heeded():
    paces = Paces(clock=lambda: 0.0)
    paces.crawl_delay("slow.org", 86_400.0)
    assert paces.handed_out("slow.org", 0.0) == pytest.approx(LONGEST_CRAWL_DELAY_S, rel=0.1)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_crawl_delay_that_is_none_slows_nothing(seconds):
    paces = Paces(clock=lambda: 0.0)
    paces.crawl_delay("h.org", seconds)
    assert paces.take("h.org") == paces.take("h.org") == 0.0


def test_a_crawl_delay_does_not_make_a_host_faster_than_the_setting():
    paces = Paces(0.5, clock=lambda: 0.0)
    paces.crawl_delay("h.org", 0.001)
    assert paces.handed_out("h.org", 0.0) >= 2.0


def test_a_short_wait_is_taken_and_a_long_one_is_put_back():
    paces = Paces(1 / LONGEST_TURN_S * 1.1, clock=lambda: 0.0)
    assert paces.take("h.org") == 0.0
    assert 0.0 < paces.take("h.org") <= LONGEST_TURN_S
    with pytest.raises(TooSoon):
        paces.take("h.org")


def test_threads_share_one_pace():
    paces, waits = Paces(1000.0, clock=lambda: 0.0), deque()
    threads = [threading.Thread(target=lambda: waits.append(paces.take("h.org"))) for _ in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(waits)) == 50


class Simulation:
    """A host that refuses what is beyond a hidden limit: a token bucket, as most servers have.

    Args:
        limit: Tokens per second.
        burst: The most tokens.
        seconds: From a request to its answer.
    """

    def __init__(self, limit, burst, seconds=0.05, connections=8):
        self.limit, self.burst, self.half, self.connections = limit, burst, seconds / 2, connections
        self.tokens, self.filled_at = float(burst), 0.0

    def accepts(self, now):
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.limit)
        self.filled_at = now
        has_token = self.tokens >= 1
        self.tokens -= has_token
        return has_token

    def run(self, links):
        """Return the share of the limit that was reached, and the share of requests that were refused."""
        pace, now, free, todo, good, refused = Pace(), 0.0, self.connections, links, 0, 0
        events, number, due = [], itertools.count(), 0.0
        while good < links:
            while free and todo and now >= due:
                due = max(pace.handed_out(now), due)
                free, todo = free - 1, todo - 1
                heapq.heappush(events, (now + self.half, next(number), "arrives", now))
            times = ([events[0][0]] if events else []) + ([due] if free and todo else [])
            now = max(now, min(times))
            while events and events[0][0] <= now:
                _, _, what, sent_at = heapq.heappop(events)
                if what == "arrives":
                    answer = "good" if self.accepts(now) else "refused"
                    heapq.heappush(events, (now + self.half, next(number), answer, sent_at))
                    continue
                free += 1
                if what == "good":
                    good += 1
                    pace.answered(now)
                else:
                    todo, refused = todo + 1, refused + 1
                    pace.throttled(now, sent_at)
                    due = max(due, now)
        return links / now / self.limit, refused / (links + refused)


@pytest.mark.parametrize(
    ("limit", "burst"), [(1, 1), (1, 10), (5, 1), (5, 10), (20, 10), (100, 10), (100, 50)]
)
def test_a_hidden_limit_is_reached_to_90_percent_with_under_1_percent_of_429s(limit, burst):
    reached, refused = Simulation(limit, burst).run(links=20_000)
    assert reached >= 0.9
    assert refused < 0.01


def test_a_host_that_refuses_everything_is_asked_ever_more_slowly():
    pace = Pace()
    for second in range(100):
        pace.throttled(float(second), float(second))
    assert pace.rate == pytest.approx(SLOWEST)


def test_refusals_of_requests_that_were_sent_before_the_rate_fell_count_once():
    pace = Pace(10.0)
    for _ in range(8):
        pace.throttled(1.0, 0.5)
    assert pace.rate == pytest.approx(5.0)


def test_a_rate_that_fell_never_rises_above_the_limit():
    pace = Pace(10.0)
    pace.throttled(1.0, 0.5)
    for answer in range(20_000):
        pace.answered(2.0 + answer / 10)
    assert pace.rate == 10.0


def test_a_host_that_other_runs_ask_too_is_asked_at_a_part_of_the_limit():
    paces = Paces(8.0, clock=lambda: 0.0)
    paces.share("h", 0.5)
    assert paces.handed_out("h", 0.0) == pytest.approx(1.05 / 4)
    paces.share("h", 1.0)
    assert paces.handed_out("h", 10.0) == pytest.approx(10 + 1.05 / 8)
    paces.crawl_delay("h", 2.0)
    paces.share("h", 0.5)
    assert paces.handed_out("h", 20.0) == pytest.approx(20 + 1.05 * 2 * 2), "a Crawl-delay is shared, too"


def test_the_lower_limit_of_another_run_counts_as_long_as_it_is_there():
    paces = Paces(8.0, clock=lambda: 0.0)
    paces.share("h", 0.5, 2.0)
    assert paces.handed_out("h", 0.0) == pytest.approx(1.05 / 1)
    paces.share("h", 1.0, 8.0)
    assert paces.handed_out("h", 10.0) == pytest.approx(10 + 1.05 / 8)


def test_a_part_of_no_limit_is_no_limit():
    paces = Paces(clock=lambda: 0.0)
    paces.share("h", 0.5)
    assert paces.handed_out("h", 0.0) == 0.0


def test_of_some_hosts_only_a_part_of_the_limit_is_used():
    paces = Paces(2.0, clock=lambda: 0.0, part={"h.org": 1.0, "other.org": 0.5}.__getitem__)
    assert paces.handed_out("other.org", 0.0) == 2 * paces.handed_out("h.org", 0.0)
