"""Make an environment's vault: random secrets, encrypted, with a password that ansible-vault asks for.

    python playbooks/vault_init.py prod

The secrets are those that group_vars/<environment>/vault.yml.example names. They reach the disk encrypted only. The
password comes from ANSIBLE_VAULT_PASSWORD_FILE where that is set.
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]


def filled_in(example: Any) -> Any:
    """Return what an example holds, with a random secret in each empty place."""
    if isinstance(example, dict):
        return {name: filled_in(value) for name, value in example.items()}
    return secrets.token_urlsafe(32)


def make_vault(environment: str) -> str:
    """Make the vault of an environment; return what to do next, or exit with the reason why not."""
    folder = REPOSITORY / "group_vars" / environment
    vault, example = folder / "vault.yml", folder / "vault.yml.example"
    if not example.is_file():
        known = ", ".join(sorted(path.parent.name for path in REPOSITORY.glob("group_vars/*/vault.yml.example")))
        sys.exit(f"{environment!r} is no environment with a vault: say ENV={known.replace(', ', ' or ENV=')}")
    if vault.exists():
        sys.exit(
            f"group_vars/{environment}/vault.yml is there already, and stays as it is; `ansible-vault edit` changes it"
        )
    values = filled_in(yaml.safe_load(example.read_text()))
    text = yaml.safe_dump(values, explicit_start=True, sort_keys=False)
    sealed = subprocess.run(
        ["ansible-vault", "encrypt", "--output", "-"],
        cwd=REPOSITORY,
        input=text,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if sealed.returncode != 0 or not sealed.stdout.startswith("$ANSIBLE_VAULT;"):
        sys.exit("ansible-vault has not encrypted anything, so nothing was written")
    vault.touch(mode=0o600, exist_ok=False)
    vault.write_text(sealed.stdout)
    return (
        f"group_vars/{environment}/vault.yml holds {', '.join(values)}. Keep its password; show them with\n"
        f"  ansible-vault view group_vars/{environment}/vault.yml\n"
        f"and run with --ask-vault-pass, or with ANSIBLE_VAULT_PASSWORD_FILE."
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", help="such as prod")
    print(make_vault(parser.parse_args().environment))


if __name__ == "__main__":
    main()
