import dagster as dg
import pytest

from imgdl_pipeline.definitions import component, defs
from imgdl_pipeline.running import GalleryRun, run_gallery
from imgdl_pipeline_tests.support.pictures import jpeg

HEAD = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: store
  schedule: null
  download: {allow_addresses: [127.0.0.0/8], robots_txt: false, attempts: 1}
"""
MINE = "galleries: [{name: mine, source: {type: url_list, path: links.txt}}]"


@pytest.fixture
def run(tmp_path, monkeypatch, server):
    """Runs the gallery `mine`, of two pictures and a dead link, as the terminal does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMGDL_CONFIG", "galleries.yaml")
    monkeypatch.delenv("IMGDL_STORE", raising=False)
    server.serve("/a.jpg", jpeg(1))
    server.serve("/b.jpg", jpeg(2))
    links = [server.url(path) for path in ("/a.jpg", "/b.jpg", "/dead.jpg")]
    (tmp_path / "links.txt").write_text("\n".join(links))

    def run_(*attributes, galleries=MINE, gallery="mine", home=None, **more):
        text = HEAD + "".join(f"  {line}\n" for line in [*attributes, galleries])
        (tmp_path / "galleries.yaml").write_text(text)
        opened = dg.DagsterInstance.from_config(str(home)) if home else dg.DagsterInstance.ephemeral()
        with opened as instance:
            return run_gallery(component(), defs(), gallery, instance, **more)

    return run_


def test_a_run_reports_what_each_stage_did(run, tmp_path):
    done = run()
    assert (done.gallery, done.error, done.was_interrupted, done.succeeded) == ("mine", None, False, True)
    assert set(done.metadata) == {"links", "images", "catalog"}
    assert done.metadata["links"]["dagster/row_count"] == 3
    assert done.metadata["images"]["fetched"] == 2
    assert done.metadata["catalog"]["path"] == str(tmp_path / "store/catalog/gallery=mine/catalog.parquet")
    assert done.metadata["catalog"]["failed/http_404"] == 1


@pytest.mark.parametrize("form", ["assets: {key_prefix: [media, wall]}", "asset_per_gallery: true"])
def test_stages_have_the_same_names_whatever_the_assets_are_called(run, form):
    done = run(form)
    assert done.succeeded, done.error
    assert set(done.metadata) == {"links", "images", "catalog"}


def test_a_run_of_one_gallery_with_its_own_assets_leaves_the_others_alone(run, tmp_path):
    other = "{name: other, source: {type: demo}}"
    both = MINE.replace("}}]", f"}}}}, {other}]")
    assert run("asset_per_gallery: true", galleries=both).succeeded
    assert [each.name for each in (tmp_path / "store" / "links").iterdir()] == ["gallery=mine"]


def test_a_limit_leaves_links_to_the_next_run(run, server):
    assert run(limit=1).metadata["images"]["waiting"] == 2
    assert len(server.paths()) == 1
    assert run().metadata["images"]["waiting"] == 0


def test_by_force_every_link_is_asked_for_again(run, server):
    run()
    server.requests.clear()
    run()
    assert not {"/a.jpg", "/b.jpg"}.intersection(server.paths())
    server.requests.clear()
    run(force=True)
    assert sorted(server.paths()) == ["/a.jpg", "/b.jpg", "/dead.jpg"]


def test_whoever_watches_sees_the_stages_in_order_and_their_progress(run):
    seen = []
    run(watch=lambda *each: seen.append(each))
    begun = [(gallery, stage) for gallery, stage, progress in seen if progress is None]
    assert begun == [("mine", "links"), ("mine", "images"), ("mine", "catalog")]
    [*_, last] = [progress for _, stage, progress in seen if stage == "images" and progress is not None]
    assert (last.done, last.total, last.failed) == (3, 3, 1)


def test_a_failure_is_the_cause_in_words(run, tmp_path):
    (tmp_path / "links.txt").unlink()
    done = run()
    assert done.error == f"{tmp_path}/links.txt: there is no such file, and no file matches"
    assert not done.succeeded
    assert not done.was_interrupted
    assert done.metadata == {}


def test_a_failure_of_a_later_stage_leaves_what_earlier_ones_reported(run, server, tmp_path):
    (tmp_path / "store" / "downloads").mkdir(parents=True)
    (tmp_path / "store" / "downloads" / "gallery=mine").write_text("a file where a folder should be")
    done = run()
    assert "downloads/gallery=mine" in done.error
    assert set(done.metadata) == {"links"}
    assert server.paths() == []


def test_an_error_that_nobody_expected_is_what_its_innermost_cause_says(run, monkeypatch):
    def broken(*_, **__):
        try:
            raise KeyError("the cause")
        except KeyError as error:
            raise RuntimeError("what came of it") from error

    monkeypatch.setattr("imgdl_pipeline.assets.list_gallery", broken)
    assert run().error == "KeyError: 'the cause'"


def test_a_check_that_finds_an_error_makes_the_run_no_success(run):
    done = run("checks: {failed_warn: 0, failed_error: 0.1}")
    assert done.error is None
    assert done.failed_checks == {"few_links_failed": "1 of 3 links failed"}
    assert done.warnings == {}
    assert not done.succeeded


def test_a_check_that_warns_leaves_the_run_a_success(run):
    done = run("checks: {failed_warn: 0, failed_error: 1}")
    assert done.failed_checks == {}
    assert done.warnings == {"few_links_failed": "1 of 3 links failed"}
    assert done.succeeded


def test_a_run_without_error_and_failed_checks_is_a_success():
    ran = {"gallery": "g", "run_id": "1", "was_interrupted": False, "metadata": {}}
    assert GalleryRun(error=None, **ran).succeeded
    assert GalleryRun(error=None, warnings={"check": "words"}, **ran).succeeded
    assert not GalleryRun(error="words", **ran).succeeded
    assert not GalleryRun(error=None, failed_checks={"check": "words"}, **ran).succeeded


def test_nothing_is_logged_to_the_terminal(run, capfd):
    run()
    assert capfd.readouterr() == ("", "")


def test_a_run_is_recorded_in_its_instance(run, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    done = run(home=home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        [recorded] = instance.get_runs()
        assert (recorded.run_id, recorded.status) == (done.run_id, dg.DagsterRunStatus.SUCCESS)
        assert recorded.tags["dagster/partition"] == "mine"
