#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: tell the gateway's certificate, made by a CA of its own where the present one won't do."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: gateway_certificate
version_added: 1.0.0
short_description: Issue the gateway's TLS certificate from a private CA, if the present one is no longer valid
description:
  - Returns the contents that the gateway's certificate files should have. It writes none of them itself, so that they
    can be verified and replaced together with the gateway's other files, by M(logstead.platform.systemd_app).
  - The present CA and certificate are returned unchanged while the keys match, the certificate is issued by the CA for
    exactly O(names), and neither is about to expire. Otherwise new ones are issued.
  - The server certificate is renewed 90 days before it expires, and the CA while it is still valid for longer than any
    server certificate it issues.
  - Sets the fact C(gateway_ca), the CA certificate that clients verify the gateway against.
requirements: [openssl]
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: The module never changes the host. A certificate that is issued in check mode is discarded with the result.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
  facts:
    description: Returns C(ansible_facts) that are added to the facts of the host.
    support: full
options:
  folder:
    description: Directory with C(ca.key), C(ca.pem) and C(certificate.pem). The latter holds the server's key as well.
    type: path
    required: true
  names:
    description: DNS names and IP addresses that the certificate is valid for. Required if O(state=present).
    type: list
    elements: str
    default: []
  state:
    description:
      - V(present) returns a valid CA and certificate, newly issued if need be.
      - V(known) only sets the fact from the CA certificate on the host, and to an empty string if there is none.
    type: str
    choices: [known, present]
    default: present
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Get a valid certificate for the gateway
  logstead.platform.gateway_certificate:
    folder: /etc/gateway
    names: [logs.example.org, 192.0.2.10]
  register: gateway_issued
  no_log: true

- name: Tell why it was issued anew
  ansible.builtin.debug:
    msg: "{{ gateway_issued['reason'] }}"
  when: gateway_issued['reason'] | length > 0

- name: Read the CA certificate that is on the host
  logstead.platform.gateway_certificate:
    folder: /etc/gateway
    state: known
"""

RETURN = r"""
ansible_facts:
  description: The facts that are set.
  type: dict
  returned: success
  contains:
    gateway_ca:
      description: The CA certificate in PEM format. Empty with O(state=known) if there is none.
      type: str
      returned: success
ca_key:
  description: Private key of the CA in PEM format.
  type: str
  returned: if O(state=present)
ca:
  description: Certificate of the CA in PEM format.
  type: str
  returned: if O(state=present)
certificate:
  description: Private key and certificate of the gateway in PEM format.
  type: str
  returned: if O(state=present)
reason:
  description: Why the server certificate was issued anew. Empty if the present one is returned.
  type: str
  returned: if O(state=present)
  sample: it ends within 90 days
"""

DAY = 86400
CA_DAYS, SERVER_DAYS = 3650, 365
RENEW_DAYS = 90  # any run of the last so many days renews
PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----\n", re.DOTALL)
SETTINGS = """\
[req]
distinguished_name = subject
prompt = no
utf8 = yes
[subject]
CN = {subject}
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@dataclass
class Pair:
    """A private key and its certificate, as PEM text."""

    key: str
    certificate: str


def openssl(*arguments: str, text: str = "") -> tuple[bool, str]:
    """Run openssl on a text; return whether it succeeded, and what it prints."""
    result = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, check=False)
    return result.returncode == 0, result.stdout if result.returncode == 0 else result.stderr


def pair_in(text: str) -> Pair | None:
    """Return the key and the certificate of a text, or None if it lacks one."""
    blocks = PEM.findall(text)
    keys = [block for block in blocks if "PRIVATE KEY" in block]
    certificates = [block for block in blocks if "BEGIN CERTIFICATE" in block]
    return Pair(keys[0], certificates[0]) if keys and certificates else None


def text_of(path: Path) -> str:
    """Return the text of a file; nothing if it isn't there."""
    return path.read_text() if path.is_file() else ""


def alternative_names(names: list[str]) -> str:
    """Return names as openssl's subjectAltName takes them, each once."""

    def entry(name: str) -> str:
        try:
            return f"IP:{ipaddress.ip_address(name)}"
        except ValueError:
            return f"DNS:{name}"

    return ", ".join(dict.fromkeys(map(entry, names)))


def make(subject: str, kind: str, days: int, names: str = "DNS:unused", ca: Pair | None = None) -> Pair:
    """Make a key and a certificate, signed by a CA or by itself."""
    with tempfile.TemporaryDirectory() as folder:
        settings, by_ca = Path(folder, "settings"), []
        settings.write_text(SETTINGS.format(subject=subject[:64], names=names))
        if ca:
            for name, text in (("ca.pem", ca.certificate), ("ca.key", ca.key)):
                Path(folder, name).touch(mode=0o600)
                Path(folder, name).write_text(text)
            by_ca = ["-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key"]
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "-"]
        asked = ["-config", str(settings), "-extensions", kind, "-days", str(days), "-sha256"]
        done, printed = openssl("req", "-x509", *asked, *key, *by_ca)
    pair = pair_in(printed) if done else None
    if pair is None:
        raise OSError(f"openssl made no certificate: {printed}")
    return pair


def problem_of(pair: Pair | None, days: int) -> str:
    """Return what is wrong with a pair that has to last for some days; nothing if nothing is."""
    if pair is None:
        return "there is none yet"
    if not openssl("x509", "-noout", "-checkend", str(days * DAY), text=pair.certificate)[0]:
        return f"it ends within {days} days"
    keys = {
        openssl("pkey", "-pubout", text=pair.key)[1],
        openssl("x509", "-noout", "-pubkey", text=pair.certificate)[1],
    }
    return "" if len(keys) == 1 else "it isn't that of its key"


def problem_of_server(pair: Pair | None, ca: Pair, names: str) -> str:
    """Return why the gateway's pair has to be made anew; nothing if it hasn't."""
    problem = problem_of(pair, RENEW_DAYS)
    if problem or pair is None:
        return problem
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as trusted:
        trusted.write(ca.certificate)
        trusted.flush()
        if not openssl("verify", "-CAfile", trusted.name, text=pair.certificate)[0]:
            return "it isn't of this CA"
    _, printed = openssl("x509", "-noout", "-ext", "subjectAltName", text=pair.certificate)
    present = printed.partition("\n")[2].replace("IP Address:", "IP:").strip()
    return "" if set(present.split(", ")) == set(names.split(", ")) else f"it is for {present}"


def wanted(folder: Path, names: list[str]) -> dict[str, str]:
    """Return what should be in the files."""
    ca = pair_in(text_of(folder / "ca.key") + text_of(folder / "ca.pem"))
    # A certificate must not outlive its CA.
    if ca is None or problem_of(ca, SERVER_DAYS + RENEW_DAYS):
        ca = make(f"logstead gateway CA of {names[0]}", "ca", CA_DAYS)
    alternatives = alternative_names(names)
    server = pair_in(text_of(folder / "certificate.pem"))
    reason = problem_of_server(server, ca, alternatives)
    if server is None or reason:
        server = make(names[0], "server", SERVER_DAYS, alternatives, ca)
    return {"ca_key": ca.key, "ca": ca.certificate, "certificate": server.key + server.certificate, "reason": reason}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["known", "present"], "default": "present"},
        },
        required_if=[("state", "present", ["names"])],
        supports_check_mode=True,
    )
    folder = Path(module.params["folder"])
    try:
        if module.params["state"] == "known":
            present = "".join(PEM.findall(text_of(folder / "ca.pem")))
            module.exit_json(changed=False, ansible_facts={"gateway_ca": present})
        result = wanted(folder, module.params["names"])
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, ansible_facts={"gateway_ca": result["ca"]}, **result)


if __name__ == "__main__":
    main()
