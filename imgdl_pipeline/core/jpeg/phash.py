"""The perceptual hash of a picture, as the picture is displayed."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Gray = npt.NDArray[np.uint8]
Frequencies = npt.NDArray[np.float32]

PHASH_SIDE = 8
PHASH_SAMPLES = 32
LONGEST_HASHED = 512
"""Pixels of a side that the transform is made for; a strip of 65 500 × 64 would need a hundred MB else."""

LANCZOS_LOBES = 3


def phash(gray: Gray, extent: tuple[float, float] | None = None, orientation: int = 1) -> str:
    """Return the perceptual hash of a picture, as ImageHash's `phash` has it for the displayed picture.

    The lowest 8 × 8 frequencies of the picture at 32 × 32 samples, each compared with their median. ImageHash
    resizes, rounds to whole shades and transforms; here both are one multiplication by side, which takes an
    eighth of the time. That tips a bit or two now and then.

    Args:
        gray: Shades, by row and column, as the file has them.
        extent: Rows and columns that the picture really fills; None for all. A reduced picture ends within
            its last row and column, which an encoder has filled up.
        orientation: EXIF's, 1 to 8.

    Returns:
        64 bits as 16 hex digits.
    """
    rows, columns = extent or gray.shape
    if max(gray.shape) > LONGEST_HASHED:
        height, width = (min(each, LONGEST_HASHED) for each in gray.shape)
        rows, columns = rows * height / gray.shape[0], columns * width / gray.shape[1]
        gray = np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BOX))
    vertical, horizontal = _transform(gray.shape[0], rows), _transform(gray.shape[1], columns)
    low = np.rint(vertical @ gray.astype(np.float32) @ horizontal.T)  # noise becomes 0
    low = _UPRIGHT[orientation](low)
    ordered = np.sort(low, axis=None)
    middle = len(ordered) // 2
    return np.packbits(low > (ordered[middle - 1] + ordered[middle]) / 2).tobytes().hex()


@functools.lru_cache(maxsize=256)
def _transform(side: int, extent: float) -> Frequencies:
    """Return what takes a side of so many pixels to its lowest frequencies, 8 × side.

    Pillow's Lanczos filter from the extent to 32 samples, then the discrete cosine transform, type II,
    without its constant factor.
    """
    scale = extent / PHASH_SAMPLES
    samples = np.arange(PHASH_SAMPLES) + 0.5
    distance = (np.arange(side) + 0.5 - samples[:, None] * scale) / max(scale, 1.0)
    is_near = np.abs(distance) < LANCZOS_LOBES
    weights = np.where(is_near, np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    cosines = np.cos(np.pi / PHASH_SAMPLES * np.outer(np.arange(PHASH_SIDE), samples))
    transform: Frequencies = (cosines @ weights).astype(np.float32)
    return transform


_SIGNS = np.array([1, -1] * (PHASH_SIDE // 2), dtype=np.float32)
"""What mirroring does to frequencies: it turns the sign of each odd one."""


def _mirrored(low: Frequencies) -> Frequencies:
    return low * _SIGNS


def _flipped(low: Frequencies) -> Frequencies:
    return low * _SIGNS[:, None]


_UPRIGHT: dict[int, Callable[[Frequencies], Frequencies]] = {
    1: lambda low: low,
    2: _mirrored,
    3: lambda low: _mirrored(_flipped(low)),
    4: _flipped,
    5: lambda low: low.T,
    6: lambda low: _mirrored(low.T),
    7: lambda low: _mirrored(_flipped(low.T)),
    8: lambda low: _flipped(low.T),
}
"""The frequencies of a picture once it is turned as EXIF's orientation says (CIPA DC-008, 4.6.5.1)."""
