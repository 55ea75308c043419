"""Describe a dataset's columns as Hugging Face's readers want them.

Without these descriptions they infer types from the first rows, and fail on a column whose first values are
null. They are documented at https://huggingface.co/docs/hub/datasets-cards; which reader heeds which key was
tried with `datasets` 3.6 to 5.2.
"""

import json
from typing import Any

import pyarrow as pa

from imgdl_pipeline.core.model.schemas import CATALOG

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The Arrow type of an image."""

COLUMNS = pa.schema(
    [("image", IMAGE), ("caption", pa.string()), *((each.name, each.type) for each in CATALOG)]
)
"""The columns of a Parquet dataset."""


def _dtype(field: pa.Field, *, times_as_text: bool = False) -> str:
    if field.type == IMAGE:
        return "image"
    if times_as_text and pa.types.is_timestamp(field.type):
        return "string"
    return "float64" if pa.types.is_float64(field.type) else str(field.type)


def _listed(columns: pa.Schema, *, times_as_text: bool = False) -> list[dict[str, Any]]:
    return [{"name": each.name, "dtype": _dtype(each, times_as_text=times_as_text)} for each in columns]


CARD_FEATURES: dict[str, list[dict[str, Any]]] = {
    "parquet": _listed(COLUMNS),
    "imagefolder": _listed(COLUMNS),
    "webdataset": [
        {"name": "jpg", "dtype": "image"},
        {"name": "json", "struct": _listed(CATALOG, times_as_text=True)},
        {"name": "txt", "dtype": "string"},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ],
}
"""The columns that a reader gives, by the dataset's format, as a card describes them."""


def parquet_metadata() -> dict[bytes, bytes]:
    """Return the metadata of a Parquet file by which a reader knows without a card what is an image."""
    features = {
        each.name: {"_type": "Image"} if each.type == IMAGE else {"dtype": _dtype(each), "_type": "Value"}
        for each in COLUMNS
    }
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
