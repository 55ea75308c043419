"""No text of a stranger makes a parser raise what it should not, or takes it long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline_tests.support.parsers import PARSERS, check

PIECES = st.sampled_from(
    [
        *(
            b"http://",
            b"https://h.org/",
            b"//",
            b"\\",
            b"@",
            b"%",
            b"%2e",
            b"#",
            b"?",
            b"&",
            b"=",
            b";",
            b":",
        ),
        *(
            b"<",
            b">",
            b"</",
            b"/>",
            b"<a href='",
            b"<!--",
            b"<![CDATA[",
            b"]]>",
            b"<!DOCTYPE",
            b"&#",
            b"&amp;",
        ),
        *(b"<rss>", b"<item>", b"</item>", b"<feed>", b"<urlset>", b"<url>", b"<loc>", b"<title>"),
        *(b'"', b"'", b"{", b"}", b"[", b"]", b",", b"url", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\0", b" "),
        *(b"User-agent: *\n", b"Disallow: /", b"*", b"$", b"Crawl-delay: ", b"Content-Length: ", b"\xff\xfe"),
        *(b"key=", b"1e9999", b"-1", b"null", b"\xe9", b"\xf0\x9f\x92\xa9", b"\xed\xa0\x80", b"a" * 50),
    ]
)
INPUTS = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=60).map(b"".join))


@pytest.mark.parametrize("name", PARSERS)
def test_any_text_is_parsed_or_refused_in_time(name):
    @given(INPUTS)
    def parse(data):
        check(name, data)

    parse()


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize(
    "piece",
    [
        *(b" ", b"@", b"\\", b"//", b"%", b"&", b"&#", b";", b"?key", b"=", b",", b'"', b"<", b"</", b"<!--"),
        *(b"<a b='", b"<a ", b"<item>", b"<![CDATA[", b"[", b"{", b'{"a":', b"*a", b"\n", b"a:", b"\xc3\xa9"),
    ],
)
def test_a_piece_repeated_very_often_takes_no_parser_long(name, piece):
    check(name, piece * (60_000 // len(piece)))
