"""The deployment files: that they agree with each other, and name what is there."""

import re
from pathlib import Path

import yaml

from imgdl_pipeline.config.galleries import AssetSettings

ROOT = Path(__file__).parent.parent
COMPOSE_TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
POSTGRES = yaml.safe_load((ROOT / "deploy/postgres.yaml").read_text())
EXAMPLE = yaml.safe_load((ROOT / "dagster.example.yaml").read_text())
SEVERAL_MACHINES = (ROOT / "docs/how-to/several-machines.md").read_text()
HELM = yaml.safe_load((ROOT / "deploy/helm-values.yaml").read_text())
DAGSTER_SERVICES = ["setup", "code", "web", "daemon"]


def test_the_image_is_built_from_files_that_are_there_and_that_dockerignore_lets_through():
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert sorted(allowed) == sorted(copied)
    assert all((ROOT / each).exists() for each in copied)


def test_the_image_does_not_run_as_root():
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_the_instance_of_the_image_is_the_example_on_postgresql():
    assert not EXAMPLE.keys() & POSTGRES.keys(), "a key that is in both would be in dagster.yaml twice"
    names = re.findall(r"{env: (\w+)}", (ROOT / "deploy/postgres.yaml").read_text())
    for service in DAGSTER_SERVICES:
        assert set(names) <= SERVICES[service]["environment"].keys()


def test_the_pools_limit_is_that_of_the_example():
    limit = EXAMPLE["concurrency"]["pools"]["default_limit"]
    pool = AssetSettings().pool
    assert f"dagster instance concurrency set {pool} {limit}" in SERVICES["setup"]["command"][-1]
    assert HELM["additionalInstanceConfig"]["concurrency"] == EXAMPLE["concurrency"]
    monitoring = HELM["dagsterDaemon"]["runMonitoring"]
    assert monitoring["pollIntervalSeconds"] == EXAMPLE["run_monitoring"]["poll_interval_seconds"]
    assert (
        monitoring["freeSlotsAfterRunEndSeconds"]
        == EXAMPLE["run_monitoring"]["free_slots_after_run_end_seconds"]
    )


def test_everything_that_compose_mounts_is_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = interpolated(volume, {}).split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).is_file(), volume


def test_every_variable_of_compose_is_in_the_example_of_env():
    used = set(re.findall(r"\${(\w+)", COMPOSE_TEXT))
    assert used == {"POSTGRES_PASSWORD", "GALLERIES", "IMGDL_STORE"}
    assert used <= set(re.findall(r"^(?:# )?(\w+)=", ENV_EXAMPLE, re.MULTILINE))


def test_no_file_holds_a_password_and_env_is_not_committed():
    assert re.search(r"^POSTGRES_PASSWORD=$", ENV_EXAMPLE, re.MULTILINE)
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_workspace_names_the_code_server_of_compose():
    [entry] = yaml.safe_load((ROOT / "deploy/workspace.yaml").read_text())["load_from"]
    server = entry["grpc_server"]
    assert f"--port {server['port']} " in SERVICES[server["host"]]["command"][-1]


def test_the_web_ui_is_open_to_this_machine_alone():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:3000:3000"]


def test_helm_mounts_the_galleries_file_where_imgdl_config_expects_it():
    [deployment] = HELM["dagster-user-deployments"]["deployments"]
    [mount], [volume] = deployment["volumeMounts"], deployment["volumes"]
    assert deployment["env"]["IMGDL_CONFIG"] == f"{mount['mountPath']}/galleries.yaml"
    assert volume == {"name": mount["name"], "configMap": {"name": "imgdl-galleries"}}
    assert deployment["dagsterApiGrpcArgs"] == ["--module-name", "imgdl_pipeline.definitions"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    assert HELM["postgresql"]["postgresqlScheme"] == POSTGRES["storage"]["postgres"]["postgres_db"]["scheme"]


def test_the_page_describes_the_services_and_names_files_that_are_there():
    page = (ROOT / "docs/how-to/deploy.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(SERVICES)
    assert "docker compose up --build --wait\n" in page
    for name in re.findall(r"(?:deploy/\S+?\.\w+|\.env\.example)", page):
        assert (ROOT / name).is_file(), name


def test_the_instance_of_several_machines_is_on_the_postgresql_of_the_image_and_its_runs_are_monitored():
    celery, kubernetes = map(
        yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", SEVERAL_MACHINES, re.MULTILINE | re.DOTALL)
    )
    assert celery["storage"] == POSTGRES["storage"]
    assert celery["run_coordinator"] == POSTGRES["run_coordinator"]
    assert celery["run_monitoring"].items() >= EXAMPLE["run_monitoring"].items()
    assert celery["run_monitoring"]["max_runtime_seconds"] < 24 * 3600, (
        "Celery forgets its results after a day"
    )
    limit = celery["concurrency"]["pools"]["default_limit"]
    assert limit == celery["concurrency"]["runs"]["max_concurrent_runs"]
    assert f"dagster instance concurrency set {AssetSettings().pool} {limit}\n" in SEVERAL_MACHINES
    assert list(kubernetes) == ["run_launcher"]


def test_the_page_on_several_machines_exports_every_variable_that_its_files_name():
    exported = set(
        re.findall(r"(\w+)=", " ".join(re.findall(r"^export (.*)", SEVERAL_MACHINES, re.MULTILINE)))
    )
    named = set(re.findall(r"{env: (\w+)}", SEVERAL_MACHINES))
    assert exported == named | {"DAGSTER_HOME", "IMGDL_CONFIG", "IMGDL_STORE"}


def test_the_page_on_several_machines_explains_the_workers_options_and_installs_what_is_tested():
    [worker] = re.findall(r"^celery .*", SEVERAL_MACHINES, re.MULTILINE)
    explained = re.findall(r"^\| `(--\S+?)[ `]", SEVERAL_MACHINES, re.MULTILINE)
    assert re.findall(r"--\S+", worker) == ["--app", "--loglevel", *explained]
    [packages] = re.findall(r"^pip install (.*)", SEVERAL_MACHINES, re.MULTILINE)
    tested = (ROOT / "noxfile.py").read_text()
    for package in packages.replace('"', "").split():
        assert package in tested or f"{package}==" in (ROOT / "requirements-dev.lock").read_text()


def interpolated(text: str, variables: dict[str, str]) -> str:
    """Return the text with `${NAME:-default}` and `${NAME:?message}` replaced, as Compose does."""
    return re.sub(r"\${(\w+):[-?]([^}]*)}", lambda match: variables.get(match[1]) or match[2], text)
