import http.client
import io
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.response import MAX_HEADERS, content_length, read_headers
from imgdl_pipeline_tests.core.test_fetch import PICTURE, refusal


def headers_of(text):
    return read_headers(io.BytesIO(text.encode("latin-1")))


names = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1)
values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0"))


@given(st.lists(st.tuples(names, values), max_size=MAX_HEADERS), st.sampled_from(["\r\n", "\n"]))
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no colon\r\n\r\n", "malformed"),
        (": no name\r\n\r\n", "malformed"),
        ("Name : x\r\n\r\n", "malformed"),
        (" goes on with nothing: x\r\n\r\n", "malformed"),
        ("A: b\rX-Robots-Tag: noai\r\n\r\n", "malformed"),
        ("A: b\0\r\n\r\n", "malformed"),
        ("Content-Length: 10", "end early"),
        ("Content-Length: 100\r\n", "end early"),
        ("", "end early"),
        ("A: b\r\n" * 101 + "\r\n", "too many"),
        ("A: " + "b" * 65536 + "\r\n\r\n", "too long"),
    ],
)
def test_what_is_no_header_is_an_error(text, words):
    with pytest.raises(http.client.HTTPException, match=words):
        headers_of(text)


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        (["5"], 5),
        (["5, 5"], 5),
        (["5", "5"], 5),
        ([], None),
        (["many"], None),
        (["-5"], None),
        (["+5"], None),
        (["5_0"], None),
        (["\xb2"], None),
        (["9" * 5000], int("9" * 20)),
    ],
)
def test_a_length_is_a_number_that_is_stated_once(lines, length):
    assert (
        content_length(headers_of("".join(f"Content-Length: {each}\r\n" for each in lines) + "\r\n"))
        == length
    )


@pytest.mark.parametrize("lines", [["5, 6"], ["5", "6"], ["5", "many"], ["5", "-5"]])
def test_two_lengths_are_an_error(lines):
    with pytest.raises(http.client.HTTPException, match="two lengths"):
        content_length(headers_of("".join(f"Content-Length: {each}\r\n" for each in lines) + "\r\n"))


def test_what_is_told_before_the_answer_is_passed_over(fetcher, server):
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(hints + head + PICTURE)
    with fetcher.fetch(server.url("/a.jpg")).body as body:
        assert body.read() == PICTURE


def test_a_length_that_is_stated_twice_alike_does_not_wait_for_the_connection_to_end(fetcher, server):
    def answer(handler):
        length = b"Content-Length: %d\r\n" % len(PICTURE)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + 2 * length + b"\r\n" + PICTURE)
        handler.wfile.flush()

    server.routes["/a.jpg"] = answer
    for _ in range(2):  # the second time over the same connection
        with fetcher.fetch(server.url("/a.jpg")).body as body:
            assert body.read() == PICTURE


def test_a_head_that_breaks_off_is_asked_for_again(fetcher, server):
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(b"HTTP/1.1 200 OK\r\nContent-Le")
    error = refusal(fetcher, server.url("/a.jpg"))
    assert (error.code, error.passing) == ("connection", True)
    assert error.detail == "the answer is no valid HTTP: the headers end early"
