import json

import pytest

from imgdl_pipeline.core.dataset.manifest import MANIFEST, DatasetFile, Manifest
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.datasets import settings_of

FILES = {
    "b.tar": DatasetFile("b~2.tar", "b.tar", 5, "b" * 64, 2, "1-rows"),
    "a.md": DatasetFile("a.md", "a.md", 3, "a" * 64),
}


def manifest(files=FILES, made_by="imgdl_pipeline 1"):
    return Manifest(settings_of(where="width > 1", resize={"side": 9}), made_by, 2, files)


def test_a_manifest_is_read_as_it_was_written(store):
    store.put(f"datasets/g/{MANIFEST}", manifest().json())
    assert Manifest.read(store, "g") == manifest()


def test_without_a_dataset_there_is_no_manifest(store):
    assert Manifest.read(store, "g") is None


def test_a_manifest_names_its_files_in_the_order_of_their_parts():
    fields = json.loads(manifest().json())
    assert [each["part"] for each in fields["files"]] == ["a.md", "b.tar"]
    assert fields["settings"]["where"] == "width > 1"
    assert (fields["images"], fields["made_by"]) == (2, "imgdl_pipeline 1")


def test_the_order_in_which_files_were_written_changes_nothing():
    other = manifest(dict(reversed(FILES.items())))
    assert (other.json(), other.digest) == (manifest().json(), manifest().digest)


def test_the_digest_is_of_the_files_contents_only():
    renamed = {**FILES, "b.tar": DatasetFile("b~3.tar", "b.tar", 5, "b" * 64, 2, "1-rows")}
    assert manifest(renamed, "another").digest == manifest().digest
    altered = {**FILES, "b.tar": DatasetFile("b~2.tar", "b.tar", 5, "c" * 64, 2, "1-rows")}
    assert manifest(altered).digest != manifest().digest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"files": []}',
        b"\xff\xfe",
        json.dumps({**json.loads(manifest().json()), "settings": {"format": "zip"}}).encode(),
        json.dumps({**json.loads(manifest().json()), "files": [{"name": "x"}]}).encode(),
        json.dumps({**json.loads(manifest().json()), "files": [{"newer": 1}]}).encode(),
        json.dumps({**json.loads(manifest().json()), "files": 5}).encode(),
        manifest().json()[:-40],
    ],
)
def test_a_manifest_that_makes_no_sense_is_an_error_that_says_what_to_do(store, data):
    store.put(f"datasets/g/{MANIFEST}", data)
    with pytest.raises(StoreError, match=r"(?s)manifest\.json is no manifest .* delete the folder"):
        Manifest.read(store, "g")


def test_what_is_wrong_with_a_manifest_is_said_on_one_line(store):
    """Once: pydantic's message has several, and links to its website."""
    fields = {**json.loads(manifest().json()), "settings": {"format": "zip"}}
    store.put(f"datasets/g/{MANIFEST}", json.dumps(fields).encode())
    with pytest.raises(StoreError) as caught:
        Manifest.read(store, "g")
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
