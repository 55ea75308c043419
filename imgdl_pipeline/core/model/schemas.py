"""Declare every column of every Parquet file once, with its description.

The link list, the ledger and the catalog are selections of these columns, so a column has the same meaning
in every file. Dagster's column schema and the README's table are derived from them.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCHEMA_VERSION = 4
"""The version in every file's metadata, by which later versions recognise older files.

Version 2 added `request_headers` to the links and `failures` to the ledger; version 3 added the metadata
that an image file contains to the catalog; version 4 added `opt_outs`, `license_id` and `checked_at`. In
older files, the missing columns are read as nulls.
"""

SCHEMA_VERSION_KEY = b"imgdl_pipeline.schema_version"

_UTC = pa.timestamp("us", tz="UTC")


def _described(name: str, type_: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, type_, metadata={"description": description})


_COLUMNS = {
    field.name: field
    for field in (
        _described("url", pa.string(), "the link, as the source gave it"),
        _described("status", pa.string(), "ok, invalid, failed or refused"),
        _described("reason", pa.string(), "a short code for why there is no image; null when ok"),
        _described(
            "warning", pa.string(), "what is odd about the file outside its picture; null where nothing is"
        ),
        _described("detail", pa.string(), "the reason in words, for a person; null when ok"),
        _described("path", pa.string(), "the file, relative to the store's root; null unless ok"),
        _described("sha256", pa.string(), "SHA-256 of the stored file, 64 hex digits"),
        _described("bytes", pa.int64(), "size of the stored file"),
        _described("width", pa.int32(), "pixels across, as the file has them"),
        _described("height", pa.int32(), "pixels down, as the file has them"),
        _described("mode", pa.string(), "L, RGB or CMYK, as the file has it"),
        _described("progressive", pa.bool_(), "whether the JPEG is progressive"),
        _described("orientation", pa.int8(), "EXIF's, 1 to 8; 1 where none is stated; null unless ok"),
        _described("taken_at", pa.timestamp("us"), "when the picture was taken, by the camera's clock"),
        _described("latitude", pa.float64(), "WGS 84 degrees, south negative; null where not stated"),
        _described("longitude", pa.float64(), "WGS 84 degrees, west negative; null where not stated"),
        _described("color_profile", pa.string(), "the ICC profile's description, such as Display P3"),
        _described(
            "embedded",
            pa.string(),
            "JSON object of what XMP, IPTC and EXIF say, under the attributes' names",
        ),
        _described("phash", pa.string(), "64-bit perceptual hash of the displayed picture, 16 hex digits"),
        _described("duplicate_of", pa.string(), "url of this gallery's first link with the same bytes"),
        _described("exif", pa.string(), "JSON object of the EXIF tags, by name"),
        _described("http_status", pa.int32(), "status of the last answer"),
        _described("attempts", pa.int32(), "requests made for this link in the run that had it"),
        _described("elapsed_s", pa.float64(), "seconds from the first request to the last byte"),
        _described("etag", pa.string(), "ETag, as the server gave it"),
        _described("last_modified", pa.string(), "Last-Modified, as the server gave it"),
        _described("fetched_at", _UTC, "when these bytes came"),
        _described("first_seen", _UTC, "when the link was first listed"),
        _described("last_seen", _UTC, "when the link was last listed"),
        _described(
            "opt_outs", pa.string(), "JSON array of every opt-out that was heard for this link, heeded or not"
        ),
        _described(
            "license_id",
            pa.string(),
            "SPDX or RightsStatements identifier of the licence; null where it cannot be told",
        ),
        _described("attributes", pa.string(), "JSON object of what the source says about the link"),
        _described("listed_at", _UTC, "when the source was asked for this list"),
        _described("tried_at", _UTC, "when a download of this link was last tried"),
        _described("checked_at", _UTC, "when the stored bytes were last known to be current"),
        _described("failures", pa.int32(), "runs in a row that ended without an image, for a lasting reason"),
        _described(
            "request_headers",
            pa.string(),
            "JSON object of headers that the link's own host is sent; null for none",
        ),
    )
}


def _schema(*names: str) -> pa.Schema:
    return pa.schema(
        [_COLUMNS[name] for name in names],
        metadata={SCHEMA_VERSION_KEY: str(SCHEMA_VERSION).encode()},
    )


LINKS = _schema("url", "attributes", "listed_at", "request_headers")
"""`links.parquet`: one row per distinct link, in the source's order."""

DOWNLOADS = _schema(
    *("url", "status", "reason", "detail", "path", "sha256", "bytes", "http_status"),
    *("attempts", "elapsed_s", "etag", "last_modified", "fetched_at", "tried_at", "checked_at"),
    *("failures", "opt_outs"),
)
"""`downloads.parquet`, the ledger: the result of each link's download, one row per link."""

CATALOG = _schema(
    *("url", "status", "reason", "warning", "detail", "path", "sha256", "bytes"),
    *("width", "height", "mode", "progressive", "orientation", "taken_at", "latitude", "longitude"),
    *("color_profile", "embedded", "phash", "duplicate_of", "exif"),
    *("http_status", "attempts", "elapsed_s", "etag", "last_modified"),
    *("fetched_at", "first_seen", "last_seen", "opt_outs", "license_id", "attributes"),
)
"""`catalog.parquet`: one row per link that is or was listed."""


FACTS = _schema(
    *("url", "status", "reason", "warning", "detail", "sha256"),
    *("width", "height", "mode", "progressive", "orientation", "taken_at", "latitude", "longitude"),
    *("color_profile", "embedded", "phash", "exif"),
)
"""The result of validating a file: its facts, or a status other than ok with the reason."""


REMOVED = pa.schema(
    [
        _described("url", pa.string(), "the link that was removed; null where bytes or a picture were"),
        _described("sha256", pa.string(), "SHA-256 of the file that was removed, 64 hex digits"),
        _described("phash", pa.string(), "perceptual hash of the picture that was removed, 16 hex digits"),
        _described("distance", pa.int8(), "bits by which another picture's hash may differ from phash"),
        _described("reason", pa.string(), "why, in words"),
        _described("removed_at", _UTC, "when it was asked for"),
    ],
    metadata={SCHEMA_VERSION_KEY: str(SCHEMA_VERSION).encode()},
)
"""`removed.parquet`: what must not be kept, one row for each link, file or picture that was named."""


NEAR_DUPLICATES = pa.schema(
    [
        _described("gallery", pa.string(), "the gallery's name"),
        *(_COLUMNS[name] for name in ("url", "sha256", "phash")),
        _described("group", pa.int64(), "the group's number: the same for all images that look alike"),
        _described("distance", pa.int8(), "bits by which phash differs from the representative's"),
        _described(
            "representative", pa.bool_(), "whether this is the group's largest, then first seen image"
        ),
    ],
    metadata={SCHEMA_VERSION_KEY: str(SCHEMA_VERSION).encode()},
)
"""`near_duplicates.parquet`: one row for each image that has company, of all galleries."""


BATCH_ROWS = 10_000
"""Rows of a table that are held in full at a time; also the rows of a row group of the files."""


def columns(schema: pa.Schema, *names: str) -> pa.Schema:
    """Return the schema of some columns of one of the project's files."""
    return pa.schema([schema.field(name) for name in names], metadata=schema.metadata)


def descriptions(schema: pa.Schema) -> dict[str, str]:
    """Return the columns' descriptions by name, in the schema's order."""
    return {field.name: field.metadata[b"description"].decode() for field in schema}


LARGE_COLUMN_BYTES = 1 << 30
SLICE_ROWS = 100_000


def take_column(column: pa.ChunkedArray, places: pa.Array) -> pa.ChunkedArray:
    """Return the values at some places. Arrow's own `take` fails on strings of more than 2 GiB in total."""
    if column.nbytes < LARGE_COLUMN_BYTES or not pa.types.is_string(column.type):
        return column.take(places)
    large = column.cast(pa.large_string())
    slices = (places.slice(start, SLICE_ROWS) for start in range(0, len(places), SLICE_ROWS))
    return pa.chunked_array(
        [chunk.cast(pa.string()) for each in slices for chunk in large.take(each).chunks], pa.string()
    )


def is_first(values: pa.Array) -> pa.Array:
    """Return for each value whether it is its first occurrence."""
    return pc.equal(pc.index_in(values, value_set=values), pa.array(np.arange(len(values), dtype=np.int32)))


def filter_table(table: pa.Table, is_kept: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Return the rows of a table for which a mask is true, without a copy if those are all rows."""
    return table if pc.all(is_kept).as_py() else table.filter(is_kept)
