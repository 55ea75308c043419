import re

import dagster as dg
import pyarrow as pa
import pytest

from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.resources import ImageDownloads

GALLERIES = Galleries(
    download={"workers": 3, "recheck": 7},
    galleries=[{"name": "g", "source": {"type": "url_list", "path": "x.txt"}, "download": {"attempts": 2}}],
)

CASES = {
    "workers": 5,
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
