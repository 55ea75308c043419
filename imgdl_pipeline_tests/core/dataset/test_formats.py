import io
import json
import tarfile
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.dataset.formats import (
    ROW_GROUP_IMAGES,
    json_line,
    write_parquet,
    write_tar,
)
from imgdl_pipeline.core.dataset.samples import Sample
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline_tests.support.rows import catalog_of

ROW = {
    "url": "https://example.org/é 😀.jpg",
    "width": 640,
    "progressive": True,
    "latitude": -33.5,
    "fetched_at": datetime(2026, 11, 22, 6, 0, 0, 250_000, timezone.utc),
    "taken_at": datetime(2024, 5, 1, 12),
    "attributes": '{"title": "a\\nb"}',
    "orientation": 1,
}

HOSTILE = {
    "four bytes": "\U0001d518\U0001d52b\U0001d526 😀 \U0010ffff",
    "NUL": "before\0after",
    "newlines": "one\ntwo\r\nthree\u2028four\x85five",
    "markup": "</script><img src=x onerror=alert(1)>",
    "path": "../../../etc/passwd",
    "quotes": '", "status": "refused',
    "right to left": "\u202egpj.exe",
    "long": "x" * 100_000,
}


def sample(number=0, jpeg=b"\xff\xd8 picture", caption=None, **row):
    [whole] = catalog_of({**ROW, **row}).to_pylist()
    return Sample(f"{number:020x}", jpeg, caption, whole)


def tar_of(*samples):
    file = io.BytesIO()
    assert write_tar(file, iter(samples)) == len(samples)
    file.seek(0)
    return file


def members(file):
    with tarfile.open(fileobj=file) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}


def parquet_of(*samples):
    file = io.BytesIO()
    assert write_parquet(file, iter(samples)) == len(samples)
    return pq.ParquetFile(pa.BufferReader(file.getvalue()))


def test_a_sample_is_its_picture_its_row_and_its_caption_in_this_order():
    key = f"{7:020x}"
    held = members(tar_of(sample(7, b"jpeg", "Sea"), sample(8, b"other")))
    assert list(held) == [f"{key}.jpg", f"{key}.json", f"{key}.txt", f"{8:020x}.jpg", f"{8:020x}.json"]
    assert (held[f"{key}.jpg"], held[f"{key}.txt"]) == (b"jpeg", b"Sea")


def test_the_members_have_no_times_owners_or_numbers_of_their_own():
    with tarfile.open(fileobj=tar_of(sample(1, caption="x"), sample(2))) as tar:
        for each in tar:
            assert (each.mtime, each.uid, each.gid, each.uname, each.gname) == (0, 0, 0, "", "")
            assert (each.mode, each.type, each.linkname, each.pax_headers) == (0o644, tarfile.REGTYPE, "", {})
            assert (each.devmajor, each.devminor) == (0, 0)


def test_a_tar_is_ustar_and_has_no_extended_headers():
    data = tar_of(sample(1, b"x" * 513, HOSTILE["long"])).getvalue()
    assert data[257:265] == b"ustar\x0000"
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        kinds = {data[each.offset + 156 : each.offset + 157] for each in tar}
    assert kinds == {b"0"}


def test_the_same_samples_give_the_same_bytes():
    samples = [sample(number, b"jpeg %d" % number, "caption") for number in range(5)]
    assert tar_of(*samples).getvalue() == tar_of(*samples).getvalue()
    one, other = (io.BytesIO(), io.BytesIO())
    write_parquet(one, samples)
    write_parquet(other, samples)
    assert one.getvalue() == other.getvalue()


def test_the_json_is_the_catalogs_row_with_times_in_iso_8601():
    key = f"{1:020x}.json"
    row = json.loads(members(tar_of(sample(1)))[key])
    assert list(row) == CATALOG.names
    assert row["fetched_at"] == "2026-11-22T06:00:00.250000+00:00"
    assert row["taken_at"] == "2024-05-01T12:00:00"
    assert (row["url"], row["width"], row["progressive"], row["latitude"]) == (
        "https://example.org/é 😀.jpg",
        640,
        True,
        -33.5,
    )
    assert row["sha256"] is None
    as_values = {
        **row,
        "fetched_at": datetime.fromisoformat(row["fetched_at"]),
        "taken_at": datetime.fromisoformat(row["taken_at"]),
    }
    assert as_values == sample().row


def test_a_row_is_one_line_whatever_is_in_it():
    line = json_line(sample(attributes=HOSTILE["newlines"], detail="\r\n\0").row)
    assert "\n" not in line
    assert "\r" not in line
    assert "\0" not in line


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_come_back_as_they_are(text):
    attributes = json.dumps({"title": text}, ensure_ascii=False)
    given_ = sample(1, caption=text, attributes=attributes)
    held = members(tar_of(given_, sample(2)))
    assert list(held) == [
        f"{1:020x}.jpg",
        f"{1:020x}.json",
        f"{1:020x}.txt",
        f"{2:020x}.jpg",
        f"{2:020x}.json",
    ]
    assert held[f"{1:020x}.txt"].decode() == text
    assert json.loads(held[f"{1:020x}.json"])["attributes"] == attributes
    table = parquet_of(given_).read()
    assert table["caption"].to_pylist() == [text]
    assert table["attributes"].to_pylist() == [attributes]


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=2000), st.none() | st.text(max_size=50).filter(lambda t: t.isprintable())
        )
    )
)
def test_both_formats_give_back_what_they_were_given(given_):
    samples = [sample(number, jpeg, caption) for number, (jpeg, caption) in enumerate(given_)]
    held = members(tar_of(*samples))
    table = parquet_of(*samples).read().to_pylist()
    assert len(table) == len(samples)
    for each, row in zip(samples, table, strict=True):
        assert held[f"{each.key}.jpg"] == row["image"]["bytes"] == each.jpeg
        text = held.get(f"{each.key}.txt")
        assert (None if text is None else text.decode()) == row["caption"] == each.caption


def test_a_tar_without_samples_is_one_that_readers_open():
    assert members(tar_of()) == {}


def test_a_parquet_file_has_the_image_the_caption_and_the_catalogs_columns():
    schema = parquet_of(sample(caption="x")).schema_arrow
    assert schema.names == ["image", "caption", *CATALOG.names]
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert {name: schema.field(name).type for name in CATALOG.names} == {
        each.name: each.type for each in CATALOG
    }


def test_parquets_metadata_tell_hugging_face_which_column_is_the_image():
    metadata = parquet_of(sample()).schema_arrow.metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert list(features) == ["image", "caption", *CATALOG.names]
    assert features["image"] == {"_type": "Image"}
    types = {name: features[name]["dtype"] for name in ("width", "bytes", "latitude", "progressive")}
    assert types == {"width": "int32", "bytes": "int64", "latitude": "float64", "progressive": "bool"}
    assert features["fetched_at"] == {"dtype": "timestamp[us, tz=UTC]", "_type": "Value"}
    assert features["taken_at"] == {"dtype": "timestamp[us]", "_type": "Value"}
    assert features["orientation"] == {"dtype": "int8", "_type": "Value"}


@pytest.mark.parametrize(
    ("images", "groups"), [(0, []), (1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])]
)
def test_a_row_group_has_a_hundred_images(images, groups):
    file = parquet_of(*(sample(number) for number in range(images)))
    metadata = file.metadata
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == groups
    assert ROW_GROUP_IMAGES == 100


def test_pictures_are_stored_as_they_are_and_texts_are_compressed():
    row_group = parquet_of(sample(caption="x")).metadata.row_group(0)
    columns = [row_group.column(place) for place in range(row_group.num_columns)]
    compressed = {each.path_in_schema: each.compression for each in columns}
    assert compressed["image.bytes"] == "UNCOMPRESSED"
    assert compressed["image.path"] == compressed["caption"] == compressed["attributes"] == "ZSTD"


def test_samples_are_read_a_row_group_at_a_time():
    read, written = [], []

    class File(io.BytesIO):
        def write(self, data):
            written.append(len(read))
            return super().write(data)

    write_parquet(File(), (read.append(number) or sample(number, b"x" * 100_000) for number in range(250)))
    assert {100, 200} <= set(written)
