import itertools
import queue
import threading
import time

import pytest

from imgdl_pipeline.core.download.host_queue import Requeue
from imgdl_pipeline.core.download.pool import DownloadPool, DownloadWorker


def first_letter(item):
    return item[0]


def test_every_item_is_worked_on_once_and_handed_back():
    with DownloadPool(lambda item: item * 2) as pool:
        done = {each.item: each.result for each in pool.map(range(500))}
    assert done == {item: item * 2 for item in range(500)}


def test_eight_workers_are_the_default_and_all_work_at_the_same_time():
    together = threading.Barrier(8)
    with DownloadPool(lambda _: together.wait(10)) as pool:
        assert sorted(each.result for each in pool.map(range(8))) == list(range(8))


def test_an_exception_is_handed_back_and_its_worker_lives_on():
    def work(item):
        if item % 2:
            raise [ValueError, SystemExit, KeyboardInterrupt][item % 3](item)
        return item

    with DownloadPool(work, workers=2) as pool:
        done = list(pool.map(range(100)))
        assert sum(isinstance(each, DownloadWorker) for each in threading.enumerate()) == 2
    assert {each.item for each in done} == set(range(100))
    assert all((each.error is None) == (each.item % 2 == 0) for each in done)


def test_join_returns_once_every_item_is_done():
    with DownloadPool(lambda item: item, workers=3) as pool:
        assert len(list(pool.map(range(50)))) == 50
        pool.queue.join()
        assert pool.queue.unfinished_tasks == 0


def test_no_host_has_more_items_in_flight_than_its_slots():
    in_flight, most, lock = 0, 0, threading.Lock()

    def work(_):
        nonlocal in_flight, most
        with lock:
            in_flight += 1
            most = max(most, in_flight)
        with lock:
            in_flight -= 1

    with DownloadPool(work, workers=8, slots=lambda _: 2) as pool:
        assert len(list(pool.map(range(200)))) == 200
    assert most <= 2


def test_a_host_that_hangs_does_not_hold_up_the_others():
    release = threading.Event()

    def work(item):
        return release.wait(30) if item[0] == "a" else True

    items = [f"a{number}" for number in range(50)] + [f"b{number}" for number in range(50)]
    with DownloadPool(work, workers=4, slots=lambda _: 2, host_of=first_letter) as pool:
        done = pool.map(items)
        first_fifty = [next(done).item for _ in range(50)]
        release.set()
        rest = [each.item for each in done]
    assert {item[0] for item in first_fifty} == {"b"}
    assert {item[0] for item in rest} == {"a"}


def test_an_endless_list_is_taken_no_further_than_there_is_room_for():
    taken = itertools.count()
    pool = DownloadPool(lambda item: item, workers=2, lookahead=10)
    with pool:
        done = pool.map(iter(lambda: next(taken), None))
        for _ in range(1000):
            next(done)
        assert next(taken) < 1000 + 10 + 2 * 2 + 2


def test_an_item_that_asks_for_later_is_handed_out_again():
    def work(item):
        number, attempts = item
        return Requeue((number, attempts + 1), 0.001) if attempts < 3 else attempts

    with DownloadPool(work, workers=3) as pool:
        done = list(pool.map((number, 1) for number in range(30)))
    assert sorted(each.item for each in done) == [(number, 3) for number in range(30)]


def test_leaving_ends_all_threads_also_when_the_consumer_fails():
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError), DownloadPool(lambda item: item) as pool:
        for _ in pool.map(itertools.count()):
            raise ZeroDivisionError
    assert set(threading.enumerate()) <= before  # another test's thread may have ended meanwhile


def test_leaving_abandons_what_is_in_flight_within_two_seconds():
    begun = threading.Semaphore(0)

    def work(_):
        begun.release()
        pool.stop.wait(60)

    def items():
        yield from range(100)
        for _ in range(8):
            assert begun.acquire(timeout=10)
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), DownloadPool(work, workers=8) as pool:
        try:
            list(pool.map(items()))
        finally:
            interrupted = time.monotonic()
    assert time.monotonic() - interrupted < 2
    assert set(threading.enumerate()) <= before  # another test's thread may have ended meanwhile


def test_what_is_done_by_the_time_the_pool_is_left_is_not_lost():
    begun = threading.Semaphore(0)

    def work(item):
        begun.release()
        pool.stop.wait(10)
        return item

    def items():
        yield from range(1, 9)
        for _ in range(8):
            assert begun.acquire(timeout=10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), DownloadPool(work, workers=8) as pool:
        list(pool.map(items()))
    assert sorted(pool.remains()) == list(range(1, 9))


def test_a_worker_that_cannot_be_stopped_is_named_in_a_warning(caplog, monkeypatch):
    monkeypatch.setattr("imgdl_pipeline.core.download.pool.JOIN_S", 0.05)
    begun, release = threading.Event(), threading.Event()

    def work(_):
        begun.set()
        release.wait(30)

    def items():
        yield 1
        assert begun.wait(10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), DownloadPool(work, workers=1) as pool:
        list(pool.map(items()))
    assert "DownloadWorker-1 did not stop within 0.05 s" in caplog.text
    release.set()


def test_whoever_takes_the_results_is_told_while_there_are_none():
    told, release = [], threading.Event()

    def tell(busy):
        told.append(busy)
        release.set()

    with DownloadPool(lambda _: release.wait(10), workers=3, on_wait=tell) as pool:
        assert len(list(pool.map(range(3)))) == 3
    assert told[0] == 3


def test_repr_tells_what_the_pool_is_doing():
    begun, release, shown = threading.Semaphore(0), threading.Event(), []

    def work(_):
        begun.release()
        release.wait(10)

    def items():
        yield from range(10)
        for _ in range(3):
            assert begun.acquire(timeout=10)
        shown.append(repr(pool))
        release.set()

    with DownloadPool(work, workers=3, slots=lambda _: 3) as pool:
        assert len(list(pool.map(items()))) == 10
    assert shown == ["<DownloadPool 3 workers, 3 busy, 7 queued>"]


def test_items_that_are_queued_already_wait_too_when_their_host_asks_for_a_pause():
    """The first answer says to wait: the seven items behind it in the queue are not begun."""
    begun, second_round = [], threading.Event()

    def work(item):
        begun.append(item)
        if not second_round.is_set():
            assert begun == [item]
            second_round.set()
            return Requeue(item, 0.3, "a")
        return time.monotonic()

    started = time.monotonic()
    with DownloadPool(work, workers=1, host_of=first_letter) as pool:
        done = list(pool.map([f"a{number}" for number in range(8)]))
    assert len(done) == 8
    assert all(each.result - started >= 0.3 for each in done)


def test_a_list_that_has_no_item_now_may_have_one_later():
    items, told = queue.SimpleQueue(), threading.Event()

    def received():
        while True:
            try:
                item = items.get_nowait()
            except queue.Empty:
                told.set()
                yield None
                continue
            if item is None:
                return
            yield item

    def send():
        for item in ("a", Requeue("b", 0.0), Requeue("c", 0.01), None):
            assert told.wait(10)
            told.clear()
            items.put(item)
            pool.wake()

    with DownloadPool(lambda item: item) as pool:
        sender = threading.Thread(target=send)
        sender.start()
        assert sorted(done.result for done in pool.map(received())) == ["a", "b", "c"]
        sender.join()


def test_a_pool_that_is_stopped_waits_for_no_delay():
    with DownloadPool(lambda item: Requeue(item, 3600.0)) as pool:
        done = pool.map(["a"])
        stopper = threading.Thread(target=lambda: (pool.stop.set(), pool.wake()))
        stopper.start()
        assert list(done) == []
        stopper.join()
