"""The program `imgdl` with very large galleries, whose files are those of shards."""

import json

import pytest

from imgdl_pipeline.cli import main
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    dataset_path,
    links_path,
    resharding_path,
    shards_path,
)
from imgdl_pipeline.core.storage.lease import Lease
from imgdl_pipeline.core.storage.parts import parts_of, stored_galleries
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.shards import sharded

FILE = """\
type: imgdl_pipeline.ShardedGallery
attributes: {name: laion, shards: 3, store: store, schedule: null, source: {type: demo}}
"""

SHELF = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: store
  galleries: [{name: demo, source: {type: demo}}]
"""

SHARDS = ("laion/0000", "laion/0001", "laion/0002")


@pytest.fixture(params=["a folder", "S3"])
def store(request, tmp_path, monkeypatch):
    """A store with a very large gallery of three shards, and with another gallery."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "laion.yaml").write_text(FILE)
    (tmp_path / "shelf.yaml").write_text(SHELF)
    monkeypatch.setenv("IMGDL_CONFIG", "laion.yaml")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("IMGDL_STORE", raising=False)
    root = str(tmp_path / "store")
    if request.param == "S3":
        root = request.getfixturevalue("s3_bucket")
        monkeypatch.setenv("IMGDL_STORE", root)
    made = Store(root)
    for shard in sharded(made, gallery="laion").values():
        shard.export()
    made.put(links_path("other"), b"x")
    return made


@pytest.fixture
def imgdl(capfd):
    """Runs the program in this process; returns its exit code, its output and its errors."""

    def imgdl_(*words):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(args=list(words), prog_name="imgdl")
        return ended.value.code or 0, *capfd.readouterr()

    return imgdl_


def images_in(store):
    return sorted(file.path for file in store.list("images/laion"))


class TestReshard:
    def test_it_says_what_moved_and_what_is_left_to_do(self, imgdl, store):
        images = images_in(store)
        code, out, err = imgdl("reshard", "laion", "2")
        first, *others = out.splitlines()
        assert code == 0
        assert first.startswith("laion has 2 shards now, and had 3: ")
        assert first.endswith(" of 12 links moved to another one, and no image was moved")
        assert others == ["laion/0002: its dataset was deleted with the shard"]
        assert err == "laion.yaml still has 3 shards: change it, too\n"
        assert images_in(store) == images
        assert parts_of(store, "laion") == SHARDS[:2]
        assert not list(store.list(dataset_path("laion/0002")))

    def test_the_number_that_it_has_changes_nothing(self, imgdl, store):
        assert imgdl("reshard", "laion", "3") == (0, "laion has 3 shards already: nothing was changed\n", "")

    def test_it_is_one_json_object(self, imgdl, store):
        code, out, _ = imgdl("reshard", "laion", "2", "--json")
        told = json.loads(out)
        assert (code, 0 < told.pop("moved") <= 12) == (0, True)
        assert told == {
            "name": "laion",
            "before": 3,
            "shards": 2,
            "links": 12,
            "deleted_datasets": ["laion/0002"],
        }

    def test_any_galleries_file_of_the_store_will_do(self, imgdl, store):
        code, out, err = imgdl("reshard", "laion", "1", "--config", "shelf.yaml")
        assert (code, err) == (0, "")
        assert out.startswith("laion has 1 shard now, and had 3: ")

    def test_what_an_interrupted_call_began_is_completed(self, imgdl, store):
        store.put(resharding_path("laion"), b"3")
        code, out, _ = imgdl("reshard", "laion", "5")
        assert (code, out) == (1, "")
        code, out, _ = imgdl("reshard", "laion", "3")
        assert (code, out) == (
            0,
            "laion has 3 shards now: what an interrupted call began is completed, and no image was moved\n",
        )

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (("other", "3"), 1, "other has no shards in "),
            (("laion/0001", "3"), 2, "'laion/0001' is no gallery name"),
            (("laion", "0"), 2, "0 is not in the range 1<=x<=10000"),
            (("laion", "many"), 2, "'many' is not a valid integer"),
            (("laion",), 2, "Missing argument 'SHARDS'"),
        ],
    )
    def test_what_cannot_be_is_refused_in_words(self, imgdl, store, words, code, told):
        ended, out, err = imgdl("reshard", *words)
        assert (ended, out) == (code, "")
        assert told in err
        assert "Traceback" not in err

    def test_a_shard_at_work_is_named(self, imgdl, store):
        with Lease(store, "laion/0001"):
            code, _, err = imgdl("reshard", "laion", "2")
        assert code == 1
        assert "another run is at work on laion/0001" in err
        assert parts_of(store, "laion") == SHARDS


class TestStatus:
    def test_the_gallery_comes_first_and_then_its_shards(self, imgdl, store):
        for words in ((), ("laion",)):
            code, out, _ = imgdl("status", *words, "--json")
            rows = json.loads(out)["galleries"]
            assert code == 0
            assert [each["name"] for each in rows] == ["laion", *SHARDS]
            assert rows[0]["ok"] == sum(each["ok"] for each in rows[1:]) == 12

    def test_a_shard_can_be_named(self, imgdl, store):
        code, out, _ = imgdl("status", "laion/0001")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == ["gallery", "laion/0001"]

    def test_between_two_numbers_of_shards_the_command_is_named(self, imgdl, store):
        store.put(resharding_path("laion"), b"6")
        code, _, err = imgdl("status")
        assert (code, err.count("run `imgdl reshard laion 6` again")) == (1, 1)


class TestView:
    def test_a_page_has_all_shards_or_one(self, imgdl, store, tmp_path):
        code, out, _ = imgdl("view", "laion", "--json")
        assert (code, json.loads(out)["rows"]) == (0, 12)
        assert (tmp_path / "laion.html").exists()
        code, out, _ = imgdl("view", "laion/0001", "--json")
        assert (code, 0 < json.loads(out)["rows"] < 12) == (0, True)
        assert (tmp_path / "laion-0001.html").exists()

    def test_a_shard_that_is_not_there_is_refused(self, imgdl, store):
        code, _, err = imgdl("view", "laion/0005")
        assert code == 2
        assert "there is no gallery 'laion/0005' in laion.yaml" in err


class TestRemove:
    def test_an_image_is_removed_from_its_shard_and_its_dataset(self, imgdl, store):
        url = "https://example.org/3.jpg"
        words = ("remove", "--url", url, "--reason", "asked for")
        code, out, _ = imgdl(*words)
        assert code == 0
        [shard] = [line.split(":")[0] for line in out.splitlines() if line.endswith(url)]
        assert shard in SHARDS
        code, out, _ = imgdl(*words, "--yes")
        assert code == 0
        assert f"{shard}: its dataset was written anew\n" in out
        assert imgdl("remove", "--verify") == (0, "nothing that was removed is left\n", "")
        assert len(images_in(store)) == 11

    def test_between_two_numbers_of_shards_the_command_is_named(self, imgdl, store):
        store.put(resharding_path("laion"), b"6")
        words = ("remove", "--url", "https://example.org/3.jpg", "--reason", "asked for", "--yes")
        code, _, err = imgdl(*words)
        assert code == 1
        assert "run `imgdl reshard laion 6` again" in err


class TestPrune:
    def test_a_gallery_with_shards_is_deleted_whole_but_only_by_name(self, imgdl, store):
        code, out, err = imgdl("prune", "--yes", "--config", "shelf.yaml")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == ["gallery", "other"]
        assert "laion was kept: it has shards; imgdl prune laion deletes it\n" in err
        assert stored_galleries(store) == {"laion"}
        code, out, err = imgdl("prune", "laion", "--config", "shelf.yaml")
        assert (code, err) == (0, "nothing was deleted; --yes deletes these files\n")
        assert store.get(shards_path("laion"))
        assert imgdl("prune", "laion", "--yes", "--config", "shelf.yaml")[0] == 0
        assert stored_galleries(store) == set()

    def test_a_file_of_one_gallery_prunes_no_other_that_is_not_named(self, imgdl, store):
        code, _, err = imgdl("prune", "--yes")
        assert code == 2
        assert "laion.yaml has only laion: name what to delete" in err
        assert stored_galleries(store) == {"laion", "other"}
        assert imgdl("prune", "other", "--yes")[0] == 0
        assert stored_galleries(store) == {"laion"}

    @pytest.mark.parametrize("name", ["laion", "laion/0001", "nobody"])
    def test_what_the_file_has_or_nobody_stored_cannot_be_pruned(self, imgdl, store, name):
        code, _, err = imgdl("prune", name, "--yes")
        assert code == 2
        assert "it cannot be pruned" in err
        assert parts_of(store, "laion") == SHARDS


def test_a_gallery_with_shards_keeps_its_name(imgdl, store):
    code, _, err = imgdl("rename", "laion", "new")
    assert (code, err) == (1, "laion has shards, and a gallery with shards keeps its name\n")
    assert store.get(catalog_path("laion/0001"))
