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
        return self.store.batches(catalog_path(self.gallery), columns(CATALOG, *names))

    def rows(self, *names: str) -> pa.Table:
        """Return some columns, whole; raises like `batches`."""
        release_memory()
        table = self.store.read_table(catalog_path(self.gallery), columns(CATALOG, *names))
        return columns(CATALOG, *names).empty_table() if table is None else table

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
