"""Find the licence of each row of the catalog, from what its source and its file say."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.licenses import first_license_id
from imgdl_pipeline.core.model.schemas import take_column


def license_ids(attributes: pa.ChunkedArray, embedded: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.Array:
    """Return each row's licence: as the source names it, or else as the file does; null where neither does.

    Args:
        attributes: JSON objects of what the source says.
        embedded: JSON objects of what the file says, or null.
        known: The identifiers that need not be made again, or null.
    """
    mentions = pc.or_(*(_mentions_license(column) for column in (attributes, embedded)))
    has_license = pc.and_(mentions, pc.is_null(known))
    places = np.flatnonzero(has_license.to_numpy(zero_copy_only=False))
    said, own = (take_column(column, pa.array(places)).to_pylist() for column in (attributes, embedded))
    found = np.full(len(attributes), None, dtype=object)
    for place, *texts in zip(places, said, own, strict=True):
        found[place] = first_license_id(*map(_license_of, texts))
    return pc.coalesce(known, pa.array(found, pa.string()))


def _mentions_license(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring(column, '"license'), fill_value=False)


def _license_of(text: str | None) -> tuple[str | None, str | None]:
    """Return the name and the URL of the licence in a JSON object."""
    values = json.loads(text or "{}")
    name, url = values.get("license"), values.get("license_url")
    return name if isinstance(name, str) else None, url if isinstance(url, str) else None
