"""Define the attributes of links that have the same name in every source, and helpers to extract them.

A source may add attributes under names of its own. The names defined here have the same meaning in every
source.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from html import unescape
from html.parser import HTMLParser
from itertools import islice
from typing import Any
from urllib.parse import urljoin

from imgdl_pipeline.core.model.links import Link

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

_VOID = frozenset(
    {"br", "hr", "img", "input", "link", "meta", "wbr", "col", "area", "base", "embed", "source"}
)
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none", re.IGNORECASE)


class _Text(HTMLParser):
    """A parser that collects the visible text of an HTML fragment."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self.parts.append(" ")
        is_hidden = tag in ("style", "script") or _HIDDEN_STYLE.search(dict(attrs).get("style") or "")
        if tag not in _VOID and (self._hidden_depth or is_hidden):
            self._hidden_depth += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.parts.append(" ")
        if tag not in _VOID:
            self._hidden_depth = max(0, self._hidden_depth - 1)

    def handle_data(self, data: str) -> None:
        if not self._hidden_depth:
            self.parts.append(data)


def plain_text(html: str | None) -> str:
    """Return the text of an HTML fragment with white space folded, without elements hidden by their style."""
    text = html if isinstance(html, str) else ""
    parser = _Text()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError:  # the parser gives up on a declaration such as <![x
        parser.parts = [re.sub(r"<[^>]*>?", " ", text)]
    return " ".join("".join(parser.parts).split())


_HREF = re.compile(r"""<a\s[^>]*?href\s*=\s*["']([^"'<>]+)["']""", re.IGNORECASE)


def first_href(html: str, base: str) -> str | None:
    """Return the absolute URL of the first link in an HTML fragment."""
    match = _HREF.search(html)
    return urljoin(base, unescape(match[1])) if match else None


def distinct(links: Iterable[Link], most: int | None) -> Iterator[Link]:
    """Yield each link once, at most `most` links: sources name a picture in several places."""
    return islice(_once(links), most)


def _once(links: Iterable[Link]) -> Iterator[Link]:
    seen: set[str] = set()
    for link in links:
        if link.url not in seen:
            seen.add(link.url)
            yield link


JPEG_TYPES = frozenset({"image/jpeg", "image/jpg", "image/pjpeg"})


def may_be_jpeg(media_type: str | None) -> bool:
    """Return whether a media type given by a source allows a JPEG; a missing type does."""
    kind = (media_type or "").partition(";")[0].strip().lower()
    return kind in JPEG_TYPES or kind in ("", "image", "image/*", "application/octet-stream")
