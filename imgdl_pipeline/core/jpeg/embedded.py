"""Reads the metadata in a file, EXIF, XMP, IPTC and the ICC profile, into the catalog's columns."""

import itertools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from imgdl_pipeline.core.jpeg.exif import Exif, joined, read_exif
from imgdl_pipeline.core.jpeg.facts import Embedded
from imgdl_pipeline.core.jpeg.header import JpegHeader
from imgdl_pipeline.core.jpeg.icc import IccError, description, profile_of
from imgdl_pipeline.core.jpeg.iptc import read_iptc
from imgdl_pipeline.core.jpeg.tiff import ExifError
from imgdl_pipeline.core.jpeg.xmp import Xmp, read_xmp

NAMES = (
    *("title", "caption", "author", "credit", "copyright", "license", "license_url", "tags", "date"),
    *("data_mining", "digital_source_type"),
)
"""Keys of the catalog's `embedded`; the first ones are also names of a source's attributes."""

MAX_LIST_CHARS = 20_000
"""Of all keywords of a file; thousands of them are a payload."""

EXIF_NAMES = {
    "title": ("XPTitle",),
    "caption": ("ImageDescription", "UserComment", "XPComment"),
    "author": ("Artist", "XPAuthor"),
    "copyright": ("Copyright",),
    "date": ("DateTimeOriginal", "DateTimeDigitized"),
}


def read_embedded(header: JpegHeader) -> tuple[Embedded, str | None]:
    """Read what a header's metadata segments hold; nothing in them makes an image invalid.

    Returns:
        The facts, and a warning where there is an ICC profile that cannot be read.
    """
    exif, exif_tags = _exif(header)
    xmp = read_xmp(header.metadata.get("xmp", ()), header.metadata.get("extended_xmp", ()))
    iptc = read_iptc(header.metadata.get("photoshop", ()))
    profile, warning = _profile(header)
    latitude, longitude = exif.place or xmp.place or (None, None)
    facts = Embedded(
        orientation=exif.orientation,
        taken_at=exif.taken_at or xmp.taken_at or _iptc_taken_at(iptc),
        latitude=latitude,
        longitude=longitude,
        color_profile=profile,
        embedded=_json(_merged(xmp, iptc, exif)),
        exif=_json(exif_tags),
    )
    return facts, warning


def orientation_of(header: JpegHeader) -> int:
    """Return how the picture is to be turned for display, 1 to 8."""
    exif, _ = _exif(header)
    return exif.orientation


def _exif(header: JpegHeader) -> tuple[Exif, Mapping[str, Any]]:
    segments = header.metadata.get("exif", ())
    if not segments:
        return Exif(), {}
    try:
        exif = read_exif(joined(segments))
    except ExifError as error:
        return Exif(), {"_error": str(error)}
    return exif, exif.tags


def _profile(header: JpegHeader) -> tuple[str | None, str | None]:
    """Return the ICC profile's description, and a warning."""
    try:
        profile = profile_of(header.metadata.get("icc", ()))
        return (None if profile is None else description(profile)), None
    except IccError as error:
        return None, str(error)


def _iptc_taken_at(iptc: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(iptc["date"])
    except (KeyError, ValueError):
        return None


def _merged(xmp: Xmp, iptc: Mapping[str, Any], exif: Exif) -> dict[str, Any]:
    own = {
        name: next((exif.tags[tag] for tag in tags if exif.tags.get(tag)), None)
        for name, tags in EXIF_NAMES.items()
    }
    keywords = exif.tags.get("XPKeywords")
    own["tags"] = [each.strip() for each in keywords.split(";")] if isinstance(keywords, str) else None
    own["date"] = exif.taken_at.isoformat() if exif.taken_at else None
    found = {**_texts(own), **iptc, **xmp.attributes}
    return {name: _bounded(found[name]) for name in NAMES if name in found}


def _bounded(value: Any) -> Any:
    """Return a text, or as many texts of a list as have `MAX_LIST_CHARS` together."""
    if not isinstance(value, list):
        return value
    lengths = itertools.accumulate(len(each) for each in value)
    return [each for each, length in zip(value, lengths, strict=True) if length <= MAX_LIST_CHARS]


def _texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is text or a list of texts: a stranger's tag may be of any type."""
    return {name: value for name, value in values.items() if value and isinstance(value, (str, list))}


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, sort_keys=True)
