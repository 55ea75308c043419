"""Read the catalog that is stored: some of its columns, whole or a few thousand rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.memory import release_memory
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG, columns
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.storage.table_file import TableFile


@dataclass(frozen=True, slots=True)
class StoredCatalog:
    """A gallery's catalog, of which nothing is in memory. One that does not exist yet has no rows.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name.
    """

    store: Store
    gallery: str

    def batches(self, *names: str) -> Iterator[pa.Table]:
        """Yield some columns, a few thousand rows at a time.

        Raises:
            StoreError: The catalog could not be read.
        """
        return self._batches(columns(CATALOG, *names))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.Table]:
        return self.store.batches(catalog_path(self.gallery), schema)

    def rows(self, *names: str) -> pa.Table:
        """Return some columns, whole; raises like `batches`."""
        release_memory()
        return self._read(columns(CATALOG, *names))

    def _read(self, schema: pa.Schema) -> pa.Table:
        table = self.store.read_table(catalog_path(self.gallery), schema)
        return schema.empty_table() if table is None else table

    def with_status(self, status: Status, *names: str) -> Iterator[pa.Table]:
        """Yield some columns of the rows that have a status; raises like `batches`."""
        for batch in self.batches(*dict.fromkeys(["status", *names])):
            yield batch.filter(pc.equal(batch["status"], status.value)).select(list(names))

    def without_image(self) -> pa.Table:
        """Return why links have no image: `url`, `status`, `reason` and `detail`; raises like `batches`."""
        names = ("url", "status", "reason", "detail")
        rows = [
            batch.filter(pc.not_equal(batch["status"], Status.OK.value)) for batch in self.batches(*names)
        ]
        return pa.concat_tables([columns(CATALOG, *names).empty_table(), *rows])


@dataclass(frozen=True, slots=True)
class OpenCatalog(StoredCatalog):
    """A catalog that is opened once for many reads, each of which would else copy it off an object store.

    Use it in a `with` block. A catalog that is replaced meanwhile does not change it.

    Args:
        file: The open catalog.
    """

    file: TableFile

    def __enter__(self) -> "OpenCatalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _batches(self, schema: pa.Schema) -> Iterator[pa.Table]:
        with self.store.reading(catalog_path(self.gallery)):
            yield from self.file.batches(schema)

    def _read(self, schema: pa.Schema) -> pa.Table:
        with self.store.reading(catalog_path(self.gallery)):
            return self.file.read(schema)


def open_catalog(store: Store, gallery: str) -> OpenCatalog | None:
    """Open a gallery's catalog, or return None if there is none yet.

    Raises:
        StoreError: The catalog could not be read.
    """
    file = store.open_table(catalog_path(gallery))
    return None if file is None else OpenCatalog(store, gallery, file)
