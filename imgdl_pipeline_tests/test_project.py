"""Galleries files in a scratch dg project, beside other components, resources and subclasses."""

import itertools
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

from imgdl_pipeline.verdicts import CHECKS
from imgdl_pipeline_tests.support.pictures import jpeg

BIN = Path(sys.executable).parent

SAME_STATE_KEY = pytest.mark.filterwarnings("ignore:Multiple components have the same defs state key")
"""Dagster's own warning, before our error that says what to set."""

FORMS = ({}, {"asset_per_gallery": "true"})
IDS = ("partitions", "own assets")

# Dagster adds a component's origin to its checks through a parameter of its own that is in beta.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `execution_type` of:dagster.BetaWarning")


class Project:
    """A dg project, whose package has a name of its own so that several fit into one process.

    Args:
        root: The project's folder.
        name: The package's name.
        server: The web server of the galleries' images.
    """

    def __init__(self, root, name, server):
        self.root, self.name, self.server = root, name, server
        self.package = root / "src" / name
        self.write(
            "../../pyproject.toml",
            f'[project]\nname = "{name}"\nversion = "0"\n[tool.dg]\ndirectory_type = "project"\n'
            f'[tool.dg.project]\nroot_module = "{name}"\n',
        )
        self.write("__init__.py", "")
        self.write(
            "definitions.py",
            "from pathlib import Path\nimport dagster as dg\n\n@dg.definitions\ndef defs():\n"
            "    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n",
        )

    def write(self, path, text):
        file = self.package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def attributes(self, *galleries, **more):
        """A component's attributes: galleries of two links each, with more of their own settings."""
        lines = [f"  store: {self.root}/store\n  download: {{allow_addresses: [127.0.0.0/8]}}\n"]
        lines += [f"  {key}: {value}\n" for key, value in more.items()]
        lines.append("  galleries:\n")
        for each in galleries:
            name, _, settings = each.partition(" ")
            urls = [self.server.serve(f"/{name}{number}.jpg", jpeg(number)) for number in range(2)]
            (self.root / f"{name}.txt").write_text("\n".join(urls))
            source = f"{{type: url_list, path: {self.root}/{name}.txt}}"
            lines.append(f"    - {{name: {name}, source: {source}{settings}}}\n")
        return "attributes:\n" + "".join(lines)

    def component(self, folder, attributes, type_="imgdl_pipeline.ImageGalleries", more=""):
        return self.write(f"defs/{folder}/defs.yaml", f"type: {type_}\n{attributes}{more}")

    def load(self):
        """The definitions of the project, as a code location has them."""
        return dg.load_from_defs_folder(path_within_project=self.package)

    def dg(self, *words, **environ):
        """What a dg command prints, and whether it succeeded."""
        run = subprocess.run(
            [BIN / "dg", *words],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONPATH": str(self.root / "src"),
                "DAGSTER_HOME": str(self.root / "home"),
                "COLUMNS": "300",
                "NO_COLOR": "1",
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return run.returncode == 0, re.sub(r"\x1b\[[\d;]*m", "", run.stdout + run.stderr)


_numbers = itertools.count()


@pytest.fixture
def project(tmp_path, monkeypatch, server):
    monkeypatch.delenv("IMGDL_STORE", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "src")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, f"shop{next(_numbers)}", server)


def specs_of(defs):
    graph = defs.resolve_asset_graph()
    return {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}


def causes(error):
    """An error and those behind it, the first one first."""
    while error is not None:
        yield error
        error = error.__cause__


def test_variables_requirements_and_post_processing_work_in_a_defs_yaml(project):
    project.write(
        "variables.py",
        "import dagster as dg\n\n@dg.template_var\ndef images() -> int:\n    return 7\n\n"
        "@dg.template_var\ndef team() -> str:\n    return 'team:vision'\n\n"
        "@dg.template_var\ndef nightly() -> dg.AutomationCondition:\n"
        "    return dg.AutomationCondition.on_cron('0 2 * * *')\n",
    )
    project.component(
        "pictures",
        "attributes:\n  assets:\n    owners: ['{{ team }}']\n    automation_condition: '{{ nightly }}'\n"
        "  galleries:\n    - name: demo\n      source: {type: demo, images: '{{ images }}'}\n",
        more=f"template_vars_module: {project.name}.variables\n"
        "requirements:\n  env:\n    - SHOP_TOKEN\n"
        "post_processing:\n  assets:\n    - target: 'key:gallery_catalog'\n      operation: merge\n"
        "      attributes:\n        tags: {tier: gold}\n    - attributes: {group_name: shop}\n",
    )
    specs = specs_of(project.load())
    assert set(specs) == {"gallery_links", "gallery_images", "gallery_catalog"}
    for key, spec in specs.items():
        assert (spec.owners, spec.group_name) == (["team:vision"], "shop")
        assert spec.automation_condition == dg.AutomationCondition.on_cron("0 2 * * *")
        assert spec.tags.get("tier") == ("gold" if key == "gallery_catalog" else None)


def with_template(project, attributes):
    """A component whose attributes use the variable `words`, and which needs SHOP_TOKEN."""
    project.write(
        "variables.py", "import dagster as dg\n\n@dg.template_var\ndef words() -> str:\n    return '7'\n"
    )
    more = f"template_vars_module: {project.name}.variables\nrequirements:\n  env:\n    - SHOP_TOKEN\n"
    project.component("pictures", attributes, more=more)


@pytest.mark.long
def test_dg_accepts_a_template_and_lists_the_environment_variables_that_are_required(project):
    with_template(project, project.attributes("a", assets='{descriptions: {gallery_links: "{{ words }}"}}'))
    succeeded, told = project.dg("check", "defs")
    assert succeeded, told
    succeeded, told = project.dg("list", "envs")
    assert succeeded
    assert "SHOP_TOKEN" in told
    assert "pictures" in told
    assert project.load().resolve_asset_graph().get(dg.AssetKey("gallery_links")).description == "7"


@pytest.mark.long
def test_dg_check_accepts_a_template_where_a_number_belongs(project):
    with_template(
        project, 'attributes:\n  galleries: [{name: a, source: {type: demo, images: "{{ words }}"}}]\n'
    )
    succeeded, told = project.dg("check", "yaml")
    assert succeeded, told


@pytest.mark.long
def test_two_scaffolds_live_side_by_side(project):
    (project.package / "defs").mkdir()
    for name in ("cats", "my-new.gallery"):
        succeeded, told = project.dg("scaffold", "defs", "imgdl_pipeline.ImageGalleries", name)
        assert succeeded, told
    assert project.dg("check", "yaml")[0]
    succeeded, told = project.dg("check", "defs")
    assert succeeded, told
    specs = specs_of(project.load())
    assert {key.partition("/")[0] for key in specs} == {"cats", "my_new_gallery"}
    assert len(specs) == 6
    text = "".join(file.read_text() for file in project.package.rglob("defs.yaml"))
    assert set(re.findall(r"store: (.*)", text)) == {"data/cats", "data/my_new_gallery"}
    succeeded, told = project.dg("list", "defs", "--json")
    assert succeeded, told
    listed, _ = json.JSONDecoder().raw_decode(told[told.index("{") :])
    assert {job["name"] for job in listed["jobs"]} >= {
        f"{prefix}_{job}"
        for prefix in ("cats", "my_new_gallery")
        for job in ("download_galleries", "check_galleries")
    }
    assert len(listed["assets"]) == 6
    assert len(listed["asset_checks"]) == 2 * len(CHECKS)


@SAME_STATE_KEY
def test_two_components_with_the_same_prefix_are_an_error_that_names_the_key_and_both_files(project):
    first = project.component("one", project.attributes("a", assets="{key_prefix: [media]}"))
    second = project.component("two", project.attributes("b", assets="{key_prefix: [media]}"))
    with pytest.raises(Exception, match="Error while") as caught:
        project.load()
    words = str([*causes(caught.value)][-1])
    assert "attributes.assets.key_prefix: two components have the same one" in words
    assert f"{first} and {second}" in words


@pytest.mark.long
def test_dg_check_prints_that_error(project):
    first = project.component("one", project.attributes("a"))
    second = project.component("two", project.attributes("b"))
    succeeded, told = project.dg("check", "defs")
    assert not succeeded
    assert "attributes.assets.key_prefix: two components have the same one" in told
    assert f"{first} and {second}" in told


@SAME_STATE_KEY
@pytest.mark.parametrize("prefixes", [("[a, b]", "[a_b]"), ("[a__b]", "[a, b]")])
def test_prefixes_that_look_alike_are_kept_apart_or_are_an_error_of_ours(project, prefixes):
    for folder, prefix in zip(("one", "two"), prefixes, strict=True):
        project.component(folder, project.attributes(folder, assets=f"{{key_prefix: {prefix}}}"))
    words = ""
    try:
        dg.Definitions.validate_loadable(project.load())
    except Exception as error:  # noqa: BLE001 -- what a component raises, Dagster wraps in an error of its own
        words = "\n".join(map(str, causes(error)))
    assert not words or "key_prefix" in words


SUBCLASS = '''\
from collections.abc import Iterator

import dagster as dg

from imgdl_pipeline import GalleryStage, ImageDownloads, ImageGalleries


class Pictures(ImageGalleries):
    """Image galleries as the shop has them."""

    def get_asset_spec(self, stage: GalleryStage) -> dg.AssetSpec:
        spec = super().get_asset_spec(stage)
        owner = f"team:{stage.gallery.name}" if stage.gallery else "team:all"
        return spec.replace_attributes(key=spec.key.with_prefix("acme"), owners=[owner])

    def execute(
        self, context: dg.AssetExecutionContext, stage: GalleryStage, image_downloads: ImageDownloads
    ) -> Iterator[dg.MaterializeResult]:
        context.log.warning(f"before {stage.name} of {stage.gallery.name}")
        for result in super().execute(context, stage, image_downloads):
            yield result._replace(metadata={**result.metadata, "shop": stage.gallery.name})
'''


@pytest.fixture(params=FORMS, ids=IDS)
def subclassed(project, request):
    project.write("lib/__init__.py", "from .pictures import Pictures\n\n__all__ = ['Pictures']\n")
    project.write("lib/pictures.py", SUBCLASS)
    attributes = project.attributes("a-1", "b", schedule='"0 6 * * *"', **request.param)
    project.component("pictures", attributes, f"{project.name}.lib.Pictures")
    return project


def is_partitioned(defs):
    return len(specs_of(defs)) == 3


def keys_of(defs, gallery):
    parts = ["acme"] if is_partitioned(defs) else ["acme", "gallery", gallery]
    prefix = "gallery_" if is_partitioned(defs) else ""
    return {stage: dg.AssetKey([*parts, prefix + stage]) for stage in ("links", "images", "catalog")}


def requests_of(defs, schedule="daily_galleries"):
    """What a tick of the schedule asks for."""
    at = datetime(2026, 11, 22, 6, tzinfo=timezone.utc)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at, repository_def=defs.get_repository_def()
        )
        return defs.resolve_schedule_def(schedule).evaluate_tick(context).run_requests


def run(defs, instance, request, **more):
    """Run what a schedule asked for."""
    job = defs.resolve_job_def("download_galleries")
    return job.execute_in_process(
        instance=instance,
        partition_key=request.partition_key,
        asset_selection=request.asset_selection,
        raise_on_error=False,
        **more,
    )


def test_a_subclass_changes_keys_and_owners_and_the_lineage_follows(subclassed):
    defs = subclassed.load()
    dg.Definitions.validate_loadable(defs)
    specs = specs_of(defs)
    for gallery in ("a-1", "b"):
        keys = keys_of(defs, gallery)
        links, images, catalog = (specs[key.to_user_string()] for key in keys.values())
        assert links.owners == ["team:all" if is_partitioned(defs) else f"team:{gallery}"]
        assert images.parent_keys == {keys["links"]}
        assert catalog.parent_keys == {keys["links"], keys["images"]}
    assert len(specs) == (3 if is_partitioned(defs) else 6)


def test_a_subclass_adds_metadata_and_its_schedule_and_checks_work(subclassed):
    defs = subclassed.load()
    requests = requests_of(defs)
    assert len(requests) == 2
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(defs, instance, requests[0])
        assert result.success
        made = {
            event.asset_key: event.materialization.metadata
            for event in result.get_asset_materialization_events()
        }
        keys = keys_of(defs, "a-1")
        assert set(made) == set(keys.values())
        assert {metadata["shop"].value for metadata in made.values()} == {"a-1"}
        assert made[keys["catalog"]]["ok"].value == 2
        log = [record.user_message for record in instance.all_logs(result.run_id)]
        assert [f"before {stage} of a-1" for stage in keys] == [
            line for line in log if line.startswith("before")
        ]
        checks = result.get_asset_check_evaluations()
        assert {each.asset_key for each in checks} == {keys["catalog"]}
        assert {each.check_name for each in checks if each.passed} == set(CHECKS)


def test_a_subclass_whose_source_fails_keeps_its_verdicts_and_is_checked_by_hand(subclassed):
    defs = subclassed.load()
    [request, _] = requests_of(defs)
    with dg.DagsterInstance.ephemeral() as instance:
        run(defs, instance, request)
        (subclassed.root / "a-1.txt").unlink()
        failed = run(defs, instance, request)
        assert not failed.success
        keys = [dg.AssetCheckKey(keys_of(defs, "a-1")["catalog"], name) for name in CHECKS]
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        assert {(each.run_id, each.status.value) for each in latest.values()} == {
            (failed.run_id, "SUCCEEDED")
        }
        by_hand = defs.resolve_job_def("check_galleries").execute_in_process(
            instance=instance, partition_key="a-1"
        )
        assert {each.asset_key for each in by_hand.get_asset_check_evaluations()} == {
            keys_of(defs, "a-1")["catalog"]
        }


def test_an_asset_downstream_of_a_subclass_loads_its_table(subclassed):
    defs = subclassed.load()
    [request, _] = requests_of(defs)
    key = keys_of(defs, "a-1")["catalog"]
    partitions = defs.resolve_asset_graph().get(key).partitions_def
    rows = []

    @dg.asset(ins={"catalog": dg.AssetIn(key)}, partitions_def=partitions)
    def downstream(catalog) -> None:
        rows.append(catalog.num_rows)

    with dg.DagsterInstance.ephemeral() as instance:
        run(defs, instance, request)
        result = dg.materialize(
            [*defs.assets, downstream],
            selection=[downstream],
            resources=dict(defs.resources),
            partition_key="a-1" if partitions else None,
            instance=instance,
        )
    assert result.success
    assert rows == [2]


def test_a_subclass_may_name_its_assets_as_it_likes(project):
    """The last part of a key need not be the stage's name."""
    renamed = SUBCLASS.replace(
        'key=spec.key.with_prefix("acme")', 'key=dg.AssetKey(["shop", f"{stage.name}_of_the_shop"])'
    )
    project.write("lib/__init__.py", "from .pictures import Pictures\n\n__all__ = ['Pictures']\n")
    project.write("lib/pictures.py", renamed)
    project.component("pictures", project.attributes("a"), f"{project.name}.lib.Pictures")
    defs = project.load()
    key = dg.AssetKey(["shop", "catalog_of_the_shop"])
    partitions = defs.resolve_asset_graph().get(key).partitions_def
    rows = []

    @dg.asset(ins={"catalog": dg.AssetIn(key)}, partitions_def=partitions)
    def downstream(catalog) -> None:
        rows.append(catalog.num_rows)

    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("download_galleries")
        assert job.execute_in_process(instance=instance, partition_key="a").success
        dg.materialize(
            [*defs.assets, downstream],
            selection=[downstream],
            resources=dict(defs.resources),
            partition_key="a",
            instance=instance,
        )
    assert rows == [2]


EAGER = '"{{ dg.AutomationCondition.eager() }}"'


@pytest.mark.parametrize("more", FORMS, ids=IDS)
def test_a_file_has_an_automation_condition(project, more):
    project.component(
        "pictures", project.attributes("a", "b", assets=f"{{automation_condition: {EAGER}}}", **more)
    )
    conditions = {spec.automation_condition for spec in specs_of(project.load()).values()}
    assert conditions == {dg.AutomationCondition.eager()}


def test_a_gallery_with_assets_of_its_own_has_its_own_automation_condition(project):
    cron = "\"{{ dg.AutomationCondition.on_cron('0 2 * * *') }}\""
    project.component(
        "pictures",
        project.attributes(
            "a",
            f"b , assets: {{automation_condition: {cron}}}",
            assets=f"{{automation_condition: {EAGER}}}",
            asset_per_gallery="true",
        ),
    )
    specs = specs_of(project.load())
    assert specs["gallery/a/links"].automation_condition == dg.AutomationCondition.eager()
    assert specs["gallery/b/links"].automation_condition == dg.AutomationCondition.on_cron("0 2 * * *")


def test_automation_runs_a_gallery_on_its_own(project):
    """An asset downstream of nothing that is new is requested when its own condition says so."""
    project.component(
        "pictures",
        project.attributes("a", assets=f"{{automation_condition: {EAGER}}}", asset_per_gallery="true"),
    )
    defs = project.load()
    links = dg.AssetKey(["gallery", "a", "links"])
    images = dg.AssetSelection.assets(["gallery", "a", "images"])
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        first = dg.evaluate_automation_conditions(defs, instance, images)
        assert job.execute_in_process(instance=instance, asset_selection=[links]).success
        second = dg.evaluate_automation_conditions(defs, instance, images, cursor=first.cursor)
    assert (first.total_requested, second.total_requested) == (0, 1)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("eager", 'must be a template, such as "{{ dg.AutomationCondition.eager() }}"'),
        ('"{{ dg.AutomationCondition.eagre() }}"', "eagre"),
    ],
)
def test_a_condition_that_is_none_is_an_error_with_its_line(project, condition, words):
    file = project.component(
        "pictures", project.attributes("a", assets=f"{{automation_condition: {condition}}}")
    )
    with pytest.raises(Exception, match="Error while") as caught:
        project.load()
    message = "\n".join(map(str, causes(caught.value)))
    assert re.search(rf"{re.escape(str(file))}:\d+: attributes\.assets\.automation_condition: ", message)
    assert words in message


@pytest.mark.parametrize("more", FORMS, ids=IDS)
def test_galleries_have_schedules_of_their_own(project, more):
    project.component(
        "pictures",
        project.attributes(
            "a", 'b , schedule: "0 * * * *"', "by-hand , schedule: null", "d", schedule='"0 6 * * *"', **more
        ),
    )
    defs = project.load()
    schedules = {each.name: each.cron_schedule for each in defs.get_repository_def().schedule_defs}
    assert sorted(schedules.values()) == ["0 * * * *", "0 6 * * *"]
    assert schedules["daily_galleries"] == "0 6 * * *"
    asked = {name: requests_of(defs, name) for name in schedules}
    names = {
        schedules[name]: [request.run_key.partition(" ")[0] for request in requests]
        for name, requests in asked.items()
    }
    assert names == {"0 6 * * *": ["a", "d"], "0 * * * *": ["b"]}
    for request in itertools.chain(*asked.values()):
        gallery = request.run_key.partition(" ")[0]
        assert request.partition_key == (None if more else gallery)
        if more:
            assert request.asset_selection == [
                dg.AssetKey(["gallery", gallery, stage]) for stage in ("links", "images", "catalog")
            ]


def test_another_components_resource_named_downloads_is_left_alone(project):
    project.component("pictures", project.attributes("a"))
    project.write(
        "defs/theirs.py",
        "import dagster as dg\n\nclass Theirs(dg.ConfigurableResource):\n    folder: str\n\n"
        "@dg.asset\ndef theirs(downloads: Theirs):\n"
        "    return dg.MaterializeResult(metadata={'folder': downloads.folder})\n\n"
        "@dg.definitions\ndef defs():\n"
        "    return dg.Definitions(assets=[theirs], resources={'downloads': Theirs(folder='inbox')})\n",
    )
    defs = project.load()
    dg.Definitions.validate_loadable(defs)
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        theirs = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("theirs")])
        [made] = theirs.get_asset_materialization_events()
        assert made.materialization.metadata["folder"].value == "inbox"
        ours = defs.resolve_job_def("download_galleries").execute_in_process(
            instance=instance,
            partition_key="a",
            run_config={"resources": {"image_downloads": {"config": {"limit": 1}}}},
        )
        assert ours.success


@pytest.mark.long
def test_the_checks_are_launched_from_the_command_line_with_and_without_a_partition(project):
    project.component("pictures", project.attributes("a", "b"))
    for words in (["--partition", "a"], []):
        succeeded, told = project.dg("launch", "--job", "check_galleries", *words)
        assert succeeded, told
        assert "RUN_SUCCESS" in told
        names = ["a"] if words else ["a", "b"]
        for name in names:
            assert f"catalog/gallery={name}/catalog.parquet" in told or "no run has cataloged" in told


@pytest.mark.long
def test_dg_lists_the_definitions(project):
    project.component("pictures", project.attributes("a", assets="{key_prefix: [media]}"))
    succeeded, told = project.dg("list", "defs")
    assert succeeded, told
    for name in (
        "media/gallery_links",
        "media/gallery_catalog",
        "media_download_galleries",
        "media_check_galleries",
        "media_daily_galleries",
        "media_gallery_freshness",
        "image_downloads",
        *CHECKS,
    ):
        assert name in told, name


def test_the_standalone_file_refuses_the_keys_that_only_dagster_understands(project, monkeypatch):
    from imgdl_pipeline.config.galleries_file import GalleriesFileError, read_galleries_file

    file = project.component(
        "pictures", project.attributes("a"), more="requirements:\n  env: [X]\npost_processing: {}\n"
    )
    with pytest.raises(GalleriesFileError) as caught:
        read_galleries_file(file)
    lines = str(caught.value).splitlines()
    assert [re.sub(r".*defs.yaml:\d+: ", "", line) for line in lines] == [
        f"{key}: works only in a file that Dagster itself loads, a defs.yaml"
        for key in ("requirements", "post_processing")
    ]
