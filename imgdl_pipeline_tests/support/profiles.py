"""ICC profiles put together by hand: of screens by their primaries, of gray, and of a simple press."""

import struct

ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
"""XYZ of red, green and blue, adapted to D50."""

D50 = (0.9642, 1.0, 0.8249)


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(each * 65536) for each in values))


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def _description(text: str) -> bytes:
    words = text.encode() + b"\0"
    return b"desc" + bytes(4) + struct.pack(">I", len(words)) + words + bytes(78)


def _profile(space: bytes, class_: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    place, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = place + len(body)
    header = struct.pack(">I4sI", size, b"test", 0x02400000) + class_ + space.ljust(4) + connection.ljust(4)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(each * 65536) for each in D50))
    return header.ljust(128, b"\0") + table + body


def screen(primaries: tuple[tuple[float, float, float], ...], gamma: float = 2.19921875) -> bytes:
    """A profile of RGB with some primaries."""
    tags = {b"desc": _description("a screen"), b"wtpt": _xyz(D50)}
    tags |= {name: _xyz(each) for name, each in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _gamma(gamma))
    return _profile(b"RGB", b"mntr", b"XYZ", tags)


def gray(gamma: float) -> bytes:
    """A profile of gray."""
    tags = {b"desc": _description("gray"), b"wtpt": _xyz(D50), b"kTRC": _gamma(gamma)}
    return _profile(b"GRAY", b"mntr", b"XYZ", tags)


def press() -> bytes:
    """A profile of CMYK whose cyan, magenta and yellow print alike: a neutral gray that each makes darker."""
    table = b"".join(
        bytes([0 if number & 1 else 255 - 60 * (number >> 1).bit_count(), 128, 128]) for number in range(16)
    )
    straight = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * each for each in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + straight * 4 + table + straight * 3
    tags = {b"desc": _description("a press"), b"wtpt": _xyz(D50), b"A2B0": lut}
    return _profile(b"CMYK", b"prtr", b"Lab", tags)


def converted(
    primaries: tuple[tuple[float, float, float], ...], gamma: float, pixel: tuple[int, ...]
) -> list[int]:
    """What a pixel of a screen's RGB is in sRGB, by the formulas."""
    import numpy as np

    linear = (np.array(pixel) / 255) ** gamma @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))
    linear = np.clip(linear, 0, 1)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [round(255 * each) for each in shown]
