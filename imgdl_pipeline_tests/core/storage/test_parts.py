import pytest

from imgdl_pipeline.core.model.schemas import CATALOG, columns
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    checkpoints_path,
    dataset_draft_path,
    dataset_path,
    downloads_path,
    image_path,
    leases_path,
    links_path,
    resharded_path,
    resharding_path,
    shards_path,
    unseen_links_path,
)
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.parts import (
    ReshardError,
    catalogs_of,
    check_resharded,
    is_sharded,
    parts_of,
    stored_galleries,
    stored_parts,
)
from imgdl_pipeline_tests.support.shards import sharded

URL = "https://example.org/1.jpg"
SHARDS = ("g/0000", "g/0001", "g/0002")


def test_a_gallery_is_its_own_part(any_store):
    any_store.put(links_path("g"), b"x")
    any_store.put(f"{dataset_path('g')}/train/1.jpg", b"x")
    assert parts_of(any_store, "g") == ("g",)
    assert stored_parts(any_store) == {"g": ("g",)}
    assert not is_sharded(any_store, "g")


def test_a_gallery_without_files_or_with_images_only_is_its_own_part(any_store):
    any_store.put(image_path("g", URL), b"x")
    assert parts_of(any_store, "other") == ("other",)
    assert parts_of(any_store, "g") == ("g",)
    assert stored_parts(any_store) == {"g": ("g",)}


def test_a_gallery_with_shards_has_these_as_parts(any_store):
    sharded(any_store)
    any_store.put(links_path("g2"), b"x")
    assert parts_of(any_store, "g") == SHARDS
    assert stored_parts(any_store) == {"g": SHARDS, "g2": ("g2",)}
    assert stored_galleries(any_store) == {"g", "g2"}
    assert is_sharded(any_store, "g")


def test_a_shard_is_its_own_part(store):
    sharded(store)
    assert parts_of(store, "g/0001") == ("g/0001",)


@pytest.mark.parametrize(
    "place",
    [
        catalog_path,
        downloads_path,
        links_path,
        lambda name: f"{checkpoints_path(name)}/000001-1.parquet",
        lambda name: f"{unseen_links_path(name)}/000001-1.parquet",
        lambda name: f"{dataset_path(name)}/manifest.json",
        lambda name: f"{dataset_draft_path(name)}/00000.tar",
    ],
)
def test_a_shard_is_found_by_any_of_its_files_whatever_the_table_of_hosts_says(any_store, place):
    sharded(any_store)
    any_store.put(place("g/0009"), b"x")
    assert parts_of(any_store, "g") == (*SHARDS, "g/0009")
    assert stored_parts(any_store)["g"] == (*SHARDS, "g/0009")


@pytest.mark.parametrize(
    "path",
    [
        f"{leases_path('g/0009')}/00000001.json",
        image_path("g/0009", URL),
        resharded_path(catalog_path("g/0009")),
        "catalog/gallery=g/mine.0009.parquet",
        "datasets/g/train/0009.jpg",
    ],
)
def test_a_shard_is_not_found_by_what_stays_when_it_is_gone(any_store, path):
    sharded(any_store)
    any_store.put(path, b"x")
    assert parts_of(any_store, "g") == SHARDS
    assert stored_parts(any_store) == {"g": SHARDS}


def test_the_dataset_of_a_shard_is_found_when_all_tables_are_gone(any_store):
    any_store.put(f"{dataset_path('g/0001')}/manifest.json", b"{}")
    assert stored_parts(any_store) == {"g": ("g/0001",)}


def test_catalogs_are_those_of_the_gallery_or_of_its_shards(any_store):
    for name in sharded(any_store):
        [catalog] = catalogs_of(any_store, name, columns(CATALOG, "url"))
        assert catalog.num_rows
    assert sum(each.num_rows for each in catalogs_of(any_store, "g", columns(CATALOG, "url"))) == 12
    any_store.delete([catalog_path("g/0001")])
    assert len(list(catalogs_of(any_store, "g", columns(CATALOG, "url")))) == 2
    assert list(catalogs_of(any_store, "other", columns(CATALOG, "url"))) == []


def test_between_two_numbers_of_shards_the_command_that_ends_this_is_named(any_store):
    sharded(any_store)
    check_resharded(any_store, "g")
    any_store.put(resharding_path("g"), b"6")
    words = r"^g was given 6 shards, but not all of its files: run `imgdl reshard g 6` again$"
    for name in ("g", "g/0001"):
        with pytest.raises(ReshardError, match=words):
            check_resharded(any_store, name)
    with pytest.raises(ReshardError, match=words):
        list(catalogs_of(any_store, "g", columns(CATALOG, "url")))
    with pytest.raises(ReshardError, match=words), Ledger(any_store, "g/0001"):
        pass
    assert any_store.get(shards_path("g"))
