from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.download.host_queue import TURN_ITEMS, Requeue, Schedule


def first_letter(item):
    return item[0]


def test_hosts_take_turns():
    schedule = Schedule(slots=lambda _: 9, host_of=first_letter)
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        schedule.add(item)
    assert [schedule.next(0) for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_a_host_without_a_free_slot_is_passed_over():
    schedule = Schedule(slots=lambda _: 1, host_of=first_letter)
    for item in ("a1", "a2", "b1"):
        schedule.add(item)
    assert [schedule.next(0) for _ in range(3)] == ["a1", "b1", None]
    schedule.finished("a1")
    assert schedule.next(0) == "a2"


def test_a_delayed_item_comes_when_it_is_due_and_its_host_goes_on():
    schedule = Schedule(slots=lambda _: 2, host_of=first_letter)
    schedule.add("a1")
    schedule.add("a2")
    assert schedule.next(0) == "a1"
    schedule.again(Requeue("a1", 5), 0)
    schedule.finished("a1")
    assert schedule.next(0) == "a2"
    assert schedule.seconds_until_due(1) == 4
    assert schedule.next(4.9) is None
    assert schedule.next(5) == "a1"


def test_a_host_that_is_left_alone_gets_nothing_until_its_time():
    schedule = Schedule(slots=lambda _: 9, host_of=first_letter)
    for item in ("a1", "a2", "b1"):
        schedule.add(item)
    assert schedule.next(0) == "a1"
    schedule.again(Requeue("a1", 5, host="a"), 0)
    schedule.finished("a1")
    assert [schedule.next(1) for _ in range(2)] == ["b1", None]
    assert {schedule.next(5), schedule.next(5)} == {"a1", "a2"}


def test_a_slow_host_never_gets_all_the_workers_while_there_are_others():
    schedule = Schedule(slots=lambda _: 8, host_of=first_letter, workers=8)
    for item in [f"a{number}" for number in range(20)] + ["b1"]:
        schedule.add(item)
    out = [schedule.next(0) for _ in range(7)]
    assert sorted(item[0] for item in out) == ["a"] * 6 + ["b"]
    assert schedule.next(0) is None
    schedule.finished("b1")
    assert [schedule.next(0) is not None for _ in range(3)] == [True, True, False]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60), st.integers(1, 3))
def test_nothing_is_lost_and_no_host_exceeds_its_slots(drawn, per_host):
    schedule = Schedule(slots=lambda _: per_host, host_of=lambda item: item[0])
    items = [(host, number, place) for place, (host, number) in enumerate(drawn)]
    for item in items:
        schedule.add(item)
    out, finished = [], []
    while len(finished) < len(items):
        while (item := schedule.next(0)) is not None:
            out.append(item)
        assert max(sum(each[0] == host for each in out) for host in "abc") <= per_host
        finished.append(out.pop(0))
        schedule.finished(finished[-1])
    assert sorted(finished) == sorted(items)
    assert len(schedule) == 0


def test_an_item_that_is_put_back_comes_first_when_its_host_may_be_asked_again():
    schedule = Schedule(slots=lambda _: 2, host_of=first_letter)
    for item in ("a1", "a2", "a3"):
        schedule.add(item)
    first, second = schedule.next(0), schedule.next(0)
    schedule.again(Requeue(first, 5, "a"), now=0)
    schedule.finished(first)
    assert schedule.is_left_alone(second)
    schedule.put_back(second)
    assert schedule.next(4) is None
    assert [schedule.next(5), schedule.next(5)] == ["a2", "a3"]
    assert len(schedule) == 1


def test_each_host_has_its_own_slots():
    schedule = Schedule(slots={"a": 1, "b": 2}.__getitem__, host_of=first_letter)
    for item in ("a1", "b1", "a2", "b2", "b3"):
        schedule.add(item)
    assert [schedule.next(0) for _ in range(4)] == ["a1", "b1", "b2", None]


def test_a_host_goes_on_when_its_item_is_finished_for_some_items_in_a_row():
    schedule = Schedule(slots=lambda _: 1, host_of=first_letter, workers=1)
    for number in range(TURN_ITEMS + 2):
        for host in "abc":
            schedule.add(f"{host}{number}")
    handed_out = []
    for _ in range(3 * TURN_ITEMS):
        handed_out.append(schedule.next(0))
        schedule.finished(handed_out[-1])
    assert [item[0] for item in handed_out] == ["a"] * TURN_ITEMS + ["b"] * TURN_ITEMS + ["c"] * TURN_ITEMS


def test_a_host_in_a_pause_does_not_go_on():
    schedule = Schedule(slots=lambda _: 2, host_of=first_letter)
    for item in ("a1", "a2", "b1"):
        schedule.add(item)
    assert schedule.next(0) == "a1"
    schedule.leave_alone("a", 5)
    schedule.finished("a1")
    assert [schedule.next(0) for _ in range(2)] == ["b1", None]
    assert schedule.next(5) == "a2"


def test_a_host_whose_slots_change_has_as_many_items_out_as_it_may():
    slots = [2]
    schedule = Schedule(lambda _: slots[0], lambda item: "h")
    for number in range(6):
        schedule.add(number)
    assert [schedule.next(0.0) for _ in range(3)] == [0, 1, None]
    slots[0] = 1
    schedule.finished(0)
    assert (schedule.next(0.0), schedule.busy("h")) == (None, 1)
    slots[0] = 3
    schedule.slots_changed("h")
    assert [schedule.next(0.0) for _ in range(3)] == [2, 3, None]


def test_a_host_that_lost_its_slots_when_its_turn_had_come_waits():
    slots = [1]
    schedule = Schedule(lambda _: slots[0], lambda item: "h")
    schedule.add(1)
    slots[0] = 0
    assert schedule.next(0.0) is None
    slots[0] = 1
    schedule.slots_changed("h")
    assert schedule.next(0.0) == 1
