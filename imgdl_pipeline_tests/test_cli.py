"""The program `imgdl`, in this process where that is enough, and in one of its own where it is not.

`click.testing.CliRunner` would not do for `run`: its standard error is no file, and a run's display keeps a
copy of that file. So all commands write to the descriptors that pytest captures.
"""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import termios
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from imgdl_pipeline.cli import main, summary
from imgdl_pipeline.config.galleries_file import read_galleries_file
from imgdl_pipeline.core.model.schemas import CATALOG, NEAR_DUPLICATES
from imgdl_pipeline.core.near_duplicates.groups import find_near_duplicates
from imgdl_pipeline.core.storage.layout import (
    NEAR_DUPLICATES_PATH,
    catalog_path,
    dataset_leases_path,
    downloads_path,
    renamed_from_path,
)
from imgdl_pipeline.core.storage.lease import Lease
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.running import GalleryRun
from imgdl_pipeline.version import __version__
from imgdl_pipeline_tests.support.datasets import assert_whole, files_of
from imgdl_pipeline_tests.support.pictures import PICTURE, jpeg
from imgdl_pipeline_tests.support.rows import catalog_of
from imgdl_pipeline_tests.support.running import run_stages
from imgdl_pipeline_tests.support.view import Page

COMMANDS = sorted(main.commands)
STATUSES = ("ok", "invalid", "failed", "refused")
UNWANTED = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "IMGDL_STORE")
"""Variables of a developer's shell or a CI service, with which the program would behave otherwise."""

HEAD = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: store
  schedule: null
  download: {allow_addresses: [127.0.0.0/8], robots_txt: false, attempts: 1, timeout: 60}
"""


@dataclass(frozen=True)
class Ended:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON object on the standard output."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


class Project:
    """A folder with galleries as a user has it: a file, link lists, a store, and a home for Dagster."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "galleries.yaml"
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self.write("{name: demo, source: {type: demo, images: 4}}")

    def write(self, *galleries, attributes=()):
        """Write the galleries file."""
        lines = [*attributes, "galleries:", *(f"- {each}" for each in galleries)]
        self.file.write_text(HEAD + "".join(f"  {line}\n" for line in lines))

    def write_lists(self, *galleries, attributes=(), **lists):
        """Write link lists, and a galleries file with a gallery for each."""
        for name, urls in lists.items():
            (self.folder / f"{name}.txt").write_text("\n".join(urls) + "\n")
        listed = [f"{{name: {name}, source: {{type: url_list, path: {name}.txt}}}}" for name in lists]
        self.write(*galleries, *listed, attributes=attributes)

    @property
    def store(self):
        return Store(str(self.folder / "store"))

    @property
    def environment(self):
        kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
        return {**kept, "DAGSTER_HOME": str(self.home), "IMGDL_CONFIG": str(self.file), "TERM": "xterm"}

    def start(self, *words, **more):
        """Start the program in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "imgdl_pipeline", *words], cwd=self.folder, env=self.environment, **more
        )

    def rows(self, path):
        return pq.read_table(self.folder / "store" / path, partitioning=None).to_pylist()

    def runs(self):
        """The runs that Dagster has recorded, the first one first, as gallery and status."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            runs = reversed(instance.get_runs())
            return [(each.tags["dagster/partition"], each.status.value) for each in runs]


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder)
    monkeypatch.chdir(folder)
    for name in UNWANTED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(made.home))
    monkeypatch.setenv("IMGDL_CONFIG", "galleries.yaml")
    return made


@pytest.fixture
def imgdl(project, capfd):
    """Runs the program in this process."""

    def imgdl_(*words):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(args=list(words), prog_name="imgdl")
        return Ended(ended.value.code or 0, *capfd.readouterr())

    return imgdl_


@pytest.fixture
def pictures(server):
    """The links of three pictures on the tests' server."""
    return [server.serve(f"/{number}.jpg", jpeg(number, (64, 48))) for number in range(3)]


class TestRun:
    def test_it_runs_a_gallery_and_prints_what_became_of_it(self, imgdl, project, server, pictures):
        project.write_lists(mine=[*pictures, server.url("/dead.jpg")])
        done = imgdl("run", "mine")
        assert done.code == 0, done.err
        path = project.folder / "store/catalog/gallery=mine/catalog.parquet"
        assert re.fullmatch(
            r"mine: 4 links\n  ok            3\n  invalid       0\n  failed        1   1 http_404\n"
            r"  refused       0\ndownloaded 3 images, 0\.0 MB, in \d+\.\d s: \d+ a second\n"
            rf"catalog: {path}\n",
            done.out,
        )
        assert path.exists()

    def test_elsewhere_than_on_a_terminal_its_progress_is_plain_lines(self, imgdl, project, pictures):
        project.write_lists(mine=pictures)
        assert imgdl("run", "mine").err == "mine: listing\nmine: downloading\nmine: checking\n"

    def test_it_runs_the_named_galleries_in_their_order_each_once(self, imgdl, project, pictures):
        project.write_lists(a=pictures, b=pictures, c=pictures)
        done = imgdl("run", "c", "a", "c")
        assert re.findall(r"^(\w): 3 links$", done.out, re.MULTILINE) == ["c", "a"]
        assert project.runs() == [("c", "SUCCESS"), ("a", "SUCCESS")]

    def test_it_runs_all_galleries(self, imgdl, project, pictures):
        project.write_lists(a=pictures, b=pictures)
        done = imgdl("run", "--all")
        assert re.findall(r"^(\w): 3 links$", done.out, re.MULTILINE) == ["a", "b"]

    def test_a_second_run_asks_for_nothing(self, imgdl, project, server, pictures):
        project.write_lists(mine=pictures)
        imgdl("run", "mine")
        server.requests.clear()
        assert "downloaded 0 images" in imgdl("run", "mine").out
        assert server.paths() == []

    def test_by_force_it_asks_for_every_link_again(self, imgdl, project, server, pictures):
        project.write_lists(mine=pictures)
        imgdl("run", "mine")
        server.requests.clear()
        assert imgdl("run", "mine", "--force").code == 0
        assert sorted(server.paths()) == ["/0.jpg", "/1.jpg", "/2.jpg"]

    def test_a_limit_leaves_the_rest_to_the_next_run(self, imgdl, project, server, pictures):
        project.write_lists(a=pictures, b=pictures)
        limited = imgdl("run", "--all", "--limit", "1")
        assert limited.code == 0
        assert len(server.paths()) == 2, "one link of each gallery"
        assert "warning: every_link_was_tried: 2 listed links wait for the next run" in limited.err
        assert "downloaded 2 images" in imgdl("run", "a").out

    def test_the_option_stands_for_the_variable(self, imgdl, project, pictures):
        project.write_lists(mine=pictures)
        project.file.rename(project.folder / "other.yaml")
        assert imgdl("run", "mine", "--config", "other.yaml").code == 0

    def test_the_variable_of_the_store_overrides_the_file(self, imgdl, project, pictures, monkeypatch):
        project.write_lists(mine=pictures)
        monkeypatch.setenv("IMGDL_STORE", "elsewhere")
        assert f"catalog: {project.folder}/elsewhere/catalog/" in imgdl("run", "mine").out

    @pytest.mark.parametrize("form", ["assets: {key_prefix: [media]}", "asset_per_gallery: true"])
    def test_it_runs_a_gallery_whatever_its_assets_are_called(self, imgdl, project, pictures, form):
        project.write_lists(mine=pictures, other=pictures, attributes=[form])
        done = imgdl("run", "mine")
        assert done.out.startswith("mine: 3 links\n"), done.err
        assert not (project.folder / "store/links/gallery=other").exists()

    def test_a_run_that_fails_ends_with_the_cause(self, imgdl, project):
        project.write("{name: mine, source: {type: url_list, path: nowhere.txt}}")
        done = imgdl("run", "mine")
        cause = f"the run of mine failed: {project.folder}/nowhere.txt: there is no such file, "
        assert done.code == 1
        assert done.err.splitlines()[-1].startswith(cause)
        assert done.out == ""
        assert "Traceback" not in done.err

    def test_a_run_that_fails_after_a_good_one_with_warnings_ends_with_the_cause(
        self, imgdl, project, server, pictures
    ):
        project.write_lists(mine=[*pictures, server.url("/dead.jpg")])
        assert "warning: few_links_failed: 1 of 4 links failed" in imgdl("run", "mine").err
        (project.folder / "mine.txt").unlink()
        assert imgdl("run", "mine").err.splitlines()[-1].startswith("the run of mine failed: ")

    def test_when_a_gallery_fails_the_others_run(self, imgdl, project, pictures):
        project.write_lists("{name: broken, source: {type: url_list, path: nowhere.txt}}", good=pictures)
        done = imgdl("run", "--all")
        assert done.code == 1
        assert "the run of broken failed: " in done.err
        assert done.out.startswith("good: 3 links\n")
        assert project.runs() == [("broken", "FAILURE"), ("good", "SUCCESS")]

    def test_an_unset_secret_fails_the_run_in_words(self, imgdl, project):
        source = '{type: imgur, gallery: hot, client_id: "{{ env.NO_SUCH_ID }}"}'
        project.write(f"{{name: locked, source: {source}}}")
        done = imgdl("run", "locked")
        assert done.code == 1
        cause = "source.client_id needs the environment variable NO_SUCH_ID, which is not set"
        assert done.err.splitlines()[-1] == f"the run of locked failed: {cause}"

    def test_a_check_that_finds_an_error_makes_the_exit_status_1(self, imgdl, project, server, pictures):
        lists = {"mine": [*pictures, server.url("/dead.jpg")]}
        project.write_lists(**lists, attributes=["checks: {failed_warn: 0, failed_error: 0.1}"])
        done = imgdl("run", "mine")
        assert done.code == 1
        assert done.out.startswith("mine: 4 links\n")
        assert done.err.splitlines()[-1] == "error: few_links_failed: 1 of 4 links failed"

    def test_a_check_that_warns_leaves_the_exit_status_0(self, imgdl, project, server, pictures):
        lists = {"mine": [*pictures, server.url("/dead.jpg")]}
        project.write_lists(**lists, attributes=["checks: {failed_warn: 0, failed_error: 1}"])
        done = imgdl("run", "mine")
        assert done.code == 0
        assert done.err.splitlines()[-1] == "warning: few_links_failed: 1 of 4 links failed"

    def test_a_gallery_at_work_fails_the_run_and_names_the_other_one(self, imgdl, project, server, pictures):
        project.write_lists(mine=pictures)
        with Lease(project.store, "mine"):
            done = imgdl("run", "mine")
        assert done.code == 1
        assert "the run of mine failed: another run is at work on mine: process " in done.err
        assert server.paths() == []

    def test_a_gallery_that_does_not_exist_is_wrong_usage_and_nothing_runs(
        self, imgdl, project, server, pictures
    ):
        project.write_lists(hubble=pictures, earth=pictures)
        done = imgdl("run", "earth", "huble")
        assert done.code == 2
        assert done.err.splitlines()[-1].endswith(
            "there is no gallery 'huble' in galleries.yaml; did you mean 'hubble'?"
        )
        assert done.out == ""
        assert server.paths() == []
        assert project.runs() == []

    @pytest.mark.parametrize("words", [[], ["demo", "--all"]])
    def test_the_galleries_are_named_or_all(self, imgdl, words):
        done = imgdl("run", *words)
        assert done.code == 2
        assert done.err.splitlines()[-1] == "Error: name the galleries to run, or give --all"

    @pytest.mark.parametrize("limit", ["0", "-1", "many"])
    def test_a_limit_that_is_no_count_is_wrong_usage(self, imgdl, limit):
        assert imgdl("run", "demo", "--limit", limit).code == 2

    def test_a_file_that_cannot_be_used_is_an_error_with_its_lines(self, imgdl, project):
        project.file.write_text("type: imgdl_pipeline.ImageGalleries\nattributes: {galleries: []}\n")
        done = imgdl("run", "--all")
        assert done.code == 2
        assert "galleries.yaml:2: attributes.galleries: " in done.err
        assert "name at least one gallery" in done.err
        assert "Traceback" not in done.err

    def test_runs_appear_in_the_instance_of_dagsters_home_which_is_made(
        self, project, imgdl, pictures, monkeypatch
    ):
        project.write_lists(mine=pictures)
        project.home = project.folder / "made" / "home"
        monkeypatch.setenv("DAGSTER_HOME", str(project.home))
        done = imgdl("run", "mine", "--json")
        assert done.json["galleries"][0]["succeeded"]
        assert project.runs() == [("mine", "SUCCESS")]

    def test_without_dagsters_home_a_run_is_not_kept(self, project, imgdl, pictures, monkeypatch):
        project.write_lists(mine=pictures)
        monkeypatch.delenv("DAGSTER_HOME")
        assert imgdl("run", "mine").code == 0
        assert project.runs() == []

    def test_a_home_that_dagster_does_not_accept_is_an_error_in_words(
        self, imgdl, project, pictures, capfd, monkeypatch
    ):
        project.write_lists(mine=pictures)
        monkeypatch.setenv("DAGSTER_HOME", "home")
        done = imgdl("run", "mine")
        assert done.code in (1, 2)
        assert "DAGSTER_HOME" in done.err
        assert "absolute path" in done.err


class TestRunInJson:
    def test_it_is_one_object_with_the_numbers_of_each_gallery(self, imgdl, project, server, pictures):
        project.write_lists(mine=[*pictures, server.url("/dead.jpg")])
        done = imgdl("run", "mine", "--json")
        [mine] = done.json["galleries"]
        with dg.DagsterInstance.from_config(str(project.home)) as instance:
            [run] = instance.get_runs()
        assert {**mine, "seconds": 0} == {
            "name": "mine",
            "succeeded": True,
            "error": None,
            "run_id": run.run_id,
            "links": 4,
            "path": f"{project.folder}/store/catalog/gallery=mine/catalog.parquet",
            "ok": 3,
            "invalid": 0,
            "failed": 1,
            "refused": 0,
            "reasons": {"failed/http_404": 1},
            "fetched": 3,
            "waiting": 0,
            "seconds": 0,
            "dataset": None,
            "failed_checks": {},
            "warnings": {"few_links_failed": "1 of 4 links failed"},
        }

    def test_a_gallery_that_failed_has_its_error_and_the_others_their_numbers(self, imgdl, project, pictures):
        project.write_lists("{name: broken, source: {type: url_list, path: nowhere.txt}}", good=pictures)
        done = imgdl("run", "--all", "--json")
        broken, good = done.json["galleries"]
        assert done.code == 1
        assert "nowhere.txt: there is no such file" in broken["error"]
        assert (broken["succeeded"], broken["links"], broken["ok"]) == (False, None, None)
        assert (good["succeeded"], good["links"], good["ok"]) == (True, 3, 3)

    def test_a_check_that_finds_an_error_is_in_it(self, imgdl, project, server, pictures):
        lists = {"mine": [*pictures, server.url("/dead.jpg")]}
        project.write_lists(**lists, attributes=["checks: {failed_warn: 0, failed_error: 0.1}"])
        done = imgdl("run", "mine", "--json")
        [mine] = done.json["galleries"]
        assert done.code == 1
        assert mine["failed_checks"] == {"few_links_failed": "1 of 4 links failed"}
        assert not mine["succeeded"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "nobody", "--json"], 2),
        (["run", "--json"], 2),
        (["run", "--json", "--limit", "0", "demo"], 2),
        (["run", "--limit", "0", "--json", "demo"], 2),
        (["status", "nobody", "--json"], 2),
        (["rename", "a b", "c", "--json"], 2),
        (["rename", "nobody", "somebody", "--json"], 1),
        (["rename", "--json", "only-one"], 2),
        *(
            ([command, "--json", "--config", "missing.yaml"], 2)
            for command in ("list", "check", "status", "prune")
        ),
        (["run", "demo", "--json", "--config", "missing.yaml"], 2),
        (["rename", "a", "b", "--json", "--config", "missing.yaml"], 2),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_an_error_in_json_is_one_object_on_the_standard_output(imgdl, words, code):
    done = imgdl(*words)
    assert done.code == code
    assert set(done.json) & {"error", "problems"}
    assert "Traceback" not in done.err


def test_a_store_that_cannot_be_opened_is_an_error_without_its_password(imgdl, monkeypatch):
    monkeypatch.setenv("IMGDL_STORE", "ftp://me:password@example.org/x")
    for command in ("status", "prune"):
        done = imgdl(command, "--json")
        assert done.code == 1
        assert "cannot open the store" in done.json["error"]
        assert "password" not in done.out + done.err


class TestSummary:
    @pytest.mark.parametrize("status", STATUSES)
    def test_every_status_has_its_line(self, status):
        assert re.search(rf"^  {status} +\d", summary(self.ran()), re.MULTILINE)

    def test_reasons_are_with_their_status(self):
        assert "  failed        2   1 dns, 1 timeout\n" in summary(self.ran(failed=2, dns=1, timeout=1))

    def test_one_image_is_one_image(self):
        assert "downloaded 1 image, 0.0 MB, in 0.0 s: 0 a second" in summary(self.ran(fetched=1))
        assert "downloaded 2 images, " in summary(self.ran(fetched=2))

    @staticmethod
    def ran(fetched=0, failed=0, **reasons):
        images = {"fetched": fetched, "bytes": 0, "seconds": 0.0, "images_per_second": 0.0}
        catalog = {"dagster/row_count": 3, "path": "p", "ok": 1, "invalid": 0, "refused": 0, "failed": failed}
        catalog |= {f"failed/{reason}": count for reason, count in reasons.items()}
        return GalleryRun(
            "g", "1", None, was_interrupted=False, metadata={"images": images, "catalog": catalog}
        )


class TestList:
    def test_it_has_each_gallerys_source_and_schedule(self, imgdl, project):
        project.write(
            "{name: demo, source: {type: demo, images: 4}}",
            '{name: mine, schedule: "0 6 * * 1", source: {type: url_list, path: mine.txt}}',
        )
        done = imgdl("list")
        assert [line.split() for line in done.out.splitlines()] == [
            ["gallery", "source", "lists", "schedule"],
            ["demo", "demo", "images:", "4", "-"],
            ["mine", "url_list", "path:", "mine.txt", "0", "6", "*", "*", "1"],
        ]
        assert imgdl("list", "--json").json == {
            "file": "galleries.yaml",
            "store": "store",
            "galleries": [
                {"name": "demo", "source": "demo", "lists": "images: 4", "schedule": None},
                {"name": "mine", "source": "url_list", "lists": "path: mine.txt", "schedule": "0 6 * * 1"},
            ],
        }

    def test_without_a_file_of_ones_own_it_is_the_demos(self, imgdl, monkeypatch):
        monkeypatch.delenv("IMGDL_CONFIG")
        assert [each["name"] for each in imgdl("list", "--json").json["galleries"]] == ["demo"]

    @pytest.mark.parametrize("form", [[], ["--json"]])
    def test_secrets_are_not_in_it(self, imgdl, project, monkeypatch, form):
        monkeypatch.setenv("MY_ID", "value-of-the-variable")
        project.write(
            "{name: a, source: {type: imgur, gallery: hot, client_id: literal-id}}",
            '{name: b, source: {type: imgur, gallery: hot, client_id: "{{ env.MY_ID }}"}}',
            '{name: c, source: {type: url_list, path: "http://me:password@example.org/?api_key=key"}}',
            attributes=[],
        )
        monkeypatch.setenv("IMGDL_STORE", "s3://me:password@bucket/x")
        done = imgdl("list", *form)
        assert done.code == 0, done.err
        for secret in ("literal-id", "value-of-the-variable", "password", "api_key=key"):
            assert secret not in done.out + done.err


class TestCheck:
    def test_a_good_file_is_good(self, imgdl):
        assert imgdl("check") == Ended(0, "galleries.yaml: good, 1 gallery\n", "")
        expected = {"file": "galleries.yaml", "valid": True, "problems": [], "unset_secrets": []}
        assert imgdl("check", "--json").json == expected

    BAD = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  stroe: data
  galleries:
    - name: demo
      source: {type: demo, images: none}
    - name: "no name"
      source: {type: flickr}
"""
    PLACES = ("galleries.yaml:3", "galleries.yaml:6", "galleries.yaml:7", "galleries.yaml:8")

    def test_every_error_is_reported_at_once_with_its_line(self, imgdl, project):
        project.file.write_text(self.BAD)
        done = imgdl("check")
        assert (done.code, done.out) == (2, "")
        lines = done.err.splitlines()
        assert tuple(line.partition(": ")[0] for line in lines) == self.PLACES
        assert "attributes.stroe: " in lines[0]
        assert "did you mean 'store'?" in lines[0]
        assert "not 'none'" in lines[1]

    def test_every_error_is_in_the_json_object(self, imgdl, project):
        project.file.write_text(self.BAD)
        done = imgdl("check", "--json")
        assert (done.code, done.err) == (2, "")
        assert done.json["valid"] is False
        assert tuple(each["place"] for each in done.json["problems"]) == self.PLACES
        assert all(each["message"] for each in done.json["problems"])

    @pytest.mark.parametrize("text", ["", "- a list", "a: [", "\x00", "type: x"])
    def test_what_is_no_galleries_file_is_an_error_with_a_line(self, imgdl, project, text):
        project.file.write_text(text)
        done = imgdl("check")
        assert done.code == 2
        assert re.match(r"galleries\.yaml:[12]: \w", done.err)

    def test_a_file_that_is_missing_is_an_error(self, imgdl):
        done = imgdl("check", "--config", "nowhere.yaml")
        assert (done.code, done.err) == (2, "nowhere.yaml: cannot be read: No such file or directory\n")

    @pytest.mark.parametrize("form", [[], ["--json"]])
    def test_unset_secrets_are_named_and_set_ones_are_not_shown(self, imgdl, project, monkeypatch, form):
        monkeypatch.setenv("MY_ID", "value-of-the-variable")
        project.write(
            '{name: locked, source: {type: imgur, gallery: hot, client_id: "{{ env.NO_SUCH_ID }}"}}',
            '{name: open, source: {type: imgur, gallery: hot, client_id: "{{ env.MY_ID }}"}}',
            "{name: literal, source: {type: imgur, gallery: hot, client_id: literal-id}}",
        )
        done = imgdl("check", *form)
        words = "client_id needs the environment variable NO_SUCH_ID, which is not set"
        assert done.code == 0
        if form:
            [unset] = done.json["unset_secrets"]
            assert unset["gallery"] == "locked"
            assert unset["message"].endswith(words)
        else:
            assert done.out == "galleries.yaml: good, 3 galleries\n"
            assert re.fullmatch(rf"locked: \S*{words}\n", done.err)
        for secret in ("value-of-the-variable", "literal-id"):
            assert secret not in done.out + done.err

    def test_it_asks_nobody_and_stores_nothing(self, imgdl, project, server):
        project.write(f"{{name: mine, source: {{type: url_list, path: {server.url('/list.txt')}}}}}")
        assert imgdl("check").code == 0
        assert server.paths() == []
        assert not (project.folder / "store").exists()


class TestStatus:
    NOW = datetime.now(timezone.utc)

    @pytest.fixture
    def galleries(self, project):
        """A gallery that never ran, a fresh one, a stale one, and one whose list is empty."""
        project.write(
            *(f"{{name: {name}, source: {{type: demo}}}}" for name in ("new", "fresh", "stale", "empty")),
            attributes=["checks: {fresh_days: 2}"],
        )
        for name, days in (("fresh", 1), ("stale", 3)):
            seen = self.NOW - timedelta(days=days)
            rows = [
                {"url": "a", "bytes": 1_000_000, "last_seen": seen},
                {"url": "b", "bytes": 234_567, "last_seen": seen},
                {"url": "c", "status": "failed", "last_seen": seen},
            ]
            project.store.write_table(catalog_path(name), catalog_of(*rows))
        project.store.write_table(catalog_path("empty"), CATALOG.empty_table())
        return project

    def test_it_shows_what_each_catalog_holds_and_how_old_it_is(self, imgdl, galleries):
        lines = [line.split() for line in imgdl("status").out.splitlines()]
        header = ["gallery", "state", "links", *STATUSES, "bytes", "refreshed"]
        refreshed = f"{self.NOW - timedelta(days=1):%Y-%m-%dT%H:%MZ}"
        assert lines[:3] == [
            header,
            ["new", "never", "ran", *"000000", "-"],
            ["fresh", "fresh", "3", "2", "0", "1", "0", "1,234,567", refreshed],
        ]
        assert lines[3][:2] == ["stale", "stale"]
        assert lines[4] == ["empty", "lists", "nothing", *"000000", "-"]

    def test_it_is_one_json_object(self, imgdl, galleries):
        done = imgdl("status", "--json").json
        nothing = {"links": 0, **dict.fromkeys(STATUSES, 0), "bytes": 0, "refreshed_at": None}
        counted = {"links": 3, "ok": 2, "invalid": 0, "failed": 1, "refused": 0, "bytes": 1_234_567}
        refreshed = [f"{self.NOW - timedelta(days=days):%Y-%m-%dT%H:%MZ}" for days in (1, 3)]
        assert done == {
            "store": "store",
            "galleries": [
                {"name": "new", "state": "never ran", **nothing},
                {"name": "fresh", "state": "fresh", **counted, "refreshed_at": refreshed[0]},
                {"name": "stale", "state": "stale", **counted, "refreshed_at": refreshed[1]},
                {"name": "empty", "state": "lists nothing", **nothing},
            ],
        }

    def test_it_shows_the_named_galleries_only(self, imgdl, galleries):
        done = imgdl("status", "stale", "new", "--json").json
        assert [each["name"] for each in done["galleries"]] == ["stale", "new"]

    def test_a_gallery_that_does_not_exist_is_wrong_usage(self, imgdl, galleries):
        done = imgdl("status", "stael")
        assert done.code == 2
        assert "did you mean 'stale'?" in done.err

    def test_a_gallery_that_missed_two_scheduled_runs_is_stale(self, imgdl, project):
        project.write(
            '{name: hourly, schedule: "0 * * * *", source: {type: demo}}',
            "{name: none, source: {type: demo}}",
        )
        for name in ("hourly", "none"):
            rows = catalog_of({"url": "a", "last_seen": self.NOW - timedelta(hours=3)})
            project.store.write_table(catalog_path(name), rows)
        done = imgdl("status", "--json").json
        assert [each["state"] for each in done["galleries"]] == ["stale", "fresh"]

    def test_a_run_makes_a_gallery_fresh(self, imgdl, project, pictures):
        project.write_lists(mine=pictures)
        imgdl("run", "mine")
        [mine] = imgdl("status", "--json").json["galleries"]
        assert (mine["state"], mine["links"], mine["ok"]) == ("fresh", 3, 3)

    def test_a_catalog_that_is_damaged_is_an_error_that_names_it(self, imgdl, project):
        project.store.put(catalog_path("demo"), b"not Parquet")
        done = imgdl("status")
        assert done.code == 1
        assert "catalog/gallery=demo/catalog.parquet is not a Parquet file" in done.err
        assert "Traceback" not in done.err


class TestRename:
    @pytest.fixture
    def old(self, imgdl, project, server, pictures):
        """The gallery `old`, which has run."""
        project.write_lists(old=pictures)
        assert imgdl("run", "old").code == 0
        server.requests.clear()
        return project

    @staticmethod
    def images(project):
        folder = project.folder / "store/images"
        return {file.relative_to(folder) for file in folder.rglob("*.jpg")}

    def test_files_follow_the_new_name_without_a_request(self, imgdl, old, server, pictures):
        done = imgdl("rename", "old", "new")
        assert (done.code, done.out) == (0, "old is new now, with 3 images\n")
        assert done.err == "galleries.yaml still has old: rename it there, too\n"
        assert {path.parts[0] for path in self.images(old)} == {"new"}
        old.write_lists(new=pictures)
        again = imgdl("run", "new")
        assert again.code == 0, again.err
        assert again.out.startswith("new: 3 links\n  ok            3\n")
        assert server.paths() == []
        assert {row["path"].split("/")[1] for row in old.rows(catalog_path("new"))} == {"new"}

    def test_a_file_that_has_the_new_name_already_needs_no_reminder(self, imgdl, old, pictures):
        old.write_lists(new=pictures)
        assert imgdl("rename", "old", "new") == Ended(0, "old is new now, with 3 images\n", "")

    def test_it_is_one_json_object(self, imgdl, old):
        assert imgdl("rename", "old", "new", "--json").json == {"old": "old", "new": "new", "images": 3}

    def test_a_rename_that_is_interrupted_halfway_is_completed_by_the_next(
        self, imgdl, old, server, pictures, monkeypatch
    ):
        move, moved = Store.move, []

        def interrupted(store, path, to):
            if len(moved) == 2:
                raise KeyboardInterrupt
            moved.append(path)
            move(store, path, to)

        with monkeypatch.context() as patched:
            patched.setattr(Store, "move", interrupted)
            assert imgdl("rename", "old", "new").code == 1
        assert {path.parts[0] for path in self.images(old)} == {"old", "new"}
        assert imgdl("rename", "old", "new").code == 0
        assert {path.parts[0] for path in self.images(old)} == {"new"}
        assert len(self.images(old)) == 3
        assert old.store.get(renamed_from_path("new")) is None
        old.write_lists(new=pictures)
        assert imgdl("run", "new").out.startswith("new: 3 links\n  ok            3\n")
        assert server.paths() == []

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (("nobody", "new"), 1, "nobody has no files in "),
            (("old", "OLD"), 1, "old and OLD differ only in their case"),
            (("old", "old"), 1, "differ only in their case"),
            (("old", "a b"), 2, "'a b' is no gallery name: 1 to 100 of A-Z a-z 0-9 _ . -"),
            (("old", "../up"), 2, "'../up' is no gallery name"),
            (("../up", "new"), 2, "'../up' is no gallery name"),
            (("old",), 2, "Missing argument 'NEW'"),
        ],
        ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
    )
    def test_what_cannot_be_renamed_is_refused_and_nothing_moves(self, imgdl, old, words, code, told):
        before = self.images(old)
        done = imgdl("rename", *words)
        assert done.code == code
        assert told in done.err
        assert "Traceback" not in done.err
        assert self.images(old) == before

    def test_a_name_that_has_files_is_refused(self, imgdl, old, pictures):
        old.write_lists(old=pictures, new=pictures)
        imgdl("run", "new")
        before = self.images(old)
        done = imgdl("rename", "old", "new")
        assert done.code == 1
        assert "new has files in " in done.err
        assert self.images(old) == before

    def test_a_gallery_at_work_is_refused(self, imgdl, old):
        with Lease(old.store, "old"):
            done = imgdl("rename", "old", "new")
        assert done.code == 1
        assert "another run is at work on old: process " in done.err
        assert {path.parts[0] for path in self.images(old)} == {"old"}


class TestPrune:
    @pytest.fixture
    def gone(self, imgdl, project, pictures):
        """The galleries `kept`, which is in the file, and `gone` and `lost`, which are not."""
        project.write_lists(kept=pictures, gone=pictures, lost=pictures)
        assert imgdl("run", "--all").code == 0
        project.write_lists(kept=pictures)
        return project

    @staticmethod
    def files(project):
        return {file for file in (project.folder / "store").rglob("*") if file.is_file()}

    def test_it_names_galleries_that_are_gone_and_deletes_nothing(self, imgdl, gone):
        before = self.files(gone)
        done = imgdl("prune")
        assert done.code == 0
        header, *rows = [line.split() for line in done.out.splitlines()]
        assert header == ["gallery", "files", "bytes"]
        assert [row[0] for row in rows] == ["gone", "lost"]
        assert done.err == "nothing was deleted; --yes deletes these files\n"
        assert self.files(gone) == before

    def test_with_yes_it_deletes_their_files_and_no_others(self, imgdl, gone):
        kept = {file for file in self.files(gone) if "kept" in str(file)}
        done = imgdl("prune", "--yes")
        assert done.code == 0
        assert done.err == "deleted\n"
        assert [line.split()[0] for line in done.out.splitlines()] == ["gallery", "gone", "lost"]
        assert self.files(gone) == kept
        assert imgdl("prune", "--yes") == Ended(0, "no files of other galleries are stored\n", "")
        assert "downloaded 0 images" in imgdl("run", "kept").out

    def test_it_is_one_json_object(self, imgdl, gone):
        before, sizes = imgdl("prune", "--json").json, {}
        for name in ("gone", "lost"):
            files = [file for file in self.files(gone) if {name, f"gallery={name}"} & set(file.parts)]
            sizes[name] = (len(files), sum(file.stat().st_size for file in files))
        assert before == {
            "store": "store",
            "deleted": False,
            "kept": {},
            "galleries": [
                {"name": name, "files": files, "bytes": size} for name, (files, size) in sizes.items()
            ],
        }
        assert imgdl("prune", "--yes", "--json").json == {**before, "deleted": True}
        assert imgdl("prune", "--json").json == {
            "store": "store",
            "deleted": False,
            "kept": {},
            "galleries": [],
        }

    def test_a_gallery_at_work_is_not_deleted(self, imgdl, gone):
        before = {file for file in self.files(gone) if "gone" in str(file)}
        with Lease(gone.store, "gone"):
            done = imgdl("prune", "--yes")
        assert done.code == 1
        assert "another run is at work on gone" in done.err
        assert {file for file in before if file.exists() and file.suffix != ".json"} == {
            file for file in before if file.suffix != ".json"
        }

    def test_a_file_that_cannot_be_used_deletes_nothing(self, imgdl, gone):
        before = self.files(gone)
        gone.file.write_text("type: imgdl_pipeline.ImageGalleries\nattributes: {galleries: []}\n")
        assert imgdl("prune", "--yes").code == 2
        assert self.files(gone) == before

    def test_it_prunes_a_bucket(self, imgdl, project, s3_bucket, monkeypatch):
        monkeypatch.setenv("IMGDL_STORE", f"{s3_bucket}/pictures")
        store = Store(f"{s3_bucket}/pictures")
        for name in ("demo", "demo2"):
            store.put(catalog_path(name), b"x")
        done = imgdl("prune", "--yes", "--json")
        assert [each["name"] for each in done.json["galleries"]] == ["demo2"]
        assert store.get(catalog_path("demo")) == b"x"
        assert store.get(catalog_path("demo2")) is None


class TestRunWithDataset:
    @pytest.fixture
    def with_dataset(self, project, pictures):
        """The gallery `mine`, which has a dataset, and `plain`, which has none."""

        def write(*attributes, **dataset):
            given = {"format": "webdataset", **dataset}
            (project.folder / "mine.txt").write_text("\n".join(pictures) + "\n")
            source = "{type: url_list, path: mine.txt}"
            project.write(
                f"{{name: mine, source: {source}, dataset: {json.dumps(given)}}}",
                f"{{name: plain, source: {source}}}",
                attributes=attributes,
            )
            return project

        return write

    def test_its_last_line_is_the_dataset(self, imgdl, with_dataset):
        project = with_dataset(format="parquet")
        done = imgdl("run", "mine")
        assert done.code == 0, done.err
        folder = project.folder / "store/datasets/mine"
        assert done.out.splitlines()[-1] == f"dataset: {folder}, 3 images as parquet"
        assert pq.read_table(folder / "data/train-00000.parquet").num_rows == 3

    def test_its_progress_has_a_line_for_it(self, imgdl, with_dataset):
        with_dataset()
        assert "mine: checking\nmine: writing the dataset\n" in imgdl("run", "mine").err

    def test_it_is_in_the_json_object(self, imgdl, with_dataset):
        project = with_dataset(format="imagefolder", where="false or url like '%/0.jpg'")
        mine, plain = imgdl("run", "--all", "--json").json["galleries"]
        assert mine["dataset"] == {
            "path": str(project.folder / "store/datasets/mine"),
            "format": "imagefolder",
            "images": 1,
        }
        assert (plain["succeeded"], plain["dataset"]) == (True, None)

    @pytest.mark.parametrize("form", ["", "assets: {key_prefix: [media]}", "asset_per_gallery: true"])
    def test_near_duplicates_are_looked_for_after_the_galleries_and_before_the_datasets_that_use_them(
        self, imgdl, with_dataset, form
    ):
        project = with_dataset(
            *filter(None, [form]), "near_duplicates: {distance: 0}", where="representative"
        )
        urls = (project.folder / "mine.txt").read_text().split()
        (project.folder / "mine.txt").write_text("\n".join([*urls, f"{urls[0]}?again"]) + "\n")
        done = imgdl("run", "mine")
        assert done.code == 0, done.err
        folder = project.folder / "store/datasets/mine"
        assert done.out.splitlines()[-2:] == [
            "near duplicates: 1 group of 2 images",
            f"mine: dataset: {folder}, 3 images as webdataset",
        ]
        told = imgdl("run", "mine", "--json").json
        assert told["near_duplicates"]["groups"] == 1
        assert [each["dataset"]["images"] for each in told["galleries"]] == [3]

    @pytest.mark.parametrize("form", ["assets: {key_prefix: [media]}", "asset_per_gallery: true"])
    def test_it_is_made_whatever_the_assets_are_called(self, imgdl, with_dataset, form):
        with_dataset(form, "near_duplicates: {distance: 2}", where="representative")
        mine, plain = imgdl("run", "--all", "--json").json["galleries"]
        assert (mine["dataset"]["images"], plain["dataset"]) == (3, None)

    def test_an_empty_one_fails_the_run_in_words(self, imgdl, with_dataset):
        with_dataset(where="width > 9000")
        done = imgdl("run", "mine")
        assert done.code == 1
        assert done.err.splitlines()[-1] == (
            "the run of mine failed: the dataset of mine has no images: "
            "none is ok, or for none this holds: width > 9000"
        )

    def test_a_condition_that_fails_on_the_data_fails_the_run_in_words(self, imgdl, with_dataset):
        with_dataset(where="cast(url as integer) > 3")
        failed = imgdl("run", "mine", "--json")
        assert failed.code == 1
        [mine] = failed.json["galleries"]
        assert "Conversion Error: Could not convert string 'http://" in mine["error"]
        assert mine["dataset"] is None
        assert "Traceback" not in failed.err

    def test_without_duckdb_a_condition_says_what_to_install(self, project, with_dataset):
        with_dataset(where="width > 1")
        done = run_without_duckdb(project, "run", "mine")
        assert done.code == 2
        assert done.err == (
            "galleries.yaml:10: attributes.galleries.0.dataset.where: 'width > 1' needs DuckDB: "
            "pip install 'imgdl-pipeline[datasets]'\n"
        ).replace("galleries.yaml:10", done.err.partition(": ")[0])
        assert re.match(rf"{project.file}:\d+: ", done.err)

    def test_without_duckdb_a_dataset_of_all_that_is_ok_is_made(self, project, with_dataset):
        with_dataset()
        done = run_without_duckdb(project, "run", "mine")
        assert done.code == 0, done.err
        assert "3 images as webdataset" in done.out


WITHOUT_DUCKDB = """\
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "duckdb":
            raise ModuleNotFoundError("No module named 'duckdb'", name="duckdb")

sys.meta_path.insert(0, Missing())
from imgdl_pipeline.cli import main
main(prog_name="imgdl")
"""


def run_without_duckdb(project, *words):
    """Run the program where DuckDB is not installed."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DUCKDB, *words],
        cwd=project.folder, env=project.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shelves(project, pictures, server, jpegs):
    """The galleries `a` and `b`, which have run; each has a dataset, and both have the picture of /0.jpg."""
    server.serve("/c.jpg", jpeg(9, (64, 48)))
    lists = {"a": pictures, "b": [pictures[0], server.url("/c.jpg")]}
    for name, urls in lists.items():
        (project.folder / f"{name}.txt").write_text("\n".join(urls) + "\n")
    project.write(*(shelf(name) for name in lists))
    for name in lists:
        run_stages(read_galleries_file(project.file), name, project.store, jpegs)
    server.requests.clear()
    return project


def shelf(name, links=None):
    source = f"{{type: url_list, path: {links or name}.txt}}"
    return f"{{name: {name}, source: {source}, dataset: {{format: webdataset, shard_images: 2}}}}"


def in_dataset(project, name):
    """The paths of the links whose pictures a dataset has, as a reader of tar files finds them."""
    rows = []
    for tar in sorted((project.folder / f"store/datasets/{name}").glob("*.tar")):
        with tarfile.open(tar) as opened:
            rows += [json.load(opened.extractfile(each)) for each in opened if each.name.endswith(".json")]
    return [row["url"].rpartition("/")[2] for row in rows]


class TestRemove:
    def test_without_yes_it_names_the_images_and_removes_nothing(self, imgdl, shelves, pictures):
        done = imgdl("remove", "--url", pictures[0], "--reason", "asked for")
        assert done.code == 0, done.err
        assert done.err == "nothing was removed; --yes removes these images\n"
        assert done.out.splitlines()[-2:] == [f"a: {pictures[0]}", f"b: {pictures[0]}"]
        assert [line.split() for line in done.out.splitlines()[:3]] == [
            ["gallery", "links", "files"], ["a", "1", "1"], ["b", "1", "1"]
        ]  # fmt: skip
        assert in_dataset(shelves, "a") == ["0.jpg", "1.jpg", "2.jpg"]

    def test_with_yes_the_datasets_are_written_anew_without_them(self, imgdl, shelves, pictures, server):
        done = imgdl("remove", "--url", pictures[0], "--reason", "asked for", "--yes")
        assert (done.code, done.err) == (0, "removed\n")
        assert done.out.splitlines()[-2:] == [
            f"{name}: its dataset was written anew" for name in "ab"
        ]  # fmt: skip
        assert (in_dataset(shelves, "a"), in_dataset(shelves, "b")) == (["1.jpg", "2.jpg"], ["c.jpg"])
        assert imgdl("remove", "--verify") == Ended(0, "nothing that was removed is left\n", "")
        assert imgdl("run", "--all").code == 0
        assert "/0.jpg" not in server.paths()
        assert (in_dataset(shelves, "a"), in_dataset(shelves, "b")) == (["1.jpg", "2.jpg"], ["c.jpg"])

    def test_a_dataset_that_has_none_of_them_is_left_alone(self, imgdl, shelves, pictures):
        done = imgdl("remove", "--url", pictures[2], "--reason", "r", "--yes")
        assert re.findall(r"^(\w): its dataset", done.out, re.MULTILINE) == ["a"]
        assert in_dataset(shelves, "b") == ["0.jpg", "c.jpg"]

    def test_by_a_file_of_links_and_hashes(self, imgdl, shelves, pictures):
        row = shelves.rows(catalog_path("b"))[1]
        (shelves.folder / "list.txt").write_text(f"{pictures[1]}\n{row['sha256']}\n")
        done = imgdl("remove", "--from", "list.txt", "--reason", "r", "--yes", "--json")
        assert done.json["datasets"] == ["a", "b"]
        assert (in_dataset(shelves, "a"), in_dataset(shelves, "b")) == (["0.jpg", "2.jpg"], ["0.jpg"])

    def test_it_is_one_json_object(self, imgdl, shelves, pictures):
        words = ("remove", "--url", pictures[1], "--reason", "r", "--json")
        told = imgdl(*words).json
        assert (told["removed"], told["entries"], told["datasets"]) == (False, 1, [])
        [found] = told["galleries"]
        assert (found["gallery"], found["urls"], len(found["paths"])) == ("a", [pictures[1]], 1)
        assert imgdl(*words, "--yes").json == {**told, "removed": True, "datasets": ["a"]}

    def test_what_is_left_in_a_dataset_is_named_and_ends_with_1(self, imgdl, shelves, pictures):
        lease = Lease(shelves.store, "the dataset of a", folder=dataset_leases_path("a"))
        with lease:
            done = imgdl("remove", "--url", pictures[1], "--reason", "r", "--yes")
        assert done.code == 1
        assert done.err.startswith("another run is at work on the dataset of a: process ")
        left = imgdl("remove", "--verify")
        assert (left.code, left.out, left.err) == (1, "", f"a: {pictures[1]} is left\n")
        found = imgdl("remove", "--verify", "--json")
        assert (found.code, found.json["clean"]) == (1, False)
        assert found.json["galleries"] == [{"gallery": "a", "urls": [pictures[1]], "paths": []}]
        again = imgdl("remove", "--url", pictures[1], "--reason", "r", "--yes")
        assert again.out.endswith("a: its dataset was written anew\n")
        assert imgdl("remove", "--verify", "--json").json == {"clean": True, "galleries": []}

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ((), "name what to remove"),
            (("--url", "https://h.org/a.jpg"), "give the reason"),
            (("--sha256", "12", "--reason", "r"), "'12' is no sha256: give 64 hex digits"),
            (("--phash", "12", "--reason", "r"), "is no phash: give 16 hex digits"),
        ],
    )
    def test_what_means_nothing_is_wrong_usage(self, imgdl, project, words, told):
        done = imgdl("remove", *words, "--yes")
        assert done.code == 2
        assert told in done.err

    def test_a_secret_in_a_link_is_not_shown(self, imgdl, shelves, server, pictures):
        server.serve("/s.jpg", jpeg(5, (64, 48)))
        link = server.url("/s.jpg?access_token=abc123def456")
        (shelves.folder / "a.txt").write_text("\n".join([*pictures, link]))
        imgdl("run", "a")
        done = imgdl("remove", "--url", link, "--reason", "r", "--yes")
        assert "/s.jpg" in done.out
        assert "abc123def456" not in done.out + done.err

    def test_without_duckdb_a_removal_says_what_to_install(self, imgdl, shelves, pictures):
        where = shelves.file.read_text().replace("shard_images: 2", 'where: "width > 1"')
        shelves.file.write_text(where)
        assert imgdl("run", "--all").code == 0
        shelves.write("{name: other, source: {type: demo}}")
        done = run_without_duckdb(shelves, "remove", "--url", pictures[1], "--reason", "r", "--yes")
        assert done.code == 1
        assert "pip install 'imgdl-pipeline[datasets]'" in done.err
        assert "Traceback" not in done.err
        assert imgdl("remove", "--verify").code == 1, "its dataset still has the picture"


class TestFilesOfDatasets:
    def test_a_dataset_follows_its_gallerys_new_name(self, imgdl, shelves, server):
        before = files_of(shelves.store, "a")
        assert imgdl("rename", "a", "new").code == 0
        assert assert_whole(shelves.store, "new") == before
        assert not (shelves.folder / "store/datasets/a").exists()
        assert in_dataset(shelves, "new") == ["0.jpg", "1.jpg", "2.jpg"]
        shelves.write(shelf("new", "a"), shelf("b"))
        done = imgdl("run", "new", "--json")
        assert done.json["galleries"][0]["dataset"]["images"] == 3
        after = assert_whole(shelves.store, "new")
        assert {name: after[name] for name in after if name.endswith(".tar")} == {
            name: before[name] for name in before if name.endswith(".tar")
        }
        assert after["README.md"] != before["README.md"], "its card names the gallery"
        assert server.paths() == []

    def test_a_removal_finds_the_dataset_under_its_new_name(self, imgdl, shelves, pictures):
        imgdl("rename", "a", "new")
        done = imgdl("remove", "--url", pictures[1], "--reason", "r", "--yes", "--json")
        assert done.json["datasets"] == ["new"]
        assert in_dataset(shelves, "new") == ["0.jpg", "2.jpg"]

    def test_a_dataset_is_pruned_with_its_gallery_and_no_other(self, imgdl, shelves):
        shelves.write(shelf("a"))
        kept = files_of(shelves.store, "a")
        [gone] = imgdl("prune", "--json").json["galleries"]
        there = [
            file
            for file in (shelves.folder / "store").rglob("*")
            if file.is_file() and {"b", "gallery=b"} & set(file.parts)
        ]
        assert gone == {"name": "b", "files": len(there), "bytes": sum(each.stat().st_size for each in there)}
        assert imgdl("prune", "--yes").code == 0
        assert not (shelves.folder / "store/datasets/b").exists()
        assert files_of(shelves.store, "a") == kept

    def test_a_dataset_alone_is_pruned_too(self, imgdl, shelves):
        for folder in ("images", "links", "downloads", "catalog"):
            for each in (shelves.folder / "store" / folder).glob("*b"):
                shutil.rmtree(each)
        shelves.write(shelf("a"))
        assert [each["name"] for each in imgdl("prune", "--yes", "--json").json["galleries"]] == ["b"]
        assert not (shelves.folder / "store/datasets/b").exists()

    @pytest.mark.parametrize("command", [("rename", "a", "new"), ("prune", "--yes")])
    def test_a_dataset_that_is_being_written_is_not_touched(self, imgdl, shelves, command):
        shelves.write(shelf("b"))
        before = files_of(shelves.store, "a")
        with Lease(shelves.store, "the dataset of a", folder=dataset_leases_path("a")):
            done = imgdl(*command)
        assert (done.code, files_of(shelves.store, "a")) == (1, before)
        assert "another run is at work on the dataset of a" in done.err

    def test_near_duplicates_follow_their_gallerys_new_name(self, imgdl, shelves):
        """Else a dataset of representatives has every copy until near duplicates are looked for again."""
        store = shelves.store
        find_near_duplicates(store, ["a", "b"], 0)
        assert imgdl("rename", "b", "new").code == 0
        near = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
        assert set(near["gallery"].to_pylist()) == {"a", "new"}


class TestView:
    @pytest.fixture
    def mine(self, imgdl, project, server, pictures):
        """The gallery `mine` of three pictures and a dead link, after a run."""
        project.write_lists(mine=[*pictures, server.url("/dead.jpg")], new=pictures)
        assert imgdl("run", "mine").code == 0

    def test_it_writes_a_page_into_this_folder_and_prints_where_it_is(self, imgdl, project, mine):
        done = imgdl("view", "mine")
        page = project.folder / "mine.html"
        size = page.stat().st_size / 1e6
        assert done.code == 0
        assert done.err == "mine: making thumbnails\n"
        assert done.out == (
            f"mine.html: 4 rows, 3 pictures, {size:.1f} MB\nopen it in a browser: {page.as_uri()}\n"
        )
        assert [len(block["rows"]) for block in Page(page.read_bytes()).blocks] == [4]

    def test_it_writes_the_newest_rows_to_the_file_that_is_named(self, imgdl, project, mine):
        done = imgdl("view", "mine", "--out", "other.html", "--limit", "2", "--json")
        page = project.folder / "other.html"
        assert done.json == {
            "name": "mine",
            "file": str(page),
            "bytes": page.stat().st_size,
            "links": 4,
            "rows": 2,
            "pictures": 2,
        }
        assert imgdl("view", "mine", "--limit", "2").out.startswith("mine.html: 2 of 4 rows, 2 pictures, ")

    def test_its_own_page_is_replaced_and_no_other_file(self, imgdl, project, mine):
        assert imgdl("view", "mine").code == imgdl("view", "mine").code == 0
        before = project.file.read_bytes()
        done = imgdl("view", "mine", "--out", "galleries.yaml")
        assert (done.code, done.out) == (1, "")
        assert "galleries.yaml exists and is no page of a gallery: name another file\n" in done.err
        assert project.file.read_bytes() == before

    @pytest.mark.parametrize("form", [[], ["--json"]])
    def test_a_folder_is_wrong_usage(self, imgdl, mine, form):
        done = imgdl("view", "mine", "--out", "store", *form)
        assert done.code == 2
        assert "is a directory" in done.out + done.err

    def test_a_gallery_that_never_ran_is_a_sentence(self, imgdl, project, mine):
        done = imgdl("view", "new", "--json")
        assert done.code == 1
        assert done.json == {"error": f"new has no catalog in {project.folder}/store: run the gallery first"}
        assert not (project.folder / "new.html").exists()

    def test_a_gallery_that_is_not_in_the_file_is_wrong_usage(self, imgdl, mine):
        done = imgdl("view", "mime")
        assert done.code == 2
        assert "there is no gallery 'mime' in" in done.err
        assert "mine" in done.err

    def test_one_gallery_must_be_named(self, imgdl):
        assert imgdl("view").code == 2
        assert imgdl("view", "demo", "demo").code == 2


class TestTextOfStrangers:
    ESCAPES = "\x1b]0;owned\x07\x1b[2Jgone\x9b31m[bold]b[/bold]"

    @staticmethod
    def is_harmless(text):
        return all(each.isprintable() or each == "\n" for each in text)

    @pytest.mark.parametrize("form", [[], ["--json"]])
    def test_a_servers_answer_in_an_error_does_not_act_on_the_terminal(self, imgdl, project, server, form):
        url = server.serve("/list", f'{{"error": "{self.ESCAPES}"}}'.encode(), 403, Content_Type="text/html")
        project.write(f"{{name: mine, source: {{type: feed, url: '{url}'}}}}")
        done = imgdl("run", "mine", *form)
        assert done.code == 1
        assert server.paths(), "the list was asked for"
        assert "[bold]b[/bold]" in done.out + done.err, "what the server said is shown"
        assert self.is_harmless(done.out)
        assert self.is_harmless(done.err)

    @pytest.mark.parametrize("form", [[], ["--json"]])
    @pytest.mark.parametrize("command", ["list", "status", "prune"])
    def test_markup_and_escapes_in_a_path_do_not_act_on_the_terminal(self, imgdl, project, command, form):
        path = json.dumps("[bold]\x1b]0;owned\x07[/bold]\x9b31m.txt")
        project.write(f"{{name: mine, source: {{type: url_list, path: {path}}}}}")
        project.store.put("images/[bold]\x9b31mx/a.jpg", b"x")
        done = imgdl(command, *form)
        assert done.code == 0
        assert self.is_harmless(done.out)
        assert command != "list" or "[bold]" in done.out

    def test_an_error_of_a_path_with_escapes_does_not_act_on_the_terminal(self, imgdl, project):
        path = json.dumps("[bold]\x1b]0;owned\x07[/bold]\x9b31m.txt")
        project.write(f"{{name: mine, source: {{type: url_list, path: {path}}}}}")
        done = imgdl("run", "mine")
        assert self.is_harmless(done.err)
        assert "[bold]" in done.err


class TestHelp:
    @pytest.mark.parametrize("command", [None, *COMMANDS])
    def test_every_command_and_option_is_explained(self, imgdl, command):
        words = [command] if command else []
        done = imgdl(*words, "--help")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"Usage: {' '.join(['imgdl', *words])} ")
        assert all(len(line) <= 80 for line in done.out.splitlines())
        definition = main.commands[command] if command else main
        sentence = definition.help.split("\n\n")[0]
        assert " ".join(sentence.split()) in " ".join(done.out.split())
        options = [each for each in definition.params if each.param_type_name == "option"]
        assert all(each.help and each.help.endswith(".") for each in options)
        assert all(option in done.out for each in options for option in each.opts)
        assert imgdl(*words, "-h").out == done.out

    def test_there_are_the_commands_of_the_contract(self, imgdl):
        assert {"run", "list", "check", "status", "rename", "prune", "view"} <= set(COMMANDS)
        done = imgdl("--help")
        assert all(re.search(rf"^  {command} ", done.out, re.MULTILINE) for command in COMMANDS)

    def test_without_a_command_the_help_is_shown_and_it_is_wrong_usage(self, imgdl):
        done = imgdl()
        assert "Usage: imgdl" in done.out + done.err
        assert done.code in (0, 2)  # click has changed its mind with version 8.2

    def test_a_command_that_does_not_exist_is_wrong_usage(self, imgdl):
        assert imgdl("fetch").code == 2

    def test_the_version_is_told(self, imgdl):
        assert imgdl("--version") == Ended(0, f"imgdl {__version__}\n", "")

    def test_nothing_has_escapes_where_there_is_no_terminal(self, imgdl, project, pictures):
        project.write_lists(mine=pictures)
        for words in (
            *(["run", "mine"], ["list"], ["check"], ["status"], ["prune"], ["rename", "mine", "b"]),
            *(["run", "nobody"], ["--help"], ["rename", "x", "y"]),
        ):
            done = imgdl(*words)
            assert "\x1b" not in done.out + done.err


class TestCompletion:
    @pytest.fixture
    def complete(self, imgdl, monkeypatch):
        def complete_(words):
            monkeypatch.setenv("_IMGDL_COMPLETE", "bash_complete")
            monkeypatch.setenv("COMP_WORDS", f"imgdl {words}")
            monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
            done = imgdl()
            assert done.err == ""
            return [line.partition(",")[2] for line in done.out.splitlines() if line]

        return complete_

    def test_commands_are_offered(self, complete):
        assert complete("") == COMMANDS
        assert complete("r") == [command for command in COMMANDS if command.startswith("r")]

    def test_a_gallery_is_offered(self, complete):
        assert complete("view d") == ["demo"]

    @pytest.mark.parametrize("command", ["run", "status"])
    def test_galleries_are_offered(self, complete, project, command):
        project.write(*(f"{{name: {name}, source: {{type: demo}}}}" for name in ("hubble", "hills", "earth")))
        assert complete(f"{command} ") == ["hubble", "hills", "earth"]
        assert complete(f"{command} h") == ["hubble", "hills"]
        assert complete(f"{command} earth hu") == ["hubble"]
        assert complete(f"{command} x") == []

    def test_galleries_of_the_file_on_the_command_line_are_offered(self, complete, project):
        project.write("{name: elsewhere, source: {type: demo}}")
        project.file.rename(project.folder / "other.yaml")
        assert complete("run --config other.yaml e") == ["elsewhere"]

    def test_options_are_offered(self, complete):
        assert {"--all", "--limit", "--force", "--json", "--config"} <= set(complete("run --"))

    def test_a_file_that_cannot_be_used_offers_nothing_and_says_nothing(self, complete, project):
        project.file.write_text("attributes: [")
        assert complete("run ") == []

    def test_zsh_is_served_with_what_each_command_does(self, imgdl, monkeypatch):
        for name, value in {
            "_IMGDL_COMPLETE": "zsh_complete",
            "COMP_WORDS": "imgdl run",
            "COMP_CWORD": "1",
        }.items():
            monkeypatch.setenv(name, value)
        assert imgdl().out.splitlines()[:2] == ["plain", "run"]


def run_program(project, *command, **environment):
    return subprocess.run(
        command,
        cwd=project.folder,
        env={**project.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_module_and_the_script_are_the_same_program(project):
    script = Path(sys.executable).with_name("imgdl")
    module, script = (
        run_program(project, *command, "check")
        for command in ([sys.executable, "-m", "imgdl_pipeline"], [str(script)])
    )
    assert module.stdout == script.stdout == f"{project.file}: good, 1 gallery\n"
    assert module.returncode == script.returncode == 0


def test_the_module_calls_itself_as_the_script_does(project):
    shown = run_program(project, sys.executable, "-m", "imgdl_pipeline", "--help").stdout
    assert shown.startswith("Usage: imgdl ")


@pytest.mark.long
def test_the_program_runs_the_demo_gallery_and_a_second_run_asks_for_the_damaged_one_only(project, demo_port):
    command = [sys.executable, "-m", "imgdl_pipeline", "run", "demo"]
    first, second = (run_program(project, *command, IMGDL_CONFIG="", IMGDL_STORE="data") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("demo: 40 links\n  ok           37\n  invalid       2   1 ")
    assert "  failed        1   1 http_410\n  refused       0\n" in first.stdout
    assert f"catalog: {project.folder}/data/catalog/gallery=demo/catalog.parquet\n" in first.stdout
    assert re.search(r"downloaded 38 images, \d\.\d MB, in \d+\.\d s: \d+ a second\n", first.stdout)
    assert "downloaded 1 image, " in second.stdout, "only the damaged one is asked for again"


class Terminal:
    """A program on a pseudo-terminal of its own, whose text is read as it comes."""

    CONTROLLING = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
    """A program that makes the terminal its own, so that Ctrl-C reaches it, and becomes another one."""

    def __init__(self, project, *words):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self._text, self._grown, self._is_over = b"", threading.Condition(), False
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CONTROLLING, sys.executable, "-m", "imgdl_pipeline", *words],
            cwd=project.folder,
            env=project.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        os.close(self._master)

    def _read(self):
        data = b"-"
        while data:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # nobody has the terminal any more
                data = b""
            with self._grown:
                self._text += data
                self._is_over = not data
                self._grown.notify_all()

    @property
    def text(self):
        return self._text.decode(errors="replace")

    def type(self, keys):
        os.write(self._master, keys)

    def wait_for(self, pattern):
        """Wait until a text is written that matches, without its escape sequences."""
        with self._grown:
            found = self._grown.wait_for(
                lambda: re.search(pattern, without_escapes(self.text)) or self._is_over, timeout=60
            )
        assert found, f"{pattern} did not appear in {self.text!r}"
        assert re.search(pattern, without_escapes(self.text)), self.text

    def finish(self, seconds=60):
        """Return the exit status, and the lines that are on the screen in the end."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code, screen(self.text)


_ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


def without_escapes(text):
    return _ESCAPE.sub("", text)


def screen(text):
    """Return the lines that a terminal shows after this text, without those that are empty at the end."""
    lines, row, column, place = [""], 0, 0, 0
    while place < len(text):
        escape = _ESCAPE.match(text, place)
        if escape:
            number, kind = escape.groups()
            if kind == "K":
                lines[row] = "" if number == "2" else lines[row][:column]
            elif kind == "A":
                row = max(0, row - int(number or 1))
            place = escape.end()
            continue
        each, place = text[place], place + 1
        if each == "\r":
            column = 0
        elif each == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + each + line[column + 1 :]
            column += 1
    shown = [line.rstrip() for line in lines]
    while shown and not shown[-1]:
        shown.pop()
    return shown


@pytest.mark.long
class TestTerminal:
    """What a person sees who runs the program on a terminal."""

    @pytest.fixture
    def held(self, server):
        """A picture that waits until the test lets it go."""
        go = threading.Event()

        def answer(handler):
            go.wait(60)
            handler.answer(200, PICTURE)

        server.routes["/held.jpg"] = answer
        yield go
        go.set()

    def test_a_bar_shows_the_gallery_the_counts_and_the_rate_while_it_runs(
        self, project, server, pictures, held
    ):
        project.write_lists(mine=[*pictures, server.url("/dead.jpg"), server.url("/held.jpg")])
        with Terminal(project, "run", "mine") as terminal:
            terminal.wait_for(r"mine: downloading .*4/5.* \d+\.\d/s.*3 ok, 1 failed")
            held.set()
            code, _ = terminal.finish()
        assert code == 0
        assert "━" in terminal.text
        assert "mine: checking" in without_escapes(terminal.text)

    def test_only_the_result_is_on_the_screen_in_the_end(self, project, pictures):
        project.write_lists(a=pictures, b=pictures)
        with Terminal(project, "run", "a", "b") as terminal:
            code, shown = terminal.finish()
        assert code == 0
        assert not [line for line in shown if "━" in line]
        assert [line for line in shown if line.endswith("links")] == ["a: 3 links", "b: 3 links"]
        assert f"catalog: {project.folder}/store/catalog/gallery=b/catalog.parquet" in shown

    def test_the_cause_of_a_failure_has_a_line_of_its_own(self, project):
        project.write("{name: mine, source: {type: url_list, path: nowhere.txt}}")
        with Terminal(project, "run", "mine") as terminal:
            code, shown = terminal.finish()
        assert code == 1
        cause = f"the run of mine failed: {project.folder}/nowhere.txt: there is no such file"
        assert shown[-1].startswith(cause)

    def test_the_cursor_is_shown_again(self, project, pictures):
        project.write_lists(mine=pictures)
        with Terminal(project, "run", "mine") as terminal:
            terminal.finish()
        assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")

    def test_a_tables_text_has_neither_escapes_nor_markup_of_others(self, project):
        path = json.dumps("[red]\x1b]0;owned\x07\x1b[2J\x9b31m")
        project.write(f"{{name: mine, source: {{type: url_list, path: {path}}}}}")
        with Terminal(project, "list") as terminal:
            code, shown = terminal.finish()
        assert code == 0
        assert "[red]" in shown[1]
        assert not {"\x1b]", "\x1b[2J", "\x9b", "\x07", "\x1b[31m"} & {
            each for each in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\x1b[31m") if each in terminal.text
        }

    def test_ctrl_c_stops_a_run_in_seconds_and_the_next_run_continues(self, project, server):
        reached = self.slow(server)
        paths = list(server.routes)
        project.write_lists(mine=[server.url(path) for path in paths], other=[server.url("/other.jpg")])
        with Terminal(project, "run", "mine", "other") as terminal:
            self.wait_for_all(reached, len(paths), terminal.process)
            typed = time.monotonic()
            terminal.type(b"\x03")
            code, shown = terminal.finish()
        assert time.monotonic() - typed < 10
        assert code == 1
        assert [line for line in shown if "mine was stopped; the next run continues where it was" in line]
        assert [gallery for gallery, _ in project.runs()] == ["mine"], "the other one is not begun"
        done = [row["url"] for row in project.rows(downloads_path("mine")) if row["status"] == "ok"]
        assert len(done) >= 40 - 8, "up to eight were on their way"
        server.serve("/hanging.jpg", PICTURE)
        server.requests.clear()
        second = run_program(project, sys.executable, "-m", "imgdl_pipeline", "run", "mine")
        assert second.returncode == 0, second.stderr
        assert second.stdout.startswith(f"mine: {len(paths)} links\n  ok           {len(paths)}\n")
        assert not set(server.paths()) & {url.removeprefix(server.url("")) for url in done}

    def test_ctrl_c_is_no_reason_for_a_traceback(self, project, server):
        reached = self.slow(server)
        project.write_lists(mine=[server.url(path) for path in server.routes])
        with Terminal(project, "run", "mine") as terminal:
            self.wait_for_all(reached, 41, terminal.process)
            terminal.type(b"\x03")
            terminal.finish()
        assert "Traceback" not in terminal.text

    def test_an_interrupt_is_an_error_in_json(self, project, server):
        reached = self.slow(server)
        project.write_lists(mine=[server.url(path) for path in server.routes])
        with project.start(
            "run", "mine", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            self.wait_for_all(reached, 41, running)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        assert running.returncode == 1
        [mine] = json.loads(out)["galleries"]
        assert not mine["succeeded"]
        assert mine["error"]
        assert "Traceback" not in err

    @staticmethod
    def wait_for_all(reached, count, process):
        """Wait until all links were asked for, unless the program ends before."""
        for _ in range(count):
            while not reached.acquire(timeout=1):
                assert process.poll() is None, "the program has ended"

    @staticmethod
    def slow(server):
        """Serve 40 pictures, and one that does not come; the semaphore counts those that were asked for."""
        reached = threading.Semaphore(0)

        def answer(handler):
            handler.answer(200, PICTURE)
            reached.release()

        def hang(handler):
            reached.release()
            server.release.wait(60)

        server.routes |= {f"/{number}.jpg": answer for number in range(40)} | {"/hanging.jpg": hang}
        return reached
