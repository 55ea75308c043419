import hashlib
import shutil

import pytest

from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.gallery_files import (
    GalleryFiles,
    delete_gallery,
    gallery_files,
    rename_gallery,
)
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    checkpoints_path,
    contact_sheets_path,
    dataset_leases_path,
    downloads_path,
    gallery_folders,
    image_path,
    leases_path,
    links_path,
    renamed_from_path,
    resharded_path,
    resharding_path,
    unseen_links_path,
    validators_path,
)
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease, dataset_lease
from imgdl_pipeline.core.storage.ledger import Ledger, download_table
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import stored_galleries
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.mortal_store import Killed, MortalStore
from imgdl_pipeline_tests.support.rows import NOW, catalog_of, row
from imgdl_pipeline_tests.support.shards import sharded

URLS = [f"https://example.org/{number}.jpg" for number in range(4)]
DEAD = "https://example.org/dead.jpg"


def fill(store, gallery):
    """Store a gallery as runs leave it: a list, images, a ledger and a catalog, and what goes with them."""
    rows = []
    for url in URLS:
        data, path = f"picture at {url}".encode(), image_path(gallery, url)
        store.put(path, data)
        rows.append(
            {"url": url, "path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        )
    store.write_table(links_path(gallery), links_table(map(Link, [*URLS, DEAD]), NOW))
    dead = row(DEAD, status="failed", reason="http_404")
    store.write_table(downloads_path(gallery), download_table([*(row(**each) for each in rows), dead]))
    seen = [{**each, "last_seen": NOW} for each in [*rows, {"url": DEAD, "status": "failed"}]]
    store.write_table(catalog_path(gallery), catalog_of(*seen))
    store.put(validators_path(gallery), b"{}")
    store.put(f"{unseen_links_path(gallery)}/00000001.parquet", b"unseen")
    store.put(f"{contact_sheets_path(gallery)}/sheet.json", b"[]")
    return store


def contents(store, gallery):
    """What a gallery's files hold, by their paths; leases are of no gallery's own."""
    return {
        file.path: store.get(file.path)
        for folder in gallery_folders(gallery)
        for file in store.list(folder)
        if not file.path.startswith((leases_path(gallery), dataset_leases_path(gallery)))
    }


def paths_of(store, path, schema):
    return {each["url"]: each["path"] for each in store.read_table(path, schema).to_pylist()}


class TestFind:
    def test_a_store_without_files_has_no_galleries(self, any_store):
        assert stored_galleries(any_store) == set()

    def test_a_gallery_is_found_whichever_of_its_files_there_are(self, any_store):
        any_store.put(image_path("pictures", URLS[0]), b"x")
        any_store.put(links_path("listed"), b"x")
        any_store.put(downloads_path("tried"), b"x")
        any_store.put(catalog_path("cataloged"), b"x")
        assert stored_galleries(any_store) == {"pictures", "listed", "tried", "cataloged"}

    def test_files_that_are_no_gallerys_are_not_found(self, any_store):
        for path in (
            "notes.txt",
            "catalog/notes.txt",
            "catalog/mine/a.parquet",
            "downloads/tmp/a",
            "other/g/a",
        ):
            any_store.put(path, b"x")
        assert stored_galleries(any_store) == set()

    def test_files_are_counted_with_their_bytes(self, any_store):
        fill(any_store, "g")
        known = contents(any_store, "g")
        assert gallery_files(any_store, "g") == GalleryFiles(len(known), sum(map(len, known.values())))
        assert gallery_files(any_store, "other") == GalleryFiles(0, 0)

    def test_a_gallery_whose_name_begins_like_anothers_is_counted_alone(self, any_store):
        fill(any_store, "g")
        before = gallery_files(any_store, "g")
        fill(any_store, "g2")
        fill(any_store, "g.2")
        assert gallery_files(any_store, "g") == before


class TestDelete:
    def test_all_files_of_a_gallery_go_and_no_others(self, any_store):
        for gallery in ("g", "g2", "G-2"):
            fill(any_store, gallery)
        any_store.put("notes.txt", b"mine")
        others = {gallery: contents(any_store, gallery) for gallery in ("g2", "G-2")}
        delete_gallery(any_store, "g")
        assert stored_galleries(any_store) == {"g2", "G-2"}
        assert gallery_files(any_store, "g") == GalleryFiles(0, 0)
        assert {gallery: contents(any_store, gallery) for gallery in others} == others
        assert any_store.get("notes.txt") == b"mine"

    def test_no_folder_stays(self, store, tmp_path):
        delete_gallery(fill(store, "g"), "g")
        assert [each for each in (tmp_path / "store").rglob("*") if "g" in each.name.split("=")] == []

    def test_a_gallery_that_has_no_files_is_deleted_already(self, any_store):
        delete_gallery(any_store, "g")
        assert stored_galleries(any_store) == set()

    def test_a_gallery_at_work_keeps_all_of_its_files(self, any_store):
        fill(any_store, "g")
        before = contents(any_store, "g")
        with Lease(any_store, "g"), pytest.raises(GalleryBusyError, match="another run is at work on g"):
            delete_gallery(any_store, "g")
        assert contents(any_store, "g") == before

    def test_it_may_be_interrupted_before_any_of_its_writes_and_called_again(self, tmp_path):
        for writes in range(1000):
            root = str(tmp_path / str(writes))
            fill(Store(root), "g")
            try:
                delete_gallery(MortalStore(root, writes), "g")
            except Killed:
                delete_gallery(Store(root), "g")
                assert stored_galleries(Store(root)) == set()
            else:
                break
        assert writes > 3


def fill_shards(store):
    """Store a gallery with shards, each with a dataset."""
    for shard in sharded(store).values():
        shard.export()
    return store


class TestShards:
    def test_the_files_of_all_shards_are_counted(self, any_store):
        fill_shards(any_store)
        known = contents(any_store, "g")
        assert len({path for path in known if path.startswith("images/")}) == 12
        assert gallery_files(any_store, "g").files >= len(known)

    def test_all_shards_are_deleted_and_no_other_gallery(self, any_store):
        fill_shards(any_store)
        for name in ("g2", "other"):
            fill(any_store, name)
        any_store.put(resharding_path("g"), b"6")
        any_store.put(resharded_path(catalog_path("g/0005")), b"x")
        others = {name: contents(any_store, name) for name in ("g2", "other")}
        delete_gallery(any_store, "g")
        assert stored_galleries(any_store) == {"g2", "other"}
        assert gallery_files(any_store, "g") == GalleryFiles(0, 0)
        assert {name: contents(any_store, name) for name in others} == others

    @pytest.mark.parametrize("lease", [Lease, dataset_lease], ids=["a run", "an export"])
    def test_a_shard_at_work_keeps_all_files(self, any_store, lease):
        before = contents(fill_shards(any_store), "g")
        with lease(any_store, "g/0001"), pytest.raises(GalleryBusyError, match="g/0001"):
            delete_gallery(any_store, "g")
        assert contents(any_store, "g") == before

    def test_a_list_that_is_being_split_keeps_all_files(self, any_store):
        before = contents(fill_shards(any_store), "g")
        with Lease(any_store, "g"), pytest.raises(GalleryBusyError, match="at work on g:"):
            delete_gallery(any_store, "g")
        assert contents(any_store, "g") == before

    def test_a_deletion_may_be_interrupted_before_any_of_its_writes_and_called_again(self, tmp_path):
        fill_shards(Store(str(tmp_path / "whole")))
        for writes in range(0, 1000, 7):
            root = str(tmp_path / str(writes))
            shutil.copytree(tmp_path / "whole", root)
            try:
                delete_gallery(MortalStore(root, writes), "g")
            except Killed:
                delete_gallery(Store(root), "g")
                assert stored_galleries(Store(root)) == set()
            else:
                break
        assert writes > 50

    def test_a_gallery_with_shards_keeps_its_name(self, any_store):
        before = contents(fill_shards(any_store), "g")
        with pytest.raises(StoreError, match=r"^g has shards, and a gallery with shards keeps its name$"):
            rename_gallery(any_store, "g", "new")
        assert contents(any_store, "g") == before
        assert stored_galleries(any_store) == {"g"}

    def test_no_gallery_takes_the_name_of_one_with_shards(self, any_store):
        fill(fill_shards(any_store), "old")
        with pytest.raises(FileExistsError, match="g has files"):
            rename_gallery(any_store, "old", "g")


class TestRename:
    def test_every_file_has_the_new_name_and_the_tables_name_the_new_paths(self, any_store):
        fill(any_store, "old")
        before = contents(any_store, "old")
        assert rename_gallery(any_store, "old", "new") == len(URLS)
        assert stored_galleries(any_store) == {"new"}
        tables = {downloads_path("new"), catalog_path("new")}
        renamed = {
            path.replace("gallery=old", "gallery=new").replace("images/old", "images/new"): data
            for path, data in before.items()
        }
        after = contents(any_store, "new")
        assert set(after) == set(renamed)
        assert all(after[path] == data for path, data in renamed.items() if path not in tables)
        expected = {**{url: image_path("new", url) for url in URLS}, DEAD: None}
        assert paths_of(any_store, downloads_path("new"), DOWNLOADS) == expected
        assert paths_of(any_store, catalog_path("new"), CATALOG) == expected
        assert all(any_store.get(path) for path in expected.values() if path)

    def test_only_the_paths_of_the_tables_change(self, any_store):
        fill(any_store, "old")
        tables = [(downloads_path, DOWNLOADS), (catalog_path, CATALOG), (links_path, LINKS)]
        before = [any_store.read_table(path("old"), schema) for path, schema in tables]
        rename_gallery(any_store, "old", "new")
        for table, (path, schema) in zip(before, tables, strict=True):
            after = any_store.read_table(path("new"), schema)
            kept = [name for name in schema.names if name != "path"]
            assert after.select(kept).equals(table.select(kept))

    def test_other_galleries_keep_their_files(self, any_store):
        for gallery in ("old", "old2", "older", "new2"):
            fill(any_store, gallery)
        others = {gallery: contents(any_store, gallery) for gallery in ("old2", "older", "new2")}
        rename_gallery(any_store, "old", "new")
        assert {gallery: contents(any_store, gallery) for gallery in others} == others

    @pytest.mark.parametrize("new", ["old2", "ol", "images", "a-much-longer-name"])
    def test_the_new_name_may_be_longer_or_shorter_or_begin_alike(self, store, new):
        fill(store, "old")
        rename_gallery(store, "old", new)
        assert stored_galleries(store) == {new}
        paths = paths_of(store, downloads_path(new), DOWNLOADS)
        assert paths == {**{url: image_path(new, url) for url in URLS}, DEAD: None}

    def test_there_and_back_again_is_as_before(self, store):
        before = contents(fill(store, "old"), "old")
        rename_gallery(store, "old", "new")
        rename_gallery(store, "new", "old")
        assert contents(store, "old") == before

    def test_a_gallery_that_was_only_listed_is_renamed(self, store):
        store.write_table(links_path("old"), links_table(map(Link, URLS), NOW))
        assert rename_gallery(store, "old", "new") == 0
        assert stored_galleries(store) == {"new"}
        assert store.read_table(links_path("new"), LINKS)["url"].to_pylist() == URLS

    def test_a_gallery_whose_ledger_is_lost_is_renamed_with_the_rows_of_its_catalog(self, store):
        fill(store, "old")
        store.delete([downloads_path("old")])
        rename_gallery(store, "old", "new")
        paths = paths_of(store, downloads_path("new"), DOWNLOADS)
        assert paths == {**{url: image_path("new", url) for url in URLS}, DEAD: None}

    def test_rows_of_a_killed_runs_checkpoints_are_in_the_new_ledger(self, store):
        fill(store, "old")
        url = "https://example.org/late.jpg"
        store.put(image_path("old", url), b"late")
        late = download_table([row(url, path=image_path("old", url), bytes=4)])
        Checkpoints(store, checkpoints_path("old"), DOWNLOADS).add(late)
        assert rename_gallery(store, "old", "new") == len(URLS) + 1
        assert paths_of(store, downloads_path("new"), DOWNLOADS)[url] == image_path("new", url)
        assert store.get(image_path("new", url)) == b"late"

    def test_the_new_name_may_have_no_files_of_its_own(self, any_store):
        for gallery in ("old", "new"):
            fill(any_store, gallery)
        before = {gallery: contents(any_store, gallery) for gallery in ("old", "new")}
        with pytest.raises(FileExistsError, match=r"^new has files in .* already$"):
            rename_gallery(any_store, "old", "new")
        assert {gallery: contents(any_store, gallery) for gallery in before} == before

    def test_the_old_name_must_have_files(self, any_store):
        with pytest.raises(FileNotFoundError, match=r"^old has no files in "):
            rename_gallery(any_store, "old", "new")
        assert stored_galleries(any_store) == set()

    @pytest.mark.parametrize("new", ["old", "Old", "OLD"])
    def test_names_that_differ_only_in_case_are_refused(self, any_store, new):
        before = contents(fill(any_store, "old"), "old")
        with pytest.raises(FileExistsError, match="differ only in their case"):
            rename_gallery(any_store, "old", new)
        assert contents(any_store, "old") == before
        assert stored_galleries(any_store) == {"old"}

    def test_a_name_that_differs_only_in_case_from_a_third_gallerys_is_refused(self, any_store):
        """Some disks would mix the two, and no galleries file may have both."""
        for gallery in ("old", "Third"):
            fill(any_store, gallery)
        with pytest.raises(FileExistsError, match="Third"):
            rename_gallery(any_store, "old", "third")
        assert stored_galleries(any_store) == {"old", "Third"}

    @pytest.mark.parametrize("busy", ["old", "new"])
    def test_nothing_moves_while_a_run_is_at_work_on_either(self, any_store, busy):
        before = contents(fill(any_store, "old"), "old")
        with Lease(any_store, busy), pytest.raises((GalleryBusyError, FileExistsError)):
            rename_gallery(any_store, "old", "new")
        assert contents(any_store, "old") == before
        assert contents(any_store, "new") == {}

    def test_a_refusal_leaves_the_gallery_free_to_run(self, store):
        fill(store, "old")
        with pytest.raises(FileExistsError):
            rename_gallery(store, "old", "OLD")
        with Ledger(store, "old") as ledger:
            assert ledger.table.num_rows == len(URLS) + 1

    def test_the_renamed_gallery_is_free_to_run(self, any_store):
        fill(any_store, "old")
        rename_gallery(any_store, "old", "new")
        with Ledger(any_store, "new") as ledger:
            assert ledger.table.num_rows == len(URLS) + 1


def interrupted_renames(tmp_path):
    """Yield the store after a rename that was killed before each of its writes, until one is not killed."""
    for writes in range(1000):
        root = str(tmp_path / str(writes))
        fill(Store(root), "old")
        try:
            rename_gallery(MortalStore(root, writes), "old", "new")
        except Killed:
            yield Store(root)
        else:
            return


@pytest.fixture
def renamed(tmp_path):
    """What a rename without any interruption leaves."""
    store = fill(Store(str(tmp_path / "renamed")), "old")
    rename_gallery(store, "old", "new")
    return contents(store, "new")


def test_a_rename_that_is_killed_before_any_of_its_writes_is_completed_by_the_next(tmp_path, renamed):
    died = 0
    for store in interrupted_renames(tmp_path):
        if "old" not in stored_galleries(store):
            continue
        died += 1
        rename_gallery(store, "old", "new")
        assert contents(store, "new") == renamed
        assert stored_galleries(store) == {"new"}
    assert died > 3 * len(URLS)


def test_a_rename_that_is_killed_when_the_old_name_has_no_files_left_is_completed_by_the_next(
    tmp_path, renamed
):
    died = 0
    for store in interrupted_renames(tmp_path):
        if "old" in stored_galleries(store):
            continue
        died += 1
        assert rename_gallery(store, "old", "new") == len(URLS)
        assert contents(store, "new") == renamed
        assert store.get(renamed_from_path("new")) is None
    assert died


def test_an_image_is_always_at_the_old_path_or_at_the_new_one(tmp_path):
    for store in interrupted_renames(tmp_path):
        for url in URLS:
            data = [store.get(image_path(gallery, url)) for gallery in ("old", "new")]
            assert f"picture at {url}".encode() in data


def test_a_rename_to_another_name_does_not_continue_an_interrupted_one(store):
    fill(store, "old")
    store.put(renamed_from_path("new"), b"someone else")
    with pytest.raises(FileExistsError, match="new has files"):
        rename_gallery(store, "old", "new")


def test_a_rename_on_s3_that_fails_halfway_is_completed_by_the_next(s3_bucket, monkeypatch):
    store = fill(Store(s3_bucket), "old")
    moved = []

    def move(path, to):
        if len(moved) == 2:
            raise Killed
        moved.append(path)
        Store.move(store, path, to)

    with monkeypatch.context() as patched:
        patched.setattr(store, "move", move)
        with pytest.raises(Killed):
            rename_gallery(store, "old", "new")
    assert stored_galleries(store) == {"old", "new"}
    assert rename_gallery(store, "old", "new") == len(URLS)
    assert stored_galleries(store) == {"new"}
    assert all(store.get(image_path("new", url)) for url in URLS)
