"""Parts of JPEGs and of what they hold about themselves, put together by hand."""

import struct

from imgdl_pipeline_tests.support.pictures import jpeg


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def with_segments(*segments: bytes, picture: bytes | None = None) -> bytes:
    """A picture with more segments at its beginning."""
    data = jpeg(1, (96, 64)) if picture is None else picture
    return data[:2] + b"".join(segments) + data[2:]


def tiff(*directories: list[tuple[int, int, int, bytes]], order: str = "<") -> bytes:
    """A TIFF structure: IFD0, and directories that a pointer in it leads to.

    Args:
        directories: Each a list of tag, type, count and value bytes; a value of `None` is a pointer to the
            next directory that none has pointed to yet.
        order: `<` or `>`.
    """
    starts, place = [], 8
    for entries in directories:
        starts.append(place)
        place += 2 + 12 * len(entries) + 4
        place += sum(len(value) for *_, value in entries if value is not None and len(value) > 4)
    data = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    pointers = iter(starts[1:])
    for start, entries in zip(starts, directories, strict=True):
        values_at, head, values = start + 2 + 12 * len(entries) + 4, b"", b""
        for tag, type_, count, value in entries:
            head += struct.pack(f"{order}HHI", tag, type_, count)
            if value is None:
                head += struct.pack(f"{order}I", next(pointers))
            elif len(value) <= 4:
                head += value.ljust(4, b"\0")
            else:
                head += struct.pack(f"{order}I", values_at + len(values))
                values += value
        data += struct.pack(f"{order}H", len(entries)) + head + bytes(4) + values
    return data


def iptc(*datasets: tuple[int, int, bytes]) -> bytes:
    """A Photoshop segment's payload with IPTC datasets: record, number and value of each."""
    block = b"".join(struct.pack(">BBBH", 0x1C, *each[:2], len(each[2])) + each[2] for each in datasets)
    return b"Photoshop 3.0\0" + resource(0x03ED, bytes(16)) + resource(0x0404, block)


def resource(number: int, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)


def xmp(properties: str) -> bytes:
    """An XMP packet whose description has these properties, as XML elements."""
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:cc="http://creativecommons.org/ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/">
<rdf:Description rdf:about="">{properties}</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()
