#!/usr/bin/env python3
"""A stand-in for Grafana, for tests on machines that cannot download the real one. Never deploy it.

It answers as Grafana 12 does for what this platform uses: its command line, its ini files, the provisioning of
datasources and dashboards, sign-in, accounts, and queries that really ask Loki and Prometheus. It keeps alert rules and
who is told of them, as the API for that does, but evaluates none. It says everywhere that it is a stand-in.
Beside it in the archive (build.py): ../conf/defaults.ini, ../VERSION, and PyYAML in ../lib.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import mmap
import os
import re
import secrets
import signal
import socket
import sqlite3
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, ClassVar, NoReturn, TextIO
from urllib.parse import parse_qs, quote, unquote, urlsplit

HOME = Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True  # the archive belongs to root and stays as it was unpacked
sys.path.insert(0, str(HOME / "lib"))

import yaml  # noqa: E402 (it is in the archive's lib)

Json = dict[str, Any]
Ini = dict[str, dict[str, str]]

SCHEMA = """
create table if not exists user (
    id integer primary key, login text unique, salt text, password text, created text, name text default '',
    email text unique, role text default 'Admin', is_admin int default 0, is_disabled int default 0);
create table if not exists service_account (
    id integer primary key, name text unique, role text, is_disabled int default 0);
create table if not exists token (id integer primary key, account int, name text, hash text unique);
create table if not exists setting (name text primary key, value text);
create table if not exists login_attempt (username text, created real);
create table if not exists data_source (
    id integer primary key, name text unique, uid text unique, prunable int, model text);
create table if not exists dashboard (
    id integer primary key, uid text unique, title text, is_folder int, folder_uid text, data text, version int,
    created text, updated text, provider text, external_id text, check_sum text);
create table if not exists alerting (kind text, name text, model text, primary key (kind, name));
"""


class StartError(Exception):
    """Grafana does not start with this, or its command line ends with it."""


class Answer(Exception):  # noqa: N818 (raised, it ends the work on a request, whether that went well or not)
    """An answer that is more than JSON with status 200."""

    def __init__(self, status: int, body: object, kind: str = "application/json", **headers: str) -> None:
        super().__init__(status, body)
        self.status, self.body, self.kind = status, body, kind
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


# --- Log -------------------------------------------------------------------------------------------------------------


class Log:
    """Writes Grafana's logfmt lines."""

    def __init__(self) -> None:
        self.files: list[TextIO] = [sys.stdout]

    def __call__(self, logger: str, level: str, msg: str, **context: object) -> None:
        """Write one line."""
        stamp = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        fields = {"logger": logger, "t": stamp, "level": level, "msg": msg, **context}
        line = " ".join(f"{key}={self.value(str(value))}" for key, value in fields.items())
        for file in self.files:
            print(line, file=file, flush=True)

    @staticmethod
    def value(text: str) -> str:
        """Quote a value that needs it."""
        return json.dumps(text, ensure_ascii=False) if re.search(r'[\s="]', text) or not text else text


LOG = Log()


def now() -> str:
    """Return the time as Grafana's answers show it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- Settings --------------------------------------------------------------------------------------------------------


def expand(text: str) -> str:
    """Replace ${NAME}, $__env{NAME} and $__file{/path}, in ini values as in provisioning files."""

    def file_content(match: re.Match[str]) -> str:
        try:
            return Path(match[1]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise StartError(f"got error while expanding with expander 'file': {error}") from error

    text = re.sub(r"\$(?:__env)?\{([^}]+)\}", lambda match: os.environ.get(match[1], ""), text)
    return re.sub(r"\$__file\{([^}]+)\}", file_content, text)


def read_ini(path: Path) -> Ini:
    """Read an ini file by the rules of the library that Grafana uses."""
    ini: Ini = {"DEFAULT": {}}
    section = ini["DEFAULT"]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StartError(f'failed to parse "{path}": {error}') from error
    for line in map(str.strip, lines):
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            section = ini.setdefault(line[1:].partition("]")[0].strip(), {})
            continue
        parts = re.match(r"([^=:]+?)\s*[=:]\s*(.*)", line)
        if not parts:
            raise StartError(f'failed to parse "{path}": key-value delimiter not found: {line}')
        quoted = re.match(r'("""|`|"|\')(.*)\1', parts[2])
        section[parts[1]] = quoted[2] if quoted else re.split(r"\s*[#;]", parts[2])[0]
    return ini


class Settings:
    """The settings in force: defaults, then the file, then the environment, then the command line."""

    def __init__(self, home: Path, config: Path | None, overrides: list[str]) -> None:
        if not (home / "conf/defaults.ini").exists():
            raise StartError(
                "Grafana-server Init Failed: Could not find config defaults, "
                "make sure homepath command line parameter is set or working directory is homepath"
            )
        props = dict(arg[4:].partition("=")[::2] for arg in overrides if arg.startswith("cfg:"))
        self.home = home
        self.ini = read_ini(home / "conf/defaults.ini")
        self._override({key[8:]: value for key, value in props.items() if key.startswith("default.")})
        custom = home / "conf/custom.ini"
        if config or custom.exists():
            for section, values in read_ini(config or custom).items():
                self.ini.setdefault(section, {}).update(values)
        for section, values in self.ini.items():
            for key in values:
                name = re.sub(r"[^A-Z0-9]", "_", f"GF_{section}_{key}".upper())
                values[key] = os.environ.get(name) or values[key]
        self._override(props)
        for values in self.ini.values():
            values.update({key: expand(value) for key, value in values.items()})

    def _override(self, props: dict[str, str]) -> None:
        for dotted, value in props.items():
            section, _, key = dotted.rpartition(".")
            if key in self.ini.get(section, {}):
                self.ini[section][key] = value

    def get(self, section: str, key: str) -> str:
        """Return a value, empty when it is not set."""
        values = self.ini.get(section, {})
        return re.sub(r"%\((\w+)\)s", lambda match: values.get(match[1], ""), values.get(key, ""))

    def flag(self, section: str, key: str) -> bool:
        """Return a value as a boolean."""
        return self.get(section, key).lower() in {"1", "t", "true", "y", "yes", "on"}

    def path(self, key: str) -> Path:
        """Return a path of [paths], relative ones being below the home path."""
        return self.home / self.get("paths", key)

    @property
    def database(self) -> Path:
        """The database's file."""
        return self.path("data") / "grafana.db"


# --- Database --------------------------------------------------------------------------------------------------------


def hashed(password: str, salt: str) -> str:
    """Return the form in which a password is stored."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 10_000).hex()


class Store:
    """The database; its first opening creates the administrator."""

    def __init__(self, settings: Settings) -> None:
        self.file = settings.database
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            self.file.touch(mode=0o640)
        with self.open() as db:
            db.executescript(SCHEMA)
            if not db.execute("select 1 from user").fetchone():
                login = settings.get("security", "admin_user")
                db.execute(
                    "insert into user (id, login, created, email, is_admin) values (1, ?, ?, 'admin@localhost', 1)",
                    (login, now()),
                )
                self.set_password(db, settings.get("security", "admin_password"))
                LOG("sqlstore", "info", "Created default admin", user=login)

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Open a connection for one transaction."""
        with contextlib.closing(sqlite3.connect(self.file, timeout=10)) as db, db:
            db.row_factory = sqlite3.Row
            yield db

    @staticmethod
    def set_password(db: sqlite3.Connection, password: str, ident: int = 1) -> None:
        """Set a user's password, by default the administrator's."""
        salt = secrets.token_hex(8)
        db.execute("update user set salt = ?, password = ? where id = ?", (salt, hashed(password, salt), ident))


# --- Provisioning ----------------------------------------------------------------------------------------------------


class Yaml(yaml.SafeLoader):
    """YAML as Grafana reads it: only true and false are booleans, and a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a mapping with a key that stands twice."""
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise StartError(f'yaml: unmarshal errors: line {line}: mapping key "{key}" already defined')
        return super().construct_mapping(node, deep)


Yaml.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_provisioning(folder: Path, key: str) -> Iterator[tuple[Path, Json]]:
    """Yield each provisioning file of a folder with its content."""
    if not folder.is_dir():
        LOG(f"provisioning.{key}", "error", "can't read provisioning files from directory", path=folder)
        return
    for file in sorted(folder.iterdir()):
        if file.suffix not in {".yaml", ".yml"}:
            continue
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), Loader=Yaml)  # noqa: S506 (it is a SafeLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise StartError(f"yaml: {' '.join(str(error).split())} ({file})") from error
        if not isinstance(content or {}, dict) or not isinstance((content or {}).get(key) or [], list):
            raise StartError(f"yaml: unmarshal errors: cannot unmarshal {file}")
        yield file, content or {}


def interpolated(value: Any) -> Any:
    """Expand the variables in a value of a provisioning file; $$ stands for $."""
    if isinstance(value, dict):
        return {str(key): interpolated(item) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item) for item in value]
    if not isinstance(value, str):
        return value
    plain = (re.sub(r"\$(\w+)", lambda match: os.environ.get(match[1], ""), expand(part)) for part in value.split("$$"))
    return "$".join(plain)


def text_of(value: Any) -> str:
    """Return a scalar of a provisioning file as the text that Grafana reads."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read_datasource(item: Json, prune: bool) -> Json:
    """Return a datasource of a provisioning file as it is stored."""
    model: Json = {key: text_of(item.get(key)) for key in ("name", "uid", "type", "url", "user", "database")}
    model["uid"] = model["uid"] or "P" + hashlib.sha256(model["name"].encode()).hexdigest()[:16].upper()
    model["access"] = "direct" if item.get("access") == "direct" else "proxy"
    model["basicAuthUser"] = text_of(item.get("basicAuthUser"))
    for key in ("basicAuth", "withCredentials", "isDefault", "editable"):
        model[key] = text_of(item.get(key)) == "true"
        if text_of(item.get(key)) not in {"", "true", "false"}:
            raise StartError(f'strconv.ParseBool: parsing "{item[key]}": invalid syntax')
    secrets_of = item.get("secureJsonData") or {}
    return {**model, "jsonData": item.get("jsonData") or {}, "secureJsonData": secrets_of, "prunable": prune}


def provision_datasources(settings: Settings, store: Store) -> None:
    """Make the datasources in the database those of the files."""
    wanted: list[Json] = []
    unwanted: list[str] = []
    for _, content in read_provisioning(settings.path("provisioning") / "datasources", "datasources"):
        unwanted += [text_of(item.get("name")) for item in content.get("deleteDatasources") or []]
        items = interpolated(content.get("datasources") or [])
        wanted += [read_datasource(item, bool(content.get("prune"))) for item in items]
    if sum(model["isDefault"] for model in wanted) > 1:
        message = "Only one datasource per organization can be marked as default"
        raise StartError(f"datasource.yaml config is invalid. {message}")
    names = {model["name"] for model in wanted}
    with store.open() as db:
        unwanted += [row[0] for row in db.execute("select name from data_source where prunable") if row[0] not in names]
        for name in unwanted:
            if db.execute("delete from data_source where name = ?", (name,)).rowcount:
                LOG("provisioning.datasources", "info", "deleted datasource based on configuration", name=name)
        for model in wanted:
            row = (model["uid"], model["prunable"], json.dumps(model), model["name"])
            try:
                if not db.execute("update data_source set uid=?, prunable=?, model=? where name=?", row).rowcount:
                    db.execute("insert into data_source (uid, prunable, model, name) values (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise StartError("data source with the same uid already exists") from error


class Dashboards:
    """The dashboards of the provisioned folders, read again every few seconds."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.store = store
        self.providers: list[Json] = []
        self.lock = threading.Lock()
        for file, content in read_provisioning(settings.path("provisioning") / "dashboards", "providers"):
            for item in interpolated(content.get("providers") or []):
                provider: Json = {"folder": "", "folderUid": "", "updateIntervalSeconds": 10, "options": {}, **item}
                if provider["name"] in {known["name"] for known in self.providers}:
                    raise StartError(f'{file.name} error: dashboard name "{provider["name"]}" is not unique')
                if not isinstance(provider["options"].get("path"), str):
                    raise StartError("failed to load dashboards, path param is not a string")
                self.providers.append(provider)

    def provision(self) -> None:
        """Read every provider's folder once."""
        LOG("provisioning.dashboard", "info", "starting to provision dashboards")
        for provider in self.providers:
            if not Path(provider["options"]["path"]).is_dir():  # the next reading may find it
                LOG("provisioning.dashboard", "warn", "Failed to provision config", name=provider["name"])
                return
            self.read(provider)
        names = [provider["name"] for provider in self.providers]
        with self.store.open() as db:
            for row in db.execute("select id, provider from dashboard where provider is not null").fetchall():
                if row["provider"] not in names:
                    db.execute("delete from dashboard where id = ?", (row["id"],))
        LOG("provisioning.dashboard", "info", "finished to provision dashboards")

    def watch(self) -> None:
        """Read every provider's folder again and again."""
        for provider in self.providers:
            threading.Thread(target=self._poll, args=(provider,), daemon=True).start()

    def _poll(self, provider: Json) -> None:
        while True:
            time.sleep(int(provider["updateIntervalSeconds"] or 10))
            self.read(provider)

    def read(self, provider: Json) -> None:
        """Make a provider's dashboards in the database those of its folder."""
        name, root = provider["name"], Path(provider["options"]["path"])
        if not root.is_dir():
            error = f"stat {root}: no such file or directory"
            LOG("provisioning.dashboard", "error", "failed to search for dashboards", name=name, error=error)
            return
        files = {str(file): file for file in sorted(root.rglob("*.json"))}
        with self.lock, self.store.open() as db:
            for row in db.execute("select id, external_id from dashboard where provider = ?", (name,)).fetchall():
                if row["external_id"] in files:
                    continue
                if provider.get("disableDeletion"):
                    db.execute("update dashboard set provider = null where id = ?", (row["id"],))
                else:
                    db.execute("delete from dashboard where id = ?", (row["id"],))
            for file in files.values():
                self._save(db, provider, root, file)

    @staticmethod
    def _folder(db: sqlite3.Connection, provider: Json, title: str) -> str:
        """Return the uid of a folder, made when it is not there; empty for no folder."""
        known = db.execute("select uid from dashboard where is_folder and title = ?", (title,)).fetchone()
        if known or not title:
            return str(known["uid"]) if known else ""
        uid = str(provider["folderUid"] or secrets.token_hex(7))
        db.execute("insert into dashboard (uid, title, is_folder) values (?, ?, 1)", (uid, title))
        return uid

    def _save(self, db: sqlite3.Connection, provider: Json, root: Path, file: Path) -> None:
        try:
            content = file.read_text(encoding="utf-8")
            model = json.loads(content)
            title = model["title"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOG("provisioning.dashboard", "error", "failed to load dashboard from ", file=file, error=error)
            return
        check_sum = hashlib.sha256(content.encode()).hexdigest()
        old = db.execute("select * from dashboard where external_id = ?", (str(file),)).fetchone()
        if old and old["check_sum"] == check_sum:
            return
        folder = provider["folder"]
        if provider["options"].get("foldersFromFilesStructure"):
            folder = file.parent.name if file.parent != root else ""
        uid = model.get("uid") or (old["uid"] if old else secrets.token_hex(7))
        old = old or db.execute("select * from dashboard where uid = ?", (uid,)).fetchone()
        version = old["version"] + 1 if old else 1
        row = {
            "id": old["id"] if old else None,
            "uid": uid,
            "title": title,
            "is_folder": 0,
            "folder_uid": self._folder(db, provider, folder),
            "data": json.dumps({**model, "uid": uid, "version": version}),
            "version": version,
            "created": old["created"] if old else now(),
            "updated": now(),
            "provider": provider["name"],
            "external_id": str(file),
            "check_sum": check_sum,
        }
        # Only question marks are put in.
        db.execute(f"insert or replace into dashboard values ({', '.join('?' * len(row))})", tuple(row.values()))  # noqa: S608


# --- Datasources and queries -----------------------------------------------------------------------------------------


def opener_of(model: Json) -> urllib.request.OpenerDirector:
    """Return what asks a datasource: it verifies by the datasource's CA, and never uses the environment's proxy."""
    ca = model["secureJsonData"].get("tlsCACert") if model["jsonData"].get("tlsAuthWithCACert") else None
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=ca))
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), https)


def ask(model: Json, path: str, query: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
    """Send a GET request to a datasource, with its credentials; return status, content type and body."""
    secure = model["secureJsonData"]
    headers = dict(headers)
    if model["basicAuth"]:
        pair = f"{model['basicAuthUser']}:{secure.get('basicAuthPassword', '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    for key, name in model["jsonData"].items():
        number = re.fullmatch(r"httpHeaderName(\d+)", key)
        if number:
            headers[name] = str(secure.get(f"httpHeaderValue{number[1]}", ""))
    url = model["url"].rstrip("/") + path + ("?" + query if query else "")
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the url is the datasource's)
    try:
        with opener_of(model).open(request, timeout=300) as answer:
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("Content-Type", ""), error.read()


def point_in_time(text: str) -> int:
    """Return a time of a request (epoch milliseconds, or now-5m) in nanoseconds."""
    relative = re.fullmatch(r"now(?:-(\d+)([smhdw]))?", text)
    if not relative:
        return int(text) * 1_000_000
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    return time.time_ns() - int(relative[1] or 0) * seconds[relative[2] or "s"] * 10**9


def frame(query: Json, meta: Json, fields: list[tuple[Json, list[Any]]], expr: str) -> Json:
    """Return a frame: its columns, each with its description."""
    schema = {
        "refId": query["refId"],
        "meta": {**meta, "executedQueryString": expr},
        "fields": [it for it, _ in fields],
    }
    return {"schema": schema, "data": {"values": [values for _, values in fields]}}


def column(name: str, kind: str, go_type: str, **more: object) -> Json:
    """Describe a column."""
    return {"name": name, "type": kind, "typeInfo": {"frame": go_type}, **more}


def log_frame(query: Json, data: Json, expr: str) -> Json:
    """Return the frame of log lines."""
    rows: list[tuple[Json, int, str, str, Json]] = []
    for stream in data["result"]:
        for stamp, line, *rest in stream["values"]:
            extra = rest[0] if rest else {}
            labels, kinds = dict(stream["stream"]), dict.fromkeys(stream["stream"], "I")
            for part, kind in (("structuredMetadata", "S"), ("parsed", "P")):
                labels.update(extra.get(part, {}))
                kinds.update(dict.fromkeys(extra.get(part, {}), kind))
            rows.append((dict(sorted(labels.items())), int(stamp), line, stamp, kinds))
    fields: list[tuple[Json, list[Any]]] = [
        (column("labels", "other", "json.RawMessage"), [row[0] for row in rows]),
        (column("Time", "time", "time.Time"), [row[1] // 1_000_000 for row in rows]),
        (column("Line", "string", "string"), [row[2] for row in rows]),
        (column("tsNs", "string", "string"), [row[3] for row in rows]),
    ]
    if "categorize-labels" in data.get("encodingFlags", []):
        hidden = {"custom": {"hidden": True}}
        fields.append((column("labelTypes", "other", "json.RawMessage", config=hidden), [row[4] for row in rows]))
    idents = [f"{row[3]}_{zlib.crc32(json.dumps([index, *row]).encode()):x}" for index, row in enumerate(rows)]
    fields.append((column("id", "string", "string"), idents))
    result = frame(query, {"typeVersion": [0, 0], "custom": {"frameType": "LabeledTimeValues"}}, fields, expr)
    nanos = [row[1] % 1_000_000 for row in rows]
    if any(nanos):
        result["data"]["nanos"] = [None, nanos, *[None] * (len(fields) - 2)]
    return result


def number_of(text: str) -> float | None:
    """Return a sample's value, without a fraction when it has none; JSON has no NaN and no infinity."""
    number = float(text)
    if number - number != 0:
        return None
    return int(number) if number.is_integer() else number


def metric_frame(
    query: Json, kind: str, labels: dict[str, str], values: list[list[Any]], expr: str, **time: Any
) -> Json:
    """Return the frame of one series."""
    shown = "{" + ", ".join(f"{key}={json.dumps(labels[key])}" for key in sorted(labels)) + "}"
    value = column("Value", "number", "float64", labels=labels, config={"displayNameFromDS": shown})
    fields: list[tuple[Json, list[Any]]] = [
        (column("Time", "time", "time.Time", **time), [int(float(stamp) * 1000) for stamp, _ in values]),
        (value, [number_of(text) for _, text in values]),
    ]
    return frame(query, {"type": f"{kind}-multi", "typeVersion": [0, 1]}, fields, expr)


def run_query(model: Json, query: Json, start: int, end: int) -> Json:
    """Run one query of Loki or Prometheus, and return its result in Grafana's shape."""
    is_loki = model["type"] == "loki"
    instant = query.get("queryType") == "instant" if is_loki else bool(query.get("instant"))
    step = max(int(query.get("intervalMs") or 1000), -(-(end - start) // 11_000_000_000), 1)
    span = f"{(end - start) // 10**9}s"
    expr = str(query.get("expr", ""))
    # Prometheus is taken to scrape every 15 s, as Grafana takes it to where its settings say nothing else.
    names = {"auto": span if instant else f"{step}ms", "interval": f"{step}ms", "range": span}
    names["rate_interval"] = f"{max(step + 15_000, 60_000)}ms"
    for name, text in names.items():
        expr = expr.replace(f"$__{name}", text).replace(f"${{__{name}}}", text)
    params: Json = {"query": expr}
    if is_loki:
        params["direction"] = query.get("direction") or "backward"
        if query.get("maxLines"):
            params["limit"] = query["maxLines"]
        params.update({"time": end} if instant else {"start": start, "end": end, "step": f"{step}ms"})
    else:
        seconds = {"start": start / 10**9, "end": end / 10**9, "step": step / 1000}
        params.update({"time": end / 10**9} if instant else seconds)
    path = f"{'/loki' if is_loki else ''}/api/v1/query{'' if instant else '_range'}"
    sent = urllib.parse.urlencode(sorted(params.items()))
    try:
        status, _, body = ask(model, path, sent, {"X-Loki-Response-Encoding-Flags": "categorize-labels"})
    except OSError as error:
        reason = getattr(error, "reason", error)
        cause = str(getattr(reason, "strerror", None) or reason).lower()
        message = f'Get "{model["url"]}{path}?{sent}": dial tcp {urlsplit(model["url"]).netloc}: connect: {cause}'
        return {"error": message, "errorSource": "downstream", "status": 502}
    text = body.decode(errors="replace")
    if status // 100 != 2:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            text = json.loads(text)["message" if is_loki else "error"]
        return {"error": text, "errorSource": "downstream", "status": 500 if is_loki else status}
    data = json.loads(text)["data"]
    kind, found = data["resultType"], data["result"]
    expr = f"Expr: {expr}"
    if kind == "streams":
        return {"status": 200, "frames": [log_frame(query, data, expr)]}
    if kind == "matrix":
        expr, config = f"{expr}\nStep: {step / 1000:g}s", {"interval": step}
        frames = [metric_frame(query, "timeseries", it["metric"], it["values"], expr, config=config) for it in found]
    else:
        series = found if kind == "vector" else [{"metric": {}, "value": found}]
        frames = [metric_frame(query, "numeric", it["metric"], [it["value"]], expr) for it in series]
    return {"status": 200, "frames": frames}


# --- HTTP ------------------------------------------------------------------------------------------------------------

PAGE = "<!DOCTYPE html><html><head><title>Grafana</title></head><body>A stand-in, for tests.</body></html>"
HTML = "text/html; charset=UTF-8"
UTF8_JSON = "application/json; charset=UTF-8"
STANDARD_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
    "X-Xss-Protection": "1; mode=block",
    "X-Logstead-Stand-In": "1",
}
Routes = dict[str, Callable[["Request"], object]]


def refused(message: str, ident: str) -> Answer:
    """Return the answer to a request without valid credentials."""
    return Answer(
        401, {"extra": None, "message": message, "messageId": ident, "statusCode": 401, "traceID": ""}, UTF8_JSON
    )


class Grafana:
    """What the server knows, and its answers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = (HOME / "VERSION").read_text(encoding="utf-8").strip()
        LOG("settings", "info", "Starting Grafana", version=self.version, commit="stand-in", branch="stand-in")
        LOG("settings", "warn", "This is a stand-in for Grafana, for tests only", standIn=True)
        self.store = Store(settings)
        self.answered: Counter[int] = Counter()  # requests, by status
        self.dashboards = Dashboards(settings, self.store)
        self.open_routes: Routes = {
            "GET /api/health": self.health,
            "GET /healthz": lambda _: Answer(200, "Ok", "text/plain; charset=utf-8"),
            "GET /metrics": self.metrics,
            "GET /login": lambda _: Answer(200, PAGE, HTML),
            "POST /api/user/signup(/step2)?": self.sign_up,
        }
        self.routes: Routes = {
            "GET /api/org": self.org,
            "PUT /api/org": self.rename_org,
            "GET /api/org/preferences": lambda _: self.preferences(),
            "PATCH /api/org/preferences": self.change_preferences,
            r"PATCH /api/org/users/(\d+)": self.change_role,
            "GET /api/users/lookup": self.lookup,
            r"PUT /api/users/(\d+)": self.change_user,
            r"GET /api/users/(\d+)/orgs": self.orgs_of,
            "POST /api/admin/users": self.make_user,
            r"PUT /api/admin/users/(\d+)/password": self.change_password,
            r"POST /api/admin/users/(\d+)/(enable|disable)": self.enable_user,
            "GET /api/serviceaccounts/search": self.service_accounts,
            "POST /api/serviceaccounts": self.make_service_account,
            r"PATCH /api/serviceaccounts/(\d+)": self.change_service_account,
            r"GET /api/serviceaccounts/(\d+)/tokens": self.tokens,
            r"POST /api/serviceaccounts/(\d+)/tokens": self.make_token,
            r"DELETE /api/serviceaccounts/(\d+)/tokens/(\d+)": self.delete_token,
            "GET /api/user": self.user,
            "GET /api/admin/settings": self.admin_settings,
            "POST /api/admin/provisioning/datasources/reload": self.reload_datasources,
            "POST /api/admin/provisioning/dashboards/reload": self.reload_dashboards,
            "GET /api/datasources": lambda _: [self.listed(*row) for row in self.datasources()],
            "GET /api/datasources/uid/([^/]+)": self.datasource,
            "GET /api/datasources/uid/([^/]+)/health": self.datasource_health,
            "GET /api/datasources/proxy/uid/([^/]+)(/.*)?": self.proxy,
            "POST /api/ds/query": self.query,
            "GET /api/dashboards/uid/([^/]+)": self.dashboard,
            "GET /api/search": self.search,
            "GET /api/folders": self.folders,
            "POST /api/folders": self.make_folder,
            "DELETE /api/folders/([^/]+)": self.delete_folder,
            **Alerting(self.store).routes,
        }

    def provision(self) -> None:
        """Do the work that follows the start of listening; Grafana ends when the datasources' files are wrong."""
        try:
            provision_datasources(self.settings, self.store)
        except StartError as error:
            message = f"Datasource provisioning error: {error}"
            LOG("provisioning", "error", "Failed to provision data sources", error=message)
            raise StartError(f"*provisioning.ProvisioningServiceImpl run error: {message}") from error
        self.dashboards.provision()
        self.dashboards.watch()

    def sign_in(self, authorization: str) -> tuple[str, str, bool]:
        """Return name, role and power over the server of who asks: an empty name when nobody does, which is allowed."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer":
            with self.store.open() as db:
                account = db.execute(
                    "select service_account.* from token join service_account on account = service_account.id "
                    "where hash = ? and not is_disabled",
                    (hashlib.sha256(token.encode()).hexdigest(),),
                ).fetchone()
            if not account:
                raise refused("Invalid API key", "api-key.invalid")
            return f"sa-1-{account['name']}", account["role"], False
        if scheme.lower() != "basic":
            if self.settings.flag("auth.anonymous", "enabled"):
                return "", "Viewer", False
            raise refused("Unauthorized", "auth.unauthorized")
        try:
            name, _, password = base64.b64decode(token).decode().partition(":")
        except ValueError as error:
            raise refused("Invalid username or password", "password-auth.failed") from error
        with self.store.open() as db:
            recent = "select count(*) from login_attempt where username = ? and created > ?"
            tries: int = db.execute(recent, (name.lower(), time.time() - 300)).fetchone()[0]
            if tries < 5 or self.settings.flag("security", "disable_brute_force_login_protection"):
                user = db.execute("select * from user where lower(login) = ?", (name.lower(),)).fetchone()
                if user and hmac.compare_digest(user["password"], hashed(password, user["salt"])):
                    if user["is_disabled"]:
                        raise refused("Invalid username or password", "password-auth.failed")
                    return user["login"], user["role"], bool(user["is_admin"])
                db.execute("insert into login_attempt values (?, ?)", (name.lower(), time.time()))
        raise refused("Invalid username or password", "password-auth.failed")

    def health(self, _: Request) -> Answer:
        """Answer GET /api/health."""
        body = {"database": "ok", "version": self.version, "commit": "stand-in"}
        return Answer(200, json.dumps(body, indent=2), UTF8_JSON)

    def metrics(self, _: Request) -> Answer:
        """Answer GET /metrics."""
        build = f'grafana_build_info{{branch="stand-in",edition="oss",version="{self.version}"}} 1'
        name = "grafana_http_request_duration_seconds_count"
        counts = [f'{name}{{status_code="{status}"}} {count}' for status, count in sorted(self.answered.items())]
        lines = ["# TYPE grafana_build_info gauge", build, f"# TYPE {name} counter", *counts]
        return Answer(200, "\n".join([*lines, ""]), "text/plain; version=0.0.4; charset=utf-8")

    def sign_up(self, _: Request) -> Answer:
        """Answer POST /api/user/signup: the stand-in knows only the case that it is off."""
        if self.settings.flag("users", "allow_sign_up"):
            return Answer(501, {"message": "The stand-in signs nobody up"})
        return Answer(401, {"message": "User signup is disabled"})

    def setting(self, name: str, default: str) -> str:
        """Return a setting of the organization."""
        with self.store.open() as db:
            row = db.execute("select value from setting where name = ?", (name,)).fetchone()
        return str(row["value"]) if row else default

    def set_setting(self, name: str, value: str) -> None:
        """Set a setting of the organization."""
        with self.store.open() as db:
            db.execute("insert or replace into setting values (?, ?)", (name, value))

    def org(self, _: Request) -> Json:
        """Answer GET /api/org."""
        address = dict.fromkeys(("address1", "address2", "city", "zipCode", "state", "country"), "")
        return {"id": 1, "name": self.setting("org", "Main Org."), "address": address}

    def rename_org(self, request: Request) -> Json:
        """Answer PUT /api/org."""
        self.set_setting("org", request.body["name"])
        return {"message": "Organization updated"}

    def preferences(self) -> Json:
        """Answer GET /api/org/preferences."""
        preferences: Json = json.loads(self.setting("preferences", "{}"))
        return preferences

    def change_preferences(self, request: Request) -> Json:
        """Answer PATCH /api/org/preferences."""
        changed = self.preferences() | request.body
        # An empty one is left out.
        self.set_setting("preferences", json.dumps({key: value for key, value in changed.items() if value}))
        return {"message": "Preferences updated"}

    def found_user(self, where: str, value: object) -> Json:
        """Return a user's row."""
        with self.store.open() as db:
            row = db.execute(f"select * from user where {where}", {"value": value}).fetchone()  # noqa: S608
        if not row:
            raise Answer(404, {"message": "user not found", "messageId": "user.not-found"})
        return dict(row)

    @staticmethod
    def shown_user(row: Json) -> Json:
        """Return a user as the API shows it."""
        flags = ("External", "ExternallySynced", "GrafanaAdminExternallySynced", "Provisioned")
        known = {key: row[key] for key in ("id", "login", "email", "name")} | {
            "uid": f"stand-in-{row['id']}",
            "orgId": 1,
        }
        empty = {"theme": "", "authLabels": [], **{f"is{flag}": False for flag in flags}}
        empty["avatarUrl"] = "/public/img/user_profile.png"
        power = {"isDisabled": bool(row["is_disabled"]), "isGrafanaAdmin": bool(row["is_admin"])}
        return {**known, **empty, **power, "createdAt": row["created"], "updatedAt": row["created"]}

    def user(self, request: Request) -> Json:
        """Answer GET /api/user."""
        if not request.user:
            raise Answer(401, {"message": "Unauthorized"}, UTF8_JSON)
        return self.shown_user(self.found_user("login = :value", request.user))

    def lookup(self, request: Request) -> Json:
        """Answer GET /api/users/lookup."""
        wanted = request.params["loginOrEmail"][0]
        return self.shown_user(self.found_user("login = :value or email = :value", wanted))

    def orgs_of(self, request: Request) -> list[Json]:
        """Answer GET /api/users/<id>/orgs."""
        row = self.found_user("id = :value", request.args[0])
        return [{"orgId": 1, "name": self.setting("org", "Main Org."), "role": row["role"]}]

    def rows(self, statement: str, *values: object) -> list[Json]:
        """Ask the database."""
        with self.store.open() as db:
            return [dict(row) for row in db.execute(statement, values)]

    def change(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Change the database."""
        with self.store.open() as db:
            return db.execute(statement, values)

    def make_user(self, request: Request) -> Json:
        """Answer POST /api/admin/users."""
        wanted = request.body
        if len(wanted["password"]) < 4:
            raise Answer(400, {"message": "Password is missing or too short"})
        try:
            made = self.change(
                "insert into user (login, email, name, created, role, salt, password) values (?, ?, ?, ?, ?, '', '')",
                *(wanted["login"], wanted.get("email") or wanted["login"], wanted.get("name", ""), now(), "Viewer"),
            )
        except sqlite3.IntegrityError as error:
            raise Answer(412, {"message": "user already exists"}) from error
        with self.store.open() as db:
            self.store.set_password(db, wanted["password"], int(made.lastrowid or 0))
        return {"id": made.lastrowid, "uid": f"stand-in-{made.lastrowid}", "message": "User created"}

    def change_user(self, request: Request) -> Json:
        """Answer PUT /api/users/<id>."""
        wanted = request.body
        row = self.found_user("id = :value", request.args[0])
        values = (wanted["login"], wanted["email"], wanted.get("name", ""), row["id"])
        self.change("update user set login = ?, email = ?, name = ? where id = ?", *values)
        return {"message": "User updated"}

    def change_role(self, request: Request) -> Json:
        """Answer PATCH /api/org/users/<id>."""
        row = self.found_user("id = :value", request.args[0])
        self.change("update user set role = ? where id = ?", request.body["role"], row["id"])
        return {"message": "Organization user updated"}

    def change_password(self, request: Request) -> Json:
        """Answer PUT /api/admin/users/<id>/password."""
        row = self.found_user("id = :value", request.args[0])
        with self.store.open() as db:
            self.store.set_password(db, request.body["password"], row["id"])
        return {"message": "User password updated"}

    def enable_user(self, request: Request) -> Json:
        """Answer POST /api/admin/users/<id>/enable and …/disable."""
        row = self.found_user("id = :value", request.args[0])
        self.change("update user set is_disabled = ? where id = ?", request.args[1] == "disable", row["id"])
        return {"message": f"User {request.args[1]}d"}

    @staticmethod
    def shown_service_account(row: Json) -> Json:
        """Return a service account as the API shows it."""
        known = {"id": row["id"], "name": row["name"], "login": f"sa-1-{row['name']}", "orgId": 1, "role": row["role"]}
        return {**known, "isDisabled": bool(row["is_disabled"]), "tokens": 0, "avatarUrl": ""}

    def service_accounts(self, _: Request) -> Json:
        """Answer GET /api/serviceaccounts/search."""
        shown = [self.shown_service_account(row) for row in self.rows("select * from service_account")]
        return {"totalCount": len(shown), "serviceAccounts": shown, "page": 1, "perPage": 1000}

    def service_account(self, ident: object) -> Json:
        """Return a service account's row."""
        for row in self.rows("select * from service_account where id = ?", ident):
            return row
        raise Answer(404, {"message": "service account not found"})

    def make_service_account(self, request: Request) -> Answer:
        """Answer POST /api/serviceaccounts."""
        try:
            made = self.change(
                "insert into service_account (name, role) values (?, ?)", request.body["name"], request.body["role"]
            )
        except sqlite3.IntegrityError as error:
            raise Answer(400, {"message": "service account already exists"}) from error
        return Answer(201, self.shown_service_account(self.service_account(made.lastrowid)))

    def change_service_account(self, request: Request) -> Json:
        """Answer PATCH /api/serviceaccounts/<id>."""
        row = self.service_account(request.args[0])
        disabled = request.body.get("isDisabled", bool(row["is_disabled"]))
        values = (request.body.get("role") or row["role"], disabled, row["id"])
        self.change("update service_account set role = ?, is_disabled = ? where id = ?", *values)
        shown = self.shown_service_account(self.service_account(row["id"]))
        return {"id": row["id"], "message": "Service account updated", "name": row["name"], "serviceaccount": shown}

    def tokens(self, request: Request) -> list[Json]:
        """Answer GET /api/serviceaccounts/<id>/tokens."""
        row = self.service_account(request.args[0])
        return self.rows("select id, name from token where account = ?", row["id"])

    def make_token(self, request: Request) -> Json:
        """Answer POST /api/serviceaccounts/<id>/tokens."""
        row, key = self.service_account(request.args[0]), "glsa" + "_" + secrets.token_urlsafe(24)
        digest = hashlib.sha256(key.encode()).hexdigest()
        made = self.change(
            "insert into token (account, name, hash) values (?, ?, ?)", row["id"], request.body["name"], digest
        )
        return {"id": made.lastrowid, "name": request.body["name"], "key": key}

    def delete_token(self, request: Request) -> Json:
        """Answer DELETE /api/serviceaccounts/<id>/tokens/<id>."""
        self.change("delete from token where account = ? and id = ?", *request.args)
        return {"message": "Service account token deleted"}

    def admin_settings(self, _: Request) -> Json:
        """Answer GET /api/admin/settings, without the secrets."""
        secret = re.compile("password|secret|token|private_key", re.IGNORECASE)
        return {
            section: {key: "*********" if value and secret.search(key) else value for key, value in values.items()}
            for section, values in self.settings.ini.items()
        }

    def reload_datasources(self, _: Request) -> Json:
        """Answer POST /api/admin/provisioning/datasources/reload."""
        provision_datasources(self.settings, self.store)
        return {"message": "Datasources config reloaded"}

    def reload_dashboards(self, _: Request) -> Json:
        """Answer POST /api/admin/provisioning/dashboards/reload."""
        self.dashboards.providers = Dashboards(self.settings, self.store).providers
        self.dashboards.provision()
        return {"message": "Dashboards config reloaded"}

    def datasources(self) -> list[tuple[int, Json]]:
        """Return the datasources, sorted by name, each with its id."""
        with self.store.open() as db:
            rows = db.execute("select id, model from data_source order by lower(name)").fetchall()
        return [(row["id"], json.loads(row["model"])) for row in rows]

    def model(self, uid: str, status: int = 404, message: str = "Data source not found") -> tuple[int, Json]:
        """Return the datasource with an uid."""
        for ident, model in self.datasources():
            if model["uid"] == uid:
                return ident, model
        raise Answer(status, {"message": message})

    @staticmethod
    def listed(ident: int, model: Json) -> Json:
        """Return a datasource as the list of them shows it."""
        shown = ("uid", "name", "type", "access", "url", "user", "database", "basicAuth", "isDefault", "jsonData")
        logo = f"public/plugins/{model['type']}/img/{model['type']}_icon.svg"
        more = {"typeName": model["type"].capitalize(), "typeLogoUrl": logo, "readOnly": not model["editable"]}
        return {"id": ident, "orgId": 1, **{key: model[key] for key in shown}, **more}

    def datasource(self, request: Request) -> Json:
        """Answer GET /api/datasources/uid/<uid>."""
        ident, model = self.model(request.args[0])
        shown = self.listed(ident, model)
        del shown["typeName"]
        more = {key: model[key] for key in ("basicAuthUser", "withCredentials")}
        secure = {key: True for key, value in model["secureJsonData"].items() if value}
        return {**shown, **more, "secureJsonFields": secure, "version": 1, "apiVersion": ""}

    def datasource_health(self, request: Request) -> Json:
        """Answer GET /api/datasources/uid/<uid>/health, having asked the datasource."""
        _, model = self.model(request.args[0], 500, "Unable to load datasource metadata")
        query = {"refId": "__healthcheck__", "expr": "vector(1)+vector(1)", "queryType": "instant"}
        result = run_query(model, query, 10**9, 4 * 10**9)
        frames = result.get("frames", [])
        if len(frames) == 1 and frames[0]["data"]["values"][1] == [2.0]:
            return {"message": "Data source successfully connected.", "status": "OK"}
        LOG("tsdb.loki", "error", "Loki health check failed", error=result.get("error", "invalid response"))
        message = "Unable to connect with Loki. Please check the server logs for more details."
        raise Answer(400, {"message": message, "status": "ERROR"})

    def proxy(self, request: Request) -> Answer:
        """Answer GET /api/datasources/proxy/uid/<uid>/<path> with what the datasource answers."""
        _, model = self.model(request.args[0], 404, "Unable to find datasource")
        passed = ("Accept", "User-Agent", "X-Loki-Response-Encoding-Flags")
        headers = {name: request.headers[name] for name in passed if name in request.headers}
        path = quote(request.args[1] or "")
        try:
            status, kind, body = ask(model, path, urlsplit(request.path).query, headers)
        except OSError as error:
            LOG("data-proxy-log", "error", "Proxy request failed", err=error)
            raise Answer(502, b"", "", Cache_Control="") from error
        if status == 401:
            status, kind, body = 400, "text/plain; charset=utf-8", b"Authentication to data source failed"
        return Answer(status, body, kind, Cache_Control="", Content_Security_Policy="sandbox", Via="1.1 grafana")

    def query(self, request: Request) -> Json:
        """Answer POST /api/ds/query."""
        body = request.body if isinstance(request.body, dict) else {}
        if not body.get("queries"):
            raise Answer(400, {"message": "No queries found", "messageId": "query.noQueries", "statusCode": 400})
        start, end = point_in_time(str(body["from"])), point_in_time(str(body["to"]))
        results: Json = {}
        for query in body["queries"]:
            _, model = self.model((query.get("datasource") or {}).get("uid", ""))
            if model["type"] == "loki" and query.get("queryType", "range") not in {"range", "instant"}:
                message = "An error occurred within the plugin"
                raise Answer(500, {"message": message, "messageId": "plugin.requestFailureError", "statusCode": 500})
            results[query.setdefault("refId", "A")] = run_query(model, query, start, end)
        if any("error" in result for result in results.values()):
            raise Answer(400, {"results": results})
        return {"results": results}

    def stored(self, where: str, *values: str) -> list[Json]:
        """Return dashboards and folders, each with its place."""
        with self.store.open() as db:
            rows = [dict(row) for row in db.execute(f"select * from dashboard where {where}", values)]  # noqa: S608
        for row in rows:
            row["slug"] = re.sub(r"[^a-z0-9]+", "-", row["title"].lower()).strip("-")
            row["url"] = f"/{'dashboards/f' if row['is_folder'] else 'd'}/{row['uid']}/{row['slug']}"
        return rows

    def folder(self, row: Json) -> Json:
        """Return what a dashboard shows of its folder."""
        for folder in self.stored("is_folder and uid = ?", row["folder_uid"] or ""):
            shown = {"folderUid": folder["uid"], "folderTitle": folder["title"], "folderUrl": folder["url"]}
            return {"folderId": folder["id"], **shown}
        return {}

    def dashboard(self, request: Request) -> Json:
        """Answer GET /api/dashboards/uid/<uid>."""
        for row in self.stored("uid = ? and not is_folder", request.args[0]):
            none = {"folderId": 0, "folderUid": "", "folderTitle": "General", "folderUrl": ""}
            roots = [item["options"]["path"] for item in self.dashboards.providers if item["name"] == row["provider"]]
            external = os.path.relpath(row["external_id"], roots[0]) if roots else ""
            rights = ("canSave", "canEdit", "canAdmin", "canStar", "canDelete")
            meta = {key: row[key] for key in ("slug", "url", "created", "updated", "version")}
            meta.update(dict.fromkeys(rights, bool(request.user)), **(self.folder(row) or none))
            meta.update(type="db", hasAcl=False, isFolder=False, apiVersion="v0alpha1", expires="0001-01-01T00:00:00Z")
            annotations = dict.fromkeys(("canAdd", "canEdit", "canDelete"), bool(request.user))
            meta["annotationsPermissions"] = {"dashboard": annotations, "organization": annotations}
            meta.update(provisioned=bool(roots), provisionedExternalId=external, updatedBy="Anonymous")
            meta["createdBy"] = "Anonymous"
            return {"meta": meta, "dashboard": {**json.loads(row["data"]), "id": row["id"]}}
        raise Answer(404, {"message": "Dashboard not found"})

    def search(self, request: Request) -> list[Json]:
        """Answer GET /api/search."""
        kinds = request.params.get("type", ["dash-folder", "dash-db"])
        words = request.params.get("query", [""])[0].lower()
        uids = request.params.get("dashboardUIDs")
        folders = request.params.get("folderUIDs")
        found = []
        for row in self.stored("true order by is_folder desc, lower(title)"):
            kind = "dash-folder" if row["is_folder"] else "dash-db"
            if kind in kinds and words in row["title"].lower() and (not uids or row["uid"] in uids):
                if folders and (row["folder_uid"] or "general") not in folders:
                    continue
                hit = {key: row[key] for key in ("id", "uid", "title", "url")}
                tags = json.loads(row["data"] or "{}").get("tags") or []
                hit.update(type=kind, tags=tags, uri=f"db/{row['slug']}", **self.folder(row))
                found.append({**hit, "orgId": 1, "slug": "", "isStarred": False, "sortMeta": 0, "isDeleted": False})
        return found

    def folders(self, _: Request) -> list[Json]:
        """Answer GET /api/folders."""
        rows = self.stored("is_folder order by lower(title)")
        return [{"id": row["id"], "uid": row["uid"], "title": row["title"]} for row in rows]

    def make_folder(self, request: Request) -> Json:
        """Answer POST /api/folders."""
        row = (request.body["uid"], request.body["title"])
        if self.stored("is_folder and (uid = ? or title = ?)", *row):
            raise Answer(409, {"message": "a folder with the same name already exists in the current location"})
        self.change("insert into dashboard (uid, title, is_folder) values (?, ?, 1)", *row)
        return {"uid": row[0], "title": row[1]}

    def delete_folder(self, request: Request) -> Json:
        """Answer DELETE /api/folders/<uid>, which takes along what is in it, unless that is provisioned."""
        for row in self.stored("is_folder and uid = ?", request.args[0]):
            with self.store.open() as db:
                inside = db.execute("select provider from dashboard where folder_uid = ?", (row["uid"],)).fetchall()
                if any(it["provider"] for it in inside):
                    raise Answer(400, {"message": "provisioned dashboard cannot be deleted"})
                if any(rule["folderUID"] == row["uid"] for rule in Alerting(self.store).all_of("rule")):
                    raise Answer(400, {"message": "folder cannot be deleted: folder is not empty"})
                db.execute("delete from dashboard where uid = ? or folder_uid = ?", (row["uid"], row["uid"]))
            return {"message": f"Folder {row['title']} deleted", "title": row["title"], "id": row["id"]}
        raise Answer(404, {"message": "folder not found", "status": "not-found"})


class Alerting:
    """Alert rules and who is told of them, kept as the API for provisioning takes them."""

    # What a contact point of each type can't do without.
    REQUIRED: ClassVar[dict[str, str]] = {
        "email": "addresses",
        "webhook": "url",
        "slack": "url",
        "pagerduty": "integrationKey",
    }
    DEFAULT_POINT: ClassVar[Json] = {
        "uid": "",
        "name": "email receiver",
        "type": "email",
        "settings": {"addresses": "<example@email.com>"},
    }
    DEFAULT_POLICY: ClassVar[Json] = {
        "receiver": "grafana-default-email",
        "group_by": ["grafana_folder", "alertname"],
    }

    def __init__(self, store: Store) -> None:
        self.store = store
        api = "/api/v1/provisioning"
        self.routes: Routes = {
            f"GET {api}/alert-rules": lambda _: self.all_of("rule"),
            f"DELETE {api}/alert-rules/([^/]+)": lambda request: self.delete("rule", request.args[0]),
            f"PUT {api}/folder/([^/]+)/rule-groups/([^/]+)": self.put_group,
            f"GET {api}/contact-points/export": self.export_points,
            f"POST {api}/contact-points": lambda request: self.put_point(request.body),
            f"PUT {api}/contact-points/([^/]+)": lambda request: self.put_point(request.body, request.args[0]),
            f"DELETE {api}/contact-points/([^/]+)": self.delete_point,
            f"GET {api}/policies": lambda _: self.policy,
            f"PUT {api}/policies": self.put_policy,
            f"DELETE {api}/policies": lambda _: self.put("policy", "", self.DEFAULT_POLICY),
            f"GET {api}/mute-timings": lambda _: self.all_of("mute"),
            f"POST {api}/mute-timings": lambda request: self.put("mute", request.body["name"], request.body, 201),
            f"PUT {api}/mute-timings/([^/]+)": lambda request: self.put("mute", request.args[0], request.body),
            f"DELETE {api}/mute-timings/([^/]+)": self.delete_mute,
            f"GET {api}/templates": lambda _: self.all_of("template") or None,
            f"PUT {api}/templates/([^/]+)": lambda request: self.put(
                "template", request.args[0], {"name": request.args[0], "template": request.body["template"].strip()}
            ),
            f"DELETE {api}/templates/([^/]+)": lambda request: self.delete("template", request.args[0]),
            "GET /api/prometheus/grafana/api/v1/rules": self.states,
        }

    def all_of(self, kind: str) -> list[Json]:
        """Return everything of a kind."""
        with self.store.open() as db:
            rows = db.execute("select model from alerting where kind = ? order by rowid", (kind,)).fetchall()
        return [json.loads(row["model"]) for row in rows]

    def put(self, kind: str, name: str, model: Json, status: int = 202) -> Answer:
        """Keep something."""
        row = (kind, name, json.dumps({**model, "provenance": "api"}))
        with self.store.open() as db:
            db.execute("insert or replace into alerting values (?, ?, ?)", row)
        return Answer(status, model)

    def delete(self, kind: str, name: str) -> Answer:
        """Forget something."""
        with self.store.open() as db:
            db.execute("delete from alerting where kind = ? and name = ?", (kind, name))
        return Answer(204, "")

    @property
    def policy(self) -> Json:
        """The tree of policies."""
        return next(iter(self.all_of("policy")), self.DEFAULT_POLICY)

    @property
    def used(self) -> list[Json]:
        """All routes of the tree, and its root."""
        return [self.policy, *self.policy.get("routes", [])]

    def put_group(self, request: Request) -> Json:
        """Answer PUT …/rule-groups/<name>, which replaces the group's rules; Grafana asks no data source for them."""
        folder, name = request.args
        body = request.body
        if body["interval"] <= 0 or body["interval"] % 10:
            message = f"invalid alert rule: interval ({body['interval']}s) should be non-zero and divided exactly by"
            raise Answer(400, {"message": f"{message} scheduler interval: 10"})
        kept = {rule["uid"] for rule in body["rules"]}
        for rule in self.all_of("rule"):
            if (rule["folderUID"], rule["ruleGroup"]) == (folder, name) and rule["uid"] not in kept and kept:
                self.delete("rule", rule["uid"])
        for rule in body["rules"]:
            self.put("rule", rule["uid"], {**rule, "folderUID": folder, "ruleGroup": name})
        return dict(body)

    def export_points(self, request: Request) -> Json:
        """Answer GET …/contact-points/export; those with one name are one receiver."""
        hides = request.params.get("decrypt") != ["true"]
        receivers: dict[str, Json] = {}
        for point in [self.DEFAULT_POINT, *self.all_of("point")]:
            shown = {key: point[key] for key in ("uid", "type", "settings")}
            if hides:
                shown["settings"] = dict.fromkeys(shown["settings"], "[REDACTED]")
            receiver = receivers.setdefault(point["name"], {"orgId": 1, "name": point["name"], "receivers": []})
            receiver["receivers"].append({**shown, "disableResolveMessage": False})
        return {"apiVersion": 1, "contactPoints": list(receivers.values())}

    def put_point(self, point: Json, uid: str = "") -> Answer:
        """Answer POST …/contact-points, and PUT …/contact-points/<uid>."""
        known = [it["uid"] for it in self.all_of("point")]
        if uid and uid not in known:
            raise Answer(404, {"message": f"object not found: contact point with uid '{uid}' not found"})
        if not point["settings"].get(self.REQUIRED[point["type"]]):
            message = f'invalid object specification: failed to validate integration "{point["name"]}"'
            raise Answer(400, {"message": f'{message} of type "{point["type"]}"'})
        return self.put("point", uid or point["uid"], point)

    def delete_point(self, request: Request) -> Answer:
        """Answer DELETE …/contact-points/<uid>."""
        points = self.all_of("point")
        (name,) = [point["name"] for point in points if point["uid"] == request.args[0]] or [""]
        is_last = [point["name"] for point in points].count(name) == 1
        if is_last and any(route["receiver"] == name for route in self.used):
            raise Answer(409, {"message": "Contact point is currently referenced by a notification policy."})
        return self.delete("point", request.args[0])

    def put_policy(self, request: Request) -> Answer:
        """Answer PUT …/policies."""
        body = request.body
        known = {"grafana-default-email", *(point["name"] for point in self.all_of("point"))}
        times = {it["name"] for it in self.all_of("mute")}
        for route in [body, *body.get("routes", [])]:
            if route["receiver"] not in known:
                message = f"Invalid format of the submitted route: receiver '{route['receiver']}' does not exist."
                raise Answer(400, {"message": message, "statusCode": 400})
            route.get("object_matchers", []).sort()
            for name in set(route.get("mute_time_intervals", [])) - times:
                raise Answer(400, {"message": f"Invalid format of the submitted route: undefined time {name}"})
        self.put("policy", "", body)
        return Answer(202, {"message": "policies updated"})

    def delete_mute(self, request: Request) -> Answer:
        """Answer DELETE …/mute-timings/<name>."""
        if any(request.args[0] in route.get("mute_time_intervals", []) for route in self.used):
            raise Answer(409, {"message": "Conflict", "extra": {"UsedByRoutes": True}})
        return self.delete("mute", request.args[0])

    def states(self, _: Request) -> Json:
        """Answer GET /api/prometheus/grafana/api/v1/rules; nothing has been evaluated."""
        rules = [
            {"name": rule["title"], "uid": rule["uid"], "state": "inactive", "health": "unknown", "alerts": []}
            for rule in self.all_of("rule")
        ]
        return {"status": "success", "data": {"groups": [{"name": "stand-in", "rules": rules}] if rules else []}}


class Request(BaseHTTPRequestHandler):
    """One HTTP request."""

    protocol_version = "HTTP/1.1"
    grafana: Grafana
    user = ""
    args: tuple[str, ...]
    params: dict[str, list[str]]
    body: Any

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the base class)
        """Leave requests out of the log, as Grafana does by default."""

    def do_GET(self) -> None:
        """Answer any request."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self.body = json.loads(raw or "null")
        except ValueError:
            self.body = None
        try:
            result = self.result()
        except Answer as answer:
            result = answer
        except Exception as error:
            LOG("context", "error", "Internal server error", error=repr(error), path=self.path)
            result = Answer(500, {"message": "Internal Server Error"})
        self.send(result if isinstance(result, Answer) else Answer(200, result))

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def result(self) -> object:
        """Return what is asked for."""
        url = urlsplit(self.path)
        path = unquote(url.path).rstrip("/")
        self.params = parse_qs(url.query)
        handler = self.handler(self.grafana.open_routes, path)
        if handler:
            return handler(self)
        try:
            self.user, role, rules = self.grafana.sign_in(self.headers.get("Authorization", ""))
        except Answer:
            if path.startswith("/api"):
                raise
            target = "?redirectTo=" + quote(self.path, safe="") if path else ""
            return Answer(302, "", "text/html; charset=utf-8", Location=f"/login{target}")
        if not path.startswith("/api"):
            return Answer(200 if re.fullmatch("|/explore|/dashboards.*|/d/.*", path) else 404, PAGE, HTML)
        changes = self.command not in ("GET", "HEAD") and path != "/api/ds/query"
        if (path.startswith(("/api/admin/", "/api/users/")) and not rules) or (changes and role != "Admin"):
            message = "You'll need additional permissions to perform this action."
            return Answer(403, {"message": message, "title": "Access denied"}, UTF8_JSON)
        handler = self.handler(self.grafana.routes, path)
        return handler(self) if handler else Answer(404, {"message": "Not found"}, UTF8_JSON)

    def handler(self, routes: Routes, path: str) -> Callable[[Request], object] | None:
        """Return the function that answers this request, and keep the variable parts of the path."""
        method = "GET" if self.command == "HEAD" else self.command
        for route, handler in routes.items():
            match = re.fullmatch(route, f"{method} {path}")
            if match:
                self.args = match.groups()
                return handler
        return None

    def send(self, answer: Answer) -> None:
        """Send an answer; what is not text or bytes goes out as JSON."""
        body = answer.body
        text = body if isinstance(body, (str, bytes)) else json.dumps(body, separators=(",", ":"))
        payload = text.encode() if isinstance(text, str) else text
        self.grafana.answered[answer.status] += 1
        self.send_response(answer.status)
        for name, value in {"Content-Type": answer.kind, **STANDARD_HEADERS, **answer.headers}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)


def serve(settings: Settings) -> None:
    """Run the server until SIGTERM."""
    # A genuine one compiles at run time; a unit that forbids it has to be found out here as well.
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    if "file" in settings.get("log", "mode").split():
        settings.path("logs").mkdir(parents=True, exist_ok=True)
        LOG.files.append((settings.path("logs") / "grafana.log").open("a", encoding="utf-8"))

    def stop(number: int, _: object) -> None:
        name = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}[signal.Signals(number)]
        with contextlib.suppress(RuntimeError):  # it may interrupt the writing of another line
            LOG("server", "info", "Shutdown started", reason=f"System signal: {name}")
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Request.grafana = Grafana(settings)
    host, port = settings.get("server", "http_addr"), int(settings.get("server", "http_port"))
    ThreadingHTTPServer.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = ThreadingHTTPServer((host, port), Request)
    except OSError as error:
        raise StartError(f"*api.HTTPServer run error: failed to open listener on {host}:{port}: {error}") from error
    listening = threading.Thread(target=server.serve_forever, daemon=True)
    listening.start()
    LOG("http.server", "info", "HTTP Server Listen", address=f"{host}:{port}", protocol="http")
    Request.grafana.provision()
    listening.join()


# --- Command line ----------------------------------------------------------------------------------------------------


def reset_admin_password(settings: Settings, from_stdin: bool, password: str) -> None:
    """Set the administrator's password, while the server runs or not."""
    if from_stdin:
        print("New Password: ")
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < 4:
        raise StartError("the new password doesn't meet the password policy criteria")
    store = Store(settings)
    with store.open() as db:
        store.set_password(db, password)
    print("\nAdmin password changed successfully ✔\n")


class Parser(argparse.ArgumentParser):
    """Ends with 1 for a wrong command line, as Grafana does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end."""
        raise StartError(message)


def arguments(argv: list[str], version: str) -> argparse.Namespace:
    """Read the command line."""
    common = Parser(add_help=False)
    for name in ("config", "homepath", "pidfile", "packaging", "configOverrides"):
        common.add_argument(f"--{name}", f"-{name}", default="")
    parser = Parser(prog="grafana")
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("server", parents=[common], allow_abbrev=False)
    server.add_argument("overrides", nargs="*", default=[])
    cli = commands.add_parser("cli", parents=[common], allow_abbrev=False)
    admin = cli.add_subparsers(required=True).add_parser("admin")
    reset = admin.add_subparsers(required=True).add_parser("reset-admin-password", allow_abbrev=False)
    reset.add_argument("--password-from-stdin", "-password-from-stdin", action="store_true")
    reset.add_argument("password", nargs="?", default="")
    told = f"Version {version} (commit: stand-in, branch: stand-in)"
    for place, text in ((parser, f"grafana version {version}"), (cli, f"grafana version {version}"), (server, told)):
        place.add_argument("-v", "--version", action="version", version=text)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the command line."""
    try:
        args = arguments(argv, (HOME / "VERSION").read_text(encoding="utf-8").strip())
        overrides = args.configOverrides.split() + getattr(args, "overrides", [])
        config = Path(args.config) if args.config else None
        settings = Settings(Path(args.homepath or ".").absolute(), config, overrides)
        if args.command == "server":
            serve(settings)
        else:
            reset_admin_password(settings, args.password_from_stdin, args.password)
    except StartError as error:
        print(f"Error: ✗ {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
