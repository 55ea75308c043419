import json
import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from imgdl_pipeline.core.storage import host_leases
from imgdl_pipeline.core.storage.host_leases import HostLeases, HostLimits, Part
from imgdl_pipeline.core.storage.layout import host_leases_path
from imgdl_pipeline.core.storage.lease import this_process
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.lockstep import Lockstep, SteppedStore

HOST = "h.org:443"


class Run:
    """A run that uses all slots that it has, and gives them back only when it is told to."""

    def __init__(self, store, now, total=8):
        self.used = 0
        self.leases = HostLeases(
            store, lambda _: HostLimits(total), [HOST], busy=lambda _: self.used, clock=lambda: now[0]
        )

    def renew(self, *, answered=True):
        self.leases.renew()
        self.used = self.slots if answered else max(self.used, self.slots)

    @property
    def slots(self):
        return self.leases.slots(HOST)


@pytest.fixture
def now():
    return [0.0]


def test_a_run_alone_has_all_slots(any_store, now):
    run = Run(any_store, now)
    run.renew()
    assert run.slots == 8
    assert repr(run.leases) == "<HostLeases h.org:443 8/8>"
    assert run.leases.slots("other.org:443") is None


def test_a_second_run_uses_none_until_the_first_has_left_some(any_store, now):
    first, second = Run(any_store, now), Run(any_store, now)
    first.renew()
    second.renew()
    assert (first.slots, second.slots) == (8, 0)
    first.renew(answered=False)
    second.renew()
    assert (first.slots, first.used, second.slots) == (4, 8, 0)
    first.used = 4
    first.renew()
    second.renew()
    assert (first.slots, second.slots) == (4, 4)


@pytest.mark.parametrize("total", [1, 2, 8])
def test_no_order_of_renewals_ever_uses_more_than_all_slots(store, now, total):
    runs = [Run(store, now, total) for _ in range(3)]
    for step in range(60):
        runs[(step * 7 + step // 5) % 3].renew(answered=step % 4 > 0)
        assert sum(run.used for run in runs) <= total
    for _ in range(3):
        for run in runs:
            run.renew()
    assert sum(run.slots for run in runs) == total


def test_two_that_declare_at_the_same_moment_do_not_both_use_them(store, now, monkeypatch):
    first, second = Run(store, now), Run(store, now)
    put = store.put

    def put_after_the_other(path, data):
        monkeypatch.undo()
        second.renew()
        put(path, data)

    monkeypatch.setattr(store, "put", put_after_the_other)
    first.renew()
    assert first.used + second.used <= 8


def test_slots_are_given_back_at_the_end(store, now):
    first, second = Run(store, now), Run(store, now)
    with first.leases:
        assert first.slots == 8
    second.renew()
    assert second.slots == 8


def declare(store, declared, **changes):
    holder = {**this_process(), "slots": declared, "of": 8, **changes}
    store.put(f"{host_leases_path(HOST)}/other.json", json.dumps(holder).encode())


def test_the_slots_of_a_process_that_is_gone_are_free_at_once(store, now):
    declare(store, 8, process_started="never")
    run = Run(store, now)
    run.renew()
    assert run.slots == 8


def test_the_slots_of_another_machine_that_is_silent_are_free_after_a_while(store, now):
    declare(store, 8, host="elsewhere")
    run = Run(store, now)
    run.renew()
    now[0] = 29.0
    run.renew()
    assert run.slots == 0
    now[0] = 30.0
    run.renew()
    assert run.slots == 8


def test_a_run_that_cannot_renew_uses_none_before_others_think_it_dead(store, now, monkeypatch, caplog):
    run = Run(store, now)
    run.renew()

    def fail(*_):
        raise StoreError("the network is gone")

    monkeypatch.setattr(store, "put", fail)
    now[0] = 21.0
    run.renew()
    assert run.slots == 0
    assert "were not renewed: the network is gone" in caplog.text
    monkeypatch.undo()
    run.renew()
    assert run.slots == 8


def test_a_declaration_that_cannot_be_read_counts_as_all_slots_until_it_lapses(store, now):
    store.put(f"{host_leases_path(HOST)}/other.json", b"rubbish")
    run = Run(store, now)
    run.renew()
    assert run.slots == 0
    now[0] = 29.0
    run.renew()
    now[0] = 31.0
    run.renew()
    assert run.slots == 8


@pytest.fixture
def process():
    process = Lockstep()
    yield process
    process.kill()


def stepped(process, files, now, **settings):
    return HostLeases(
        SteppedStore(files, process), lambda _: HostLimits(8), [HOST], clock=lambda: now[0], **settings
    )


def test_a_run_that_wakes_up_uses_no_slots_until_it_knows_what_others_use(process, now):
    files = {}
    asleep = stepped(process, files, now)
    process.finish(asleep.renew)
    assert asleep.slots(HOST) == 8
    now[0] = 40.0
    taken = {**this_process(), "slots": 8, "of": 8}
    files[f"{host_leases_path(HOST)}/other.json"] = json.dumps(taken).encode()
    process.step(asleep.renew)
    while process.is_at_work:
        assert asleep.slots(HOST) == 0
        process.step(asleep.renew)
    assert asleep.slots(HOST) == 0


def test_a_renewal_that_takes_long_gives_no_slots_that_others_may_have_by_then(process, now):
    files = {}
    slow = stepped(process, files, now)
    process.finish(slow.renew)
    now[0] = 19.0
    for _ in range(3):  # before and after the look at the others' files, and before its own is written
        process.step(slow.renew)
    now[0] = 35.0
    files[f"{host_leases_path(HOST)}/other.json"] = json.dumps({"slots": 8, "of": 8}).encode()
    while process.is_at_work:
        assert slow.slots(HOST) == 0
        process.step(slow.renew)
    assert slow.slots(HOST) == 0


def test_of_twenty_runs_for_four_slots_each_has_its_turn(store, now):
    runs, had = [Run(store, now, total=4) for _ in range(20)], [0] * 20
    for _ in range(60):
        now[0] += 5.0
        for number, run in enumerate(runs):
            run.renew()
            had[number] += run.slots
            assert sum(each.used for each in runs) <= 4
    assert min(had) > 0
    assert sum(had) > 60 * 3, "and most slots are used most of the time"


def test_the_lowest_limits_count_for_all_runs_while_they_are_at_work(store, now):
    parts = {}
    many, few = Run(store, now, total=8), Run(store, now, total=2)
    for name, run, per_second in (("many", many, 40.0), ("few", few, 6.0)):
        run.leases._shares[HOST].limits = HostLimits(run.leases._shares[HOST].limits.slots, per_second)
        run.leases.on_renewal = lambda _, part, name=name: parts.update({name: part}) or True
    with few.leases:
        for _ in range(3):
            many.renew()
            few.renew()
        assert (many.slots, few.slots) == (1, 1)
        assert parts == dict.fromkeys(("many", "few"), Part(1, HostLimits(2, 6.0)))
    many.renew()
    many.renew()
    assert parts["many"] == Part(8, HostLimits(8, 40.0))


def test_a_host_that_is_asked_no_more_is_left_to_the_others_until_it_is_asked_again(store, now):
    first, second = Run(store, now), Run(store, now)
    first.leases.on_renewal = lambda *_: False
    for now[0] in (0.0, 5.0, 10.0):
        first.renew()
        second.renew()
    assert (first.leases._shares[HOST].usable, second.slots) == (4, 4)
    first.used = 0
    for now[0] in (15.0, 20.0, 25.0, 30.0, 35.0, 40.0):
        first.leases.renew()
        second.renew()
    assert (repr(first.leases), second.slots) == ("<HostLeases of no host>", 8)
    assert first.slots == 0
    for now[0] in (45.0, 50.0, 55.0):
        first.renew()
        second.renew()
    assert (first.slots, second.slots) == (4, 4)


def test_a_host_is_kept_if_a_request_to_it_begins_while_it_is_left(store, now):
    run = Run(store, now)
    run.renew()
    run.used, now[0] = 0, 40.0

    def begin(host, part):
        assert part.slots == 0
        run.used = 1
        return False

    run.leases.on_renewal = begin
    run.leases.renew()
    assert repr(run.leases) == "<HostLeases h.org:443 0/8>"
    assert len(list(store.list(host_leases_path(HOST)))) == 1


def test_a_host_is_shared_as_soon_as_it_is_asked(store):
    had = threading.Event()
    leases = HostLeases(store, lambda _: HostLimits(8), [])
    leases.on_renewal = lambda *_: had.set() or True
    with leases:
        assert leases.slots(HOST) is None
        leases.share(HOST)
        assert leases.slots(HOST) == 0
        assert had.wait(10)
        assert leases.slots(HOST) == 8
    assert list(store.list("hosts")) == []


@pytest.mark.parametrize("changes", [{"slots": "8"}, {"slots": -9}, {"slots": True}, {"of": 0}, {"of": None}])
def test_a_declaration_of_nonsense_counts_as_all_slots(store, now, changes):
    declare(store, 1, **{"host": "elsewhere", **changes})
    run = Run(store, now)
    run.renew()
    assert run.slots == 0


def test_a_run_that_can_declare_nothing_fails_at_once(store, now, monkeypatch):
    def fail(*_):
        raise StoreError("forbidden")

    monkeypatch.setattr(store, "put", fail)
    with pytest.raises(StoreError, match="forbidden"), Run(store, now).leases:
        pass


def test_the_file_of_a_silent_run_is_deleted_only_when_it_is_old(store, now, monkeypatch):
    declare(store, 8, host="elsewhere")
    path = f"{host_leases_path(HOST)}/other.json"
    run = Run(store, now)
    for now[0] in (0.0, 25.0, 50.0):
        run.renew()
    assert (run.slots, store.get(path) is not None) == (8, True)
    monkeypatch.setattr(host_leases, "FORGOTTEN_AFTER", timedelta(0))
    run.renew()
    assert (run.slots, store.get(path)) == (8, None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show a process's end")
def test_a_killed_process_that_its_parent_has_not_waited_for_is_over(store, now):
    code = "import json, sys; from imgdl_pipeline.core.storage.lease import this_process as identity; "
    with subprocess.Popen(
        [sys.executable, "-c", code + "print(json.dumps(identity()), flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        declare(store, 8, **json.loads(child.stdout.readline()))
        run = Run(store, now)
        run.renew()
        assert run.slots == 0
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        run.renew()
        assert run.slots == 8


def test_it_is_known_until_when_slots_may_be_used_without_a_renewal(store, now):
    run = Run(store, now)
    run.renew()
    slots, now[0] = run.leases.held(HOST)
    assert (slots, run.slots) == (8, 0)
    now[0] -= 0.01
    assert run.slots == 8
