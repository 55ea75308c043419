import gzip
import json

import pytest

from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.client import SourceClient, SourceError


@pytest.fixture
def waits():
    return []


@pytest.fixture
def client(waits):
    with SourceClient(DownloadSettings(), {}, sleep=waits.append) as opened:
        yield opened


def serve_json(server, path, data, status=200, **headers):
    return server.serve(path, json.dumps(data).encode(), status, Content_Type="application/json", **headers)


def in_turn(server, path, *answers):
    """Answer a path with each (status, body, headers) in turn."""
    left = list(answers)

    def answer(handler):
        status, body, headers = left.pop(0) if len(left) > 1 else left[0]
        handler.answer(status, body, "application/json", **headers)

    server.routes[path] = answer
    return server.url(path)


def test_json_is_asked_for_and_parsed(client, server):
    answer = client.json(serve_json(server, "/api", {"a": 1}), {"q": "x y"}, {"X-Key": "k"})
    assert (answer.status, answer.data) == (200, {"a": 1})
    path, headers = server.requests[0]
    assert path == "/api?q=x+y"
    assert headers["X-Key"] == "k"


def test_html_where_json_should_be_has_no_data_and_is_shown(client, server):
    answer = client.json(server.serve("/api", b"<html>blocked</html>", Content_Type="text/html"))
    assert answer.data is None
    assert "<html>blocked</html>" in str(answer.error("not JSON"))


def test_a_busy_server_is_waited_for_as_it_asks(client, server, waits):
    url = in_turn(server, "/api", (429, b"", {"Retry_After": "17"}), (429, b"", {}), (200, b"[]", {}))
    assert client.json(url).data == []
    assert waits == [17.0, 10.0]


def test_an_answer_that_says_busy_is_waited_for(client, server, waits):
    url = in_turn(server, "/api", (200, b'{"busy": true}', {}), (200, b"{}", {}))
    assert client.json(url, busy=lambda answer: "busy" in answer.data).data == {}
    assert waits == [10.0]


def test_a_server_that_stays_busy_is_given_up(client, server, waits):
    url = in_turn(server, "/api", (429, b"slow down", {"Retry_After": "100"}))
    with pytest.raises(SourceError, match=r"status 429\): slow down; gave up after 300 s of waiting"):
        client.json(url)
    assert waits == [100, 100, 100]


def test_a_server_that_fails_is_asked_three_times(client, server, waits):
    url = in_turn(server, "/api", (500, b"oops", {}))
    with pytest.raises(SourceError, match=r"GET http://127.0.0.1:\d+/api.*status 500\): oops"):
        client.json(url)
    assert waits == [2.0, 4.0]
    assert len(server.requests) == 3


def test_a_server_that_recovers_is_no_failure(client, server):
    url = in_turn(server, "/api", (502, b"", {}), (200, b"{}", {}))
    assert client.json(url).data == {}


def test_a_dead_server_is_named_without_its_password(client):
    with pytest.raises(SourceError, match=r"GET http://…@127\.0\.0\.1:9/api: .*refused"):
        client.json("http://me:secret@127.0.0.1:9/api")


def test_the_api_is_not_followed_to_another_host(client, server):
    server.redirect("/api", server.url("/elsewhere"))
    assert client.json(server.url("/api"), headers={"Authorization": "x"}).status == 302
    assert server.paths() == ["/api"]


def test_a_document_is_fetched_over_redirects(server):
    server.serve("/list.txt", b"https://h.org/a.jpg\n", Content_Type="text/plain")
    url = server.redirect("/latest", "/list.txt")
    with (
        SourceClient(DownloadSettings(allow_addresses=("127.0.0.1/32",)), {}) as client,
        client.document(url) as found,
    ):
        assert found.url == server.url("/list.txt")
        assert found.file.read() == b"https://h.org/a.jpg\n"


def test_a_document_that_redirects_to_a_private_address_is_refused(client, server):
    url = server.redirect("/latest", server.url("/internal"))
    with pytest.raises(SourceError, match="not a public address"):
        client.document(url).__enter__()
    assert set(server.paths()) == {"/latest"}


@pytest.mark.parametrize(
    ("status", "words"), [(404, r"\(status 404\): gone"), (500, r"\(status 500\): gone")]
)
def test_a_document_that_cannot_be_had_says_why(client, server, status, words):
    with pytest.raises(SourceError, match=words):
        client.document(server.serve("/list.txt", b"gone", status)).__enter__()


@pytest.mark.parametrize(
    "path", ["/list?api_key=SECRET", "/list?a=1&access_token=SECRET", "/list?X-Sig=SECRET"]
)
def test_a_key_in_a_url_is_not_shown(client, server, path):
    server.serve("/list", b"no such token=SECRET in ?token=SECRET", 403)
    with pytest.raises(SourceError, match="GET http") as caught:
        client.document(server.url(path)).__enter__()
    assert "=SECRET" not in str(caught.value).partition("(status")[0]


def test_a_compressed_document_is_not_unpacked_beyond_its_limit(client, server):
    bomb = gzip.compress(bytes(50_000_000))
    url = server.serve("/list", bomb, Content_Encoding="gzip")
    with pytest.raises(SourceError, match="the answer is longer than 3000000 bytes"):
        client.document(url, limit=3_000_000).__enter__()


def test_a_link_that_is_refused_is_not_asked_for_again_and_again(client, waits):
    with pytest.raises(SourceError, match="only http and https"):
        client.document("ftp://h.org/list").__enter__()
    assert waits == []
