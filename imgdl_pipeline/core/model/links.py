"""Links, and the list of them that a gallery's source gave."""

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
"""Rows that are turned into Arrow at a time, so that a long list costs columns and not objects."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link as its source gave it.

    Args:
        url: White space around it, the fragment and a user's name and password are cut.
        attributes: What the source said of it, as JSON-able values by name.
        request_headers: Sent to the link's own host and to no other, such as a Referer. They stay in the link
            list: neither the ledger nor the catalog has them.
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
        """A link from a source's raw text. A name and password in it become a header (RFC 7617)."""
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
"""However many slashes there are, and whichever way they lean: such a link is refused, but has a row."""


def links_table(links: Iterable[Link], listed_at: datetime) -> pa.Table:
    """The LINKS table of a list: one row a distinct link, in order; the first one's attributes win."""
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
    """The JSON object of a link's attributes; what JSON has no form for is written as text or null."""
    try:
        text = json.dumps(attributes, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # NaN and infinity, which Parquet has and JSON has not
        loose = json.dumps(attributes, ensure_ascii=False, default=str)
        text = json.dumps(json.loads(loose, parse_constant=lambda _: None), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()
