"""What sources say of a link, under the same names everywhere.

A source may say more, under names of its own; these mean the same whichever source gives them.
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
    "license_url": "where its licence stands",
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
    """Attributes without those that say nothing."""
    return {name: value for name, value in known.items() if value not in (None, "", [], {})}


def number(text: Any) -> int | None:
    """A count of pixels or bytes, as a source writes it; None where that is no number above 0."""
    digits = str(text).strip() if isinstance(text, (str, int)) and not isinstance(text, bool) else ""
    return int(digits) or None if digits.isascii() and digits.isdigit() and len(digits) < 16 else None


def iso_date(text: str | None) -> str | None:
    """A date as ISO 8601 where it is written as mail does (RFC 5322), and as it is elsewhere."""
    plain = (text or "").strip()
    try:
        return parsedate_to_datetime(plain).isoformat() if plain else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return plain


def iso_of_epoch(seconds: Any) -> str | None:
    """Seconds since 1970 as ISO 8601."""
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc).isoformat()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


_BLOCKS = frozenset({"br", "p", "div", "li", "dt", "dd", "tr", "td", "th", "h1", "h2", "h3", "h4", "hr"})
"""Elements that separate words, though no space may stand between them."""

_VOID = frozenset(
    {"br", "hr", "img", "input", "link", "meta", "wbr", "col", "area", "base", "embed", "source"}
)
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none", re.IGNORECASE)


class _Text(HTMLParser):
    """Collects the text of a piece of HTML that a person would see."""

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
    """The text of a piece of HTML, white space folded, without what its styles hide."""
    text = html if isinstance(html, str) else ""
    parser = _Text()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError:  # a declaration such as <![x, on which the parser gives up
        parser.parts = [re.sub(r"<[^>]*>?", " ", text)]
    return " ".join("".join(parser.parts).split())


_HREF = re.compile(r"""<a\s[^>]*?href\s*=\s*["']([^"'<>]+)["']""", re.IGNORECASE)


def first_href(html: str, base: str) -> str | None:
    """Where the first link of a piece of HTML leads."""
    match = _HREF.search(html)
    return urljoin(base, unescape(match[1])) if match else None


def distinct(links: Iterable[Link], most: int | None) -> Iterator[Link]:
    """Each link once, and no more of them than that: sources name a picture in several places."""
    return islice(_once(links), most)


def _once(links: Iterable[Link]) -> Iterator[Link]:
    seen: set[str] = set()
    for link in links:
        if link.url not in seen:
            seen.add(link.url)
            yield link


JPEG_TYPES = frozenset({"image/jpeg", "image/jpg", "image/pjpeg"})


def may_be_jpeg(media_type: str | None) -> bool:
    """Whether a source's word for the type leaves room for a JPEG; no word does."""
    kind = (media_type or "").partition(";")[0].strip().lower()
    return kind in JPEG_TYPES or kind in ("", "image", "image/*", "application/octet-stream")
