import sys

import pytest

from imgdl_pipeline.core.download.pool import DownloadPool
from imgdl_pipeline.core.download.switching import SWITCH_INTERVAL_S, fewer_switches


def test_a_pool_lets_its_threads_switch_less_often_and_puts_that_back():
    before = sys.getswitchinterval()
    with DownloadPool(lambda item: sys.getswitchinterval(), workers=1) as pool:
        assert [done.result for done in pool.map(["x"])] == [pytest.approx(SWITCH_INTERVAL_S, rel=0.01)]
    assert sys.getswitchinterval() == pytest.approx(before, rel=0.01)


def test_the_last_of_several_pools_puts_the_interval_back():
    before = sys.getswitchinterval()
    first, second = fewer_switches(), fewer_switches()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S, rel=0.01)
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(before, rel=0.01)


def test_a_longer_interval_of_the_process_stays():
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(10 * SWITCH_INTERVAL_S)
        with fewer_switches():
            assert sys.getswitchinterval() == pytest.approx(10 * SWITCH_INTERVAL_S, rel=0.01)
    finally:
        sys.setswitchinterval(before)
