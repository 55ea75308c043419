"""Converts pixels to sRGB as their ICC profile says: relative colorimetric, with black point compensation.

That is the intent that browsers and Photoshop take. Gray pixels stay gray. A profile that is broken, or that
describes pixels of another mode, is as good as none.
"""

import functools

from PIL import Image, ImageCms

from imgdl_pipeline.core.jpeg.icc import usable

CACHED = 4
"""Conversions that a worker keeps: the files of a gallery tend to have few profiles, and setting a conversion
up takes longer than converting a small picture."""


def is_usable(profile: bytes | None, mode: str) -> bool:
    """Return whether a profile describes pixels of a mode."""
    return profile is not None and usable(profile, mode) is not None


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return a picture in sRGB, or in gray of the same tone curve; CMYK always becomes RGB.

    Without a usable profile, gray and RGB stay as they are, and CMYK is inverted and multiplied.
    """
    conversion = None if profile is None else _conversion(profile, image.mode)
    if conversion is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    converted = conversion.apply(image)
    return converted.getchannel("G") if image.mode == "L" else converted


@functools.lru_cache(maxsize=CACHED)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion from a profile; None where it is of no use."""
    opened = usable(profile, mode)
    if opened is None:
        return None
    try:
        return ImageCms.ImageCmsTransform(
            opened,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ValueError):
        return None
