import json
import logging
import threading

from imgdl_pipeline.core.storage import sign_of_life
from imgdl_pipeline.core.storage.lease import Lease, is_running_here
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.sign_of_life import alive, read_sign, run_of, signs_of_life


def seen_within(store, monkeypatch, times=1):
    """An event that is set once a sign of life was written a number of times."""
    written, count, put = threading.Event(), [0], store.put

    def noted(*args):
        put(*args)
        count[0] += 1
        if count[0] == times:
            written.set()

    monkeypatch.setattr(store, "put", noted)
    return written


def test_a_sign_of_life_is_there_for_the_length_of_the_block(store, monkeypatch):
    written = seen_within(store, monkeypatch)
    with alive(store, "run-1", "step"):
        assert written.wait(10)
        [path] = signs_of_life(store)
        assert run_of(path) == "run-1"
        sign = read_sign(store, path)
        assert (sign["run"], sign["step"]) == ("run-1", "step")
        assert is_running_here(sign)
    assert signs_of_life(store) == {}
    assert not [each for each in threading.enumerate() if each.name == "imgdl-alive"]


def test_it_is_renewed(store, monkeypatch):
    monkeypatch.setattr(sign_of_life, "RENEW_S", 0.01)
    written = seen_within(store, monkeypatch, 3)
    with alive(store, "run-1"):
        assert written.wait(10)


def test_a_store_that_fails_does_not_end_the_run(store, monkeypatch, caplog):
    def broken(*_):
        raise StoreError("no room")

    monkeypatch.setattr(store, "put", broken)
    monkeypatch.setattr(store, "delete", broken)
    with caplog.at_level(logging.INFO), alive(store, "run-1"):
        pass
    assert caplog.text == "", "the run itself fails on its store, and says so"


def test_a_lease_that_is_taken_meanwhile_names_the_run(store):
    with alive(store, "run-1"), Lease(store, "g"):
        [file] = store.list("downloads/gallery=g/_leases")
        assert json.loads(store.get(file.path))["run"] == "run-1"
    with Lease(store, "h"):
        [file] = store.list("downloads/gallery=h/_leases")
        assert json.loads(store.get(file.path))["run"] == ""


def test_rubbish_and_what_is_gone_say_nothing(store):
    store.put("_runs/r/1.json", b"rubbish")
    store.put("_runs/r/2.json", b"[]")
    assert [read_sign(store, f"_runs/r/{number}.json") for number in (1, 2, 3)] == [None, None, None]
