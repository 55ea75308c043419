from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from imgdl_pipeline.core.listing.reshard import reshard
from imgdl_pipeline.core.model.schemas import NEAR_DUPLICATES
from imgdl_pipeline.core.near_duplicates.groups import find_near_duplicates
from imgdl_pipeline.core.storage.layout import (
    GROUPED_HASHES_PATH,
    NEAR_DUPLICATES_PATH,
    catalog_path,
    resharding_path,
)
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import ReshardError
from imgdl_pipeline_tests.support.hashes import components_by_brute_force, flipped, uniform
from imgdl_pipeline_tests.support.rows import NOW, catalog_of
from imgdl_pipeline_tests.support.shards import sharded


def image(url, phash, **changes):
    facts = {"path": f"images/g/{url}.jpg", "bytes": 1, "sha256": f"{phash:064x}", "phash": f"{phash:016x}"}
    return {"url": url, **facts, "width": 10, "height": 10, "first_seen": NOW, **changes}


@pytest.fixture
def grouped(store):
    """Write catalogs and find their near duplicates; the rows by url."""

    def find(distance=8, **galleries):
        for name, rows in galleries.items():
            store.write_table(catalog_path(name), catalog_of(*rows))
        result = find_near_duplicates(store, list(galleries), distance)
        table = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
        assert table.num_rows == result.grouped
        return result, table.to_pylist()

    return find


def urls(rows):
    return [row["url"] for row in rows]


def test_images_of_several_galleries_are_grouped_and_lonely_ones_have_no_row(grouped):
    a = [image("a1", 0), image("a2", 0xFFFF << 20)]
    b = [image("b1", 0b111, width=20), image("b2", 0xFFFF_FFFF)]
    result, rows = grouped(a=a, b=b)
    assert [(row["gallery"], row["url"], row["distance"], row["representative"]) for row in rows] == [
        ("b", "b1", 0, True),
        ("a", "a1", 3, False),
    ]
    assert [row["phash"] for row in rows] == ["0000000000000007", "0000000000000000"]
    assert len({row["group"] for row in rows}) == 1
    assert (result.images, result.hashes, result.groups, result.grouped) == (4, 4, 1, 2)


def test_links_with_the_same_bytes_are_company(grouped):
    result, rows = grouped(
        0, a=[image("a1", 5), image("a2", 5, duplicate_of="a1")], b=[image("b1", 6), image("b2", 7)]
    )
    assert urls(rows) == ["a1", "a2"]
    assert result.groups == 1


def test_the_representative_is_the_largest_then_the_first_seen_then_by_gallery_and_url(grouped):
    later = NOW + timedelta(days=1)
    sizes = [image("u1", 1), image("u2", 1, width=100)]
    assert urls(grouped(a=sizes)[1])[0] == "u2"
    assert urls(grouped(a=[image("u1", 1, first_seen=later), image("u2", 1)])[1])[0] == "u2"
    _, rows = grouped(b=[image("u1", 1)], a=[image("u3", 1), image("u2", 1)])
    assert [(row["gallery"], row["url"]) for row in rows] == [("a", "u2"), ("a", "u3"), ("b", "u1")]
    assert [row["representative"] for row in rows] == [True, False, False]


def test_an_image_of_very_many_pixels_is_the_largest(grouped):
    huge = image("u2", 1, width=60_000, height=60_000)
    assert urls(grouped(a=[image("u1", 1, width=50_000, height=50_000), huge])[1]) == ["u2", "u1"]


def test_rows_without_an_image_or_a_hash_are_left_out(grouped):
    rows = [
        image("u1", 1),
        image("u2", 1, status="failed"),
        {**image("u3", 1), "phash": None},
        {**image("u4", 1), "phash": "old"},
        image("u5", 2),
    ]
    result, found = grouped(a=rows)
    assert urls(found) == ["u1", "u5"]
    assert result.images == 2


def test_every_shard_of_a_gallery_is_read_and_nothing_else(store, grouped):
    store.write_table("catalog/gallery=big/catalog.0000.parquet", catalog_of(image("u1", 1)))
    store.write_table("catalog/gallery=big/catalog.0255.parquet", catalog_of(image("u2", 3)))
    store.write_table("catalog/gallery=big/_checkpoints/1.parquet", catalog_of(image("u3", 3)))
    store.write_table("catalog/gallery=bigger/catalog.parquet", catalog_of(image("u4", 3)))
    assert find_near_duplicates(store, ["big"], 8).images == 2
    assert find_near_duplicates(store, ["big", "bigger", "big", "no such"], 8).images == 3


def test_no_images_at_all_make_an_empty_table(grouped, store):
    result, rows = grouped(a=[])
    assert rows == []
    assert (result.images, result.groups, result.largest) == (0, 0, ())
    assert store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES).schema.equals(NEAR_DUPLICATES)


def test_a_group_keeps_its_number_whatever_others_do(grouped):
    pair = [image("u1", 0xFFFFF0 << 30), image("u2", 0xFFFFF1 << 30)]
    number = grouped(a=pair)[1][0]["group"]
    others = [image("u3", 1), image("u4", 2), image("u5", 0xFFFFF3 << 30), image("u6", 2**64 - 1)]
    groups = {row["url"]: row["group"] for row in grouped(a=others + pair)[1]}
    assert groups["u1"] == groups["u5"] == number != groups["u3"]


def crowd(seed, count):
    hashes = np.append(flipped(np.repeat(uniform(count // 10, 1), 8), 5, 2), uniform(count // 5, 3))
    chosen = hashes[np.random.default_rng(seed).random(len(hashes)) < 0.9]
    return [image(f"u{value}", value) for value in np.unique(chosen).tolist()]


@pytest.mark.parametrize("seed", range(3))
def test_a_later_run_writes_the_bytes_of_a_first_run(seed, grouped, store):
    grouped(a=crowd(seed, 500), b=crowd(seed + 10, 100))
    later, _ = grouped(a=crowd(seed + 20, 500), b=crowd(seed + 30, 100))
    written = [store.get(path) for path in (NEAR_DUPLICATES_PATH, GROUPED_HASHES_PATH)]
    store.delete([NEAR_DUPLICATES_PATH, GROUPED_HASHES_PATH])
    first, _ = grouped(a=crowd(seed + 20, 500), b=crowd(seed + 30, 100))
    assert [store.get(path) for path in (NEAR_DUPLICATES_PATH, GROUPED_HASHES_PATH)] == written
    assert later.searched < first.searched
    assert (later.groups, later.grouped) == (first.groups, first.grouped)


def test_groups_are_those_of_brute_force(grouped):
    _, rows = grouped(a=crowd(1, 800))
    hashes = np.array(sorted(int(row["phash"], 16) for row in crowd(1, 800)), np.uint64)
    firsts = hashes[components_by_brute_force(hashes, 8)]
    expected = {int(h): int(first ^ np.uint64(1 << 63)) for h, first in zip(hashes, firsts, strict=True)}
    assert rows
    assert all(row["group"] % (1 << 64) == expected[int(row["phash"], 16)] for row in rows)


def test_another_distance_or_a_damaged_file_of_hashes_lets_all_be_compared(grouped, store, caplog):
    rows = [image("u1", 0), image("u2", 0b111)]
    assert grouped(8, a=rows)[0].searched == 2
    assert grouped(8, a=rows)[0].searched == 0
    assert grouped(2, a=rows)[0].groups == 0
    store.put(GROUPED_HASHES_PATH, b"half a file")
    assert grouped(8, a=rows)[0].groups == 1
    assert "all images are compared anew" in caplog.text


def test_a_catalog_that_cannot_be_read_is_an_error_and_leaves_the_old_groups(grouped, store):
    grouped(a=[image("u1", 0), image("u2", 0)])
    before = store.get(NEAR_DUPLICATES_PATH)
    store.put(catalog_path("a"), b"no Parquet")
    with pytest.raises(StoreError, match="not a Parquet file"):
        find_near_duplicates(store, ["a"], 8)
    assert store.get(NEAR_DUPLICATES_PATH) == before


def test_the_largest_groups_name_their_different_members_first(grouped):
    copies = [image(f"c{number:02}", 0, width=20 if number == 11 else 10) for number in range(12)]
    pairs = [image(f"p{n}{m}", (0xFFFF << (4 * n)) + (1 << 62) + m) for n in range(1, 12) for m in (0, 1)]
    result, _ = grouped(1, a=[*copies, image("z", 1), *pairs])
    assert [group.images for group in result.largest] == [13, *[2] * 9]
    largest = result.largest[0].members
    assert [member.url for member in largest] == ["c11", "z", *(f"c{number:02}" for number in range(6))]
    assert largest[0].path == "images/g/c11.jpg"
    assert result.largest[0].number == pa.scalar(-(2**63)).as_py()


def test_the_images_of_all_shards_are_grouped_under_their_gallerys_name(store, grouped):
    sharded(store)
    store.write_table(catalog_path("g/0000"), catalog_of(image("a", 0)))
    store.write_table(catalog_path("g/0001"), catalog_of(image("far", 0xFFFF_FFFF)))
    store.write_table(catalog_path("g/0002"), catalog_of(image("b", 1)))
    find_near_duplicates(store, ["g"], 8)
    rows = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES).to_pylist()
    assert [(row["gallery"], row["url"]) for row in rows] == [("g", "a"), ("g", "b")]


def test_resharding_changes_no_group(store):
    sharded(store)
    find_near_duplicates(store, ["g"], 30)
    before = store.get(NEAR_DUPLICATES_PATH)
    assert store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES).num_rows
    reshard(store, "g", 5)
    find_near_duplicates(store, ["g"], 30)
    assert store.get(NEAR_DUPLICATES_PATH) == before


def test_a_gallery_between_two_numbers_of_shards_is_not_looked_at(store):
    """Rows that are in two shards, or in none, would be taken for company, or be missed."""
    sharded(store)
    store.put(resharding_path("g"), b"6")
    with pytest.raises(ReshardError, match="run `imgdl reshard g 6` again"):
        find_near_duplicates(store, ["g"], 8)
