import json

import pytest

from imgdl_pipeline.core.storage.host_leases import HostLeases
from imgdl_pipeline.core.storage.layout import host_leases_path
from imgdl_pipeline.core.storage.lease import process_identity
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

HOST = "h.org:443"


@pytest.fixture(params=["disk", "s3"])
def any_store(request, tmp_path):
    return Store(request.getfixturevalue("s3_bucket") if request.param == "s3" else str(tmp_path / "store"))


class Run:
    """A run that uses all slots that it has, and gives them back only when it is told to."""

    def __init__(self, store, now, total=8):
        self.used = 0
        self.leases = HostLeases(
            store, lambda _: total, [HOST], busy=lambda _: self.used, clock=lambda: now[0]
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


def declare(store, slots, **changes):
    holder = {**process_identity(), "slots": slots, **changes}
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
    now[0] = 31.0
    run.renew()
    assert run.slots == 8


def test_it_is_known_until_when_slots_may_be_used_without_a_renewal(store, now):
    run = Run(store, now)
    run.renew()
    now[0] = run.leases.until(HOST)
    assert run.slots == 0
    now[0] -= 0.01
    assert run.slots == 8
