import dagster as dg
import pyarrow.parquet as pq
import pytest

from imgdl_pipeline.assets import build_assets
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.download.run import Progress
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.progress import every_few_seconds
from imgdl_pipeline.resources import ImageDownloads
from imgdl_pipeline_tests.support.pictures import jpeg


@pytest.fixture
def materialize(tmp_path, monkeypatch):
    """Materializes assets of a galleries file with a store of the test's own."""
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))

    def materialize_(galleries, partition, only=None, downloads=None, **more):
        assets = [
            each for each in build_assets(galleries) if only is None or each.key.to_user_string() == only
        ]
        return dg.materialize(
            assets,
            partition_key=partition,
            resources={"image_downloads": downloads or ImageDownloads(limit=None)},
            **more,
        )

    return materialize_


@pytest.fixture
def galleries(tmp_path, server):
    """A gallery of three links on the tests' server: a picture, its copy, and a dead one."""
    server.serve("/a.jpg", jpeg(1))
    server.serve("/b.jpg", jpeg(1))
    lines = "\n".join(f"{server.url(path)},{path}" for path in ("/a.jpg", "/b.jpg", "/dead.jpg"))
    (tmp_path / "links.csv").write_text(f"url,title\n{lines}\n")
    return Galleries(
        store="not used: IMGDL_STORE is set",
        download={"allow_addresses": ["127.0.0.1/32"], "attempts": 1},
        galleries=[
            {"name": "mine", "source": {"type": "url_list", "path": str(tmp_path / "links.csv")}},
            {
                "name": "locked",
                "source": {"type": "imgur", "gallery": "hot", "client_id": "{{ env.NO_SUCH }}"},
            },
        ],
    )


def metadata(result, asset):
    [materialization] = result.asset_materializations_for_node(asset)
    return {key: entry.value for key, entry in materialization.metadata.items()}


def test_the_assets_are_the_contracts_three_partitioned_by_gallery(galleries):
    assets = build_assets(galleries)
    assert [each.key.to_user_string() for each in assets] == [
        "gallery_links",
        "gallery_images",
        "gallery_catalog",
    ]
    links, images = (dg.AssetKey(f"gallery_{name}") for name in ("links", "images"))
    assert set(assets[1].dependency_keys) == {links}
    assert set(assets[2].dependency_keys) == {links, images}
    assert all(each.partitions_def.get_partition_keys() == ["mine", "locked"] for each in assets)


def test_a_gallery_becomes_the_contracts_three_files(materialize, galleries, tmp_path):
    assert materialize(galleries, "mine").success
    store = tmp_path / "store"
    for path, schema in {
        "links/gallery=mine/links.parquet": LINKS,
        "downloads/gallery=mine/downloads.parquet": DOWNLOADS,
        "catalog/gallery=mine/catalog.parquet": CATALOG,
    }.items():
        assert pq.read_schema(store / path).equals(schema)
    rows = pq.read_table(store / "catalog/gallery=mine/catalog.parquet", partitioning=None).to_pylist()
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("ok", None),
        ("ok", None),
        ("failed", "http_404"),
    ]
    assert (store / rows[0]["path"]).read_bytes() == jpeg(1)
    assert rows[0]["attributes"] == '{"title": "/a.jpg"}'


def test_each_materialization_tells_its_numbers(materialize, galleries, tmp_path):
    result = materialize(galleries, "mine")
    links, images, catalog = (metadata(result, f"gallery_{name}") for name in ("links", "images", "catalog"))
    assert links["dagster/row_count"] == images["dagster/row_count"] == catalog["dagster/row_count"] == 3
    assert catalog["path"] == str(tmp_path / "store/catalog/gallery=mine/catalog.parquet")
    for told in (images, catalog):
        assert (told["ok"], told["failed"], told["invalid"], told["refused"]) == (2, 1, 0, 0)
        assert told["failed/http_404"] == 1
    assert (images["tried"], images["fetched"], images["bytes"]) == (3, 2, 2 * len(jpeg(1)))
    assert 0 < images["latency_p50_s"] <= images["latency_p95_s"] <= images["latency_p99_s"] < 30
    assert images["images_per_second"] > 0
    assert (catalog["checked"], catalog["duplicates"]) == (2, 1)
    assert catalog["share_failed"] == pytest.approx(1 / 3, abs=1e-3)
    columns = catalog["dagster/column_schema"].columns
    assert [column.name for column in columns] == CATALOG.names
    assert all(column.description for column in columns)


def test_numbers_are_numbers_so_that_they_plot(materialize, galleries):
    told = metadata(materialize(galleries, "mine"), "gallery_images")
    words = {"path", "dagster/column_schema", "failures"}
    assert all(isinstance(value, (int, float)) for key, value in told.items() if key not in words)


def test_one_asset_can_be_materialized_alone(materialize, galleries):
    materialize(galleries, "mine")
    assert materialize(galleries, "mine", only="gallery_catalog").success


def test_an_unset_secret_fails_its_own_gallerys_run_only(materialize, galleries):
    result = materialize(galleries, "locked", raise_on_error=False)
    assert not result.success
    [failure] = result.get_step_failure_events()[:1]
    error = failure.event_specific_data.error.cause or failure.event_specific_data.error
    assert "source.client_id needs the environment variable NO_SUCH, which is not set" in error.message
    assert materialize(galleries, "mine").success


def test_a_step_that_its_source_fails_ends_with_the_cause_and_nothing_behind_it(materialize, galleries):
    result = materialize(galleries, "locked", raise_on_error=False)
    [failure] = result.get_step_failure_events()[:1]
    data = failure.event_specific_data
    words = "source.client_id needs the environment variable NO_SUCH, which is not set"
    assert data.user_failure_data.description == words
    told = {name: value.value for name, value in data.user_failure_data.metadata.items()}
    assert told == {"gallery": "locked", "source": "imgur", "error": "MissingSecretError"}
    assert (data.error.cause, data.error.context) == (None, None)


def test_a_run_may_override_the_settings_in_its_config(materialize, galleries, server):
    config = {"resources": {"image_downloads": {"config": {"user_agent": "trial/1.0", "limit": 1}}}}
    result = materialize(galleries, "mine", run_config=config)
    assert metadata(result, "gallery_images")["tried"] == 1
    assert {headers["User-Agent"] for _, headers in server.requests} == {"trial/1.0"}


def test_a_run_with_a_bad_setting_fails_before_anything_is_fetched(materialize, galleries, server):
    config = {"resources": {"image_downloads": {"config": {"workers": 0}}}}
    assert not materialize(galleries, "mine", run_config=config, raise_on_error=False).success
    assert server.requests == []


def test_the_demo_gallery_needs_nothing(materialize, demo_port):
    galleries = Galleries(galleries=[{"name": "demo", "source": {"type": "demo", "images": 20}}])
    result = materialize(galleries, "demo")
    told = metadata(result, "gallery_catalog")
    assert (told["ok"], told["failed/http_410"], told["invalid/truncated"]) == (18, 1, 1)


def test_no_thread_is_left_behind(materialize, galleries):
    import threading

    materialize(galleries, "mine")
    assert not [each for each in threading.enumerate() if each.name.startswith(("Download", "validate"))]


def test_progress_is_logged_every_few_seconds_and_not_every_time():
    now, said = [0.0], []
    say = every_few_seconds(said.append, clock=lambda: now[0])
    for second in range(21):
        now[0] = float(second)
        say(Progress(done=second, total=20, failed=0, seconds=float(second)))
    assert [line.partition(" ")[0] for line in said] == ["5", "10", "15", "20"]
