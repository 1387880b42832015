"""What all dashboards are built from: queries, panels, variables and links that look the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.logstead.platform.plugins.filter.dashboards import bar_name
from grafana_foundation_sdk.builders import (
    bargauge,
    loki,
    prometheus,
    timeseries,
)
from grafana_foundation_sdk.builders import (
    common as common_builders,
)
from grafana_foundation_sdk.builders import (
    dashboard as builders,
)
from grafana_foundation_sdk.builders import (
    logs as logs_builders,
)
from grafana_foundation_sdk.builders import (
    stat as stat_builders,
)
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

Query = loki.Dataquery | prometheus.Dataquery
Panel = builders.Panel | timeseries.Panel | stat_builders.Panel | bargauge.Panel | logs_builders.Panel

# The one of Loki is chosen at the top of each dashboard: there may be one for each tenant.
LOKI = models.DataSourceRef(type_val="loki", uid="${datasource}")
PROMETHEUS = models.DataSourceRef(type_val="prometheus", uid="prometheus")

TAG = "logstead"
LEVEL_COLORS = {"DEBUG": "gray", "INFO": "green", "WARNING": "yellow", "ERROR": "orange", "CRITICAL": "dark-red"}
# The share of failed requests above which the alert HighErrorRate fires.
ALERTS = Path(__file__).parents[1] / "roles/platform/defaults/main/alerts.yml"
ERROR_RATIO_LIMIT: float = yaml.safe_load(ALERTS.read_text())["platform_alert_rules"]["HighErrorRate"]["above"]

GOOD, BAD = "green", "red"
Steps = Sequence[tuple[float | None, str]]


# --- Queries ----------------------------------------------------------------------------------------------------------


def logql(expr: str, legend: str = "", *, instant: bool = False, lines: int | None = None) -> loki.Dataquery:
    """Ask Loki."""
    query = loki.Dataquery().expr(expr).query_type("instant" if instant else "range").datasource(LOKI)
    query = query.legend_format(legend) if legend else query
    return query.max_lines(lines) if lines else query


def having(field: str) -> str:
    """Keep the JSON lines with a field, such as `status_code`, which only requests have; it can be asked for then.

    The filter on the text comes first: it is cheap, and the others see fewer lines.
    """
    return f'|= `"{field}"` | json {field}="{field}" | {field}!=""'


def promql(expr: str, legend: str = "", *, instant: bool = False) -> prometheus.Dataquery:
    """Ask Prometheus."""
    query = prometheus.Dataquery().expr(expr).datasource(PROMETHEUS)
    query = query.instant() if instant else query.range()
    return query.legend_format(legend) if legend else query


# --- Panels -----------------------------------------------------------------------------------------------------------


def thresholds(steps: Steps) -> builders.ThresholdsConfig:
    """Return thresholds: each step's colour holds from its value on."""
    return (
        builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )


def filled(panel: Any, title: str, description: str, queries: Sequence[Query], span: int, height: int) -> Any:
    """Give a panel what every panel has."""
    panel = panel.title(title).description(description).span(span).height(height)
    for name, query in zip("ABCDEFGH", queries):
        panel = panel.with_target(query.ref_id(name))
    kinds = {type(query) for query in queries}
    return panel.datasource(LOKI if kinds == {loki.Dataquery} else PROMETHEUS)


def series(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    span: int = 12,
    stacked: bool = False,
    limit: float | None = None,
    at_most: float | None = None,
) -> timeseries.Panel:
    """Show how values change; stacked ones are counts, which add up. `limit` is drawn as a line."""
    panel: timeseries.Panel = filled(timeseries.Panel(), title, description, queries, span, 8)
    panel = panel.unit(unit).min(0)
    if at_most is not None:
        panel = panel.max(at_most)
    if stacked:
        panel = (
            panel.draw_style(common.GraphDrawStyle.BARS)
            .fill_opacity(70)
            .line_width(0)
            .stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
        )
    if limit is not None:
        line = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(thresholds([(None, "transparent"), (limit, BAD)])).thresholds_style(line)
    return panel


def by_level(panel: Any) -> Any:
    """Give each level its colour."""
    for level, color in LEVEL_COLORS.items():
        fixed = models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})
        panel = panel.override_by_name(level, [fixed])
    return panel


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "short",
    steps: Steps = ((None, GOOD),),
    span: int = 4,
    link: str = "",
) -> stat_builders.Panel:
    """Show what a value is now. `link` is the uid of the dashboard that tells more."""
    panel: stat_builders.Panel = filled(stat_builders.Panel(), title, description, [query], span, 4)
    reduced = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    panel = panel.unit(unit).thresholds(thresholds(steps)).reduce_options(reduced)
    panel = panel.color_mode(common.BigValueColorMode.BACKGROUND_SOLID).graph_mode(common.BigValueGraphMode.NONE)
    return panel.links([link_to(link, "More")]) if link else panel


def ranking(title: str, description: str, expr: str, legend: str, *, color: str = "blue") -> bargauge.Panel:
    """Show the first of many, the largest on top. Grafana makes one table of all: its rows are the bars."""
    query = logql(expr, legend, instant=True)
    panel: bargauge.Panel = filled(bargauge.Panel(), title, description, [query], 12, 8)
    return (
        panel.unit("short")
        # Said itself, as a single bar would have no name.
        .display_name(bar_name(legend))
        .min(0)
        .thresholds(thresholds([(None, color)]))
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .reduce_options(common_builders.ReduceDataOptions().values(True).calcs(["lastNotNull"]))
    )


def lines(title: str, description: str, expr: str, *, height: int = 12, limit: int = 500) -> logs_builders.Panel:
    """Show log lines, the newest on top, each with the colour of its level."""
    panel: logs_builders.Panel = filled(
        logs_builders.Panel(), title, description, [logql(expr, lines=limit)], 24, height
    )
    return (
        panel.show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .dedup_strategy(common.LogsDedupStrategy.NONE)
        .sort_order(common.LogsSortOrder.DESCENDING)
    )


# --- Variables and links ----------------------------------------------------------------------------------------------


def datasource() -> builders.DatasourceVariable:
    """Let people choose the Loki that is asked."""
    current = models.VariableOption(text="Loki", value="loki")
    return builders.DatasourceVariable("datasource").label("Loki").type("loki").current(current)


def any_of(variable: builders.QueryVariable) -> builders.QueryVariable:
    """Let people choose several of a variable's values, in the chosen time; all of them at first."""
    return (
        variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # A line without the label is meant as well.
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all"))
    )


def label_choice(name: str, label: str, title: str, selector: str) -> builders.QueryVariable:
    """Let people choose among the values that a label of lines has."""
    query = {"label": label, "refId": name, "stream": selector, "type": 1}
    return any_of(builders.QueryVariable(name).label(title).datasource(LOKI).query(query))


def choices(selector: str) -> list[Any]:
    """Return the variables that every dashboard of lines has."""
    return [
        datasource(),
        label_choice("environment", "environment", "Environment", selector),
        label_choice("service", "service_name", "Service", selector),
        label_choice("host", "host", "Host", selector),
        label_choice("level", "level", "Level", selector),
        builders.TextBoxVariable("search").label("Search for").default_value(""),
    ]


def link_to(uid: str, title: str) -> builders.DashboardLink:
    """Link to a dashboard of ours; the chosen time goes along."""
    return (
        builders.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{uid}")
        .keep_time(True)
        .icon("dashboard")
        .tooltip("")
    )


def page(uid: str, title: str, description: str, *, since: str = "now-1h", refresh: str = "30s") -> builders.Dashboard:
    """Begin a dashboard; all of them link to one another."""
    others = (
        builders.DashboardLink("Dashboards")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .icon("external link")
        .tooltip("")
        .url("")
    )
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .time(since, "now")
        .timezone("browser")
        .refresh(refresh)
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(others)
    )
