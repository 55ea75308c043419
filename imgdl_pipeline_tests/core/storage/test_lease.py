import json
import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

from imgdl_pipeline.core.storage import lease as lease_module
from imgdl_pipeline.core.storage.layout import leases_path
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease
from imgdl_pipeline.core.storage.store import Store

FOREIGN = {"host": "elsewhere", "pid": 7, "identity": "x", "processes": "pid:[1]", "started": "2026-11-22"}


def held(store):
    """The leases that are not released."""
    files = [file.path for file in store.list(leases_path("g"))]
    return [path.rpartition("/")[2] for path in files if store.get(path) != lease_module.RELEASED]


def leave(store, number=1, **changes):
    """A lease as another process left it."""
    holder = {**json.loads(Lease(store, "g")._text()), "identity": "another", **changes}
    store.put(f"{leases_path('g')}/{number:08d}.json", json.dumps(holder).encode())


@pytest.fixture(params=["disk", "s3"])
def anywhere(request, store):
    return store if request.param == "disk" else Store(request.getfixturevalue("s3_bucket"))


def test_a_lease_is_held_for_the_length_of_the_block(anywhere):
    for number in (1, 2, 3):
        with Lease(anywhere, "g"):
            assert held(anywhere) == [f"0000000{number}.json"]
        assert held(anywhere) == []
    assert len(list(anywhere.list(leases_path("g")))) == 1
    assert not [each for each in threading.enumerate() if each.name == "imgdl-lease"]


def test_a_second_run_is_refused_and_told_by_whom(anywhere):
    words = rf"another run is at work on g: process {os.getpid()} on .*, since 20.*; run it again when"
    with Lease(anywhere, "g"):
        with pytest.raises(GalleryBusyError, match=words), Lease(anywhere, "g"):
            pass
        with Lease(anywhere, "another"):
            pass
    with Lease(anywhere, "g"):
        pass


def test_of_many_at_the_same_moment_one_gets_it(anywhere):
    begin, all_tried, got = threading.Barrier(8), threading.Barrier(8), []

    def try_it(number):
        begin.wait(10)
        try:
            with Lease(anywhere, "g"):
                got.append(number)
                all_tried.wait(10)
        except GalleryBusyError:
            all_tried.wait(10)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_the_lease_of_a_process_that_is_gone_is_taken_over_at_once(store):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    leave(store, pid=ended.pid)
    with Lease(store, "g", lapse_s=999):
        assert held(store) == ["00000002.json"]


def test_the_lease_of_an_earlier_process_of_our_number_is_taken_over_at_once(store):
    leave(store, pid=os.getpid())
    with Lease(store, "g", lapse_s=999):
        pass


def test_a_process_of_this_machine_that_runs_is_at_work(store):
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(store.root, ready, end))
    other.start()
    assert ready.wait(30)
    with pytest.raises(GalleryBusyError, match=f"process {other.pid}"), Lease(store, "g"):
        pass
    end.set()
    other.join()
    with Lease(store, "g"):
        pass


def test_a_process_that_has_the_number_of_a_dead_one_is_not_it(store):
    """After a power failure, the number may belong to any daemon."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        leave(store, pid=other.pid, process_started="1")
        with Lease(store, "g", lapse_s=999):
            pass
        other.communicate(b"\n")


def test_a_run_that_slept_while_others_came_and_went_is_not_the_holder(store):
    asleep = Lease(store, "g")
    asleep.__enter__()
    leave(store, 2, **FOREIGN)
    store.put(f"{leases_path('g')}/00000002.json", lease_module.RELEASED)
    with Lease(store, "g"):
        with pytest.raises(GalleryBusyError, match="another run took g over"):
            asleep.check()
        asleep.__exit__()
        assert held(store) == ["00000003.json"]
        with pytest.raises(GalleryBusyError), Lease(store, "g"):
            pass


def test_an_answer_that_got_lost_is_no_refusal(store, monkeypatch):
    """S3 may have stored what it answers 500 to; the store asks again, and is told that it is there."""
    create = store.create
    monkeypatch.setattr(store, "create", lambda *args: create(*args) and False)
    with Lease(store, "g"):
        pass


def test_a_file_that_is_no_lease_is_passed_over(store):
    store.put(f"{leases_path('g')}/.DS_Store", b"x")
    with Lease(store, "g"):
        pass


def hold(root, ready, end):
    with Lease(Store(root), "g"):
        ready.set()
        end.wait(30)


def test_another_machines_lease_is_taken_over_once_it_is_not_renewed(anywhere, caplog):
    leave(anywhere, **FOREIGN)
    with Lease(anywhere, "g", lapse_s=0.1):
        assert held(anywhere) == ["00000002.json"]
    assert "process 7 on elsewhere" in caplog.text


def test_another_machines_lease_that_is_renewed_is_respected(store, monkeypatch):
    leave(store, **FOREIGN)
    lease = Lease(store, "g", lapse_s=0.1)
    monkeypatch.setattr(lease._released, "wait", lambda _: leave(store, **FOREIGN, renewed="later"))
    with pytest.raises(GalleryBusyError, match="process 7 on elsewhere"), lease:
        pass


def test_another_machines_lease_that_ends_meanwhile_is_no_hindrance(store, monkeypatch):
    leave(store, **FOREIGN)
    lease = Lease(store, "g", lapse_s=0.1)

    def release(_):
        monkeypatch.undo()
        store.put(f"{leases_path('g')}/00000001.json", lease_module.RELEASED)

    monkeypatch.setattr(lease._released, "wait", release)
    with lease:
        assert held(store) == ["00000002.json"]


def test_where_no_process_can_be_seen_a_lease_lapses_as_another_machines_does(store, monkeypatch, caplog):
    """As on macOS, which has no /proc: a process of that number may be any."""
    monkeypatch.setattr(lease_module, "_processes", lambda: "")
    leave(store, pid=1)
    with Lease(store, "g", lapse_s=0.1):
        assert held(store) == ["00000002.json"]
    assert "waiting 0.1 s to see whether it lives" in caplog.text


def test_rubbish_in_a_lease_is_somebody_elses_until_it_lapses(store):
    store.put(f"{leases_path('g')}/00000003.json", b"rubbish")
    with Lease(store, "g", lapse_s=0.1):
        assert held(store) == ["00000004.json"]


def test_a_lease_is_renewed_while_it_is_held(store, monkeypatch):
    monkeypatch.setattr(lease_module, "RENEW_S", 0.01)
    renewed = threading.Event()
    put = store.put
    monkeypatch.setattr(store, "put", lambda *args: (put(*args), renewed.set()))
    with Lease(store, "g"):
        assert renewed.wait(10)


def test_a_run_that_was_taken_over_writes_no_more(store, monkeypatch):
    monkeypatch.setattr(lease_module, "RENEW_S", 0.01)
    with Lease(store, "g") as lease:
        leave(store, 2, **FOREIGN)
        assert lease._lost.wait(10)
        with pytest.raises(GalleryBusyError, match="another run took g over"):
            lease.check()
    assert held(store) == ["00000002.json"]
