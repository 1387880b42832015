#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: refuse rules for logrotate that claim another rule's log, or that logrotate doesn't take."""

from __future__ import annotations

import glob
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logstead.platform.plugins.module_utils.check_memory import remember
from ansible_collections.logstead.platform.plugins.module_utils.log_paths import paths_meet

DOCUMENTATION = r"""
module: logrotate_check
version_added: 1.0.0
short_description: Refuse invalid logrotate rules, and rules for a log file that another rule already rotates
description:
  - Fails if one of O(claims) matches a log file that another rule rotates, among O(claims) themselves or in the files
    of O(others). logrotate itself only detects this for files that exist, and only among the rules of one run.
  - Then has logrotate parse O(config), if logrotate is installed, and fails on every error and warning.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details:
      - The module changes nothing on the host but what it remembers of itself, and in check mode not even that.
      - In check mode rules are accepted whose only fault is that a user or group is unknown, as other roles may not
        have created it yet.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  claims:
    description: The log files of each rule, as the filter P(logstead.platform.logrotate_claims#filter) returns them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the rule.
        type: str
        required: true
      paths:
        description: Paths of the rule's log files. Wildcards are allowed.
        type: list
        elements: str
        required: true
  config:
    description: The rules in logrotate's own format. If empty, logrotate isn't run.
    type: str
    required: true
  others:
    description: Files with rules that other packages have installed. Wildcards are allowed.
    type: list
    elements: str
    default: [/etc/logrotate.conf, /etc/logrotate.d/*]
  fingerprint:
    description:
      - Digest of all other options, which the action plugin of this name adds. With it, the host remembers that the
        check was passed, and the check isn't run again as long as the files that it read stay as they are.
    type: str
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Verify the rules before they are installed
  logstead.platform.logrotate_check:
    claims: "{{ logrotate_rules | logstead.platform.logrotate_claims }}"
    config: "{{ logrotate_rules | logstead.platform.logrotate_config('/usr/local/sbin/logstead-logs') }}"
  register: logrotate_checked

- name: Install logrotate
  ansible.builtin.apt:
    name: logrotate
  when: not logrotate_checked['is_installed']
"""

RETURN = r"""
is_installed:
  description: Whether logrotate is installed on the host.
  type: bool
  returned: success
"""

LOGROTATE = "/usr/sbin/logrotate"
# What logrotate leaves out of a folder that it reads.
IGNORED = (".dpkg-", ".disabled", ".ucf-", ".rpm", "~", ".bak", ".swp", ".old", ".orig", ".cfsaved")
SCRIPTS = ("prerotate", "postrotate", "firstaction", "lastaction", "preremove")
# In a check run the users, which other roles make, may not be there yet.
UNKNOWN_OWNER = re.compile(r"unknown (user|group)")


def paths_in(text: str) -> Iterator[str]:
    """Yield the paths that logrotate's rules claim."""
    in_script, in_rule, heads = False, False, ""
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if in_script:
            in_script = line != "endscript"
        elif in_rule:
            in_script = line.split()[0] in SCRIPTS
            in_rule = not line.startswith("}")
        elif "{" in line or line.startswith(("/", '"', "'")):
            head, brace, rest = line.partition("{")
            heads += f" {head}"
            if brace:
                for quoted, plain in re.findall(r"[\"']([^\"']+)[\"']|([^\s\"']+)", heads):
                    yield quoted or plain
                heads, in_rule = "", "}" not in rest


def rules_of_others(patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the paths that others claim, each with the file that says so."""
    for name in sorted({name for pattern in patterns for name in glob.glob(pattern)}):
        if Path(name).is_file() and not any(word in Path(name).name for word in IGNORED):
            for path in paths_in(Path(name).read_text(errors="replace")):
                yield path, name


def double_claims(claims: list[dict[str, Any]], others: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each two claims on one log."""
    own = [(str(path), f"rule {claim['name']}") for claim in claims for path in claim["paths"]]
    for (path, rule), (other_path, other_rule) in combinations(own, 2):
        if paths_meet(path, other_path):
            yield f"{path} of {rule} and {other_path} of {other_rule} are both rules for one log."
    for path, rule in own:
        for other_path, file in rules_of_others(others):
            if paths_meet(path, other_path):
                yield f"{path} of {rule} and {other_path} in {file} are both rules for one log."


def refusals(config: str) -> list[str]:
    """Return what logrotate has against the rules. For some of it, it only warns, and leaves out the line."""
    with tempfile.TemporaryDirectory(prefix="logrotate-check-") as folder:
        staged = Path(folder, "logrotate.conf")
        staged.write_text(config)
        staged.chmod(0o644)  # logrotate doesn't read what others may write
        command = [LOGROTATE, "--debug", "--state", f"{folder}/status", str(staged)]
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
        lines = [line.replace(str(staged), "the rules") for line in result.stdout.splitlines()]
    found = [line for line in lines if re.match(r"(error|warning): (?!logrotate in debug mode)", line)]
    if result.returncode != 0 and not found:
        found = lines
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "claims": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "paths": {"type": "list", "elements": "str", "required": True},
                },
            },
            "config": {"type": "str", "required": True},
            "others": {"type": "list", "elements": "str", "default": ["/etc/logrotate.conf", "/etc/logrotate.d/*"]},
            "fingerprint": {"type": "str"},
        },
        supports_check_mode=True,
    )
    problems = list(double_claims(module.params["claims"], module.params["others"]))
    if problems:
        advice = "Leave out one of the two: logrotate would rotate the log by whichever it reads first, or twice."
        module.fail_json(msg=f"Nothing was changed. {' '.join(problems)} {advice}")
    is_installed = shutil.which(LOGROTATE) is not None
    if module.params["config"] and is_installed:
        found = refusals(module.params["config"])
        if module.check_mode and any(UNKNOWN_OWNER.search(line) for line in found):
            found = []
        if found:
            said = "\n".join(found)
            module.fail_json(
                msg=f"Nothing was changed. logrotate refuses the rules; mend logrotate_rules. It says:\n{said}"
            )
    # Without logrotate, its word on the rules is still to come.
    if module.params["fingerprint"] and is_installed and not module.check_mode:
        read, result = [LOGROTATE, *module.params["others"]], {"is_installed": is_installed}
        remember("logstead-logrotate", "logrotate_check", module.params["fingerprint"], read, result)
    module.exit_json(changed=False, is_installed=is_installed)


if __name__ == "__main__":
    main()
