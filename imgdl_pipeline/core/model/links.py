"""Represent links, and build the table of the links that a gallery's source lists."""

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa

from imgdl_pipeline.core.model.schemas import LINKS, filter_table, is_first

BATCH_ROWS = 10_000
"""Rows that are converted to Arrow at a time, so that a long list is held as columns, not as objects."""


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
        whole = text.strip().encode("utf-8", "replace").decode()  # JSON may hold lone surrogates
        url = whole.partition("#")[0].rstrip()
        headers = {name: " ".join(value.split()) for name, value in (request_headers or {}).items()}
        userinfo = _USERINFO.match(url)
        if userinfo:
            url = userinfo["before"] + url[userinfo.end() :]
            secret = userinfo["secret"] if ":" in userinfo["secret"] else userinfo["secret"] + ":"
            token = base64.b64encode(unquote_to_bytes(secret)).decode()
            headers["Authorization"] = f"Basic {token}"
        return Link(url, attributes or {}, headers)


_USERINFO = re.compile(r"(?P<before>(?:[^/?#\\@:]*:[/\\\s]*|[/\\]{2,}))(?P<secret>[^/?#\\]*)@")
"""Userinfo after any number of slashes or backslashes: a malformed link is refused, but still has a row."""


def links_table(links: Iterable[Link], listed_at: datetime) -> pa.Table:
    """Return the LINKS table of a list: one row per distinct link, in order, with its first attributes."""
    links = iter(links)
    batches = []
    while batch := list(islice(links, BATCH_ROWS)):
        columns = {
            "url": [link.url for link in batch],
            "attributes": [attributes_json(link.attributes) for link in batch],
            "listed_at": [listed_at] * len(batch),
            "request_headers": [
                json.dumps(link.request_headers) if link.request_headers else None for link in batch
            ],
        }
        batches.append(pa.RecordBatch.from_pydict(columns, schema=LINKS))
    table = pa.Table.from_batches(batches, schema=LINKS)
    return filter_table(table, is_first(table["url"].combine_chunks()))


def attributes_json(attributes: dict[str, Any]) -> str:
    """Return a link's attributes as a JSON object; write values that JSON lacks as text or null."""
    try:
        text = json.dumps(attributes, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # NaN and infinity, which Parquet has but JSON lacks
        loose = json.dumps(attributes, ensure_ascii=False, default=str)
        text = json.dumps(json.loads(loose, parse_constant=lambda _: None), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()
