"""Delivery: whatever happens to Promtail, Loki, their files or the host, each line arrives, and arrives once."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import LOKI, eventually, fetch, journal, power_cycle, unique

LOG = "/var/log/app/app.log"
POSITIONS = "/var/lib/promtail/positions.yaml"
HERE = Path(__file__).parent


class Load:
    """A writer of numbered lines on the host, and the tally of what Loki has of them."""

    def __init__(self, host: Any, case: str, record: Callable[[str, object], None]) -> None:
        self.record = record
        self.host, self.case, self.since, self.first = host, unique(case), time.time_ns(), 0

    def start(self, seconds: float) -> None:
        """Begin to write 2,000 lines a second, numbered on from those before."""
        unit = f"writer-{self.first}-{self.case}"
        self.host.check_output(
            f"systemd-run --quiet --unit={unit} --property=UMask=0027 --property=Group=adm "
            f"python3 /root/writer.py {self.case} {self.first} {seconds}"
        )
        self.first += 1_000_000

    def wait(self) -> None:
        """Wait until everything is written."""
        eventually(lambda: self.host.run("pgrep -f '^python3 /root/writer.py'").rc != 0, seconds=60)

    def tally(self) -> dict[str, int]:
        """Return what Loki has of what was written, now."""
        found: dict[str, int] = json.loads(self.host.check_output(f"python3 /root/tally.py {self.case} {self.since}"))
        return found

    def check(self) -> None:
        """Assert that Loki gets all of what was written, and has nothing twice once it has written it out."""
        self.wait()

        def nothing_lost() -> bool:
            return fetch(self.host, f"{LOKI}/ready")[0] == 200 and self.tally()["lost"] == 0

        try:
            eventually(nothing_lost, seconds=40)
        except AssertionError:
            print(journal(self.host, "promtail"))
        time.sleep(1)  # what comes twice may come late
        self.host.check_output(f"curl -sf -X POST {LOKI}/flush")
        figures = self.tally()
        self.record("figures", f"{figures['written']} written, {figures['lost']} lost, {figures['twice']} twice")
        print(figures, journal(self.host, "promtail"))
        assert (figures["lost"], figures["twice"], figures["foreign"]) == (0, 0, 0), journal(self.host, "promtail")


@pytest.fixture
def load(host: Any, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Load:
    """A load that is followed by a running Promtail, on a host without earlier logs."""
    for name in ("writer.py", "tally.py"):
        script = base64.b64encode((HERE / name).read_bytes()).decode()
        host.check_output(f"echo {script} | base64 -d > /root/{name}")
    host.check_output(
        "install -d -m 2750 -g adm /var/log/app; rm -f /var/log/app/app.log.*; systemctl start loki promtail"
    )
    eventually(lambda: fetch(host, f"{LOKI}/ready")[0] == 200, seconds=60)
    load = Load(host, request.node.originalname.removeprefix("test_"), record_property)
    load.start(0.5)
    eventually(lambda: load.tally()["counted"] >= 1000, seconds=30, otherwise=lambda: journal(host, "promtail"))
    return load


def rotate(host: Any, times: int = 1) -> None:
    """Rotate the log as logrotate does by default: to numbers, so that names are used again."""
    for _ in range(times):
        host.check_output(
            f"for n in 5 4 3 2 1; do [ ! -e {LOG}.$n ] || mv {LOG}.$n {LOG}.$((n+1)); done; mv {LOG} {LOG}.1"
        )
        time.sleep(1)


def test_promtail_is_killed(host: Any, load: Load) -> None:
    load.start(5)
    time.sleep(3)
    host.check_output("systemctl kill --signal=KILL promtail")
    load.check()


def test_promtail_is_restarted(host: Any, load: Load) -> None:
    load.start(5)
    for _ in range(2):
        time.sleep(2)
        host.check_output("systemctl restart promtail")
    load.check()


def test_promtail_is_stopped_while_loki_is_away(host: Any, load: Load) -> None:
    load.start(5)
    time.sleep(2)
    host.check_output("systemctl stop loki")
    time.sleep(1)
    host.check_output("systemctl stop promtail")  # it ends only by force
    host.check_output("systemctl start loki promtail")
    load.check()


def test_promtail_is_killed_while_loki_is_away_and_starts_before_it(host: Any, load: Load) -> None:
    load.start(5)
    time.sleep(2)
    host.check_output("systemctl stop loki")
    time.sleep(1)
    host.check_output("systemctl kill --signal=KILL promtail")
    time.sleep(4)
    assert "Ready, but waiting for Loki" in host.check_output("curl -sf http://127.0.0.1:9080/ready")
    host.check_output("systemctl start loki")
    load.check()


def test_the_log_is_rotated_twice_while_promtail_is_stopped(host: Any, load: Load) -> None:
    load.start(5)
    time.sleep(2)
    host.check_output("systemctl stop promtail")
    rotate(host, times=2)
    host.check_output(f"gzip {LOG}.2")
    host.check_output("systemctl start promtail")
    load.check()


def test_loki_is_killed(host: Any, load: Load) -> None:
    load.start(5)
    time.sleep(3)
    host.check_output("systemctl kill --signal=KILL loki")
    load.check()


def test_the_log_is_rotated_while_loki_is_away(host: Any, load: Load) -> None:
    load.start(5)
    time.sleep(2)
    host.check_output("systemctl stop loki")
    rotate(host)
    host.check_output("systemctl start loki")
    load.check()


def test_the_log_is_rotated_thrice_while_loki_is_away_and_promtail_is_restarted(host: Any, load: Load) -> None:
    load.start(5)
    time.sleep(2)
    host.check_output("systemctl stop loki")
    rotate(host, times=3)
    host.check_output("systemctl start loki")
    load.wait()
    host.check_output("systemctl restart promtail")
    load.check()


@pytest.mark.parametrize(
    "damage",
    [f"truncate -s 0 {POSITIONS}", f"head -c 300 /dev/zero > {POSITIONS}"],
    ids=["truncated", "NUL"],
)
def test_the_positions_are_lost(host: Any, load: Load, damage: str) -> None:
    load.start(3)
    time.sleep(2)
    host.check_output(f"systemctl kill --signal=KILL promtail; {damage}")
    load.check()


def test_the_power_is_cut(host: Any, load: Load) -> None:
    load.start(5)
    time.sleep(4)
    power_cycle(host)
    load.start(2)
    load.check()
