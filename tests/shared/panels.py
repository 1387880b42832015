"""What Grafana's panels ask, and whether the answers are what the panels show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from support import eventually, fetch, journal

GRAFANA = "http://127.0.0.1:3100"
LOG_IN = ("--user", "admin:admin123")

Json = dict[str, Any]


def ask_grafana(host: Any, path: str, *options: str, log_in: tuple[str, ...] = LOG_IN) -> tuple[int, Any]:
    """Ask Grafana from its host; return the status and the JSON."""
    status, body = fetch(host, GRAFANA + path, *log_in, *options)
    return status, json.loads(body) if body.startswith(("{", "[")) else body


def post_grafana(host: Any, path: str, body: object, *options: str) -> tuple[int, Any]:
    """Send Grafana JSON."""
    sent = "--header", "Content-Type: application/json", "--data", json.dumps(body)
    return ask_grafana(host, path, *sent, *options)


def dashboard(host: Any, uid: str) -> Json:
    """Return a dashboard as Grafana has it."""
    status, answer = ask_grafana(host, f"/api/dashboards/uid/{uid}")
    assert status == 200, f"Grafana answers {status} for the dashboard {uid}: {answer}"
    model: Json = answer["dashboard"]
    return model


def why_empty(panel: Json) -> str:
    """Return what a panel says where it has no data; empty if it always has some."""
    return str(((panel.get("fieldConfig") or {}).get("defaults") or {}).get("noValue") or "")


def chosen(model: Json) -> dict[str, str]:
    """Return the values that a dashboard's variables have when it is opened."""
    values = {}
    for variable in model["templating"]["list"]:
        current = (variable.get("current") or {}).get("value")
        text = variable.get("allValue") if current == "$__all" else current
        values[variable["name"]] = str(text if text is not None else variable.get("query") or "")
    return values


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Put values in for variables, as Grafana's pages do before they ask; its own are left to the server."""
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: values.get(found[1], found[0]), text)


@dataclass(frozen=True)
class Question:
    """One query of one panel."""

    panel: Json
    target: Json

    @property
    def title(self) -> str:
        """Where to find it."""
        return f"{self.panel['title']} ({self.target['refId']})"

    def ask(self, host: Any, values: Mapping[str, str], since: str = "now-1h") -> tuple[int, Any]:
        """Send it as Grafana's pages do; return the status and the frames, or what is wrong."""
        return ask_query(host, self.target, values, since)

    def problem(self, host: Any, values: Mapping[str, str]) -> str:
        """Ask it, and tell what keeps the panel from showing data; empty if nothing does."""
        status, frames = self.ask(host, values)
        if status != 200:
            return f"{self.title}: {status} {frames}"
        if not any(column for frame in frames for column in frame["data"]["values"]):
            return "" if why_empty(self.panel) else f"{self.title}: no data"
        return next((f"{self.title}: {wrong}" for frame in frames if (wrong := self.misshapen(frame))), "")

    def await_answer(self, host: Any, values: Mapping[str, str]) -> None:
        """Wait until the panel shows data: rates need a second scrape."""
        eventually(
            lambda: not self.problem(host, values),
            otherwise=lambda: self.problem(host, values) + journal(host, "grafana", "loki"),
        )

    def misshapen(self, frame: Json) -> str:
        """Tell what is wrong with one frame."""
        columns = dict(zip((field["name"] for field in frame["schema"]["fields"]), frame["data"]["values"]))
        if self.panel["type"] == "logs":
            return "" if all(columns.get("Line") or [""]) else f"it has no lines, but {sorted(columns)}"
        values = [column for name, column in columns.items() if name not in ("Time", "time")]
        if len(values) != 1 or not all(isinstance(value, (int, float)) for value in values[0] if value is not None):
            return f"it is no series of numbers, but {sorted(columns)}"
        labels = frame["schema"]["fields"][-1].get("labels") or {}
        named = re.findall(r"\{\{(\w+)\}\}", self.target.get("legendFormat") or "")
        lacking = [name for name in named if name not in labels]
        return f"its legend names {lacking}, and it has {labels}" if lacking else ""


def questions(model: Json) -> Iterator[Question]:
    """Yield every query of every panel."""
    for panel in model["panels"]:
        yield from (Question(panel, target) for target in panel.get("targets") or [])


def events(model: Json) -> Iterator[Question]:
    """Yield the query of every annotation, as Grafana's pages send it."""
    for event in (model.get("annotations") or {}).get("list") or []:
        panel = {"title": event["name"], "type": "logs" if event["datasource"]["type"] == "loki" else "timeseries"}
        yield Question(panel, {"refId": "Anno", "datasource": event["datasource"], "expr": event["expr"]})


def ask_query(host: Any, target: Json, values: Mapping[str, str], since: str = "now-1h") -> tuple[int, Any]:
    """Have Grafana ask a data source; return the status and the frames, or what is wrong."""
    query = json.loads(json.dumps(target), object_hook=lambda it: it)
    query["expr"] = filled_in(query["expr"], values)
    query["datasource"]["uid"] = filled_in(query["datasource"]["uid"], values)
    # A panel of a usual width.
    query |= {"intervalMs": 15000, "maxDataPoints": 240}
    status, answer = post_grafana(host, "/api/ds/query", {"queries": [query], "from": since, "to": "now"})
    result = answer.get("results", {}).get(query["refId"]) if isinstance(answer, dict) else None
    if status != 200:
        return status, answer
    if result is None or "error" in result:
        return 500, answer
    # A genuine Grafana leaves frames out where it has found nothing.
    return 200, result.get("frames") or []


def number_shown(panel: Json, frames: list[Json]) -> float:
    """Return the number that a stat panel shows of its one series."""
    (frame,) = frames
    values = [float(value) for value in frame["data"]["values"][-1] if value is not None]
    (reducer,) = panel["options"]["reduceOptions"]["calcs"]
    return {"sum": sum(values), "lastNotNull": values[-1]}[reducer]


def lines_shown(frames: list[Json]) -> list[str]:
    """Return the lines that a panel of logs shows."""
    return [str(line) for frame in frames for line in frame["data"]["values"][2]]
