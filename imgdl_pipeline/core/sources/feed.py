"""List the pictures of a feed: RSS, RDF, Atom, Media RSS and JSON Feed.

Specifications: https://www.rssboard.org/rss-specification, RFC 4287, RFC 5005 (next pages),
https://www.rssboard.org/media-rss and https://www.jsonfeed.org/version/1.1/.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from lxml import etree
from pydantic import Field

from imgdl_pipeline.core.model.links import ATTRIBUTES_CHARS, Link
from imgdl_pipeline.core.model.settings import HttpUrl, MaxImages, SourceSettings
from imgdl_pipeline.core.sources.attributes import (
    distinct,
    drop_empty,
    iso_date,
    joined,
    may_be_jpeg,
    number,
    parsed_html,
    plain_text,
)
from imgdl_pipeline.core.sources.client import Document, SourceClient, is_trusted_like
from imgdl_pipeline.core.sources.xml import XML_BYTES, local_name, parsed_xml

Place = Literal["enclosures", "thumbnails", "content"]


class FeedSource(SourceSettings):
    """The pictures of a feed."""

    type: Literal["feed"]
    url: HttpUrl = Field(description="URL of the feed: RSS, Atom, Media RSS or JSON Feed")
    images: tuple[Place, ...] = Field(
        ("enclosures",),
        min_length=1,
        description="where pictures are looked for: enclosures, thumbnails, and img elements in the content",
    )
    max_pages: int = Field(1, ge=1, le=10_000, description="pages to read of a feed that has next pages")
    max_images: MaxImages = None


def list_links(source: FeedSource, client: SourceClient) -> Iterator[Link]:
    """Yield the pictures of every item of every page, in the feed's order.

    Raises:
        SourceError: The feed could not be fetched, or is not a feed.
        Unchanged: The server reports that the feed has not changed.
    """
    return distinct(_of_pages(source, client), source.max_images, client)


def _of_pages(source: FeedSource, client: SourceClient) -> Iterator[Link]:
    url: str | None = source.url
    for page in range(source.max_pages):
        is_trusted = page == 0 or is_trusted_like(source.url, str(url))
        with client.document(
            str(url), limit=XML_BYTES, conditionally=page == 0, is_trusted=is_trusted
        ) as document:
            following = yield from _of_page(document, source, client)
        url = following
        if url is None:
            return
    client.warn(f"the feed goes on after {source.max_pages} pages; max_pages allows more")


def _of_page(
    document: Document, source: FeedSource, client: SourceClient
) -> Generator[Link, None, str | None]:
    """Yield the pictures of one page, and return the URL of the next page, if there is one."""
    text = document.read()
    if text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        document.file.seek(0)
        feed = _json_feed(document, document.json())
        items = [item for item in feed["items"] if isinstance(item, dict)]
        client.saw(str(item.get("id") or item) for item in items)
        for item in items:
            yield from _of_json_item(document.url, feed, item, source.images)
        following = feed.get("next_url")
        return joined(document.url, following) if isinstance(following, str) and following else None
    document.file.seek(0)
    root = parsed_xml(document, client, "feed", ENTRIES)
    if local_name(root) not in ROOTS:
        raise document.error("this is no feed: neither RSS nor Atom nor JSON Feed")
    entries = list(_entries(root))
    client.saw(_identity(entry) for entry in entries)
    for entry in entries:
        yield from _of_item(entry, source.images)
    return _next_page(root)


# XML

ROOTS = ("rss", "rdf", "feed")
ENTRIES = ("item", "entry")

MEDIA = (
    "{http://search.yahoo.com/mrss/}",
    "{http://search.yahoo.com/mrss}",  # a common misspelling
    "{http://www.rssboard.org/media-rss}",
    "media:",  # not declared
)


def _is_media(element: etree._Element, name: str) -> bool:
    return element.tag in [namespace + name for namespace in MEDIA]


def _entries(root: etree._Element) -> Iterator[etree._Element]:
    """Yield the entries, but none that is inside another."""
    outer: etree._Element | None = None
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if outer is None and event == "start" and local_name(element) in ENTRIES:
            outer = element
            yield element
        elif event == "end" and element is outer:
            outer = None


def _identity(entry: etree._Element) -> str:
    return _first(entry, "guid", "id") or repr(etree.tostring(entry))


def _next_page(root: etree._Element) -> str | None:
    """Return the next page of a paged feed (RFC 5005, 3), which a link of the feed itself names."""
    for place in (root, *(child for child in root if local_name(child) == "channel")):
        for link in place:
            if local_name(link) == "link" and _relation(link) == "next" and link.get("href"):
                return _absolute(link, "href")
    return None


def _of_item(item: etree._Element, images: tuple[Place, ...]) -> Iterator[Link]:
    described = _described(item)
    if "enclosures" in images:
        yield from _enclosures(item, described)
    if "thumbnails" in images:
        for child in item.iter():
            attribute = _THUMBNAILS.get(str(child.tag))
            if attribute and child.get(attribute):
                size = {"width": number(child.get("width")), "height": number(child.get("height"))}
                yield Link.from_text(_absolute(child, attribute), drop_empty({**described, **size}))
    if "content" in images:
        for child in item:
            if local_name(child) in ("description", "summary", "content", "encoded"):
                for url in _pictures(_markup(child), str(child.base or "")):
                    yield Link.from_text(url, described)


_THUMBNAILS = {
    **{f"{namespace}thumbnail": "url" for namespace in MEDIA},
    "{http://www.itunes.com/dtds/podcast-1.0.dtd}image": "href",
    "itunes:image": "href",
}


_PREFIX = re.compile(r"<(/?)[A-Za-z][\w.-]{0,40}:")


def _markup(element: etree._Element) -> str:
    """Return an element's content as HTML, whether it is escaped or consists of elements."""
    inner = (etree.tostring(child, encoding="unicode", method="html") for child in element)
    return (element.text or "") + "".join(_PREFIX.sub(r"<\1", each) for each in inner)


def _pictures(html: str, base: str) -> Iterator[str]:
    """Yield the URLs of the img elements in an HTML fragment."""
    root = parsed_html(html) if "<img" in html.lower() else None
    for img in () if root is None else root.iter("img"):
        src = img.get("src") or ""
        if src and not src.startswith("data:"):
            yield joined(base, src)


def _enclosures(item: etree._Element, described: dict[str, Any]) -> Iterator[Link]:
    """Yield the pictures of media:content, enclosures, and links to enclosures."""
    media: dict[etree._Element, dict[str, Any]] = {}
    for content in _media_contents(item):
        if content.get("url") and _wanted(content.get("type"), content.get("medium")):
            own = _described_by_media(content, media)
            yield Link.from_text(_absolute(content, "url"), drop_empty({**described, **own}))
    for enclosure in item:
        attribute = _enclosure_attribute(enclosure)
        if attribute and enclosure.get(attribute) and may_be_jpeg(enclosure.get("type")):
            size = number(enclosure.get("length"))
            yield Link.from_text(_absolute(enclosure, attribute), drop_empty({**described, "size": size}))


def _enclosure_attribute(element: etree._Element) -> str | None:
    name = local_name(element)
    if name == "enclosure":
        return "url"
    if name == "link" and _relation(element) == "enclosure":
        return "href"
    is_content = name == "content" and not _is_media(element, "content")
    return "src" if is_content and may_be_jpeg(element.get("type")) else None


def _relation(link: etree._Element) -> str:
    """Return the `rel` of an Atom link in lower case, without IANA's URL prefix (RFC 4287)."""
    return str(link.get("rel", "alternate")).rpartition("/")[2].lower()


def _wanted(media_type: str | None, medium: str | None) -> bool:
    return may_be_jpeg(media_type) and (medium or "image").lower() in ("image", "document")


def _absolute(element: etree._Element, attribute: str) -> str:
    """Resolve a link against the element's xml:base, or the feed's own URL."""
    return joined(str(element.base or ""), str(element.get(attribute)))


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


def _described_by_media(
    content: etree._Element, known: dict[etree._Element, dict[str, Any]]
) -> dict[str, Any]:
    """Return a picture's Media RSS attributes, from itself, its group or its item; the closest wins.

    Args:
        content: The picture's element.
        known: What its group, item and their parents give, which is looked up once for all their pictures.
    """
    found: dict[str, Any] = {
        "width": number(content.get("width")),
        "height": number(content.get("height")),
        "size": number(content.get("fileSize")),
        **_media_children(content),
    }
    for place in content.iterancestors():
        if local_name(place) in ("channel", "feed", "rss", "rdf"):
            break
        if place not in known:
            known[place] = _media_children(place)
        found = {**known[place], **drop_empty(found)}
    return drop_empty(found)


def _media_children(place: etree._Element) -> dict[str, Any]:
    """Return the Media RSS attributes that an element's own children give; the first of a kind wins."""
    found: dict[str, Any] = {}
    for child in place:
        name = local_name(child)
        read = _MEDIA_ATTRIBUTES.get(name) if _is_media(child, name) else None
        for key, value in drop_empty(read(child)).items() if read else ():
            found.setdefault(key, value)
    return found


MOST_NAMES = 100
"""The most tags or authors of one entry."""


def _words(text: str | None) -> list[str]:
    return [each.strip() for each in (text or "").split(",", MOST_NAMES)[:MOST_NAMES]]


def _hash(element: etree._Element) -> dict[str, Any]:
    algorithm = {"md5": "md5", "sha-1": "sha1"}.get(element.get("algo", "md5").lower())
    return {algorithm: _text(element)} if algorithm else {}


_MEDIA_ATTRIBUTES: dict[str, Any] = {
    "title": lambda element: {"title": plain_text(_text(element))},
    "description": lambda element: {"caption": plain_text(_text(element))},
    "credit": lambda element: {"author": plain_text(_text(element))},
    "copyright": lambda element: {"credit": plain_text(_text(element))},
    "license": lambda element: {"license": _text(element), "license_url": element.get("href")},
    "keywords": lambda element: {"tags": _words(_text(element))},
    "hash": _hash,
}


def _described(item: etree._Element) -> dict[str, Any]:
    """Return the attributes that an item gives all its pictures."""
    return drop_empty(
        {
            "title": _plain(item, "title"),
            "caption": _plain(item, "description", "summary", "content"),
            "author": _author(item),
            "credit": _plain(item, "rights", "copyright"),
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
            if local_name(child) == name and not _is_media(child, name):
                return child
    return None


def _plain(item: etree._Element, *names: str) -> str:
    """Return a child's text without markup, whether that is escaped or consists of elements."""
    child = _child(item, *names)
    return "" if child is None else plain_text(_markup(child))


def _first(item: etree._Element, *names: str) -> str | None:
    return _text(_child(item, *names))


def _text(element: etree._Element | None) -> str | None:
    if element is None:
        return None
    text, chars = [], 0
    for part in element.itertext():
        text.append(part)
        chars += len(part)
        if chars > ATTRIBUTES_CHARS:
            break
    return " ".join("".join(text)[:ATTRIBUTES_CHARS].split()) or None


def _author(item: etree._Element) -> str | None:
    person = _child(item, "author", "creator")
    if person is None:
        return None
    return _first(person, "name") or _text(person)


def _page(item: etree._Element) -> str | None:
    for link in item:
        if local_name(link) == "link" and _relation(link) == "alternate":
            href = link.get("href") or _text(link)
            return joined(str(link.base or ""), href) if href else None
    return None


def _license_url(item: etree._Element) -> str | None:
    """Return the URL of a rel=license link (RFC 4946), or of Creative Commons' own element."""
    for child in item:
        if local_name(child) == "link" and _relation(child) == "license":
            return str(child.get("href") or "")
        if local_name(child) == "license" and not _is_media(child, "license"):
            return _text(child) or next(iter(child.attrib.values()), None)
    return None


def _tags(item: etree._Element) -> list[str]:
    named = (
        child
        for child in item
        if local_name(child) in ("category", "subject") and not _is_media(child, "category")
    )
    tags = (child.get("term") or _text(child) for child in named)
    return list(islice(filter(None, tags), MOST_NAMES))


# JSON


def _json_feed(document: Document, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict) or "jsonfeed.org" not in str(data.get("version")):
        raise document.error("this is no feed: neither RSS nor Atom nor JSON Feed")
    items = data.get("items")
    return {**data, "items": items if isinstance(items, list) else []}


def _of_json_item(
    base: str, feed: Mapping[str, Any], item: dict[str, Any], images: tuple[Place, ...]
) -> Iterator[Link]:
    described = _described_by_json(feed, item)
    attachments = item.get("attachments") if "enclosures" in images else None
    for each in attachments if isinstance(attachments, list) else []:
        if isinstance(each, dict) and each.get("url") and may_be_jpeg(str(each.get("mime_type") or "")):
            own = {"title": each.get("title"), "size": number(each.get("size_in_bytes"))}
            yield Link.from_text(joined(base, str(each["url"])), {**described, **drop_empty(own)})
    if "enclosures" in images and item.get("image"):
        yield Link.from_text(joined(base, str(item["image"])), described)
    if "thumbnails" in images and item.get("banner_image"):
        yield Link.from_text(joined(base, str(item["banner_image"])), described)
    if "content" in images:
        for url in _pictures(str(item.get("content_html") or ""), base):
            yield Link.from_text(url, described)


def _described_by_json(feed: Mapping[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    authors = item.get("authors") or feed.get("authors") or [item.get("author") or feed.get("author")]
    authors = authors if isinstance(authors, list) else []
    names = [each["name"] for each in authors[:MOST_NAMES] if isinstance(each, dict) and each.get("name")]
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
