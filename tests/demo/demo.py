"""`make demo`: boot a local host, install the platform on it as a user would, and prove that it works.

Each step says what it does and how long it took. The proof is the doctor's: a request is made within a trace of its
own, and the lines that Loki returns for that trace are shown.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
INVENTORY = "inventories/demo"
APP = "http://127.0.0.1:8000"
ADDRESSES = {
    "Grafana": "http://127.0.0.1:3100  (log in as admin, password admin123)",
    "Loki": "http://127.0.0.1:3101/ready",
    "Promtail": "http://127.0.0.1:9080/targets",
    "Demo app": f"{APP}/trace/42  (also /, /error, /health)",
}


class StepError(Exception):
    """Says which step failed."""


def step(title: str, *command: str) -> None:
    """Run one step with its output shown, and say how long it took."""
    print(f"\n=== {title}", flush=True)
    started = time.monotonic()
    result = subprocess.run(command, cwd=REPOSITORY, check=False)
    if result.returncode != 0:
        raise StepError(f"this step failed: {title}")
    print(f"--- {time.monotonic() - started:.0f} s", flush=True)


def grafana_is_there() -> bool:
    """Tell whether there is a Grafana to install; the tests' stand-in is none."""
    command = [sys.executable, "tests/mirror/mirror.py", "grafana-kind"]
    kind = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()
    return kind == "genuine"


def send_requests(count: int) -> None:
    """Send the app some requests from this machine, through the published port; a few of them fail on purpose."""
    print(f"\n=== Sending {count} requests to {APP}", flush=True)
    for number in range(count):
        path = ("/", "/trace/7", "/health", "/error")[number % 4]
        try:
            urllib.request.urlopen(APP + path, timeout=10).close()  # noqa: S310  # a constant address
        except urllib.error.HTTPError as error:
            if path != "/error":
                raise StepError(f"{APP}{path} answers {error.code}") from error


def main() -> None:
    """Run the demo."""
    started = time.monotonic()
    step(
        "Making the releases available (built from source where they can't be downloaded; the first time takes long)",
        sys.executable,
        "tests/mirror/mirror.py",
        "fill",
        "--for",
        "demo",
    )
    step("Booting a local host with systemd", sys.executable, "tests/hosts/hosts.py", "up", INVENTORY)
    skipped = [] if grafana_is_there() else ["--skip-tags", "grafana"]
    install = ["ansible-playbook", "site.yml", "-i", INVENTORY, *skipped]
    step("Installing the platform: " + " ".join(install), *install)
    send_requests(20)
    step(
        "Proving that a request's lines are found",
        "./manage.sh",
        "doctor",
        "-e",
        "demo",
        *(["--", *skipped] if skipped else []),
    )

    print(f"\nThe demo is up after {time.monotonic() - started:.0f} s:")
    for name, address in ADDRESSES.items():
        if name != "Grafana" or not skipped:
            print(f"  {name:<9} {address}")
    if skipped:
        print(
            "  Grafana   is left out: its release can't be reached from here. Download it elsewhere, and run\n"
            "            GRAFANA_ARCHIVE=/path/to/grafana.tar.gz make demo"
        )
    print("\nAsk it more with `./manage.sh status -e demo`; `make demo-clean` removes everything.")


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    try:
        main()
    except StepError as error:
        sys.exit(f"\nmake demo: {error}")
