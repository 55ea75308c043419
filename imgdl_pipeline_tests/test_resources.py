import logging
import re

import dagster as dg
import pyarrow as pa
import pytest

from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.definitions import defs
from imgdl_pipeline.resources import RENAMED_DOWNLOADS, ImageDownloads

GALLERIES = Galleries(
    download={"workers": 3, "recheck": 7},
    galleries=[{"name": "g", "source": {"type": "url_list", "path": "x.txt"}, "download": {"attempts": 2}}],
)

CASES = {
    "workers": 5,
    "processes": "auto",
    "per_host": 2,
    "timeout": 1.5,
    "attempts": 9,
    "max_bytes": 10,
    "max_pixels": 11,
    "max_decode_bytes": 12,
    "host_patience": 60.0,
    "time_limit": 3600.0,
    "requests_per_second": 2.5,
    "environment_proxies": True,
    "allow_addresses": ["10.0.0.0/8"],
    "robots_txt": False,
    "opt_out_headers": False,
    "purpose": "search",
    "recheck": "0.5",
    "user_agent": "me/1.0",
}


def settings(**config):
    return ImageDownloads(**{"limit": None, "force": False, **config}).settings(
        GALLERIES, GALLERIES.gallery("g")
    )


def test_left_alone_it_is_as_the_galleries_file_has_it():
    assert settings() == GALLERIES.download_settings(GALLERIES.gallery("g"))


@pytest.mark.parametrize("name", DownloadSettings.model_fields)
def test_every_setting_can_be_overridden_for_one_run(name):
    changed = getattr(settings(**{name: CASES[name]}), name)
    assert changed == DownloadSettings.model_validate({name: CASES[name]}).model_dump()[name]


def test_every_field_has_a_description_for_the_launchpad():
    for name in (*DownloadSettings.model_fields, "limit", "force"):
        assert ImageDownloads.model_fields[name].description


@pytest.mark.parametrize("name", DownloadSettings.model_fields)
def test_every_setting_is_accepted_as_run_config(name):
    seen = []

    @dg.op
    def look(image_downloads: ImageDownloads):
        seen.append(getattr(image_downloads, name))

    @dg.job(resource_defs={"image_downloads": ImageDownloads(limit=None, force=False)})
    def look_job():
        look()

    config = {"resources": {"image_downloads": {"config": {name: CASES[name]}}}}
    assert look_job.execute_in_process(run_config=config).success
    assert seen == [CASES[name]]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"workers": 0},
            r"resources\.image_downloads\.config\.workers: .* greater than or equal to 1, not 0",
        ),
        ({"processes": "all"}, r"config\.processes: .* must be auto, or a number of processes from 1 to 64"),
        ({"recheck": "sometimes"}, r"config\.recheck: .* must be never, or a number of days above 0"),
        ({"allow_addresses": ["nonsense"]}, r"config\.allow_addresses: .* give a CIDR such as"),
    ],
)
def test_a_runs_own_setting_that_is_not_allowed_fails_it_in_a_sentence(config, words):
    with pytest.raises(dg.Failure) as caught:
        settings(**config)
    assert re.search(words, caught.value.description)


def test_the_launchpad_says_what_counts_where_nothing_is_set():
    assert ImageDownloads.model_fields["workers"].description == (
        "threads in the Queue/DownloadWorker pool; null: as the galleries file has it, or else 8"
    )


def test_arrow_takes_the_systems_memory_during_a_run_unless_its_own_variable_says_otherwise(monkeypatch):
    resource, context = ImageDownloads(limit=None, force=False), dg.build_init_resource_context()
    before = pa.default_memory_pool().backend_name
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    with resource.yield_for_execution(context):
        assert pa.default_memory_pool().backend_name == "system"
    assert pa.default_memory_pool().backend_name == before
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", before)
    with resource.yield_for_execution(context):
        assert pa.default_memory_pool().backend_name == before


def test_recheck_is_a_number_of_days_in_run_config_as_in_the_file():
    assert settings(recheck=7) == settings()
    assert settings(recheck=0.5).recheck == 0.5
    assert settings(recheck="never").recheck == "never"


class OwnProcess:
    """A job of a process of our own, whose run config may still have the old key."""

    def __init__(self, resources):
        self.seen = []

        @dg.op
        def look(image_downloads: ImageDownloads):
            self.seen.append(image_downloads)

        @dg.job(resource_defs=resources)
        def look_job():
            look()

        self.job = look_job

    def run(self, **resources):
        """The resource that a run gets, and the warnings in its log."""
        config = {"resources": {key: {"config": value} for key, value in resources.items()}}
        with dg.DagsterInstance.ephemeral() as instance:
            result = self.job.execute_in_process(run_config=config, instance=instance)
            records = instance.all_logs(result.run_id)
        warnings = [each.user_message for each in records if each.level == logging.WARNING]
        return self.seen.pop(), warnings


@pytest.fixture
def own():
    return OwnProcess(RENAMED_DOWNLOADS)


OLD_KEY_WORDS = (
    "run config: resources.downloads is deprecated, and goes with version 1; write resources.image_downloads"
)


def test_the_old_key_still_applies_and_the_runs_log_warns(own):
    opened, warnings = own.run(downloads={"workers": 5, "recheck": 7, "limit": 2})
    assert (opened.workers, opened.recheck, opened.limit, opened.force) == (5, 7, 2, False)
    assert warnings == [OLD_KEY_WORDS]
    assert opened.settings(GALLERIES, GALLERIES.gallery("g")).workers == 5


def test_the_new_key_wins_field_by_field(own):
    opened, warnings = own.run(downloads={"workers": 5, "attempts": 9}, image_downloads={"workers": 6})
    assert (opened.workers, opened.attempts) == (6, 9)
    assert warnings == [OLD_KEY_WORDS]


def test_the_new_key_alone_and_no_key_at_all_warn_of_nothing(own):
    assert own.run(image_downloads={"workers": 6, "force": True})[1] == []
    opened, warnings = own.run()
    assert warnings == []
    assert opened.settings(GALLERIES, GALLERIES.gallery("g")) == settings()


@pytest.mark.parametrize("name", [*DownloadSettings.model_fields, "limit", "force"])
def test_every_field_applies_under_the_old_key(own, name):
    value = {**CASES, "limit": 3, "force": True}[name]
    opened, warnings = own.run(downloads={name: value})
    assert getattr(opened, name) == value
    assert warnings == [OLD_KEY_WORDS]


def test_a_value_from_the_environment_applies_under_both_keys(own, monkeypatch):
    monkeypatch.setenv("OUR_WORKERS", "4")
    for key in ("downloads", "image_downloads"):
        assert own.run(**{key: {"workers": {"env": "OUR_WORKERS"}}})[0].workers == 4


def test_the_workers_that_decode_are_those_of_the_run(own):
    opened, _ = own.run(downloads={"limit": 1})
    assert opened.jpegs is not None


def test_only_definitions_of_our_own_process_have_the_old_key():
    component = dg.build_defs_for_component(ImageGalleries(GALLERIES))
    assert "downloads" not in component.resources
    assert {"downloads", "image_downloads"} <= set(defs().resources)


@pytest.mark.parametrize("value", [True, [7], "sometimes", 0, -1])
def test_a_recheck_that_means_nothing_is_refused_in_a_sentence(value):
    with pytest.raises(dg.Failure) as caught:
        settings(recheck=value)
    words = caught.value.description
    assert words.startswith("resources.image_downloads.config.recheck: ")
    assert "must be never, or a number of days above 0, or {new, stable, max_share}" in words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"days": 7}, "unknown key 'days'; allowed are max_share, new, stable"),
        ({"new": 0}, "Input should be greater than 0"),
        ({"max_share": 2}, "Input should be less than or equal to 1"),
        (
            {"stable": 30, "max_share": 0.01},
            "max_share 0.01 of the links a day does not reach each of them in",
        ),
    ],
)
def test_a_recheck_by_age_that_means_nothing_is_refused_in_a_sentence(value, words):
    with pytest.raises(dg.Failure) as caught:
        settings(recheck=value)
    assert words in caught.value.description


def test_a_wrong_value_under_the_old_key_fails_in_a_sentence(own):
    opened, _ = own.run(downloads={"workers": 0})
    with pytest.raises(dg.Failure) as caught:
        opened.settings(GALLERIES, GALLERIES.gallery("g"))
    assert "workers: Input should be greater than or equal to 1, not 0" in caught.value.description
