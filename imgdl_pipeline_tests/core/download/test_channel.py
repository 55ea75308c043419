import os
import socket
import threading

import pytest

from imgdl_pipeline.core.download.channel import Channel
from imgdl_pipeline.core.model.outcome import FetchError, Reason, RetryAfter


@pytest.fixture
def ends():
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_of_any_size_arrive_whole_and_in_order(ends):
    ours, theirs = ends
    sent = [b"", "a text", b"x" * 3_000_000, {"a": [1, 2]}]
    sender = threading.Thread(target=lambda: [ours.send(each) for each in sent])
    sender.start()
    assert [theirs.receive() for _ in sent] == [(each, None) for each in sent]
    sender.join()


def test_an_open_file_comes_with_its_message_and_with_no_other(ends, tmp_path):
    ours, theirs = ends
    (tmp_path / "a").write_bytes(b"bytes")
    with (tmp_path / "a").open("rb") as file:
        ours.send("before")
        ours.send("with", file.fileno())
        ours.send("after")
    assert theirs.receive() == ("before", None)
    message, descriptor = theirs.receive()
    with os.fdopen(descriptor, "rb") as file:
        assert (message, file.read()) == ("with", b"bytes")
    assert theirs.receive() == ("after", None)


def test_the_end_is_seen_after_the_last_message_and_the_other_way_stays_open(ends):
    ours, theirs = ends
    ours.send("last")
    ours.end()
    assert theirs.receive() == ("last", None)
    with pytest.raises(EOFError):
        theirs.receive()
    theirs.send("still heard")
    assert ours.receive() == ("still heard", None)


def test_after_a_message_that_was_interrupted_nothing_is_misread(ends, monkeypatch):
    ours, theirs = ends

    class Interrupted:
        def sendall(self, data):
            connection.sendall(data[:-1])
            raise KeyboardInterrupt

        def __getattr__(self, name):
            return getattr(connection, name)

    connection = ours._connection
    ours._connection = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        ours.send("half of it")
    ours._connection = connection
    with pytest.raises(OSError, match="pipe"):
        ours.send("another one")
    with pytest.raises(EOFError):
        theirs.receive()


def test_an_error_arrives_with_all_that_is_known_of_it(ends):
    ours, theirs = ends
    error = RetryAfter("busy", 3.0, http_status=429)
    error.host, error.places = "h.org:80", frozenset({"header"})
    ours.send([error, FetchError(Reason.HTTP, "gone", http_status=404)])
    (first, second), _ = theirs.receive()
    assert (type(first), vars(first), str(first)) == (RetryAfter, vars(error), str(error))
    assert (second.code, second.detail, second.retryable) == ("http_404", "gone", False)
