"""Write who made the images of a dataset, and under which licences: `CREDITS.csv` and `ATTRIBUTION.md`."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.dataset.rows import CatalogRows, key_of
from imgdl_pipeline.core.dataset.samples import rows_of
from imgdl_pipeline.core.model.schemas import BATCH_ROWS
from imgdl_pipeline.core.model.shown import one_line
from imgdl_pipeline.core.storage.arrange import arranged

NAMES = ("title", "author", "author_url", "credit", "license", "license_url", "page")
"""What is said of an image, in its attributes first, then in its file."""

COLUMNS = ("key", *NAMES[:4], "license", "license_id", "license_url", "page", "url")
"""The columns of `CREDITS.csv`."""

UNKNOWN = "no known licence"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula."""


def credits_of(rows: CatalogRows) -> Iterator[dict[str, str]]:
    """Yield the credit of each row, by the columns of `CREDITS.csv`; what is not known is empty.

    Args:
        rows: The rows of the dataset's images.

    Raises:
        StoreError: The catalog could not be read.
    """
    for row in rows_of(rows.batches(["url", "attributes", "embedded", "license_id"])):
        said = [json.loads(row[name] or "{}") for name in ("attributes", "embedded")]
        known = {name: next(filter(None, (_text(each.get(name)) for each in said)), "") for name in NAMES}
        yield {**known, "key": key_of(row["url"]), "license_id": row["license_id"] or "", "url": row["url"]}


def _text(value: Any) -> str:
    joined = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return one_line(joined).strip()


def write_credits(file: IO[bytes], rows: CatalogRows) -> None:
    """Write `CREDITS.csv`: a line for each image, with who made it and its licence.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for credit in credits_of(rows):
        writer.writerow({name: _harmless(value) for name, value in credit.items()})
    text.detach()


def _harmless(value: str) -> str:
    return f"'{value}" if value.startswith(_FORMULA) else value


def write_attribution(file: IO[bytes], rows: CatalogRows, gallery: str) -> None:
    """Write `ATTRIBUTION.md`: the credits for a person to read, by licence.

    Args:
        file: Where to write.
        rows: The rows, as for `credits_of`.
        gallery: The gallery's name.
    """
    licenses = rows.column("license_id")
    places = np.empty(len(licenses), np.int64)
    places[pc.sort_indices(licenses).to_numpy()] = np.arange(len(licenses))  # stable, and unknown ones last
    counted = Counter(each or UNKNOWN for each in licenses.to_pylist())
    by_license = arranged(_lines(rows), places, len(licenses), _LINES)
    file.write(f"# Who made the images of {gallery}\n".encode())
    for license_id, group in groupby(rows_of(by_license), itemgetter("license_id")):
        file.write(f"\n## {license_id}: {counted[license_id]}\n\n".encode())
        file.writelines(each["line"] for each in group)


_LINES = pa.schema([("license_id", pa.string()), ("line", pa.binary())])


def _lines(rows: CatalogRows) -> Iterator[pa.Table]:
    """Yield the lines of credits, in UTF-8, with their licences."""
    credits_ = credits_of(rows)
    while some := list(islice(credits_, BATCH_ROWS)):
        lines = [f"- {_line(each)}\n".encode("utf-8", "replace") for each in some]
        yield pa.table([[each["license_id"] or UNKNOWN for each in some], lines], schema=_LINES)


def _line(credit: dict[str, str]) -> str:
    """Return a credit as Markdown: title, author, credit line, licence and page, as far as they are known."""
    author = _linked(credit["author"], credit["author_url"])
    parts = [
        escaped(credit["title"]) or f"`{credit['key']}`",
        f"by {author}" if author else "",
        escaped(credit["credit"]),
        _linked(credit["license"] or credit["license_id"], credit["license_url"]),
        _linked("source", credit["page"] or credit["url"]),
    ]
    return ", ".join(filter(None, parts))


def _linked(text: str, url: str) -> str:
    """Return a text with a link, if the link is one that a browser may open."""
    try:
        is_web = urlsplit(url).scheme in ("http", "https")
    except ValueError:
        is_web = False
    if not (text and is_web) or any(each in url for each in ' <>"\\'):
        return escaped(text)
    return f"[{escaped(text)}](<{url}>)"


_MARKUP = str.maketrans({each: f"\\{each}" for each in "\\`*_[]<>#!|~&"})

_LIST_MARKER = re.compile(r"^(\s*\d*)([-+.)])")
"""What makes a list of the text behind it."""


def escaped(text: str) -> str:
    """Return a stranger's text so that Markdown shows it as it is."""
    return _LIST_MARKER.sub(r"\1\\\2", one_line(text).translate(_MARKUP))
