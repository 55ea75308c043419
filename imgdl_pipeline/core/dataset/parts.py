"""Write the parts of a dataset that hold images, and take over those whose images did not change."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgdl_pipeline.core.dataset.draft import Draft, Written
from imgdl_pipeline.core.dataset.formats import Writer, json_line, write_parquet, write_tar
from imgdl_pipeline.core.dataset.manifest import INDEX, METADATA, Manifest
from imgdl_pipeline.core.dataset.rows import CatalogRows, caption_of, key_of
from imgdl_pipeline.core.dataset.samples import Sample, Samples, rows_of
from imgdl_pipeline.core.dataset.shards import assigned
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.digest import TableDigest
from imgdl_pipeline.core.model.memory import release_memory
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.storage.table_file import BUFFER_BYTES

FORM = "1"
"""The version of how samples are written: with another one, all parts are written anew."""

SHARDS: dict[str, tuple[str, Writer]] = {
    "webdataset": ("{:05}.tar", write_tar),
    "parquet": ("data/train-{:05}.parquet", write_parquet),
}
"""The names of the shards and what writes them, by format."""

INDEXED = pa.schema(
    [
        *((name, pa.string()) for name in ("url", "sha256", "phash")),
        ("shard", pa.int32()),
        ("is_there", pa.bool_()),
    ]
)
"""The columns of the index: in which shard an image is, and whether it is; a missing one keeps its place."""


def read_index(
    store: Store, folder: str, manifest: Manifest, names: Sequence[str] = INDEXED.names
) -> pa.Table | None:
    """Return some or all columns of a dataset's index, as INDEXED; None if it is gone.

    Raises:
        StoreError: The store failed.
    """
    file = manifest.files.get(INDEX)
    data = store.snapshot(f"{folder}/{file.name}") if file else None
    if data is None:
        return None
    with data, pq.ParquetFile(data, buffer_size=BUFFER_BYTES, pre_buffer=False) as table:
        return table.read(list(names), use_threads=False)


def there_of(index: pa.Table) -> pa.Table:
    """Return the rows of an index whose images are in the dataset."""
    return index.filter(index["is_there"])


class Parts(ABC):
    """The parts of a draft that hold images.

    Args:
        draft: The next version of the dataset.
        settings: The dataset's settings.
        samples: Reads the images.
        earlier: `url` and `shard` of the current version's index, if its parts may be taken over.
        on_kept: Called with the number of images in a part that was taken over.
    """

    def __init__(
        self,
        draft: Draft,
        settings: DatasetSettings,
        samples: Samples,
        earlier: pa.Table | None,
        on_kept: Callable[[int], None],
    ) -> None:
        self._draft, self._settings, self._samples = draft, settings, samples
        self._earlier = INDEXED.empty_table() if earlier is None else earlier
        self._before = draft.current.files if draft.current and earlier is not None else {}
        self._on_kept = on_kept
        self.written = 0

    @staticmethod
    def of(format_: str) -> "type[Parts]":
        """Return the class for a format."""
        return _Images if format_ == "imagefolder" else _Shards

    @abstractmethod
    def write(self, rows: CatalogRows) -> pa.Table:
        """Write or take over the parts of rows, and return the index of all that are in them, as INDEXED."""

    def _keep(self, part: str, digest: str, images: int) -> bool:
        """Take a part over if it was made of the same, and return whether it was."""
        before = self._before.get(part)
        if before is None or before.rows != digest or not self._draft.keep(before):
            return False
        self._on_kept(images)
        return True

    def _indexed(self, rows: CatalogRows, shards: npt.NDArray[np.int32]) -> pa.Table:
        missing = pa.array(self._samples.missing, pa.string())
        columns = [rows.column(name) for name in INDEXED.names[:3]]
        is_there = pc.invert(pc.is_in(columns[0], value_set=missing))
        return pa.table([*columns, pa.array(shards), is_there], schema=INDEXED)


class _Shards(Parts):
    """Files that hold many images each."""

    def write(self, rows: CatalogRows) -> pa.Table:
        """Take the shards over whose digests are the same, and write the others.

        The rows are read twice: a few columns for the digests, then all columns of the shards to write.
        """
        name, write = SHARDS[self._settings.format]
        shards = assigned(rows.column("url"), self._earlier, self._settings.shard_images)
        self._earlier = INDEXED.empty_table()
        release_memory()  # of all links
        digests: dict[int, str] = {}
        images = dict(zip(*(each.tolist() for each in np.unique(shards, return_counts=True)), strict=True))
        for number, tables in _by_shard(rows, shards, [*DIGESTED, *_captioned(self._settings)]):
            digest = _digest(tables, self._settings)
            if not self._keep(name.format(number), digest, images[number]):
                digests[number] = digest
        is_new = np.isin(shards, list(digests))
        for number, tables in _by_shard(rows.filter(is_new), shards[is_new], CATALOG.names):
            self._write_shard(name.format(number), tables, images[number], digests[number], write)
        return self._indexed(rows, shards)

    def _write_shard(
        self, part: str, tables: Iterable[pa.Table], rows: int, digest: str, write: Writer
    ) -> None:
        def write_all(file: IO[bytes]) -> Written:
            images = write(file, self._samples.of(tables))
            return Written(images, digest if images == rows else "")

        self.written += 1
        if not self._draft.write(part, write_all).images:  # all of its files are missing
            self._draft.drop(part)


class _Images(Parts):
    """A file for each image, and one with the rows of all."""

    def write(self, rows: CatalogRows) -> pa.Table:
        """Take the images over that are the same, and write the others and all rows."""
        is_new = np.fromiter(
            (
                not self._keep(_image_name(row["url"]), f"{FORM}-{row['sha256']}", 1)
                for row in rows_of(rows.batches(["url", "sha256"]))
            ),
            bool,
        )
        for sample in self._samples.of(rows.filter(is_new).batches()):
            self._write_image(sample)
        index = self._indexed(rows, np.zeros(rows.num_rows, np.int32))
        there = rows.filter(index["is_there"].to_numpy())
        self._draft.write(METADATA, lambda file: self._write_rows(file, there))
        return index

    def _write_image(self, sample: Sample) -> None:
        def write(file: IO[bytes]) -> Written:
            file.write(sample.jpeg)
            return Written(1, f"{FORM}-{sample.row['sha256']}")

        self._draft.write(_image_name(sample.row["url"]), write)
        self.written += 1

    def _write_rows(self, file: IO[bytes], rows: CatalogRows) -> None:
        for row in rows_of(rows.batches()):
            name = self._draft.files[_image_name(row["url"])].name
            caption = caption_of(row, self._settings.caption)
            fields = {"file_name": name.rpartition("/")[2], "caption": caption, **row}
            file.write(json_line(fields).encode() + b"\n")


def _image_name(url: str) -> str:
    return f"train/{key_of(url)}.jpg"


Shard = tuple[int, Iterable[pa.Table]]


def _by_shard(rows: CatalogRows, shards: npt.NDArray[np.int32], names: Sequence[str]) -> Iterator[Shard]:
    """Yield the number and the rows of each shard in turn; read the rows before the next shard.

    Args:
        rows: The rows.
        shards: The number of each row's shard.
        names: The columns.
    """
    in_order = np.argsort(shards, kind="stable")
    places = np.empty(len(shards), np.int64)
    places[in_order] = np.arange(len(shards))
    numbers = shards[in_order]

    def pieces() -> Iterator[tuple[int, pa.Table]]:
        start = 0
        for table in rows.arranged(places, list(dict.fromkeys(names))):
            here = numbers[start : start + table.num_rows]
            start += table.num_rows
            cuts = [0, *(np.flatnonzero(np.diff(here)) + 1).tolist(), table.num_rows]
            for first, end in pairwise(cuts):
                yield int(here[first]), table.slice(first, end - first)

    for number, group in groupby(pieces(), itemgetter(0)):
        yield number, (table for _, table in group)


DIGESTED = ("url", "sha256", "duplicate_of", "license_id", "opt_outs")
"""The columns that make it necessary to write a shard anew, besides the captions."""


def _digest(tables: Iterable[pa.Table], settings: DatasetSettings) -> str:
    """Return a digest of what makes it necessary to write a shard anew.

    What a run notes of each request, and what a source says besides the caption, is as it was when the shard
    was written: it would change all shards every day.
    """
    digest = TableDigest(*DIGESTED, "caption")
    for table in tables:
        captioned = table.select(_captioned(settings))
        captions = [caption_of(row, settings.caption) for row in rows_of([captioned])]
        digest.update(table.append_column("caption", pa.array(captions, pa.string())))
    return f"{FORM}-{digest.hex()}"


def _captioned(settings: DatasetSettings) -> list[str]:
    """Return the columns that captions are made of."""
    return [settings.caption.partition(".")[0] if settings.caption else "url"]
