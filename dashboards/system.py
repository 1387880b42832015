"""What the hosts' journals hold: services, containers, logins and failures."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.blocks import (
    BAD,
    GOOD,
    NEUTRAL,
    NONE_IS_GOOD,
    WARN,
    alerts,
    by_level,
    choices,
    deploys,
    drilldown,
    lines,
    logql,
    number,
    page,
    ranking,
    readable,
    series,
)

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
LOGINS = f"{SSHD} |~ `^Accepted ` | regexp `^Accepted \\S+ for (?P<user>\\S+) from`"
REJECTED = f"{SSHD} |~ `^(Failed|Invalid user|Connection (closed|reset) by (invalid|authenticating))`"
SUDO = f'{HOSTS} | identifier="sudo" |= `COMMAND=`'
# By name: Loki's own lines hold the queries that ask for these words.
OOM = (
    f"{HOSTS} | identifier=~`^(kernel|systemd|systemd-oomd)$` |~ `(?i)out of memory|oom-kill|killed by the oom killer`"
)
# A user's own systemd says so as well, in another unit.
BOOTS = f"{SYSTEMD} | unit=`init.scope` |~ `^Startup finished in `"


def count(selected: str, span: str = "$__auto") -> str:
    """Return the number of lines, 0 if there are none."""
    return f"sum(count_over_time({selected} [{span}])) or vector(0)"


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(UID, "System log monitoring", "The journals of the hosts, by unit and priority.")
    for variable in choices(f"{{{JOB}}}"):
        built = built.with_variable(variable)
    built = built.link(drilldown()).annotation(deploys()).annotation(alerts())

    built = built.with_row(builders.Row("In the selected time"))
    for title, description, selected, worst in (
        ("Unit failures", "How often systemd units failed. The units are listed below.", FAILED_UNITS, WARN),
        ("SSH logins", "Logins that sshd accepted.", LOGINS, ""),
        (
            "Rejected SSH logins",
            "Logins that sshd rejected. If there are many, somebody tries passwords: allow keys only.",
            REJECTED,
            "",
        ),
        ("sudo commands", "Commands that users ran as another user.", SUDO, ""),
        (
            "OOM kills",
            "Processes that were killed for lack of memory. Raise the service's limit, or the host's memory.",
            OOM,
            BAD,
        ),
        ("Boots", "How often a host has started.", BOOTS, ""),
    ):
        steps = [(None, GOOD), (1, worst)] if worst else [(None, NEUTRAL)]
        built = built.with_panel(number(title, description, logql(count(selected)), steps=steps, total=True))

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
            "Lines of each host. If one falls silent, it is down, or its Promtail.",
            logql(f"sum by (host) (count_over_time({STREAMS} [$__auto]))", "{{host}}"),
            stacked=True,
        )
    )
    built = built.with_panel(
        ranking(
            "Units with the most lines",
            "Lines by unit in the selected time.",
            f'sort_desc(topk(10, sum by (unit) (count_over_time({STREAMS} | unit!="" [$__range]))))',
            "{{unit}}",
            empty="No lines of units",
        )
    )
    built = built.with_panel(
        ranking(
            "Units with the most errors",
            "Lines of the level ERROR or CRITICAL by unit in the selected time.",
            "sort_desc(topk(10, sum by (unit) (count_over_time("
            + STREAMS.replace("}", ', level=~"ERROR|CRITICAL"}')
            + ' | unit!="" [$__range]))))',
            "{{unit}}",
            color=WARN,
            empty=NONE_IS_GOOD,
        )
    )

    built = built.with_row(builders.Row("Incidents"))
    built = built.with_panel(
        ranking(
            "Failed units",
            "Units by how often they failed in the selected time. Next: systemctl status on the host.",
            f"sort_desc(topk(10, sum by (host, failed) (count_over_time({FAILED_UNITS} [$__range]))))",
            "{{failed}} on {{host}}",
            color=WARN,
            empty=NONE_IS_GOOD,
        )
    )
    built = built.with_panel(
        ranking(
            "SSH logins by user",
            "Logins that sshd accepted.",
            f"sort_desc(topk(10, sum by (host, user) (count_over_time({LOGINS} [$__range]))))",
            "{{user}} on {{host}}",
            empty="No logins",
        )
    )
    built = built.with_panel(
        series(
            "SSH logins over time",
            "Logins that sshd accepted or rejected.",
            logql(count(LOGINS), "accepted"),
            logql(count(REJECTED), "rejected"),
            stacked=True,
        )
    )
    built = built.with_panel(
        series(
            "Container lines",
            "Lines of containers and of the container runtime.",
            logql(f"sum by (host, unit) (count_over_time({CONTAINERS} [$__auto]))", "{{unit}} on {{host}}"),
            stacked=True,
            empty="No containers",
        )
    )
    built = built.with_panel(
        lines(
            "Failures, OOM kills, logins, sudo and boots",
            "The lines that the numbers above count.",
            readable(
                f"{HOSTS} | identifier=~`^(kernel|systemd|systemd-oomd|sshd|sshd-session|sudo)$`"
                " | unit!=`user@.service`"
                " |~ `Failed with result|COMMAND=|(?i:out of memory|oom-kill|oom killer)|^Startup finished in |"
                "^(Accepted|Failed|Invalid user) `",
                source="identifier",
            ),
            height=8,
            limit=200,
            empty=NONE_IS_GOOD,
        )
    )
    return built.with_panel(
        lines(
            "Live stream",
            "The newest lines that match the variables above. The search matches any text, in any case.",
            readable(STREAMS.replace("}", ', level=~"$level"}'), source="identifier", search=True),
        )
    )
