"""The documentation is true: its tables are the code's, its YAML loads, its commands and its Python run."""

import functools
import inspect
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path
from typing import get_args

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

import imgdl_pipeline
import imgdl_pipeline.shards as public_shards
import imgdl_pipeline.sources as public_sources
from imgdl_pipeline.cli import main
from imgdl_pipeline.config.galleries import AssetSettings, Galleries, Gallery
from imgdl_pipeline.config.galleries_file import read_galleries_file
from imgdl_pipeline.config.galleries_from import GalleriesFrom
from imgdl_pipeline.config.sharded import Sharded
from imgdl_pipeline.core.dataset.where import INSTALL
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings, ResizeSettings
from imgdl_pipeline.core.model.outcome import Reason, Status
from imgdl_pipeline.core.model.schemas import CATALOG, descriptions
from imgdl_pipeline.core.model.settings import CheckSettings, DownloadSettings
from imgdl_pipeline.core.sources import source_types
from imgdl_pipeline.core.sources.attributes import NAMES
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.definitions import defs
from imgdl_pipeline.verdicts import CHECKS
from imgdl_pipeline_tests.support.datasets import Gallery as DatasetGallery
from imgdl_pipeline_tests.support.datasets import files_of, url_of
from imgdl_pipeline_tests.support.pictures import jpeg

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
ALL = "\n\n".join([README, *PAGES.values()])
MAKEFILE = (ROOT / "Makefile").read_text()
BIN = Path(sys.executable).parent


def blocks(language, text=ALL):
    """The code blocks of a language, each once, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(textwrap.dedent(block) for _, block in found))


def table(*header):
    """The rows of the table that has this header, as lists of cells."""
    lines = iter(ALL.splitlines())
    for line in lines:
        if cells(line) == list(header):
            next(lines)
            return [cells(row) for row in iter(lambda: next(lines, ""), "")]
    raise AssertionError(f"no table with the header {header}")


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split(" |")] if line.startswith("|") else []


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_the_catalogs_table_is_the_catalogs_schema():
    described = descriptions(CATALOG)
    rows = [[f"`{name}`", str(CATALOG.field(name).type), described[name]] for name in CATALOG.names]
    assert table("column", "type", "meaning") == rows


def test_the_reasons_table_is_the_codes_vocabulary():
    told = {
        code(status)[0]: set(code(reasons)) for status, _, reasons in table("status", "meaning", "reasons")
    }
    known = {status.value: set() for status in Status}
    for reason in Reason:
        known[reason.status.value].add("http_<status>" if reason is Reason.HTTP else reason.value)
    assert told == known


def test_the_settings_tables_are_the_models():
    rows = table("key", "default", "meaning")
    assert [code(row[0])[0] for row in rows] == list(Galleries.model_fields)
    for key, model in {
        "download": DownloadSettings,
        "checks": CheckSettings,
        "assets": AssetSettings,
        "dataset": DatasetSettings,
        "resize": ResizeSettings,
    }.items():
        text = ALL.partition(f"## `{key}`")[2]
        rows = [cells(line) for line in text.partition("\n#")[0].splitlines() if line.startswith("| `")]
        told = {code(row[0])[0]: "".join(code(row[1])) for row in rows}
        assert told == {name: default_of(field) for name, field in model.model_fields.items()}


def default_of(field):
    return "" if field.is_required() else as_yaml(field.default)


def as_yaml(value):
    return json.dumps(value).strip('"').replace("30.0", "30")


def test_the_checks_table_is_the_checks():
    assert table("check", "what it says") == [
        [f"`{name}`", inspect.getdoc(check)] for name, check in CHECKS.items()
    ]


def test_every_picture_is_there():
    for path, text in {ROOT / "README.md": README, **PAGES}.items():
        for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
            assert (path.parent / name).stat().st_size > 10_000


def test_the_readmes_downstream_asset_reads_a_partition(tmp_path, monkeypatch, demo_port):
    [source] = [block for block in blocks("python") if "large_images" in block]
    scope = {}
    exec(source, scope)
    monkeypatch.chdir(tmp_path)
    ours = dg.Definitions(assets=[scope["large_images"]], jobs=[dg.define_asset_job("both", selection="*")])
    job = dg.Definitions.merge(defs(), ours).resolve_job_def("both")
    with dg.instance_for_test() as instance:
        assert job.execute_in_process(partition_key="demo", instance=instance).success
    assert scope["large_images"].dependency_keys == {dg.AssetKey("gallery_catalog")}


def test_an_asset_of_another_code_location_reads_every_catalog(tmp_path, monkeypatch, demo_port):
    [source] = [block for block in blocks("python") if "all_images" in block]
    scope = {}
    exec(source, scope)
    monkeypatch.chdir(tmp_path)
    with dg.instance_for_test() as instance:
        job = defs().resolve_job_def("download_galleries")
        assert job.execute_in_process(partition_key="demo", instance=instance).success
        theirs = scope["defs"].resolve_implicit_global_asset_job_def()
        run = theirs.execute_in_process(instance=instance)
    assert run.success


def test_a_subclass_of_the_component_changes_specs_and_stages(tmp_path, monkeypatch, demo_port):
    [source] = [block for block in blocks("python") if "class Pictures" in block]
    scope = {}
    exec(source, scope)
    galleries = Galleries(
        store=str(tmp_path), galleries=[{"name": "demo", "source": {"type": "demo", "images": 4}}]
    )
    made = dg.build_defs_for_component(scope["Pictures"](galleries))
    assert made.resolve_asset_graph().get(dg.AssetKey("gallery_links")).owners == ["team:vision"]
    with dg.instance_for_test() as instance:
        job = made.resolve_job_def("download_galleries")
        assert job.execute_in_process(partition_key="demo", instance=instance).success


def test_every_command_is_documented():
    documented = {code(row[0])[0].split()[1] for row in table("command", "what it does")}
    assert documented == set(main.commands)


def test_the_keys_of_a_gallery_and_of_galleries_from_are_the_models():
    assert [code(row[0])[0] for row in table("gallery's key", "default", "meaning")] == list(
        Gallery.model_fields
    )
    told = [code(row[0])[0] for row in table("key of galleries_from", "default", "meaning")]
    assert set(told) == set(GalleriesFrom.model_fields)


def test_the_keys_of_a_very_large_gallery_are_the_models():
    rows = table("key of a very large gallery", "default", "meaning")
    assert {key for row in rows for key in code(row[0])} == set(Sharded.model_fields)


def test_the_sources_table_is_the_models():
    told = {code(row[0])[0]: code(row[2]) for row in table("type", "what it lists", "its own keys")}
    known = {
        get_args(source.model_fields["type"].annotation)[0]: [
            name for name in source.model_fields if name != "type"
        ]
        for source in source_types()
    }
    assert told == known


def test_the_attributes_table_is_the_codes():
    assert table("attribute", "meaning") == [[f"`{name}`", meaning] for name, meaning in NAMES.items()]


def test_the_readmes_source_is_a_source(tmp_path, server, monkeypatch):
    """The package that the README shows, installed beside ours, lists a gallery of its own."""
    [source] = [block for block in blocks("python") if "MyShopSource" in block]
    [entry_point] = re.findall(r'"imgdl_pipeline.sources"\]\n(.*)\n', blocks("toml")[0])
    info = tmp_path / "my_shop-1.0.dist-info"
    info.mkdir()
    (tmp_path / "my_shop.py").write_text(source)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[imgdl_pipeline.sources]\n{entry_point.replace(chr(34), '')}\n")
    server.serve("/api", b'{"items": [{"image": "https://h.org/a.jpg", "name": "A"}]}')
    (tmp_path / "galleries.yaml").write_text(
        "type: imgdl_pipeline.ImageGalleries\nattributes:\n  galleries:\n    - name: shelf\n"
        f"      source: {{type: my_shop, api_url: '{server.url('/api')}', shelf: top}}\n"
    )
    monkeypatch.setenv("IMGDL_CONFIG", str(tmp_path / "galleries.yaml"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    command = [
        *(BIN / "dagster", "asset", "materialize", "-m", "imgdl_pipeline.definitions"),
        *("--select", "gallery_links", "--partition", "shelf"),
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    links = pq.read_table(tmp_path / "data/links/gallery=shelf/links.parquet").to_pylist()
    assert [(link["url"], link["attributes"]) for link in links] == [
        ("https://h.org/a.jpg", '{"title": "A"}')
    ]
    assert server.paths() == ["/api?shelf=top"]


INSTANCES = blocks("yaml", PAGES[ROOT / "docs/how-to/several-machines.md"])
"""Parts of `dagster.yaml`, which test_several_machines.py starts Dagster with."""


@pytest.mark.parametrize("text", [text for text in blocks("yaml") if text not in INSTANCES])
def test_every_galleries_file_loads(text, tmp_path, monkeypatch):
    monkeypatch.delenv("IMGUR_CLIENT_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "museums.csv").write_text("museum,category\nLouvre,Paintings\n")
    (tmp_path / "galleries.yaml").write_text(text)
    assert read_galleries_file(tmp_path / "galleries.yaml").galleries


def test_the_readme_is_short_and_begins_with_a_sentence_two_commands_and_a_galleries_file():
    first_screen = "\n".join(README.splitlines()[:45])
    assert first_screen.index("$ make demo") < first_screen.index("$ make test")
    assert len(blocks("yaml", README)[0].splitlines()) <= 13
    assert len(README.splitlines()) <= 150


def shape(text):
    """A text without its speeds and the folder it ran in: the same in every run."""
    text = re.sub(r"catalog: .*data/", "catalog: data/", text)
    return re.sub(r"\d+\.\d MB, in \d+\.\d s: \d+ a second", "N", text)


@pytest.mark.skipif(not (ROOT / ".venv/installed").exists(), reason="make has not set up .venv here")
def test_make_demo_prints_what_the_readme_shows(tmp_path, demo_port):
    shown = re.search(r"\$ make demo\n(.*?)\$ make test", blocks("console", README)[0], re.DOTALL)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        "DAGSTER_HOME": str(tmp_path / "home"),
        "IMGDL_STORE": str(tmp_path / "data"),
    }
    run = subprocess.run(
        ["make", "--no-print-directory", "demo"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shape(run.stdout) == shape(shown[1])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_dagster_dev_opens_the_ui_with_the_galleries(tmp_path):
    port = free_port()
    (tmp_path / "home").mkdir()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "dagster", "dev", "-p", str(port), "-w", ROOT / "workspace.yaml"],
            cwd=tmp_path,
            env={**os.environ, "DAGSTER_HOME": str(tmp_path / "home")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        query = {"query": "{ assetNodes { assetKey { path } partitionKeys } }"}
        nodes = ask(f"http://127.0.0.1:{port}/graphql", query)["data"]["assetNodes"]
        assert {node["assetKey"]["path"][0] for node in nodes} == {
            "gallery_links",
            "gallery_images",
            "gallery_catalog",
        }
        assert all(node["partitionKeys"] == ["demo"] for node in nodes)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # Dagster, interrupted while it starts its daemon, may hang
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(url, query):
    """Dagster's GraphQL answer, once its web server is up."""
    request = urllib.request.Request(url, json.dumps(query).encode(), {"Content-Type": "application/json"})
    ends_at = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.2)  # a process, and no thread of ours, is waited for


def test_the_commands_without_make_are_those_that_make_runs():
    pip = ".venv/bin/python -m pip install --quiet --disable-pip-version-check"
    recipe = MAKEFILE.replace("$(BIN)", ".venv/bin").replace("$(PYTHON)", "python3").replace("@", "")
    recipe = recipe.replace("$(INSTALL)", pip).replace(" $(TEST_OPTIONS)", "")
    setup = next(block for block in blocks("sh") if "requirements.lock" in block)
    for line in setup.splitlines():
        assert f"\t{line}\n" in recipe
    for with_make, without, _ in table("with make", "without make", ""):
        target = code(with_make)[0].removeprefix("make ")
        assert re.search(rf"^{target}:.*\n\t{re.escape(code(without)[0])}\n", recipe, re.MULTILINE)


def test_the_materialize_command_and_the_python_that_reads_its_catalog_run(tmp_path, demo_port):
    command = next(block for block in blocks("sh") if block.startswith("dagster asset materialize"))
    environ = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        shlex.split(command), cwd=tmp_path, env=environ, capture_output=True, check=True, timeout=120
    )
    [script] = [block for block in blocks("python") if "duckdb" in block]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "not_jpeg" in run.stdout
    assert "hills" in run.stdout


DATASETS_PAGE = ROOT / "docs/how-to/make-a-dataset.md"


@pytest.fixture
def hubble(tmp_path, monkeypatch):
    """The gallery of the page on datasets, in a store that is this folder; its pictures are real."""
    monkeypatch.chdir(tmp_path)
    small = functools.lru_cache(maxsize=None)(lambda number, version: jpeg(number + version, (24, 18)))
    return DatasetGallery(Store(str(tmp_path)), "hubble", small).put(*range(26))


def page_block(language, word):
    [block] = [each for each in blocks(language, PAGES[DATASETS_PAGE]) if word in each]
    return block


def output_of(script, folder):
    """What Python prints that runs a page's script in a folder, without a network."""
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_webdataset_reads_a_dataset_as_its_page_says(hubble, tmp_path):
    hubble.export(caption="attributes.title", shard_images=2)
    lines = output_of(page_block("python", "WebDataset("), tmp_path)
    assert lines == [f"(24, 18) Title {number} {url_of(number)}" for number in range(26)]


def test_datasets_reads_a_dataset_as_its_page_says(hubble, tmp_path):
    hubble.export(format="parquet", caption="attributes.title", shard_images=100)
    assert "'caption': 'Title 0'" in output_of(page_block("python", "load_dataset"), tmp_path)[-1]


def test_datasets_reads_a_folder_of_images_as_its_page_says(hubble, tmp_path):
    hubble.export(format="imagefolder", caption="attributes.title", shard_images=100)
    line = output_of(page_block("python", "load_dataset"), tmp_path)[-1]
    assert re.search(r"'caption': 'Title \d+'", line)


def test_duckdb_reads_datasets_as_their_page_says(hubble):
    hubble.put(0, license_id="CC0-1.0").export(format="parquet", shard_images=7)
    rows = duckdb.sql(page_block("sql", "group by")).fetchall()
    assert sorted(rows, key=str) == [(1, "CC0-1.0"), (25, None)]


def test_a_manifest_in_a_bucket_names_the_files_that_count_as_its_page_says(s3_bucket):
    store = Store(f"{s3_bucket}/prefix")
    gallery = DatasetGallery(store, "hubble").put(*range(6))
    gallery.export()
    gallery.put(0, version=1).export()
    scope = {}
    exec(page_block("python", "manifest.json").replace("s3://bucket", s3_bucket), scope)
    assert len(scope["tars"]) == 3
    files = files_of(store, "hubble")
    assert {name for name in files if name.endswith(".tar")} >= set(scope["tars"])
    assert any("~" in name for name in scope["tars"]), "the one that changed has a new name"


def test_a_copy_is_compared_with_its_manifest_by_the_pages_command(hubble, tmp_path):
    hubble.export()
    shutil.copytree(tmp_path / "datasets/hubble", tmp_path / "copy")
    command = page_block("sh", "sha256sum")
    if shutil.which("jq") is None:
        pytest.skip("no jq is installed: apt-get install jq")

    def check():
        words = ["sh", "-c", command]
        return subprocess.run(words, cwd=tmp_path / "copy", capture_output=True, text=True, check=False)

    good = check()
    assert good.returncode == 0, good.stderr
    names = [line.partition(": ")[0] for line in good.stdout.splitlines()]
    assert set(names) == set(files_of(hubble.store, "hubble")) - {"manifest.json"}
    (tmp_path / "copy/00003.tar").write_bytes(b"altered")
    assert "00003.tar: FAILED" in check().stdout


def test_a_version_is_kept_by_links_as_the_page_says_while_the_dataset_goes_on(hubble, tmp_path):
    hubble.export()
    [command] = re.findall(r"`(cp -al [^`]+)`", PAGES[DATASETS_PAGE])
    before = files_of(hubble.store, "hubble")
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True)
    hubble.put(3, version=1).export()
    kept = {file.name: file.read_bytes() for file in (tmp_path / "my-version").iterdir()}
    assert kept == before
    assert files_of(hubble.store, "hubble") != before


def test_a_strange_file_in_the_folder_of_a_dataset_is_deleted_as_the_page_says(hubble, tmp_path):
    hubble.export()
    (tmp_path / "datasets/hubble/notes.txt").write_text("mine")
    hubble.put(3, version=1).export()
    assert not (tmp_path / "datasets/hubble/notes.txt").exists()


def test_the_pages_command_installs_an_extra_that_there_is():
    [command] = set(re.findall(r"`(pip install [^`]+)`", PAGES[DATASETS_PAGE]))
    assert command == INSTALL
    assert re.search(r'^datasets = \["duckdb[^"]*"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def test_the_files_table_of_datasets_is_what_is_written(hubble):
    files = {}
    for format_ in ("webdataset", "parquet", "imagefolder"):
        hubble.export(format=format_, caption="attributes.title", shard_images=100)
        files[format_] = set(files_of(hubble.store, "hubble"))
    known = {code(row[0])[0]: code(row[1]) for row in table("format", "files")}
    assert known["webdataset"][0] in files["webdataset"]
    assert known["parquet"][0] in files["parquet"]
    assert known["imagefolder"][1] in files["imagefolder"]
    named = {name for row in table("file", "contents") for name in code(row[0])}
    assert all(named <= each for each in files.values())


def test_the_dg_commands_are_tried_elsewhere():
    [block] = [block for block in blocks("sh") if block.startswith("dg scaffold")]
    tried = (ROOT / "imgdl_pipeline_tests/test_component.py").read_text()
    for line in block.splitlines():
        first_words = ", ".join(f'"{word}"' for word in shlex.split(line)[1:3])
        assert first_words in tried


def test_a_run_and_a_backfill_are_launched_from_the_command_line(tmp_path, demo_port):
    """The backfill's runs are the daemon's to start, which test_ui.py has."""
    [block] = [block for block in blocks("sh") if block.startswith("dg launch --assets")]
    [check] = [block for block in blocks("sh") if block.startswith("dg launch --job")]
    launch, backfill = block.splitlines()
    environ = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(tmp_path),
    }
    for command in (launch, backfill, check):
        run = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        told = "Launched backfill job" if command == backfill else "RUN_SUCCESS"
        assert told in run.stdout + run.stderr


def test_every_test_that_the_documentation_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", ALL))
    there = set(re.findall(r"def (test_\w+)", "".join(file.read_text() for file in ROOT.rglob("test_*.py"))))
    assert named
    assert named <= there


def test_the_hostile_command_is_the_tests_own():
    assert "python -m imgdl_pipeline_tests.support.hostile\n" in blocks("sh")


def test_the_site_builds_strictly(tmp_path):
    run = subprocess.run(
        [BIN / "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "SourceClient" in (tmp_path / "api/index.html").read_text()


def test_the_site_loads_nothing_from_elsewhere(tmp_path):
    config = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in config
    assert "http" not in config


@pytest.mark.parametrize("module", [imgdl_pipeline, public_shards, public_sources])
def test_the_api_page_has_every_exported_name(module):
    api = (ROOT / "docs/api.md").read_text()
    for name in module.__all__:
        if not name.startswith("__"):
            assert re.search(rf"\b{name}\b", api), name


def links_of(path, text):
    """The files that a page links to."""
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            yield target, (path.parent / target).resolve()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_every_file_that_is_linked_to_is_there(name):
    for target, file in links_of(ROOT / name, (ROOT / name).read_text()):
        assert file.exists(), f"{name} links to {target}"


def test_every_module_that_the_architecture_names_is_there():
    text = (ROOT / "docs/architecture.md").read_text()
    for name in set(re.findall(r"`((?:core|config)/[\w/]+(?:\.py|/)?)`", text)):
        assert (ROOT / "imgdl_pipeline" / name).exists(), name


def test_every_make_target_is_documented():
    targets = set(re.findall(r"^([a-z]+):.*##", MAKEFILE, re.MULTILINE))
    documented = {code(row[0])[0].removeprefix("make ") for row in table("target", "what it does")}
    assert targets <= documented


LARGE_PAGE = PAGES[ROOT / "docs/how-to/very-large-galleries.md"]


def test_the_commands_and_the_query_of_very_large_galleries_run(tmp_path, server):
    """The page's file with a list of this machine; the numbers of shards are those that the commands name."""
    links = [server.url(f"/{number}.jpg") for number in range(24)]
    for number in range(24):
        server.serve(f"/{number}.jpg", jpeg(number))
    (tmp_path / "links.csv").write_text("\n".join(["URL,TEXT", *(f"{url},a picture" for url in links)]))
    [text] = blocks("yaml", LARGE_PAGE)
    text = text.replace("s3://lists/laion/*.parquet", "links.csv").replace("s3://pictures/laion", "data")
    text = text.replace("{workers: 32}", "{allow_addresses: [127.0.0.0/8], robots_txt: false}")
    file = tmp_path / "laion.yaml"
    file.write_text(text.replace("shards: 256", "shards: 8"))
    environ = {
        **{name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "IMGDL_STORE")},
        "IMGDL_CONFIG": str(file),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    run, reshard = blocks("sh", LARGE_PAGE)
    ran = subprocess.run(["sh", "-ec", run], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("laion: 24 links in 8 shards\n")
    [query] = blocks("sql", LARGE_PAGE)
    counted = query.replace("'data/", f"'{tmp_path}/data/")
    assert duckdb.sql(counted).fetchall() == [("laion", "ok", 24)]
    asked = len(server.requests)
    divided = subprocess.run(
        ["sh", "-ec", reshard], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert divided.returncode == 0, divided.stderr
    assert duckdb.sql(counted).fetchall() == [("laion", "ok", 24)]
    assert len(server.requests) == asked
