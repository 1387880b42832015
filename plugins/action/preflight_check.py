"""Action plugin: look at everything that is asked for of a host, before anything on it is changed.

It runs on the controller and reads what the host has in variables and facts; it opens no connection.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.logstead.platform.plugins.filter.alert_rules import rule_problems
from ansible_collections.logstead.platform.plugins.filter.alertmanager_config import receiver_problems
from ansible_collections.logstead.platform.plugins.filter.dashboards import dashboard_problems
from ansible_collections.logstead.platform.plugins.filter.grafana_alerting import interval_problems
from ansible_collections.logstead.platform.plugins.filter.logrotate_rules import active
from ansible_collections.logstead.platform.plugins.filter.retention import retention_problem
from ansible_collections.logstead.platform.plugins.plugin_utils.components import (
    ROLES,
    Component,
    all_components,
    components_of,
)
from ansible_collections.logstead.platform.plugins.plugin_utils.formats import all_problems as format_problems
from ansible_collections.logstead.platform.plugins.plugin_utils.formats import default_formats
from ansible_collections.logstead.platform.plugins.plugin_utils.logs import find_problems as log_problems
from ansible_collections.logstead.platform.plugins.plugin_utils.noise import noise_problems
from ansible_collections.logstead.platform.plugins.plugin_utils.topology import FAMILIES, HOST_FAMILIES, Topology
from ansible_collections.logstead.platform.plugins.plugin_utils.values import ENVIRONMENT, REGISTRY_HOST, find_problems
from ansible_collections.logstead.platform.plugins.plugin_utils.variables import (
    COMMON_ROLES,
    role_folders,
    roles_of,
    variables_with_defaults,
)
from ansible_collections.logstead.platform.plugins.plugin_utils.versions import override_warnings
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

Variables = Mapping[str, Any]
Problems = Iterable[str]

DIGEST = r"sha256:[0-9a-f]{64}"
# What a variable was called before, and what to do.
RENAMED = {
    "promtail_log_files": "name the files in platform_logs, which also says how they are rotated",
    "logrotate_rules": "give each log of platform_logs its rotation",
}
FIRST_OPEN_PORT = 1024
# Variables of Ansible and of the hosts' connection.
OTHERS_PREFIXES = ("_", "ansible_", "inventory_", "group", "host", "play", "role_", "vars", "omit")
OLDEST_RELEASE = {"Debian": 12, "Ubuntu": 22.04}
OLDEST_SYSTEMD = 249  # Ubuntu 22.04
OLDEST_PYTHON = (3, 9)  # what ansible-core 2.19 and the modules need
OLDEST_PYTHON_OF_APP = (3, 11)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SAMPLED_LEVELS = ("DEBUG", "INFO")
SHORTEST_PASSWORD = 8
MOST_LETTERS, LEAST_LIKENESS = 4, 0.88  # of a name that is taken for a misspelt one
LEAST_PASSWORD = 20  # characters; `make vault-init` makes 43
# The settings of notifications, and their types.
NOTIFICATIONS = {"receivers": list, "routes": list, "mute_times": dict, "smtp": dict}
PUBLIC_SECRETS = {
    "grafana_admin_password": ("", "admin", "admin123", "password", "changeme"),
    "grafana_secret_key": ("", "logstead-dev-only", "SW2YcwTIb9zpOOhoPsMm"),
}


@cache
def options_in(path: Path) -> dict[str, Any]:
    """Return the options of the main entry point of a role's folder, by name; those of `platform` are for all roles."""
    specs = path / "meta" / "argument_specs.yml"
    entry = "preflight" if path == ROLES / "platform" else "main"
    found = yaml_load(specs.read_text())["argument_specs"] if specs.is_file() else {}
    options: dict[str, Any] = found.get(entry, {}).get("options", {})
    return options


def options_of(role: str) -> dict[str, Any]:
    """Return the options of a role's main entry point, by name."""
    return options_in(role_folders().get(role, ROLES / role))


def prefixes() -> tuple[str, ...]:
    """Return how the names of the platform's variables begin."""
    return tuple(
        f"{role}_" for role in (*(component.role for component in all_components()), *COMMON_ROLES, "platform")
    )


@cache
def known_names() -> dict[str, str]:
    """Return the role that each public variable of the platform belongs to."""
    return {name: role for role in role_folders() for name in options_of(role)}


def is_contribution(name: str) -> bool:
    """Tell whether a variable belongs to a family of variables that add up."""
    return name.startswith(tuple(f"{family}_" for family in (*FAMILIES, *HOST_FAMILIES)))


def check_groups(asked: Variables) -> Problems:
    """Find groups whose names were misspelt."""
    ours = [component.group for component in all_components()]
    for group in asked["group_names"]:
        close = difflib.get_close_matches(group, ours, n=1, cutoff=0.8)
        if close and group not in ours:
            yield f"the host is in the group {group}, which is unknown; did you mean {close[0]}?"


def check_names(asked: Variables) -> Problems:
    """Find variables that look like ours and that nothing reads."""
    for name in asked:
        if name in RENAMED and name in asked.get("set_names", ()):
            yield f"{name} is no longer read: {RENAMED[name]}."
        elif name.startswith(prefixes()) and name not in known_names() and not is_contribution(name):
            close = difflib.get_close_matches(name, known_names(), n=1)
            yield f"{name} is an unknown variable" + (f"; did you mean {close[0]}?" if close else ".")
    for name in asked.get("other_names", ()):
        if known := misspelt_name(name):
            yield f"{name} is an unknown variable; did you mean {known}?"


def misspelt_name(name: str) -> str:
    """Return the public variable that another name is a misspelling of, or nothing.

    A user's own variables may well have our names in theirs, such as `vault_grafana_admin_password`.
    """
    letters, digits = letters_of(name), re.sub(r"\D", "", name)
    # Few pass the first condition, and comparing those is what takes time.
    close = [known for known, others in known_letters().items() if (letters ^ others).bit_count() <= MOST_LETTERS]
    if any(known in name for known in close) or digits:
        return ""
    return next(iter(difflib.get_close_matches(name, close, n=1, cutoff=LEAST_LIKENESS)), "")


def letters_of(name: str) -> int:
    """Return the letters that a name has, as bits."""
    return sum({1 << (ord(letter) % 32) for letter in name})


@cache
def known_letters() -> dict[str, int]:
    """Return the letters of each public variable's name."""
    return {name: letters_of(name) for name in known_names()}


def check_values(asked: Variables) -> Problems:
    """Check every value against the specification of its role, and the kind of value that it has to be."""
    unresolved = asked.get("unresolved", ())
    wrong: list[Any] = []
    for role in roles_of(asked["group_names"]):
        options = options_of(role)
        given = {name: asked[name] for name in options if name in asked and name not in unresolved}
        sound = dict(given)
        for name, value in given.items():
            problems = list(find_problems(name, value, options[name]))
            if not problems:
                continue
            del sound[name]
            # A wrong value that others take by default is reported once.
            if name in asked.get("set_names", [name]) or value not in wrong:
                yield from problems
            wrong.append(value)
        # Without their defaults, which Ansible would fill with the keys of their entries.
        required = {
            name: {key: value for key, value in option.items() if key != "default"}
            for name, option in options.items()
            if name in sound or name not in asked
        }
        for message in ArgumentSpecValidator(required).validate(sound).error_messages:
            yield f"{message} (role {role}; its README says what each variable means)"
    if asked.get("platform_environment") == "" or "platform_environment" not in asked:
        known = ", ".join(asked.get("platform_environments") or ["dev", "staging", "prod"])
        yield (
            f"the host is in no environment: put it in one of the groups {known}, or set platform_environment to a "
            "name that is in platform_environments."
        )


def check_logs(asked: Variables) -> Problems:
    """Find logs that would not be collected or rotated as meant."""
    if isinstance(asked.get("platform_logs"), Mapping):
        yield from log_problems(asked["platform_logs"])
        yield from format_problems(asked["platform_logs"], asked.get("platform_log_formats") or default_formats())
    if "logrotate" in roles_of(asked["group_names"]):
        try:
            active(asked.get("logrotate_rules") or [])
        except AnsibleError as error:
            yield str(error)


def check_noise(asked: Variables) -> Problems:
    """Find known noise that would mute nothing or too much."""
    if isinstance(asked.get("platform_known_noise"), Mapping):
        yield from noise_problems(asked["platform_known_noise"])


def check_host(asked: Variables) -> Problems:
    """Find out whether the host's system is recent enough."""
    facts = asked["ansible_facts"]
    distribution, release = facts.get("distribution", "?"), facts.get("distribution_version", "0")
    oldest = OLDEST_RELEASE.get(distribution)
    if oldest is None or float(re.match(r"\d+(\.\d+)?|", release)[0] or 0) < oldest:  # type: ignore[index]
        known = " and ".join(f"{name} from {number} on" for name, number in OLDEST_RELEASE.items())
        yield (
            f"the host runs {distribution} {release}; supported are {known}. "
            "Upgrade it, or take it out of the inventory."
        )
    systemd = int(re.match(r"\d*", str(facts.get("systemd", {}).get("version", "")))[0] or 0)  # type: ignore[index]
    if systemd < OLDEST_SYSTEMD:
        yield f"the host has systemd {systemd or 'none'}; at least {OLDEST_SYSTEMD} is needed. Upgrade the host."
    version = facts.get("python", {}).get("version", {})
    if (version.get("major", 0), version.get("minor", 0)) < OLDEST_PYTHON:
        yield (
            f"the host's Python is {facts.get('python_version', 'unknown')}; at least {OLDEST_PYTHON[0]}."
            f"{OLDEST_PYTHON[1]} is needed. Install a newer one and name it in ansible_python_interpreter."
        )
    elif (
        (version["major"], version["minor"]) < OLDEST_PYTHON_OF_APP
        and "demo_app" in asked["group_names"]
        and "demo_app_python" not in asked
    ):
        yield (
            f"the demo app needs Python {OLDEST_PYTHON_OF_APP[0]}.{OLDEST_PYTHON_OF_APP[1]}, and the host's is "
            f"{facts.get('python_version', 'older')}. Install a newer one and name it in demo_app_python, or take the "
            "host out of the group demo_app."
        )


def check_periods(asked: Variables) -> Problems:
    """Find retention periods by level or tenant that Loki would not take."""
    periods: dict[str, Any] = {}
    by_level = {"loki_retention_by_level": asked.get("loki_retention_by_level")}
    tenants = asked.get("loki_tenants")
    for tenant, own in tenants.items() if isinstance(tenants, Mapping) else ():
        where = f"loki_tenants['{tenant}']"
        if not isinstance(own, Mapping):
            yield f"{where} is {own!r}; write what is different, such as {{retention: 7d}}."
            continue
        periods[f"{where}['retention']"] = own.get("retention")
        by_level[f"{where}['retention_by_level']"] = own.get("retention_by_level")
    for where, levels in by_level.items():
        if isinstance(levels, Mapping):
            periods |= {f"{where}['{level}']": period for level, period in levels.items()}
            for level in set(levels) - set(LEVELS):
                yield f"{where} has the unknown level {level}; levels are {', '.join(LEVELS)}."
    for name, period in periods.items():
        if period is not None and (problem := retention_problem(period)):
            yield f"{name} {problem}."


def check_sampling(asked: Variables) -> Problems:
    """Find shares that Promtail's filters would refuse only later, and jobs that no line has."""
    by_job = asked.get("promtail_sampling")
    entries = [entry for entry in asked.get("promtail_log_files") or [] if isinstance(entry, Mapping)]
    shares = {f"promtail_log_files: {entry.get('path')}": entry.get("sampling") or {} for entry in entries}
    if isinstance(by_job, Mapping) and "promtail" in asked["group_names"]:
        jobs = {str(entry.get("job")) for entry in entries} | {"systemd-journal"}
        for job in set(by_job) - jobs:
            yield f"promtail_sampling names the job {job}, which no file has; jobs are {', '.join(sorted(jobs))}."
        shares |= {f"promtail_sampling: {job}": levels for job, levels in by_job.items()}
    for name, levels in shares.items():
        if not isinstance(levels, Mapping):
            yield f"{name} has no shares by level; write such as {{DEBUG: 0.1}}."
            continue
        for level, share in levels.items():
            if level not in SAMPLED_LEVELS:
                only = " and ".join(SAMPLED_LEVELS)
                yield f"{name} would sample {level}; only {only} can be, so that no error is lost."
            elif isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
                yield f"{name} keeps {share!r} of {level}; a share is more than 0 and at most 1."


def check_dashboards(asked: Variables) -> Problems:
    """Find dashboards that Grafana would not show, and links to traces that lead nowhere."""
    sources = [source for source in asked.get("grafana_datasources") or [] if isinstance(source, Mapping)]
    own_sources = ["loki", *(["prometheus"] if asked.get("grafana_prometheus_url") else [])]
    others = [str(source["uid"]) for source in sources if source.get("uid")]
    tracing = asked.get("grafana_tracing_datasource")
    if "grafana" not in asked["group_names"]:
        return
    if tracing and tracing not in others:
        yield f"grafana_tracing_datasource is {tracing!r}; it is the uid of one of grafana_datasources, or empty."
    entries = asked.get("grafana_dashboards")
    if isinstance(entries, Sequence) and not isinstance(entries, str):
        yield from dashboard_problems(entries, own_sources + others, Path(asked.get("inventory_dir") or "."))


def check_alerts(asked: Variables) -> Problems:
    """Find rules that no engine would take, and receivers and routes that lead nowhere."""
    engine = asked.get("platform_alert_engine")
    if engine == "alertmanager" and not asked.get("platform_alertmanager_url"):
        yield "platform_alert_engine is alertmanager, but there is none: put a host in the group alertmanager."
    if engine == "grafana" and not asked.get("groups", {}).get("grafana"):
        yield "platform_alert_engine is grafana, but there is none: put a host in the group grafana."
    rules = [asked[name] for name in ("platform_alerts", "platform_rules") if name in asked]
    problems = [problem for each in rules for problem in rule_problems(each)]
    if engine == "grafana" and isinstance(asked.get("platform_alerts"), Mapping):
        problems += interval_problems(asked["platform_alerts"])
    for problem in dict.fromkeys(problems):
        yield f"platform_alert_rules with platform_alert_overrides, platform_recording_rules: {problem}"
    settings = [asked.get(f"platform_alert_{name}") or shape() for name, shape in NOTIFICATIONS.items()]
    # What has another shape has been complained of already.
    if all(isinstance(value, shape) for value, shape in zip(settings, NOTIFICATIONS.values())):
        for problem in receiver_problems(*settings):
            yield f"platform_alert_{', platform_alert_'.join(NOTIFICATIONS)}: {problem}"


def may_bind(component: Component, asked: Variables) -> bool:
    """Tell whether a component's service may listen on a port below 1024."""
    try:
        capabilities = asked[f"{component.role}_unit_overrides"]["Service"]["AmbientCapabilities"]
    except (KeyError, TypeError):
        return False
    return "CAP_NET_BIND_SERVICE" in str(capabilities)


def check_ports(asked: Variables) -> Problems:
    """Find two services of one host on one port, and ports that a service may not listen on."""
    ports: dict[int, str] = {}
    for component in components_of(asked["group_names"]):
        options = options_of(component.role)
        for name in (name for name in options if name.endswith("_port")):
            # What isn't set is the role's default. A value that is no number has been reported already.
            value = str(asked.get(name, options[name].get("default")))
            if not re.fullmatch(r"[0-9]{1,5}", value):
                continue
            port = int(value)
            if port in ports:
                yield f"{name} and {ports[port]} are both {port}; give each service of a host a port of its own."
            ports.setdefault(port, name)
            if 0 < port < FIRST_OPEN_PORT and not may_bind(component, asked):
                yield (
                    f"{name} is {port}; the service may not listen on a port below {FIRST_OPEN_PORT}. Choose a higher "
                    f"one, or permit it in {component.role}_unit_overrides: {{Service: {{AmbientCapabilities: "
                    "CAP_NET_BIND_SERVICE, CapabilityBoundingSet: CAP_NET_BIND_SERVICE}}."
                )


def check_connections(asked: Variables) -> Problems:
    """Find a service without the one it needs, or with one too many."""
    components = components_of(asked["group_names"])
    for component in (component for component in components if component.single_host):
        hosts = asked.get("groups", {}).get(component.group, [])
        if len(hosts) > 1:
            yield (
                f"the group {component.group} has {len(hosts)} hosts ({', '.join(hosts)}), but they would be no "
                f"cluster: {component.single_host} would be sent to the first alone. Keep one host in it."
            )
    for group, name in (("promtail", "promtail_loki_url"), ("grafana", "grafana_loki_url")):
        # Without a gateway, `check_tenants` says what is missing.
        has_no_gateway = has_tenants(asked) and not asked.get("platform_gateway_url")
        if group in asked["group_names"] and not asked.get(name) and not has_no_gateway:
            yield (
                f"the host is in the group {group}, but there is no Loki: put a host in the group loki, or set {name}."
            )


def check_local_access(asked: Variables) -> Problems:
    """Find users that no host could have or that this one lacks, and a host that can't limit local access."""
    facts = asked["ansible_facts"]
    for user in asked.get("platform_local_users") or []:
        if user in facts.get("unknown_users", []):
            yield f"platform_local_users has {user}, which the host doesn't have: create the user, or remove the name."
    is_limited = asked.get("platform_local_access") != "everyone"
    ports = any(component.local_ports for component in components_of(asked["group_names"]))
    if is_limited and ports and not facts.get("has_net_admin", True):
        yield (
            "platform_local_access is components, but nftables can't be used: root of this host lacks the capability "
            "CAP_NET_ADMIN, as in a container. Grant it, or set platform_local_access to everyone, which permits every "
            "local user to read, write and delete all lines."
        )


def check_images(asked: Variables) -> Problems:
    """Find images that podman could not get, or that would change by themselves."""
    if asked.get("platform_runtime") != "podman":
        return
    containers = [component.group for component in all_components() if component.image]
    registry, images = asked.get("platform_image_registry"), asked.get("platform_images") or {}
    for name, image in images.items() if isinstance(images, Mapping) else ():
        if name not in containers:
            yield f"platform_images has {name}, which has no image; {', '.join(containers)} have one."
        elif not re.fullmatch(rf"{REGISTRY_HOST}/[\w./-]*\w(:[\w.-]+(@{DIGEST})?|@{DIGEST})", str(image)):
            yield (
                f"platform_images has {image!r} for {name}; it is a full name with a registry, and a tag, a digest or "
                f"both, such as docker.io/grafana/loki:3.7.8@sha256:{'0' * 8}…"
            )
    has_source = (
        registry or asked.get("platform_mirror_url") or (isinstance(images, Mapping) and images.get("demo_app"))
    )
    if "demo_app" in asked["group_names"] and not has_source:
        yield (
            "nobody publishes an image of the demo app: build it (demo_app/Containerfile), push it to a registry, and "
            "name that in platform_image_registry, or the image in platform_images['demo_app']."
        )


def check_tenants(asked: Variables) -> Problems:
    """Find a gateway without its Loki, or parts without a gateway."""
    gateways, stores = (asked.get("groups", {}).get(group, []) for group in ("gateway", "loki"))
    if not has_tenants(asked):
        if "gateway" in asked["group_names"]:
            yield (
                "the host is in the group gateway, but there are no tenants: set platform_tenants_enabled to true, or "
                "take the host out of the group."
            )
        return
    if len(gateways) > 1:
        yield f"the group gateway has {len(gateways)} hosts ({', '.join(gateways)}). Keep one host in it."
    if stores and not gateways:
        yield (
            "platform_tenants_enabled is true, but nobody could reach Loki: put the host of the group loki in the "
            "group gateway as well."
        )
    if "gateway" in asked["group_names"] and not asked.get("gateway_loki_url"):
        yield "the gateway has no Loki: put a host in the group loki, or set gateway_loki_url."
    url = str(asked.get("platform_gateway_url") or "")
    is_url = not list(find_problems("platform_gateway_url", url, {}))  # else it has been reported already
    if is_url and not re.fullmatch(r"https://[\w.-]+(:\d+)?", url) and (gateways or not stores):
        yield (
            f"platform_gateway_url is {url!r}: put a host in the group gateway, or name the gateway of another "
            "inventory, such as https://logs.example.org:3102."
        )


def has_tenants(asked: Variables) -> bool:
    """Tell whether tenants are on."""
    return bool(boolean(asked.get("platform_tenants_enabled") or False, strict=False))


def check_credentials(asked: Variables) -> Problems:
    """Find credentials that are missing, or that would let somebody in as another."""
    environment, known = asked.get("platform_environment"), asked.get("platform_environments") or []
    given = asked.get("platform_credentials") or {}
    if not has_tenants(asked) or not isinstance(given, Mapping):
        return
    vault = vault_of(environment)
    if environment not in known:
        yield f"platform_environment is {environment}, which is none of platform_environments: add it there."
    for name in sorted(set(given) - set(known)):
        yield f"platform_credentials has {name}, which is no environment; platform_environments are {', '.join(known)}."
    users: dict[str, str] = {}
    for name in dict.fromkeys([environment, *given]):
        passwords = given.get(name)
        passwords = passwords if isinstance(passwords, Mapping) else {}
        # Only the gateway and the environment itself write.
        needed = ("write", "read") if name == environment or "gateway" in asked["group_names"] else ("read",)
        missing = [purpose for purpose in needed if not passwords.get(purpose)]
        if missing:
            yield (
                f"platform_credentials['{name}'] lacks {' and '.join(missing)}. Set it in {vault}: "
                f"{vault_advice(environment)} Another environment's are in its vault."
            )
        for purpose, password in passwords.items():
            user = f"{name}-{purpose}"
            if not password or purpose not in ("write", "read"):
                continue
            if not re.fullmatch(rf"\S{{{LEAST_PASSWORD},}}", str(password)):
                yield f"the password of {user} needs {LEAST_PASSWORD} characters or more, and no spaces ({vault})."
            if password in users:
                yield f"{user} and {users[password]} have the same password: give each one of its own ({vault})."
            users.setdefault(password, user)


def certificates_in(text: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM text; none if it is no PEM text."""
    try:
        return list(x509.load_pem_x509_certificates(text.encode()))
    except ValueError:
        return []


def period_problem(certificate: x509.Certificate, name: str) -> str:
    """Return what is wrong with the time for which a certificate is valid; nothing if nothing is."""
    now = datetime.now(timezone.utc)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end < now:
        return f"{name} has expired on {end:%Y-%m-%d}: get a new one."
    return f"{name} is valid only from {begin:%Y-%m-%d} on: wait, or get another one." if begin > now else ""


def is_for(certificate: x509.Certificate, host: str) -> bool:
    """Tell whether a certificate names a host, by name or by IP address."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        # A star stands for the first part alone.
        wanted = {host.lower(), "*." + host.lower().partition(".")[2]}
        return not wanted.isdisjoint(name.lower() for name in names.get_values_for_type(x509.DNSName))


def comes_from(chain: list[x509.Certificate], cas: list[x509.Certificate]) -> bool:
    """Tell whether the first of a chain comes from one of the CAs, by way of the others."""
    link = chain[0]
    for _ in range(len(chain) + 1):
        for issuer in (*cas, *chain[1:]):
            try:
                link.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature):
                continue
            if issuer in cas:
                return True
            link = issuer
            break
    return False


def check_certificate(asked: Variables) -> Problems:
    """Find a certificate that clients of the gateway would refuse."""
    if not has_tenants(asked):
        return
    trusted = str(asked.get("platform_gateway_ca") or "")
    cas = certificates_in(trusted)
    if trusted and not cas:
        yield "platform_gateway_ca is no certificate in PEM text (-----BEGIN CERTIFICATE-----)."
    yield from filter(None, (period_problem(ca, "a certificate of platform_gateway_ca") for ca in cas))
    text, key_text = (str(asked.get(f"gateway_certificate{name}") or "") for name in ("", "_key"))
    if "gateway" not in asked["group_names"] or not (text or key_text):
        return
    chain = certificates_in(text)
    if not chain:
        yield "gateway_certificate is no certificate in PEM text (-----BEGIN CERTIFICATE-----)."
    try:
        key = serialization.load_pem_private_key(key_text.encode(), password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield "gateway_certificate_key is no private key in PEM text, without a passphrase."
    else:
        if chain and key != chain[0].public_key():
            yield "gateway_certificate_key isn't the key of the first certificate of gateway_certificate."
    if not chain:
        return
    yield from filter(None, [period_problem(chain[0], "gateway_certificate")])
    host = str(urlsplit(str(asked.get("platform_gateway_url") or "")).hostname or "")
    if not is_for(chain[0], host):
        yield (
            f"gateway_certificate isn't for {host}, the host of platform_gateway_url, by which clients reach the "
            "gateway: get one that names it (subjectAltName), or set the address that it names."
        )
    if cas and not comes_from(chain, cas):
        yield (
            "gateway_certificate doesn't come from platform_gateway_ca, so clients would refuse it: name its CA there, "
            "and append the certificates between the two to gateway_certificate."
        )


def vault_of(environment: object) -> str:
    """Return the path of an environment's vault, without a name that is none."""
    return f"group_vars/{environment if ENVIRONMENT.accepts(str(environment)) else '<environment>'}/vault.yml"


def vault_advice(environment: object) -> str:
    """Say how to create an environment's vault, in a checkout and in a folder of the user's own."""
    name = vault_of(environment).split("/")[1]
    return (
        f"`ansible-vault create` opens a new one; in a checkout, `make vault-init ENV={name}` makes it with "
        "random secrets."
    )


def check_secrets(asked: Variables) -> Problems:
    """Find secrets that everybody knows, where they matter."""
    environment = asked.get("platform_environment")
    if "grafana" not in asked["group_names"]:
        return
    for name, public in PUBLIC_SECRETS.items():
        # In dev a secret may be known, but not be empty; that it is missing is reported already.
        if str(asked.get(name) or "") in (public if environment != "dev" else ("",) if name in asked else ()):
            yield (
                f"{name} is not set, or is one that everybody knows. Set it in {vault_of(environment)}: "
                f"{vault_advice(environment)}"
            )


def check_people(asked: Variables) -> Problems:
    """Find accounts that are listed twice, that are the administrator's, or whose password everybody knows."""
    users = [user for user in asked.get("grafana_org_users") or [] if isinstance(user, Mapping)]
    logins = [str(user.get("login")) for user in users]
    for login in sorted({login for login in logins if logins.count(login) > 1}):
        yield f"grafana_org_users has {login} more than once; give each person one account."
    if asked.get("grafana_admin_user", "admin") in logins:
        yield "grafana_org_users has the administrator, whom grafana_admin_user and grafana_admin_password are for."
    for user in users:
        password = str(user.get("password") or "")
        if len(password) < SHORTEST_PASSWORD or password in PUBLIC_SECRETS["grafana_admin_password"]:
            yield (
                f"the password of {user.get('login')} in grafana_org_users is one that everybody knows, or shorter "
                f"than {SHORTEST_PASSWORD} characters. Set another one, in a vault."
            )


CHECKS: tuple[Callable[[Variables], Problems], ...] = (
    check_values,
    check_groups,
    check_names,
    check_logs,
    check_noise,
    check_host,
    check_periods,
    check_sampling,
    check_dashboards,
    check_alerts,
    check_ports,
    check_connections,
    check_local_access,
    check_images,
    check_tenants,
    check_credentials,
    check_certificate,
    check_secrets,
    check_people,
)


def problems_of(asked: Variables) -> list[str]:
    """Return everything that is wrong with what is asked for of one host: sentences that say what to do."""
    problems: list[str] = []
    for check in CHECKS:
        try:
            problems.extend(check(asked))
        except (TypeError, ValueError, AttributeError, LookupError):  # noqa: PERF203 - each may stumble
            # Only over a value of another type, which `check_values` has reported.
            if not problems:
                raise
    return problems


def without_echoes(problems: list[str]) -> list[str]:
    """Return sentences without those that repeat another one as a whole, as the error of a template does."""
    unique = list(dict.fromkeys(problems))
    return [one for one in unique if not any(other != one and other in one for other in unique)]


def is_current(component: Component, variables: Variables) -> bool:
    """Tell whether a host has the release that its variables name, so that nothing is to be downloaded."""
    if variables.get("platform_runtime") == "podman":
        return False
    version = variables.get(f"{component.role}_version")
    found = (variables["ansible_facts"].get("systemd_app_releases") or {}).get(component.name) or {}
    pinned = re.search(r"[0-9a-f]{64}$", str(variables.get(f"{component.role}_checksum") or "").lower())
    return version is None or (
        str(found.get("version")) == str(version) and "sha256" in found and (not pinned or pinned[0] == found["sha256"])
    )


class ActionModule(ActionBase):  # type: ignore[misc]
    """Fails with all problems of a host at once."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the checks on the host's variables, and return which components' releases have to be downloaded."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host, today = variables["inventory_hostname"], datetime.now(tz=timezone.utc).date()
        if not components_of(variables["group_names"]):
            # A host that the platform does not manage may be in groups of any name.
            return {**result, "fetch": [], "warnings": [f"{host}: {text}" for text in check_groups(variables)]}
        asked, undefined = self.resolve(variables)
        problems = without_echoes(undefined + problems_of(asked))
        result["warnings"] = [f"{host}: {text}" for text in override_warnings(asked, today)]
        if problems:
            result["failed"] = True
            result["msg"] = "Nothing was changed. " + " ".join(f"({n}) {text}" for n, text in enumerate(problems, 1))
        result["fetch"] = [
            component.role_name
            for component in components_of(variables["group_names"])
            if (component.path / "tasks/fetch.yml").is_file()
            and self.is_selected(component, variables)
            and not is_current(component, asked)
        ]
        return result

    def resolve(self, variables: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the values of the platform's variables on this host, defaults included, and what is wrong there."""
        names = ("ansible_facts", "group_names", "groups", "inventory_dir")
        asked: dict[str, Any] = {name: variables[name] for name in names if name in variables}
        merged, templar = variables_with_defaults(variables, self._templar, self._loader)
        ours = [str(name) for name in variables if str(name).startswith(prefixes())]
        asked["set_names"] = [name for name in ours if name not in options_of("platform")]
        known = known_names()
        asked["other_names"] = [
            str(name)
            for name in variables
            if name not in known and not str(name).startswith(OTHERS_PREFIXES + prefixes())
        ]
        undefined: list[str] = []
        unresolved = asked["unresolved"] = set()
        for name in [str(name) for name in merged if str(name).startswith(prefixes())]:
            count = len(undefined)
            asked[name] = self.value_of(merged[name], name, templar, undefined)
            if len(undefined) > count:
                unresolved.add(name)
        topology = Topology(variables["inventory_hostname"], variables["groups"], variables["hostvars"])
        of_host = dict(zip(HOST_FAMILIES, (topology.logs, topology.log_formats)))
        for family in (*HOST_FAMILIES, *FAMILIES):
            try:
                asked[family] = of_host[family]() if family in of_host else topology.contributions(family)
            except AnsibleError as error:  # noqa: PERF203 - each is reported
                undefined.append(str(error))
                unresolved.add(family)
        return asked, list(dict.fromkeys(undefined))

    def value_of(self, template: Any, name: str, templar: Any, problems: list[str]) -> Any:
        """Return the value of a variable; None, with a further problem, if it can't be worked out."""
        try:
            return templar.template(template)
        except AnsibleError as error:
            problems.append(f"{name} is invalid: {error}")
            return None

    def is_selected(self, component: Component, variables: Variables) -> bool:
        """Tell whether the run's tags select a component."""
        run, skipped = (set(variables.get(name) or []) for name in ("ansible_run_tags", "ansible_skip_tags"))
        return bool(run & {"all", component.group, "always"}) and component.group not in skipped
