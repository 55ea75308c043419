from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from imgdl_pipeline.core.download.recheck import chosen, intervals, is_due
from imgdl_pipeline.core.model.schemas import DOWNLOADS
from imgdl_pipeline.core.model.settings import AgeGradedRecheck, DownloadSettings
from imgdl_pipeline_tests.support.rows import NOW

BY_AGE = AgeGradedRecheck(new=1, stable=180, max_share=0.01)


def ledger(*ages):
    """Rows that were fetched, asked for and last known to be current so many days ago."""
    rows = [
        {
            "url": f"u{number}",
            "status": "ok",
            "fetched_at": NOW - timedelta(days=fetched),
            "tried_at": NOW - timedelta(days=tried),
            "checked_at": None if checked is None else NOW - timedelta(days=checked),
        }
        for number, (fetched, tried, checked) in enumerate(ages)
    ]
    return pa.Table.from_pylist(rows, schema=DOWNLOADS)


def due(table, recheck=BY_AGE, stored=None):
    is_stored = pa.array([True] * table.num_rows if stored is None else stored)
    return is_due(table, is_stored, recheck, NOW).to_pylist()


def test_an_image_is_asked_for_again_after_half_of_the_time_for_which_it_has_not_changed():
    found = intervals(np.array([0.0, 4.0, 100.0, 1000.0]), new=1, stable=180)
    assert found.tolist() == [1.0, 2.0, 50.0, 180.0]


def test_a_number_asks_for_every_image_after_so_many_days():
    assert due(ledger((40, 31, 31), (40, 29, 29)), recheck=30) == [True, False]


def test_the_days_budget_goes_to_the_longest_overdue():
    table = ledger(*((30, 1.5 + number / 1000, 1.5) for number in range(100)), (200, 179.99, 179.99))
    assert np.flatnonzero(due(table)).tolist() == [100], "1 % of 101 is 2, and only one of them is due"
    table = ledger((300, 100, 100), (300, 150, 150), (300, 120, 120))
    assert due(table) == [False, True, False]


def test_what_was_asked_today_counts_against_the_days_budget():
    table = ledger((300, 0.5, 0.5), (300, 150, 150))
    assert due(table) == [False, False]


def test_a_host_that_gives_no_answers_does_not_take_all_of_the_budget():
    failing = [(300, 2.0, 100) for _ in range(50)]
    table = ledger(*failing, (300, 170, 170))
    assert np.flatnonzero(due(table)).tolist() == [50]


def test_a_link_without_an_image_is_none_to_recheck():
    assert due(ledger((300, 170, 170)), stored=[False]) == [False]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_share": 0.001}, "give at least 0.0056"),
        ({"neww": 1}, "unknown key 'neww'"),
        ({"new": 0}, "greater"),
    ],
)
def test_a_share_that_does_not_reach_every_link_in_time_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        DownloadSettings(recheck=given)


@pytest.mark.parametrize("share", [0.01, 0.006])
def test_in_a_year_of_daily_runs_no_image_is_older_than_stable_and_few_requests_are_sent(share):
    count, days = 2_000, 365
    budget = int(np.ceil(share * count))
    fetched, asked = np.zeros(count), np.zeros(count)
    requests, oldest, random = 0, 0.0, np.random.default_rng(1)
    for day in range(1, days + 1):
        positions = chosen(asked - fetched, day - asked, 1, 180, budget)
        oldest = max(oldest, (day - asked).max())
        changed = positions[random.random(len(positions)) < 0.02]
        asked[positions] = day
        fetched[changed] = day
        requests += len(positions)
        assert len(positions) <= budget
    assert oldest <= 180
    assert requests <= count * days / 30 / 3 * 1.01
