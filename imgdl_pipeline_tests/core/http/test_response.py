import http.client
import io
import string
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.http.address_guard import AddressGuard
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.response import (
    MAX_HEAD_BYTES,
    content_length,
    is_chunked,
    read_headers,
)
from imgdl_pipeline.core.http.transport import get, new_session
from imgdl_pipeline_tests.support.fetching import refusal
from imgdl_pipeline_tests.support.pictures import PICTURE


def headers_of(text):
    return read_headers(io.BytesIO(text.encode("latin-1")))


names = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1)
values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0"))


@given(st.lists(st.tuples(names, values), max_size=300), st.sampled_from(["\r\n", "\n"]))
def test_headers_come_as_they_were_sent(sent, end):
    text = "".join(f"{name}: {value} {end}" for name, value in sent) + end
    assert headers_of(text).items() == sent


@given(st.binary())
def test_whatever_comes_is_headers_or_an_error_of_http(data):
    try:
        read_headers(io.BytesIO(data))
    except http.client.HTTPException:
        return


def test_what_follows_the_empty_line_is_left_unread():
    file = io.BytesIO(b"A: b\r\n\r\nbody")
    read_headers(file)
    assert file.read() == b"body"


def test_a_line_that_goes_on_is_read_as_one():
    assert headers_of("Link: <a>,\r\n\t <b>\r\nETag: x\r\n\r\n").items() == [
        ("Link", "<a>, <b>"),
        ("ETag", "x"),
    ]


def test_a_blank_before_the_colon_is_taken_away():
    assert headers_of("Server : x\r\nAge\t:1\r\n\r\n").items() == [("Server", "x"), ("Age", "1")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no colon\r\n\r\n", "malformed"),
        (": no name\r\n\r\n", "malformed"),
        (" goes on with nothing: x\r\n\r\n", "malformed"),
        ("A: b\rX-Robots-Tag: noai\r\n\r\n", "malformed"),
        ("A: b\0\r\n\r\n", "malformed"),
        ("Content-Length: 10", "end early"),
        ("Content-Length: 100\r\n", "end early"),
        ("", "end early"),
        ("A: " + "b" * MAX_HEAD_BYTES + "\r\n\r\n", "too long"),
        (("A: " + "b" * 60_000 + "\r\n") * 5 + "\r\n", "too long"),
    ],
)
def test_what_is_no_header_is_an_error(text, words):
    with pytest.raises(http.client.HTTPException, match=words):
        headers_of(text)


def test_a_name_that_is_no_token_is_passed_over_with_its_value():
    assert headers_of("a(b): x\r\na b: y\r\n\xe9: z\r\nC: d\r\n\r\n").items() == [("C", "d")]


def test_a_head_of_one_long_line_without_a_colon_takes_no_time():
    with pytest.raises(http.client.HTTPException, match="malformed"):
        headers_of("a " * 30_000 + "\r\n\r\n")


def lines_of(name, values):
    return headers_of("".join(f"{name}: {each}\r\n" for each in values) + "\r\n")


@pytest.mark.parametrize(
    ("values", "length"),
    [
        (["5"], 5),
        (["0"], 0),
        (["5, 5"], 5),
        (["5", "5"], 5),
        (["005", "5"], 5),
        (["5,"], 5),
        (["", "5"], 5),
        ([], None),
        ([""], None),
        (["0" * 5000 + "5"], 5),
        (["9" * 5000], int("9" * 20)),
    ],
)
def test_a_length_is_a_number_that_is_stated_once(values, length):
    assert content_length(lines_of("Content-Length", values)) == length


@pytest.mark.parametrize("value", ["many", "-5", "+5", "5_0", "5 0", "5;x", "\xb2", "0x5"])
def test_a_length_that_is_no_number_is_an_error(value):
    with pytest.raises(http.client.HTTPException, match="the body's length is not a number"):
        content_length(lines_of("Content-Length", [value]))


@pytest.mark.parametrize("values", [["5, 6"], ["5", "6"], ["5", "many"], ["5", "-5"]])
def test_two_lengths_are_an_error(values):
    with pytest.raises(http.client.HTTPException, match="two lengths"):
        content_length(lines_of("Content-Length", values))


@pytest.mark.parametrize(
    ("values", "chunked"),
    [
        ([], False),
        (["identity"], False),
        (["chunked"], True),
        (["Chunked"], True),
        (["chunked", "chunked"], True),
        (["", "chunked"], True),
        (["identity", "chunked"], True),
    ],
)
def test_chunks_are_known_however_they_are_announced(values, chunked):
    assert is_chunked(lines_of("Transfer-Encoding", values)) is chunked


@pytest.mark.parametrize("values", [["gzip"], ["gzip, chunked"], ["gzip", "chunked"], ["chunked;x=y"]])
def test_a_coding_that_was_not_asked_for_is_an_error(values):
    with pytest.raises(http.client.HTTPException, match="not asked for"):
        is_chunked(lines_of("Transfer-Encoding", values))


LENGTH = b"Content-Length: %d\r\n" % len(PICTURE)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE)


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + PICTURE, 1),
        (b"HTTP/1.1 200\r\n" + 2 * LENGTH + b"\r\n" + PICTURE, 1),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n" + CHUNKS, 1),
        (b"HTTP/1.1 200 OK\r\n" + 2 * CHUNKED + b"\r\n" + CHUNKS, 1),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH + b"\r\n" + PICTURE, 1),
        (b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + PICTURE, 2),
        (b"HTTP/1.1 200 OK\r\nConnection: close, TE\r\n" + LENGTH + b"\r\n" + PICTURE, 2),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + LENGTH + b"\r\n" + CHUNKS, 2),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + CHUNKED + b"\r\n" + CHUNKS, 2),
    ],
    ids=lambda value: value.partition(b"\r\n\r\n")[0].decode() if isinstance(value, bytes) else None,
)
def test_a_connection_is_used_again_only_where_nobody_can_doubt_the_bodys_end(
    fetcher, server, answer, connections
):
    ports = set()

    def send(handler):
        ports.add(handler.client_address)
        handler.wfile.write(answer)

    server.routes["/a.jpg"] = send
    for _ in range(2):
        with fetcher.fetch(server.url("/a.jpg")).body as body:
            assert body.read() == PICTURE
    assert len(ports) == connections


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: gzip, chunked\r\n" + LENGTH, "connection", "coding"),
        (b"HTTP/2 200 OK\r\n" + LENGTH, "connection", "HTTP/2"),
        (b"HTTP/1.1 101 Switching Protocols\r\n", "http_101", "101"),
        (b"HTTP/1.1 204 No Content\r\n" + CHUNKED, "http_204", "204"),
    ],
)
def test_an_answer_that_cannot_hold_an_image_is_refused_at_once(fetcher, server, answer, code, words):
    head = answer + b"\r\n"
    server.routes["/a.jpg"] = lambda handler: handler.wfile.write(head)  # and the connection stays open
    error = refusal(fetcher, server.url("/a.jpg"))
    assert error.code == code
    assert words in error.detail


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_none_whatever_it_announces(server, loopback, status):
    head = b"HTTP/1.1 %d x\r\n%s\r\n" % (status, CHUNKED)
    server.routes["/a.jpg"] = lambda handler: handler.wfile.write(head)
    session = new_session(AddressGuard(loopback.allow_addresses), loopback)
    with deadline_scope(Deadline(5, threading.Event())), get(session, server.url("/a.jpg")) as response:
        assert response.raw.read() == b""


def test_what_is_told_before_the_answer_is_passed_over(fetcher, server):
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(hints + head + PICTURE)
    with fetcher.fetch(server.url("/a.jpg")).body as body:
        assert body.read() == PICTURE


def test_a_head_that_breaks_off_is_asked_for_again(fetcher, server):
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(b"HTTP/1.1 200 OK\r\nContent-Le")
    error = refusal(fetcher, server.url("/a.jpg"))
    assert (error.code, error.retryable) == ("connection", True)
    assert error.detail == "the answer is not valid HTTP: the headers end early"
