"""Represent links, and build the table of the links that a gallery's source lists."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa

from imgdl_pipeline.core.model.schemas import BATCH_ROWS, LINKS

BATCH_CHARS = 8_000_000
"""Characters that are converted to Arrow at a time, besides `BATCH_ROWS`: a list is never held as objects."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link as its source gave it.

    Args:
        url: The URL without surrounding white space, fragment, user name and password.
        attributes: The source's description of the link, as JSON-serialisable values by name.
        request_headers: Headers such as a Referer that are sent to the link's own host only. They are stored
            in the link list, and neither in the ledger nor in the catalog.
    """

    url: str
    attributes: dict[str, Any] = field(default_factory=dict)
    request_headers: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def from_text(
        text: str,
        attributes: dict[str, Any] | None = None,
        request_headers: dict[str, str] | None = None,
    ) -> "Link":
        """Return a link from a source's raw text. Convert a name and password to a header (RFC 7617)."""
        whole = text.strip()
        if not whole.isascii():
            whole = _SURROGATE.sub("\ufffd", whole)  # JSON may hold lone ones
        url = whole.partition("#")[0].rstrip()
        secret = None
        if "@" in url:
            url, secret = _without_userinfo(url)
        headers = {name: " ".join(value.split()) for name, value in (request_headers or {}).items()}
        if secret and secret.strip(":"):
            token = base64.b64encode(unquote_to_bytes(secret if ":" in secret else f"{secret}:")).decode()
            headers["Authorization"] = f"Basic {token}"
        return Link(url, attributes or {}, headers)


_SURROGATE = re.compile("[\ud800-\udfff]")

_BEFORE_AUTHORITY = re.compile(r"[^/?#\\@:]*:[/\\\s]*|[/\\]{2,}")
"""A scheme and any number of slashes or backslashes: a malformed link is refused, but still has a row."""

_AUTHORITY = re.compile(r"[^/?#\\]*")


def _without_userinfo(url: str) -> tuple[str, str | None]:
    """Return a URL without its user name and password, and these, or None if there are none."""
    before = _BEFORE_AUTHORITY.match(url)
    authority = _AUTHORITY.match(url, before.end()) if before else None
    if before is None or authority is None or "@" not in authority[0]:
        return url, None
    secret, _, host = authority[0].rpartition("@")
    return url[: before.end()] + host + url[authority.end() :], secret


ATTRIBUTES_CHARS = 32_768
"""The longest attributes of one link, as JSON. In longer ones, the long texts are cut to `CUT_CHARS`."""

CUT_CHARS = 1_000


class TooLargeError(Exception):
    """Raised if a list has more links or longer attributes than one gallery may have."""


MAX_LINKS = 20_000_000
"""The most distinct links of one gallery: an Arrow column of more would exceed 2 GiB."""

MAX_LIST_BYTES = 4_000_000_000
"""The most bytes that the distinct links of one gallery and their attributes may take in all."""


class LinkBatches:
    """Converts links to batches of the schema LINKS.

    Args:
        listed_at: When the list is made.
    """

    def __init__(self, listed_at: datetime) -> None:
        self._listed_at = listed_at
        self.given = 0
        self.cut = 0

    def batches(self, links: Iterable[Link]) -> Iterator[pa.RecordBatch]:
        """Yield the batches, of up to `BATCH_ROWS` rows and some `BATCH_CHARS` characters."""
        rows: list[tuple[str, str, str | None]] = []
        chars = 0
        for link in links:
            self.given += 1
            if not self._is_wanted(link.url):
                continue
            row = self._row(link)
            rows.append(row)
            chars += len(row[0]) + len(row[1])
            if len(rows) == BATCH_ROWS or chars >= BATCH_CHARS:
                yield self._batch(rows, chars)
                rows, chars = [], 0
        if rows:
            yield self._batch(rows, chars)

    def _is_wanted(self, url: str) -> bool:  # noqa: ARG002
        return True

    def _row(self, link: Link) -> tuple[str, str, str | None]:
        known = link.attributes
        if any(type(value) is not str or len(value) > CUT_CHARS for value in known.values()):
            known = {name: _bounded(value) for name, value in known.items()}
        attributes = attributes_json(known)
        if len(attributes) > ATTRIBUTES_CHARS:
            self.cut += 1
            attributes = attributes_json({name: _cut(value) for name, value in link.attributes.items()})
            attributes = attributes if len(attributes) <= ATTRIBUTES_CHARS else "{}"
        return link.url, attributes, json.dumps(link.request_headers) if link.request_headers else None

    def _batch(self, rows: list[tuple[str, str, str | None]], chars: int) -> pa.RecordBatch:
        self._take(chars)
        urls, attributes, headers = zip(*rows, strict=True)
        columns = {
            "url": urls,
            "attributes": attributes,
            "listed_at": [self._listed_at] * len(rows),
            "request_headers": headers,
        }
        return pa.RecordBatch.from_pydict(columns, schema=LINKS)

    def _take(self, chars: int) -> None:
        """Count the characters of a batch."""


class DistinctLinks(LinkBatches):
    """Converts links to batches like `LinkBatches`, each distinct link once, with its first attributes.

    `batches` raises TooLargeError if there are more than `MAX_LINKS`, or more than `MAX_LIST_BYTES` of them.
    """

    def __init__(self, listed_at: datetime) -> None:
        super().__init__(listed_at)
        self._seen: set[bytes] = set()
        self._bytes = 0

    def _is_wanted(self, url: str) -> bool:
        """Return whether a link has not been seen; 128 bits of a hash take half the memory of a link."""
        digest = hashlib.blake2b(url.encode(), digest_size=16).digest()
        known = len(self._seen)
        self._seen.add(digest)
        if len(self._seen) > MAX_LINKS:
            raise TooLargeError(f"there are more than {MAX_LINKS} distinct links (MAX_LINKS)")
        return len(self._seen) > known

    def _take(self, chars: int) -> None:
        self._bytes += chars
        if self._bytes > MAX_LIST_BYTES:
            raise TooLargeError(
                f"the links and their attributes take more than {MAX_LIST_BYTES} bytes (MAX_LIST_BYTES)"
            )


def _bounded(value: Any) -> Any:
    """Return the start of a value that is longer than all attributes may be, before it is converted."""
    if isinstance(value, (str, list)) and len(value) > ATTRIBUTES_CHARS:
        return value[: ATTRIBUTES_CHARS + 1]
    if isinstance(value, dict) and len(value) > CUT_CHARS:
        return dict(islice(value.items(), CUT_CHARS))
    return value


def _cut(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= CUT_CHARS else f"{text[: CUT_CHARS - 1]}…"


def links_table(links: Iterable[Link], listed_at: datetime) -> pa.Table:
    """Return the LINKS table of a list: one row per distinct link, in order, with its first attributes.

    Raises:
        TooLargeError: The list is too large.
    """
    return pa.Table.from_batches(DistinctLinks(listed_at).batches(links), schema=LINKS)


def attributes_json(attributes: dict[str, Any]) -> str:
    """Return a link's attributes as a JSON object; write values that JSON lacks as text or null."""
    try:
        text = json.dumps(attributes, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # NaN and infinity, which Parquet has but JSON lacks
        loose = json.dumps(attributes, ensure_ascii=False, default=str)
        text = json.dumps(json.loads(loose, parse_constant=lambda _: None), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()
