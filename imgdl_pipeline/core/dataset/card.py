"""Write a dataset's card: its `README.md`, for people, and with the front matter that readers look for.

The front matter tells readers which files hold the data:
https://huggingface.co/docs/hub/datasets-cards
"""

from collections import Counter
from collections.abc import Iterable
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from imgdl_pipeline.core.dataset.credits import UNKNOWN, escaped
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.opt_outs import from_json

SHOWN = 20
"""The most licences and hosts that are listed."""

DATA_FILES = {"webdataset": "*.tar", "parquet": "data/train-*.parquet", "imagefolder": "train/**"}
"""The files that hold the data, by format."""

SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
"""The hub's names for sizes, by the number of images below which each holds."""

LOADING = {
    "webdataset": """\
    import webdataset
    samples = webdataset.WebDataset("{folder}/{{00000..{last}}}.tar", shardshuffle=False).decode("pil")""",
    "parquet": """\
    import datasets
    images = datasets.load_dataset("{folder}", split="train")""",
    "imagefolder": """\
    import datasets
    images = datasets.load_dataset("imagefolder", data_dir="{folder}", split="train")""",
}
"""How to load a dataset, by format."""


def write_card(
    file: IO[bytes], gallery: str, settings: DatasetSettings, rows: pa.Table, shards: int, made_by: str
) -> None:
    """Write the card of a dataset.

    Args:
        file: Where to write.
        gallery: The gallery's name.
        settings: The dataset's settings.
        rows: The catalog's rows of its images.
        shards: How many files hold its images.
        made_by: The program and its version.
    """
    lines = [
        f"# {gallery}",
        "",
        f"{rows.num_rows} images of the gallery {gallery}, as {settings.format}. {_choice(settings)}",
        "Each image keeps its row of the catalog: its link, its SHA-256, what its source says about it, and "
        "when it came.",
        "",
        "## How to load it",
        "",
        LOADING[settings.format].format(folder=f"datasets/{gallery}", last=f"{max(0, shards - 1):05}"),
        "",
        "`manifest.json` names every file with its SHA-256.",
        "",
        *_table("Licences", "licence", (each or UNKNOWN for each in rows["license_id"].to_pylist())),
        "Each image has its own licence, in the column `license_id`. `CREDITS.csv` and `ATTRIBUTION.md` name "
        "who made it.",
        "",
        *_table("Hosts", "host", map(host_of, rows["url"].to_pylist())),
        *_opt_outs(rows),
        "## How it was made",
        "",
        f"By {made_by}, with these settings:",
        "",
        *(f"    {line}" for line in _yaml(settings.model_dump(mode="json")).splitlines()),
    ]
    front = _yaml(_front_matter(gallery, settings, rows.num_rows))
    file.write("\n".join(["---", f"{front}---", "", *lines, ""]).encode())


def _front_matter(gallery: str, settings: DatasetSettings, images: int) -> dict[str, Any]:
    """Return what the hub and its readers look for."""
    files = [{"split": "train", "path": DATA_FILES[settings.format]}]
    return {
        "pretty_name": gallery,
        "license": "other",
        "size_categories": [next((name for most, name in SIZES.items() if images < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _yaml(value: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text


def _choice(settings: DatasetSettings) -> str:
    chosen = "all images that are whole, valid JPEGs"
    if settings.where is not None:
        chosen = "the whole, valid JPEGs for which `where` below holds"
    how = "Their bytes are as the hosts served them."
    if settings.resize is not None:
        how = f"They were made smaller: {settings.resize.how}, {settings.resize.side} pixels."
    return f"They are {chosen}. {how}"


def _table(title: str, column: str, values: Iterable[str]) -> list[str]:
    """Return a section that counts values, the most frequent ones first."""
    counted = Counter(values)
    ordered = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
    lines = [f"| {escaped(value)} | {count} |" for value, count in ordered[:SHOWN]]
    if len(ordered) > SHOWN:
        lines.append(f"| {len(ordered) - SHOWN} more | {sum(count for _, count in ordered[SHOWN:])} |")
    return [f"## {title}", "", f"| {column} | images |", "|---|---|", *lines, ""]


def _opt_outs(rows: pa.Table) -> list[str]:
    """Return what owners have said against the use of images that are in the dataset all the same."""
    said = rows["opt_outs"].drop_null()
    said = said.filter(pc.not_equal(said, "[]"))
    words = (
        "No owner of these images has said anything against their use that was heard. Images whose owners "
        "did are left out if the gallery's `purpose` is one that they forbid."
    )
    if not len(said):
        return ["## Opt-outs", "", words, ""]
    signals = (f"{each.signal}: {each.value}" for text in said.to_pylist() for each in from_json(text))
    heard = _table("Opt-outs", "heard, but not against this gallery's purpose", signals)
    return [*heard, "Images whose owners forbid the gallery's `purpose` are left out.", ""]
