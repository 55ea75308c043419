"""Pictures that tests download: made anew each time, and always the same for the same seed."""

import io
import random
import zipfile
from pathlib import Path

from PIL import Image

FUZZED = Path(__file__).with_name("fuzzed.zip")
"""What the fuzzer starts from, and what it has kept."""


def samplings() -> dict[str, bytes]:
    """Pictures of sampling factors that TurboJPEG has no name for, as `cjpeg -sample 3x1` makes them."""
    with zipfile.ZipFile(Path(__file__).with_name("sampling.zip")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def photo(seed: int = 0, size: tuple[int, int] = (320, 240), mode: str = "RGB") -> Image.Image:
    """A picture with the smooth shades and edges of a photograph."""
    draw_from = random.Random(seed)
    bands = []
    for _ in Image.new(mode, (1, 1)).getbands():
        band = Image.new("L", (9, 7))
        band.putdata([draw_from.randrange(256) for _ in range(63)])
        bands.append(band.resize(size, Image.Resampling.BICUBIC))
    return Image.merge(mode, bands) if len(bands) > 1 else bands[0]


def jpeg(seed: int = 0, size: tuple[int, int] = (320, 240), mode: str = "RGB", **options: object) -> bytes:
    """A JPEG of such a picture."""
    file = io.BytesIO()
    photo(seed, size, mode).save(file, "JPEG", **{"quality": 85, **options})
    return file.getvalue()


PICTURE = jpeg()
