"""The module loki_retention and its filter: a period that becomes shorter is found, whatever way it comes in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.testing import patch_module_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.action import preflight_check
from ansible_collections.logstead.platform.plugins.filter.retention import (
    COLLECTOR_ASKS,
    LEVELS,
    loki_hours,
    retention_hours,
    retention_streams,
    tenant_limits,
)
from ansible_collections.logstead.platform.plugins.module_utils import check_memory
from ansible_collections.logstead.platform.plugins.modules import loki_retention as module

from roles.promtail.files.promtail_resume import PAGE

WEEK = {"other": 168.0}


def config(by_level: dict[str, str] | None = None, period: str = "168h", enabled: bool = True) -> dict[str, Any]:
    return {
        "compactor": {"retention_enabled": enabled},
        "limits_config": {"retention_period": period, "retention_stream": retention_streams(by_level or {})},
    }


# --- What the settings say --------------------------------------------------------------------------------------------


def test_the_periods_are_read_from_the_finished_settings() -> None:
    assert retention_hours(config({"DEBUG": "2d", "ERROR": "90d"})) == {"other": 168, "DEBUG": 48, "ERROR": 2160}


@pytest.mark.parametrize(
    ("duration", "hours"),
    [("744h", 744), ("744h0m0s", 744), ("1w2d", 216), ("31d", 744), ("90m", 1.5), ("0s", None), (0, None), ("0", None)],
)
def test_lokis_own_spellings_are_understood_and_zero_is_for_ever(duration: object, hours: float | None) -> None:
    assert loki_hours(duration) == hours


def test_without_a_compactor_that_deletes_all_is_kept_for_ever() -> None:
    assert retention_hours(config({"DEBUG": "2d"}, enabled=False)) == {"other": None}


def test_a_rule_that_is_not_of_a_level_counts_under_its_selector() -> None:
    settings = config()
    settings["limits_config"]["retention_stream"] = [{"selector": '{job="a"}', "priority": 1, "period": "24h"}]
    assert retention_hours(settings) == {"other": 168, '{job="a"}': 24}


def test_an_unknown_level_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(AnsibleFilterError, match="unknown level debug; levels are DEBUG, INFO, WARNING, ERROR, CRIT"):
        retention_streams({"debug": "2d"})


def test_the_preflight_knows_the_same_levels() -> None:
    assert preflight_check.LEVELS == LEVELS


def test_a_tenant_has_periods_and_limits_of_its_own_and_else_those_of_all() -> None:
    common = {**config({"ERROR": "90d"})["limits_config"], "ingestion_rate_mb": 32, "query_timeout": "5m"}
    assert tenant_limits(
        {
            "dev": {"retention": "2d", "limits": {"ingestion_rate_mb": 8}},
            "staging": {"retention_by_level": {"DEBUG": "1d"}},
            "qa": {"limits": {"query_timeout": "30s"}},
        },
        common,
    ) == {
        "dev": {
            "retention_period": "48h",
            "retention_stream": [],
            "max_query_lookback": "48h",
            "ingestion_rate_mb": 8,
        },
        "staging": {
            "retention_stream": [{"selector": '{level="DEBUG"}', "priority": 1, "period": "24h"}],
            "max_query_lookback": "168h",
        },
        "qa": {"query_timeout": "30s"},
    }


def test_a_tenant_of_an_unlimited_loki_may_ask_as_far_back() -> None:
    limits = tenant_limits({"dev": {"retention_by_level": {"DEBUG": "1d"}}}, config(period="0s")["limits_config"])
    assert limits["dev"]["max_query_lookback"] == "0s"


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"retention": "12h"}, "'12h': Loki keeps every line for 24h at least"),
        ({"retention_by_level": {"debug": "2d"}}, "unknown level debug"),
        ({"retension": "7d"}, "dev has the unknown key retension; keys are retention, retention_by_level, limits"),
        (
            {"limits": {"max_streams": 7}},
            "dev: there is no limit max_streams for all tenants; set it in loki_config_over",
        ),
        ({"limits": {"query_timeout": 30}}, "dev: query_timeout is 30; it has to be a duration such as 30s"),
        ({"limits": {"ingestion_rate_mb": "8MB"}}, "dev: ingestion_rate_mb is '8MB'; it has to be a number"),
        (
            {"limits": {"max_entries_limit_per_query": 77}},
            "dev: max_entries_limit_per_query is 77; it has to be 5000 at",
        ),
        ({"limits": {"volume_enabled": 1}}, "dev: volume_enabled is 1; it has to be true or false"),
        ({"limits": {"max_line_size": "big"}}, "dev: max_line_size is 'big'; it has to be a size such as 4MB"),
    ],
)
def test_what_loki_would_trip_over_at_its_next_start_is_refused(wanted: dict[str, Any], problem: str) -> None:
    common = {
        **config()["limits_config"],
        "query_timeout": "5m",
        "max_entries_limit_per_query": 10000,
        "ingestion_rate_mb": 32,
        "volume_enabled": True,
        "max_line_size": "256KB",
    }
    with pytest.raises(AnsibleFilterError, match=problem):
        tenant_limits({"dev": wanted}, common)


def test_a_tenants_limit_leaves_room_for_what_the_collector_asks() -> None:
    assert COLLECTOR_ASKS >= PAGE


def test_the_periods_of_a_tenant_follow_those_of_all() -> None:
    settings = config({"ERROR": "90d"})
    overrides = tenant_limits({"dev": {"retention": "2d"}, "qa": {"limits": {}}}, settings["limits_config"])
    assert retention_hours(settings, overrides) == {
        "other": 168,
        "ERROR": 2160,
        "dev: other": 48,
        "qa: other": 168,
        "qa: ERROR": 2160,
    }


# --- Comparison -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({}, WEEK, []),
        (WEEK, WEEK, []),
        (WEEK, {"other": 336.0}, []),
        (WEEK, {"other": None}, []),
        (WEEK, {"other": 167.0}, ["other 7d -> 167h"]),
        ({"other": None}, WEEK, ["other for ever -> 7d"]),
        (WEEK, {**WEEK, "DEBUG": 48.0}, ["DEBUG 7d -> 2d"]),
        (WEEK, {**WEEK, "ERROR": 720.0}, []),
        ({**WEEK, "ERROR": 720.0}, WEEK, ["ERROR 30d -> 7d"]),
        ({**WEEK, "DEBUG": 48.0}, WEEK, []),
        ({**WEEK, "DEBUG": 48.0}, {"other": 72.0, "DEBUG": 48.0}, ["other 7d -> 3d"]),
        ({**WEEK, "ERROR": 720.0}, {"other": 336.0}, ["ERROR 30d -> 14d"]),
        ({**WEEK, "ERROR": None}, {**WEEK, "ERROR": 720.0}, ["ERROR for ever -> 30d"]),
        (
            {**WEEK, "ERROR": 720.0, "DEBUG": 48.0},
            {"other": 24.0},
            ["DEBUG 2d -> 1d", "ERROR 30d -> 1d", "other 7d -> 1d"],
        ),
        (WEEK, {**WEEK, "dev: other": 48.0}, ["dev: other 7d -> 2d"]),
        (WEEK, {**WEEK, "dev: other": 336.0, "dev: DEBUG": 48.0}, ["dev: DEBUG 7d -> 2d"]),
        ({**WEEK, "dev: other": 336.0}, WEEK, ["dev: other 14d -> 7d"]),
        ({**WEEK, "ERROR": 720.0}, {**WEEK, "ERROR": 720.0, "dev: other": 168.0, "dev: ERROR": 720.0}, []),
        ({**WEEK, "dev: other": 48.0}, {**WEEK, "dev: other": 48.0, "dev: ERROR": 720.0}, []),
    ],
)
def test_each_period_that_becomes_shorter_is_found(
    old: dict[str, float | None], new: dict[str, float | None], found: list[str]
) -> None:
    assert [text.split(" (")[0] for text in module.shortened(old, new)] == found


def test_what_goes_is_named() -> None:
    first, second = module.shortened({**WEEK, "DEBUG": 72.0}, {"other": 24.0, "DEBUG": 48.0})
    assert first.endswith("(DEBUG lines that are older than 2d)")
    assert second.endswith("(all other lines that are older than 1d)")
    (third,) = module.shortened(WEEK, {**WEEK, "dev: other": 24.0})
    assert third.endswith("(dev: all other lines that are older than 1d)")


# --- The module -------------------------------------------------------------------------------------------------------


class Host:
    """A host's /etc/loki."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.record, self.config = folder / "retention.json", folder / "config.yml"
        self.capsys = capsys

    def remember(self, hours: dict[str, Any]) -> None:
        """Write the record."""
        self.record.write_text(f"# Managed by logstead\n{json.dumps(hours, indent=4)}\n")

    def run(self, hours: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Run the module, and return its result."""
        arguments = {"record": str(self.record), "config": str(self.config), "hours": hours, **more}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return result


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, capsys)


def test_a_host_without_loki_may_have_any_period(host: Host) -> None:
    assert host.run({"other": 24}) | {"invocation": None} == {
        "changed": False,
        "hours": {"other": 24},
        "shortened": [],
        "invocation": None,
    }


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_refusal_says_what_would_go_and_how_to_confirm(host: Host, check_mode: bool) -> None:
    host.remember({"other": 168, "DEBUG": 48})
    result = host.run({"other": 168, "DEBUG": 24}, _ansible_check_mode=check_mode)
    assert result["failed"] is True
    assert result["msg"].startswith("Nothing was changed.")
    assert "DEBUG 2d -> 1d (DEBUG lines that are older than 1d)." in result["msg"]
    assert "-e loki_retention_shortening_confirmed=true" in result["msg"]


def test_what_is_confirmed_passes_and_is_told(host: Host) -> None:
    host.remember({"other": 168})
    result = host.run({"other": 24}, confirmed=True)
    assert (result.get("failed"), result["changed"], len(result["shortened"])) == (None, False, 1)


def test_nothing_on_the_host_is_touched(host: Host) -> None:
    host.remember({"other": 168})
    before = host.record.read_text()
    host.run({"other": 24}, confirmed=True)
    assert host.record.read_text() == before
    assert not host.config.exists()


def test_what_was_accepted_is_remembered_until_the_host_keeps_other_periods(host: Host) -> None:
    host.remember({"other": 168})
    host.run({"other": 168}, fingerprint="f", _ansible_check_mode=True)
    host.run({"other": 24}, fingerprint="f")
    assert check_memory.passed_checks() == {}, "neither a check run nor a refusal counts"
    host.run({"other": 168}, fingerprint="f")
    assert check_memory.passed_checks()["loki_retention"]["result"] == {"shortened": [], "hours": {"other": 168}}
    host.remember({"other": 744})
    assert check_memory.passed_checks() == {}


def test_a_period_of_null_is_for_ever(host: Host) -> None:
    host.remember({"other": None})
    assert "other for ever -> 7d" in host.run({"other": 168})["msg"]
    assert host.run({"other": None})["shortened"] == []


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"DEBUG": 1}', '{"other": "x"}', '{"other": {}}'])
def test_a_record_that_cannot_be_understood_needs_a_yes(host: Host, text: str) -> None:
    host.record.write_text(text)
    result = host.run({"other": 168})
    assert "What Loki keeps now is not known" in result["msg"]
    assert "retention.json can't be understood" in result["msg"]
    assert host.run({"other": 168}, confirmed=True)["shortened"] == []


def test_a_host_that_was_set_up_before_there_was_a_record_is_looked_at_as_well(host: Host) -> None:
    host.config.write_text("""\
limits_config:
  retention_period: 168h
  retention_stream:
  - selector: '{level="DEBUG"}'
    priority: 1
    period: 48h
  - selector: '{level="ERROR"}'
    priority: 1
    period: 720h
  max_query_lookback: 720h
""")
    assert module.hours_of_config(host.config.read_text()) == {"other": 168, "DEBUG": 48, "ERROR": 720}
    assert "ERROR 30d -> 7d" in host.run({"other": 168, "DEBUG": 48})["msg"]
    host.config.write_text("somebody's own\n")
    assert host.run({"other": 24})["shortened"] == []
