"""The roles' Jinja filters: retention, Promtail's scrape_configs, Grafana's settings, units, names of trees."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.filter import scrape_configs
from ansible_collections.logstead.platform.plugins.filter.ini import to_ini
from ansible_collections.logstead.platform.plugins.filter.prometheus_config import scrape_jobs, target_files
from ansible_collections.logstead.platform.plugins.filter.retention import duration_hours, retention_streams
from ansible_collections.logstead.platform.plugins.filter.tree_digest import tree_digest
from ansible_collections.logstead.platform.plugins.filter.unit import to_unit

# --- Retention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "hours"), [("24h", 24), ("36h", 36), ("1d", 24), ("31d", 744), ("4w", 672), ("1y", 8760)]
)
def test_a_period_is_turned_into_hours(duration: str, hours: int) -> None:
    assert duration_hours(duration) == hours


@pytest.mark.parametrize("duration", ["", "31", "d", "31 d", "31D", "-31d", "1.5d", "90m", "1d12h", "forever", "31d\n"])
def test_what_is_no_period_is_refused(duration: str) -> None:
    with pytest.raises(AnsibleFilterError, match="which is no period: write a number and h, d, w or y, such as 31d"):
        duration_hours(duration)


@pytest.mark.parametrize("duration", ["0h", "1h", "23h", "0d", "0y"])
def test_a_period_shorter_than_loki_can_keep_is_refused(duration: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"is {duration!r}: Loki keeps every line for 24h at least"):
        duration_hours(duration)


def test_each_level_gets_a_stream_of_its_own_period() -> None:
    assert retention_streams({"DEBUG": "3d", "ERROR": "1y"}) == [
        {"selector": '{level="DEBUG"}', "priority": 1, "period": "72h"},
        {"selector": '{level="ERROR"}', "priority": 1, "period": "8760h"},
    ]
    assert retention_streams({}) == []


def test_a_bad_period_of_one_level_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="'3x', which is no period"):
        retention_streams({"DEBUG": "3x"})


# --- Prometheus' targets ----------------------------------------------------------------------------------------------

TARGETS = {"a": {"loki": "10.0.0.1:3101", "node_exporter": "10.0.0.1:9100"}, "b": {"node_exporter": "10.0.0.2:9100"}}


def targets_of(targets: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """Return the addresses in each targets file, by its path."""
    files = target_files(targets, "prod", "/etc/prometheus", "/bin/promtool")
    return {file["path"]: [group["targets"][0] for group in yaml.safe_load(file["content"])] for file in files}


def test_an_added_or_removed_host_changes_targets_files_alone() -> None:
    added = {**TARGETS, "c": {"node_exporter": "10.0.0.3:9100"}}
    assert scrape_jobs(added) == scrape_jobs(TARGETS)
    assert targets_of(added) == {
        "/etc/prometheus/targets/loki.yml": ["10.0.0.1:3101"],
        "/etc/prometheus/targets/node.yml": ["10.0.0.1:9100", "10.0.0.2:9100", "10.0.0.3:9100"],
    }
    del added["b"]
    assert targets_of(added)["/etc/prometheus/targets/node.yml"] == ["10.0.0.1:9100", "10.0.0.3:9100"]


@pytest.mark.parametrize("job", ["../../cron.d/x", "a b*[c]?", "%s%d", "*"])
def test_a_job_of_any_name_has_a_file_of_its_own_in_the_folder(job: str) -> None:
    targets = {"a": {job: "10.0.0.1:1", "loki": "10.0.0.1:2"}}
    paths = set(targets_of(targets))
    (configured,) = (config for config in scrape_jobs(targets) if config["job_name"] == job)
    (name,) = configured["file_sd_configs"][0]["files"]
    assert {f"/etc/prometheus/{name}", "/etc/prometheus/targets/loki.yml"} == paths
    assert re.fullmatch(r"targets/[\w.%-]+\.yml", name)
    assert "%s" not in name
    assert "%d" not in name


# --- Promtail's scrape_configs ----------------------------------------------------------------------------------------


def entry(**keys: Any) -> dict[str, Any]:
    return {"job": "shop", "path": "/var/log/shop/*.log", **keys}


def scrape_config(**keys: Any) -> dict[str, Any]:
    (config,) = scrape_configs.file_scrape_configs([entry(**keys)])
    return config


def labels_of(config: dict[str, Any]) -> dict[str, str]:
    (static,) = config["static_configs"]
    labels: dict[str, str] = static["labels"]
    return labels


def stages(config: dict[str, Any], kind: str) -> list[Any]:
    return [stage[kind] for stage in config["pipeline_stages"] if kind in stage]


def label_stages(config: dict[str, Any]) -> set[str]:
    return {name for stage in stages(config, "labels") for name in stage}


def test_an_entry_of_job_and_path_is_enough() -> None:
    labels = {"job": "shop", "service_name": "shop", "__path__": "/var/log/shop/*.log"}
    assert labels_of(scrape_config()) == {**labels, "__path_exclude__": "/var/log/shop/*[\ufffd]*"}


def test_a_record_may_name_its_service_itself() -> None:
    config = scrape_config()
    assert "service_name" in stages(config, "json")[0]["expressions"]
    assert label_stages(config) == {"level", "service_name"}


def test_a_service_that_the_entry_names_beats_the_records() -> None:
    config = scrape_config(labels={"service_name": "checkout", "team": "web"})
    assert "service_name" not in stages(config, "json")[0]["expressions"]
    assert label_stages(config) == {"level"}
    assert labels_of(config)["service_name"] == "checkout"
    assert labels_of(config)["team"] == "web"


def test_ids_of_traces_are_structured_metadata_and_never_labels() -> None:
    config = scrape_config()
    assert stages(config, "structured_metadata") == [{"trace_id": None, "span_id": None}]
    assert not label_stages(config) & {"trace_id", "span_id"}


def test_a_record_without_a_time_gets_the_time_of_reading() -> None:
    (stage,) = stages(scrape_config(), "timestamp")
    assert (stage["source"], stage["format"], stage["action_on_failure"]) == ("timestamp", "RFC3339Nano", "skip")


@pytest.mark.parametrize("file_format", ["json", "plain"])
def test_the_path_of_a_file_is_no_label(file_format: str) -> None:
    assert scrape_config(format=file_format)["pipeline_stages"][-1] == {"labeldrop": ["filename"]}


def test_a_level_has_one_of_five_spellings_or_is_no_label() -> None:
    (stage, *_) = stages(scrape_config(), "template")
    pairs = dict(re.findall(r'"(\w+)" "(\w+)"', stage["template"]))
    assert set(pairs.values()) == {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
    assert pairs["WARN"] == "WARNING"
    assert pairs["FATAL"] == "CRITICAL"
    assert all(pairs[level] == level for level in set(pairs.values()))


def test_files_can_be_left_out_although_their_path_matches() -> None:
    assert labels_of(scrape_config(exclude="/var/log/shop/old*"))["__path_exclude__"] == (
        "/var/log/shop/{old*,*[\ufffd]*}"
    )


def test_a_path_that_is_named_twice_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"names /var/log/shop/\*\.log more than once"):
        scrape_configs.file_scrape_configs([entry(), entry(job="other")])


def test_several_files_of_one_job_are_welcome() -> None:
    configs = scrape_configs.file_scrape_configs([entry(path="/a.log"), entry(path="/b.log")])
    assert [config["job_name"] for config in configs] == ["/a.log", "/b.log"]
    assert {labels_of(config)["job"] for config in configs} == {"shop"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"job": "shop"}, "lacks path"),
        ({}, "lacks job, path"),
        (
            entry(lables={}),
            "has the unknown key lables; an entry has job and path, and may have exclude, format, labels",
        ),
        (entry(format="xml"), r"/var/log/shop/\*\.log has the unknown format 'xml'; the formats are apache_access"),
    ],
)
def test_an_entry_that_cannot_be_understood_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"promtail_log_files: .*{message}"):
        scrape_configs.file_scrape_configs([wrong])


def test_the_entries_that_are_given_are_not_changed() -> None:
    given = entry(labels={"team": "web"})
    scrape_configs.file_scrape_configs([given])
    assert given == entry(labels={"team": "web"})


def unit_label(unit: str) -> str:
    """Return what the journal's relabelling makes of a unit's name, by the rules of Prometheus: anchored, in order."""
    label = unit
    for rule in scrape_configs.journal_scrape_config()["relabel_configs"]:
        if rule["target_label"] == "unit" and "regex" in rule:
            match = re.fullmatch(rule["regex"], unit)
            label = match.expand(rule["replacement"].replace("$", "\\")) if match else label
    return label


@pytest.mark.parametrize(
    ("unit", "label"),
    [
        ("ssh.service", "ssh.service"),
        ("session-17.scope", "session.scope"),
        ("user@1000.service", "user@.service"),
        ("user-1000.slice", "user.slice"),
        ("run-r0123abcd.service", "run.service"),
        ("run-docker-x.mount", "run.mount"),
        ("getty@tty1.service", "getty@tty1.service"),
        ("libpod-conmon-6bad80ed374da0dc.scope", "libpod.scope"),
        ("docker-6bad80ed374da0dc.scope", "docker.scope"),
    ],
)
def test_units_without_a_bound_to_their_number_share_one_label(unit: str, label: str) -> None:
    assert unit_label(unit) == label


def test_the_names_that_a_journal_entry_gives_itself_are_no_labels() -> None:
    kinds = scrape_configs.journal_scrape_config()["pipeline_stages"]
    assert {"labeldrop": ["identifier", "container_name", "image_name"]} in kinds
    assert {"structured_metadata": {"identifier": None, "container_name": None, "image_name": None}} in kinds


# --- Grafana's settings -----------------------------------------------------------------------------------------------


def test_settings_are_written_by_section() -> None:
    text = to_ini({"server": {"http_port": 3100, "http_addr": "::"}, "auth.anonymous": {"enabled": False}})
    assert text == "[server]\nhttp_port = 3100\nhttp_addr = ::\n\n[auth.anonymous]\nenabled = false\n"
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    assert parser.getint("server", "http_port") == 3100
    assert parser.getboolean("auth.anonymous", "enabled") is False


def test_a_setting_without_a_value_is_empty() -> None:
    assert to_ini({"server": {"domain": None}}) == "[server]\ndomain = \n"


@pytest.mark.parametrize("value", ["a;b", "a#b", "#", "'quoted'", '"quoted"', "`x`", " x", "x ", "two\nlines", "end\\"])
def test_a_value_that_grafana_would_cut_or_change_is_quoted(value: str) -> None:
    assert to_ini({"smtp": {"password": value}}) == f'[smtp]\npassword = """{value}"""\n'


@pytest.mark.parametrize("value", ["it's", "a=b", "$__file{/etc/x}", "%(x)s", "http://h:3100/", "a\\b", "日志", ""])
def test_any_other_value_is_written_as_it_is(value: str) -> None:
    assert to_ini({"server": {"x": value}}) == f"[server]\nx = {value}\n"


# --- Units ------------------------------------------------------------------------------------------------------------


def test_a_unit_has_its_sections_in_order_and_a_line_for_each_element_of_a_list() -> None:
    settings = {"Restart": "always", "NoNewPrivileges": True, "RestartSec": 2, "After": ["a", "b"], "Reset": ""}
    assert to_unit({"Unit": {"Description": "A toy"}, "Service": settings}) == (
        "\n[Unit]\nDescription=A toy\n"
        "\n[Service]\nRestart=always\nNoNewPrivileges=true\nRestartSec=2\nAfter=a\nAfter=b\nReset=\n"
    )


# --- The name of a tree of files --------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src/app").mkdir(parents=True)
    (tmp_path / "src/app/a.py").write_text("a = 1\n")
    (tmp_path / "src/app/b.py").write_text("b = 1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


NAMES = ["pyproject.toml", "src"]


def test_a_tree_is_named_by_16_hex_digits_that_stay_the_same(tree: Path) -> None:
    name = tree_digest(str(tree), NAMES)
    assert re.fullmatch("[0-9a-f]{16}", name)
    assert tree_digest(str(tree), reversed(NAMES)) == name


@pytest.mark.parametrize("where", ["pyproject.toml", "src/app/b.py", "src/app/new.py"])
def test_another_text_is_another_name(tree: Path, where: str) -> None:
    before = tree_digest(str(tree), NAMES)
    (tree / where).write_text("something else\n")
    assert tree_digest(str(tree), NAMES) != before


def test_another_path_is_another_name(tree: Path) -> None:
    before = tree_digest(str(tree), NAMES)
    (tree / "src/app/a.py").rename(tree / "src/app/c.py")
    assert tree_digest(str(tree), NAMES) != before


def test_text_that_moves_from_one_file_to_the_next_is_another_name(tree: Path) -> None:
    (tree / "src/app/a.py").write_text("ab")
    (tree / "src/app/b.py").write_text("c")
    before = tree_digest(str(tree), NAMES)
    (tree / "src/app/a.py").write_text("a")
    (tree / "src/app/b.py").write_text("bc")
    assert tree_digest(str(tree), NAMES) != before


def test_what_does_not_belong_to_the_package_does_not_count(tree: Path) -> None:
    before = tree_digest(str(tree), NAMES)
    (tree / "src/app/__pycache__").mkdir()
    (tree / "src/app/__pycache__/a.cpython-311.pyc").write_bytes(b"x")
    (tree / ".venv").mkdir()
    (tree / ".venv/x.py").touch()
    assert tree_digest(str(tree), NAMES) == before
