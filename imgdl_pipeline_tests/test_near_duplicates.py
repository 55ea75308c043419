"""The asset of images that look alike, with its job and its schedule."""

import base64
import hashlib
import io
import json
from datetime import timedelta

import dagster as dg
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.catalog.removal import removals, remove
from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.dataset.removal import remove_from_datasets
from imgdl_pipeline.core.model.schemas import NEAR_DUPLICATES
from imgdl_pipeline.core.storage.layout import catalog_path, image_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.near_duplicates import build_near_duplicates
from imgdl_pipeline_tests.support.datasets import urls_in
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.rows import NOW, catalog_of

JOB = "find_near_duplicates"
FILE = "near_duplicates/near_duplicates.parquet"
ALIKE = ("f0f0f0f0f0f0f0f0", "f0f0f0f0f0f0f0f1", "f0f0f0f0f0f0f0f3")
OTHER = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch):
    monkeypatch.delenv("IMGDL_STORE", raising=False)


def put_catalog(store, gallery, *phashes):
    """Store pictures, and a catalog with the hash of each."""
    rows = []
    for number, phash in enumerate(phashes):
        url, data = f"https://h.org/{gallery}/{number}.jpg", jpeg(number, (160, 120))
        path = image_path(gallery, url)
        store.put(path, data)
        seen = NOW + timedelta(days=number)
        facts = {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "phash": phash}
        rows.append({"url": url, "width": 160, "height": 120, "first_seen": seen, **facts})
    store.write_table(catalog_path(gallery), catalog_of(*rows))


def galleries_in(store, *names, **more):
    given = [name if isinstance(name, dict) else {"name": name} for name in names]
    return Galleries(
        store=store.root,
        galleries=[{"source": {"type": "demo"}, **each} for each in given],
        **{"near_duplicates": {"distance": 2}, **more},
    )


def defs_of(galleries):
    return dg.build_defs_for_component(ImageGalleries(galleries))


def run(galleries, job=JOB, raise_on_error=True):
    with dg.DagsterInstance.ephemeral() as instance:
        found = defs_of(galleries).resolve_job_def(job)
        return found.execute_in_process(instance=instance, raise_on_error=raise_on_error)


def metadata(result):
    [event] = result.get_asset_materialization_events()
    return {key: entry.value for key, entry in event.materialization.metadata.items()}


def groups_in(store, path=FILE):
    rows = pq.read_table(f"{store.root}/{path}").to_pylist()
    return {(row["gallery"], row["url"].rpartition("/")[2]): row["representative"] for row in rows}


@pytest.mark.parametrize("own", [False, True], ids=["partitions", "own assets"])
def test_the_asset_is_downstream_of_all_catalogs_and_has_no_partitions(store, own):
    galleries = galleries_in(
        store, "a", "b", asset_per_gallery=own, assets={"owners": ["team:x"], "tags": {"a": "b"}}
    )
    graph = defs_of(galleries).resolve_asset_graph()
    near = graph.get(dg.AssetKey("near_duplicates"))
    catalogs = [["gallery", name, "catalog"] for name in "ab"] if own else [["gallery_catalog"]]
    assert near.parent_keys == {dg.AssetKey(key) for key in catalogs}
    assert not near.is_partitioned
    assert near.description.startswith("Images of all galleries that look alike, in groups")
    assert (near.group_name, near.owners, near.tags["a"]) == ("galleries", ["team:x"], "b")
    assert near.kinds == {"parquet"}
    columns = near.metadata["dagster/column_schema"].columns
    assert [column.name for column in columns] == NEAR_DUPLICATES.names
    assert all(column.description for column in columns)
    references = near.metadata["dagster/code_references"].code_references
    assert references[-1].file_path.endswith("imgdl_pipeline/near_duplicates.py")


def test_without_the_key_there_is_no_asset_no_job_and_no_schedule(store):
    galleries = galleries_in(store, "a", near_duplicates=None)
    defs = defs_of(galleries)
    assert dg.AssetKey("near_duplicates") not in defs.resolve_asset_graph().get_all_asset_keys()
    assert JOB not in {job.name for job in defs.jobs}
    assert {schedule.name for schedule in defs.schedules} == {"daily_galleries"}
    with pytest.raises(ValueError, match="the galleries file has no near_duplicates"):
        build_near_duplicates(galleries, [])


@pytest.mark.parametrize("own", [False, True], ids=["partitions", "own assets"])
def test_the_job_groups_the_images_of_all_galleries(store, own):
    put_catalog(store, "a", ALIKE[0], OTHER)
    put_catalog(store, "b", ALIKE[1], ALIKE[2])
    result = run(galleries_in(store, "a", "b", "never", asset_per_gallery=own))
    assert groups_in(store) == {("a", "0.jpg"): True, ("b", "0.jpg"): False, ("b", "1.jpg"): False}
    told = metadata(result)
    assert (told["images"], told["groups"], told["grouped"], told["searched"]) == (4, 1, 3, 4)
    assert told["dagster/row_count"] == 3
    assert told["path"] == f"{store.root}/{FILE}"
    assert "`https://h.org/a/0.jpg`" in told["groups_by_size"]


def test_the_next_run_compares_only_what_is_new(store):
    put_catalog(store, "a", *ALIKE)
    run(galleries_in(store, "a", "b"))
    put_catalog(store, "b", OTHER)
    assert metadata(run(galleries_in(store, "a", "b")))["searched"] == 1


def test_the_largest_groups_are_shown_as_a_picture_with_a_row_for_each(store):
    put_catalog(store, "a", *ALIKE)
    put_catalog(store, "b", OTHER, OTHER)
    told = metadata(run(galleries_in(store, "a", "b")))
    assert told["groups"] == 2
    text = told["largest_groups"]
    assert text.startswith("![the largest groups](data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2].rstrip(")")))) as sheet:
        one, two = sheet.width, sheet.height
    put_catalog(store, "b", OTHER)
    text = metadata(run(galleries_in(store, "a", "b")))["largest_groups"]
    with Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2].rstrip(")")))) as sheet:
        assert (sheet.width, sheet.height < two) == (one, True)


def test_without_groups_there_is_no_picture_and_an_empty_table(store):
    put_catalog(store, "a", OTHER)
    told = metadata(run(galleries_in(store, "a")))
    assert "largest_groups" not in told
    assert (told["groups"], told["dagster/row_count"], told["groups_by_size"]) == (0, 0, "none")
    assert pq.read_schema(f"{store.root}/{FILE}").equals(NEAR_DUPLICATES)


def test_no_catalog_at_all_is_no_failure(store):
    assert metadata(run(galleries_in(store, "a", "b")))["images"] == 0


def test_a_group_whose_files_are_gone_has_no_picture_and_is_told(store):
    put_catalog(store, "a", *ALIKE)
    store.delete([file.path for file in store.list("images")])
    told = metadata(run(galleries_in(store, "a")))
    assert told["groups"] == 1
    assert "largest_groups" not in told


def test_a_secret_in_a_link_is_not_told(store):
    put_catalog(store, "a", *ALIKE)
    table = pq.read_table(f"{store.root}/{catalog_path('a')}", partitioning=None)
    secret = [f"https://ann:pass2word@h.org/{number}.jpg?access_token=abc123def456" for number in range(3)]
    place = table.schema.get_field_index("url")
    store.write_table(catalog_path("a"), table.set_column(place, table.schema.field(place), [secret]))
    told = json.dumps(metadata(run(galleries_in(store, "a"))), default=str)
    assert "h.org/0.jpg" in told
    assert "pass2word" not in told
    assert "abc123def456" not in told


def test_a_store_that_fails_ends_the_step_in_words(store):
    store.put(catalog_path("a"), b"no Parquet")
    result = run(galleries_in(store, "a"), raise_on_error=False)
    [failure] = result.get_step_failure_events()
    data = failure.step_failure_data
    assert data.user_failure_data.description.startswith(f"{store.root}/{catalog_path('a')}")
    assert {name: each.value for name, each in data.user_failure_data.metadata.items()} == {
        "error": "UnreadableError"
    }
    assert data.error.cause is None


def test_the_schedule_runs_the_job_at_the_time_of_the_galleries(store):
    galleries = galleries_in(store, "a", schedule="0 4 * * *", schedule_status="RUNNING")
    schedule = defs_of(galleries).resolve_schedule_def(JOB)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 4 * * *", "UTC")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.job_name == JOB


def test_without_a_schedule_there_is_a_job_for_people(store):
    defs = defs_of(galleries_in(store, "a", schedule=None))
    assert not list(defs.schedules or [])
    assert defs.resolve_job_def(JOB).executor_def.name == "in_process"


def test_a_gallerys_own_schedule_is_none_for_near_duplicates(store):
    defs = defs_of(galleries_in(store, {"name": "a", "schedule": "0 4 * * 1"}, schedule=None))
    assert {schedule.job_name for schedule in defs.schedules} == {"download_galleries"}


def test_two_files_with_prefixes_look_for_their_own_near_duplicates(tmp_path):
    shops = {name: Store(str(tmp_path / name)) for name in ("shop", "press")}
    made = []
    for name, store in shops.items():
        put_catalog(store, "a", *ALIKE)
        dataset = {"format": "imagefolder", "where": "representative"}
        gallery = {"name": "a", "dataset": dataset}
        made.append(defs_of(galleries_in(store, gallery, assets={"key_prefix": [name]})))
    merged = dg.Definitions.merge(*made)
    dg.Definitions.validate_loadable(merged)
    graph = merged.resolve_asset_graph()
    for name, store in shops.items():
        near = dg.AssetKey([name, "near_duplicates"])
        assert graph.get(near).parent_keys == {dg.AssetKey([name, "gallery_catalog"])}
        assert graph.get(near).child_keys == {dg.AssetKey([name, "gallery_dataset"])}
        assert merged.resolve_schedule_def(f"{name}_{JOB}").job_name == f"{name}_{JOB}"
        with dg.DagsterInstance.ephemeral() as instance:
            job = merged.resolve_job_def(f"{name}_{JOB}")
            result = job.execute_in_process(instance=instance)
        assert result.success
        [event] = result.get_asset_materialization_events()
        assert event.asset_key == near
        assert set(groups_in(store)) == {("a", f"{number}.jpg") for number in range(3)}


def test_a_dataset_of_representatives_has_one_image_of_each_group_of_all_galleries(store):
    put_catalog(store, "a", ALIKE[0], OTHER)
    put_catalog(store, "b", ALIKE[1], ALIKE[2])
    dataset = {"format": "imagefolder", "where": "representative"}
    galleries = galleries_in(store, *({"name": name, "dataset": dataset} for name in "ab"))
    run(galleries)
    for each in galleries.galleries:
        export_dataset(store, each.name, each.dataset)
    assert [urls_in(store, name) for name in "ab"] == [
        ["https://h.org/a/0.jpg", "https://h.org/a/1.jpg"],
        [],
    ]


def test_when_a_representative_is_removed_another_image_stands_for_its_group(store):
    """Else the whole group leaves the datasets until near duplicates are looked for again."""
    put_catalog(store, "a", *ALIKE, OTHER)
    dataset = {"format": "imagefolder", "where": "representative"}
    galleries = galleries_in(store, {"name": "a", "dataset": dataset})
    run(galleries)
    settings = galleries.galleries[0].dataset
    export_dataset(store, "a", settings)
    assert urls_in(store, "a") == [
        "https://h.org/a/0.jpg",
        "https://h.org/a/3.jpg",
    ]
    remove(store, removals(urls=["https://h.org/a/0.jpg"], reason="r"))
    remove_from_datasets(store)
    export_dataset(store, "a", settings)
    assert urls_in(store, "a") == [
        "https://h.org/a/1.jpg",
        "https://h.org/a/3.jpg",
    ]
