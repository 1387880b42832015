"""Sampling and rate limits: what Promtail is told, and what must never be sampled."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.action import preflight_check
from ansible_collections.logstead.platform.plugins.filter import scrape_configs
from ansible_collections.logstead.platform.plugins.filter.scrape_configs import (
    file_scrape_configs,
    journal_scrape_config,
)

ENTRY = {"job": "shop", "path": "/var/log/shop.log"}


def stages(by_job: Any = None, **entry: Any) -> list[dict[str, Any]]:
    (config,) = file_scrape_configs([{**ENTRY, **entry}], by_job)
    found: list[dict[str, Any]] = config["pipeline_stages"]
    return found


def rates(found: list[dict[str, Any]]) -> dict[str, float]:
    matches = [stage["match"] for stage in found if "match" in stage]
    return {match["selector"]: match["stages"][0]["sampling"]["rate"] for match in matches}


def test_a_share_is_kept_and_what_is_kept_says_so() -> None:
    (match,) = [stage["match"] for stage in stages(None, sampling={"DEBUG": 0.1}) if "match" in stage]
    assert match == {
        "selector": '{level="DEBUG"}',
        "stages": [
            {"sampling": {"rate": 0.1}},
            {"template": {"source": "sample_rate", "template": "0.1"}},
            {"structured_metadata": {"sample_rate": None}},
        ],
    }


@pytest.mark.parametrize(("share", "text"), [(0.5, "0.5"), (0.001, "0.001"), (0.00001, "0.00001")])
def test_a_share_is_written_so_that_it_can_be_divided_by(share: float, text: str) -> None:
    (stage,) = [stage for stage in stages({"shop": {"INFO": share}}) if "match" in stage]
    assert stage["match"]["stages"][1]["template"]["template"] == text


def test_sampling_knows_the_level_and_comes_before_what_ends_the_stages() -> None:
    kinds = [
        next(iter(stage)) for stage in stages({"shop": {"DEBUG": 0.1}}, rate_limit={"lines_per_second": 1, "burst": 1})
    ]
    assert kinds.index("match") > kinds.index("labels")
    assert kinds[-3:] == ["match", "limit", "labeldrop"]


def test_a_jobs_shares_hold_for_its_entries_and_an_entrys_own_beat_them() -> None:
    by_job = {"shop": {"DEBUG": 0.1}, "other": {"INFO": 0.2}}
    assert rates(stages(by_job)) == {'{level="DEBUG"}': 0.1}
    assert rates(stages(by_job, sampling={"INFO": 0.5})) == {'{level="INFO"}': 0.5}
    assert rates(stages(by_job, sampling={})) == {}
    assert rates(stages({"other": {"DEBUG": 0.1}})) == rates(stages()) == {}


def test_a_share_of_one_is_no_sampling() -> None:
    assert rates(stages({"shop": {"DEBUG": 1}})) == {}


def test_the_journal_is_sampled_by_its_job() -> None:
    found = journal_scrape_config({"systemd-journal": {"DEBUG": 0.1}, "shop": {"INFO": 0.5}})["pipeline_stages"]
    assert rates(found) == {'{level="DEBUG"}': 0.1}
    assert rates(journal_scrape_config()["pipeline_stages"]) == {}


REFUSED: list[tuple[Any, str]] = [
    ({"WARNING": 0.5}, "lines of the level WARNING can't be sampled"),
    ({"ERROR": 1}, "lines of the level ERROR can't be sampled"),
    ({"debug": 0.5}, "lines of the level debug can't be sampled"),
    ({"": 0.5}, "lines of the level  can't be sampled"),
    ({"DEBUG": 0}, "the share of DEBUG is 0; it is more than 0"),
    ({"DEBUG": 1.1}, "the share of DEBUG is 1.1"),
    ({"DEBUG": -0.1}, "the share of DEBUG is -0.1"),
    ({"DEBUG": "10%"}, "the share of DEBUG is '10%'"),
    ({"DEBUG": True}, "the share of DEBUG is True"),
    (0.1, "sampling is 0.1; write shares by level"),
]


@pytest.mark.parametrize(("sampling", "message"), REFUSED)
def test_what_must_not_be_sampled_is_refused(sampling: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"promtail_log_files: /var/log/shop.log: {message}"):
        stages(None, sampling=sampling)
    with pytest.raises(AnsibleFilterError, match=f"promtail_sampling: systemd-journal: {message}"):
        journal_scrape_config({"systemd-journal": sampling})


@pytest.mark.parametrize(("sampling", "_message"), REFUSED)
def test_the_preflight_refuses_the_same(sampling: Any, _message: str) -> None:
    for asked in (
        {"promtail_log_files": [{**ENTRY, "sampling": sampling}]},
        {"promtail_sampling": {"shop": sampling}, "promtail_log_files": [ENTRY]},
    ):
        assert len(list(preflight_check.check_sampling({"group_names": ["promtail"], **asked}))) == 1


def test_the_preflight_finds_a_job_that_no_file_has() -> None:
    asked = {"group_names": ["promtail"], "promtail_log_files": [ENTRY], "promtail_sampling": {"shpo": {"DEBUG": 0.1}}}
    (problem,) = preflight_check.check_sampling(asked)
    assert problem == "promtail_sampling names the job shpo, which no file has; jobs are shop, systemd-journal."
    asked["promtail_sampling"] = {"shop": {"DEBUG": 0.1}, "systemd-journal": {"INFO": 1}}
    assert list(preflight_check.check_sampling(asked)) == []


def test_the_preflight_and_the_filters_sample_the_same_levels() -> None:
    assert preflight_check.SAMPLED_LEVELS == scrape_configs.SAMPLED_LEVELS


def test_a_rate_limit_makes_lines_wait_and_drops_none() -> None:
    found = stages(rate_limit={"lines_per_second": 100.5, "burst": 1000})
    assert {"limit": {"rate": 100.5, "burst": 1000, "drop": False}} in found
    assert not any("limit" in stage for stage in stages())


@pytest.mark.parametrize(
    "limit",
    [
        {},
        7,
        {"lines_per_second": 1},
        {"lines_per_second": 1, "burst": 0},
        {"lines_per_second": 1, "burst": 1.5},
        {"lines_per_second": 0, "burst": 1},
        {"lines_per_second": "1", "burst": 1},
        {"lines_per_second": True, "burst": 1},
        {"lines_per_second": 1, "burst": True},
        {"lines_per_second": 1, "burst": 1, "drop": True},
    ],
)
def test_a_rate_limit_that_promtail_would_not_wait_for_is_refused(limit: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"promtail_log_files: /var/log/shop\.log: rate_limit is"):
        stages(rate_limit=limit)
