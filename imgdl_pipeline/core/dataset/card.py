"""Write a dataset's card: its `README.md`, for people, and with the front matter that readers look for.

The front matter tells readers which files hold the data:
https://huggingface.co/docs/hub/datasets-cards
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow.compute as pc
import yaml

from imgdl_pipeline.core.dataset.credits import UNKNOWN, escaped
from imgdl_pipeline.core.dataset.features import CARD_FEATURES
from imgdl_pipeline.core.dataset.manifest import DatasetFile
from imgdl_pipeline.core.dataset.rows import CatalogRows
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.counted import amount
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.opt_outs import from_json

SHOWN = 20
"""The most licences and hosts that are listed."""

DATA_FILES = {"webdataset": "*.tar", "parquet": "data/train-*.parquet", "imagefolder": "train/**"}
"""The files that hold the data, by format."""

SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
    10**9: "100M<n<1B",
}
"""The hub's names for sizes, by the number of images below which each holds."""

HUB_LICENSES = {
    each: each.lower()
    for each in (
        *("CC0-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
        *("CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-3.0"),
        *("CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"),
    )
}
"""The hub's names of licences that pictures have; it knows no others of Creative Commons."""

LOADING = """\
    import datasets
    images = datasets.load_dataset("{folder}", split="train")"""
"""How to load a dataset of any format."""

LOADING_MORE = {
    "webdataset": """\
    import glob
    import webdataset
    tars = sorted(glob.glob("{folder}/*.tar"))
    samples = webdataset.WebDataset(tars, shardshuffle=False).decode("pil")
    samples = samples.to_tuple("jpg", "txt", "json", missing_is_error=False)""",
    "parquet": """\
    import duckdb
    duckdb.sql("select url, width, height, caption from '{folder}/data/*.parquet'")""",
    "imagefolder": """\
    import duckdb
    duckdb.sql("select file_name, caption from '{folder}/train/metadata.jsonl'")""",
}
"""Another way to load a dataset, by format."""


def write_card(
    file: IO[bytes],
    gallery: str,
    settings: DatasetSettings,
    rows: CatalogRows,
    files: Sequence[DatasetFile],
    made_by: str,
) -> None:
    """Write the card of a dataset.

    Args:
        file: Where to write.
        gallery: The gallery's name.
        settings: The dataset's settings.
        rows: The catalog's rows of its images.
        files: The files that hold its images.
        made_by: The program and its version.

    Raises:
        StoreError: The catalog could not be read.
    """
    images, counted = amount(rows.num_rows, "image"), _counted(rows)
    lines = [
        f"# {gallery}",
        "",
        f"{images} of the gallery {gallery}, as {settings.format}. {_choice(settings)}",
        "Each image keeps its row of the catalog: its link, its SHA-256, what its source says about it, and "
        "when it came.",
        "",
        "## How to load it",
        "",
        LOADING.format(folder=f"datasets/{gallery}"),
        "",
        LOADING_MORE[settings.format].format(folder=f"datasets/{gallery}"),
        "",
        "`manifest.json` names every file with its SHA-256.",
        "",
        *_table("Licences", "licence", counted.licenses),
        "Each image has its own licence, in the column `license_id`. `CREDITS.csv` and `ATTRIBUTION.md` name "
        "who made it.",
        "",
        *_table("Hosts", "host", counted.hosts),
        *_opt_outs(counted.opt_outs),
        "## How it was made",
        "",
        f"By {made_by}, with these settings:",
        "",
        *(f"    {line}" for line in _yaml(settings.model_dump(mode="json")).splitlines()),
    ]
    split = {
        "name": "train",
        "num_bytes": sum(each.bytes for each in files),
        "num_examples": rows.num_rows,
    }
    front = _yaml(_front_matter(gallery, settings, split, counted.licenses))
    file.write("\n".join(["---", f"{front}---", "", *lines, ""]).encode())


@dataclass(frozen=True, slots=True)
class _Counted:
    """How many images have each licence, host and opt-out."""

    licenses: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    opt_outs: Counter[str] = field(default_factory=Counter)


def _counted(rows: CatalogRows) -> _Counted:
    counted = _Counted()
    for batch in rows.batches(["url", "license_id", "opt_outs"]):
        counted.licenses.update(each or UNKNOWN for each in batch["license_id"].to_pylist())
        counted.hosts.update(map(host_of, batch["url"].to_pylist()))
        said = batch["opt_outs"].drop_null()
        for text in said.filter(pc.not_equal(said, "[]")).to_pylist():
            counted.opt_outs.update(f"{each.signal}: {each.value}" for each in from_json(text))
    return counted


def _front_matter(
    gallery: str, settings: DatasetSettings, split: Mapping[str, Any], licenses: Counter[str]
) -> dict[str, Any]:
    """Return what readers and the hub look for; readers compare `num_examples` with what they find."""
    files = [{"split": "train", "path": DATA_FILES[settings.format]}]
    config: dict[str, Any] = {"config_name": "default", "data_files": files}
    features = CARD_FEATURES[settings.format]
    if settings.format == "imagefolder":  # whose reader asks its configuration, and the others dataset_info
        config["features"] = features
    images = split["num_examples"]
    return {
        "pretty_name": gallery,
        **_license_fields(licenses),
        "size_categories": [next((name for most, name in SIZES.items() if images < most), "n>1T")],
        "configs": [config],
        "dataset_info": {"features": features, "splits": [dict(split)]},
    }


def _license_fields(licenses: Counter[str]) -> dict[str, Any]:
    """Return the licence of all images if it is one that the hub knows, or else that each has its own."""
    if licenses and all(each in HUB_LICENSES for each in licenses):
        return {"license": sorted(HUB_LICENSES[each] for each in licenses)}
    return {"license": "other", "license_name": "of-each-image", "license_link": "ATTRIBUTION.md"}


def _yaml(value: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text


def _choice(settings: DatasetSettings) -> str:
    chosen = "all images that are whole, valid JPEGs"
    if settings.where is not None:
        chosen = "the whole, valid JPEGs for which `where` below holds"
    how = (
        "Their bytes are as the hosts served them. Some readers turn a picture as its EXIF says, and some do "
        "not: see the column `orientation`."
    )
    if settings.resize is not None:
        how = f"They were made smaller: {settings.resize.how}, {settings.resize.side} pixels."
    return f"They are {chosen}. {how}"


def _table(title: str, column: str, counted: Counter[str]) -> list[str]:
    """Return a section with counted values, the most frequent ones first."""
    ordered = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
    lines = [f"| {escaped(value)} | {count} |" for value, count in ordered[:SHOWN]]
    if len(ordered) > SHOWN:
        lines.append(f"| {len(ordered) - SHOWN} more | {sum(count for _, count in ordered[SHOWN:])} |")
    return [f"## {title}", "", f"| {column} | images |", "|---|---|", *lines, ""]


def _opt_outs(signals: Counter[str]) -> list[str]:
    """Return what owners have said against the use of images that are in the dataset all the same."""
    words = (
        "No owner of these images has said anything against their use that was heard. Images whose owners "
        "did are left out if the gallery's `purpose` is one that they forbid."
    )
    if not signals:
        return ["## Opt-outs", "", words, ""]
    heard = _table("Opt-outs", "heard, but not against this gallery's purpose", signals)
    return [*heard, "Images whose owners forbid the gallery's `purpose` are left out.", ""]
