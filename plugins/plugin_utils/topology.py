# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Who listens where, and who reaches whom how: worked out from the inventory alone.

One host's role defaults can't be seen from another host, so what several hosts have to agree on is worked out here. A
variable that the inventory sets always wins: in all, for a group or for a host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.logstead.platform.plugins.plugin_utils.components import (
    ROLES,
    Component,
    components_of,
    defaults_of,
    find_component,
)
from ansible_collections.logstead.platform.plugins.plugin_utils.contributions import merge_contributions
from ansible_collections.logstead.platform.plugins.plugin_utils.formats import default_formats
from ansible_collections.logstead.platform.plugins.plugin_utils.logs import (
    combine,
    default_logs,
    rotations_of,
    sources_of,
)

# Families of variables of all hosts, and what each is.
FAMILIES: dict[str, type[dict[str, Any]] | type[list[Any]]] = {
    "platform_alert_overrides": dict,
    "platform_alert_mute_times": dict,
    "platform_alert_receivers": list,
    "platform_alert_routes": list,
    "platform_dashboards": list,
    "platform_known_noise": dict,
}
# Families of variables of one host, whose entries are merged over the platform's own.
HOST_FAMILIES = ("platform_logs", "platform_log_formats")
LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - Grafana and the gateway ask for a log-in
Variables = Mapping[str, Any]


def is_true(value: object) -> bool:
    """Tell whether a variable is true, also where it came as a text."""
    return str(value).lower() in ("true", "yes", "on", "1")


class Topology:
    """What one host has to know of itself and of the others.

    Args:
        host: Name of the host in the inventory.
        groups: Hosts by group.
        hostvars: Variables that the inventory sets, by host.
    """

    def __init__(self, host: str, groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Variables]) -> None:
        self.host, self.groups, self.hostvars = host, groups, hostvars
        self.read: dict[str, Variables] = {}  # Ansible gathers a host's variables anew at each access

    def value(self, name: str, host: str = "", default: Any = None) -> Any:
        """Return what the inventory says of a host; a text that is empty says nothing."""
        own = host or self.host
        if own not in self.read:
            self.read[own] = self.hostvars[own]
        found = self.read[own].get(name)
        return default if found in (None, "") else found

    def hosts_of(self, group: str) -> list[str]:
        """Return the hosts of a group."""
        return list(self.groups.get(group) or [])

    def is_in(self, group: str, host: str = "") -> bool:
        """Tell whether a host is in a group."""
        return (host or self.host) in self.hosts_of(group)

    def groups_of(self, host: str) -> list[str]:
        """Return the groups of a host."""
        return [group for group, hosts in self.groups.items() if host in hosts]

    # --- Addresses ---

    def is_single_host(self) -> bool:
        """Tell whether the inventory has one host only."""
        return is_true(self.value("platform_is_single_host", default=len(self.hosts_of("all")) == 1))

    def address(self, host: str = "") -> str:
        """Return the address under which the other hosts of the platform reach a host."""
        own = host or self.host
        return str(self.value("platform_address", own) or self.value("ansible_host", own) or own)

    def metrics_address(self, host: str = "") -> str:
        """Return the address at which Prometheus scrapes a host: loopback, unless another host's Prometheus does."""
        own = host or self.host
        is_scraped_from_elsewhere = bool(set(self.hosts_of("prometheus")) - {own}) and not self.is_single_host()
        default = self.address(own) if is_scraped_from_elsewhere else LOOPBACK
        return str(self.value("platform_metrics_address", own, default))

    def port(self, component: Component, host: str = "") -> str:
        """Return the port that a component listens on, as it is set: the preflight says what is wrong with it."""
        return self.port_of(component.port, component, host)

    def port_of(self, variable: str, component: Component, host: str = "") -> str:
        """Return the value of one of the variables in which a component has a port."""
        return str(self.value(variable, host, defaults_of(component.path).get(variable, "")))

    def default_listen_address(self, component: Component, host: str = "") -> str:
        """Return the address on which a component listens unless the inventory says otherwise."""
        own = host or self.host
        if component.listen == "public":
            return EVERYWHERE
        if not self.is_in(component.group, own):  # the role is used by itself
            return LOOPBACK
        if component.listen == "scraped":
            return self.metrics_address(own)
        # With a gateway beside Loki, nobody else has to reach Loki.
        is_behind_gateway = component.group == "loki" and self.has_tenants(own) and self.is_in("gateway", own)
        return LOOPBACK if self.is_single_host() or is_behind_gateway else self.address(own)

    def listen_address(self, component: Component, host: str = "") -> str:
        """Return the address on which a component listens."""
        return str(self.value(component.address_variable, host) or self.default_listen_address(component, host))

    def url(self, group: str) -> str:
        """Return the address at which other hosts reach the component of a group; empty if no host runs it."""
        hosts = self.hosts_of(group)
        if not hosts:
            return ""
        address = LOOPBACK if self.is_single_host() else self.address(hosts[0])
        return f"http://{address}:{self.port(find_component(group), hosts[0])}"

    def listening_url(self, group: str) -> str:
        """Return the address at which the component of a group listens on its first host; empty if no host runs it."""
        hosts = self.hosts_of(group)
        if not hosts:
            return ""
        component = find_component(group)
        return f"http://{self.listen_address(component, hosts[0])}:{self.port(component, hosts[0])}"

    def local_access(self) -> dict[str, list[str]]:
        """Return this host's `ports` that local users have no access to, and the users that may connect (`clients`).

        `servers` are the users that may listen there.
        """
        components = components_of(self.groups_of(self.host))
        ports = [self.port_of(name, component) for component in components for name in component.local_ports]
        return {
            "ports": list(dict.fromkeys(ports)),
            "servers": [component.name for component in components],
            "clients": [component.name for component in components if component.is_client],
        }

    # --- Environments and tenants ---

    def environment(self, host: str = "") -> str:
        """Return the environment of a host: the variable, or the one group of the host that is called so."""
        own = host or self.host
        known = self.value("platform_environments", own) or defaults_of(ROLES / "platform")["platform_environments"]
        named = [name for name in known if self.is_in(name, own)]
        return str(self.value("platform_environment", own) or (named[0] if len(named) == 1 else ""))

    def has_tenants(self, host: str = "") -> bool:
        """Tell whether environments that share a Loki are kept apart."""
        return is_true(self.value("platform_tenants_enabled", host, False))

    def gateway_url(self) -> str:
        """Return the address of the gateway as clients reach it; empty if there is none."""
        gateways = self.hosts_of("gateway")
        if not gateways:
            return ""
        return f"https://{self.address(gateways[0])}:{self.port(find_component('gateway'), gateways[0])}"

    def gateway_ca(self) -> str:
        """Return the CA that the gateway has made for itself; empty if it has none, or brings its certificate."""
        gateways = self.hosts_of("gateway")
        if not gateways or self.value("gateway_certificate"):
            return ""
        facts = self.hostvars[gateways[0]].get("ansible_facts") or {}
        return str(facts.get("gateway_ca") or "")

    def grafana_url(self) -> str:
        """Return the address at which people find Grafana; empty if no host runs it."""
        hosts = self.hosts_of("grafana")
        if not hosts:
            return ""
        default = f"http://{hosts[0]}:{self.port(find_component('grafana'), hosts[0])}"
        return str(self.value("grafana_root_url", hosts[0]) or default).rstrip("/")

    # --- Metrics ---

    def endpoints(self, host: str = "") -> dict[str, str]:
        """Return where Prometheus scrapes the components of a host, by group."""
        own = host or self.host
        set_by_user = self.value("platform_metrics_targets", own)
        if set_by_user is not None:
            return dict(set_by_user)
        components = [component for component in components_of(self.groups_of(own)) if component.metrics_job]
        return {component.group: self.endpoint(component, own) for component in components}

    def endpoint(self, component: Component, host: str) -> str:
        """Return the address and port at which Prometheus scrapes a component of a host."""
        address = self.listen_address(component, host).replace(EVERYWHERE, self.metrics_address(host))
        return f"{address}:{self.port(component, host)}"

    def targets(self) -> dict[str, dict[str, str]]:
        """Return where Prometheus scrapes every component, by host and group; nothing on a host without Prometheus."""
        return {host: self.endpoints(host) for host in self.hosts_of("all")} if self.is_in("prometheus") else {}

    # --- What groups and hosts contribute ---

    def logs(self) -> dict[str, Any]:
        """Return the entries of this host's logs by name: the platform's own, and those of the inventory over them."""
        role = defaults_of(ROLES / "demo_app")
        names = ("demo_app_log_folder", "demo_app_service_name")
        folder, service = (str(self.value(name, default=role[name])) for name in names)
        own = merge_contributions("platform_logs", {self.host: self.hostvars[self.host]}, {})
        return combine(default_logs(folder.rstrip("/"), service, self.is_in("demo_app")), own)

    def log_formats(self) -> dict[str, Any]:
        """Return the formats of this host's logs by name: the platform's own, and those of the inventory over them."""
        own = merge_contributions("platform_log_formats", {self.host: self.hostvars[self.host]}, {})
        return combine(default_formats(), own)

    def log_sources(self) -> list[dict[str, Any]]:
        """Return the files that the collector of this host reads."""
        return sources_of(self.logs())

    def log_rotations(self) -> list[dict[str, Any]]:
        """Return the rules by which logs of this host are rotated."""
        return rotations_of(self.logs())

    def contributions(self, family: str) -> Any:
        """Return what all hosts contribute to a family of variables; of a dict, over the platform's own entries."""
        default = FAMILIES[family]
        found = merge_contributions(family, {host: self.hostvars[host] for host in self.hosts_of("all")}, default())
        return {**defaults_of(ROLES / "platform")[family], **found} if default is dict else found

    # --- Components ---

    def components(self, name: str = "") -> list[dict[str, Any]]:
        """Return what this host runs, in the order of starting, or the one component of a name: what the verbs need.

        Raises:
            AnsibleError: There is no component of that name.
        """
        wanted = components_of(self.groups_of(self.host))
        if name:
            wanted = [component for component in wanted if component is find_component(name)]
        return [self.describe(component) for component in wanted]

    def describe(self, component: Component) -> dict[str, Any]:
        """Return what the verbs have to know of a component of this host."""
        if component.ready.get("url") == "gateway":
            address = str(self.value("gateway_url") or self.value("platform_gateway_url") or self.gateway_url())
        else:
            address = f"http://{self.listen_address(component)}:{self.port(component)}"
        has_own_ca = not self.value("gateway_certificate") or self.value("platform_gateway_ca")
        values = {**defaults_of(component.path), **{name: self.value(name) for name in self.names_in(component)}}
        return {
            "name": component.name,
            "group": component.group,
            "role": component.role_name,
            "url": address + component.ready["path"],
            "body": component.ready["body"],
            "ca": component.ready.get("ca", "") if has_own_ca else "",
            "data": [path.format(**values) for path in component.data],
            "programs": component.program_paths,
        }

    def names_in(self, component: Component) -> list[str]:
        """Return the variables that the paths of a component's data name, and that the inventory sets."""
        names = [name.split("}")[0] for path in component.data for name in path.split("{")[1:]]
        return [name for name in names if self.value(name) is not None]
