"""Every reason, by the real thing: a server that does what earns it."""

import base64
import gzip
import hashlib
import socket
import threading
import time
import zlib
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
import requests.exceptions
import trustme
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.download.fetch import (
    Fetcher,
    NotModified,
    fetch_error,
)
from imgdl_pipeline.core.http.deadline import Cancelled
from imgdl_pipeline.core.http.transport import Validators, retry_after
from imgdl_pipeline.core.model.outcome import FetchError, RetryAfter
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline_tests.support.fetching import fetched_from, refusal
from imgdl_pipeline_tests.support.pictures import PICTURE
from imgdl_pipeline_tests.support.server import WebServer
from imgdl_pipeline_tests.support.tls import tls_server


def with_settings(settings, **changes):
    return Fetcher(settings.overridden_by(changes), threading.Event())


def test_a_sound_jpeg_comes_byte_for_byte_with_its_facts(fetcher, server):
    url = server.serve("/a.jpg", PICTURE, ETag='"v1"', Last_Modified="Mon, 01 Jun 2026 00:00:00 GMT")
    fetched = fetcher.fetch(url)
    with fetched.body:
        assert fetched.body.read() == PICTURE
    assert fetched.bytes == len(PICTURE)
    assert fetched.digests == {"sha256": hashlib.sha256(PICTURE).hexdigest()}
    assert (fetched.http_status, fetched.etag) == (200, '"v1"')
    assert fetched.last_modified == "Mon, 01 Jun 2026 00:00:00 GMT"


def test_a_body_without_a_length_is_whole_when_the_connection_ends(fetcher, server):
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(b"HTTP/1.0 200 OK\r\n\r\n" + PICTURE)
    with fetcher.fetch(server.url("/a.jpg")).body as body:
        assert body.read() == PICTURE


def test_a_chunked_body_is_put_together(fetcher, server):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (PICTURE[:9], PICTURE[9:]))
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(answer)
    with fetcher.fetch(server.url("/a.jpg")).body as body:
        assert body.read() == PICTURE


def test_one_thread_uses_one_connection_for_many_images(fetcher, server):
    ports = set()

    def answer(handler):
        ports.add(handler.client_address[1])
        handler.answer(200, PICTURE)

    server.routes["/a.jpg"] = answer
    for _ in range(5):
        fetcher.fetch(server.url("/a.jpg")).body.close()
    assert len(ports) == 1


def test_we_say_who_we_are_and_ask_for_identity(fetcher, server):
    fetcher.fetch(server.serve("/a.jpg", PICTURE)).body.close()
    [(_, headers)] = server.requests
    assert headers["User-Agent"].startswith("imgdl_pipeline/")
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451, 206, 204])
def test_an_answer_that_is_not_200_is_its_http_code_and_final(fetcher, server, status):
    error = refusal(fetcher, server.serve("/a.jpg", PICTURE if status != 204 else b"", status))
    assert (error.code, error.http_status, error.retryable) == (f"http_{status}", status, False)


@pytest.mark.parametrize("status", [408, 500, 502, 504])
def test_an_answer_that_may_get_better_is_passing(fetcher, server, status):
    error = refusal(fetcher, server.serve("/a.jpg", b"", status))
    assert (error.code, error.retryable) == (f"http_{status}", True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0", 0), ("soon", None), ("", None), ("9" * 400, 999_999_999)]
)
def test_a_busy_host_says_how_long_to_wait(fetcher, server, status, header, seconds):
    error = refusal(fetcher, server.serve("/a.jpg", b"", status, Retry_After=header))
    assert isinstance(error, RetryAfter)
    assert (error.code, error.seconds) == (f"http_{status}", seconds)


def test_retry_after_may_be_a_date(fetcher, server):
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    error = refusal(fetcher, server.serve("/a.jpg", b"", 429, Retry_After=date))
    assert 80 < error.seconds <= 90


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n")))
def test_no_retry_after_breaks_anything(text):
    seconds = retry_after({"Retry-After": text})
    assert seconds is None or seconds >= 0


def test_a_server_that_never_answers_is_timeout(loopback, server):
    server.routes["/a.jpg"] = lambda handler: server.release.wait(30)
    with with_settings(loopback, timeout=0.4) as fetcher:
        error = refusal(fetcher, server.url("/a.jpg"))
    assert (error.code, error.detail, error.retryable) == ("timeout", "not done within 0.4 s", True)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff", b"HTTP/1.1 200 OK\r\nX-", b""])
def test_a_server_that_drips_is_timeout_at_the_deadline(loopback, server, head):
    def drip(handler):
        handler.wfile.write(head)
        while not server.release.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    server.routes["/a.jpg"] = drip
    with with_settings(loopback, timeout=0.4) as fetcher:
        assert refusal(fetcher, server.url("/a.jpg")).code == "timeout"


def test_a_stalled_body_is_timeout(loopback, server):
    def stall(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\xff\xd8\xff")
        handler.wfile.flush()
        server.release.wait(30)

    server.routes["/a.jpg"] = stall
    with with_settings(loopback, timeout=0.4) as fetcher:
        assert refusal(fetcher, server.url("/a.jpg")).code == "timeout"


def test_a_name_without_an_address_is_dns(fetcher):
    error = refusal(fetcher, "http://no-such-host.invalid/a.jpg")
    assert error.code == "dns"
    assert "no-such-host.invalid has no address" in error.detail


def test_a_refused_connection_is_connection(fetcher):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    error = refusal(fetcher, f"http://127.0.0.1:{port}/a.jpg")
    assert (error.code, error.retryable) == ("connection", True)
    assert f"127.0.0.1 port {port}: Connection refused" in error.detail


def test_a_reset_connection_is_connection(fetcher, server):
    server.routes["/a.jpg"] = lambda handler: handler.hang_up()
    error = refusal(fetcher, server.url("/a.jpg"))
    assert (error.code, error.retryable) == ("connection", True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_no_http_is_connection(fetcher, server, answer):
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(answer)
    assert refusal(fetcher, server.url("/a.jpg")).code == "connection"


def test_a_short_body_is_incomplete(fetcher, server):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(head + PICTURE[:-100])
    error = refusal(fetcher, server.url("/a.jpg"))
    assert (error.code, error.retryable) == ("incomplete", True)


def test_a_chunked_body_that_breaks_off_is_incomplete(fetcher, server):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = head + b"%x\r\n%s" % (len(PICTURE), PICTURE[:-100])
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(answer)
    assert refusal(fetcher, server.url("/a.jpg")).code == "incomplete"


def test_a_loop_of_redirects_is_redirects(fetcher, server):
    server.redirect("/a.jpg", "/b.jpg")
    server.redirect("/b.jpg", "/a.jpg")
    assert refusal(fetcher, server.url("/a.jpg")).code == "redirects"


def test_redirects_are_followed_to_the_image(fetcher, server):
    server.serve("/c.jpg", PICTURE)
    server.redirect("/b.jpg", server.url("/c.jpg"), 308)
    with fetcher.fetch(server.redirect("/a.jpg", "b.jpg")).body as body:
        assert body.read() == PICTURE


def test_a_redirects_body_is_not_waited_for(fetcher, server):
    server.serve("/b.jpg", PICTURE)

    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /b.jpg\r\nContent-Length: 999\r\n\r\n")
        handler.wfile.flush()
        server.release.wait(30)

    server.routes["/a.jpg"] = endless
    fetcher.fetch(server.url("/a.jpg")).body.close()


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://h.org/a.jpg", "//["])
def test_a_redirect_to_anything_but_http_is_scheme(fetcher, server, target):
    assert refusal(fetcher, server.redirect("/a.jpg", target)).code == "scheme"


def test_a_redirect_to_a_private_address_is_refused_before_a_packet(server):
    with socket.create_server(("127.0.0.2", 0)) as inside:
        inside.setblocking(False)
        target = f"http://127.0.0.2:{inside.getsockname()[1]}/secret"
        settings = DownloadSettings(allow_addresses=("127.0.0.1/32",), robots_txt=False)
        with Fetcher(settings, threading.Event()) as fetcher:
            error = refusal(fetcher, server.redirect("/a.jpg", target))
        assert error.code == "private_address"
        with pytest.raises(BlockingIOError):
            inside.accept()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost.", "2130706433", "0x7f.1", "[::1]"])
def test_loopback_is_a_private_address_however_it_is_spelled(server, host):
    with Fetcher(DownloadSettings(robots_txt=False), threading.Event()) as fetcher:
        error = refusal(fetcher, f"http://u:p@{host}:{server.server_port}/a.jpg")
    assert error.code in ("private_address", "dns" if host == "localhost." else "")
    assert server.paths() == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "data:,x", "http://", "no link", "http://a b/"])
def test_what_is_no_http_link_is_scheme(fetcher, url):
    assert refusal(fetcher, url).code == "scheme"


def test_content_length_over_the_limit_is_too_large_before_the_body(loopback, server):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"
    server.routes["/a.jpg"] = lambda handler: (handler.send_raw(head), server.release.wait(30))
    with with_settings(loopback, max_bytes=1000) as fetcher:
        assert refusal(fetcher, server.url("/a.jpg")).code == "too_large"


def test_a_body_that_goes_on_past_the_limit_is_too_large(loopback, server):
    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff")
        while True:
            handler.wfile.write(b"x" * 10_000)

    server.routes["/a.jpg"] = endless
    with with_settings(loopback, max_bytes=100_000) as fetcher:
        assert refusal(fetcher, server.url("/a.jpg")).code == "too_large"


def test_exactly_max_bytes_is_not_too_large(loopback, server):
    with with_settings(loopback, max_bytes=len(PICTURE)) as fetcher:
        fetcher.fetch(server.serve("/a.jpg", PICTURE)).body.close()


def test_a_body_larger_than_memory_for_one_comes_whole(fetcher, server):
    large = PICTURE + bytes(9_000_000)
    with fetcher.fetch(server.serve("/a.jpg", large)).body as body:
        assert body.read() == large


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!DOCTYPE html><p>log in</p>", "HTML or XML"),
        (b"\x89PNG\r\n\x1a\n....", "a PNG image"),
        (b"GIF89a", "a GIF image"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"),
        (b"\0\0\0\x1cftypavif", "an AVIF, HEIC or video file"),
        (b'{"error": 1}', "JSON"),
        (b"\xff\xd8", "no JPEG"),
        (b"", "empty"),
    ],
)
def test_bytes_that_are_no_jpeg_are_not_jpeg_and_named(fetcher, server, body, words):
    error = refusal(fetcher, server.serve("/a.jpg", body))
    assert error.code == "not_jpeg"
    assert words in error.detail


DEFLATED = zlib.compress(PICTURE)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(PICTURE)),
        ("X-Gzip", gzip.compress(PICTURE)),
        ("deflate", DEFLATED),
        ("deflate", DEFLATED[2:-4]),
        ("gzip, deflate", zlib.compress(gzip.compress(PICTURE))),
        ("gzip", PICTURE),
        *((word, PICTURE) for word in ("aws-chunked", "utf-8", "none", "binary", "identity", "", "UTF-8, x")),
        ("aws-chunked, gzip", gzip.compress(PICTURE)),
    ],
)
def test_a_compressed_answer_is_decompressed_and_what_is_no_coding_is_passed_over(
    fetcher, server, coding, body
):
    url = server.serve("/a.jpg", body, Content_Encoding=coding)
    fetched = fetcher.fetch(url, {"sha256": hashlib.sha256(PICTURE).hexdigest(), "bytes": len(PICTURE)})
    with fetched.body as file:
        assert file.read() == PICTURE


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, BR"])
def test_a_coding_that_is_not_decoded_is_not_jpeg_and_says_so(fetcher, server, coding):
    error = refusal(fetcher, server.serve("/a.jpg", b"x", Content_Encoding=coding))
    assert (error.code, "encoded, though identity was asked for" in error.detail) == ("not_jpeg", True)


def test_a_compressed_answer_that_ends_early_is_incomplete_and_asked_for_again(fetcher, server):
    url = server.serve("/a.jpg", gzip.compress(PICTURE)[:-20], Content_Encoding="gzip")
    error = refusal(fetcher, url)
    assert (error.code, error.retryable) == ("incomplete", True)


@pytest.mark.parametrize("status", [520, 521, 522, 523, 524, 525, 526, 527, 530])
def test_trouble_of_a_server_behind_a_proxy_is_asked_for_again(fetcher, server, status):
    error = refusal(fetcher, server.serve("/a.jpg", b"", status))
    assert (error.code, error.retryable) == (f"http_{status}", True)


@pytest.mark.parametrize(
    ("status", "headers"), [(203, {}), (206, {"Content_Range": f"bytes 0-{len(PICTURE) - 1}/{len(PICTURE)}"})]
)
def test_a_whole_image_with_another_status_is_an_image(fetcher, server, status, headers):
    fetched = fetcher.fetch(server.serve("/a.jpg", PICTURE, status, **headers))
    fetched.body.close()
    assert fetched.http_status == status


@pytest.mark.parametrize("part", ["bytes 0-9/20", "bytes 5-19/20", "bytes 0-9/*", "items 0-9/10", ""])
def test_a_part_of_an_image_is_none(fetcher, server, part):
    assert refusal(fetcher, server.serve("/a.jpg", PICTURE, 206, Content_Range=part)).code == "http_206"


def test_many_headers_and_odd_names_do_not_cost_the_image(fetcher, server):
    head = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 400 + b"X Y: z\r\n(a)/b: c\r\n\xe9: d\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(PICTURE)
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(head + length + PICTURE)
    fetcher.fetch(server.url("/a.jpg")).body.close()


MD5 = hashlib.md5(PICTURE).digest()


@pytest.mark.parametrize(
    "value",
    [
        MD5.hex(),
        MD5.hex().upper(),
        base64.b64encode(MD5).decode(),
        f"md5:{MD5.hex()}",
        f" md5={base64.b64encode(MD5).decode()} ",
        *("nan", "", None, float("nan"), "n/a", "-", "0"),
    ],
)
def test_a_digest_is_read_as_sources_give_it(fetcher, server, value):
    fetcher.fetch(server.serve("/a.jpg", PICTURE), {"md5": value}).body.close()


def test_another_digest_in_base64_is_a_mismatch(fetcher, server):
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    error = refusal(fetcher, server.serve("/a.jpg", PICTURE), {"sha256": f"sha256:{wrong}"})
    assert error.code == "hash_mismatch"


def test_a_size_of_very_many_digits_is_a_mismatch_and_no_exception(fetcher, server):
    assert refusal(fetcher, server.serve("/a.jpg", PICTURE), {"bytes": "9" * 5000}).code == "hash_mismatch"


@pytest.mark.parametrize("name", ["sha1", "sha256", "md5"])
def test_a_digest_that_the_source_gave_is_checked(fetcher, server, name):
    url = server.serve("/a.jpg", PICTURE)
    digest = hashlib.new(name, PICTURE).hexdigest()
    fetcher.fetch(url, {name: digest.upper()}).body.close()
    error = refusal(fetcher, url, {name: digest[::-1]})
    assert (error.code, error.retryable) == ("hash_mismatch", False)


@pytest.mark.parametrize("given", [len(PICTURE), str(len(PICTURE)), "", None, "150 kB"])
def test_a_byte_count_that_fits_or_says_nothing_passes(fetcher, server, given):
    fetcher.fetch(server.serve("/a.jpg", PICTURE), {"bytes": given, "sha1": ""}).body.close()


def test_a_byte_count_that_does_not_fit_is_hash_mismatch(fetcher, server):
    assert refusal(fetcher, server.serve("/a.jpg", PICTURE), {"bytes": 17}).code == "hash_mismatch"


def test_a_redirect_to_removed_png_is_placeholder_and_not_fetched(fetcher, server):
    rest = fetcher.fetch(server.redirect("/a.jpg", "https://i.imgur.com/removed.png"))
    with pytest.raises(FetchError) as raised:
        fetcher.fetch(server.url("/a.jpg"), redirect=rest)
    assert raised.value.code == "placeholder"
    assert server.paths() == ["/a.jpg"]


def test_a_file_of_that_name_on_another_host_is_fetched(fetcher, server):
    server.serve("/removed.png", PICTURE)
    with fetcher.fetch(server.redirect("/a.jpg", "/removed.png")).body as body:
        assert body.read() == PICTURE


def test_the_bytes_of_a_known_placeholder_are_placeholder(fetcher, server, monkeypatch):
    body = b"\x89PNG, and not imgur's own, which is not ours to copy"
    digest = hashlib.md5(body).hexdigest()
    monkeypatch.setattr("imgdl_pipeline.core.download.body.PLACEHOLDER_MD5", digest)
    assert refusal(fetcher, server.serve("/a.jpg", body)).code == "placeholder"


def test_an_opt_out_header_is_opt_out_before_the_body(fetcher, server):
    head = b"HTTP/1.1 200 OK\r\nX-Robots-Tag: all\r\nX-Robots-Tag: noai\r\nContent-Length: 9\r\n\r\n"
    server.routes["/a.jpg"] = lambda handler: (handler.send_raw(head), server.release.wait(30))
    assert refusal(fetcher, server.url("/a.jpg")).code == "opt_out"


def test_robots_txt_is_asked_once_and_heeded(loopback, server):
    server.serve("/robots.txt", b"User-agent: *\nDisallow: /private/\n", Content_Type="text/plain")
    server.serve("/private/a.jpg", PICTURE)
    server.serve("/a.jpg", PICTURE)
    with with_settings(loopback, robots_txt=True) as fetcher:
        fetcher.fetch(server.url("/a.jpg")).body.close()
        assert refusal(fetcher, server.url("/private/a.jpg")).code == "robots"
    assert server.paths() == ["/robots.txt", "/.well-known/tdmrep.json", "/a.jpg"]


def test_a_self_signed_certificate_is_tls(loopback):
    ca = trustme.CA()
    with tls_server(ca.issue_cert("localhost")) as url, Fetcher(loopback, threading.Event()) as fetcher:
        error = refusal(fetcher, url)
    assert (error.code, error.retryable) == ("tls", False)
    assert "certificate verify failed" in error.detail


def test_an_answer_that_is_no_tls_is_tls(fetcher, server):
    error = refusal(fetcher, server.url("/a.jpg").replace("http:", "https:"))
    assert error.code == "tls"


def test_what_has_not_changed_is_not_modified(fetcher, server):
    def answer(handler):
        is_same = handler.headers["If-None-Match"] == '"v1"'
        handler.answer(304 if is_same else 200, b"" if is_same else PICTURE)

    server.routes["/a.jpg"] = answer
    with pytest.raises(NotModified):
        fetcher.fetch(server.url("/a.jpg"), None, Validators('"v1"', "Mon, 01 Jun 2026 00:00:00 GMT"))
    fetcher.fetch(server.url("/a.jpg"), None, Validators('"v0"')).body.close()
    assert server.requests[0][1]["If-Modified-Since"] == "Mon, 01 Jun 2026 00:00:00 GMT"


def test_a_304_that_was_not_asked_for_is_an_http_failure(fetcher, server):
    assert refusal(fetcher, server.serve("/a.jpg", b"", 304)).code == "http_304"


def test_a_stopped_fetch_is_abandoned(loopback, server):
    stop = threading.Event()

    def answer(handler):
        stop.set()
        server.release.wait(30)

    server.routes["/a.jpg"] = answer
    with Fetcher(loopback, stop) as fetcher, pytest.raises(Cancelled):
        fetcher.fetch(server.url("/a.jpg"))


def test_cookies_are_neither_kept_nor_sent(fetcher, server):
    url = server.serve("/a.jpg", PICTURE, Set_Cookie="tracking=1; Path=/")
    for _ in range(2):
        fetcher.fetch(url).body.close()
    assert all("Cookie" not in headers for _, headers in server.requests)


def test_userinfo_goes_to_its_own_host_only(fetcher, server):
    server.serve("/b.jpg", PICTURE)
    server.redirect("/a.jpg", server.url("/b.jpg"))
    fetcher.fetch(server.url("/a.jpg").replace("//", "//me:secret@")).body.close()
    assert ["Authorization" in headers for _, headers in server.requests] == [True, False]


def _exception_classes(module):
    return [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Exception)]


@pytest.mark.parametrize("kind", _exception_classes(requests.exceptions))
def test_every_error_of_requests_becomes_one_of_ours(kind):
    error = kind("words", "document", 0) if issubclass(kind, ValueError) else kind("words")
    assert isinstance(fetch_error(error, 5), FetchError)


def test_a_links_own_headers_go_to_its_own_host_only(fetcher, server):
    with WebServer() as elsewhere:
        elsewhere.serve("/c.jpg", PICTURE)
        server.redirect("/b.jpg", elsewhere.url("/c.jpg"))
        url = server.redirect("/a.jpg", "/b.jpg")
        own = {"Referer": "https://h.org/", "X-Key": "k"}
        fetched_from(fetcher, url, None, Validators('"v1"'), own).body.close()
        [(_, foreign)] = elsewhere.requests
    assert all(
        (headers["Referer"], headers["X-Key"]) == ("https://h.org/", "k") for _, headers in server.requests
    )
    assert len(server.requests) == 2
    assert foreign["If-None-Match"] == '"v1"'
    assert "Referer" not in foreign
    assert "X-Key" not in foreign


@pytest.mark.parametrize("location", ["http://{other}\\@{own}/c.jpg", "http:\\\\{other}\\@{own}/c.jpg"])
def test_a_host_that_is_spelled_to_look_like_another_gets_none_of_its_headers(fetcher, server, location):
    with WebServer() as elsewhere:
        elsewhere.forward = lambda handler: handler.answer(200, PICTURE)
        other, own = (f"127.0.0.1:{each.server_port}" for each in (elsewhere, server))
        server.serve("/c.jpg", PICTURE)
        url = server.redirect("/a.jpg", location.format(other=other, own=own))
        try:
            fetched_from(fetcher, url, None, None, {"Authorization": "Basic s3cret"}).body.close()
        except FetchError:
            pass
        assert all("Authorization" not in headers for _, headers in elsewhere.requests)


def test_a_redirect_to_another_host_waits_for_that_hosts_turn(fetcher, server):
    with WebServer() as elsewhere:
        url = server.redirect("/a.jpg", elsewhere.serve("/b.jpg", PICTURE))
        redirect = fetcher.fetch(url)
        assert (redirect.host, redirect.redirects) == (f"127.0.0.1:{elsewhere.server_port}", 1)
        assert 0 < redirect.seconds < 30
        assert elsewhere.paths() == []
        with fetcher.fetch(url, redirect=redirect).body as body:
            assert body.read() == PICTURE


@pytest.mark.parametrize("size", [b"-1", b"-5", b"-0x1"])
def test_a_chunk_of_negative_size_is_incomplete_and_not_read_to_the_end(loopback, server, size):
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\xff\xd8\xff\r\n" + size + b"\r\n"
    sent = []

    def answer(handler):
        handler.send_raw(start)
        for _ in range(64):
            handler.wfile.write(bytes(1 << 20))
            sent.append(1)

    server.routes["/a.jpg"] = answer
    with with_settings(loopback, max_bytes=1_000_000) as fetcher:
        assert refusal(fetcher, server.url("/a.jpg")).code == "incomplete"
    assert len(sent) < 64


def test_a_malformed_header_is_connection_and_says_little(fetcher, server, caplog):
    flood = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 5000) for number in range(10))
    head = b"HTTP/1.1 200 OK\r\nno colon here\r\n" + flood + b"X-Robots-Tag: noai\r\n\r\n"
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(head + PICTURE)
    error = refusal(fetcher, server.url("/a.jpg"))
    assert (error.code, error.retryable) == ("connection", True)
    assert error.detail == "the answer is not valid HTTP: a header is malformed"
    assert len(caplog.text) < 1000


def test_two_lengths_are_the_servers_fault(fetcher, server):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n"
    server.routes["/a.jpg"] = lambda handler: handler.send_raw(head + PICTURE)
    error = refusal(fetcher, server.url("/a.jpg"))
    assert error.code == "connection"
    assert error.detail.startswith("the answer is not valid HTTP")


def test_robots_rules_are_asked_for_the_path_that_is_sent(loopback, server):
    server.serve("/robots.txt", b"User-agent: *\nDisallow: /private/", Content_Type="text/plain")
    server.serve("/private/a.jpg", PICTURE)
    with with_settings(loopback, robots_txt=True) as fetcher:
        for path in ("/open/../private/a.jpg", "/./private/a.jpg", "/%70rivate/a.jpg"):
            assert refusal(fetcher, server.url(path)).code == "robots"


def test_an_owner_may_opt_out_with_an_answer_that_has_no_body(fetcher, server):
    server.serve("/a.jpg", b"", 304, X_Robots_Tag="noai")
    assert refusal(fetcher, server.url("/a.jpg"), None, Validators('"v1"')).code == "opt_out"


def test_a_look_up_that_hangs_is_timeout_at_the_deadline(loopback, monkeypatch):
    """The resolver is the system's own, and knows no timeout of ours."""
    hanging = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hanging.wait(30))
    started = time.monotonic()
    with with_settings(loopback, timeout=0.4) as fetcher:
        error = refusal(fetcher, "http://slow.example/a.jpg")
    assert (error.code, error.retryable) == ("timeout", True)
    assert error.detail == "looking slow.example up: not done within 0.4 s"
    assert time.monotonic() - started < 5
    hanging.set()
