"""Reads XMP, metadata in RDF (ISO 16684-1), as far as the catalog has a name for it.

The XML is a stranger's: no entity is resolved, nothing is loaded, and its size is bounded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lxml import etree

from imgdl_pipeline.core.jpeg.text import clean
from imgdl_pipeline.core.model.opt_outs import PROHIBITED, data_mining_term

MAX_BYTES = 1_000_000
"""More XML than that is not read: extended XMP may hold whole depth maps."""

MAX_PACKETS = 4
"""Packets that are read of one file; there should be one."""

MAX_ITEMS = 200
"""Items that are read of one list."""

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"

NAMESPACES = {
    "cc": "http://creativecommons.org/ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "iptc_ext": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}

ATTRIBUTES = {
    "title": ("dc:title", "photoshop:Headline"),
    "caption": ("dc:description",),
    "author": ("dc:creator",),
    "credit": ("photoshop:Credit",),
    "copyright": ("dc:rights",),
    "license": ("xmpRights:UsageTerms",),
    "license_url": ("cc:license", "xmpRights:WebStatement"),
    "tags": ("dc:subject",),
    "date": ("photoshop:DateCreated", "exif:DateTimeOriginal", "xmp:CreateDate"),
    "data_mining": ("plus:DataMining",),
    "digital_source_type": ("iptc_ext:DigitalSourceType",),
}
"""The catalog's names, and the XMP properties that give them, the first one that is there."""

DATES = ("exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate")


@dataclass(frozen=True, slots=True)
class Xmp:
    """The properties of a file's XMP: the values of each, by its name with the prefix of `NAMESPACES`."""

    properties: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def first(self, *names: str) -> list[str]:
        """Return the values of the first property that is there."""
        return next((list(self.properties[name]) for name in names if self.properties.get(name)), [])

    @property
    def attributes(self) -> dict[str, str | list[str]]:
        """The metadata under the catalog's names."""
        found = {name: self.first(*properties) for name, properties in ATTRIBUTES.items()}
        texts: dict[str, str | list[str]] = {
            name: values if name == "tags" else ", ".join(values) if name == "author" else values[0]
            for name, values in found.items()
            if values
        }
        if "digital_source_type" in texts:  # a URL that ends in the term
            texts["digital_source_type"] = re.split(r"[/:#]", str(texts["digital_source_type"]).rstrip("/"))[
                -1
            ]
        if "data_mining" in texts:  # of several values, a prohibition counts
            terms = [data_mining_term(value) for value in found["data_mining"]]
            texts["data_mining"] = next((each for each in terms if each.startswith(PROHIBITED)), terms[0])
        return texts

    @property
    def taken_at(self) -> datetime | None:
        """When the picture was taken, by the camera's clock; a time zone is left out."""
        for value in (value for name in DATES for value in self.first(name)):
            match = _DATE.fullmatch(value)
            if match:
                try:
                    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
                    fraction = int((match[7] or "0").ljust(6, "0")[:6])
                    return datetime(year, month, day, hour, minute, second, fraction)  # noqa: DTZ001 -- no zone
                except ValueError:
                    continue
        return None

    @property
    def place(self) -> tuple[float, float] | None:
        """Latitude and longitude in degrees, south and west negative; None where they are not stated."""
        latitude, longitude = (_degrees(self.first(f"exif:GPS{name}")) for name in ("Latitude", "Longitude"))
        if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
            return None
        return latitude, longitude


_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(?:Z|[+-]\d\d:?\d\d)?\s*"
)
_PLACE = re.compile(r"(\d{1,3})(?:,(\d{1,2}(?:\.\d+)?)(?:,(\d{1,2}(?:\.\d+)?))?)?\s*([NSEW])")


def _degrees(values: Sequence[str]) -> float | None:
    """Return an XMP coordinate, `DDD,MM,SSk` or `DDD,MM.mmk`, in degrees."""
    match = _PLACE.fullmatch(values[0].strip()) if values else None
    if match is None or float(match[2] or 0) >= 60 or float(match[3] or 0) >= 60:
        return None
    degrees = int(match[1]) + float(match[2] or 0) / 60 + float(match[3] or 0) / 3600
    return -degrees if match[4] in "SW" else degrees


def read_xmp(packets: Sequence[bytes], extensions: Sequence[bytes]) -> Xmp:
    """Read a file's XMP: its packets, of which the first one that has a property counts, and their extension.

    Args:
        packets: Payloads of XMP segments, without their prefix.
        extensions: The same of extended XMP: 32 digits, full length, offset, data.

    Returns:
        The properties; none where the XML is broken.
    """
    properties: dict[str, list[str]] = {}
    for packet in packets[:MAX_PACKETS]:
        _collect(packet, properties)
    if properties:
        guid = properties.get("xmpNote:HasExtendedXMP", [""])[0].encode("ascii", "replace")
        if guid:
            _collect(_extended(guid, extensions), properties)
    return Xmp(properties)


def _extended(guid: bytes, extensions: Sequence[bytes]) -> bytes:
    """Join the parts of an extended packet; nothing where one is missing or it is too long."""
    parts = {int.from_bytes(each[36:40], "big"): each[40:] for each in extensions if each[:32] == guid[:32]}
    joined = b"".join(parts[offset] for offset in sorted(parts))
    lengths = {int.from_bytes(each[32:36], "big") for each in extensions if each[:32] == guid[:32]}
    return joined if lengths == {len(joined)} else b""


def _collect(packet: bytes, properties: dict[str, list[str]]) -> None:
    """Add a packet's properties; the first value of a name counts, but every one of `plus:DataMining`."""
    root = parsed(packet) if len(packet) <= MAX_BYTES else None
    if root is None and len(packet) <= MAX_BYTES:
        root = parsed(packet.rstrip(b"\0 \r\n\t"))  # some programs pad with NULs
    for description in () if root is None else root.iter(f"{RDF}Description"):
        for name, values in _properties(description):
            known = properties.setdefault(name, values)
            if name == "plus:DataMining" and known is not values:
                known += values[: MAX_ITEMS - len(known)]


def parsed(packet: bytes) -> "etree._Element | None":
    """Return the root of some XML; None where it is broken or has a document type, which no XMP needs."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        root = etree.fromstring(packet, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    return None if root.getroottree().docinfo.doctype else root


def _properties(description: "etree._Element") -> Iterator[tuple[str, list[str]]]:
    """Yield the properties that are known here, written as attributes or as elements."""
    for name, value in description.attrib.items():
        if str(name) in _KNOWN:
            yield _KNOWN[str(name)], [clean(str(value))]
    for element in description:
        if element.tag in _KNOWN:
            values = [each for each in map(clean, _values(element)) if each]
            if values:
                yield _KNOWN[str(element.tag)], values


_KNOWN = {
    f"{{{NAMESPACES[name.partition(':')[0]]}}}{name.partition(':')[2]}": name
    for name in (
        *(each for names in ATTRIBUTES.values() for each in names),
        *DATES,
        *("exif:GPSLatitude", "exif:GPSLongitude", "xmpNote:HasExtendedXMP"),
    )
}


def _values(element: "etree._Element") -> list[str]:
    """Return an element's values: a resource, a list's items with the default language first, or its text."""
    resource = element.get(f"{RDF}resource")
    if resource is not None:
        return [str(resource)]
    items = [item for array in element for item in array if item.tag == f"{RDF}li"][:MAX_ITEMS]
    if items:
        items.sort(key=lambda item: item.get(LANGUAGE, "x-default") != "x-default")
        return [str(item.get(f"{RDF}resource") or "".join(item.itertext()).strip()) for item in items]
    return ["".join(element.itertext()).strip()]
