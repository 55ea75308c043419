"""The web UI in a real browser: what a new user clicks, and what is seen.

One `dagster dev` serves all of them. Pictures of each page lie in build/screenshots afterwards.
"""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.demo import picture
from imgdl_pipeline.resources import ImageDownloads
from imgdl_pipeline.verdicts import CHECKS
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import WebServer

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "build" / "screenshots"
BIN = Path(sys.executable).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("ui"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]

GROUP = "/locations/imgdl_pipeline.definitions/asset-groups/galleries"
SECONDS = 120_000
"""Of patience, in the browser's milliseconds: CI's machine is slow."""


class Dagster:
    """`dagster dev` with a galleries file of its own.

    Args:
        folder: For everything.
        galleries: The galleries file's text.
    """

    def __init__(self, folder: Path, galleries: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "home").mkdir()
        shutil.copy(ROOT / "dagster.example.yaml", folder / "home" / "dagster.yaml")
        (folder / "galleries.yaml").write_text(galleries)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"

    def __enter__(self) -> "Dagster":
        self.log = (self.folder / "dagster.log").open("w")
        self.process = subprocess.Popen(
            [
                *(BIN / "dagster", "dev", "-h", "127.0.0.1", "-p", self.url.rpartition(":")[2]),
                *("-m", "imgdl_pipeline.definitions"),
            ],
            cwd=self.folder,
            env=self.environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        ends_at = time.monotonic() + 120
        while not self.answers():
            assert time.monotonic() < ends_at, (self.folder / "dagster.log").read_text()
            time.sleep(0.3)  # a process, and no thread of ours, is waited for
        return self

    @property
    def environment(self) -> dict[str, str]:
        home, file = self.folder / "home", self.folder / "galleries.yaml"
        return {**os.environ, "DAGSTER_HOME": str(home), "IMGDL_CONFIG": str(file)}

    def run_all(self) -> None:
        """Run all galleries from the terminal; the runs are in the UI, too."""
        subprocess.run(
            [BIN / "imgdl", "run", "--all"],
            cwd=self.folder,
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=300,
        )

    def __exit__(self, *exc: object) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def runs(self) -> list[dict[str, str]]:
        """All runs, the newest first."""
        query = "{runsOrError { ... on Runs {results {runId status tags {key value}}}}}"
        results = self.ask(query)["runsOrError"]["results"]
        return [
            {**{tag["key"]: tag["value"] for tag in run["tags"]}, "id": run["runId"], "status": run["status"]}
            for run in results
        ]

    def run_config_fields(self) -> dict[str, str]:
        """What the launchpad knows of the resource `image_downloads`: descriptions by field."""
        query = """{ runConfigSchemaOrError(selector: {pipelineName: "download_galleries",
            repositoryName: "__repository__", repositoryLocationName: "imgdl_pipeline.definitions"}) {
              ... on RunConfigSchema { allConfigTypes {
                ... on CompositeConfigType { fields { name description } } } } } }"""
        types = self.ask(query)["runConfigSchemaOrError"]["allConfigTypes"]
        [fields] = [
            each["fields"]
            for each in types
            if "per_host" in [field["name"] for field in each.get("fields", [])]
            and not any("deprecated" in field["description"] for field in each["fields"])
        ]
        return {field["name"]: field["description"] for field in fields}

    def verdicts(self, *galleries: str) -> dict[str, dict[str, str]]:
        """What the tab Checks shows of the galleries: the status by gallery, for each check."""
        query = """{ assetNodes(assetKeys: [{path: ["gallery_catalog"]}]) { assetChecksOrError {
            ... on AssetChecks { checks { name partitionStatuses {
              ... on AssetCheckDefaultPartitionStatuses { succeededPartitions failedPartitions
                executionFailedPartitions skippedPartitions inProgressPartitions } } } } } } }"""
        [node] = self.ask(query)["assetNodes"]
        return {
            check["name"]: {
                gallery: status.removesuffix("Partitions")
                for status, members in check["partitionStatuses"].items()
                for gallery in members
                if gallery in galleries
            }
            for check in node["assetChecksOrError"]["checks"]
        }

    def ask(self, query: str) -> dict[str, Any]:
        """What the UI itself asks of its web server."""
        request = urllib.request.Request(
            f"{self.url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data

    def wait_for(self, count: int, statuses: set[str], known: list[dict[str, str]]) -> list[dict[str, str]]:
        """Wait until there are so many runs beside the known ones, and all have one of these statuses."""
        ends_at = time.monotonic() + 240
        known_ids = {run["id"] for run in known}
        while True:
            runs = [run for run in self.runs() if run["id"] not in known_ids]
            if len(runs) >= count and all(run["status"] in statuses for run in runs):
                return runs
            assert time.monotonic() < ends_at, runs
            time.sleep(0.5)  # other processes are at work


@pytest.fixture(scope="module")
def pictures() -> Iterator[WebServer]:
    with WebServer() as server:
        for gallery in "abc":
            for number in range(6):
                server.serve(f"/{gallery}{number}.jpg", jpeg(number, (400, 300)))
        server.hung = threading.Event()

        def hang(handler) -> None:
            server.hung.set()
            server.release.wait(120)

        server.routes |= {f"/slow{number}.jpg": hang for number in range(8)}
        yield server


@pytest.fixture(scope="module")
def dagster(pictures, tmp_path_factory) -> Iterator[Dagster]:
    folder = tmp_path_factory.mktemp("ui") / "dagster"
    lists = {name: [f"/{name}{number}.jpg" for number in range(6)] for name in "abc"}
    lists["slow"] = [f"/slow{number}.jpg" for number in range(8)]
    galleries = "".join(
        f"    - name: {name}\n      source: {{type: url_list, path: {folder}/{name}.txt}}\n" for name in lists
    )
    galleries += f"    - name: never\n      source: {{type: url_list, path: {folder}/never.txt}}\n"
    with Dagster(
        folder,
        "type: imgdl_pipeline.ImageGalleries\nattributes:\n"
        f"  store: {folder}/store\n  schedule_status: STOPPED\n"
        "  download: {allow_addresses: [127.0.0.0/8], robots_txt: false, timeout: 100}\n  galleries:\n"
        f"    - name: demo\n      source: {{type: demo}}\n{galleries}",
    ) as running:
        for name, paths in lists.items():
            (folder / f"{name}.txt").write_text("\n".join(pictures.url(path) for path in paths))
        yield running


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, dagster, request) -> Iterator[Page]:
    context = browser.new_context(base_url=dagster.url, viewport={"width": 1500, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(SECONDS)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    yield opened
    opened.screenshot(path=SCREENSHOTS / f"{request.node.name}.png")
    context.close()


def materialize(page: Page, *galleries: str) -> None:
    """Click Materialize all, choose the galleries, and launch."""
    page.goto(GROUP)
    page.get_by_role("button", name=re.compile("Materialize all")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Select a partition or create one").click()
    for name in galleries:
        page.get_by_role("menuitem", name=re.compile(f"^{name}")).click()
    try:
        dialog.get_by_text("Partition selection").click(timeout=5_000)  # which closes the menu
    except PlaywrightTimeoutError:  # where the menu lies over the words, a key closes it
        page.keyboard.press("Escape")
    dialog.get_by_role("button", name=re.compile("^Launch")).last.click()
    expect(dialog.get_by_text("Partition selection")).to_be_hidden(timeout=SECONDS)


def test_a_gallery_is_materialized_by_clicking_and_shows_its_pictures_and_checks(page, dagster, demo_port):
    known = dagster.runs()
    materialize(page, "demo")
    [run] = dagster.wait_for(1, {"SUCCESS"}, known)
    page.goto(f"/runs/{run['id']}")
    expect(page.get_by_text("RUN_SUCCESS").first).to_be_visible(timeout=SECONDS)
    page.goto("/assets/gallery_catalog?view=partitions&partition=demo")
    expect(page.get_by_text("share_failed").first).to_be_visible(timeout=SECONDS)
    page.get_by_text(re.compile("Show Markdown|Show markdown")).first.click()
    sheet = page.locator("img[src^='data:image/jpeg']")
    expect(sheet.first).to_be_visible(timeout=SECONDS)
    assert sheet.first.evaluate("image => image.naturalWidth") > 900
    page.screenshot(path=SCREENSHOTS / "contact_sheet.png")
    page.goto("/assets/gallery_catalog?view=checks")
    for name in CHECKS:
        expect(page.get_by_text(name).first).to_be_visible(timeout=SECONDS)
    page.get_by_text("few_links_failed").first.click()
    expect(page.get_by_text("1 of 40 links failed").first).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text("demo").first).to_be_visible(timeout=SECONDS)
    page.screenshot(path=SCREENSHOTS / "checks.png")


def test_three_galleries_are_backfilled_by_one_click(page, dagster):
    known = dagster.runs()
    materialize(page, "a", "b", "c")
    runs = dagster.wait_for(3, {"SUCCESS"}, known)
    assert {run["dagster/partition"] for run in runs} == {"a", "b", "c"}


def test_a_gallery_that_failed_is_run_again_alone(page, dagster, pictures):
    known = dagster.runs()
    (dagster.folder / "a.txt").rename(dagster.folder / "a.away")
    materialize(page, "a", "b")
    runs = dagster.wait_for(2, {"SUCCESS", "FAILURE"}, known)
    ended = {run["dagster/partition"]: run["status"] for run in runs}
    assert ended == {"a": "FAILURE", "b": "SUCCESS"}
    (dagster.folder / "a.away").rename(dagster.folder / "a.txt")
    known = dagster.runs()
    materialize(page, "a")
    [run] = dagster.wait_for(1, {"SUCCESS", "FAILURE"}, known)
    assert (run["dagster/partition"], run["status"]) == ("a", "SUCCESS")


CHECKS_TAB = "/assets/gallery_catalog?view=checks"
CHECK_JOB = "/locations/imgdl_pipeline.definitions/jobs/check_galleries/playground"
ALL_PASSED = dict.fromkeys(CHECKS, "succeeded")


def of_gallery(verdicts: dict[str, dict[str, str]], gallery: str) -> dict[str, str]:
    return {name: by_gallery[gallery] for name, by_gallery in verdicts.items()}


def see_table(page: Page, check: str, row: str) -> None:
    """Open the table in the metadata of what a check found last, and see a row of it."""
    page.goto(CHECKS_TAB)
    page.get_by_text(check, exact=True).first.click()
    page.get_by_text(re.compile("Show Markdown", re.IGNORECASE)).first.click(timeout=SECONDS / 4)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("row", name=row)).to_be_visible(timeout=SECONDS)


def test_a_broken_gallery_turns_one_check_yellow_and_a_good_one_that_breaks_turns_none(page, dagster):
    known = dagster.runs()
    materialize(page, "c", "never")
    runs = dagster.wait_for(2, {"SUCCESS", "FAILURE"}, known)
    assert {run["dagster/partition"]: run["status"] for run in runs} == {"c": "SUCCESS", "never": "FAILURE"}
    shown = dagster.verdicts("c", "never")
    assert of_gallery(shown, "c") == ALL_PASSED
    assert of_gallery(shown, "never") == {**ALL_PASSED, "is_fresh": "failed"}
    page.goto(CHECKS_TAB)
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(len(CHECKS) - 1, timeout=SECONDS)
    page.get_by_text("is_fresh", exact=True).first.click()
    page.get_by_role("tab", name="Partitions").last.click()
    page.get_by_text("never", exact=True).locator("visible=true").last.click()
    expect(page.get_by_text("no run has cataloged this gallery yet").first).to_be_visible(timeout=SECONDS)
    page.screenshot(path=SCREENSHOTS / "checks_of_a_broken_gallery.png")
    (dagster.folder / "c.txt").rename(dagster.folder / "c.away")
    known = dagster.runs()
    materialize(page, "c")
    [run] = dagster.wait_for(1, {"SUCCESS", "FAILURE"}, known)
    (dagster.folder / "c.away").rename(dagster.folder / "c.txt")
    assert run["status"] == "FAILURE"
    assert dagster.verdicts("c", "never") == shown
    page.goto(CHECKS_TAB)
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(len(CHECKS) - 1, timeout=SECONDS)


def test_the_page_of_a_run_that_failed_shows_the_cause_first(page, dagster):
    known = dagster.runs()
    materialize(page, "never")
    [run] = dagster.wait_for(1, {"FAILURE"}, known)
    page.goto(
        f"/runs/{run['id']}?logs=query%3Aname%3A%22gallery_links%22&selection=name%3A%22gallery_links%22"
    )
    event = page.get_by_text("STEP_FAILURE").locator("xpath=ancestor::*[contains(., 'Stack Trace')][1]")
    expect(event).to_contain_text(
        f"Failure: {dagster.folder}/never.txt: there is no such file, and no file matches", timeout=SECONDS
    )
    first = event.inner_text().partition("Stack Trace")[0]
    for label, value in {"gallery": "never", "source": "url_list", "error": "SourceError"}.items():
        assert re.search(rf"{label}\s+{value}", first), first
    page.screenshot(path=SCREENSHOTS / "failure.png")


def choose_partition(page: Page, name: str) -> None:
    """Choose the partition of the launchpad, which closes its menu when it is drawn again."""
    field = page.get_by_placeholder("Partition")
    while field.input_value() != name:
        field.fill(name)
        try:
            page.get_by_role("menuitem", name=re.compile(f"^{name}")).click(timeout=3_000)
        except PlaywrightTimeoutError:
            field.clear()
        else:
            expect(field).to_have_value(name)


def test_the_job_of_checks_takes_a_gallery_in_the_launchpad_or_checks_all_of_them(page, dagster):
    known = dagster.runs()
    page.goto(CHECK_JOB)
    expect(page.get_by_text("No errors").first).to_be_visible(timeout=SECONDS)
    page.get_by_role("button", name=re.compile("Launch Run")).click()
    page.get_by_role("button", name="Confirm").click()
    [run] = dagster.wait_for(1, {"SUCCESS", "FAILURE"}, known)
    assert ("dagster/partition" in run, run["status"]) == (False, "SUCCESS")
    galleries = ("demo", "a", "b", "c", "slow", "never")
    assert all(set(each) == set(galleries) for each in dagster.verdicts(*galleries).values())
    see_table(page, "is_fresh", "never warn no run has cataloged this gallery yet")
    expect(page.get_by_text(re.compile("[1-6] of 6 galleries do not pass")).first).to_be_visible()
    known = dagster.runs()
    page.goto(CHECK_JOB)
    expect(page.get_by_text("No errors").first).to_be_visible(timeout=SECONDS)
    choose_partition(page, "never")
    page.get_by_role("button", name=re.compile("Launch Run")).click()
    [run] = dagster.wait_for(1, {"SUCCESS", "FAILURE"}, known)
    assert (run["dagster/partition"], run["status"]) == ("never", "SUCCESS")


def test_the_button_execute_all_checks_every_gallery_and_shows_the_worst_with_a_table(page, dagster):
    known = dagster.runs()
    page.goto(CHECKS_TAB)
    page.get_by_role("button", name="Execute all").click()
    [run] = dagster.wait_for(1, {"SUCCESS", "FAILURE"}, known)
    assert ("dagster/partition" in run, run["status"]) == (False, "SUCCESS")
    galleries = ("demo", "a", "b", "c", "slow", "never")
    shown = dagster.verdicts(*galleries)
    assert all(set(each) == set(galleries) for each in shown.values())
    assert {"executionFailed", "inProgress"}.isdisjoint(
        status for each in shown.values() for status in each.values()
    )
    page.goto(CHECKS_TAB)
    page.get_by_text("is_fresh", exact=True).first.click()
    expect(page.get_by_text("Latest execution").first).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text("Passed", exact=True)).to_have_count(0)
    see_table(page, "is_fresh", "never warn no run has cataloged this gallery yet")


def test_a_running_download_is_terminated_and_stops(page, dagster, pictures):
    materialize(page, "slow")
    assert pictures.hung.wait(120)
    [run] = [run for run in dagster.runs() if run["status"] == "STARTED"]
    ledger = dagster.folder / "store/downloads/gallery=slow/downloads.parquet"
    assert not ledger.exists()
    page.goto(f"/runs/{run['id']}")
    page.get_by_role("button", name="Terminate").click()
    dialog = page.get_by_role("dialog")
    clicked = time.monotonic()
    dialog.get_by_role("button", name=re.compile("Terminate")).last.click()
    while next(each for each in dagster.runs() if each["id"] == run["id"])["status"] != "CANCELED":
        assert time.monotonic() - clicked < 30
        time.sleep(0.2)  # another process is at work
    stopped = time.monotonic() - clicked
    assert ledger.exists()
    assert stopped < 10, "5 s for the run, and some for Dagster to notice"


def test_the_launchpad_describes_every_setting(page, dagster):
    page.goto("/locations/imgdl_pipeline.definitions/jobs/download_galleries/playground")
    expect(page.get_by_text("downloads").first).to_be_visible(timeout=SECONDS)
    resources = dagster.run_config_fields()
    assert set(resources) == {*DownloadSettings.model_fields, "limit", "force"}
    assert resources["workers"] == ImageDownloads.model_fields["workers"].description


def test_a_broken_galleries_file_shows_its_error(browser, tmp_path):
    with Dagster(
        tmp_path / "broken",
        "type: imgdl_pipeline.ImageGalleries\nattributes:\n  galleries:\n    - name: demo\n"
        "      source: {type: demo, imagez: 4}\n",
    ) as broken:
        page = browser.new_page(base_url=broken.url, viewport={"width": 1500, "height": 1000})
        page.goto("/locations")
        page.get_by_text(re.compile("View error")).first.click(timeout=SECONDS)
        expect(
            page.get_by_text(re.compile("unknown key 'imagez'; allowed are images, type")).first
        ).to_be_visible(timeout=SECONDS)
        page.close()


@pytest.fixture
def own_assets(pictures, tmp_path) -> Iterator[Dagster]:
    """A second Dagster, whose two galleries have assets of their own."""
    folder = tmp_path / "own"
    lists = {"birds-1.x": [f"/a{number}.jpg" for number in range(6)], "boats": ["/b0.jpg", "/b1.jpg"]}
    galleries = "".join(
        f"    - name: {name}\n      source: {{type: url_list, path: {folder}/{name}.txt}}\n" for name in lists
    )
    with Dagster(
        folder,
        f"type: imgdl_pipeline.ImageGalleries\nattributes:\n  store: {folder}/store\n"
        "  asset_per_gallery: true\n  assets: {group_name: galleries}\n  schedule_status: STOPPED\n"
        f"  download: {{allow_addresses: [127.0.0.0/8], robots_txt: false}}\n  galleries:\n{galleries}",
    ) as running:
        for name, paths in lists.items():
            (folder / f"{name}.txt").write_text("\n".join(pictures.url(path) for path in paths))
        yield running


def test_galleries_with_assets_of_their_own_have_their_own_lineage_checks_and_plots(browser, own_assets):
    page = browser.new_page(base_url=own_assets.url, viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(SECONDS)
    for count in (1, 2):
        page.goto(f"{GROUP}/lineage")
        page.get_by_role("button", name=re.compile("Materialize all")).click()
        runs = own_assets.wait_for(count, {"SUCCESS", "FAILURE"}, [])
        assert {run["status"] for run in runs} == {"SUCCESS"}
    page.goto(f"{GROUP}/lineage")
    expect(page.get_by_text(f"{len(CHECKS)} / {len(CHECKS)} Passed")).to_have_count(2, timeout=SECONDS)
    for stage in ("links", "images", "catalog"):
        expect(page.get_by_text(stage, exact=True)).to_have_count(2)
    nodes = own_assets.ask("{ assetNodes { assetKey { path } dependencyKeys { path } partitionKeys } }")
    lineage = {
        "/".join(node["assetKey"]["path"]): sorted("/".join(key["path"]) for key in node["dependencyKeys"])
        for node in nodes["assetNodes"]
    }
    assert lineage == {
        f"gallery/{name}/{stage}": [f"gallery/{name}/{upstream}" for upstream in upstreams]
        for name in ("birds-1.x", "boats")
        for stage, upstreams in {"links": [], "images": ["links"], "catalog": ["images", "links"]}.items()
    }
    assert not any(node["partitionKeys"] for node in nodes["assetNodes"])
    page.screenshot(path=SCREENSHOTS / "asset_per_gallery.png")
    page.goto("/assets/gallery/boats/catalog?view=checks")
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(len(CHECKS), timeout=SECONDS)
    page.get_by_text("few_links_failed", exact=True).first.click()
    expect(page.get_by_text("0 of 2 links failed").first).to_be_visible(timeout=SECONDS)
    for name, links in {"boats": 2, "birds-1.x": 6}.items():
        page.goto(f"/assets/gallery/{name}/catalog?view=overview")
        page.get_by_text("Plots", exact=True).first.click()
        expect(page.get_by_text("share_failed", exact=True).first).to_be_visible(timeout=SECONDS)
        expect(page.locator("canvas").first).to_be_visible(timeout=SECONDS)
        assert plotted(own_assets, ["gallery", name, "catalog"], "ok") == [links, links]
    page.screenshot(path=SCREENSHOTS / "plots.png")
    page.close()


def plotted(dagster: Dagster, key: list[str], label: str) -> list[int]:
    """The numbers that the UI plots of an asset."""
    path = json.dumps(key)
    answer = dagster.ask(
        f"{{ assetOrError(assetKey: {{path: {path}}}) {{ ... on Asset {{ assetMaterializations {{ "
        "metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }"
    )
    return [
        entry["intValue"]
        for each in answer["assetOrError"]["assetMaterializations"]
        for entry in each["metadataEntries"]
        if entry["label"] == label
    ]


def similar(seed: int) -> list[bytes]:
    """A picture of the demo gallery as it goes around: compressed again, smaller, and cut."""
    with Image.open(io.BytesIO(picture(seed))) as opened:
        width, height = opened.size
        cut = opened.crop((6, 4, width - 6, height - 4))
        images = [opened.copy(), opened.resize((width // 2, height // 2)), cut][: 3 - seed % 2]
    copies = []
    for number, image in enumerate(images):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60 - 20 * number)
        copies.append(file.getvalue())
    return [picture(seed), *copies]


@pytest.fixture(scope="module")
def with_datasets(pictures, tmp_path_factory) -> Iterator[Dagster]:
    """A Dagster with near duplicates, whose gallery `data` has a dataset and `plain` has none."""
    folder = tmp_path_factory.mktemp("ui") / "datasets"
    lists: dict[str, list[str]] = {"data": [], "plain": []}
    for seed in range(1, 7):
        for number, data in enumerate(similar(seed)):
            name = "plain" if number == 2 else "data"
            lists[name].append(pictures.serve(f"/near{seed}_{number}.jpg", data))
    source = f"source: {{type: url_list, path: {folder}"
    with Dagster(
        folder,
        f"type: imgdl_pipeline.ImageGalleries\nattributes:\n  store: {folder}/store\n"
        "  schedule_status: STOPPED\n  near_duplicates: {distance: 8}\n"
        "  download: {allow_addresses: [127.0.0.0/8], robots_txt: false}\n  galleries:\n"
        f"    - name: data\n      {source}/data.txt}}\n"
        '      dataset: {format: webdataset, where: "width > 1", shard_images: 10}\n'
        f"    - name: plain\n      {source}/plain.txt}}\n",
    ) as running:
        for name, links in lists.items():
            (folder / f"{name}.txt").write_text("\n".join(links))
        running.run_all()  # each test has what it needs, in whatever process and order it runs
        yield running


@pytest.fixture
def datasets_page(browser, with_datasets, request) -> Iterator[Page]:
    context = browser.new_context(base_url=with_datasets.url, viewport={"width": 1500, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(SECONDS)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    yield opened
    opened.screenshot(path=SCREENSHOTS / f"{request.node.name}.png")
    context.close()


def names_in_tars(dagster: Dagster) -> set[str]:
    """The links whose pictures the dataset of `data` has, without what is before the last slash."""
    rows = []
    for tar in (dagster.folder / "store/datasets/data").glob("*.tar"):
        with tarfile.open(tar) as opened:
            rows += [json.load(opened.extractfile(each)) for each in opened if each.name.endswith(".json")]
    return {row["url"].rpartition("/")[2] for row in rows}


JOBS = "/locations/imgdl_pipeline.definitions/jobs"


def test_a_gallery_with_a_dataset_is_materialized_by_clicking_and_its_page_shows_what_is_in_it(
    datasets_page, with_datasets
):
    page, dagster = datasets_page, with_datasets
    known = dagster.runs()
    page.goto(f"{JOBS}/download_galleries/playground")
    expect(page.get_by_text("No errors").first).to_be_visible(timeout=SECONDS)
    for name in ("data", "plain"):
        choose_partition(page, name)
        page.get_by_role("button", name=re.compile("Launch Run")).click()
        runs = dagster.wait_for(1, {"SUCCESS", "FAILURE"}, known)
        assert {run["status"] for run in runs} == {"SUCCESS"}
        known = dagster.runs()
        page.goto(f"{JOBS}/download_galleries/playground")
    page.goto("/assets/gallery_dataset?view=partitions&partition=data")
    for words in ("format", "webdataset", "licences", "settings"):
        expect(page.get_by_text(words, exact=True).first).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text(f"{dagster.folder}/store/datasets/data").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "dataset.png")
    node = dagster.ask(
        '{ assetNodes(assetKeys: [{path: ["gallery_dataset"]}]) { partitionStats '
        "{ numMaterialized numPartitions numFailed } } }"
    )["assetNodes"][0]
    assert node["partitionStats"] == {"numMaterialized": 1, "numPartitions": 2, "numFailed": 0}


def test_the_page_of_near_duplicates_shows_the_largest_groups_as_a_picture(datasets_page, with_datasets):
    page, dagster = datasets_page, with_datasets
    known = dagster.runs()
    page.goto(f"{JOBS}/find_near_duplicates/playground")
    expect(page.get_by_text("No errors").first).to_be_visible(timeout=SECONDS)
    page.get_by_role("button", name=re.compile("Launch Run")).click()
    [run] = dagster.wait_for(1, {"SUCCESS", "FAILURE"}, known)
    assert run["status"] == "SUCCESS"
    page.goto("/assets/near_duplicates?view=events")
    expect(page.get_by_text("groups_by_size").first).to_be_visible(timeout=SECONDS)
    row = page.get_by_role("row").filter(has_text="largest_groups").last
    row.get_by_text(re.compile("Show Markdown", re.IGNORECASE)).click()
    sheet = page.locator("img[src^='data:image/jpeg']").first
    expect(sheet).to_be_visible(timeout=SECONDS)
    assert sheet.evaluate("image => image.naturalWidth") > 300
    assert sheet.evaluate("image => image.naturalHeight") > 300
    page.screenshot(path=SCREENSHOTS / "near_duplicates.png")


def launch_removal(page: Page, dagster: Dagster, config: str) -> dict[str, str]:
    """Write a config in the launchpad of `remove_images`, launch it, and open the page of its run."""
    known = dagster.runs()
    page.goto(f"{JOBS}/remove_images/playground")
    page.locator(".CodeMirror").first.click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(f"{{ops: {{remove_images_step: {{config: {config}}}}}}}")
    expect(page.get_by_text("No errors").first).to_be_visible(timeout=SECONDS)
    page.get_by_role("button", name=re.compile("Launch Run")).click()
    [run] = dagster.wait_for(1, {"SUCCESS", "FAILURE"}, known)
    page.goto(f"/runs/{run['id']}")
    return run


def test_images_are_removed_in_the_launchpad_after_a_look_at_what_would_go(
    datasets_page, with_datasets, pictures
):
    page, dagster = datasets_page, with_datasets
    link = pictures.url("/near1_0.jpg")
    assert "near1_0.jpg" in names_in_tars(dagster)
    page.goto(f"{JOBS}/remove_images/playground")
    expect(page.get_by_text("Missing required config", exact=False).first).to_be_visible(timeout=SECONDS)
    run = launch_removal(page, dagster, f'{{urls: ["{link}"], reason: "asked for by its owner"}}')
    assert run["status"] == "SUCCESS"
    expect(page.get_by_text("1 file would be removed").first).to_be_visible(timeout=SECONDS)
    assert "near1_0.jpg" in names_in_tars(dagster)
    config = f'{{urls: ["{link}"], reason: "asked for by its owner", dry_run: false}}'
    run = launch_removal(page, dagster, config)
    assert run["status"] == "SUCCESS"
    expect(page.get_by_text("1 file was removed").first).to_be_visible(timeout=SECONDS)
    page.screenshot(path=SCREENSHOTS / "removal.png")
    assert "near1_0.jpg" not in names_in_tars(dagster)
    assert "near2_0.jpg" in names_in_tars(dagster)


def test_a_removal_of_nothing_fails_in_words(datasets_page, with_datasets):
    run = launch_removal(datasets_page, with_datasets, '{reason: "x", dry_run: false}')
    assert run["status"] == "FAILURE"
    words = datasets_page.get_by_text(re.compile("name what to remove"))
    expect(words.first).to_be_visible(timeout=SECONDS)


@pytest.fixture
def laion(pictures, tmp_path) -> Iterator[Dagster]:
    """A Dagster with a very large gallery, in three shards; its sensor is on."""
    folder = tmp_path / "laion"
    with Dagster(
        folder,
        f"type: imgdl_pipeline.ShardedGallery\nattributes:\n  name: laion\n  shards: 3\n"
        f"  store: {folder}/store\n  schedule_status: RUNNING\n  dataset: {{format: parquet}}\n"
        f"  source: {{type: url_list, path: {folder}/links.txt}}\n"
        "  download: {allow_addresses: [127.0.0.0/8], robots_txt: false}\n",
    ) as running:
        links = [pictures.serve(f"/laion{number}.jpg", picture(number)) for number in range(30)]
        (folder / "links.txt").write_text("\n".join(links))
        yield running


def test_a_very_large_gallery_is_listed_by_a_click_and_the_sensor_runs_its_shards(browser, laion):
    page = browser.new_page(base_url=laion.url, viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(SECONDS)
    page.goto("/assets/laion/gallery_list?view=overview")
    page.get_by_role("button", name=re.compile("Materialize")).first.click()
    runs = laion.wait_for(4, {"SUCCESS", "FAILURE"}, [])
    assert {run["status"] for run in runs} == {"SUCCESS"}
    assert {run.get("dagster/partition") for run in runs} == {None, "0000", "0001", "0002"}
    page.goto("/assets/laion/gallery_catalog?view=partitions")
    expect(page.get_by_text("0002", exact=True).first).to_be_visible(timeout=SECONDS)
    assert sum(plotted(laion, ["laion", "gallery_catalog"], "ok")) == 30
    assert sum(plotted(laion, ["laion", "gallery_dataset"], "images")) == 30
    page.goto(f"{GROUP}/lineage")
    for stage in ("gallery_list", "gallery_images", "gallery_catalog", "gallery_dataset"):
        expect(page.get_by_text(stage, exact=True).first).to_be_visible(timeout=SECONDS)
    page.screenshot(path=SCREENSHOTS / "very_large_gallery.png")
    page.close()
