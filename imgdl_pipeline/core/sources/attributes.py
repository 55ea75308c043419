"""Define the attributes of links that have the same name in every source, and helpers to extract them.

A source may add attributes under names of its own. The names defined here have the same meaning in every
source.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from lxml import etree

from imgdl_pipeline.core.http.spelling import URL_CHARS
from imgdl_pipeline.core.model.links import Link

if TYPE_CHECKING:
    from imgdl_pipeline.core.sources.client import SourceClient

NAMES = {
    "title": "its name, as plain text",
    "caption": "its description, as plain text",
    "author": "who made it",
    "author_url": "a page about who made it",
    "credit": "how its owner wants to be named",
    "license": "its licence's name",
    "license_url": "URL of its licence",
    "page": "the page that shows it",
    "album": "what it is a part of",
    "date": "when it was made or published, in ISO 8601 where that is known",
    "tags": "a list of texts",
    "id": "its identity at the source",
    "width": "pixels across, as the source has it",
    "height": "pixels down, as the source has it",
    "size": "bytes, as the source has it; not checked",
    "bytes": "bytes; what comes must match",
    "sha1": "hex digits; what comes must match",
    "sha256": "hex digits; what comes must match",
    "md5": "hex digits; what comes must match",
}


def drop_empty(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes without the empty ones."""
    return {name: value for name, value in known.items() if value not in (None, "", [], {})}


def number(text: Any) -> int | None:
    """Parse a count of pixels or bytes from a source; return None if it is not a number above 0."""
    digits = str(text).strip() if isinstance(text, (str, int)) and not isinstance(text, bool) else ""
    return int(digits) or None if digits.isascii() and digits.isdigit() and len(digits) < 16 else None


def iso_date(text: str | None) -> str | None:
    """Convert a date in mail format (RFC 5322) to ISO 8601; return any other text unchanged."""
    plain = (text or "").strip()
    try:
        return parsedate_to_datetime(plain).isoformat() if plain else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return plain


def iso_of_epoch(seconds: Any) -> str | None:
    """Convert seconds since 1970 to ISO 8601; return None if that is impossible."""
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc).isoformat()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


_BLOCKS = frozenset({"br", "p", "div", "li", "dt", "dd", "tr", "td", "th", "h1", "h2", "h3", "h4", "hr"})
"""Elements that separate words even when there is no white space between them."""

_HIDDEN_STYLE = re.compile(r"display\s*:\s*none", re.IGNORECASE)

HTML_CHARS = 100_000
"""Characters of an HTML fragment that are read; what follows is left out."""


def parsed_html(html: str, most_chars: int = HTML_CHARS) -> etree._Element | None:
    """Parse an HTML fragment in linear time; return None if it has no content. Nothing is loaded."""
    parser = etree.HTMLParser(no_network=True, remove_pis=True, encoding="utf-8", huge_tree=True)
    text = html[:most_chars].replace("\0", "").encode("utf-8", "replace")
    try:
        root: etree._Element | None = etree.fromstring(b"<body>" + text, parser)
    except etree.XMLSyntaxError:
        return None
    return root


def plain_text(html: str | None) -> str:
    """Return the text of an HTML fragment with white space folded, without elements hidden by their style."""
    text = html if isinstance(html, str) else ""
    if "<" in text or "&" in text:
        root = parsed_html(text)
        text = "" if root is None else "".join(_visible(root))
    return " ".join(text.split())


def _visible(root: etree._Element) -> Iterator[str]:
    """Yield the visible pieces of a document's text, in order."""
    hidden: etree._Element | None = None
    for event, element in etree.iterwalk(root, events=("start", "end", "comment")):
        if event == "start":
            if hidden is None and _is_hidden(element):
                hidden = element
            if hidden is None:
                yield " " if element.tag in _BLOCKS else ""
                yield element.text or ""
        else:
            if element is hidden:
                hidden = None
            if hidden is None:
                yield " " if element.tag in _BLOCKS else ""
                yield element.tail or ""


def _is_hidden(element: etree._Element) -> bool:
    return element.tag in ("style", "script") or bool(_HIDDEN_STYLE.search(element.get("style", "")))


def first_href(html: str, base: str) -> str | None:
    """Return the absolute URL of the first link in an HTML fragment."""
    root = parsed_html(html)
    links = () if root is None else root.iter("a")
    href = next((link.get("href") for link in links if link.get("href")), None)
    return joined(base, href) if href else None


def joined(base: str, url: str) -> str:
    """Resolve a link against a base URL; return an invalid URL unchanged, so that its row shows the error."""
    if len(base) > URL_CHARS or len(url) > URL_CHARS:
        return url.strip()[: URL_CHARS + 1]
    try:
        return urljoin(base, url.strip())
    except ValueError:
        return url


def distinct(links: Iterable[Link], most: int | None, client: "SourceClient") -> Iterator[Link]:
    """Yield each link once, at most `most` links: sources name a picture in several places.

    The client warns if the limit ends the list.
    """
    seen: set[str] = set()
    for link in links:
        if link.url in seen:
            continue
        seen.add(link.url)
        yield link
        if len(seen) == most:
            client.warn(f"the list ends at {most} links, because max_images says so")
            return


_JPEG_PATH = re.compile(r"\.(jpe?g|jpe|jfif)$", re.IGNORECASE)


def names_a_jpeg(url: str) -> bool:
    """Return whether a URL's path ends like that of a JPEG file."""
    return _JPEG_PATH.search(url.partition("#")[0].partition("?")[0]) is not None


JPEG_TYPES = frozenset({"image/jpeg", "image/jpg", "image/pjpeg"})


def may_be_jpeg(media_type: str | None) -> bool:
    """Return whether a media type given by a source allows a JPEG; a missing type does."""
    kind = (media_type or "").partition(";")[0].strip().lower()
    return kind in JPEG_TYPES or kind in ("", "image", "image/*", "application/octet-stream")
