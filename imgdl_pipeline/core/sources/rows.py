"""Read the rows of a table, or the members of a IIIF collection, from which galleries are made."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from imgdl_pipeline.core.sources.client import SourceClient
from imgdl_pipeline.core.sources.iiif import IiifSource, members_of
from imgdl_pipeline.core.sources.url_list import UrlListSource, list_rows

NAME_CHARS = 100
DIGEST_DIGITS = 8


def table_rows(path: str, name_column: str, client: SourceClient) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table that have a name, with the name, fit for a gallery, as `name`.

    Args:
        path: A path, a folder, a glob, or a URL, as a `url_list` takes it.
        name_column: The column that holds the name.
        client: The client for HTTP requests.

    Raises:
        SourceError: There is no such file, or it is broken.
    """
    source = UrlListSource(type="url_list", path=path, url_column=name_column)
    for name, others in list_rows(source, client):
        yield {**others, name_column: name, "name": slug(name)}


def collection_rows(url: str, client: SourceClient) -> Iterator[dict[str, Any]]:
    """Yield the members of a IIIF collection, with `name`, `label` and `manifest`.

    A name is made of the label, and of a digest of the URL, because labels need not differ.

    Raises:
        SourceError: The collection could not be fetched, or is none.
    """
    for manifest, label in members_of(IiifSource(type="iiif", manifest=url), client):
        digest = hashlib.sha256(manifest.encode()).hexdigest()[:DIGEST_DIGITS]
        start = slug(label)[: NAME_CHARS - DIGEST_DIGITS - 1].rstrip("-")
        yield {"name": f"{start}-{digest}", "label": label, "manifest": manifest}


def slug(text: str) -> str:
    """Return a text as a gallery's name: 1 to 100 of `A-Z a-z 0-9 _ . -`, starting with a letter or digit."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9_.]+", "-", plain))
    return words.lstrip("-_.")[:NAME_CHARS].rstrip("-.") or "gallery"
