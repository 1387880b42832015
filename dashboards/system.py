"""What the hosts' journals hold: services, containers, log-ins, and what goes wrong."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.blocks import BAD, GOOD, by_level, choices, lines, logql, number, page, ranking, series

UID = "logstead-system"
JOB = 'job="systemd-journal"'
STREAMS = f'{{{JOB}, environment=~"$environment", service_name=~"$service", host=~"$host"}}'
# Whatever the chosen service: these are told by systemd, sshd, sudo and the kernel.
HOSTS = f'{{{JOB}, environment=~"$environment", host=~"$host"}}'
SYSTEMD = f'{HOSTS} | identifier="systemd"'
# With anchors: without, Loki takes several words for texts that are contained.
SSHD = f'{HOSTS} | identifier=~"^(sshd|sshd-session)$"'
CONTAINERS = f'{{{JOB}, environment=~"$environment", host=~"$host", unit=~"(libpod|docker|podman|containerd|crio).*"}}'

FAILED_UNITS = f"{SYSTEMD} |= `Failed with result` | regexp `^(?P<failed>\\S+): Failed with result`"
LOGINS = f"{SSHD} |~ `^Accepted ` | regexp `^Accepted \\S+ for (?P<person>\\S+) from`"
REFUSED = f"{SSHD} |~ `^(Failed|Invalid user|Connection (closed|reset) by (invalid|authenticating))`"
SUDO = f'{HOSTS} | identifier="sudo" |= `COMMAND=`'
# By name: Loki's own lines hold the queries that ask for these words.
OOM = (
    f"{HOSTS} | identifier=~`^(kernel|systemd|systemd-oomd)$` |~ `(?i)out of memory|oom-kill|killed by the oom killer`"
)
# A person's own systemd says so as well, in another unit.
BOOTS = f"{SYSTEMD} | unit=`init.scope` |~ `^Startup finished in `"


def count(selected: str, span: str = "$__range") -> str:
    """Return the number of lines, 0 if there are none."""
    return f"sum(count_over_time({selected} [{span}])) or vector(0)"


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(UID, "System log monitoring", "The journals of the hosts, by unit and priority.")
    for variable in choices(f"{{{JOB}}}"):
        built = built.with_variable(variable)

    built = built.with_row(builders.Row("In the chosen time"))
    for title, description, selected, worst in (
        (
            "Failures of units",
            "How often systemd found that a unit failed. Which ones is told below.",
            FAILED_UNITS,
            BAD,
        ),
        ("Log-ins by SSH", "Log-ins that sshd accepted.", LOGINS, ""),
        (
            "Refused by SSH",
            "Log-ins that sshd refused. Many: somebody tries passwords; allow keys only.",
            REFUSED,
            "yellow",
        ),
        ("Commands by sudo", "Commands that people ran as somebody else.", SUDO, ""),
        (
            "Out of memory",
            "Processes that were killed for lack of memory. Raise the service's limit, or the host's memory.",
            OOM,
            BAD,
        ),
        ("Boots", "How often a host has started.", BOOTS, ""),
    ):
        steps = [(None, GOOD), (1, worst)] if worst else [(None, "blue")]
        built = built.with_panel(number(title, description, logql(count(selected), instant=True), steps=steps))

    built = built.with_row(builders.Row("Units and priorities"))
    built = built.with_panel(
        by_level(
            series(
                "Lines by priority",
                "Lines by level; the journal's eight priorities are mapped to the platform's five levels.",
                logql(f"sum by (level) (count_over_time({STREAMS} [$__auto]))", "{{level}}"),
                stacked=True,
            )
        )
    )
    built = built.with_panel(
        series(
            "Lines by host",
            "Lines of each host. One that falls silent is down, or its Promtail is.",
            logql(f"sum by (host) (count_over_time({STREAMS} [$__auto]))", "{{host}}"),
            stacked=True,
        )
    )
    built = built.with_panel(
        ranking(
            "Units with the most lines",
            "Lines by unit in the chosen time.",
            f'sort_desc(topk(10, sum by (unit) (count_over_time({STREAMS} | unit!="" [$__range]))))',
            "{{unit}}",
        )
    )
    built = built.with_panel(
        ranking(
            "Units with the most errors",
            "Lines of the level ERROR or CRITICAL by unit in the chosen time. Empty is good.",
            "sort_desc(topk(10, sum by (unit) (count_over_time("
            + STREAMS.replace("}", ', level=~"ERROR|CRITICAL"}')
            + ' | unit!="" [$__range]))))',
            "{{unit}}",
            color="orange",
        )
    )

    built = built.with_row(builders.Row("Incidents"))
    built = built.with_panel(
        ranking(
            "Failed units",
            "Units by how often they failed in the chosen time. Empty is good. Next: systemctl status on the host.",
            f"sort_desc(topk(10, sum by (host, failed) (count_over_time({FAILED_UNITS} [$__range]))))",
            "{{failed}} on {{host}}",
            color="red",
        )
    )
    built = built.with_panel(
        ranking(
            "Log-ins by person",
            "Log-ins that sshd accepted. Empty where nobody has logged in.",
            f"sort_desc(topk(10, sum by (host, person) (count_over_time({LOGINS} [$__range]))))",
            "{{person}} on {{host}}",
        )
    )
    built = built.with_panel(
        series(
            "SSH: accepted and refused",
            "Log-ins over time.",
            logql(count(LOGINS, "$__auto"), "accepted"),
            logql(count(REFUSED, "$__auto"), "refused"),
            stacked=True,
        )
    )
    built = built.with_panel(
        series(
            "Containers",
            "Lines of containers and of what runs them. Empty on hosts without containers.",
            logql(f"sum by (host, unit) (count_over_time({CONTAINERS} [$__auto]))", "{{unit}} on {{host}}"),
            stacked=True,
        )
    )
    built = built.with_panel(
        lines(
            "Failures, kills, refusals, sudo and boots",
            "The lines behind the numbers above. Empty when nothing of it has happened.",
            f"{HOSTS} | identifier=~`^(kernel|systemd|systemd-oomd|sshd|sshd-session|sudo)$` | unit!=`user@.service`"
            " |~ `Failed with result|COMMAND=|(?i:out of memory|oom-kill|oom killer)|^Startup finished in |"
            "^(Accepted|Failed|Invalid user) `",
            height=8,
            limit=200,
        )
    )
    selected = STREAMS.replace("}", ', level=~"$level"}')
    return built.with_panel(
        lines(
            "Live stream",
            "The newest lines that match what is chosen at the top; the search takes any text, in any case. Empty when "
            "nothing matches.",
            f"{selected} |~ `(?i)${{search:regex}}` | line_format `{{{{ .identifier }}}}: {{{{ __line__ }}}}`",
        )
    )
