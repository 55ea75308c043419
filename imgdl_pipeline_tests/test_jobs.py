"""The job that removes images, as the launchpad runs it."""

import tarfile

import dagster as dg
import pyarrow.parquet as pq
import pytest

from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.catalog.left_over import left_over
from imgdl_pipeline.core.dataset.removal import left_in_datasets
from imgdl_pipeline.core.near_duplicates.groups import find_near_duplicates
from imgdl_pipeline.core.storage.layout import (
    NEAR_DUPLICATES_PATH,
    REMOVED_PATH,
    catalog_path,
    dataset_leases_path,
)
from imgdl_pipeline.core.storage.lease import Lease
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.running import run_stages

JOB = "remove_images"


class Shelves:
    """Two galleries of three links each, which share a picture; both have a dataset, and have run."""

    def __init__(self, store, server, folder, jpegs):
        self.store, self.links = store, {}
        for name in "ab":
            self.links[name] = [
                server.serve(f"/{name}{number}.jpg", jpeg(number * 10 + (number and ord(name))))
                for number in range(3)
            ]
            (folder / f"{name}.txt").write_text("\n".join(self.links[name]))
        self.given = {
            "store": store.root,
            "schedule": None,
            "near_duplicates": {"distance": 0},
            "download": {"allow_addresses": ["127.0.0.0/8"], "attempts": 1, "robots_txt": False},
            "galleries": [
                {
                    "name": name,
                    "source": {"type": "url_list", "path": f"{folder}/{name}.txt"},
                    "dataset": {"format": "webdataset", "shard_images": 2},
                }
                for name in "ab"
            ],
        }
        for name in "ab":
            self.run(name, jpegs)
        find_near_duplicates(store, ["a", "b"], 0)

    def run(self, name, jpegs):
        run_stages(Galleries(**self.given), name, self.store, jpegs)

    def remove(self, *, raise_on_error=True, **config):
        config = {"reason": "asked for by its owner", **config}
        steps = {f"{JOB}_step": {"config": config}}
        job = dg.build_defs_for_component(ImageGalleries(Galleries(**self.given))).resolve_job_def(JOB)
        with dg.DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(
                instance=instance, run_config={"ops": steps}, raise_on_error=raise_on_error
            )

    def in_dataset(self, name):
        """The links whose pictures a dataset has, by reading it."""
        found = []
        for tar in sorted(self.store.local_path(f"datasets/{name}").glob("*.tar")):
            with tarfile.open(tar) as opened:
                found += [opened.extractfile(each).read() for each in opened if each.name.endswith(".json")]
        return {url for url in self.links[name] if any(url.encode() in row for row in found)}

    def files(self):
        return {
            file.path: self.store.get(file.path)
            for folder in ("images", "datasets", "catalog", "downloads")
            for file in self.store.list(folder)
            if "_leases" not in file.path
        }


@pytest.fixture
def made(store, server, tmp_path, jpegs, monkeypatch):
    monkeypatch.delenv("IMGDL_STORE", raising=False)
    return Shelves(store, server, tmp_path, jpegs)


def told_by(result):
    [event] = [event for event in result.all_events if event.is_successful_output]
    return {name: each.value for name, each in event.step_output_data.metadata.items()}


def words_of_failure(result):
    [failure] = result.get_step_failure_events()
    return failure.step_failure_data.user_failure_data.description


def test_the_job_only_names_what_it_would_remove_unless_it_is_told_otherwise(made):
    before = made.files()
    told = told_by(made.remove(urls=[made.links["a"][0]]))
    assert told["files"] == 2, "its own, and the same bytes in the other gallery"
    assert told["datasets"] == []
    for name in "ab":
        assert f"| `{name}` | `{made.links[name][0]}` |" in told["links"]
    assert made.files() == before
    assert made.store.get(REMOVED_PATH) is None


def test_the_job_removes_images_and_writes_their_datasets_anew(made):
    assert made.in_dataset("a") == set(made.links["a"])
    told = told_by(made.remove(urls=[made.links["a"][0]], dry_run=False))
    assert (told["files"], told["datasets"]) == (2, ["a", "b"])
    for name in "ab":
        assert made.in_dataset(name) == set(made.links[name][1:])
    assert list(left_over(made.store)) == list(left_in_datasets(made.store)) == []
    assert pq.read_table(made.store.local_path(NEAR_DUPLICATES_PATH)).num_rows == 0


def test_the_job_leaves_datasets_alone_that_have_none_of_the_images(made):
    row = pq.read_table(made.store.local_path(catalog_path("b")), partitioning=None).to_pylist()[2]
    before = {name: data for name, data in made.files().items() if name.startswith("datasets/a/")}
    told = told_by(made.remove(sha256s=[row["sha256"]], dry_run=False))
    assert (told["files"], told["datasets"]) == (1, ["b"])
    assert {name: data for name, data in made.files().items() if name.startswith("datasets/a/")} == before


def test_a_dataset_that_was_missed_is_written_anew_by_the_next_removal(made):
    """The job was killed, or the dataset was being written, when the images were removed."""
    with Lease(made.store, "the dataset of a", folder=dataset_leases_path("a")):
        result = made.remove(urls=[made.links["a"][1]], dry_run=False, raise_on_error=False)
    assert words_of_failure(result).startswith("another run is at work on the dataset of a: process ")
    assert [each.urls for each in left_in_datasets(made.store)] == [(made.links["a"][1],)]
    told = told_by(made.remove(urls=[made.links["a"][1]], dry_run=False))
    assert told["datasets"] == ["a"]
    assert list(left_in_datasets(made.store)) == []


def test_the_next_run_keeps_the_picture_out_of_the_dataset(made, server, jpegs):
    made.remove(urls=[made.links["a"][1]], dry_run=False)
    server.requests.clear()
    made.run("a", jpegs)
    assert "/a1.jpg" not in server.paths()
    assert made.in_dataset("a") == {made.links["a"][0], made.links["a"][2]}


def test_a_dataset_that_nobody_configures_any_more_is_written_anew_too(made):
    for gallery in made.given["galleries"]:
        del gallery["dataset"]
    assert told_by(made.remove(urls=[made.links["a"][0]], dry_run=False))["datasets"] == ["a", "b"]
    assert made.in_dataset("a") == set(made.links["a"][1:])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "name what to remove"),
        ({"sha256s": ["12"]}, "'12' is no sha256: give 64 hex digits"),
        ({"urls": ["https://h.org/a.jpg"], "reason": ""}, "give the reason"),
    ],
)
def test_a_config_that_means_nothing_fails_in_words(store, config, words):
    galleries = Galleries(store=store.root, galleries=[{"name": "a", "source": {"type": "demo"}}])
    job = dg.build_defs_for_component(ImageGalleries(galleries)).resolve_job_def(JOB)
    given = {"reason": "asked for", "dry_run": False, **config}
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance,
            run_config={"ops": {f"{JOB}_step": {"config": given}}},
            raise_on_error=False,
        )
    assert words in words_of_failure(result)
    assert store.get(REMOVED_PATH) is None


def test_a_secret_in_a_link_is_not_told(made, server, tmp_path, jpegs):
    server.serve("/secret.jpg", jpeg(77))
    link = server.url("/secret.jpg?access_token=abc123def456")
    (tmp_path / "a.txt").write_text("\n".join([*made.links["a"], link]))
    made.run("a", jpegs)
    told = told_by(made.remove(urls=[link]))
    assert "/secret.jpg" in told["links"]
    assert "abc123def456" not in told["links"]


def test_a_condition_that_fails_during_a_removal_fails_it_in_words(made, jpegs):
    made.given["galleries"][0]["dataset"]["where"] = "cast(substr(url, 1, 0) || '1' as integer) = 1"
    made.run("a", jpegs)
    manifest = made.store.get("datasets/a/manifest.json").replace(b"|| '1'", b"|| 'x'")
    made.store.put("datasets/a/manifest.json", manifest)
    result = made.remove(urls=[made.links["a"][1]], dry_run=False, raise_on_error=False)
    [failure] = result.get_step_failure_events()
    data = failure.step_failure_data.user_failure_data
    assert data is not None, failure.step_failure_data.error.to_string()
    assert "Could not convert string 'x' to INT32" in data.description


def test_the_job_has_the_key_prefix_and_says_what_each_field_means(store):
    galleries = Galleries(
        store=store.root,
        assets={"key_prefix": ["media"]},
        galleries=[{"name": "a", "source": {"type": "demo"}}],
    )
    job = dg.build_defs_for_component(ImageGalleries(galleries)).resolve_job_def("media_remove_images")
    [op] = job.nodes
    fields = op.definition.config_schema.config_type.fields
    assert set(fields) == {"urls", "sha256s", "phashes", "distance", "reason", "dry_run"}
    assert all(field.description for field in fields.values())
    assert fields["dry_run"].default_value is True
    assert [name for name, field in fields.items() if field.is_required] == ["reason"]
