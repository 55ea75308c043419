import base64
import gzip
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import client as client_module
from imgdl_pipeline.core.sources.client import (
    BARREN_PAGES,
    SourceClient,
    SourceError,
    Unchanged,
    is_trusted_like,
    parsed_json,
)
from imgdl_pipeline_tests.support.server import WebServer


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


def test_the_parameters_of_an_api_are_added_to_those_that_its_url_has(client, server):
    client.json(serve_json(server, "/api", {}) + "?site=1", {"q": "x"})
    assert server.paths() == ["/api?site=1&q=x"]


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


def test_an_answer_of_an_api_that_is_too_long_is_an_error_that_says_how_long_it_may_be(
    client, server, monkeypatch
):
    monkeypatch.setattr(client_module, "ANSWER_BYTES", 1_000)
    assert client.json(serve_json(server, "/api", "x" * 900)).data == "x" * 900
    with pytest.raises(SourceError, match="/api: the answer is longer than 1000 bytes"):
        client.json(serve_json(server, "/api", "x" * 1_000))
    with pytest.raises(SourceError, match="the answer is longer than 1000 bytes"):
        client.json(server.serve("/api", gzip.compress(bytes(9_000_000)), Content_Encoding="gzip"))


@pytest.mark.parametrize("data", [[0] * 101, {str(n): n for n in range(101)}, [[]] * 101, [{"a": []}] * 51])
def test_an_answer_of_an_api_with_too_many_values_is_an_error_that_names_the_bound(
    client, server, monkeypatch, data
):
    monkeypatch.setattr(client_module, "JSON_VALUES", 100)
    with pytest.raises(SourceError, match=r"/api: the answer has more than 100 values \(JSON_VALUES\)"):
        client.json(serve_json(server, "/api", data))
    assert parsed_json(json.dumps(data).encode()) is None
    assert client.json(serve_json(server, "/api", [0] * 99)).data == [0] * 99


@given(st.binary())
def test_any_bytes_are_json_or_none(data):
    for text in (data, b"[" * 100_000, b'{"a":' + data):
        parsed_json(text)
    assert parsed_json(b"\xef\xbb\xbf[1]") == [1]


def test_a_warning_is_one_short_clean_line(client, caplog):
    url = "https://ann:hunter2@h.org/a?access_token=s3cr3t&x=1"
    client.warn(f"a\nb\x1b[31mc\u202e {url}\x00 {'x' * 5_000}")
    [warning] = client.warnings
    assert warning.startswith("a b [31mc  https://…@h.org/a?access_token=…&x=1")
    assert len(warning) <= 500
    assert warning.isprintable()
    assert [record.getMessage() for record in caplog.records] == [warning]


def test_an_error_is_one_short_clean_line():
    url = "https://ann:hunter2@h.org/a?X-Amz-Signature=s3cr3t"
    words = str(SourceError(f"a\r\nb\x1b[0m {url} {'x' * 5_000}"))
    assert words.startswith("a  b [0m https://…@h.org/a?X-Amz-Signature=… xxx")
    assert (len(words), words.isprintable()) == (1_000, True)


SECRET = "s3cr3tS3CR3Ts3cr3tS3CR3T"
AS_SENT = base64.b64encode(b"ann:hunter2").decode()


@pytest.mark.parametrize(
    "echo",
    [
        "no such page: {path}",
        "<a href='{path}'>",
        "GET {url} HTTP/1.1",
        "<p>{html}</p>",
        "you sent {headers}",
        '{{"query": {{"access_token": "{secret}"}}}}',
    ],
)
def test_what_a_server_repeats_of_a_request_is_shown_without_its_secrets(client, server, echo, caplog):
    def answer(handler):
        url = server.url(handler.path)
        words = echo.format(
            path=handler.path,
            url=url,
            html=url.replace("&", "&amp;"),
            headers=dict(handler.headers),
            secret=SECRET,
        )
        handler.answer(403, words.encode(), "text/plain")

    server.routes["/list"] = answer
    url = server.url(f"/list?a=1&access_token={SECRET}&zz={SECRET[::-1]}").replace("//", "//ann:hunter2@")
    said = [_failure(client.json, url, None, {"X-Key": f"Bearer {SECRET}"})]
    said += [_failure(lambda: client.document(url).__enter__())]
    for words in [*said, caplog.text]:
        for secret in (SECRET, SECRET[::-1], "hunter2", AS_SENT):
            assert secret not in words


def _failure(function, *args):
    try:
        answer = function(*args)
    except SourceError as error:
        return str(error)
    return str(answer.error("no"))


def test_a_retry_is_logged_without_secrets(client, server, caplog):
    caplog.set_level(logging.INFO)
    server.routes["/api"] = lambda handler: handler.answer(503, f"busy: {handler.path}".encode())
    with pytest.raises(SourceError, match="gave up"):
        client.json(server.url(f"/api?token={SECRET}"))
    assert caplog.text.count("asking again in") == 2
    assert SECRET not in caplog.text


def test_an_api_that_asks_to_wait_for_an_hour_is_told_when_to_ask_again(client, server, waits):
    url = in_turn(server, "/api", (429, b"slow down", {"Retry_After": "3600"}))
    with pytest.raises(SourceError, match=r"asks to wait 3600 s: try again at \d{4}-\d\d-\d\d \d\d:\d\d UTC"):
        client.json(url)
    assert (waits, len(server.requests)) == ([], 1)


def test_a_document_is_asked_for_conditionally_and_its_validators_hold_no_url(server):
    def answer(handler):
        is_known = handler.headers.get("If-None-Match") == '"v1"'
        handler.answer(304 if is_known else 200, b"" if is_known else b"text", ETag='"v1"')

    server.routes["/list"] = answer
    url = server.url(f"/list?token={SECRET}")
    with SourceClient(DownloadSettings(), {}) as first, first.document(url, conditionally=True) as document:
        assert document.read() == b"text"
    assert SECRET not in json.dumps(first.validators)
    with SourceClient(DownloadSettings(), {}, validators=first.validators) as second:
        with pytest.raises(Unchanged):
            second.document(url, conditionally=True).__enter__()
        with second.document(url) as document:  # unconditionally
            assert document.read() == b"text"
    assert second.validators == first.validators


def test_a_304_that_nobody_asked_for_is_an_error(client, server):
    with pytest.raises(SourceError, match=r"could not be fetched \(status 304\)"):
        client.document(server.serve("/list", b"", 304), conditionally=True).__enter__()


def test_redirects_in_circles_are_an_error(server):
    url = server.redirect("/a", "/a")
    with SourceClient(DownloadSettings(allow_addresses=("127.0.0.1/32",)), {}) as client:
        with pytest.raises(SourceError, match="redirected more than 5 times"):
            client.document(url).__enter__()
    assert len(server.requests) == 6


def test_a_documents_final_url_has_no_password(client, server):
    url = server.serve("/list", b"text").replace("//", "//ann:hunter2@")
    with client.document(url) as document:
        assert document.url == server.url("/list")
    assert server.requests[0][1]["Authorization"] == f"Basic {AS_SENT}"


def test_a_password_is_not_sent_on_to_where_a_redirect_leads(server):
    with WebServer() as other:
        other.serve("/list", b"text")
        server.redirect("/latest", other.url("/list"))
        with SourceClient(DownloadSettings(allow_addresses=("127.0.0.1/32",)), {}) as client:
            with client.document(server.url("/latest").replace("//", "//ann:hunter2@")) as document:
                assert document.url == other.url("/list")
        assert "Authorization" not in other.requests[0][1]


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/xml; charset=ISO-8859-1", "ISO-8859-1"),
        ('text/xml;charset="utf-8"; x=y', "utf-8"),
        ("text/xml; x=y; Charset = 'koi8-r'", "koi8-r"),
        ("text/xml", None),
        ("charset=utf-8", None),
        ("text/xml; charset=", None),
    ],
)
def test_the_charset_of_a_document_is_what_its_content_type_says(client, server, content_type, charset):
    with client.document(server.serve("/list", b"", Content_Type=content_type)) as document:
        assert document.charset == charset


def test_pages_that_bring_nothing_new_are_an_error_in_the_end(client):
    for page in range(3):
        client.saw([f"{page}-1", f"{page}-2"])
        for _ in range(BARREN_PAGES - 1):
            client.saw(["0-1"])
    client.saw(["new"])
    with pytest.raises(SourceError, match=r"20 pages in a row bring nothing new \(BARREN_PAGES\)"):
        for _ in range(BARREN_PAGES):
            client.saw(["new"])
    assert client.entries == 3 * (2 + BARREN_PAGES - 1) + 1 + BARREN_PAGES


def test_a_text_is_known_if_it_was_the_same_the_last_time():
    with SourceClient(DownloadSettings(), {}) as first:
        assert not first.is_known("changes", "a")
    with SourceClient(DownloadSettings(), {}, validators=first.validators) as second:
        assert second.is_known("changes", "a")
        assert not second.is_known("other", "a")
        assert not second.is_known("changes", "b")
        assert not second.is_known("changes", "a" * 9)


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://127.0.0.1:80/x", True),
        ("http://ann:pw@[::1]/x", True),
        ("http://localhost/", False),
        ("http://127.1/", False),
        ("http://[bad", False),
        ("", False),
    ],
)
def test_what_is_at_the_same_origin_is_trusted_only_if_its_host_is_an_address(url, answer):
    assert is_trusted_like(url, url) is answer


def test_what_is_at_another_origin_is_not_trusted():
    assert is_trusted_like("http://127.0.0.1:80/x", "http://127.0.0.1:80/y")
    assert not is_trusted_like("http://127.0.0.1:80/x", "http://127.0.0.1:81/x")
    assert not is_trusted_like("http://127.0.0.1:80/x", "https://127.0.0.1:80/x")
