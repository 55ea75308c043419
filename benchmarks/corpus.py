"""The images that the benchmarks download: photographs to a JPEG codec, and the same every time.

A photograph's detail falls with its frequency, so each picture is a sum of noise at growing scales, with
little colour. 1000 large ones are of about 1 megapixel and 150 kB, 1000 small ones of about 15 kB.
"""

import io
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Corpus:
    """Args: its name, the pictures' size in pixels, how strong the finest detail is, and how many."""

    name: str
    width: int
    height: int
    detail: float
    count: int = 1000


LARGE = Corpus("large", 1152, 864, detail=2.2)
SMALL = Corpus("small", 320, 240, detail=3.2)
QUALITY = 85


def picture(corpus: Corpus, number: int) -> bytes:
    random = np.random.default_rng([corpus.width, number])
    size = (corpus.width, corpus.height)
    luma = np.full((corpus.height, corpus.width), 128.0, dtype=np.float32)
    for octave in range(7):
        cells = (max(2, corpus.width >> octave), max(2, corpus.height >> octave))
        noise = Image.fromarray(random.standard_normal(cells[::-1]).astype(np.float32))
        luma += np.asarray(noise.resize(size, Image.Resampling.BILINEAR)) * corpus.detail * 1.6**octave
    chroma = [
        Image.fromarray(random.integers(96, 160, (6, 8), dtype=np.uint8)).resize(size) for _ in range(2)
    ]
    shades = Image.fromarray(np.clip(luma, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    Image.merge("YCbCr", [shades, *chroma]).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _write(job: tuple[Corpus, int, Path]) -> int:
    corpus, number, folder = job
    data = picture(corpus, number)
    (folder / f"{number:05d}.jpg").write_bytes(data)
    return len(data)


def make(corpus: Corpus, root: Path) -> Path:
    """The folder of a corpus below a root, made if it is not there yet."""
    folder = root / corpus.name
    if not folder.exists():
        unfinished = root / f"{corpus.name}.unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            jobs = ((corpus, number, unfinished) for number in range(corpus.count))
            sizes = list(pool.map(_write, jobs, chunksize=20))
        unfinished.rename(folder)
        print(f"made {folder}: {len(sizes)} pictures of {np.mean(sizes) / 1000:.0f} kB", file=sys.stderr)
    return folder
