"""Links, and the list of them that a gallery's source gave."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from imgdl_pipeline.core.columns import LINKS

BATCH_ROWS = 50_000
"""Rows that are turned into Arrow at a time, so that a long list costs columns and not objects."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link as its source gave it.

    Args:
        url: White space around it and the fragment are cut.
        attributes: What the source said of it, as JSON-able values by name.
    """

    url: str
    attributes: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_text(text: str, attributes: dict[str, Any] | None = None) -> "Link":
        """A link from a source's raw text."""
        whole = text.strip().encode("utf-8", "replace").decode()  # JSON may hold lone surrogates
        return Link(whole.partition("#")[0].rstrip(), attributes or {})


def links_table(links: Iterable[Link], listed_at: datetime) -> pa.Table:
    """The LINKS table of a list: one row a distinct link, in order; the first one's attributes win."""
    seen: set[str] = set()
    batches = []
    for batch in _batches(links, seen):
        columns = {
            "url": [link.url for link in batch],
            "attributes": [attributes_json(link.attributes) for link in batch],
            "listed_at": [listed_at] * len(batch),
        }
        batches.append(pa.RecordBatch.from_pydict(columns, schema=LINKS))
    return pa.Table.from_batches(batches, schema=LINKS)


def _batches(links: Iterable[Link], seen: set[str]) -> Iterator[list[Link]]:
    batch: list[Link] = []
    for link in links:
        if link.url in seen:
            continue
        seen.add(link.url)
        batch.append(link)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def attributes_json(attributes: dict[str, Any]) -> str:
    """The JSON object of a link's attributes; what JSON has no form for is written as text or null."""
    try:
        text = json.dumps(attributes, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # NaN and infinity, which Parquet has and JSON has not
        loose = json.dumps(attributes, ensure_ascii=False, default=str)
        text = json.dumps(json.loads(loose, parse_constant=lambda _: None), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()
