"""Grafana by its own HTTP API: a genuine one and the tests' stand-in have to answer the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    REPOSITORY,
    Hosts,
    check_no_secret_is_readable,
    check_service,
    eventually,
    fetch,
    is_container,
    journal,
    run_playbook,
    unique,
)

GRAFANA = "http://127.0.0.1:3100"
LOG_IN = ("--user", "admin:only-for-this-test")


def ask(host: Any, path: str, *options: str) -> tuple[int, Any]:
    """Ask Grafana as its administrator; return the status and the JSON."""
    status, body = fetch(host, f"{GRAFANA}{path}", *LOG_IN, *options)
    return status, json.loads(body) if body else None


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    """All hosts of the scenario."""
    return Hosts()


def test_runs_as_its_own_user_and_comes_back_at_boot(host: Any) -> None:
    check_service(host, "grafana")


def test_lets_in_only_who_knows_the_password(host: Any) -> None:
    status, body = fetch(host, f"{GRAFANA}/api/health")
    assert (status, json.loads(body)["database"]) == (200, "ok"), journal(host, "grafana")
    assert ask(host, "/api/org")[0] == 200
    assert fetch(host, f"{GRAFANA}/api/org", "--user", "admin:wrong")[0] == 401
    assert fetch(host, f"{GRAFANA}/api/org")[0] == 401


def test_nobody_can_sign_up(host: Any) -> None:
    new = json.dumps({"email": "a@example.org", "password": "12345678"})
    status, _ = fetch(host, f"{GRAFANA}/api/user/signup", "--header", "Content-Type: application/json", "--data", new)
    assert status in (401, 404)


def test_the_data_source_has_its_fixed_uid_and_answers_a_query(host: Any) -> None:
    status, source = ask(host, "/api/datasources/uid/loki")
    assert status == 200
    assert {name: source[name] for name in ("type", "url", "isDefault", "readOnly")} == {
        "type": "loki",
        "url": "http://127.0.0.1:3101",
        "isDefault": True,
        "readOnly": True,
    }
    assert ask(host, "/api/datasources/uid/loki/health")[1]["status"] == "OK"
    line = unique("shown")
    push = {"streams": [{"stream": {"job": "probe"}, "values": [[str(time.time_ns()), line]]}]}
    to_loki = "--header", "Content-Type: application/json", "--data", json.dumps(push)
    assert fetch(host, "http://127.0.0.1:3101/loki/api/v1/push", *to_loki)[0] == 204
    query = {
        "queries": [
            {"refId": "A", "datasource": {"uid": "loki"}, "expr": f'{{job="probe"}} |= "{line}"', "queryType": "range"}
        ],
        "from": "now-5m",
        "to": "now",
    }
    post = "--header", "Content-Type: application/json", "--data", json.dumps(query)

    def shown() -> bool:
        status, answer = ask(host, "/api/ds/query", *post)
        return status == 200 and line in json.dumps(answer)

    assert eventually(shown, otherwise=lambda: journal(host, "grafana", "loki"))


OURS = {"logstead-overview", "logstead-fastapi", "logstead-system", "logstead-trace"}


def dashboards(host: Any) -> dict[str, str]:
    """Return the uid of each dashboard's folder by the dashboard's own."""
    return {it["uid"]: it.get("folderUid", "") for it in ask(host, "/api/search?type=dash-db")[1]}


def folders(host: Any) -> set[str]:
    return {it["uid"] for it in ask(host, "/api/folders")[1]}


def test_dashboards_are_there_with_fixed_uids_in_folders_with_fixed_uids(host: Any) -> None:
    found = dashboards(host)
    assert {uid for uid, folder in found.items() if folder == "logstead-log-platform"} == OURS
    assert (found["app-shop"], found["team"]) == ("logstead-applications", "logstead-team")
    assert folders(host) == {"logstead-log-platform", "logstead-applications", "logstead-team", "logstead-alerts"}
    _, team = ask(host, "/api/dashboards/uid/team")
    assert (team["dashboard"]["title"], team["meta"]["provisioned"]) == ("A team's own", True)
    _, shop = ask(host, "/api/dashboards/uid/app-shop")
    assert "shop" in [variable.get("query") for variable in shop["dashboard"]["templating"]["list"]]


def test_people_and_programs_have_what_their_roles_allow(host: Any) -> None:
    assert ask(host, "/api/org")[1]["name"] == "A shop"
    assert ask(host, "/api/org/preferences")[1]["weekStart"] == "monday"
    as_ada = "--user", "ada:only-ada-knows"
    assert fetch(host, f"{GRAFANA}/api/org", *as_ada)[0] == 200
    assert fetch(host, f"{GRAFANA}/api/admin/settings", *as_ada)[0] == 403
    _, ada = ask(host, "/api/users/lookup?loginOrEmail=ada")
    assert [it["role"] for it in ask(host, f"/api/users/{ada['id']}/orgs")[1]] == ["Editor"]
    token = host.file("/root/ci.token")
    assert (token.mode, token.user) == (0o600, "root")
    bearer = "--header", f"Authorization: Bearer {token.content_string.strip()}"
    assert fetch(host, f"{GRAFANA}/api/org", *bearer)[0] == 200
    assert fetch(host, f"{GRAFANA}/api/org", *bearer, "--request", "PUT", "--data", '{"name": "Mine"}')[0] == 403


def alerts(host: Any) -> set[str]:
    """Return the alert rules that there are."""
    return {it["title"] for it in ask(host, "/api/v1/provisioning/alert-rules")[1]}


def contact_points(host: Any) -> set[tuple[str, str]]:
    """Return who is told, and how."""
    _, exported = ask(host, "/api/v1/provisioning/contact-points/export?format=json")
    found = {(it["name"], point["type"]) for it in exported["contactPoints"] for point in it["receivers"]}
    return {(name, kind) for name, kind in found if name in ("ops", "all")}


ALL_POINTS = {("ops", "email"), ("all", "webhook"), ("all", "slack"), ("all", "pagerduty")}


def test_alerts_are_there_with_who_is_told_of_them_and_when(host: Any) -> None:
    assert alerts(host) == {"Kept", "Taken"}
    assert contact_points(host) == ALL_POINTS
    _, policy = ask(host, "/api/v1/provisioning/policies")
    assert policy["receiver"] == "ops"
    (route,) = policy["routes"]
    assert (route["receiver"], route["mute_time_intervals"]) == ("all", ["logstead-nights"])
    assert [it["name"] for it in ask(host, "/api/v1/provisioning/mute-timings")[1]] == ["logstead-nights"]
    password = host.file("/etc/grafana/smtp_password")
    assert (password.user, password.group, password.mode) == ("root", "grafana", 0o640)


def test_a_rule_that_loki_would_not_take_is_refused_and_the_others_go_on(hosts: Hosts) -> None:
    broken = {"source": "loki", "expr": "sum(rate({job=)", "above": 1, "severity": "info", "summary": "No"}
    processes = hosts.check_output("systemctl show --property MainPID grafana")
    code, output = run_playbook("molecule/grafana/converge.yml", more_rules={"Broken": broken})
    assert code == 2, output
    assert "the rule Broken is refused by loki: parse error" in output
    assert "only-the-hook-knows" not in output
    for host in hosts:
        assert alerts(host) == {"Kept", "Taken"}
        assert contact_points(host) == ALL_POINTS
    assert hosts.check_output("systemctl show --property MainPID grafana") == processes


def test_what_is_refused_leaves_what_is_there(hosts: Hosts) -> None:
    for host in hosts:
        before = dashboards(host)
    broken = [{"file": "molecule/grafana/files/none.json"}, {"title": "Overview", "job": "x", "folder": "Log platform"}]
    code, output = run_playbook("molecule/grafana/converge.yml", grafana_dashboards=broken)
    assert code == 2, output
    told = re.sub(r"\s+", " ", output.replace("''", "'"))  # Ansible breaks lines, and doubles quotes within quotes
    assert "none.json can't be read" in told, output
    assert "which Overview has already" in told, output
    for host in hosts:
        assert dashboards(host) == before
        check_service(host, "grafana")


def test_another_password_is_carried_out_and_a_lost_token_made_anew_and_neither_is_shown(hosts: Hosts) -> None:
    lost = hosts.check_output("cat /root/ci.token && rm /root/ci.token")
    code, output = run_playbook("molecule/grafana/converge.yml", "-vvv", "--diff", adas_password="another-of-adas")
    assert code == 0, output
    tokens = hosts.check_output("cat /root/ci.token")
    for host, old, new in zip(hosts, lost, tokens):
        assert fetch(host, f"{GRAFANA}/api/org", "--user", "ada:another-of-adas")[0] == 200
        assert fetch(host, f"{GRAFANA}/api/org", "--header", f"Authorization: Bearer {new}")[0] == 200
        assert fetch(host, f"{GRAFANA}/api/org", "--header", f"Authorization: Bearer {old}")[0] == 401
    # What was given on the command line is shown at its beginning, by Ansible itself.
    shown = [line for line in output.splitlines() if "another-of-adas" in line or any(it in line for it in tokens)]
    assert not shown


def test_what_is_taken_off_the_lists_goes_and_people_can_come_back(hosts: Hosts) -> None:
    code, output = run_playbook("molecule/grafana/converge.yml", is_taken_off_the_lists=True)
    assert code == 0, output
    for host in hosts:
        assert alerts(host) == {"Kept"}
        assert contact_points(host) == set()
        assert ask(host, "/api/v1/provisioning/policies")[1]["receiver"] == "grafana-default-email"
        assert not host.file("/etc/grafana/smtp_password").exists
        assert ask(host, "/api/datasources/uid/second")[0] == 404
        assert ask(host, "/api/datasources/uid/loki")[0] == 200
        assert set(dashboards(host)) == OURS
        assert folders(host) == {"logstead-log-platform", "logstead-alerts"}
        assert fetch(host, f"{GRAFANA}/api/org", "--user", "ada:another-of-adas")[0] == 401
        assert ask(host, "/api/users/lookup?loginOrEmail=ada")[1]["isDisabled"] is True
        token = host.file("/root/ci.token").content_string.strip()
        assert fetch(host, f"{GRAFANA}/api/org", "--header", f"Authorization: Bearer {token}")[0] == 401
    code, output = run_playbook("molecule/grafana/converge.yml", is_taken_off_the_lists=True)
    assert code == 0, output
    assert len(re.findall(r"changed=0 .*failed=0", output)) == 2, output
    code, output = run_playbook("molecule/grafana/converge.yml")
    assert code == 0, output
    for host in hosts:
        assert alerts(host) == {"Kept", "Taken"}
        assert contact_points(host) == ALL_POINTS
        assert set(dashboards(host)) == OURS | {"app-shop", "team"}
        assert fetch(host, f"{GRAFANA}/api/org", "--user", "ada:only-ada-knows")[0] == 200
        token = host.file("/root/ci.token").content_string.strip()
        assert fetch(host, f"{GRAFANA}/api/org", "--header", f"Authorization: Bearer {token}")[0] == 200


# --- Another release, which the tests' stand-in plays: the migration of a genuine one is not tested ---

NEWER, BROKEN = "99.0.0", "99.0.1"
STARTS_AND_ENDS = b"#!/bin/sh\nprintf migrated >> /var/lib/grafana/grafana.db\nexit 1\n"


@pytest.fixture(scope="module")
def releases() -> Iterator[None]:
    """Two more releases of the stand-in on the mirror: a newer one, and one that changes the database and ends."""
    mirror = Path(os.environ["LOGSTEAD_CACHE"], "standin/dl.grafana.com/oss/release")
    if not mirror.is_dir():
        pytest.skip("the mirror has a genuine Grafana, of which there is no newer release")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    archives = {version: mirror / f"grafana-{version}.linux-{architecture}.tar.gz" for version in (NEWER, BROKEN)}
    build = REPOSITORY / "tests/grafana_standin/build.py"
    subprocess.run([sys.executable, build, archives[NEWER], NEWER], check=True)
    with tarfile.open(archives[BROKEN], "w:gz") as content:
        program = tarfile.TarInfo(f"grafana-{BROKEN}/bin/grafana")
        program.size, program.mode = len(STARTS_AND_ENDS), 0o755
        content.addfile(program, io.BytesIO(STARTS_AND_ENDS))
    sums = [archive.with_name(f"{archive.name}.sha256") for archive in archives.values()]
    for archive, checksum in zip(archives.values(), sums):
        checksum.write_text(hashlib.sha256(archive.read_bytes()).hexdigest())
    yield
    for path in (*archives.values(), *sums):
        path.unlink()


def copies(host: Any) -> list[str]:
    """Return the copies of the database, the oldest first."""
    folder = "/var/lib/logstead/databases/grafana.service"
    return str(host.run(f"ls -tr -d {folder}/*/grafana.db").stdout).split()


@pytest.mark.usefixtures("releases")
def test_a_stand_in_of_another_release_that_ends_leaves_the_database_as_it_was(hosts: Hosts) -> None:
    if any(hosts.ask(lambda host: is_container(host, "grafana"))):
        pytest.skip("releases are of the runtime systemd")
    before = hosts.check_output("readlink /opt/grafana/current; stat --format %U:%G:%a /var/lib/grafana/grafana.db")
    code, output = run_playbook("molecule/grafana/converge.yml", grafana_version=BROKEN)
    assert code == 2, output
    assert output.count("What ran before was put back and runs again") >= 2, output
    after = hosts.check_output("readlink /opt/grafana/current; stat --format %U:%G:%a /var/lib/grafana/grafana.db")
    assert after == before
    for host in hosts:
        assert "migrated" not in host.check_output("tail --bytes 20 /var/lib/grafana/grafana.db | tr -d '\\000'")
        assert set(dashboards(host)) == OURS | {"app-shop", "team"}, journal(host, "grafana")


@pytest.mark.usefixtures("releases")
def test_an_upgrade_of_the_stand_in_keeps_a_copy_of_the_database_and_the_way_back_works(hosts: Hosts) -> None:
    if any(hosts.ask(lambda host: is_container(host, "grafana"))):
        pytest.skip("releases are of the runtime systemd")
    code, output = run_playbook("molecule/grafana/converge.yml", grafana_version=NEWER)
    assert code == 0, output
    for host in hosts:
        assert json.loads(fetch(host, f"{GRAFANA}/api/health")[1])["version"] == NEWER
        assert set(dashboards(host)) == OURS | {"app-shop", "team"}
    # As docs/upgrading.md says.
    for host in hosts:
        copy = copies(host)[-1]
        assert host.check_output(f"stat --format %U:%a {Path(copy).parents[1]}") == "root:700"
        host.check_output("systemctl stop grafana && mv /var/lib/grafana/grafana.db /root/")
        host.check_output(f"cp --preserve=all {copy}* /var/lib/grafana/")
    code, output = run_playbook("molecule/grafana/converge.yml")
    assert code == 0, output
    for host in hosts:
        assert json.loads(fetch(host, f"{GRAFANA}/api/health")[1])["version"] != NEWER
        assert set(dashboards(host)) == OURS | {"app-shop", "team"}


def test_calls_nobody_and_keeps_its_secrets(host: Any) -> None:
    settings = host.file("/etc/grafana/grafana.ini").content_string
    for line in (
        "reporting_enabled = false",
        "check_for_updates = false",
        "preinstall_disabled = true",
        "public_key_retrieval_disabled = true",
        "default_theme = light",
    ):
        assert line in settings.splitlines()
    for secret in ("only-for-this-test", "only-for-this-test-too", "only-the-post-knows", "only-the-hook-knows"):
        assert secret not in settings
        check_no_secret_is_readable(host, secret, "/etc", "/var/lib", "/run")
