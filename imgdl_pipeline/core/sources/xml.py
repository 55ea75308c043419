"""Read the XML of strangers: decode it, mend what is often wrong with it, and parse it safely.

libxml2 parses it. It resolves no entities, loads no document type, and does not access the network.
"""

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from html.entities import html5
from xml.sax.saxutils import escape

from lxml import etree

from imgdl_pipeline.core.sources.client import Document, SourceClient

XML_BYTES = 30_000_000
"""The longest XML document, decompressed."""

XML_TAGS = 1_000_000
"""The most tags and attributes of an XML document; each takes some 200 bytes of memory."""


XML_REFERENCES = 3_000_000
"""The most `&` of an XML document."""


def parsed_xml(
    document: Document, client: SourceClient, kind: str, entries: tuple[str, ...]
) -> etree._Element:
    """Parse an XML document; take one that is damaged, with a warning, if nothing of it is lost.

    Args:
        document: The document.
        client: The client that keeps the warning.
        kind: What the document should be, such as `feed`.
        entries: The names of the elements that hold one entry each, without a namespace.

    Raises:
        SourceError: The document is not XML, is cut short, is too large, or declares entities.
    """
    text = decoded(document.read(), document.charset)
    if text.count("&") > XML_REFERENCES:
        raise document.error(f"the {kind} has more than {XML_REFERENCES} times & (XML_REFERENCES)")
    text = _mended(text)
    if text.count("<") + text.count("=") > XML_TAGS:
        raise document.error(f"the {kind} has more than {XML_TAGS} tags and attributes (XML_TAGS)")
    try:
        root = etree.fromstring(text.encode(), _parser(recover=False), base_url=document.url)
    except etree.XMLSyntaxError as error:
        root = _recovered(document, text, kind, entries, error)
        client.warn(f"{document.request}: the {kind} is damaged, but whole: {error}")
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and next(declared.iterentities(), None) is not None:
        raise document.error(f"the {kind} declares entities, which no {kind} needs")
    return root


_HARMLESS = frozenset(
    {
        etree.ErrorTypes.ERR_INVALID_CHAR,
        etree.ErrorTypes.ERR_UNDECLARED_ENTITY,
        etree.ErrorTypes.WAR_UNDECLARED_ENTITY,
        etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE,
        etree.ErrorTypes.NS_ERR_QNAME,
        etree.ErrorTypes.ERR_DOCUMENT_END,
        etree.ErrorTypes.ERR_ATTRIBUTE_REDEFINED,
        etree.ErrorTypes.WAR_NS_URI_RELATIVE,
        etree.ErrorTypes.WAR_NS_URI,
    }
)
"""Errors that libxml2 repairs without loss if no entry is missing. Any other error may lose something."""


def _parser(*, recover: bool) -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=recover,
        remove_comments=True,
        remove_pis=True,
    )


def _recovered(
    document: Document, text: str, kind: str, entries: tuple[str, ...], error: etree.XMLSyntaxError
) -> etree._Element:
    """Parse a damaged document in such a way that no entry of it is lost or mixed with another."""
    is_there = False
    for mended in (text, _VOID_TAG.sub(r"<\1\2/>", text)):
        parser = _parser(recover=True)
        root = None
        with suppress(etree.XMLSyntaxError):
            root = etree.fromstring(mended.encode(), parser, base_url=document.url)
        if root is None:
            continue
        is_there = True
        is_lossy = any(each.type not in _HARMLESS for each in parser.error_log)
        if not is_lossy and _is_whole(root, text, entries):
            return root
    if not is_there:
        raise document.error(f"this is no {kind}: {error}")
    raise document.error(f"the {kind} is damaged in line {error.lineno}: {error.msg}")


def _is_whole(root: etree._Element, text: str, entries: tuple[str, ...]) -> bool:
    """Return whether a tree has every entry that its text begins, none inside another, and its end."""
    plain = _without_cdata(text)
    names = "|".join(entries)
    begun = len(re.findall(rf"<(?:[\w.-]{{1,40}}:)?(?:{names})[\s/>]", plain, re.IGNORECASE))
    found = [element for element in root.iter() if local_name(element) in entries]
    is_closed = f"</{_tag(root)}" in plain[-100_000:]
    is_nested = any(local_name(parent) in entries for each in found for parent in each.iterancestors())
    return len(found) >= begun and is_closed and not is_nested


def _tag(root: etree._Element) -> str:
    prefix = f"{root.prefix}:" if root.prefix else ""
    return prefix + str(root.tag).rpartition("}")[2]


_VOID_TAG = re.compile(
    r"<(br|hr|img|wbr|input|link(?=[^<>]{0,1000}\shref))(\s[^<>]{0,5000})?(?<!/)>", re.IGNORECASE
)
"""Tags of HTML that need no end there, but do in XML."""


def local_name(element: etree._Element) -> str:
    """Return an element's name without its namespace, because most elements occur in several namespaces."""
    return element.tag.rpartition("}")[2].rpartition(":")[2].lower() if isinstance(element.tag, str) else ""


# Decoding

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")


def decoded(data: bytes, charset: str | None, declared_charset: str | None = None) -> str:
    """Decode a document: by its HTTP charset (RFC 7303), its byte order mark, its declaration, or a guess.

    A byte that is wrong becomes U+FFFD and costs nothing else.

    Args:
        data: The document.
        charset: The charset that the HTTP header states.
        declared_charset: The charset that the document itself states; None looks for an XML declaration.
    """
    mark = next((name for bom, name in _BOMS if data.startswith(bom)), None)
    declared = _DECLARED.match(data[:300].removeprefix(codecs.BOM_UTF8))
    name = declared_charset or (declared[1].decode() if declared else "")
    believable = "" if name.lower().startswith(("utf-16", "utf-32", "ucs-")) else name  # it is in plain bytes
    for encoding in filter(None, (charset, mark, believable)):
        with suppress(LookupError, ValueError):  # not an encoding of text
            return data.decode(encoding, "replace").removeprefix("\ufeff")
    return _guessed(data).removeprefix("\ufeff")


def _guessed(data: bytes) -> str:
    """Decode as UTF-8 unless more is wrong with that than is right; then as Windows does in the west."""
    text = data.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    right = sum(char > "\x7f" for char in text) - wrong if wrong else 0
    return text if wrong <= right else data.decode("cp1252", "replace")


# Mending

_NOT_IN_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_AMPERSAND = re.compile(r"&(#[0-9]{1,7};|#[xX][0-9A-Fa-f]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};)?")
_QUOTES = {'"': "&quot;", "'": "&apos;"}
_XML_NAMES = frozenset({"amp;", "lt;", "gt;", "quot;", "apos;"})


def _mended(text: str) -> str:
    """Return a document with every raw `&` escaped, and without characters that XML cannot hold."""
    clean = _NOT_IN_XML.sub("", text.lstrip())
    return "".join(part if is_cdata else _AMPERSAND.sub(_reference, part) for part, is_cdata in _parts(clean))


def _reference(match: re.Match[str]) -> str:
    name = match[1]
    if name is None:
        return "&amp;"
    if name.startswith("#"):
        number = int(name[2:-1], 16) if name[1] in "xX" else int(name[1:-1])
        return match[0] if number < 0x110000 and not _NOT_IN_XML.match(chr(number)) else ""
    return match[0] if name in _XML_NAMES else escape(html5.get(name, f"&{name}"), _QUOTES)


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a document, and whether each is a CDATA section, in which a `&` is a `&`."""
    start = 0
    while (opening := text.find("<![CDATA[", start)) >= 0:
        closing = text.find("]]>", opening)
        end = len(text) if closing < 0 else closing + 3
        yield text[start:opening], False
        yield text[opening:end], True
        start = end
    yield text[start:], False


def _without_cdata(text: str) -> str:
    return "".join(part for part, is_cdata in _parts(text) if not is_cdata)
