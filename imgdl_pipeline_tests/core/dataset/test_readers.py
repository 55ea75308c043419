"""The programs that people load datasets with read the folders that an export writes."""

import csv
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import huggingface_hub
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from PIL import Image

from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.datasets import Gallery, folder_of

FORMATS = ("webdataset", "parquet", "imagefolder")


class Expected(NamedTuple):
    """One image of the dataset: its key, caption, size as stored and row of the catalog."""

    key: str
    caption: str | None
    size: tuple[int, int]
    row: dict[str, Any]

    @property
    def shown(self) -> tuple[int, int]:
        """The size with EXIF's orientation applied, as `datasets` does, and webdataset and Pillow do not."""
        return self.size[::-1] if (self.row["orientation"] or 1) >= 5 else self.size


COUNT = 25
CAPTIONS = [
    "Ein K\u00e4fer auf gr\u00fcnem Blatt",
    "\u732b\u304c\u7720\u3063\u3066\u3044\u308b",
    "line one\nline two",
    '\U0001f680 "quoted" \\ back',
]
WITHOUT_CAPTION = 3
SPARSE = 8
"""The first images, whose rows have nulls in all columns that may be null: readers infer types from them."""


def picture(number: int, version: int = 0) -> bytes:
    mode = {7: "L", 8: "CMYK"}.get(number, "RGB")
    color = {"L": 70, "RGB": (number * 10, 90, 30), "CMYK": (10, 20, 30, 40)}[mode]
    file, exif = io.BytesIO(), Image.Exif()
    if number >= SPARSE:
        exif[0x112] = number % 8 + 1
    Image.new(mode, (32 + number, 24 + number), color).save(file, "JPEG", exif=exif)
    return file.getvalue()


def facts(number: int) -> dict[str, Any]:
    title = {} if number == WITHOUT_CAPTION else {"title": f"{CAPTIONS[number % 4]} {number}"}
    said = {
        "attributes": json.dumps({**title, "more": {"deep": number}}),
        "height": 24 + number,
        "width": 32 + number,
    }
    if number < SPARSE:
        empty = (
            "orientation",
            "phash",
            "exif",
            "http_status",
            "elapsed_s",
            "fetched_at",
            "embedded",
            "opt_outs",
        )
        return {**said, **dict.fromkeys(empty)}
    taken_at = datetime(2026, 11, 26, 12, 0, 0, 123456)
    return {
        **said,
        "orientation": number % 8 + 1,
        "taken_at": taken_at,
        "latitude": 1.5,
        "license_id": "CC-BY-4.0",
    }


class Made(NamedTuple):
    """The datasets of one gallery in all formats, and what is in them."""

    galleries: dict[str, Gallery]
    expected: list[Expected]

    def folder(self, form: str) -> Path:
        return folder_of(self.galleries[form].store)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    stores = {form: Store(str(tmp_path_factory.mktemp(form))) for form in FORMATS}
    galleries = {form: Gallery(store, picture=picture) for form, store in stores.items()}
    for form, gallery in galleries.items():
        for number in range(COUNT):
            gallery.put(number, **facts(number))
        gallery.export(format=form, shard_images=10, caption="attributes.title")
    rows = galleries["webdataset"].catalog().to_pylist()[:COUNT]
    return Made(galleries, [expected_of(row) for row in rows])


def expected_of(row: dict[str, Any]) -> Expected:
    key = hashlib.sha256(row["url"].encode()).hexdigest()[:20]
    caption = json.loads(row["attributes"]).get("title")
    return Expected(key, caption, (row["width"], row["height"]), row)


def as_json(value: object) -> object:
    """Return a catalog's value as our JSON has it: times in ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value


# --- Hugging Face ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterable[Path]:
    """`datasets` reads its settings when it is imported: its home is set before that, once for all tests."""
    home = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "HF_HOME": str(home),
            "HF_DATASETS_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        }.items():
            patch.setenv(name, value)
        yield home


@pytest.fixture
def hf(_offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets`, with an empty cache for each test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


COLUMN_OF_THE_IMAGE = {"webdataset": "jpg", "parquet": "image", "imagefolder": "image"}
COLUMN_OF_THE_CAPTION = {"webdataset": "txt", "parquet": "caption", "imagefolder": "caption"}


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("form", FORMATS)
def test_hugging_face_loads_the_folder_by_its_name_alone(
    form: str, streaming: bool, made: Made, hf: Any
) -> None:
    rows = list(hf.load_dataset(str(made.folder(form)), split="train", streaming=streaming))

    assert len(rows) == len(made.expected)
    image, caption = COLUMN_OF_THE_IMAGE[form], COLUMN_OF_THE_CAPTION[form]
    assert [row[image].size for row in rows] == [each.shown for each in made.expected]
    assert [row[caption] for row in rows] == [each.caption for each in made.expected]
    assert [row["json"]["url"] if form == "webdataset" else row["url"] for row in rows] == [
        each.row["url"] for each in made.expected
    ]
    for row in rows:
        row[image].load()


@pytest.mark.parametrize("form", FORMATS)
def test_hugging_face_keeps_every_column_even_if_its_first_rows_are_null(
    form: str, made: Made, hf: Any
) -> None:
    rows = list(hf.load_dataset(str(made.folder(form)), split="train"))

    for row, each in zip(rows, made.expected, strict=True):
        if form == "webdataset":
            assert row["json"] == {name: as_json(value) for name, value in each.row.items()}
            assert row["__key__"] == each.key
        else:
            assert {name: row[name] for name in each.row} == each.row


def test_hugging_face_reads_the_parquet_files_without_the_card(made: Made, hf: Any) -> None:
    files = sorted(str(path) for path in (made.folder("parquet") / "data").glob("*.parquet"))

    for dataset in (
        hf.load_dataset("parquet", data_files=files, split="train"),
        hf.Dataset.from_parquet(files),
    ):
        assert dataset.features["image"] == hf.Image()
        assert dataset.features["fetched_at"] == hf.Value("timestamp[us, tz=UTC]")
        assert dataset.features["orientation"] == hf.Value("int8")
        assert [row["image"].size for row in dataset] == [each.shown for each in made.expected]


def test_the_cards_count_is_checked_by_hugging_face(made: Made, hf: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(made.folder("parquet"), tmp_path / "copy")
    max((folder / "data").glob("*.parquet")).unlink()

    with pytest.raises(Exception, match=r"NonMatchingSplitsSizesError|expected"):
        hf.load_dataset(str(folder), split="train")


@pytest.mark.parametrize("form", FORMATS)
def test_the_cards_front_matter_is_what_the_hub_documents(form: str, made: Made, hf: Any) -> None:
    card = huggingface_hub.DatasetCard.load(made.folder(form) / "README.md")
    data = card.data.to_dict()

    assert data["license"]
    assert data["license"] != "other" or data["license_name"]
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"][0]["data_files"][0]["split"] == "train"
    assert data["dataset_info"]["splits"][0]["num_examples"] == len(made.expected)
    assert card.text.lstrip().startswith("# ")


# --- webdataset -----------------------------------------------------------------------------------------

# It never closes the files that it reads to their end.
leaves_files_open = pytest.mark.filterwarnings("ignore:unclosed file <_io.BufferedReader:ResourceWarning")


def shards(folder: Path) -> str:
    """Return the folder's shards in the notation that webdataset's users write."""
    last = max(folder.glob("*.tar")).stem
    return str(folder / f"{{00000..{last}}}.tar")


@leaves_files_open
def test_webdataset_reads_pictures_and_rows_in_the_catalogs_order(made: Made) -> None:
    samples = list(
        webdataset.WebDataset(shards(made.folder("webdataset")), shardshuffle=False)
        .decode("pil")
        .to_tuple("__key__", "jpg", "json")
    )

    assert [key for key, _, _ in samples] == [each.key for each in made.expected]
    assert [picture.size for _, picture, _ in samples] == [each.size for each in made.expected]
    assert [row for _, _, row in samples] == [
        {name: as_json(value) for name, value in each.row.items()} for each in made.expected
    ]


@leaves_files_open
def test_webdataset_gives_captions_where_there_are_any(made: Made) -> None:
    dataset = webdataset.WebDataset(shards(made.folder("webdataset")), shardshuffle=False).decode("pil")

    samples = list(dataset.to_tuple("jpg", "txt", missing_is_error=False))
    with_caption = list(dataset.select(lambda sample: "txt" in sample).to_tuple("txt"))

    assert [caption for _, caption in samples] == [each.caption for each in made.expected]
    assert [caption for (caption,) in with_caption] == [
        each.caption for each in made.expected if each.caption
    ]


@leaves_files_open
def test_an_epoch_has_as_many_batches_as_were_asked_for(made: Made) -> None:
    dataset = (
        webdataset.WebDataset(shards(made.folder("webdataset")), resampled=True, shardshuffle=False, seed=7)
        .decode("pil")
        .to_tuple("jpg", "json")
        .with_epoch(10)
    )

    assert len(list(dataset)) == 10


def test_tar_files_are_plain_and_the_same_whoever_writes_them(made: Made) -> None:
    names = []
    for path in sorted(made.folder("webdataset").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert not any(member.pax_headers for member in members)  # DALI reads no names from those
        assert {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime, m.isreg()) for m in members} == {
            (0o644, 0, 0, "", "", 0, True)
        }
        names += [member.name for member in members]

    assert names == [
        f"{each.key}.{suffix}"
        for each in made.expected
        for suffix in ("jpg", "json", *(("txt",) if each.caption is not None else ()))
    ]


# --- tables ---------------------------------------------------------------------------------------------


def test_duckdb_reads_all_datasets_as_one_table(made: Made) -> None:
    root = made.folder("parquet").parent
    rows = duckdb.sql(
        f"select url, caption, width, fetched_at, image.path, octet_length(image.bytes) "
        f"from read_parquet('{root}/*/data/*.parquet') order by filename, file_row_number"
    ).fetchall()

    assert [row[:3] for row in rows] == [(e.row["url"], e.caption, e.row["width"]) for e in made.expected]
    assert [row[3] and row[3].astimezone(timezone.utc) for row in rows] == [
        e.row["fetched_at"] for e in made.expected
    ]
    assert [row[4] for row in rows] == [f"{e.key}.jpg" for e in made.expected]
    assert all(row[5] > 100 for row in rows)


def test_no_private_file_looks_like_a_part_of_the_table(made: Made) -> None:
    root = made.folder("parquet")

    files = [path for (path,) in duckdb.sql(f"select file from glob('{root}/**/*.parquet')").fetchall()]

    assert {Path(path).parent.name for path in files} == {"data"}


def test_duckdb_reads_the_metadata_of_an_imagefolder(made: Made) -> None:
    path = made.folder("imagefolder") / "train" / "metadata.jsonl"
    rows = duckdb.sql(f"select file_name, caption, url, sha256 from read_json('{path}')").fetchall()

    assert rows == [(f"{e.key}.jpg", e.caption, e.row["url"], e.row["sha256"]) for e in made.expected]


def test_arrow_reads_the_data_folder_with_the_catalogs_types(made: Made) -> None:
    dataset = pa.dataset.dataset(made.folder("parquet") / "data", format="parquet")

    table = dataset.to_table()

    assert table.num_rows == len(made.expected)
    assert table.schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert table.select(list(made.expected[0].row)).to_pylist() == [each.row for each in made.expected]
    for image, each in zip(table["image"].to_pylist(), made.expected, strict=True):
        with Image.open(io.BytesIO(image["bytes"])) as picture:
            assert picture.size == each.size


def test_row_groups_are_small_enough_to_read_one_image_from(made: Made) -> None:
    for path in (made.folder("parquet") / "data").glob("*.parquet"):
        file = pq.ParquetFile(path)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        assert all(group.total_byte_size <= 100 << 20 for group in groups)
        images = [group.column(0) for group in groups]
        assert {(column.path_in_schema, column.compression) for column in images} == {
            ("image.bytes", "UNCOMPRESSED")
        }


def test_the_files_beside_the_data_are_readable_by_themselves(made: Made) -> None:
    for form in FORMATS:
        folder = made.folder(form)
        assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        _, front, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        assert yaml.safe_load(front)["configs"]
        if (folder / "CREDITS.csv").exists():
            with (folder / "CREDITS.csv").open(newline="", encoding="utf-8") as lines:
                assert list(csv.DictReader(lines))
