"""Write the samples of a dataset in one of its formats.

- WebDataset: https://github.com/webdataset/webdataset#the-webdataset-format
- Hugging Face's Image feature in Parquet: https://huggingface.co/docs/hub/datasets-image#parquet-format
- Hugging Face's ImageFolder: https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.dataset.features import COLUMNS, parquet_metadata
from imgdl_pipeline.core.dataset.samples import Sample
from imgdl_pipeline.core.model.schemas import CATALOG

Writer = Callable[[IO[bytes], Iterable[Sample]], int]
"""A function that writes samples to a file, and returns how many there were."""

ROW_GROUP_IMAGES = 100
ROW_GROUP_BYTES = 64_000_000
"""Images in a row group of Parquet, and their bytes, at most: it is what a reader loads at a time."""

MODE = 0o644


def write_tar(file: IO[bytes], samples: Iterable[Sample]) -> int:
    """Write samples as a tar file for WebDataset: `<key>.jpg`, `<key>.json` and, with a caption, `<key>.txt`.

    The same samples give the same bytes: the members have no times, owners or numbers of their own.
    """
    images = 0
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            _add(tar, f"{sample.key}.jpg", sample.jpeg)
            _add(tar, f"{sample.key}.json", json_line(sample.row).encode())
            if sample.caption is not None:
                _add(tar, f"{sample.key}.txt", sample.caption.encode())
            images += 1
    return images


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), MODE
    tar.addfile(member, io.BytesIO(data))


def json_line(row: dict[str, Any]) -> str:
    """Return a row of the catalog as JSON on one line; times are in ISO 8601."""
    return json.dumps(row, ensure_ascii=False, default=datetime.isoformat)


_COMPRESSION = dict.fromkeys(("image.path", "caption", *CATALOG.names), "zstd")
"""How columns are compressed: all but the images, which are compressed already."""


def write_parquet(file: IO[bytes], samples: Iterable[Sample]) -> int:
    """Write samples as a Parquet file with Hugging Face's Image feature."""
    images = 0
    schema = COLUMNS.with_metadata(parquet_metadata())
    with pq.ParquetWriter(
        file, schema, compression=_COMPRESSION, use_dictionary=False, write_page_index=True
    ) as writer:
        for group in _grouped(samples):
            rows = [_parquet_row(each) for each in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=len(rows))
            images += len(group)
    return images


def _grouped(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    for sample in samples:
        group.append(sample)
        if len(group) == ROW_GROUP_IMAGES or sum(len(each.jpeg) for each in group) >= ROW_GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _parquet_row(sample: Sample) -> dict[str, Any]:
    image = {"bytes": sample.jpeg, "path": f"{sample.key}.jpg"}
    return {"image": image, "caption": sample.caption, **sample.row}
