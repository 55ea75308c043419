import shutil
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.listing.build import unseen_links
from imgdl_pipeline.core.listing.reshard import reshard
from imgdl_pipeline.core.listing.shards import shards_with_work
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.layout import (
    TABLE_FOLDERS,
    catalog_path,
    checkpoints_path,
    downloads_path,
    gallery_folders,
    links_path,
    resharded_path,
    resharding_path,
    shard_name,
    unseen_links_path,
)
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease, dataset_lease
from imgdl_pipeline.core.storage.ledger import Ledger, download_table
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import ReshardError, parts_of
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.datasets import assert_whole, files_of, settings_of
from imgdl_pipeline_tests.support.mortal_store import Killed, MortalStore
from imgdl_pipeline_tests.support.rows import catalog_of, row
from imgdl_pipeline_tests.support.shards import MANY, MONDAY, hosts_of, shard_of, sharded, split_urls


@pytest.fixture
def run_before(store):
    """Four shards with a ledger and a catalog each."""
    split_urls(store, MANY)
    for number in range(4):
        name = shard_name("g", number)
        listed = store.read_table(links_path(name), LINKS)["url"].to_pylist()
        with Ledger(store, name) as ledger:
            for url in listed:
                ledger.add(row(url, path=f"images/{name}/{url[-8:]}", bytes=7))
        known = [{"url": url, "status": "ok", "path": f"images/{name}/{url[-8:]}"} for url in listed]
        columns = {field: [each.get(field) for each in known] for field in CATALOG.names}
        store.write_table(catalog_path(name), pa.table(columns, schema=CATALOG))
    return store


def paths(store, path_of, schema, shards):
    found = {}
    for number in range(shards):
        table = store.read_table(path_of(shard_name("g", number)), schema)
        found |= dict(zip(table["url"].to_pylist(), table["path"].to_pylist(), strict=True))
    return found


@pytest.mark.parametrize("shards", [1, 3, 9])
def test_resharding_moves_rows_and_no_image(run_before, shards):
    before = [paths(run_before, *each, 4) for each in ((downloads_path, DOWNLOADS), (catalog_path, CATALOG))]
    reshard(run_before, "g", shards)
    after = [
        paths(run_before, *each, shards) for each in ((downloads_path, DOWNLOADS), (catalog_path, CATALOG))
    ]
    assert after == before
    found = shard_of(run_before, shards)
    assert set(found) == set(MANY)
    assert all(len(each) == 1 for each in hosts_of(found).values())
    files = [file.path for file in run_before.list("links/gallery=g")]
    assert sum("links." in path for path in files) == shards
    assert not any("resharde" in path or "resharding" in path for path in files)
    split_urls(run_before, MANY, shards)
    assert shard_of(run_before, shards) == found


def test_resharding_that_was_interrupted_is_completed_and_nothing_else_goes_on(run_before, monkeypatch):
    moves = iter([True] * 5)

    def move(path, to):
        if not next(moves, False):
            raise StoreError("the disk is gone")
        return type(run_before).move(run_before, path, to)

    monkeypatch.setattr(run_before, "move", move)
    with pytest.raises(StoreError, match="the disk is gone"):
        reshard(run_before, "g", 6)
    monkeypatch.undo()
    with pytest.raises(ReshardError, match="run `imgdl reshard g 6` again"):
        split_urls(run_before, MANY, 6)
    with pytest.raises(ReshardError, match="finish `imgdl reshard g 6` first"):
        reshard(run_before, "g", 5)
    assert reshard(run_before, "g", 6).places.is_resharded
    assert set(shard_of(run_before, 6)) == set(paths(run_before, downloads_path, DOWNLOADS, 6)) == set(MANY)
    assert run_before.get(resharding_path("g")) is None


def test_resharding_waits_for_no_run(run_before):
    with Ledger(run_before, "g/0002"), pytest.raises(GalleryBusyError):
        reshard(run_before, "g", 2)
    assert shard_of(run_before).keys() == set(MANY)


@pytest.mark.parametrize("shards", [0, 10_001])
def test_a_number_of_shards_that_cannot_be_is_refused(run_before, shards):
    with pytest.raises(ValueError, match="1 to 10000 shards"):
        reshard(run_before, "g", shards)
    with pytest.raises(StoreError, match="has no shards"):
        reshard(run_before, "other", 4)


def contents(store, gallery="g"):
    """A gallery's rows by shard and table, and its other files; leases are nobody's."""
    found = {}
    for path in sorted({file.path for folder in gallery_folders(gallery) for file in store.list(folder)}):
        if "_leases" not in path and "_dataset_leases" not in path:
            is_table = path.endswith(".parquet") and path.startswith(TABLE_FOLDERS)
            data = store.get(path)
            found[path] = pq.read_table(pa.BufferReader(data)).to_pylist() if is_table else data
    return found


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_a_gallery_keeps_every_row_and_image_in_any_store(any_store, shards):
    sharded(any_store)
    before = contents(any_store)
    done = reshard(any_store, "g", shards)
    after = contents(any_store)
    assert (done.before, done.places.shards, done.links) == (3, shards, 12)
    assert 0 < done.moved <= 12
    assert {path: after.get(path) for path in before if path.startswith("images")} == {
        path: data for path, data in before.items() if path.startswith("images")
    }
    for table in ("links", "downloads", "catalog"):
        rows = [
            sorted(
                str(row)
                for path, each in found.items()
                if path.startswith(f"{table}/")
                and "." in path
                and path.endswith(".parquet")
                and "/_" not in path
                for row in each
            )
            for found in (before, after)
        ]
        assert rows[0] == rows[1]
        names = {path for path in after if path.startswith(f"{table}/") and "/_" not in path}
        assert names == {f"{table}/gallery=g/{table}.{number:04}.parquet" for number in range(shards)}
    assert parts_of(any_store, "g") == tuple(f"g/{number:04}" for number in range(shards))


def test_the_number_of_shards_that_a_gallery_has_changes_nothing(any_store):
    sharded(any_store)
    before = contents(any_store)
    done = reshard(any_store, "g", 3)
    assert (done.before, done.places.shards, done.links, done.moved) == (3, 3, 12, 0)
    assert contents(any_store) == before


def test_datasets_of_shards_that_are_gone_go_and_the_others_wait_for_their_next_export(any_store):
    made = sharded(any_store)
    for shard in made.values():
        shard.export()
    kept = files_of(any_store, "g/0000")
    done = reshard(any_store, "g", 1)
    assert done.datasets == ("g/0001", "g/0002")
    assert not list(any_store.list("datasets/g/0001"))
    assert files_of(any_store, "g/0000") == kept
    run = export_dataset(any_store, "g/0000", settings_of())
    assert run.manifest.images == 12
    assert_whole(any_store, "g/0000")


def test_a_dataset_that_is_being_written_keeps_its_shard(store):
    for shard in sharded(store).values():
        shard.export()
    before = contents(store)
    with dataset_lease(store, "g/0002"), pytest.raises(GalleryBusyError, match="the dataset of g/0002"):
        reshard(store, "g", 2)
    assert contents(store) == before


def test_rows_that_a_killed_run_has_left_are_moved_too(store):
    sharded(store)
    late = row("https://late.org/1.jpg", path="images/g/0001/1.jpg", bytes=4)
    Checkpoints(store, checkpoints_path("g/0001"), DOWNLOADS).add(download_table([late]))
    reshard(store, "g", 2)
    found = paths(store, downloads_path, DOWNLOADS, 2)
    assert (len(found), found[late.url]) == (13, late.path)


def test_what_a_call_for_more_shards_has_left_is_not_taken_for_this_calls(store):
    """Once: its files of a shard that this call does not make came to light as that shard's."""
    sharded(store)
    for path_of in (links_path, catalog_path, downloads_path, unseen_links_path):
        store.put(resharded_path(path_of("g/0002")), b"another call's")
        store.put(resharded_path(path_of("g/0007")), b"another call's")
    store.put(f"{resharded_path(unseen_links_path('g/0002'))}.parquet", b"another call's")
    reshard(store, "g", 2)
    assert not [path for path in contents(store) if ".0002" in path or ".0007" in path]


def test_links_that_no_catalog_has_seen_are_carried_over_once(store):
    sharded(store)
    lost = links_table([Link("https://lost.org/1.jpg")], MONDAY)
    Checkpoints(store, unseen_links_path("g/0002"), LINKS).add(lost)
    for shards in (5, 2, 4, 3):
        reshard(store, "g", shards)
        unseen = [unseen_links(store, part).tables() for part in parts_of(store, "g")]
        urls_ = [url for tables in unseen for table in tables for url in table["url"].to_pylist()]
        assert urls_ == ["https://lost.org/1.jpg"]


def killed_calls(tmp_path, shards):
    """Yield the store after a call that was killed before each of its writes, until one is not killed."""
    for writes in range(1000):
        root = str(tmp_path / str(writes))
        shutil.copytree(tmp_path / "whole", root)
        try:
            reshard(MortalStore(root, writes), "g", shards)
        except Killed:
            yield Store(root)
        else:
            return


@pytest.mark.parametrize("shards", [1, 3])
def test_a_call_that_is_killed_before_any_of_its_writes_is_completed_by_the_next(tmp_path, shards):
    for shard in sharded(Store(str(tmp_path / "whole")), 2, 4).values():
        shard.export()
    old, new = contents(Store(str(tmp_path / "whole"))), None
    shutil.copytree(tmp_path / "whole", tmp_path / "done")
    reshard(Store(str(tmp_path / "done")), "g", shards)
    new = contents(Store(str(tmp_path / "done")))
    kinds = Counter()
    for store in killed_calls(tmp_path, shards):
        state = {path: each for path, each in contents(store).items() if "/_resharded/" not in path}
        is_under_way = resharding_path("g") in state
        kinds["under way" if is_under_way else "old" if state == old else "new"] += 1
        if is_under_way:
            with (
                pytest.raises(ReshardError, match=f"run `imgdl reshard g {shards}` again"),
                Ledger(store, "g/0000"),
            ):
                pass
        else:
            assert state in (old, new)
        reshard(store, "g", shards)
        assert contents(store) == new
    assert kinds["old"] > 10
    assert kinds["under way"] > 10
    assert kinds["new"] > 0


def test_a_list_that_is_being_made_is_not_disturbed(store):
    sharded(store)
    before = contents(store)
    with Lease(store, "g"), pytest.raises(GalleryBusyError, match="at work on g:"):
        reshard(store, "g", 2)
    assert contents(store) == before


def test_every_shard_has_work_afterwards(store):
    """What was not done before is finished, and datasets of other images are renewed."""
    sharded(store)
    for part in parts_of(store, "g"):
        store.write_table(catalog_path(part), catalog_of())
    assert shards_with_work(store, "g", 3) == {}
    reshard(store, "g", 4)
    assert sorted(shards_with_work(store, "g", 4)) == [0, 1, 2, 3]
