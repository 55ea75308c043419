"""List the pictures of a feed: RSS, RDF, Atom, Media RSS and JSON Feed.

Specifications: https://www.rssboard.org/rss-specification, RFC 4287, https://www.rssboard.org/media-rss and
https://www.jsonfeed.org/version/1.1/. libxml2 parses the XML; it resolves no entities, loads no DTD and does
not access the network. A feed that declares its own entities is refused.
"""

import codecs
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urljoin

from lxml import etree
from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import HttpUrl, MaxImages, SourceSettings
from imgdl_pipeline.core.sources.attributes import (
    distinct,
    drop_empty,
    iso_date,
    may_be_jpeg,
    number,
    plain_text,
)
from imgdl_pipeline.core.sources.client import Document, SourceClient, parsed_json

FEED_BYTES = 50_000_000


class FeedSource(SourceSettings):
    """The pictures of a feed."""

    type: Literal["feed"]
    url: HttpUrl = Field(description="URL of the feed: RSS, Atom, Media RSS or JSON Feed")
    max_images: MaxImages = None


def list_links(source: FeedSource, client: SourceClient) -> Iterator[Link]:
    """Yield the pictures of every item: media:content, enclosures and attachments, in the feed's order.

    Raises:
        SourceError: The feed could not be fetched, or is not a feed.
        Unchanged: The server reports that the feed has not changed.
    """
    with client.document(source.url, limit=FEED_BYTES, conditionally=True) as document:
        yield from distinct(_links(document), source.max_images)


def _links(document: Document) -> Iterator[Link]:
    text = document.read()
    if text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _of_json_feed(document, parsed_json(text))
    return _of_xml(_parsed_xml(document, text))


# XML

ROOTS = ("rss", "rdf", "feed")

_HARMLESS = frozenset(
    {
        etree.ErrorTypes.ERR_INVALID_CHAR,
        etree.ErrorTypes.ERR_UNDECLARED_ENTITY,
        etree.ErrorTypes.WAR_UNDECLARED_ENTITY,
        etree.ErrorTypes.ERR_ENTITYREF_SEMICOL_MISSING,
        etree.ErrorTypes.ERR_NAME_REQUIRED,
        etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE,
        etree.ErrorTypes.NS_ERR_QNAME,
    }
)
"""Common errors in feeds that libxml2 repairs without loss. Any other error may lose items."""


def _parsed_xml(document: Document, text: bytes) -> etree._Element:
    if not text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = text.replace(b"\0", b"")  # libxml2 would treat the first one as the end
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=True,
        remove_comments=True,
    )
    try:
        root = etree.fromstring(text.lstrip(), parser, base_url=document.url)
    except etree.XMLSyntaxError as error:
        raise document.error(f"this is no feed: {error}") from error
    if root is None or _name(root) not in ROOTS:
        raise document.error("this is no feed: neither RSS nor Atom nor JSON Feed")
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and next(declared.iterentities(), None) is not None:
        raise document.error("the feed declares entities, which no feed needs")
    damage = next((each for each in parser.error_log if each.type not in _HARMLESS), None)
    if damage is not None:
        raise document.error(f"the feed is damaged in line {damage.line}: {damage.message}")
    return root


def _name(element: etree._Element) -> str:
    """Return an element's name without its namespace, because most elements occur in several namespaces."""
    return element.tag.rpartition("}")[2].rpartition(":")[2].lower() if isinstance(element.tag, str) else ""


MEDIA = (
    "{http://search.yahoo.com/mrss/}",
    "{http://search.yahoo.com/mrss}",  # a common misspelling
    "{http://www.rssboard.org/media-rss}",
)
DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"


def _is_media(element: etree._Element, name: str) -> bool:
    return element.tag in [namespace + name for namespace in MEDIA]


def _of_xml(root: etree._Element) -> Iterator[Link]:
    for item in root.iter():
        if _name(item) in ("item", "entry"):
            yield from _of_item(item)


def _of_item(item: etree._Element) -> Iterator[Link]:
    told = _told_of(item)
    for content in _media_contents(item):
        if content.get("url") and _wanted(content.get("type"), content.get("medium")):
            yield Link.from_text(_absolute(content, "url"), drop_empty({**told, **_told_by_media(content)}))
    for enclosure in item:
        name = _name(enclosure)
        if name == "enclosure" and enclosure.get("url"):
            attribute = "url"
        elif name == "link" and _relation(enclosure) == "enclosure" and enclosure.get("href"):
            attribute = "href"
        elif name == "content" and enclosure.get("src") and may_be_jpeg(enclosure.get("type")):
            attribute = "src"
        else:
            continue
        if may_be_jpeg(enclosure.get("type")):
            size = number(enclosure.get("length"))
            yield Link.from_text(_absolute(enclosure, attribute), drop_empty({**told, "size": size}))


def _relation(link: etree._Element) -> str:
    """Return the `rel` of an Atom link in lower case, without IANA's URL prefix (RFC 4287)."""
    return str(link.get("rel", "alternate")).rpartition("/")[2].lower()


def _wanted(media_type: str | None, medium: str | None) -> bool:
    return may_be_jpeg(media_type) and (medium or "image").lower() in ("image", "document")


def _absolute(element: etree._Element, attribute: str) -> str:
    """Resolve a link against the element's xml:base, or the feed's own URL."""
    return joined(str(element.base or ""), str(element.get(attribute)))


def joined(base: str, url: str) -> str:
    """Resolve a link against a base URL; return an invalid URL unchanged, so that its row shows the error."""
    try:
        return urljoin(base, url.strip())
    except ValueError:
        return url


def _media_contents(item: etree._Element) -> Iterator[etree._Element]:
    """Yield an item's media:content elements, but only the best one of a group, which is one picture."""
    for child in item:
        if _is_media(child, "content"):
            yield child
        elif _is_media(child, "group"):
            forms = [
                form
                for form in child
                if _is_media(form, "content") and _wanted(form.get("type"), form.get("medium"))
            ]
            if forms:
                yield max(forms, key=_quality)


def _quality(content: etree._Element) -> tuple[int, bool]:
    return number(content.get("width")) or 0, content.get("isDefault") == "true"


def _told_by_media(content: etree._Element) -> dict[str, Any]:
    """Return a picture's Media RSS attributes, from itself, its group or its item; the closest wins."""
    told: dict[str, Any] = {
        "width": number(content.get("width")),
        "height": number(content.get("height")),
        "size": number(content.get("fileSize")),
    }
    for place in (content, *content.iterancestors()):
        if _name(place) in ("channel", "feed", "rss", "rdf"):
            break
        for child in place:
            name = _name(child) if _is_media(child, _name(child)) else ""
            for key, value in drop_empty(_MEDIA_SAYS.get(name, lambda _: {})(child)).items():
                told.setdefault(key, value)
    return drop_empty(told)


def _hash(element: etree._Element) -> dict[str, Any]:
    algorithm = {"md5": "md5", "sha-1": "sha1"}.get(element.get("algo", "md5").lower())
    return {algorithm: _text(element)} if algorithm else {}


_MEDIA_SAYS: dict[str, Any] = {
    "title": lambda element: {"title": plain_text(_text(element))},
    "description": lambda element: {"caption": plain_text(_text(element))},
    "credit": lambda element: {"author": plain_text(_text(element))},
    "copyright": lambda element: {"credit": plain_text(_text(element))},
    "license": lambda element: {"license": _text(element), "license_url": element.get("href")},
    "keywords": lambda element: {"tags": [each.strip() for each in (_text(element) or "").split(",")]},
    "hash": _hash,
}


def _told_of(item: etree._Element) -> dict[str, Any]:
    """Return the attributes that an item gives all its pictures."""
    caption = _first(item, "description", "summary", "content")
    return drop_empty(
        {
            "title": plain_text(_first(item, "title")),
            "caption": plain_text(caption),
            "author": _author(item),
            "credit": plain_text(_first(item, "rights", "copyright")),
            "license_url": _license_url(item),
            "page": _page(item),
            "date": iso_date(_first(item, "pubdate", "published", "date", "updated")),
            "id": _first(item, "guid", "id"),
            "tags": _tags(item),
        }
    )


def _child(item: etree._Element, *names: str) -> etree._Element | None:
    """Return the first child with the first name found, except Media RSS elements, which reuse such names."""
    for name in names:
        for child in item:
            if _name(child) == name and not _is_media(child, name):
                return child
    return None


def _first(item: etree._Element, *names: str) -> str | None:
    return _text(_child(item, *names))


def _text(element: etree._Element | None) -> str | None:
    if element is None:
        return None
    return " ".join("".join(element.itertext()).split()) or None


def _author(item: etree._Element) -> str | None:
    person = _child(item, "author", "creator")
    if person is None:
        return None
    return _first(person, "name") or _text(person)


def _page(item: etree._Element) -> str | None:
    for link in item:
        if _name(link) == "link" and _relation(link) == "alternate":
            href = link.get("href") or _text(link)
            return joined(str(link.base or ""), href) if href else None
    return None


def _license_url(item: etree._Element) -> str | None:
    """Return the URL of a rel=license link (RFC 4946), or of Creative Commons' own element."""
    for child in item:
        if _name(child) == "link" and _relation(child) == "license":
            return str(child.get("href") or "")
        if _name(child) == "license" and not _is_media(child, "license"):
            return _text(child) or next(iter(child.attrib.values()), None)
    return None


def _tags(item: etree._Element) -> list[str]:
    named = (
        child
        for child in item
        if _name(child) in ("category", "subject") and not _is_media(child, "category")
    )
    return [tag for tag in (child.get("term") or _text(child) for child in named) if tag]


# JSON


def _of_json_feed(document: Document, data: Any) -> Iterator[Link]:
    if not isinstance(data, dict) or "jsonfeed.org" not in str(data.get("version")):
        raise document.error("this is no feed: neither RSS nor Atom nor JSON Feed")
    items = data.get("items")
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            yield from _of_json_item(document.url, data, item)


def _of_json_item(base: str, feed: dict[str, Any], item: dict[str, Any]) -> Iterator[Link]:
    told = _told_by_json(feed, item)
    attachments = item.get("attachments")
    for each in attachments if isinstance(attachments, list) else []:
        if isinstance(each, dict) and each.get("url") and may_be_jpeg(str(each.get("mime_type") or "")):
            own = {"title": each.get("title"), "size": number(each.get("size_in_bytes"))}
            yield Link.from_text(joined(base, str(each["url"])), {**told, **drop_empty(own)})
    if item.get("image"):
        yield Link.from_text(joined(base, str(item["image"])), told)


def _told_by_json(feed: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    authors = item.get("authors") or feed.get("authors") or [item.get("author") or feed.get("author")]
    authors = authors if isinstance(authors, list) else []
    names = [each["name"] for each in authors if isinstance(each, dict) and each.get("name")]
    return drop_empty(
        {
            "title": item.get("title"),
            "caption": item.get("content_text")
            or plain_text(item.get("content_html"))
            or item.get("summary"),
            "author": ", ".join(map(str, names)),
            "page": item.get("url"),
            "date": item.get("date_published"),
            "id": item.get("id"),
            "tags": item.get("tags"),
        }
    )
