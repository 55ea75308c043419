import http.client
import threading

import pytest

from imgdl_pipeline.core.http.address_guard import AddressGuard
from imgdl_pipeline.core.http.connections import UNREAD_BYTES, Connections, Origin
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.pace import Paces, TooSoon
from imgdl_pipeline.core.model.outcome import FetchError
from imgdl_pipeline_tests.support.pictures import PICTURE
from imgdl_pipeline_tests.support.server import WebServer


@pytest.fixture(autouse=True)
def in_time():
    with deadline_scope(Deadline(20, threading.Event())):
        yield


@pytest.fixture
def guard(monkeypatch):
    """A guard that counts how many connections it has opened."""
    guard = AddressGuard(["127.0.0.1/32"])
    connect = guard.connect
    guard.opened = 0

    def counted(host, port):
        guard.opened += 1
        return connect(host, port)

    monkeypatch.setattr(guard, "connect", counted)
    return guard


@pytest.fixture
def connections(guard):
    connections = Connections(guard)
    yield connections
    connections.close()


def asked(connections, server, path="/a.jpg", turn=None):
    """The status and the body of an answer that is read to its end."""
    answer = connections.get(Origin.of(server.url()), path, [("Accept", "*/*")], turn)
    try:
        return answer.status, answer.read()
    finally:
        answer.close()
        answer.release_conn()


def test_the_next_request_uses_the_connection_whichever_thread_sends_it(connections, guard, server):
    server.serve("/a.jpg", PICTURE)

    def ask():
        with deadline_scope(Deadline(20, threading.Event())):
            assert asked(connections, server) == (200, PICTURE)

    for _ in range(3):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)
    assert len(server.paths()) == 3
    assert guard.opened == 1
    assert repr(connections) == "<Connections 1 kept, 1 hosts>"


def test_an_answer_that_is_not_read_to_its_end_costs_its_connection(connections, guard, server):
    server.serve("/a.jpg", PICTURE)
    for _ in range(2):
        answer = connections.get(Origin.of(server.url()), "/a.jpg", [])
        answer.close()
        answer.release_conn()
    assert guard.opened == 2
    assert repr(connections) == "<Connections 0 kept, 0 hosts>"


@pytest.mark.parametrize(("size", "opened"), [(0, 1), (100, 1), (UNREAD_BYTES, 1), (UNREAD_BYTES + 1, 2)])
def test_the_page_of_an_error_is_read_if_it_is_small(connections, guard, server, size, opened):
    server.routes["/a.jpg"] = lambda handler: handler.answer(404, b"x" * size)
    for _ in range(2):
        answer = connections.get(Origin.of(server.url()), "/a.jpg", [])
        assert answer.status == 404
        answer.close()
        answer.release_conn()
    assert guard.opened == opened


def test_the_page_of_an_error_that_drips_is_not_waited_for(connections, guard, server):
    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n")
        handler.wfile.flush()
        server.release.wait(10)

    server.routes["/a.jpg"] = drip
    with deadline_scope(Deadline(5, threading.Event())) as deadline:
        answer = connections.get(Origin.of(server.url()), "/a.jpg", [])
        answer.close()
        answer.release_conn()
        assert deadline.left() > 3
    assert repr(connections) == "<Connections 0 kept, 0 hosts>"


def test_a_kept_connection_that_the_server_closes_without_an_answer_is_replaced(connections, guard, server):
    server.serve("/a.jpg", PICTURE)
    asked(connections, server)
    server.routes["/b.jpg"] = lambda handler: (
        handler.hang_up() if server.paths().count("/b.jpg") == 1 else handler.answer(200, PICTURE)
    )
    assert asked(connections, server, "/b.jpg") == (200, PICTURE)
    assert server.paths() == ["/a.jpg", "/b.jpg", "/b.jpg"]
    assert guard.opened == 2


def test_a_new_connection_that_the_server_closes_without_an_answer_is_an_error(connections, server):
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(b"")
    with pytest.raises(http.client.RemoteDisconnected):
        asked(connections, server)
    assert server.paths() == ["/a.jpg"]


def test_no_more_connections_than_wanted_are_kept(guard):
    connections = Connections(guard, most=2)
    with WebServer() as one, WebServer() as two, WebServer() as three:
        for server in (one, two, three):
            server.serve("/a.jpg", PICTURE)
            asked(connections, server)
        assert repr(connections) == "<Connections 2 kept, 2 hosts>"
        asked(connections, two)
        asked(connections, three)
        assert guard.opened == 3
        asked(connections, one)
        assert guard.opened == 4
        connections.close()
        assert repr(connections) == "<Connections 0 kept, 0 hosts>"
        asked(connections, one)
        assert repr(connections) == "<Connections 0 kept, 0 hosts>", "a worker that was late leaves none open"


def test_a_request_that_comes_too_soon_leaves_its_connection_open(connections, guard, server):
    server.serve("/a.jpg", PICTURE)
    paces = Paces(1.0)
    host = f"127.0.0.1:{server.server_port}"
    asked(connections, server, turn=paces.turn(host))
    with pytest.raises(TooSoon):
        asked(connections, server, turn=paces.turn(host))
    assert repr(connections) == "<Connections 1 kept, 1 hosts>"
    assert server.paths() == ["/a.jpg"]


def test_every_new_connection_goes_through_the_guard(server):
    server.serve("/a.jpg", PICTURE)
    with pytest.raises(FetchError) as caught:
        asked(Connections(AddressGuard()), server)
    assert caught.value.code == "private_address"
    assert server.paths() == []
