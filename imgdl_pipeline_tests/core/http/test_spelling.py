"""How URLs are spelled, and that requests are sent as they are spelled: byte for byte."""

import re
import threading
import time
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgdl_pipeline.core.http.address_guard import ANYWHERE, AddressGuard
from imgdl_pipeline.core.http.connections import Connections, Origin, send_head
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.spelling import URL_CHARS, escaped_bytes, request_target, spelled
from imgdl_pipeline.core.http.transport import get, new_session, prepared
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.outcome import FetchError, Reason
from imgdl_pipeline.core.model.settings import HOST_SLOTS, DownloadSettings
from imgdl_pipeline_tests.support.pictures import PICTURE
from imgdl_pipeline_tests.support.server import WebServer

SIGNED = [
    "https://b.s3.amazonaws.com/a%20b/%7Euser/c%2fd%41+e.jpg?X-Amz-Credential=AK%2F20250101%2Fus-east-1"
    "%2Fs3%2Faws4_request&X-Amz-SignedHeaders=host&X-Amz-Signature=ab12"
    "&response-content-disposition=attachment%3B%20filename%3D%27x%27",
    "https://storage.googleapis.com/b/o%2fp.jpg?GoogleAccessId=a@b.c&Expires=1&Signature=a%2bB%2F%3d%3D",
    "https://d1.cloudfront.net/a.jpg?Expires=1&Signature=a-b_c~d&Key-Pair-Id=K'",
    "https://d1.cloudfront.net/a/*.jpg?Policy=eyJ_~-__&Signature=a-b_c~d__&Key-Pair-Id=K",
]


def refusal(url, base=""):
    with pytest.raises(FetchError) as caught:
        spelled(url, base)
    assert caught.value.reason is Reason.SCHEME
    return caught.value.detail


def spelled_or_none(url, base=""):
    try:
        return spelled(url, base)
    except FetchError as error:
        assert error.reason is Reason.SCHEME
        return None


# What is sent


@pytest.fixture(scope="module")
def server():
    """One server for all tests of this module: they are many, and ending a server takes 50 ms."""
    with WebServer() as running:
        yield running


@pytest.fixture
def asked(server):
    """The request lines and Host headers that arrive; where the server has no route, it has a picture."""
    arrived = []

    def answer(handler):
        arrived.append((handler.raw_requestline, handler.headers["Host"]))
        route = server.routes.get(handler.path, lambda handler: handler.answer(200, PICTURE))
        route(handler)

    server.routes.clear()
    server.forward = answer
    return arrived


def redirect(server, path, *locations):
    lines = b"".join(b"Location: %s\r\n" % each for each in locations)
    answer = b"HTTP/1.1 302 Found\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n" % lines
    server.routes[path] = lambda handler: handler.send_raw(answer)
    return server.url(path)


def fetch(fetcher, url):
    with fetcher.fetch(url).body as body:
        assert body.read() == PICTURE


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/sg/%7Euser/a.jpg?sig=1", b"/sg/%7Euser/a.jpg?sig=1"),
        ("/sg/a%2fb.jpg?sig=2", b"/sg/a%2fb.jpg?sig=2"),
        ("/sg/%41.jpg", b"/sg/%41.jpg"),
        ("/pc/50% a%20b.jpg", b"/pc/50%25%20a%20b.jpg"),
        ("/dot/x/%2e%2e/b.jpg", b"/dot/x/%2e%2e/b.jpg"),
        ("", b"/"),
        ("?a", b"/?a"),
        ("/a?", b"/a?"),
        ("/a?#x", b"/a?"),
        ("/a//b/../c", b"/a//c"),
        ("//x@y/%40", b"//x@y/%40"),
        ("\\a\\b?\\", b"/a/b?\\"),
        ("/;p?a=%7e~", b"/;p?a=%7e~"),
        ("/a|b[c]^{}?|[]^`{}'", b"/a|b[c]%5E%7B%7D?|[]^`{}'"),
        ("/é\udc80ü?q=ñ", b"/%C3%A9%EF%BF%BD%C3%BC?q=%C3%B1"),
        ("/x\ty\r\nz HTTP/1.1\r\nX: y", b"/xyz%20HTTP/1.1X:%20y"),
        ("/%0d%0aX:%20y", b"/%0d%0aX:%20y"),
        ("/%E2%82%AC%2B+?X-Amz-Signature=ab%2f%2F%3d", b"/%E2%82%AC%2B+?X-Amz-Signature=ab%2f%2F%3d"),
    ],
)
def test_the_request_line_has_the_spelling_byte_for_byte(written, sent, asked, server, fetcher):
    origin = server.url("")
    fetch(fetcher, origin + written)
    assert asked == [(b"GET %s HTTP/1.1\r\n" % sent, urlsplit(origin).netloc)]
    assert spelled(origin + written) == origin + sent.decode()


def test_the_host_header_has_the_spelling_without_userinfo(asked, server, fetcher):
    fetch(fetcher, f"HTTP:\\u:p@0x7f.1:{server.server_port}\\%7e")
    assert asked == [(b"GET /%7e HTTP/1.1\r\n", f"127.0.0.1:{server.server_port}")]


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        (b"/caf\xe9/\xc3\xa9.jpg?\xff", b"/caf%E9/%C3%A9.jpg?%FF"),
        (b"\xe9 b/%2f%7E%%", b"/dir/%E9%20b/%2f%7E%25%25"),
        (b"?\xe9", b"/dir/f?%E9"),
        (b"/\x85\xa0x", b"/%85%A0x"),
        (b"\\x\\y", b"/x/y"),
        (b"http:z", b"/dir/z"),
        (b"a//../b", b"/dir/a/b"),
    ],
)
def test_a_location_is_followed_byte_for_byte(location, sent, asked, server, fetcher):
    fetch(fetcher, redirect(server, "/dir/f?q", location))
    assert [line for line, _ in asked] == [b"GET /dir/f?q HTTP/1.1\r\n", b"GET %s HTTP/1.1\r\n" % sent]


def test_a_location_may_name_its_host_in_utf_8(asked, server, fetcher):
    location = f"http://127。0。0。1:{server.server_port}/é".encode()
    fetch(fetcher, redirect(server, "/a.jpg", location))
    assert asked[1] == (b"GET /%C3%A9 HTTP/1.1\r\n", f"127.0.0.1:{server.server_port}")


@pytest.mark.parametrize(
    ("second", "sent"), [(b"/b.jpg", b"/b.jpg"), (b"/c.jpg", b"/b.jpg,%20/c.jpg")], ids=["same", "another"]
)
def test_a_location_that_is_given_twice_is_one(second, sent, asked, server, fetcher):
    fetch(fetcher, redirect(server, "/a.jpg", b"/b.jpg", second))
    assert [line for line, _ in asked] == [b"GET /a.jpg HTTP/1.1\r\n", b"GET %s HTTP/1.1\r\n" % sent]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://u:p@127.9.9.9/a%2fb?x=%7e'", b"http://127.9.9.9/a%2fb?x=%7e'"),
        ("http://127.9.9.9:80", b"http://127.9.9.9/"),
        ("HTTP:\\\\0x7f.9.9.9:8080\\x y?@/é#z", b"http://127.9.9.9:8080/x%20y?@/%C3%A9"),
        ("http://[::0:1]:81/%41%", b"http://[::1]:81/%41%25"),
    ],
)
def test_a_proxy_is_asked_for_the_whole_spelling_without_userinfo(written, sent, asked, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url())
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.delenv("NO_PROXY", raising=False)
    session = new_session(AddressGuard(ANYWHERE), DownloadSettings(environment_proxies=True))
    with deadline_scope(Deadline(5, threading.Event())), get(session, written) as response:
        assert response.raw.read() == PICTURE
    assert asked == [(b"GET %s HTTP/1.1\r\n" % sent, urlsplit(sent.decode()).netloc)]
    assert request_target(spelled(written), absolute=True) == sent.decode()


# Paths and queries


@pytest.mark.parametrize(
    "url", [*SIGNED, "http://h.org/a//b/?", "http://h.org/x/%2e%2e/b.jpg", "http://h.org/;a=b,c@d:e!$&'()*+"]
)
def test_a_valid_url_is_not_changed(url):
    assert spelled(url) == url
    assert url.endswith(request_target(url))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("\0\t \nhttp://h.org/a \r\n\x1f", "http://h.org/a"),
        ("ht\ntp:/\t/h.o\rrg:8\t1/a\nb?c\r\nd", "http://h.org:81/ab?cd"),
        ("http://h.org/%\t41", "http://h.org/%41"),
        ("http://h.org/.\n./a", "http://h.org/a"),
        ("http://h.org/a\x0b\x0c\x7fb c", "http://h.org/a%0B%0C%7Fb%20c"),
        ("\ufeffhttp://h.org/", None),
        ("\xa0http://h.org/", None),
    ],
)
def test_tabs_and_line_breaks_are_dropped_and_blanks_at_the_ends(written, expected):
    assert spelled_or_none(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("100%", "100%25"),
        ("%%", "%25%25"),
        ("%%41", "%25%41"),
        ("%2", "%252"),
        ("%zz%aF", "%25zz%aF"),
        ("%25%", "%25%25"),
        ("%u00e9", "%25u00e9"),
        ("%é", "%25%C3%A9"),
        ("%4\uff11", "%254%EF%BC%91"),
    ],
)
def test_only_a_percent_sign_that_begins_no_escape_is_escaped(written, expected):
    assert spelled(f"http://h.org/{written}?{written}") == f"http://h.org/{expected}?{expected}"


@given(st.text("%%%0aAfFgG/-._~!$&'()*+,;=:@?"))
def test_of_valid_characters_nothing_but_the_stray_percent_sign_is_changed(query):
    expected = re.sub("%(?![0-9A-Fa-f]{2})", "%25", query)
    assert spelled(f"http://h.org/?{query}") == f"http://h.org/?{expected}"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("/.", "/"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/b/../", "/a/"),
        ("/a//..", "/a/"),
        ("/a\\..\\b", "/b"),
        ("/.a/..b/...", "/.a/..b/..."),
        ("/?/../a", "/?/../a"),
    ],
)
def test_segments_of_dots_are_resolved(written, expected):
    assert spelled(f"http://h.org{written}") == f"http://h.org{expected}"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("http:\\\\h.org\\a\\b", "http://h.org/a/b"),
        ("http:\\/\\h.org", "http://h.org/"),
        ("http:h.org", "http://h.org/"),
        ("http:////h.org//a", "http://h.org//a"),
        ("http://h.org\\@other.org/", "http://h.org/@other.org/"),
        ("http://h.org\\\\other.org", "http://h.org//other.org"),
        ("http://h.org/?\\#\\", "http://h.org/?\\"),
        ("http://h.org/%5C", "http://h.org/%5C"),
    ],
)
def test_a_backslash_is_a_slash_up_to_the_query(written, expected):
    assert spelled(written) == expected


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("", "http://u:p@h.org:81/a/b?c/d"),
        ("#x", "http://u:p@h.org:81/a/b?c/d"),
        ("?", "http://u:p@h.org:81/a/b?"),
        ("?x/../y", "http://u:p@h.org:81/a/b?x/../y"),
        ("x", "http://u:p@h.org:81/a/x"),
        ("../x?y#z", "http://u:p@h.org:81/x?y"),
        ("/x:y", "http://u:p@h.org:81/x:y"),
        ("\\x", "http://u:p@h.org:81/x"),
        ("//x.org", "http://x.org/"),
        ("\\/x.org\\y", "http://x.org/y"),
        ("http:x", "http://u:p@h.org:81/a/x"),
        ("HTTP:/x", "http://u:p@h.org:81/x"),
        ("http://x.org", "http://x.org/"),
        ("https:x.org", "https://x.org/"),
        ("./x:y", "http://u:p@h.org:81/a/x:y"),
        ("x:y", None),
        ("//", None),
    ],
)
def test_a_reference_is_resolved(reference, expected):
    assert spelled_or_none(reference, "http://u:p@h.org:81/a/b?c/d") == expected


@given(st.binary())
def test_each_byte_outside_ascii_is_escaped(header):
    expected = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in header)
    assert escaped_bytes(header.decode("latin-1")) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("http://h.org/\ud800", "http://h.org/%EF%BF%BD"),
        ("http://h.org/?\udc80\udcff", "http://h.org/?%EF%BF%BD%EF%BF%BD"),
        ("http://\udfff@h.org/", "http://%EF%BF%BD@h.org/"),
        ("http://h\ud800.org/", None),
        ("\ud800http://h.org/", None),
    ],
)
def test_a_lone_surrogate_is_a_replacement_character_and_no_part_of_a_host(written, expected):
    assert spelled_or_none(written) == expected


# Hosts


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.0x.0.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("1\uff127.1", "127.0.0.1"),
        ("%31%32%37.1", "127.0.0.1"),
        ("169。254。169。254", "169.254.169.254"),
        ("0", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("1.2.3.4.", "1.2.3.4"),
        ("[0:0::1]", "[::1]"),
        ("[2001:DB8:0::A]", "[2001:db8::a]"),
        ("1.2.3.4.org", "1.2.3.4.org"),
        ("0x7g", "0x7g"),
    ],
)
def test_a_numeric_host_is_the_address_that_it_is(host, expected):
    assert spelled(f"http://{host}:81/a") == f"http://{expected}:81/a"


@pytest.mark.parametrize(
    "host",
    [
        *("4294967296", "0x100000000", "040000000000", "99999999999", "256.0.0.1", "1.2.3.256", "1.2.65536"),
        *("1.2.3.4.5", "08", "1.2.3.09", "0x7f.0xg.1", "h.1", "h.0x", "1..2", ".1"),
    ],
)
def test_a_host_whose_last_part_is_a_number_and_that_is_no_address_is_refused(host):
    assert refusal(f"http://{host}/") == "this is not a valid URL: its host looks like an address but is none"


@pytest.mark.parametrize(
    "host", ["[", "[]", "[::1", "[::1]x", "[1]", "[:::]", "[::1%25eth0]", "[::1%eth0]", "[1.2.3.4]", "::1"]
)
def test_brackets_without_an_ipv6_address_are_refused(host):
    assert refusal(f"http://{host}/").startswith("this is not a valid URL: ")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("H.Org", "h.org"),
        ("h.org.", "h.org"),
        ("é.org", "xn--9ca.org"),
        ("%C3%A9.org", "xn--9ca.org"),
        ("E\u0301.ORG", "xn--9ca.org"),
        ("faß.de", "xn--fa-hia.de"),
        ("\uff48\uff0eorg", "h.org"),
        ("h。org", "h.org"),
        ("h\u00ad.org", "h.org"),
        ("i❤.ws", "xn--i-7iq.ws"),
        ("xn--nxa.org", "xn--nxa.org"),
        ("a_b.org", "a_b.org"),
        ("a_é.org", "xn--a_-cja.org"),
        ("%41.org", "a.org"),
    ],
)
def test_a_hosts_name_is_in_lower_case_ascii(host, expected):
    assert spelled(f"https://{host}") == f"https://{expected}/"


@pytest.mark.parametrize(
    "host",
    [
        *(".", "u@", "u:p@:80", "\u00ad", "a b", "a%20b", "a<b", "a|b", "a^b", "a%00b", "a\x7fb"),
        *(
            "a%2Fb",
            "a%5Cb",
            "a%40b",
            "a%3A80",
            "a%23",
            "%",
            "a%",
            "%2541",
            "a\uff0fb",
            "a\uff20b",
            "a\uff05b",
        ),
        *("\ud800", "%80", "%C3", "\ufffd", "é" * 256),
    ],
)
def test_what_cannot_be_a_hosts_name_is_refused(host):
    assert refusal(f"http://{host}/a").startswith("this is not a valid URL: ")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("http://h.org:/", "http://h.org/"),
        ("http://h.org:80", "http://h.org/"),
        ("http://h.org:443", "http://h.org:443/"),
        ("https://h.org:443", "https://h.org/"),
        ("https://h.org:00081", "https://h.org:81/"),
        ("http://h.org:65535", "http://h.org:65535/"),
        ("http://@h.org", "http://h.org/"),
        ("http://u:@h.org", "http://u@h.org/"),
        ("http://:p@h.org", "http://:p@h.org/"),
        ("http://a@b:c:d@h.org", "http://a%40b:c%3Ad@h.org/"),
        ("http://u:50%@h.org", "http://u:50%25@h.org/"),
        ("http://é:%7e@h.org", "http://%C3%A9:%7e@h.org/"),
    ],
)
def test_ports_and_userinfo_have_one_spelling(written, expected):
    assert spelled(written) == expected


@pytest.mark.parametrize("port", ["65536", "999999", "x", "8x", "-1", "+1", "\uff18\uff10", "80:80", "%38"])
def test_a_port_is_a_number_up_to_65535(port):
    detail = "this is not a valid URL: its port is not a number from 1 to 65535"
    assert refusal(f"http://h.org:{port}/") == detail


@pytest.mark.parametrize("port", ["0", "000"])
def test_a_port_is_not_0(port):
    assert refusal(f"http://h.org:{port}/") == "this is not a valid URL: nobody can listen on port 0"


# What is refused altogether


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("ftp://h.org/a.jpg", "ftp"),
        ("JavaScript:alert(1)", "javascript"),
        ("data:image/jpeg;base64,AA==", "data"),
        ("file:///etc/hostname", "file"),
        ("view-source:http://h.org/", "view-source"),
        ("http\u017f://h.org/", None),
        ("\u017f:/", None),
        ("//h.org/a.jpg", None),
        ("/a.jpg", None),
        ("h.org/a.jpg", None),
        ("://h.org", None),
        ("1http://h.org", None),
        (" ", None),
        ("", None),
    ],
)
def test_another_scheme_or_none_is_refused_and_named(url, scheme):
    named = f"{scheme}: links are" if scheme else "a link without a scheme is"
    assert refusal(url) == f"{named} not fetched, only http and https"


def test_a_longer_url_than_is_asked_for_is_refused():
    longest = "http://h.org/".ljust(URL_CHARS, "a")
    assert spelled(longest) == longest
    detail = f"the link has {URL_CHARS + 1} characters, more than {URL_CHARS}"
    assert refusal(longest + "a") == detail
    assert refusal(longest + "a", "http://h.org/") == detail


@pytest.mark.parametrize(
    ("start", "unit", "end"),
    [
        ("http://h/", "../", ""),
        ("http://h/", "a/../", ""),
        ("http://h/", "%", ""),
        ("http://h/", "é", ""),
        ("http://h/?", "\ud800", ""),
        ("http://h/?", "'", ""),
        ("http://", "a@", "h/"),
        ("http://h:", "0", ""),
        ("http://h:", "0", "x"),
        ("http://", "9", ""),
        ("http://0", "7", ""),
        ("http://0x", "f", ""),
        ("http://", "1.", ""),
        ("http://", "0.", "1"),
        ("http://", "h.", ""),
        ("http://", "é", ""),
        ("http://", "é.", ""),
        ("http://", "%c3%a9", ""),
        ("http://", "[", ""),
        ("http://[", ":", "]"),
        ("http://[", "0:", "]"),
        ("http:", "/\\", ""),
        ("", "\t", ""),
        ("", "a", ":"),
        ("", "../", "a"),
    ],
)
def test_the_longest_url_takes_little_time(start, unit, end):
    url = start + unit * ((URL_CHARS - len(start + end)) // len(unit)) + end
    base = "http://h.org/".ljust(URL_CHARS, "/")
    before = time.thread_time()
    spelled_or_none(url)
    spelled_or_none(url, base)
    assert time.thread_time() - before < 1


# Properties of all spellings

ATOMS = [
    *("http", "https", "HTTP", "\u017f", ":", "/", "\\", "//", "@", "?", "#", ".", "..", "a", "B", "h.org"),
    *("%", "%2e", "%2E", "%41", "%2f", "%25", "%zz", "%00", "%c3%a9", "%EF%BC%85"),
    *("0", "08", "0x7f", "127.1", "256", "1.2.3.4", "[::1]", "[", "]", "::", "localhost"),
    *(":80", ":443", ":0", ":65535", ":65536", "\t", "\n", "\r", " ", "\0", "\x7f"),
    *("é", "。", "ß", "İ", "💩", "\u00ad", "\uff05", "\uff0f", "\uff20", "\ufeff", "\ud800"),
    *("xn--", "xn--nxa"),
    *("'", '"', "<", "|", "^", "{", "`", ";", "&", "=", "+", "~"),
]
HOSTS = [
    *("h.org", "H.Org", "h.org.", "é.org", "%41.h", "\uff48\uff0eorg", "i❤.ws", "faß.de", "h\t.org", "a_b.c"),
    *("0x7f.1", "017.0.0.1", "1.2.3.4", "[::1]", "[1:0::127.0.0.1]", "!\"$&'()*+,;=`{}~.h", *HOST_SLOTS),
    *("u:p@h", "a@b@h", "h:80", "h:443", "h:8080", "h:00081", "u@[::1]:81", "xn--nxa"),
]
texts = st.lists(st.sampled_from(ATOMS) | st.characters(codec=None), max_size=14).map("".join)
http_urls = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "http:", "https:\\\\", " HTTP:/", "http:///"]),
    st.sampled_from(HOSTS),
    st.sampled_from(["", "/", "\\", "?"]),
    texts,
)
spellings = http_urls.map(spelled_or_none).filter(bool)


@settings(max_examples=500)
@given(texts | http_urls, st.just("") | spellings)
def test_any_text_is_refused_as_scheme_or_spelled_once_and_for_all(text, base):
    url = spelled_or_none(text, base)
    if url is not None:
        assert spelled(url) == spelled(url, url) == url


@settings(max_examples=300)
@given(spellings)
def test_a_spelling_leaves_nothing_for_another_parser_to_change(url):
    assert re.fullmatch("[!-~]+", url)
    assert "#" not in url
    assert "\\" not in url.partition("?")[0]
    parts = urlsplit(url)
    assert parts.geturl() in (url, url.removesuffix("?"))  # urlsplit forgets an empty query
    assert url == f"{parts.scheme}://{parts.netloc}{request_target(url)}"


@settings(max_examples=300)
@given(spellings)
def test_all_parsers_find_the_same_host(url):
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    assert Origin.of(url) == (parts.scheme, parts.hostname, port)
    is_shared = parts.hostname in HOST_SLOTS
    assert host_of(url) == (parts.hostname if is_shared else f"{parts.hostname}:{port}")


@settings(max_examples=300)
@given(spellings)
def test_the_request_line_is_the_spelling(url):
    sent = []
    connection = Connections(AddressGuard()).connection(Origin.of(url))
    connection.send = sent.append
    send_head(connection, request_target(str(prepared(url).url)), [("Accept-Encoding", "identity")])
    parts = urlsplit(url)
    line, host, *others = b"".join(sent).decode("ascii").split("\r\n")
    assert line == f"GET {url.removeprefix(f'{parts.scheme}://{parts.netloc}')} HTTP/1.1"
    assert host == f"Host: {parts.netloc.rpartition('@')[2]}"
    assert others == ["Accept-Encoding: identity", "", ""]


@settings(max_examples=300)
@given(spellings)
def test_the_absolute_form_is_the_spelling_without_userinfo(url):
    absolute, parts = request_target(url, absolute=True), urlsplit(url)
    assert absolute == spelled(absolute)
    assert absolute == url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)


def test_a_url_whose_escapes_make_it_too_long_is_refused():
    with pytest.raises(FetchError, match="characters, more than 16384"):
        spelled("http://h.org/".ljust(URL_CHARS, "é"))


# Differences from browsers

DIFFERENCES = {
    "an escape is left as it is, that of a dot, too": [
        ("http://example.com/foo/%2e", "http://example.com/foo/", "http://example.com/foo/%2e"),
        ("http://www/foo/%2E/html", "http://www/foo/html", "http://www/foo/%2E/html"),
        (
            "http://example.com/foo/%2e./%2e%2e/.%2e/%2e.bar",
            "http://example.com/%2e.bar",
            "http://example.com/foo/%2e./%2e%2e/.%2e/%2e.bar",
        ),
        (
            "https://example.com/aaa/bbb/%2e%2e?query",
            "https://example.com/aaa/?query",
            "https://example.com/aaa/bbb/%2e%2e?query",
        ),
    ],
    "a percent sign that begins no escape is escaped": [
        ("http://example.com/foo%", "http://example.com/foo%", "http://example.com/foo%25"),
        ("http://example.com/foo%2", "http://example.com/foo%2", "http://example.com/foo%252"),
        ("http://example.com/foo%2zbar", "http://example.com/foo%2zbar", "http://example.com/foo%252zbar"),
        (
            "http://example.com/foo%2\xc2\xa9zbar",
            "http://example.com/foo%2%C3%82%C2%A9zbar",
            "http://example.com/foo%252%C3%82%C2%A9zbar",
        ),
        ("http://example.com/foo/%2e%2", "http://example.com/foo/%2e%2", "http://example.com/foo/%2e%252"),
        ("http://example.org/test?%GH", "http://example.org/test?%GH", "http://example.org/test?%25GH"),
        (
            "https://host/ !\"$%&'()*+,-./:;<=>@[\\]^_`{|}~",
            "https://host/%20!%22$%&'()*+,-./:;%3C=%3E@[/]%5E_%60%7B|%7D~",
            "https://host/%20!%22$%25&'()*+,-./:;%3C=%3E@[/]%5E_%60%7B|%7D~",
        ),
        (
            "https:// !\"$%&'()*+,-.;<=>@[]^_`{|}~@host/",
            "https://%20!%22$%&'()*+,-.%3B%3C%3D%3E%40%5B%5D%5E_%60%7B%7C%7D~@host/",
            "https://%20!%22$%25&'()*+,-.%3B%3C%3D%3E%40%5B%5D%5E_%60%7B%7C%7D~@host/",
        ),
        (
            "https://joe: !\"$%&'()*+,-.:;<=>@[]^_`{|}~@host/",
            "https://joe:%20!%22$%&'()*+,-.%3A%3B%3C%3D%3E%40%5B%5D%5E_%60%7B%7C%7D~@host/",
            "https://joe:%20!%22$%25&'()*+,-.%3A%3B%3C%3D%3E%40%5B%5D%5E_%60%7B%7C%7D~@host/",
        ),
    ],
    "an apostrophe in a query is left as it is": [
        ("http://host/?'", "http://host/?%27", "http://host/?'"),
        (
            "https://www.example.com/path{\x7fpath.html?query'\x7f=query#fragment<\x7ffragment",
            "https://www.example.com/path%7B%7Fpath.html?query%27%7F=query",
            "https://www.example.com/path%7B%7Fpath.html?query'%7F=query",
        ),
        (
            "https://host/dir/? !\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
            "https://host/dir/?%20!%22$%&%27()*+,-./:;%3C=%3E?@[\\]^_`{|}~",
            "https://host/dir/?%20!%22$%25&'()*+,-./:;%3C=%3E?@[\\]^_`{|}~",
        ),
    ],
    "port 0 is refused": [
        ("http://f:0/c", "http://f:0/c", None),
        ("http://f:00000000000000/c", "http://f:0/c", None),
    ],
    "dots at the end of a host are dropped, as urllib3 does": [
        ("http://./", "http://./", None),
        ("http://../", "http://../", None),
        ("http://foo.09..", "http://foo.09../", None),
        ("http://h.org./", "http://h.org./", "http://h.org/"),  # the one that is not in the standard's tests
    ],
    "a label in punycode is not decoded, so that an invalid one is not refused": [
        ("https://xn--/", None, "https://xn--/"),
        ("http://a.b.c.xn--pokxncvks", None, "http://a.b.c.xn--pokxncvks/"),
        ("http://a.b.c.XN--pokxncvks", None, "http://a.b.c.xn--pokxncvks/"),
        ("http://a.b.c.Xn--pokxncvks", None, "http://a.b.c.xn--pokxncvks/"),
        ("http://10.0.0.xn--pokxncvks", None, "http://10.0.0.xn--pokxncvks/"),
        ("http://10.0.0.XN--pokxncvks", None, "http://10.0.0.xn--pokxncvks/"),
        ("http://10.0.0.xN--pokxncvks", None, "http://10.0.0.xn--pokxncvks/"),
    ],
}
"""By kind: of the 444 http and https cases of the URL standard's tests (WPT), the 28 we spell otherwise."""


@pytest.mark.parametrize(
    ("written", "browsers", "ours"),
    [pytest.param(*row, id=kind) for kind, rows in DIFFERENCES.items() for row in rows],
)
def test_these_are_the_differences_from_browsers(written, browsers, ours):
    assert spelled_or_none(written) == ours != browsers
