"""How long near duplicates take, how much memory, and which distance finds what.

`python benchmarks/near_duplicates.py [HASHES]` groups a million hashes (uniform ones, and a mixture like that
of real galleries: crowds, near copies and flat pictures), then with 1 % of them new, checks a sample against
brute force, and times faiss (`pip install faiss-cpu`) where it is installed. Each in a process of its own.

`python benchmarks/near_duplicates.py --pictures` makes pictures, changes them as web sites do, and prints by
distance how many of the changed ones are found, and how many pairs of different pictures are taken for alike.
"""

import importlib.util
import io
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from corpus import SMALL, picture
from PIL import Image

from imgdl_pipeline.core.jpeg.workers import available_cores
from imgdl_pipeline.core.near_duplicates.hash_groups import group_hashes

DISTANCE = 8
PICTURES = 300
U64 = np.uint64


def uniform(count: int) -> np.ndarray:
    return np.unique(np.random.default_rng(1).integers(0, 2**64, count, dtype=U64))


def flipped(hashes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """The hashes with so many bits turned over, each with its own number."""
    random, hashes = np.random.default_rng(2), hashes.copy()
    for step in range(int(bits.max())):
        hashes ^= np.where(step < bits, U64(1) << random.integers(0, 64, len(hashes), dtype=U64), U64(0))
    return hashes


def mixture(count: int) -> np.ndarray:
    """Half of all hashes on their own, with bits of unequal frequency; near copies; 10 % flat pictures."""
    random = np.random.default_rng(3)
    shares = random.uniform(0.25, 0.75, 64)
    alone = np.zeros(count // 2, U64)
    for bit, share in enumerate(shares):
        alone |= (random.random(len(alone)) < share).astype(U64) << U64(bit)
    copied = random.choice(alone, 4 * count // 10)
    copies = flipped(copied, random.integers(1, 7, len(copied)))
    flat = flipped(np.zeros(count // 10, U64), random.integers(0, 5, count // 10))
    return np.unique(np.concatenate([alone, copies, flat]))


KINDS: dict[str, Callable[[int], np.ndarray]] = {"uniform": uniform, "mixture": mixture}


def ours(hashes: np.ndarray) -> dict[str, float]:
    threads = available_cores()
    started, busy = time.perf_counter(), time.process_time()
    whole = group_hashes(hashes, DISTANCE, threads=threads)
    first, first_busy = time.perf_counter(), time.process_time()
    is_old = np.random.default_rng(4).random(len(hashes)) >= 0.01
    before = group_hashes(hashes[is_old], DISTANCE, threads=threads)
    known, known_busy = time.perf_counter(), time.process_time()
    later = group_hashes(hashes, DISTANCE, before, threads=threads)
    done, done_busy = time.perf_counter(), time.process_time()
    return {
        "seconds": first - started,
        "of the processor": first_busy - busy,
        "seconds with 1 % new": done - known,
        "of the processor, 1 % new": done_busy - known_busy,
        "groups differ": int((later.groups != whole.groups).sum()),
        "recall of a sample": recall(whole.hashes, whole.groups),
    }


def recall(hashes: np.ndarray, groups: np.ndarray, sample: int = 300) -> float:
    """The share of near pairs of a sample with all hashes that are in one group."""
    found = total = 0
    for place in np.random.default_rng(5).integers(0, len(hashes), sample):
        near = np.bitwise_count(hashes ^ hashes[place]) <= DISTANCE
        total += int(near.sum()) - 1
        found += int((near & (groups == groups[place])).sum()) - 1
    return found / total if total else 1.0


def brute_force(hashes: np.ndarray) -> dict[str, float]:
    """Brute force by numpy, of a sample, as all would take."""
    rows = 200
    started = time.perf_counter()
    for place in range(rows):
        np.flatnonzero(np.bitwise_count(hashes ^ hashes[place]) <= DISTANCE)
    return {"seconds": (time.perf_counter() - started) * len(hashes) / 2 / rows}


def faiss_range(hashes: np.ndarray, kind: str) -> dict[str, float]:
    """A binary index of faiss, searched with a sample, as all would take."""
    import faiss

    codes = hashes.view(np.uint8).reshape(-1, 8)
    # 4 tables of 16 bits with 2 bits flipped find everything up to 11 bits
    index = faiss.IndexBinaryFlat(64) if kind == "flat" else faiss.IndexBinaryMultiHash(64, 4, 16)
    if kind != "flat":
        index.nflip = 2
    rows = 2000
    started = time.perf_counter()
    index.add(codes)
    added = time.perf_counter()
    chosen = np.random.default_rng(6).choice(len(codes), rows, replace=False)
    ends, _, _ = index.range_search(codes[chosen], DISTANCE + 1)
    searching = (time.perf_counter() - added) * len(codes) / rows
    return {
        "seconds": added - started + searching,
        "million pairs": int(ends[-1]) / rows * len(codes) / 2e6,
    }


WAYS: dict[str, Callable[[np.ndarray], dict[str, float]]] = {
    "ours": ours,
    "numpy, all pairs": brute_force,
    "faiss flat": lambda hashes: faiss_range(hashes, "flat"),
    "faiss multi-hash": lambda hashes: faiss_range(hashes, "multi-hash"),
}


def run(kind: str, way: str, count: int) -> None:
    result = WAYS[way](KINDS[kind](count))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**result, "peak MB": peak}))


def main(count: int) -> None:
    for kind, way in itertools.product(KINDS, WAYS):
        if way.startswith("faiss") and importlib.util.find_spec("faiss") is None:
            print(f"{kind:8s}  {way:18s}  is not installed")
            continue
        command = [sys.executable, __file__, "--run", kind, way, str(count)]
        told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        print(
            f"{kind:8s}  {way:18s}", *(f"  {name} {value:,.2f}" for name, value in told.items()), flush=True
        )


def saved(image: Image.Image, quality: int = 85) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((x, y, image.width - x, image.height - y))


VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    "quality 60": lambda image: saved(image, 60),
    "quality 20": lambda image: saved(image, 20),
    "half the size": lambda image: saved(image.resize((image.width // 2, image.height // 2))),
    "a fifth, quality 60": lambda image: saved(image.resize((image.width // 5, image.height // 5)), 60),
    "brighter": lambda image: saved(image.point(lambda shade: min(255, shade * 1.15 + 10))),
    "gray": lambda image: saved(image.convert("L")),
    "2 % cropped": lambda image: saved(cropped(image, 0.02)),
    "5 % cropped": lambda image: saved(cropped(image, 0.05)),
    "10 % cropped": lambda image: saved(cropped(image, 0.10)),
}


def hash_of(data: bytes) -> int:
    from imgdl_pipeline.core.jpeg.facts import Limits
    from imgdl_pipeline.core.jpeg.validate import validate_jpeg

    return int(validate_jpeg(data, Limits(max_pixels=1 << 30, max_decode_bytes=1 << 30)).phash, 16)


def pictures() -> None:
    originals = [picture(SMALL, number) for number in range(PICTURES)]
    hashes = np.array([hash_of(data) for data in originals], U64)
    images = [Image.open(io.BytesIO(data)) for data in originals]
    pairs = np.bitwise_count(hashes[:, None] ^ hashes)[np.triu_indices(PICTURES, 1)]
    distances = range(0, 17, 2)
    print(f"{PICTURES} pictures  {'distance':22s}", *(f"{each:7d}" for each in distances))
    for name, vary in VARIANTS.items():
        bits = np.bitwise_count(hashes ^ np.array([hash_of(vary(image)) for image in images], U64))
        print(f"found: {name:28s}", *(f"{np.mean(bits <= each):7.1%}" for each in distances))
    print(
        f"different, of {len(pairs):,} pairs{'':9s}", *(f"{(pairs <= each).sum():7d}" for each in distances)
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["--pictures"]:
        pictures()
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000)
