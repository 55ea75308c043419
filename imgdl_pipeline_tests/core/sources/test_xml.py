"""Strangers' XML: how it is decoded, what is mended, and what is refused."""

import io

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import xml
from imgdl_pipeline.core.sources.client import Document, SourceClient, SourceError
from imgdl_pipeline.core.sources.xml import decoded, local_name, parsed_xml

URL = "https://h.org/feed"


def read(body, charset=None):
    """Parse a document as a feed; returns its root and the warnings."""
    data = body if isinstance(body, bytes) else body.encode()
    headers = {"Content-Type": f"text/xml; charset={charset}" if charset else "text/xml"}
    document = Document(f"GET {URL}", 200, headers, None, "", URL, io.BytesIO(data))
    with SourceClient(DownloadSettings(), {}) as client:
        return parsed_xml(document, client, "feed", ("item",)), client.warnings


def titles(root):
    return ["".join(each.itertext()) for each in root.iter() if local_name(each) == "title"]


def item(title="t", attribute="u"):
    return f'<item><title>{title}</title><enclosure url="{attribute}"/></item>'


def rss(*items, head=""):
    return f"{head}<rss><channel>{''.join(items)}</channel></rss>"


CAFE = "café €"
DECLARED = '<?xml version="1.0" encoding="{}"?>'


@pytest.mark.parametrize(
    ("data", "charset"),
    [
        (CAFE.encode(), None),
        (CAFE.encode("cp1252"), None),
        (CAFE.encode("utf-8-sig"), None),
        (CAFE.encode("utf-16"), None),
        (b"\xfe\xff" + CAFE.encode("utf-16-be"), None),
        (b"\xff\xfe\0\0" + CAFE.encode("utf-32-le"), None),
        (CAFE.encode("iso-8859-15"), "iso-8859-15"),
        (CAFE.encode("iso-8859-15"), "ISO-8859-15"),
        (CAFE.encode("utf-16-le"), "utf-16le"),
        (CAFE.encode(), "no-such-charset"),
        (CAFE.encode(), "base64"),
        (CAFE.encode("cp1252"), "no-such-charset"),
    ],
)
def test_a_text_is_decoded_by_what_is_known_of_it(data, charset):
    assert decoded(data, charset) == CAFE


@pytest.mark.parametrize("encoding", ["iso-8859-15", "windows-1252", "koi8-r", "utf-8", "shift_jis"])
def test_a_declaration_names_the_encoding(encoding):
    text = DECLARED.format(encoding) + {"koi8-r": "кот", "shift_jis": "猫"}.get(encoding, CAFE)
    assert decoded(text.encode(encoding), None) == text


def test_the_charset_of_http_goes_before_a_mark_a_mark_before_a_declaration():
    declaration = DECLARED.format("koi8-r")
    assert decoded(declaration.encode() + b"\xe9", "iso-8859-1").endswith("é")
    assert decoded(b"\xef\xbb\xbf" + declaration.encode() + "é".encode(), None).endswith("é")
    assert decoded(b"\xef\xbb\xbf\xe9", "iso-8859-1").endswith("é")


def test_a_charset_that_nobody_knows_is_passed_over_for_the_next_word():
    assert decoded(DECLARED.format("koi8-r").encode() + b"\xcb", "no-such").endswith("к")
    assert decoded(DECLARED.format("no-such").encode() + "é".encode(), None).endswith("é")


def test_a_wrong_byte_is_one_wrong_character_and_costs_nothing_else():
    assert decoded("aé".encode() + b"\xff" + "b€c".encode(), None) == "aé\ufffdb€c"
    assert decoded("aé".encode() + b"\xe2" + b"b", "utf-8") == "aé\ufffdb"


def test_a_declaration_of_utf_16_in_plain_bytes_cannot_be_true():
    """As .NET writes it into a string that is then sent as UTF-8."""
    assert decoded((DECLARED.format("utf-16") + CAFE).encode(), None).endswith(CAFE)


CHARSETS = ["utf-8", "utf-16", "ascii", "cp1252", "utf-7", "idna", "punycode", "undefined", "rot13", "mbcs"]


@given(st.binary(max_size=60), st.one_of(st.none(), st.sampled_from(CHARSETS), st.text("ab-1", min_size=1)))
def test_any_bytes_become_text_whatever_charset_is_named(data, charset):
    assert isinstance(decoded(data, charset), str)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff<&\ufeff"))


@given(TEXT, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_every_text_that_xml_can_hold_arrives_in_unicode(text, encoding):
    root, warnings = read(rss(item(text)).encode(encoding))
    assert titles(root) == [text]
    assert warnings == []


PIECES = {
    "&": "&",
    " & ": " & ",
    "&amp;": "&",
    "&lt;": "<",
    "&#38;": "&",
    "&#x26;": "&",
    "&nbsp;": "\xa0",
    "&eacute;": "é",
    "&nosuch;": "&nosuch;",
    "&copy": "&copy",
    "&id=1": "&id=1",
    "a": "a",
    "=": "=",
    ";": ";",
    "#": "#",
}


@given(st.lists(st.sampled_from(sorted(PIECES))))
def test_a_raw_ampersand_is_an_ampersand_and_a_reference_is_what_it_stands_for(pieces):
    written, meant = " ".join(pieces), " ".join(PIECES[piece] for piece in pieces)
    root, warnings = read(rss(item(written, written)))
    assert titles(root) == [meant]
    assert [each.get("url") for each in root.iter("enclosure")] == [meant]
    assert warnings == []


@given(st.lists(st.sampled_from([*sorted(PIECES), "<b>", "]]", ">"])))
def test_nothing_is_mended_in_cdata(pieces):
    text = " ".join(pieces)
    assume("]]>" not in text)
    root, _ = read(rss(item(f"a & b <![CDATA[{text}]]> c & d")))
    assert titles(root) == [f"a & b {text} c & d"]


@pytest.mark.parametrize(
    ("name", "meant"), [("AMP", "&"), ("LT", "<"), ("GT", ">"), ("QUOT", '"'), ("nvlt", "<\u20d2")]
)
def test_an_html_reference_to_a_character_of_xmls_own_stays_a_character(name, meant):
    root, warnings = read(rss(item(f"a &{name}; b", f"a&{name};b")))
    assert titles(root) == [f"a {meant} b"]
    assert next(root.iter("enclosure")).get("url") == f"a{meant}b"
    assert warnings == []


@pytest.mark.parametrize(
    "reference", ["&#0;", "&#11;", "&#x1F;", "&#8;", "&#xD800;", "&#xFFFF;", "&#9999999;"]
)
def test_a_reference_to_what_xml_cannot_hold_costs_no_item(reference):
    root, _ = read(rss(item(f"a{reference}b", f"https://h.org/a.jpg?x={reference}&y=1"), item("c")))
    assert len(list(root.iter("item"))) == 2
    assert titles(root)[1] == "c"
    url = next(root.iter("enclosure")).get("url")
    assert (url[:21], url[-4:]) == ("https://h.org/a.jpg?x", "&y=1")


@pytest.mark.parametrize("char", ["\0", "\x01", "\x1f", "\ufffe"])
def test_a_character_that_xml_cannot_hold_is_left_out(char):
    root, warnings = read(rss(item(f"a{char}b")))
    assert (titles(root), warnings) == (["ab"], [])


@pytest.mark.parametrize("before", ["\n\n ", "\ufeff", "\ufeff\n"])
def test_white_space_before_the_declaration_is_passed_over(before):
    root, warnings = read(rss(item(), head=before + DECLARED.format("utf-8")))
    assert (titles(root), warnings) == (["t"], [])


@pytest.mark.parametrize(
    "damaged",
    [
        rss("<item><title>t</title><media:content url='u'/></item>"),
        rss("<item><title>t</title><itunes:image href='u'/></item>"),
        rss(item()) + "<script>count()</script>",
        rss(item()) + "\n<!-- made in 0.1 s --> done",
        rss("<item><title>t</title><enclosure url='u' url='v'/></item>"),
        rss(item("<br>t")),
        rss(item("t<hr class='x'>")),
        rss(item("<img src='x.png'>t")),
    ],
    ids=lambda text: text[-60:],
)
def test_damage_that_costs_nothing_is_taken_with_a_warning(damaged):
    root, [warning] = read(damaged)
    assert (titles(root), len(list(root.iter("item")))) == (["t"], 1)
    assert warning.startswith(f"GET {URL}: the feed is damaged, but whole: ")


def enclosures(root):
    """The picture of each item that has one."""
    return [
        child.get("url") for each in root.iter("item") for child in each if local_name(child) == "enclosure"
    ]


def pictured(*titles_):
    return rss(*(item(title, str(number)) for number, title in enumerate(titles_)))


STRAY = [
    "</b>",
    "</p>",
    "</a></p>",
    "</title>",
    "</br>",
    "</item>",
    "</rss>",
    "<b>",
    "<p><p>",
    "<br>",
    "<x:y>",
]


@pytest.mark.parametrize("stray", STRAY)
def test_a_stray_tag_costs_no_picture_in_silence(stray):
    """Either the list is an error, or all of its pictures are there, in their items."""
    try:
        root, _ = read(pictured("a", f"b{stray}", "c"))
    except SourceError as error:
        assert "the feed is damaged in line" in str(error)
    else:
        assert enclosures(root) == ["0", "1", "2"]


LONG = pictured(*map(str, range(6)))


@given(st.integers(0, len(LONG)), st.sampled_from(STRAY))
def test_no_damage_anywhere_loses_a_picture_in_silence(place, stray):
    try:
        root, _ = read(LONG[:place] + stray + LONG[place:])
    except SourceError:
        return
    assert enclosures(root) == [str(number) for number in range(6)]


def test_an_end_tag_that_html_does_not_need_is_no_damage_of_its_own():
    """Atom writes `<link …></link>` as well as `<link …/>`; a flaw elsewhere changes nothing about that."""
    entry = "<item><link href='p'></link><enclosure url='{}'></enclosure></item>"
    root, _ = read(rss("<item><no:prefix/></item>", entry.format("a"), entry.format("b")))
    assert enclosures(root) == ["a", "b"]


@given(st.integers(0, len(LONG) - len("</rss>")))
def test_a_document_that_is_cut_anywhere_is_an_error(place):
    with pytest.raises(SourceError, match=r"the feed is damaged in line|this is no feed"):
        read(LONG[:place])


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY a "ha">',
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">',
        '<!ENTITY a SYSTEM "file:///etc/hostname">',
        "<!ENTITY % a \"<!ENTITY b 'x'>\"> %a;",
    ],
)
def test_a_document_that_declares_entities_is_refused(declaration):
    with pytest.raises(SourceError, match="the feed declares entities, which no feed needs"):
        read(rss(item("&a;"), head=f"<!DOCTYPE rss [{declaration}]>"))


def test_a_billion_laughs_are_not_laughed():
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    with pytest.raises(SourceError, match=r"declares entities|damaged"):
        read(rss(item("&l11;"), head=f'<!DOCTYPE rss [<!ENTITY l0 "ha">{laughs}]>'))


def test_a_document_type_is_not_loaded(server):
    head = f'<!DOCTYPE rss SYSTEM "{server.url("/rss.dtd")}">'
    assert titles(read(rss(item(), head=head))[0]) == ["t"]
    assert server.requests == []


def test_a_document_of_too_many_tags_is_an_error_that_names_the_bound(monkeypatch):
    monkeypatch.setattr(xml, "XML_TAGS", 50)
    assert len(titles(read(rss(*[item()] * 5))[0])) == 5
    with pytest.raises(SourceError, match=r"the feed has more than 50 tags and attributes \(XML_TAGS\)"):
        read(rss(*[item()] * 50))
    with pytest.raises(SourceError, match=r"\(XML_TAGS\)"):
        read("<rss " + " ".join(f"a{n}='1'" for n in range(60)) + "/>")


@pytest.mark.parametrize("body", ["", " ", "<", "no XML", "{}", "<rss", "\x00", "<!-- only -->"])
def test_what_is_no_xml_is_an_error_that_says_so(body):
    with pytest.raises(SourceError, match=r"this is no feed|the feed is damaged"):
        read(body)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for body in (text, rss(item(text)), rss(text)):
        try:
            read(body)
        except SourceError as error:
            assert "feed" in str(error)


def test_names_are_compared_without_namespace_and_case():
    root, _ = read('<rss xmlns:a="urn:a"><channel><a:Item/><b:ITEM/><item/></channel></rss>')
    assert [local_name(each) for each in root[0]] == ["item"] * 3
