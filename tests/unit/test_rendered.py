"""The settings of every environment, rendered by a real play and judged by the real programs."""

from __future__ import annotations

import configparser
import json
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("LOGSTEAD_CACHE", Path.home() / ".cache/logstead"))
ENVIRONMENTS = ("dev", "staging", "prod")
ROLES = ("loki", "promtail", "grafana", "demo_app", "prometheus", "alertmanager")
GATEWAY = "https://logs.example.org:3102"
TENANTS = {
    "platform_tenants_enabled": True,
    "platform_gateway_url": GATEWAY,
    "platform_gateway_ca": "",
    "platform_credentials": {
        name: {"write": f"{name}-writes-with-this", "read": f"{name}-reads-with-this"} for name in ENVIRONMENTS
    },
    "loki_tenants": {"dev": {"retention": "2d", "limits": {"ingestion_rate_mb": 8}}},
}
# The roles' own tasks are left out by their tags; their defaults, variables, filters and argument specs are in force.
PLAYBOOK = f"""
- hosts: all
  gather_facts: false
  connection: local
  roles: [{", ".join(f"logstead.platform.{role}" for role in ROLES)}]
  tasks:
    - tags: [render]
      ansible.builtin.copy:
        content: "{{{{ {{{", ".join(f"'{role}': __{role}_files" for role in ROLES)}}} | to_json }}}}"
        dest: "{{{{ rendered_to }}}}"
        mode: "0600"
    # Once more, with tenants: a task's variables win over group_vars.
    - tags: [render]
      vars: {TENANTS}
      ansible.builtin.copy:
        content: "{{{{ {{{", ".join(f"'{role}': __{role}_files" for role in ROLES[:3])}}} | to_json }}}}"
        dest: "{{{{ rendered_to }}}}.tenants"
        mode: "0600"
"""
# What vault.yml would bring.
SECRETS = {"grafana_admin_password": "a-password-of-our-own", "grafana_secret_key": "0123456789abcdef"}

Files = dict[str, dict[str, dict[str, Any]]]  # by role and path


def with_tenants(environment: str) -> str:
    """Return what the files of an environment are called that has tenants."""
    return f"{environment} with tenants"


def start_play(environment: str, folder: Path) -> subprocess.Popen[str]:
    """Start a play that renders all files of an environment into a file of its name."""
    playbook = folder / "render.yml"
    playbook.write_text(PLAYBOOK)
    variables = {
        **SECRETS,
        "rendered_to": str(folder / f"{environment}.json"),
        "ansible_python_interpreter": sys.executable,
    }
    words = [
        "-i",
        f"inventories/{environment}",
        "--tags",
        "render",
        "--extra-vars",
        json.dumps(variables),
        str(playbook),
    ]
    return subprocess.Popen(
        ["ansible-playbook", *words],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """The files of each environment."""
    folder = tmp_path_factory.mktemp("rendered")
    plays = {environment: start_play(environment, folder) for environment in ENVIRONMENTS}
    found = {}
    for environment, play in plays.items():
        output, _ = play.communicate()
        assert play.returncode == 0, output
        for key, name in (
            (environment, f"{environment}.json"),
            (with_tenants(environment), f"{environment}.json.tenants"),
        ):
            by_role = json.loads((folder / name).read_text())
            found[key] = {role: {entry["path"]: entry for entry in files} for role, files in by_role.items()}
    return found


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """A folder with the pinned releases of what checks its settings, as /opt would hold them."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    versions = {
        name: version
        for role in ("loki", "promtail", "prometheus", "alertmanager")
        for name, version in yaml.safe_load((REPOSITORY / f"roles/{role}/defaults/main.yml").read_text()).items()
    }
    with tempfile.TemporaryDirectory(prefix="logstead-unit-") as folder:
        for name in ("loki", "lokitool", "promtail"):
            version = versions[f"{name.replace('tool', '')}_version"]
            releases = CACHE / "mirror/github.com/grafana/loki/releases/download"
            archive = releases / f"v{version}" / f"{name}-linux-{architecture}.zip"
            if not archive.is_file():
                pytest.fail(f"{archive} isn't there: run `tests/mirror/mirror.py fill`")
            path = Path(folder, "loki/lokitool" if name == "lokitool" else name, version, name)
            path.parent.mkdir(parents=True)
            with zipfile.ZipFile(archive) as content:
                content.extract(f"{name}-linux-{architecture}", path.parent)
            (path.parent / f"{name}-linux-{architecture}").rename(path)
            path.chmod(0o755)
        for name in ("prometheus", "alertmanager"):
            version = versions[f"{name}_version"]
            releases = CACHE / f"mirror/github.com/prometheus/{name}/releases/download/v{version}"
            archive = releases / f"{name}-{version}.linux-{architecture}.tar.gz"
            if not archive.is_file():
                pytest.fail(f"{archive} isn't there: run `tests/mirror/mirror.py fill`")
            Path(folder, name).mkdir()
            subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
            Path(folder, archive.name.removesuffix(".tar.gz")).rename(Path(folder, name, version))
        yield Path(folder)


def judge(entry: dict[str, Any], text: str, programs: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the file's own checks on a text, with the programs of this test instead of those in /opt."""
    assert entry["validate"], f"nothing checks {entry['path']}"
    path = folder / Path(entry["path"]).name
    path.write_text(text)
    for command in entry["validate"]:
        words = [
            word.replace("%s", str(path)).replace("%d", str(folder)).replace("/opt/", f"{programs}/")
            for word in command.split()
        ]
        result = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=30,
        )
        if result.returncode != 0:
            break
    return result


def settings_of(rendered: dict[str, Files], environment: str, role: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the entry of a role's config.yml, and the settings in it."""
    entry = rendered[environment][role][f"/etc/{role}/config.yml"]
    settings: dict[str, Any] = yaml.safe_load(entry["content"])
    return entry, settings


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("role", ["loki", "promtail"])
def test_the_program_accepts_the_settings_of_each_environment_with_tenants(
    rendered: dict[str, Files], programs: Path, tmp_path: Path, environment: str, role: str
) -> None:
    entry, settings = settings_of(rendered, with_tenants(environment), role)
    result = judge(entry, entry["content"], programs, tmp_path)
    assert result.returncode == 0, result.stdout
    if role == "loki":
        assert settings["auth_enabled"] is True
    else:
        (client,) = settings["clients"]
        assert client["url"] == f"{GATEWAY}/loki/api/v1/push"
        assert client["basic_auth"] == {
            "username": f"{environment}-write",
            "password_file": "/etc/promtail/write_password",
        }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_with_tenants_each_part_has_the_log_in_of_its_environment(rendered: dict[str, Files], environment: str) -> None:
    files = rendered[with_tenants(environment)]
    assert files["promtail"]["/etc/promtail/write_password"]["secret"].strip() == f"{environment}-writes-with-this"
    assert files["promtail"]["/etc/promtail/read_password"]["secret"].strip() == f"{environment}-reads-with-this"
    sources = yaml.safe_load(files["grafana"]["/etc/grafana/provisioning/datasources/logstead.yaml"]["content"])
    users = {each["uid"]: each["basicAuthUser"] for each in sources["datasources"] if each["type"] == "loki"}
    others = {f"loki-{name}": f"{name}-read" for name in ENVIRONMENTS if name != environment}
    assert users == {"loki": f"{environment}-read", **others}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_tenants_own_retention_and_limits_are_lokis_and_remembered(
    rendered: dict[str, Files], environment: str
) -> None:
    files = rendered[with_tenants(environment)]["loki"]
    assert yaml.safe_load(files["/etc/loki/overrides.yml"]["content"])["overrides"] == {
        "dev": {
            "retention_period": "48h",
            "retention_stream": [],
            "max_query_lookback": "48h",
            "ingestion_rate_mb": 8,
        }
    }
    assert files["/etc/loki/overrides.yml"]["on_change"] == "none"
    assert json.loads(files["/etc/loki/retention.json"]["content"].partition("\n")[2])["dev: other"] == 48
    assert yaml.safe_load(rendered[environment]["loki"]["/etc/loki/overrides.yml"]["content"]) == {"overrides": {}}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("role", ["loki", "promtail", "prometheus", "alertmanager"])
def test_the_program_accepts_the_settings_of_each_environment(
    rendered: dict[str, Files], programs: Path, tmp_path: Path, environment: str, role: str
) -> None:
    entry, _ = settings_of(rendered, environment, role)
    result = judge(entry, entry["content"], programs, tmp_path)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("role", "section"),
    [("loki", "limits_config"), ("promtail", "server"), ("prometheus", "global"), ("alertmanager", "route")],
)
def test_the_program_refuses_a_misspelt_key_of_its_overrides(
    rendered: dict[str, Files], programs: Path, tmp_path: Path, role: str, section: str
) -> None:
    entry, settings = settings_of(rendered, "dev", role)
    settings[section]["max_query_serious"] = 777
    result = judge(entry, yaml.safe_dump(settings, sort_keys=False), programs, tmp_path)
    assert result.returncode != 0
    assert "max_query_serious not found" in result.stdout


def test_promtail_refuses_a_stage_that_does_not_exist(
    rendered: dict[str, Files], programs: Path, tmp_path: Path
) -> None:
    entry, settings = settings_of(rendered, "dev", "promtail")
    settings["scrape_configs"][0]["pipeline_stages"].append({"jsom": {}})
    result = judge(entry, yaml.safe_dump(settings, sort_keys=False), programs, tmp_path)
    assert result.returncode != 0
    assert "jsom" in result.stdout


@pytest.mark.parametrize(("environment", "retention"), [("dev", "168h"), ("staging", "336h"), ("prod", "744h")])
def test_the_retention_of_an_environment_is_lokis(rendered: dict[str, Files], environment: str, retention: str) -> None:
    settings = settings_of(rendered, environment, "loki")[1]
    limits, compactor = settings["limits_config"], settings["compactor"]
    assert limits["retention_period"] == retention
    by_level = [rule["period"] for rule in limits["retention_stream"]]
    assert limits["max_query_lookback"] == max([retention, *by_level], key=lambda period: int(period.rstrip("h")))
    assert (compactor["retention_enabled"], compactor["delete_request_store"]) == (True, "filesystem")
    assert limits["deletion_mode"] == "filter-and-delete"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_record_of_the_retention_is_written_after_the_settings_and_restarts_nothing(
    rendered: dict[str, Files], environment: str
) -> None:
    files = rendered[environment]["loki"]
    paths = list(files)
    assert paths.index("/etc/loki/retention.json") > paths.index("/etc/loki/config.yml")
    assert files["/etc/loki/retention.json"]["on_change"] == "none"
    hours = json.loads(files["/etc/loki/retention.json"]["content"].partition("\n")[2])
    limits = settings_of(rendered, environment, "loki")[1]["limits_config"]
    assert f"{hours.pop('other')}h" == limits["retention_period"]
    assert {f'{{level="{level}"}}': f"{period}h" for level, period in hours.items()} == {
        rule["selector"]: rule["period"] for rule in limits["retention_stream"]
    }


def test_what_an_environment_samples_reaches_promtail(rendered: dict[str, Files]) -> None:
    found = {}
    for config in settings_of(rendered, "prod", "promtail")[1]["scrape_configs"]:
        matches = [stage["match"] for stage in config["pipeline_stages"] if "match" in stage]
        found[config["job_name"]] = {match["selector"]: match["stages"][0]["sampling"]["rate"] for match in matches}
    assert found == {
        "/var/log/demo-app/app.log": {'{level="DEBUG"}': 0.1, '{level="INFO"}': 0.5},
        "/var/log/demo-app/access.log": {'{level="DEBUG"}': 0.1, '{level="INFO"}': 0.5},
        "journal": {'{level="DEBUG"}': 0.1},
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_line_carries_its_environment_and_host(rendered: dict[str, Files], environment: str) -> None:
    (client,) = settings_of(rendered, environment, "promtail")[1]["clients"]
    assert client["external_labels"] == {"environment": environment, "host": f"logs.{environment}.example.org"}
    assert client["url"] == "http://127.0.0.1:3101/loki/api/v1/push"


@pytest.mark.parametrize(("environment", "level"), [("dev", "DEBUG"), ("staging", "INFO"), ("prod", "WARNING")])
def test_applications_write_at_the_level_of_their_environment(
    rendered: dict[str, Files], environment: str, level: str
) -> None:
    text = rendered[environment]["demo_app"]["/etc/demo-app/demo-app.env"]["content"]
    assert f'DEMO_APP_LOG_LEVEL="{level}"\n' in text
    assert f'DEMO_APP_ENVIRONMENT="{environment}"\n' in text


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_grafanas_settings_can_be_parsed_and_hold_no_secret(rendered: dict[str, Files], environment: str) -> None:
    text = rendered[environment]["grafana"]["/etc/grafana/grafana.ini"]["content"]
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(text)
    assert ini.getint("server", "http_port") == 3100
    assert ini.getboolean("auth.anonymous", "enabled") is False
    assert ini["security"]["admin_password"] == "$__file{/etc/grafana/admin_password}"
    assert not any(secret in text for secret in SECRETS.values())


def test_grafana_reads_from_the_loki_and_the_prometheus_of_its_inventory(rendered: dict[str, Files]) -> None:
    path = "/etc/grafana/provisioning/datasources/logstead.yaml"
    sources = yaml.safe_load(rendered["prod"]["grafana"][path]["content"])["datasources"]
    assert {source["uid"]: source["url"] for source in sources} == {
        "loki": "http://127.0.0.1:3101",
        "prometheus": "http://127.0.0.1:9090",
    }


def test_prometheus_scrapes_every_part_with_its_host_and_environment(rendered: dict[str, Files]) -> None:
    files, settings = rendered["prod"]["prometheus"], settings_of(rendered, "prod", "prometheus")[1]
    found = {
        (config["job_name"], group["targets"][0])
        for config in settings["scrape_configs"]
        for group in yaml.safe_load(files[f"/etc/prometheus/{config['file_sd_configs'][0]['files'][0]}"]["content"])
        if group["labels"] == {"host": "logs.prod.example.org", "environment": "prod"}
    }
    ports = {
        "loki": 3101, "promtail": 9080, "grafana": 3100, "demo_app": 8000,
        "node": 9100, "prometheus": 9090, "alertmanager": 9093,
    }  # fmt: skip
    assert found == {(job, f"127.0.0.1:{port}") for job, port in ports.items()}
    (alertmanagers,) = settings["alerting"]["alertmanagers"]
    assert alertmanagers["static_configs"] == [{"targets": ["127.0.0.1:9093"]}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- {targets: ['127.0.0.1:3101'], labels: {host: one}}", ""),
        ("- {targets: ['http://127.0.0.1:3101/metrics']}", "not a valid hostname"),
        ("- {target: ['127.0.0.1:3101']}", "field target not found"),
    ],
    ids=["a target", "a URL", "a misspelt key"],
)
def test_promtool_validates_a_targets_file_with_the_configuration(
    rendered: dict[str, Files], programs: Path, tmp_path: Path, text: str, problem: str
) -> None:
    for path, entry in rendered["prod"]["prometheus"].items():
        staged = tmp_path / Path(path).relative_to("/etc/prometheus")
        staged.parent.mkdir(exist_ok=True)
        staged.write_text(entry["content"])
    targets = rendered["prod"]["prometheus"]["/etc/prometheus/targets/loki.yml"]
    assert (targets["on_change"], targets["mode"], targets["group"]) == ("none", "0640", "prometheus")
    result = judge(targets, text, programs, tmp_path / "targets")
    assert (result.returncode != 0) == bool(problem), result.stdout
    assert problem in result.stdout


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_text_that_can_be_read_says_who_wrote_it(rendered: dict[str, Files], environment: str) -> None:
    for files in rendered[environment].values():
        for path, entry in files.items():
            # Dashboards are JSON, which has no comments.
            if "secret" not in entry and not path.startswith("/etc/grafana/dashboards/"):
                assert entry["content"].startswith("# Managed by logstead: changes made here are overwritten.\n"), path


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_file_of_settings_is_open_to_everybody(rendered: dict[str, Files], environment: str) -> None:
    for files in rendered[environment].values():
        for path, entry in files.items():
            assert entry["mode"] == "0640", path
            assert entry["group"] != "root", path
