"""The doctor's steps as data, their order and their numbers, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

Variables = Mapping[str, Any]
Result = Mapping[str, Any]
# What each host has found: the results of its steps, by their names. A step that a host didn't take isn't there.
Found = Mapping[str, Mapping[str, Result]]

# The parts of a module's result that the steps after it and the report read.
RESULT_KEYS = ("outcome", "detail", "cause", "advice", "seconds", "probe", "lines", "unreachable", "msg")


@dataclass(frozen=True)
class Step:
    """A step of the way."""

    name: str  # what should be so, for the report
    title: str  # what is done, for the task
    empty: str  # what it means that no host takes it
    takes: Callable[[Variables], bool]  # whether a host does
    arguments: Callable[[Variables], dict[str, Any]]  # of the module `doctor`, but `host` and `probes`
    exists: Callable[[Variables], bool] = lambda _: True  # whether the inventory has it; else it has no number


class Templates(Mapping[str, Any]):
    """A host's variables, each of them worked out when it is read."""

    def __init__(self, variables: Variables, template: Callable[[Any], Any]) -> None:
        self._variables, self._template = variables, template

    def __getitem__(self, name: str) -> Any:
        return self._template(self._variables[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


# --- Who takes a step ---


def hosts_of(host: Variables, group: str) -> list[str]:
    """Return the hosts of a group of the inventory, limited or not."""
    return list(host["groups"].get(group, []))


def is_in(host: Variables, group: str) -> bool:
    """Tell whether a host is in a group."""
    return group in host["group_names"]


def has_tenants(host: Variables) -> bool:
    """Tell whether tenants are on."""
    return bool(boolean(host["platform_tenants_enabled"], strict=False))


def writes(host: Variables) -> bool:
    """Tell whether a host has an app, or a collector that reads its journal."""
    return is_in(host, "demo_app") or is_in(host, "promtail")


def sends(host: Variables) -> bool:
    """Tell whether a host has a collector, or should: an app without one beside it is found by this step."""
    return is_in(host, "promtail") or (is_in(host, "demo_app") and bool(hosts_of(host, "promtail")))


def asks_loki(host: Variables) -> bool:
    """Tell whether a host asks Loki: with tenants through the gateway, on its host, or else on a collector's."""
    if not has_tenants(host):
        return is_in(host, "loki")
    return [host["inventory_hostname"]] == (hosts_of(host, "gateway") + hosts_of(host, "promtail"))[:1]


def asks_grafana(host: Variables) -> bool:
    """Tell whether a host has Grafana, and it isn't left out."""
    return is_in(host, "grafana") and "grafana" not in host["ansible_skip_tags"]


def has_alerts_of_grafana(host: Variables) -> bool:
    """Tell whether Grafana evaluates the rules."""
    return bool(host["platform_alert_engine"] == "grafana")


# --- What the module is given ---


def address_of(host: Variables, component: str) -> str:
    """Return the address at which a component of this host listens."""
    return f"http://{host[f'{component}_http_listen_address']}:{host[f'{component}_http_port']}"


def arguments_of_writer(host: Variables) -> dict[str, Any]:
    """Return what the first step needs."""
    collector = {"promtail_url": address_of(host, "promtail")} if is_in(host, "promtail") else {}
    if not is_in(host, "demo_app"):
        return {"step": "journal", **collector}
    return {
        "step": "app",
        "url": address_of(host, "demo_app"),
        "log_folder": host["demo_app_log_folder"],
        **collector,
    }


def arguments_of_promtail(host: Variables) -> dict[str, Any]:
    """Return what the step of Promtail needs."""
    return {
        "step": "promtail",
        "url": address_of(host, "promtail"),
        "loki_url": host["promtail_loki_url"],
        "ca": "/etc/promtail/ca.pem",
        "log_files": host["promtail_log_files"],
        **({"log_folder": host["demo_app_log_folder"]} if is_in(host, "demo_app") else {}),
    }


def arguments_of_loki(host: Variables) -> dict[str, Any]:
    """Return what the step of Loki needs."""
    common = {"step": "loki", "timeout": host.get("doctor_timeout", 60)}
    if not has_tenants(host):
        return {**common, "url": address_of(host, "loki")}
    tenant = host["platform_tenant"]
    return {
        **common,
        "url": host["platform_gateway_url"],
        "tenant": tenant,
        "user": f"{tenant}-read",
        "password": host["platform_credentials"].get(tenant, {}).get("read", ""),
        "ca": f"/etc/{'gateway' if is_in(host, 'gateway') else 'promtail'}/ca.pem",
    }


def arguments_of_grafana(host: Variables) -> dict[str, Any]:
    """Return what the step of Grafana needs."""
    return {
        "step": "grafana",
        "url": address_of(host, "grafana"),
        "user": host.get("grafana_admin_user", "admin"),
        "password": host["grafana_admin_password"],
    }


def arguments_of_prometheus(host: Variables) -> dict[str, Any]:
    """Return what the step of Prometheus needs."""
    return {
        "step": "alerts",
        "url": address_of(host, "prometheus"),
        "alertmanager_url": "" if has_alerts_of_grafana(host) else host["platform_alertmanager_url"],
    }


STEPS = (
    Step(
        name="The app writes JSON",
        title="The app writes JSON, or a line is written to the journal",
        empty="no host is in the groups demo_app or promtail",
        takes=writes,
        arguments=arguments_of_writer,
    ),
    Step(
        name="Promtail sends",
        title="Promtail reads and sends",
        empty="no host is in the group promtail",
        takes=sends,
        arguments=arguments_of_promtail,
    ),
    Step(
        name="Loki finds the line",
        title="Loki finds the line",
        empty="no host is in the group loki, or in gateway",
        takes=asks_loki,
        arguments=arguments_of_loki,
    ),
    Step(
        name="Grafana's datasource answers",
        title="Grafana finds it through its data source",
        empty="no host is in the group grafana, or it is left out by --skip-tags grafana",
        takes=asks_grafana,
        arguments=arguments_of_grafana,
    ),
    Step(
        name="Metrics and alerts",
        title="Every part is scraped, rules are evaluated, and Alertmanager is reached",
        empty="the host of the group prometheus is left out",
        takes=lambda host: is_in(host, "prometheus"),
        arguments=arguments_of_prometheus,
        exists=lambda host: bool(hosts_of(host, "prometheus")),
    ),
    Step(
        name="Grafana tells of alerts",
        title="Grafana evaluates its rules, and receivers are configured",
        empty="the host of the group grafana is left out",
        takes=asks_grafana,
        arguments=lambda host: {**arguments_of_grafana(host), "step": "grafana_alerts"},
        exists=has_alerts_of_grafana,
    ),
)


# --- Order and stop ---


def steps_of(host: Variables) -> list[Step]:
    """Return the steps that an inventory has, in order; any of its hosts will do."""
    return [step for step in STEPS if step.exists(host)]


def step_called(name: str) -> Step:
    """Return the step of a name."""
    return next(step for step in STEPS if step.name == name)


def results_of(step: Step, found: Found) -> dict[str, Result]:
    """Return what a step has found, by host."""
    return {host: results[step.name] for host, results in found.items() if step.name in results}


def is_reached(step: Step, found: Found) -> bool:
    """Tell whether every step before this one has passed on every host that took it."""
    before = STEPS[: STEPS.index(step)]
    return all(result.get("outcome") == "passed" for one in before for result in results_of(one, found).values())


def probes_of(found: Found, collectors: Sequence[str]) -> list[dict[str, Any]]:
    """Return the lines that are on their way: one of each host that has a collector."""
    probes = [result.get("probe") or {} for result in results_of(STEPS[0], found).values()]
    return [probe for probe in probes if probe.get("host") in collectors]


def found_by(task_vars: Variables) -> Found:
    """Return what the hosts of the play have found, by what their last step has registered as `doctor_taken`."""
    hosts, variables = task_vars["ansible_play_hosts_all"], task_vars["hostvars"]
    return {host: variables[host].get("doctor_taken", {}).get("taken", {}) for host in hosts}
