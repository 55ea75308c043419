import socket
import threading
import time

import pytest

from imgdl_pipeline.core.http import deadline
from imgdl_pipeline.core.http.deadline import Cancelled, Deadline, DeadlineSocket, deadline_scope


@pytest.fixture
def silent_server():
    """A socket that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


def connected(address):
    return deadline.connect(socket.AF_INET, address)


def test_a_deadline_that_has_passed_raises():
    with pytest.raises(TimeoutError, match="not done within 0 s"):
        Deadline(0, threading.Event()).left()


def test_a_deadline_that_was_given_up_raises():
    stop = threading.Event()
    ends_later = Deadline(60, stop)
    assert 59 < ends_later.left() <= 60
    stop.set()
    with pytest.raises(Cancelled):
        ends_later.left()


def test_work_without_a_deadline_is_a_mistake():
    with pytest.raises(LookupError, match="deadline_scope"):
        deadline.current()


def test_a_read_from_a_silent_server_ends_at_the_deadline(silent_server):
    with deadline_scope(Deadline(0.3, threading.Event())), connected(silent_server) as sock:
        with pytest.raises(TimeoutError):
            sock.recv_into(bytearray(10))


def test_a_read_that_drips_ends_at_the_deadline():
    ours, theirs = socket.socketpair()
    dripping = DeadlineSocket(ours.family, ours.type, ours.proto, fileno=ours.detach())
    stop = threading.Event()

    def drip():
        while not stop.wait(0.02):
            theirs.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with deadline_scope(Deadline(0.3, threading.Event())), pytest.raises(TimeoutError):
            while True:
                dripping.recv_into(bytearray(1))
    finally:
        stop.set()
        thread.join()
        dripping.close()
        theirs.close()


def test_giving_up_wakes_a_waiting_read(silent_server):
    stop = threading.Event()
    seconds = []

    def read():
        with deadline_scope(Deadline(60, stop)), connected(silent_server) as sock:
            started.set()
            began = time.monotonic()
            with pytest.raises(Cancelled):
                sock.recv_into(bytearray(10))
            seconds.append(time.monotonic() - began)

    started = threading.Event()
    thread = threading.Thread(target=read)
    thread.start()
    assert started.wait(10)
    stop.set()
    thread.join(10)
    assert seconds[0] < 2


def test_a_connection_that_nobody_accepts_ends_at_the_deadline():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            with deadline_scope(Deadline(0.3, threading.Event())), pytest.raises(TimeoutError):
                for _ in range(8):
                    connected(full.getsockname())
        finally:
            for each in waiting:
                each.close()


def test_a_refused_connection_is_an_oserror():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with deadline_scope(Deadline(5, threading.Event())), pytest.raises(ConnectionRefusedError):
        connected(address)
