"""Copies XMP for a picture that was made from another one: upright, smaller, perhaps with other colours."""

from collections.abc import Mapping

from lxml import etree

from imgdl_pipeline.core.jpeg.xmp import MAX_BYTES as MAX_READ_BYTES
from imgdl_pipeline.core.jpeg.xmp import NAMESPACES, parsed

MAX_BYTES = 65_533 - len(b"http://ns.adobe.com/xap/1.0/\0")
"""What one segment holds."""

TIFF = "{http://ns.adobe.com/tiff/1.0/}"
EXIF = f"{{{NAMESPACES['exif']}}}"

LEFT_OUT = (f"{{{NAMESPACES['xmp']}}}Thumbnails", f"{{{NAMESPACES['xmpNote']}}}HasExtendedXMP")
"""Small pictures of the old one; and the number of a second packet, which is not copied."""

BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'.encode()
END = b'\n<?xpacket end="w"?>'


def upright_xmp(packet: bytes, size: tuple[int, int], *, is_srgb: bool) -> bytes | None:
    """Return an XMP packet for a new picture; None where the old one is broken or has a document type.

    Args:
        packet: The old one.
        size: Width and height of the new picture, which stand for the old ones where those are stated.
        is_srgb: Whether the new picture's colours were converted to sRGB.
    """
    packet = packet.rstrip(b"\0 \r\n\t")
    root = parsed(packet) if len(packet) <= MAX_READ_BYTES else None
    if root is None:
        return None
    width, height = map(str, size)
    new = {f"{TIFF}Orientation": "1", f"{TIFF}ImageWidth": width, f"{TIFF}ImageLength": height}
    new |= {f"{EXIF}PixelXDimension": width, f"{EXIF}PixelYDimension": height}
    new |= {f"{EXIF}ColorSpace": "1"} if is_srgb else {}
    _replace(root, new)
    written = BEGIN + etree.tostring(root, encoding="utf-8") + END
    return written if len(written) <= MAX_BYTES else None


def _replace(root: "etree._Element", new: Mapping[str, str]) -> None:
    """Give properties new values, written as attributes or as elements, and take out `LEFT_OUT`."""
    for element in list(root.iter(etree.Element)):
        for name in LEFT_OUT:
            element.attrib.pop(name, None)
        for name in new.keys() & element.attrib.keys():
            element.set(name, new[str(name)])
        if element.tag in LEFT_OUT and element.getparent() is not None:
            element.getparent().remove(element)
        elif element.tag in new:
            for child in list(element):
                element.remove(child)
            element.text = new[str(element.tag)]
