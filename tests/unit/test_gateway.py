"""The gateway: its password files, its certificate, and what Grafana is told of its tenants."""

from __future__ import annotations

import base64
import hashlib
import ssl
import subprocess
import sys
import threading
import time
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_unit import answer_of

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from ansible_collections.logstead.platform.plugins.filter.certificate_metric import certificate_metric  # noqa: E402 - from the repository's root
from ansible_collections.logstead.platform.plugins.filter.htpasswd import htpasswd  # noqa: E402
from ansible_collections.logstead.platform.plugins.filter.tenants import by_tenant, tenant_password_files  # noqa: E402
from ansible_collections.logstead.platform.plugins.modules import gateway_certificate as certificates  # noqa: E402

CREDENTIALS = {"prod": {"write": "p" * 30, "read": "q" * 30}, "dev": {"write": "r" * 30, "read": "s" * 30}}
NAMES = ["10.0.0.5", "logs.example.org"]


# --- Passwords --------------------------------------------------------------------------------------------------------


def test_each_tenant_has_a_user_for_the_purpose_whose_password_is_hashed() -> None:
    lines = dict(line.split(":") for line in htpasswd(CREDENTIALS, "write", "host").splitlines())
    assert set(lines) == {"prod-write", "dev-write"}
    packed = base64.b64decode(lines["dev-write"].removeprefix("{SSHA}"))
    digest, salt = packed[:20], packed[20:]
    assert digest == hashlib.sha1(b"r" * 30 + salt).digest()  # noqa: S324 - what nginx takes
    assert len(salt) == 8
    assert not [line for line in lines.values() if "pppp" in line or "rrrr" in line]


def test_the_hashes_are_the_same_in_each_run_and_others_at_another_place() -> None:
    assert htpasswd(CREDENTIALS, "read", "host") == htpasswd(CREDENTIALS, "read", "host")
    assert htpasswd(CREDENTIALS, "read", "host") != htpasswd(CREDENTIALS, "read", "other")
    alike = {"a": {"read": "x" * 30}, "b": {"read": "x" * 30}}
    first, second = htpasswd(alike, "read", "host").splitlines()
    assert first.partition(":")[2] != second.partition(":")[2]


# --- Certificates -----------------------------------------------------------------------------------------------------


def write(folder: Path, made: dict[str, str]) -> None:
    """Put the files where the role would."""
    for name, key in (("ca.key", "ca_key"), ("ca.pem", "ca"), ("certificate.pem", "certificate")):
        (folder / name).write_text("# Managed by logstead\n" + made[key])


@pytest.fixture
def made(tmp_path: Path) -> dict[str, str]:
    """The first certificate, which is there now."""
    first: dict[str, str] = certificates.wanted(tmp_path, NAMES)
    assert first["reason"] == "there is none yet"
    write(tmp_path, first)
    return first


def openssl(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *words], input=text, capture_output=True, text=True, check=False)


def test_the_certificate_is_for_its_names_and_comes_from_the_ca(tmp_path: Path, made: dict[str, str]) -> None:
    trusted = ("verify", "-purpose", "sslserver", "-CAfile", str(tmp_path / "ca.pem"))
    for option, name in (("-verify_ip", "10.0.0.5"), ("-verify_hostname", "logs.example.org")):
        assert openssl(*trusted, option, name, text=made["certificate"]).returncode == 0
    assert openssl(*trusted, "-verify_hostname", "other.example.org", text=made["certificate"]).returncode != 0
    assert openssl("verify", text=made["certificate"]).returncode != 0


def test_the_end_of_the_certificate_is_told_and_nothing_else_of_it(made: dict[str, str]) -> None:
    told = certificate_metric(made["certificate"])
    days = (int(told.splitlines()[-1].split()[1]) - time.time()) / 86400
    assert 364 < days < 366
    assert "-----" not in told


def test_a_certificate_that_is_good_stays(tmp_path: Path, made: dict[str, str]) -> None:
    assert certificates.wanted(tmp_path, NAMES) == {**made, "reason": ""}
    assert certificates.wanted(tmp_path, [*reversed(NAMES)]) == {**made, "reason": ""}


def test_a_certificate_that_is_about_to_end_is_made_anew_by_the_same_ca(
    tmp_path: Path, made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "SERVER_DAYS", 89)
    short = certificates.wanted(tmp_path, ["10.0.0.6"])
    write(tmp_path, short)
    monkeypatch.undo()
    new = certificates.wanted(tmp_path, ["10.0.0.6"])
    assert new["reason"] == "it ends within 90 days"
    assert new["ca"] == made["ca"]
    assert new["certificate"] != short["certificate"]


@pytest.mark.usefixtures("made")
def test_a_ca_that_would_end_before_its_certificate_is_made_anew_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CA_DAYS", 400)
    (tmp_path / "ca.key").unlink()
    short = certificates.wanted(tmp_path, NAMES)
    assert short["reason"] == "it isn't of this CA"
    write(tmp_path, short)
    monkeypatch.undo()
    new = certificates.wanted(tmp_path, NAMES)
    assert new["ca"] != short["ca"]
    write(tmp_path, new)
    assert certificates.wanted(tmp_path, NAMES)["reason"] == ""


def test_other_names_a_foreign_key_or_half_a_file_make_a_new_certificate(tmp_path: Path, made: dict[str, str]) -> None:
    assert certificates.wanted(tmp_path, ["10.0.0.6"])["reason"] == "it is for IP:10.0.0.5, DNS:logs.example.org"
    (tmp_path / "certificate.pem").write_text(made["ca_key"] + made["certificate"].partition("-----END")[2])
    assert certificates.wanted(tmp_path, NAMES)["reason"] == "it isn't that of its key"
    (tmp_path / "certificate.pem").write_text(made["certificate"][:300])
    assert certificates.wanted(tmp_path, NAMES)["reason"] == "there is none yet"


# --- Grafana ----------------------------------------------------------------------------------------------------------

SOURCE = {"name": "Loki", "uid": "loki", "url": "https://x:3102", "isDefault": True, "jsonData": {"maxLines": 1000}}


def test_without_tenants_there_is_the_one_data_source() -> None:
    assert by_tenant(SOURCE, {}, "/etc/grafana") == [SOURCE]
    assert tenant_password_files({}, "/etc/grafana") == []


def test_each_tenant_has_a_data_source_and_the_first_keeps_the_uid() -> None:
    first, second = by_tenant(SOURCE, {"tenants": CREDENTIALS, "ca": "PEM"}, "/etc/grafana")
    assert (first["name"], first["uid"], first["isDefault"]) == ("Loki", "loki", True)
    assert (second["name"], second["uid"], second["isDefault"]) == ("Loki dev", "loki-dev", False)
    assert (second["basicAuth"], second["basicAuthUser"]) == (True, "dev-read")
    assert second["jsonData"] == {"maxLines": 1000, "tlsAuthWithCACert": True}
    paths = {entry["path"]: entry["secret"] for entry in tenant_password_files(CREDENTIALS, "/etc/grafana")}
    assert second["secureJsonData"] == {
        "basicAuthPassword": "$__file{/etc/grafana/loki_dev_password}",
        "tlsCACert": "PEM",
    }
    assert paths["/etc/grafana/loki_dev_password"] == "s" * 30
    assert SOURCE["jsonData"] == {"maxLines": 1000}


# --- Whether it is ready ----------------------------------------------------------------------------------------------


def test_the_ready_check_takes_an_answer_only_by_the_right_ca(tmp_path: Path) -> None:
    made, other = (certificates.wanted(tmp_path / name, ["127.0.0.1"]) for name in ("made", "other"))
    for name, text in (("pair", made["certificate"]), ("ca", made["ca"]), ("other", other["ca"])):
        (tmp_path / f"{name}.pem").write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/"
        assert answer_of(url, str(tmp_path / "ca.pem"))[0]
        for ca in (None, str(tmp_path / "other.pem")):
            is_fine, answer = answer_of(url, ca)
            assert not is_fine
            assert "certificate verify failed" in answer
        server.shutdown()
