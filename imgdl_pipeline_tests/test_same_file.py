"""What a step finds out of the galleries file that its run was requested with."""

import logging
from types import SimpleNamespace

import dagster as dg
import pytest

from imgdl_pipeline import same_file
from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.config.galleries_file import read_galleries_file
from imgdl_pipeline.same_file import TAG, make_sure_of_file, version_tags

TEXT = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: /srv/pictures
  galleries:
    - {name: g, source: {type: url_list, path: /srv/links.txt}}
"""
EDITED = TEXT.replace("/srv/links.txt", "/srv/other.txt")


class CeleryRunLauncher:
    """As dagster-celery's: what counts is the package that it is of."""

    __module__ = "dagster_celery.launcher"


class OurRunLauncher(CeleryRunLauncher):
    """A launcher of a project that is made of another one."""


@pytest.fixture(autouse=True)
def _forgetful():
    same_file._checked.clear()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "galleries.yaml"
    path.write_text(TEXT)
    return path


def digest(file, text):
    """The digest of the file as it would be with a text."""
    now = file.read_text()
    file.write_text(text)
    found = read_galleries_file(file).version.digest
    file.write_text(now)
    return found


def step(kept, launcher=CeleryRunLauncher, executor="in_process", run="r1", origin="a code server", tags=()):
    """The context of a step of a run that some code server has requested."""
    definition = SimpleNamespace(name="gallery_links", tags={TAG: kept} if kept else {})
    snapshot = SimpleNamespace(node_defs_snapshot=SimpleNamespace(op_def_snaps=[definition]))
    return SimpleNamespace(
        run=SimpleNamespace(remote_job_origin=origin, job_snapshot_id="s", tags=dict(tags)),
        run_id=run,
        op_def=SimpleNamespace(name="gallery_links"),
        job_def=SimpleNamespace(executor_def=SimpleNamespace(name=executor)),
        instance=SimpleNamespace(
            run_launcher=launcher(), has_job_snapshot=lambda _: True, get_job_snapshot=lambda _: snapshot
        ),
        log=logging.getLogger("step"),
    )


def check(context, galleries, store="/srv/pictures", gallery=None):
    make_sure_of_file(context, galleries, store, gallery)


def test_a_run_that_was_requested_with_the_same_file_passes(file):
    loaded = read_galleries_file(file)
    for launcher in (CeleryRunLauncher, dg.DefaultRunLauncher):
        check(step(loaded.version.digest, launcher), loaded)


def test_a_worker_that_loaded_an_older_file_refuses_and_says_what_to_do(file):
    loaded = read_galleries_file(file)
    file.write_text(EDITED)
    for kept in (loaded.version.digest, digest(file, EDITED), None):
        with pytest.raises(dg.Failure) as told:
            check(step(kept), loaded)
        assert str(file) in told.value.description
        assert "was edited after this process had loaded it" in told.value.description
        assert "restart the worker, reload the code location" in told.value.description
        assert not told.value.allow_retries


def test_a_machine_with_another_file_refuses_and_names_both(file):
    loaded, other = read_galleries_file(file), digest(file, EDITED)
    with pytest.raises(dg.Failure, match=f"version {other} of the galleries file.*{loaded.version.digest}"):
        check(step(other), loaded)
    with pytest.raises(dg.Failure, match="put the new file there"):
        check(step(other, dg.DefaultRunLauncher, "celery"), loaded)


def test_a_process_of_the_same_machine_works_from_the_newer_file(file, caplog):
    loaded, before = read_galleries_file(file), digest(file, EDITED)
    with caplog.at_level("INFO"):
        check(step(before, dg.DefaultRunLauncher), loaded)
    assert "was edited after this run was requested" in caplog.text


def test_a_file_that_is_edited_during_a_run_counts_from_the_next_run_on(file):
    loaded = read_galleries_file(file)
    check(step(loaded.version.digest), loaded)
    file.write_text(EDITED)
    check(step(loaded.version.digest), loaded)
    with pytest.raises(dg.Failure):
        check(step(loaded.version.digest, run="r2"), loaded)


def test_a_run_that_this_process_requested_is_not_checked(file):
    loaded = read_galleries_file(file)
    file.write_text(EDITED)
    check(step("another", origin=None), loaded, store="relative")


def test_settings_of_no_file_are_not_checked():
    galleries = Galleries(galleries=[{"name": "g", "source": {"type": "demo"}}])
    assert version_tags(galleries) == {}
    check(step("another"), galleries, store="relative")


def test_where_the_definitions_have_no_digest_the_runs_tag_counts(file):
    loaded = read_galleries_file(file)
    check(step(None, tags={TAG: loaded.version.digest}), loaded)
    with pytest.raises(dg.Failure, match="version another of"):
        check(step(None, run="r2", tags={TAG: "another"}), loaded)


def test_a_tag_that_a_retried_run_inherits_does_not_count(file):
    loaded = read_galleries_file(file)
    check(step(loaded.version.digest, tags={TAG: "of its parent"}), loaded)


@pytest.mark.parametrize("launcher", [CeleryRunLauncher, OurRunLauncher])
def test_a_relative_store_is_refused_where_runs_start_elsewhere(file, launcher):
    loaded = read_galleries_file(file)
    words = (
        f"the store 'data' is a relative path, and {launcher.__name__} runs steps on other machines: write"
    )
    with pytest.raises(dg.Failure, match=words):
        check(step(loaded.version.digest, launcher), loaded, store="data")
    check(step(loaded.version.digest, dg.DefaultRunLauncher), loaded, store="data")


def test_a_relative_list_is_refused_where_steps_run_elsewhere(file):
    file.write_text(TEXT.replace("/srv/links.txt", "links.txt"))
    loaded = read_galleries_file(file)
    context = step(loaded.version.digest, dg.DefaultRunLauncher, "k8s")
    with pytest.raises(
        dg.Failure, match=r"the gallery g: source\.path: 'links\.txt' is a relative path.*k8s"
    ):
        check(context, loaded, "s3://bucket", loaded.galleries[0])


def test_a_launcher_that_cannot_be_loaded_here_is_one_of_elsewhere(file):
    def missing():
        raise ImportError

    class Instance:
        run_launcher = property(lambda _: missing())
        has_job_snapshot = staticmethod(lambda _: False)

    loaded = read_galleries_file(file)
    context = step(loaded.version.digest)
    context.instance = Instance()
    with pytest.raises(dg.Failure, match="the instance's run launcher runs steps on other machines"):
        check(context, loaded, store="data")


def test_every_step_and_job_has_the_digest(file):
    loaded = read_galleries_file(file)
    tag = {TAG: loaded.version.digest}
    with dg.instance_for_test():
        defs = dg.build_defs_for_component(ImageGalleries(loaded, file))
        for name in ("download_galleries", "check_galleries", "remove_images", "__ASSET_JOB"):
            job = defs.resolve_job_def(name)
            assert name == "__ASSET_JOB" or tag.items() <= job.tags.items()
            own = [each for each in job.all_node_defs if each.name != "gallery_catalog_checks"]
            assert own
            assert all(tag.items() <= each.tags.items() for each in own if "check" not in each.name)
