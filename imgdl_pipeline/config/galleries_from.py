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
        {"source": {"type": "iiif", "manifest": "{{ row.manifest }}"}},
        description="the keys of each gallery but its name; templates may use {{ row.COLUMN }}",
    )
    state: str | None = Field(
        None, min_length=1, description="where fetched rows are kept; null: beside the galleries file"
    )

    @model_validator(mode="after")
    def _is_from_one_place(self) -> "GalleriesFrom":
        if (self.path is None) == (self.collection is None):
            raise ValueError("give either path or collection")
        if self.path is not None and "gallery" not in self.model_fields_set:
            raise ValueError("give gallery: with the source of each row's gallery")
        return self

    @property
    def is_remote(self) -> bool:
        """Whether the rows are fetched over a network."""
        return self.collection is not None or "://" in str(self.path)

    def fetch(self, settings: DownloadSettings) -> list[Row]:
        """Return the rows, as they are now.

        Raises:
            SourceError: They could not be fetched, or are too many.
        """
        with SourceClient(settings, os.environ) as client:
            rows = list(islice(self._rows(client), MAX_GALLERIES + 1))
        if len(rows) > MAX_GALLERIES:
            raise SourceError(f"there are more than {MAX_GALLERIES} galleries (MAX_GALLERIES)")
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
            SourceError: They could not be fetched.
            OSError: They could not be kept.
        """
        rows = self.fetch(settings)
        path = self._state_file(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps({"of": self._identity, "rows": rows}, ensure_ascii=False, indent=1))
        unfinished.replace(path)
        return len(rows)

    def rows(self, file: Path) -> list[Row]:
        """Return the rows of a local table, or those that were kept by the last `refresh`.

        Raises:
            SourceError: The table cannot be read.
        """
        if not self.is_remote:
            return self.fetch(DownloadSettings())
        try:
            kept = json.loads(self._state_file(file).read_text())
            if kept["of"] == self._identity:
                rows: list[Row] = kept["rows"]
                return rows
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read: %s", self._state_file(file), error)
        logger.warning("%s: galleries_from has not been fetched yet; run imgdl refresh", file)
        return []

    def _state_file(self, file: Path) -> Path:
        return Path(self.state) if self.state else file.with_name(f"{file.stem}.state.json")

    @property
    def _identity(self) -> str:
        """A digest of where the rows come from: rows that were kept of another place are not used."""
        place = f"{self.path} {self.collection} {self.name_column}"
        return hashlib.sha256(place.encode()).hexdigest()
