"""Make galleries from the rows of a table or the members of a IIIF collection.

A local table is read whenever the galleries file is. What stands elsewhere is fetched by `imgdl refresh`, and
kept in a file beside the galleries file, so that loading definitions never waits for the network.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from imgdl_pipeline.core.model.settings import DownloadSettings, HttpUrl, Settings
from imgdl_pipeline.core.sources import SourceError
from imgdl_pipeline.core.sources.client import SourceClient
from imgdl_pipeline.core.sources.rows import collection_rows, table_rows

logger = logging.getLogger(__name__)

_OF_A_MEMBER = {"source": {"type": "iiif", "manifest": "{{ row.manifest }}"}}

MAX_GALLERIES = 10_000
"""The most galleries that one table or collection may make; Dagster's pages become slow with more."""

Row = dict[str, Any]


class GalleriesFrom(Settings):
    """A table or a collection, each of whose rows or members makes a gallery."""

    path: str | None = Field(
        None, min_length=1, description="a table with a row per gallery: any file that a url_list reads"
    )
    collection: HttpUrl | None = Field(None, description="a IIIF collection, each of whose members is one")
    name_column: str = Field(
        "name", min_length=1, description="the table's column with the gallery's name; as {{ row.name }}"
    )
    gallery: dict[str, Any] = Field(
        {},
        description="the keys of each gallery but its name; templates may use {{ row.COLUMN }}",
    )
    state: str | None = Field(
        None, min_length=1, description="where fetched rows are kept; null: beside the galleries file"
    )

    @model_validator(mode="after")
    def _is_from_one_place(self) -> "GalleriesFrom":
        if (self.path is None) == (self.collection is None):
            raise ValueError("give either path or collection")
        if self.path is not None and "source" not in self.gallery:
            raise ValueError("give gallery: with the source of each row's gallery")
        if "name" in self.gallery:
            raise ValueError("gallery: has no name; a table's is in name_column")
        return self

    @property
    def template(self) -> dict[str, Any]:
        """The keys of each gallery; a collection's are read as IIIF unless they say otherwise."""
        return {**_OF_A_MEMBER, **self.gallery} if self.collection is not None else self.gallery

    @property
    def is_remote(self) -> bool:
        """Whether the rows are fetched over a network."""
        return self.collection is not None or "://" in str(self.path)

    def fetch(self, settings: DownloadSettings) -> list[Row]:
        """Return the rows, as they are now.

        Raises:
            SourceError: They could not be fetched, or are too many.
        """
        try:
            with SourceClient(settings, os.environ) as client:
                rows = list(islice(self._rows(client), MAX_GALLERIES + 1))
        except SourceError as error:  # which a url_list's key has no part in
            raise SourceError(str(error).replace("source.url_column", "galleries_from.name_column")) from None
        if len(rows) > MAX_GALLERIES:
            raise SourceError(f"there are more than {MAX_GALLERIES} rows, the most that make galleries")
        return rows

    def _rows(self, client: SourceClient) -> Iterator[Row]:
        if self.collection is not None:
            return collection_rows(self.collection, client)
        return table_rows(str(self.path), self.name_column, client)

    def refresh(self, file: Path, settings: DownloadSettings) -> int:
        """Fetch the rows, keep them for the next loads, and return how many there are.

        Args:
            file: The galleries file.
            settings: The settings of the requests.

        Raises:
            SourceError: They could not be fetched, or there are none any more, which is usually a failure.
            OSError: They could not be kept.
        """
        rows, before = self.fetch(settings), self._kept(file)
        path = self._state_file(file)
        if before and not rows:
            raise SourceError(
                f"there are no rows, and there were {len(before)}, which stay; delete {path} first"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        text = json.dumps({"of": self._identity, "rows": rows}, ensure_ascii=False, indent=1)
        unfinished.touch(mode=0o600)  # only for its owner to read: a row may hold a key
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
        return len(rows)

    def rows(self, file: Path) -> list[Row]:
        """Return the rows of a local table, or those that were kept by the last `refresh`.

        Raises:
            SourceError: The table cannot be read.
        """
        if not self.is_remote:
            return self.fetch(DownloadSettings())
        rows = self._kept(file)
        if rows is None:
            logger.warning("%s: galleries_from has not been fetched yet; run imgdl refresh", file)
        return rows or []

    def is_known(self, file: Path) -> bool:
        """Return whether the galleries are known at all: not before the first `refresh`."""
        return not self.is_remote or self._kept(file) is not None

    def _kept(self, file: Path) -> list[Row] | None:
        """Return the rows of the last `refresh`, or None if there was none, or if they cannot be read."""
        try:
            kept = json.loads(self._state_file(file).read_text(encoding="utf-8"))
            rows: list[Row] = kept["rows"]
            return rows if kept["of"] == self._identity else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read: %s", self._state_file(file), error)
            return None

    def _state_file(self, file: Path) -> Path:
        return Path(self.state) if self.state else file.with_name(f"{file.stem}.state.json")

    @property
    def _identity(self) -> str:
        """A digest of where the rows come from: rows that were kept of another place are not used."""
        place = f"{self.path} {self.collection} {self.name_column}"
        return hashlib.sha256(place.encode()).hexdigest()
