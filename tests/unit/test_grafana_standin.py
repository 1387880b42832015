"""The stand-in answers as Grafana does: with GRAFANA_ARCHIVE set, these tests run against that Grafana instead."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from ansible_collections.logstead.platform.plugins.module_utils.grafana_alerting import converge_alerting
from ansible_collections.logstead.platform.plugins.module_utils.grafana_client import Grafana as Client
from ansible_collections.logstead.platform.plugins.module_utils.grafana_client import GrafanaError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.filter.grafana_alerting import grafana_alerting

STAND_IN = Path(__file__).resolve().parent.parent / "grafana_standin"
REAL = os.environ.get("GRAFANA_ARCHIVE")
only_stand_in = pytest.mark.skipif(bool(REAL), reason="about the stand-in itself")
START_TIMEOUT = 120 if REAL else 10  # the real one first builds its database

PASSWORD = "first password; with # signs"
LINES = [
    ["1700000000123456789", "hello", {}],
    ["1700000000000000000", "world", {"structuredMetadata": {"trace_id": "abc"}}],
]


class FakeLoki(BaseHTTPRequestHandler):
    """Answers the few requests that Grafana sends it, and remembers them."""

    seen: ClassVar[list[tuple[str, dict[str, list[str]], dict[str, str]]]] = []

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """Answer as Loki does."""
        url = urlsplit(self.path)
        params = parse_qs(url.query)
        self.seen.append((url.path, params, dict(self.headers)))
        expr = params.get("query", [""])[0]
        result: object = [{"metric": {"level": "error"}, "value": [1700000000, "42"]}]
        kind = "vector"
        if url.path == "/ready":
            return self.answer(200, "ready\n", "text/plain")
        if url.path == "/secret":
            return self.answer(401, "no", "text/plain")
        if "broken" in expr:
            return self.answer(400, "parse error at line 1", "text/plain")
        if expr == "vector(1)+vector(1)":
            result = [{"metric": {}, "value": [4, "2"]}]
        elif url.path.endswith("query_range") and "rate" in expr:
            kind, result = "matrix", [{"metric": {"app": "x"}, "values": [[1700000000, "1"], [1700000060, "2.5"]]}]
        elif url.path.endswith("query_range"):
            kind, result = "streams", [{"stream": {"app": "x"}, "values": LINES}] if "x" in expr else []
        data = {"resultType": kind, "encodingFlags": ["categorize-labels"], "result": result, "stats": {}}
        return self.answer(200, json.dumps({"status": "success", "data": data}), "application/json")

    def answer(self, status: int, text: str, kind: str) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.text)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Shows redirections instead of following them."""

    def redirect_request(self, *_: object) -> None:
        """Follow nothing."""


@dataclass
class Grafana:
    """A Grafana with its folders and its process."""

    home: Path
    etc: Path
    port: int
    loki: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def arguments(self) -> list[str]:
        """The flags that every command takes."""
        return ["--config", str(self.etc / "grafana.ini"), "--homepath", str(self.home)]

    def configure(self, ini: str = "") -> None:
        """Write grafana.ini."""
        for folder in ("provisioning/datasources", "provisioning/dashboards", "dashboards/Team A"):
            (self.etc / folder).mkdir(parents=True, exist_ok=True)
        (self.etc / "password").write_text(PASSWORD + "\n")
        (self.etc / "grafana.ini").write_text(
            "; a comment\n[server]\nhttp_addr = 127.0.0.1\n"
            f"http_port = {self.port}\nroot_url = %(protocol)s://%(domain)s/\n"
            f"[paths]\nprovisioning = {self.etc}/provisioning\nlogs = {self.etc}/log\n"
            f"[security]\nadmin_user = chief\nadmin_password = $__file{{{self.etc}/password}}\n"
            "secret_key = $__env{LOGSTEAD_SECRET}\ndisable_gravatar = true\n"
            "[analytics]\nreporting_enabled = false\ncheck_for_updates = false\ncheck_for_plugin_updates = false\n"
            "[plugins]\npreinstall_disabled = true\n"
            f"[users]\nallow_sign_up = false\n[auth.anonymous]\nenabled = false\n[log]\nmode = console\n{ini}"
        )

    def datasources(self, content: str, name: str = "loki.yaml") -> None:
        """Write a provisioning file for datasources."""
        (self.etc / "provisioning/datasources" / name).write_text(content)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server without waiting for it."""
        log = (self.etc / "console.log").open("wb")
        command = [str(self.home / "bin/grafana"), "server", *self.arguments]
        command.append(f"cfg:default.paths.data={self.etc}/data")
        environment = {**os.environ, "LOGSTEAD_SECRET": "s3cret", "LOGSTEAD_LOKI": self.loki}
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        return self.process

    def start(self) -> Grafana:
        """Start the server; wait until it listens and has read its files, which happens in any order."""
        process = self.launch()
        wait_for(lambda: process.poll() is not None or self.ready, START_TIMEOUT)
        assert process.poll() is None, self.log
        return self

    @property
    def ready(self) -> bool:
        """Whether it listens and has read its provisioning files."""
        log = self.log
        provisioned = "finished to provision dashboards" in log or "Failed to provision config" in log
        return provisioned and "HTTP Server Listen" in log

    def stop(self) -> int:
        """Stop the server and return its exit status."""
        if not self.process:
            return 0
        self.process.terminate()
        return self.process.wait(30)

    @property
    def log(self) -> str:
        """What the server wrote."""
        return (self.etc / "console.log").read_text()

    def cli(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command that resets the administrator's password."""
        command = [str(self.home / "bin/grafana"), "cli", *self.arguments]
        command += ["--configOverrides", f"cfg:default.paths.data={self.etc}/data", "admin", "reset-admin-password"]
        environment = {**os.environ, "LOGSTEAD_SECRET": "s3cret"}
        return subprocess.run(
            [*command, *arguments],
            input=typed,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=60,
        )

    def ask(
        self, path: str, auth: str | None = f"chief:{PASSWORD}", body: object = None, method: str = "", bearer: str = ""
    ) -> Answer:
        """Send a request."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        if auth:
            headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, headers, method=method or ("POST" if data else "GET")
        )
        opener = urllib.request.build_opener(NoRedirect)
        try:
            with opener.open(request, timeout=20) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read().decode())

    def query(self, expr: str, kind: str, uid: str = "loki", **more: object) -> Answer:
        """Run a Loki query over one minute."""
        query = {"refId": "A", "datasource": {"uid": uid, "type": "loki"}, "expr": expr, "queryType": kind, **more}
        return self.ask("/api/ds/query", body={"queries": [query], "from": "1700000000000", "to": "1700000060000"})


def wait_for(condition: Callable[[], object], timeout: float = 15) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pack(destination: Path) -> None:
    subprocess.run([sys.executable, STAND_IN / "build.py", destination, "12.9.9"], check=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    archive = Path(REAL) if REAL else folder / "grafana.tar.gz"
    if not REAL:
        pack(archive)
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    return next(folder.glob("grafana-*/"))


@pytest.fixture(scope="module")
def loki() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeLoki)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


DATASOURCES = """
apiVersion: 1
prune: true
datasources:
- name: Loki
  uid: loki
  type: loki
  access: proxy
  url: ${LOGSTEAD_LOKI}
  isDefault: true
  editable: false
  basicAuth: true
  basicAuthUser: reader
  jsonData:
    maxLines: 1000
    httpHeaderName1: X-Scope-OrgID
    derivedFields:
    - name: TraceID
      matcherType: label
      matcherRegex: trace_id
      url: /d/trace?var-trace_id=$${__value.raw}
  secureJsonData:
    basicAuthPassword: tell $$nobody
    httpHeaderValue1: tenant
- name: Gone Loki
  type: loki
  url: http://127.0.0.1:1
"""

PROVIDER = """
apiVersion: 1
providers:
- name: logstead
  type: file
  updateIntervalSeconds: 1
  allowUiUpdates: false
  options:
    path: {etc}/dashboards
    foldersFromFilesStructure: true
"""


def grafana_in(etc: Path, home: Path, loki: str) -> Iterator[Grafana]:
    grafana = Grafana(home, etc, free_port(), loki)
    grafana.configure()
    yield grafana
    grafana.stop()


@pytest.fixture(scope="module")
def grafana(home: Path, loki: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grafana]:
    """A running Grafana whose state the tests leave alone."""
    for grafana in grafana_in(tmp_path_factory.mktemp("etc"), home, loki):
        grafana.datasources(DATASOURCES)
        (grafana.etc / "provisioning/dashboards/files.yaml").write_text(PROVIDER.format(etc=grafana.etc))
        dashboard = {"uid": "all-logs", "title": "All logs!", "tags": ["logstead"], "panels": []}
        (grafana.etc / "dashboards/Team A/logs.json").write_text(json.dumps(dashboard))
        (grafana.etc / "dashboards/top.json").write_text('{"uid": "top", "title": "At the top"}')
        (grafana.etc / "dashboards/bad.json").write_text("{")
        yield grafana.start()


@pytest.fixture
def fresh(home: Path, loki: str, tmp_path: Path) -> Iterator[Grafana]:
    """A Grafana of its own, not started."""
    yield from grafana_in(tmp_path, home, loki)


# --- The stand-in itself ---


@only_stand_in
def test_archive_is_the_same_every_time(tmp_path: Path) -> None:
    pack(tmp_path / "a")
    pack(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@only_stand_in
def test_archive_has_the_layout_of_a_release(home: Path) -> None:
    assert home.name == "grafana-12.9.9"
    assert os.access(home / "bin/grafana", os.X_OK)
    assert (home / "VERSION").read_text().strip() == "12.9.9"
    assert (home / "conf/defaults.ini").is_file()
    assert list((home / "public").iterdir())


@only_stand_in
def test_it_says_what_it_is(grafana: Grafana) -> None:
    assert grafana.ask("/api/health").json["commit"] == "stand-in"
    for path in ("/api/health", "/api/org", "/api/none", "/login", "/api/datasources/proxy/uid/loki/ready"):
        assert grafana.ask(path).headers["X-Logstead-Stand-In"] == "1"
    assert "This is a stand-in for Grafana" in grafana.log


# --- Command line and settings ---


def test_version_is_told(home: Path) -> None:
    for command, start in ((["--version"], "grafana version "), (["server", "-v"], "Version ")):
        run = subprocess.run([home / "bin/grafana", *command], capture_output=True, text=True, check=True)
        assert run.stdout.startswith(start)


def test_log_is_in_logfmt(grafana: Grafana) -> None:
    assert 'level=info msg="Starting Grafana"' in grafana.log
    assert 'msg="HTTP Server Listen"' in grafana.log


def test_sigterm_stops_it(fresh: Grafana) -> None:
    assert fresh.start().stop() in {0, -signal.SIGTERM}  # the real one may still lack its handler


def test_missing_password_file_stops_the_start(fresh: Grafana) -> None:
    (fresh.etc / "password").unlink()
    assert fresh.launch().wait(START_TIMEOUT) == 1


def test_unreadable_ini_stops_the_start(fresh: Grafana) -> None:
    fresh.configure("a line without a delimiter\n")
    assert fresh.launch().wait(START_TIMEOUT) == 1


def test_unknown_flag_is_refused(home: Path) -> None:
    assert subprocess.run([home / "bin/grafana", "server", "--nope"], capture_output=True, check=False).returncode == 1


def test_password_is_read_once_and_reset_by_the_command_line(fresh: Grafana) -> None:
    fresh.start()
    assert fresh.ask("/api/org").status == 200
    fresh.stop()
    (fresh.etc / "password").write_text("another password")
    fresh.start()
    assert fresh.ask("/api/org", auth="chief:another password").status == 401
    assert fresh.ask("/api/org").status == 200
    assert fresh.cli("third password").returncode == 0
    assert fresh.ask("/api/org", auth="chief:third password").status == 200
    run = fresh.cli("--password-from-stdin", typed="fourth password\n")
    assert run.returncode == 0
    assert "Admin password changed successfully" in run.stdout
    assert fresh.ask("/api/org", auth="chief:fourth password").status == 200
    assert fresh.ask("/api/org", auth="chief:third password").status == 401
    assert fresh.cli("abc").returncode == 1


def test_five_wrong_passwords_lock_the_user(fresh: Grafana) -> None:
    fresh.start()
    for _ in range(5):
        assert fresh.ask("/api/org", auth="chief:wrong").status == 401
    assert fresh.ask("/api/org").status == 401


def test_anonymous_access_can_be_allowed(fresh: Grafana) -> None:
    fresh.configure("[auth.anonymous]\nenabled = true\n")
    fresh.start()
    assert fresh.ask("/api/org", auth=None).status == 200
    assert fresh.ask("/api/datasources", auth=None).status == 200
    assert fresh.ask("/api/user", auth=None).status == 401
    assert fresh.ask("/api/admin/settings", auth=None).status == 403


# --- Sign-in and plain answers ---


def test_health_needs_no_user(grafana: Grafana) -> None:
    answer = grafana.ask("/api/health", auth=None)
    assert answer.status == 200
    assert answer.json["database"] == "ok"
    assert set(answer.json) == {"database", "version", "commit"}
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"


def test_metrics_need_no_user(grafana: Grafana) -> None:
    grafana.ask("/metrics", auth=None)
    text = grafana.ask("/metrics", auth=None).text
    assert "grafana_build_info{" in text
    assert re.search(r'^grafana_http_request_duration_seconds_count\{.*status_code="200".*\} [1-9]', text, re.MULTILINE)


@pytest.mark.parametrize("path", ["/api/org", "/api/datasources", "/api/none"])
def test_nobody_is_refused(grafana: Grafana, path: str) -> None:
    answer = grafana.ask(path, auth=None)
    assert answer.status == 401
    assert answer.json == {
        "extra": None,
        "message": "Unauthorized",
        "messageId": "auth.unauthorized",
        "statusCode": 401,
        "traceID": "",
    }


def test_wrong_password_is_refused(grafana: Grafana) -> None:
    answer = grafana.ask("/api/org", auth="chief:wrong")
    assert answer.status == 401
    assert answer.json == {
        "extra": None,
        "message": "Invalid username or password",
        "messageId": "password-auth.failed",
        "statusCode": 401,
        "traceID": "",
    }


def test_org(grafana: Grafana) -> None:
    answer = grafana.ask("/api/org")
    assert answer.json["name"] == "Main Org."
    assert set(answer.json) == {"id", "name", "address"}


def test_user(grafana: Grafana) -> None:
    user = grafana.ask("/api/user").json
    assert (user["login"], user["email"], user["orgId"], user["isGrafanaAdmin"]) == (
        "chief",
        "admin@localhost",
        1,
        True,
    )


def test_settings_hide_secrets(grafana: Grafana) -> None:
    answer = grafana.ask("/api/admin/settings").json
    assert answer["security"]["admin_user"] == "chief"
    assert answer["security"]["admin_password"] == "*********"
    assert answer["security"]["secret_key"] == "*********"
    assert answer["users"]["allow_sign_up"] == "false"
    assert answer["auth.anonymous"]["enabled"] == "false"


def test_sign_up_is_off(grafana: Grafana) -> None:
    answer = grafana.ask("/api/user/signup", auth=None, body={"email": "a@example.org"})
    assert (answer.status, answer.json) == (401, {"message": "User signup is disabled"})


def test_login_page_is_html(grafana: Grafana) -> None:
    answer = grafana.ask("/login", auth=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")


def test_pages_lead_to_the_login(grafana: Grafana) -> None:
    answer = grafana.ask("/explore", auth=None)
    assert answer.status == 302
    assert answer.headers["Location"].startswith("/login")


def test_unknown_path(grafana: Grafana) -> None:
    answer = grafana.ask("/api/none")
    assert (answer.status, answer.json) == (404, {"message": "Not found"})


def test_security_headers(grafana: Grafana) -> None:
    headers = grafana.ask("/api/org").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "deny"
    assert headers["Cache-Control"] == "no-store"


# --- Accounts ---


def test_the_organizations_name_and_preferences_can_be_changed(fresh: Grafana) -> None:
    fresh.start()
    assert fresh.ask("/api/org", body={"name": "Shop"}, method="PUT").status == 200
    assert fresh.ask("/api/org").json["name"] == "Shop"
    assert fresh.ask("/api/org/preferences").json.get("timezone", "") == ""
    for changed in ({"timezone": "utc", "weekStart": "monday"}, {"theme": "light"}):
        assert fresh.ask("/api/org/preferences", body=changed, method="PATCH").status == 200
    found = fresh.ask("/api/org/preferences").json
    assert (found["timezone"], found["weekStart"], found["theme"]) == ("utc", "monday", "light")


def test_a_users_account(fresh: Grafana) -> None:
    fresh.start()
    assert fresh.ask("/api/users/lookup?loginOrEmail=ada").status == 404
    ada = {"login": "ada", "email": "ada@example.org", "name": "Ada", "password": "one password"}
    made = fresh.ask("/api/admin/users", body=ada)
    assert made.status == 200
    ident = made.json["id"]
    assert fresh.ask("/api/admin/users", body=ada).status == 412
    found = fresh.ask("/api/users/lookup?loginOrEmail=ada").json
    assert {key: found[key] for key in ("id", "login", "email", "name", "isDisabled", "isExternal")} == {
        "id": ident,
        "login": "ada",
        "email": "ada@example.org",
        "name": "Ada",
        "isDisabled": False,
        "isExternal": False,
    }
    assert [(it["orgId"], it["role"]) for it in fresh.ask(f"/api/users/{ident}/orgs").json] == [(1, "Viewer")]
    log_in = "ada:one password"
    assert fresh.ask("/api/org", auth=log_in).status == 200
    assert fresh.ask("/api/org", auth=log_in, body={"name": "Hers"}, method="PUT").status == 403
    assert fresh.ask("/api/admin/settings", auth=log_in).status == 403

    assert fresh.ask(f"/api/org/users/{ident}", body={"role": "Editor"}, method="PATCH").status == 200
    assert fresh.ask(f"/api/users/{ident}/orgs").json[0]["role"] == "Editor"
    changed = {"login": "ada", "email": "countess@example.org", "name": "Countess"}
    assert fresh.ask(f"/api/users/{ident}", body=changed, method="PUT").status == 200
    assert fresh.ask("/api/users/lookup?loginOrEmail=countess@example.org").json["name"] == "Countess"
    path = f"/api/admin/users/{ident}/password"
    assert fresh.ask(path, body={"password": "two passwords"}, method="PUT").status == 200
    assert fresh.ask("/api/org", auth=log_in).status == 401
    log_in = "ada:two passwords"
    assert fresh.ask("/api/org", auth=log_in).status == 200
    assert fresh.ask(f"/api/admin/users/{ident}/disable", body={}).status == 200
    assert fresh.ask("/api/org", auth=log_in).status == 401
    assert fresh.ask("/api/users/lookup?loginOrEmail=ada").json["isDisabled"] is True
    assert fresh.ask(f"/api/admin/users/{ident}/enable", body={}).status == 200
    assert fresh.ask("/api/org", auth=log_in).status == 200


def test_a_service_account_and_its_tokens(fresh: Grafana) -> None:
    fresh.start()
    made = fresh.ask("/api/serviceaccounts", body={"name": "ci", "role": "Viewer", "isDisabled": False})
    assert made.status == 201
    account = f"/api/serviceaccounts/{made.json['id']}"
    (found,) = fresh.ask("/api/serviceaccounts/search?perpage=1000").json["serviceAccounts"]
    assert (found["name"], found["role"], found["isDisabled"]) == ("ci", "Viewer", False)
    token = fresh.ask(f"{account}/tokens", body={"name": "first"}).json

    def lets_in() -> int:
        return fresh.ask("/api/org", auth=None, bearer=token["key"]).status

    assert lets_in() == 200
    assert [(it["id"], it["name"]) for it in fresh.ask(f"{account}/tokens").json] == [(token["id"], "first")]
    assert fresh.ask(account, body={"role": "Editor", "isDisabled": True}, method="PATCH").status == 200
    (found,) = fresh.ask("/api/serviceaccounts/search?perpage=1000").json["serviceAccounts"]
    assert (found["role"], found["isDisabled"]) == ("Editor", True)
    assert lets_in() == 401
    assert fresh.ask(account, body={"isDisabled": False}, method="PATCH").status == 200
    assert lets_in() == 200
    assert fresh.ask(f"{account}/tokens/{token['id']}", method="DELETE").status == 200
    assert lets_in() == 401


# --- Datasources ---


def test_datasources_are_provisioned(grafana: Grafana) -> None:
    listed = grafana.ask("/api/datasources").json
    assert [(item["name"], item["uid"]) for item in listed] == [("Gone Loki", "PD280B3270021A4D2"), ("Loki", "loki")]
    loki = listed[1]
    assert (loki["type"], loki["typeName"], loki["access"], loki["url"]) == ("loki", "Loki", "proxy", grafana.loki)
    assert loki["isDefault"]
    assert loki["readOnly"]


def test_one_datasource(grafana: Grafana) -> None:
    answer = grafana.ask("/api/datasources/uid/loki").json
    assert answer["jsonData"]["derivedFields"][0]["url"] == "/d/trace?var-trace_id=${__value.raw}"
    assert answer["jsonData"]["maxLines"] == 1000
    assert answer["secureJsonFields"] == {"basicAuthPassword": True, "httpHeaderValue1": True}
    assert "secureJsonData" not in answer


def test_unknown_datasource(grafana: Grafana) -> None:
    answer = grafana.ask("/api/datasources/uid/none")
    assert (answer.status, answer.json["message"]) == (404, "Data source not found")


def test_datasource_health_asks_loki(grafana: Grafana) -> None:
    answer = grafana.ask("/api/datasources/uid/loki/health")
    assert (answer.status, answer.json) == (200, {"message": "Data source successfully connected.", "status": "OK"})
    path, params, headers = FakeLoki.seen[-1]
    assert (path, params["query"]) == ("/loki/api/v1/query", ["vector(1)+vector(1)"])
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"reader:tell $nobody").decode()
    assert headers["X-Scope-Orgid"] == "tenant"


def test_datasource_health_without_loki(grafana: Grafana) -> None:
    uid = grafana.ask("/api/datasources").json[0]["uid"]
    answer = grafana.ask(f"/api/datasources/uid/{uid}/health")
    message = "Unable to connect with Loki. Please check the server logs for more details."
    assert (answer.status, answer.json) == (400, {"message": message, "status": "ERROR"})


def test_proxy_forwards(grafana: Grafana) -> None:
    answer = grafana.ask("/api/datasources/proxy/uid/loki/ready?a=b%20c")
    assert (answer.status, answer.text) == (200, "ready\n")
    assert FakeLoki.seen[-1][1] == {"a": ["b c"]}
    answer = grafana.ask("/api/datasources/proxy/uid/loki/secret")
    assert (answer.status, answer.text) == (400, "Authentication to data source failed")


def test_proxy_without_loki(grafana: Grafana) -> None:
    uid = grafana.ask("/api/datasources").json[0]["uid"]
    assert grafana.ask(f"/api/datasources/proxy/uid/{uid}/ready").status == 502


def test_proxy_of_unknown_datasource(grafana: Grafana) -> None:
    assert grafana.ask("/api/datasources/proxy/uid/none/ready").status == 404


# --- Queries ---


def columns(frame: dict[str, Any]) -> dict[str, list[Any]]:
    names = [field["name"] for field in frame["schema"]["fields"]]
    return dict(zip(names, frame["data"]["values"]))


def test_log_lines(grafana: Grafana) -> None:
    answer = grafana.query('{app="x"}', "range", maxLines=50)
    assert answer.status == 200
    result = answer.json["results"]["A"]
    assert result["status"] == 200
    (frame,) = result["frames"]
    assert frame["schema"]["refId"] == "A"
    assert frame["schema"]["meta"]["custom"] == {"frameType": "LabeledTimeValues"}
    assert frame["schema"]["meta"]["executedQueryString"] == 'Expr: {app="x"}'
    assert [field["name"] for field in frame["schema"]["fields"]] == [
        "labels",
        "Time",
        "Line",
        "tsNs",
        "labelTypes",
        "id",
    ]
    assert frame["data"]["nanos"][1] == [456789, 0]
    found = columns(frame)
    assert found["labels"] == [{"app": "x"}, {"app": "x", "trace_id": "abc"}]
    assert found["labelTypes"] == [{"app": "I"}, {"app": "I", "trace_id": "S"}]
    assert found["Time"] == [1700000000123, 1700000000000]
    assert found["Line"] == ["hello", "world"]
    assert found["tsNs"] == ["1700000000123456789", "1700000000000000000"]
    assert len(set(found["id"])) == 2
    path, params, _ = FakeLoki.seen[-1]
    assert path == "/loki/api/v1/query_range"
    assert (params["limit"], params["direction"]) == (["50"], ["backward"])
    assert (params["start"], params["end"]) == (["1700000000000000000"], ["1700000060000000000"])


def test_no_log_lines(grafana: Grafana) -> None:
    (frame,) = grafana.query('{app="none"}', "range").json["results"]["A"]["frames"]
    assert [len(column) for column in frame["data"]["values"]] == [0] * len(frame["schema"]["fields"])


def test_instant_metric(grafana: Grafana) -> None:
    (frame,) = grafana.query("sum by (level) (count_over_time({app=~`.+`}[1h]))", "instant").json["results"]["A"][
        "frames"
    ]
    assert columns(frame) == {"Time": [1700000000000], "Value": [42]}
    assert frame["schema"]["meta"]["type"] == "numeric-multi"
    value = frame["schema"]["fields"][1]
    assert value["labels"] == {"level": "error"}
    assert value["config"] == {"displayNameFromDS": '{level="error"}'}


def test_range_metric(grafana: Grafana) -> None:
    (frame,) = grafana.query("sum by (app) (rate({app=~`.+`}[1m]))", "range").json["results"]["A"]["frames"]
    assert columns(frame) == {"Time": [1700000000000, 1700000060000], "Value": [1, 2.5]}
    assert frame["schema"]["meta"]["type"] == "timeseries-multi"


def test_relative_times(grafana: Grafana) -> None:
    query = {"refId": "A", "datasource": {"uid": "loki"}, "expr": '{app="x"}', "queryType": "range"}
    grafana.ask("/api/ds/query", body={"queries": [query], "from": "now-1h", "to": "now"})
    _, params, _ = FakeLoki.seen[-1]
    assert (int(params["end"][0]) - int(params["start"][0])) // 10**9 in {3599, 3600}


def test_query_that_loki_refuses(grafana: Grafana) -> None:
    answer = grafana.query("broken", "range")
    assert answer.status == 400
    result = answer.json["results"]["A"]
    assert (result["error"], result["status"]) == ("parse error at line 1", 500)


def test_query_without_loki(grafana: Grafana) -> None:
    uid = grafana.ask("/api/datasources").json[0]["uid"]
    answer = grafana.query('{app="x"}', "range", uid)
    assert answer.status == 400
    assert "127.0.0.1:1" in answer.json["results"]["A"]["error"]


def test_query_of_unknown_datasource(grafana: Grafana) -> None:
    answer = grafana.query('{app="x"}', "range", "none")
    assert (answer.status, answer.json["message"]) == (404, "Data source not found")


# --- Provisioning of datasources ---


def test_datasources_that_left_the_files_are_pruned(fresh: Grafana) -> None:
    fresh.datasources(DATASOURCES)
    fresh.datasources(
        "apiVersion: 1\ndatasources:\n- {name: Kept, type: loki, url: 'http://127.0.0.1:1'}\n", "kept.yaml"
    )
    fresh.start()
    assert [item["name"] for item in fresh.ask("/api/datasources").json] == ["Gone Loki", "Kept", "Loki"]
    fresh.datasources(DATASOURCES.partition("- name: Gone")[0])
    (fresh.etc / "provisioning/datasources/kept.yaml").unlink()

    def reloaded() -> list[str]:
        answer = fresh.ask("/api/admin/provisioning/datasources/reload", method="POST")
        assert (answer.status, answer.json) == (200, {"message": "Datasources config reloaded"})
        return [item["name"] for item in fresh.ask("/api/datasources").json]

    wait_for(lambda: reloaded() == ["Kept", "Loki"])  # a reload soon after the start can be without effect


TWO = """
apiVersion: 1
datasources:
- {{name: A, uid: a, type: loki, url: 'http://127.0.0.1:1', isDefault: {}}}
- {{name: B, uid: {}, type: loki, url: 'http://127.0.0.1:1', isDefault: {}}}
"""


@pytest.mark.parametrize(
    "content",
    [
        "datasources: [",
        "apiVersion: 1\ndatasources: text\n",
        "apiVersion: 1\napiVersion: 1\n",
        TWO.format("yes", "b", "false"),
        TWO.format("true", "b", "true"),
        TWO.format("false", "a", "false"),
    ],
    ids=["not YAML", "not a list", "a key twice", "not a boolean", "two defaults", "an uid twice"],
)
def test_bad_datasource_files_stop_the_start(fresh: Grafana, content: str) -> None:
    fresh.datasources(content)
    assert fresh.launch().wait(START_TIMEOUT) == 1
    assert "Datasource provisioning error: " in fresh.log


# --- Dashboards ---


def test_dashboard(grafana: Grafana) -> None:
    answer = grafana.ask("/api/dashboards/uid/all-logs").json
    assert answer["dashboard"]["title"] == "All logs!"
    assert answer["dashboard"]["uid"] == "all-logs"
    meta = answer["meta"]
    assert (meta["slug"], meta["url"], meta["folderTitle"]) == ("all-logs", "/d/all-logs/all-logs", "Team A")
    assert (meta["provisioned"], meta["provisionedExternalId"]) == (True, "Team A/logs.json")


def test_unknown_dashboard(grafana: Grafana) -> None:
    answer = grafana.ask("/api/dashboards/uid/none")
    assert (answer.status, answer.json["message"]) == (404, "Dashboard not found")


def test_search(grafana: Grafana) -> None:
    found = {item["title"]: item for item in grafana.ask("/api/search").json}
    assert set(found) == {"All logs!", "At the top", "Team A"}
    assert found["Team A"]["type"] == "dash-folder"
    assert found["All logs!"]["type"] == "dash-db"
    assert found["All logs!"]["tags"] == ["logstead"]
    assert found["All logs!"]["folderUid"] == found["Team A"]["uid"]
    assert "folderUid" not in found["At the top"]
    assert [item["uid"] for item in grafana.ask("/api/search?type=dash-db&query=" + quote("all l")).json] == [
        "all-logs"
    ]
    assert [item["uid"] for item in grafana.ask("/api/search?dashboardUIDs=top").json] == ["top"]


def test_search_in_a_folder(grafana: Grafana) -> None:
    (folder,) = [it for it in grafana.ask("/api/folders").json if it["title"] == "Team A"]
    assert [it["uid"] for it in grafana.ask(f"/api/search?folderUIDs={folder['uid']}").json] == ["all-logs"]


FOLDERS = """
apiVersion: 1
providers:
- {{name: a, folder: First folder, folderUid: first, options: {{path: {etc}/first}}}}
- {{name: b, folder: Second folder, folderUid: second, options: {{path: {etc}/second}}}}
"""


def test_a_folder_with_an_uid_of_its_own_stays_until_it_is_deleted(fresh: Grafana) -> None:
    providers = fresh.etc / "provisioning/dashboards/files.yaml"
    for name in ("first", "second"):
        (fresh.etc / name).mkdir()
        (fresh.etc / name / "one.json").write_text(json.dumps({"uid": f"in-{name}", "title": f"In {name}"}))
    providers.write_text(FOLDERS.format(etc=fresh.etc))
    fresh.start()
    wait_for(lambda: fresh.ask("/api/dashboards/uid/in-second").status == 200, START_TIMEOUT)
    assert fresh.ask("/api/dashboards/uid/in-second").json["meta"]["folderUid"] == "second"
    assert {(it["uid"], it["title"]) for it in fresh.ask("/api/folders").json} == {
        ("first", "First folder"),
        ("second", "Second folder"),
    }
    fresh.stop()
    providers.write_text(FOLDERS.format(etc=fresh.etc).replace("- {name: b", "# "))
    fresh.start()
    wait_for(lambda: fresh.ask("/api/dashboards/uid/in-second").status == 404, START_TIMEOUT)
    wait_for(lambda: fresh.ask("/api/search?folderUIDs=second").json == [], START_TIMEOUT)
    assert [it["uid"] for it in fresh.ask("/api/folders").json] == ["first", "second"]
    assert fresh.ask("/api/folders/second", method="DELETE").status == 200
    assert [it["uid"] for it in fresh.ask("/api/folders").json] == ["first"]
    assert fresh.ask("/api/folders/second", method="DELETE").status == 404


def test_dashboards_follow_their_files(fresh: Grafana) -> None:
    (fresh.etc / "provisioning/dashboards/files.yaml").write_text(PROVIDER.format(etc=fresh.etc))
    file = fresh.etc / "dashboards/one.json"
    file.write_text('{"uid": "one", "title": "First"}')
    path = "/api/dashboards/uid/one"
    assert fresh.start().ask(path).json["dashboard"]["title"] == "First"
    file.write_text('{"uid": "one", "title": "Second"}')
    wait_for(lambda: fresh.ask(path).json["dashboard"]["title"] == "Second")
    assert fresh.ask(path).json["meta"]["version"] == 2
    file.unlink()
    answer = fresh.ask("/api/admin/provisioning/dashboards/reload", method="POST")
    assert answer.json == {"message": "Dashboards config reloaded"}
    assert fresh.ask(path).status == 404


def test_dashboard_files_may_come_later(fresh: Grafana) -> None:
    (fresh.etc / "provisioning/dashboards/files.yaml").write_text(PROVIDER.format(etc=fresh.etc / "later"))
    assert fresh.start().ask("/api/search").json == []
    (fresh.etc / "later/dashboards").mkdir(parents=True)
    (fresh.etc / "later/dashboards/one.json").write_text('{"uid": "one", "title": "First"}')
    wait_for(lambda: fresh.ask("/api/dashboards/uid/one").status == 200)


def test_bad_dashboard_provider_stops_the_start(fresh: Grafana) -> None:
    (fresh.etc / "provisioning/dashboards/files.yaml").write_text(
        "apiVersion: 1\nproviders: [{name: a, options: {}}]\n"
    )
    assert fresh.launch().wait(START_TIMEOUT) == 1


# --- Alerts ---

ERRORS = {
    "source": "loki",
    "expr": "sum by (job) (rate({x=~`.+`}[5m]))",
    "above": 0.1,
    "for": "90m",
    "severity": "critical",
    "summary": "{job} writes {value:percentage}",
}
NIGHTS = [{"times": [{"start_time": "22:00", "end_time": "24:00"}], "weekdays": ["monday:friday"]}]
ALL: dict[str, Any] = {
    "name": "all",
    "webhook": {"url": "http://127.0.0.1:1/a", "token": "a-token"},
    "slack": {"url": "http://127.0.0.1:1/b", "channel": "#b"},
    "pagerduty": {"routing_key": "a-key", "url": "http://127.0.0.1:1/c"},
}
TOLD: dict[str, Any] = {
    "receivers": [{"name": "ops", "email": ["ops@example.org", "ada@example.org"]}, ALL],
    "routes": [
        {"receiver": "all", "match": {"severity": ["critical", "warning"], "job": "a-b"}, "continue": True},
        {"receiver": "ops", "match": {"severity": "info"}, "mute": ["nights"]},
    ],
    "mute_times": {"nights": NIGHTS},
    "smtp": {"host": "127.0.0.1:1", "from": "a@example.org"},
}
NOBODY: dict[str, Any] = {"receivers": [], "routes": [], "mute_times": {}, "smtp": {}}


def have_alerts(grafana: Grafana, rules: dict[str, Any], told: dict[str, Any] = TOLD) -> list[str]:
    """Have Grafana's alerts as the role does; return what was done."""
    client = Client(f"http://127.0.0.1:{grafana.port}", "chief", PASSWORD, check_mode=False)
    converge_alerting(client, grafana_alerting(rules, told, {"group_wait": "90s"}, ["loki"]))
    return list(client.done)


def rules_of(grafana: Grafana) -> dict[str, str]:
    """Return the rules that there are, each with its group."""
    return {it["title"]: it["ruleGroup"] for it in grafana.ask("/api/v1/provisioning/alert-rules").json}


@pytest.fixture
def alerted(fresh: Grafana) -> Grafana:
    """A Grafana with two rules and all kinds of receivers."""
    fresh.datasources(DATASOURCES)
    fresh.start()
    have_alerts(fresh, {"Errors": ERRORS, "Silence": {**ERRORS, "interval": "5m"}})
    return fresh


def test_alerts_are_found_as_they_were_made(alerted: Grafana) -> None:
    assert rules_of(alerted) == {"Errors": "logstead-1m", "Silence": "logstead-5m"}
    assert have_alerts(alerted, {"Errors": ERRORS, "Silence": {**ERRORS, "interval": "5m"}}) == []
    policy = alerted.ask("/api/v1/provisioning/policies").json
    assert (policy["receiver"], policy["group_wait"], policy["provenance"]) == ("ops", "1m30s", "api")


def test_only_what_is_changed_of_alerts_is_set_and_what_is_retired_goes(alerted: Grafana) -> None:
    assert have_alerts(alerted, {"Errors": {**ERRORS, "above": 0.2}}) == [
        "set the rules Errors",
        "removed the rule Silence",
    ]
    assert rules_of(alerted) == {"Errors": "logstead-1m"}
    changed = {**ERRORS, "above": 0.2, "interval": "5m"}
    assert have_alerts(alerted, {"Errors": changed}) == ["set the rules Errors"]
    assert rules_of(alerted) == {"Errors": "logstead-5m"}
    without_token = {**ALL, "webhook": {"url": "http://127.0.0.1:1/a"}}
    fewer = {**TOLD, "receivers": [without_token], "routes": [], "mute_times": {}}
    assert have_alerts(alerted, {"Errors": changed}, fewer) == [
        "changed the contact point all (webhook)",
        "set the notification policy",
        "removed the contact point ops",
        "removed the times logstead-nights",
    ]
    exported = alerted.ask("/api/v1/provisioning/contact-points/export?decrypt=true&format=json").text
    assert "a-key" in exported
    assert "a-token" not in exported
    have_alerts(alerted, {"Errors": changed}, NOBODY)
    assert have_alerts(alerted, {"Errors": changed}, NOBODY) == []


def test_without_rules_nothing_of_alerts_is_left(alerted: Grafana) -> None:
    have_alerts(alerted, {})
    assert rules_of(alerted) == {}
    assert alerted.ask("/api/v1/provisioning/policies").json["receiver"] == "grafana-default-email"
    assert "logstead" not in alerted.ask("/api/v1/provisioning/contact-points/export?format=json").text
    assert alerted.ask("/api/v1/provisioning/mute-timings").json == []
    assert alerted.ask("/api/v1/provisioning/templates").json in (None, [])
    assert "logstead-alerts" not in alerted.ask("/api/folders").text


def test_a_query_or_a_contact_point_that_is_refused_leaves_what_is_there(alerted: Grafana) -> None:
    before = [alerted.ask(f"/api/v1/provisioning/{kind}").text for kind in ("alert-rules", "policies", "mute-timings")]
    with pytest.raises(GrafanaError, match=r"the rule Bad is refused by loki: .*parse error at line 1"):
        have_alerts(alerted, {"Bad": {**ERRORS, "expr": "sum(broken("}})
    bad = {"name": "bad", "pagerduty": {"routing_key": "a-key", "url": "http://127.0.0.1:1/c"}}
    wanted = grafana_alerting({"Errors": ERRORS}, {**TOLD, "receivers": [bad], "routes": []}, {}, ["loki"])
    wanted["contact_points"][0]["secrets"] = {}
    with pytest.raises(GrafanaError, match=r"Grafana answers 400 .*the contact point bad"):
        converge_alerting(Client(f"http://127.0.0.1:{alerted.port}", "chief", PASSWORD, check_mode=False), wanted)
    after = [alerted.ask(f"/api/v1/provisioning/{kind}").text for kind in ("alert-rules", "policies", "mute-timings")]
    assert after == before


def test_a_folder_with_rules_is_not_deleted_and_references_are_kept(alerted: Grafana) -> None:
    assert alerted.ask("/api/folders/logstead-alerts", method="DELETE").status == 400
    points = "/api/v1/provisioning/contact-points"
    assert alerted.ask(f"{points}/logstead-ops-email", method="DELETE").status == 409
    assert alerted.ask("/api/v1/provisioning/mute-timings/logstead-nights", method="DELETE").status == 409
    missing = alerted.ask("/api/v1/provisioning/policies", body={"receiver": "none"}, method="PUT")
    assert (missing.status, "does not exist" in missing.text) == (400, True)
    group = {"title": "x", "folderUid": "logstead-alerts", "interval": 15, "rules": []}
    path = "/api/v1/provisioning/folder/logstead-alerts/rule-groups/x"
    assert alerted.ask(path, body=group, method="PUT").status == 400
