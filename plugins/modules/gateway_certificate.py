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
short_description: Tell the gateway's certificate, made by a CA of its own where the present one won't do
description:
  - Returns what should be in the files; it writes none of them, so that they can be checked and moved in with others.
  - The present CA and certificate are returned as they are while they are sound, name what they should, and are not
    about to end.
  - Sets the fact C(gateway_ca), the certificate of the CA, by which clients verify the gateway.
options:
  folder:
    description: Folder of C(ca.key), C(ca.pem) and C(certificate.pem), which holds the key as well.
    type: path
    required: true
  names: {description: Host names and IP addresses that the certificate is for., type: list, elements: str, default: []}
  state:
    description: V(known) only tells the CA that is there, if any.
    type: str
    choices: [known, present]
    default: present
author: [logstead contributors]
"""

RETURN = r"""
ca_key: {description: Private key of the CA., type: str, returned: present}
ca: {description: Certificate of the CA., type: str, returned: present}
certificate: {description: Private key and certificate of the gateway., type: str, returned: present}
reason: {description: Why the certificate is a new one; empty if it isn't., type: str, returned: present}
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
