"""What all dashboards are built from: queries, panels, variables and links that look the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.logstead.platform.plugins.filter.dashboards import DRILLDOWN, bar_name
from ansible_collections.logstead.platform.plugins.plugin_utils.components import ROLES, defaults_of
from ansible_collections.logstead.platform.plugins.plugin_utils.noise import noise_filter
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
DEFAULTS = defaults_of(ROLES / "platform")
# The share of failed requests above which the alert HighErrorRate fires.
ERROR_RATIO_LIMIT: float = DEFAULTS["platform_alert_rules"]["HighErrorRate"]["above"]

# Of charts and rankings, in rows of the page; ten bars fit in.
HEIGHT, BAR_HEIGHT = 9, 18

# Red is for what somebody must act on, orange and yellow for what is worth a look. Neutral values have no colour.
NEUTRAL, GOOD, NOTICE, WARN, BAD = "text", "green", "yellow", "orange", "red"
Steps = Sequence[tuple[float | None, str]]

NONE_IS_GOOD = "None, as it should be"
NO_REQUESTS = "No requests"
NO_MATCH = "No line matches"


# --- Queries ----------------------------------------------------------------------------------------------------------


def logql(expr: str, legend: str = "", *, instant: bool = False, lines: int | None = None) -> loki.Dataquery:
    """Ask Loki."""
    query = loki.Dataquery().expr(expr).query_type("instant" if instant else "range").datasource(LOKI)
    query = query.legend_format(legend) if legend else query
    return query.max_lines(lines) if lines else query


def having(field: str) -> str:
    """Keep the JSON lines that have a field, which can then be aggregated by.

    The filter on the text comes first: it is cheap, and the others see fewer lines.
    """
    return f'|= `"{field}"` | json {field}="{field}" | {field}!=""'


def having_either(field: str, other: str, values: str) -> str:
    """Keep the JSON lines that have a field under one of two names; `values` is a regular expression of its values.

    `other` is the beginning of `field`, so that one filter on the text finds both.
    """
    return (
        f'|= `"{other}` | json {field}="{field}", {other}="{other}"'
        f" | label_format {field}=`{{{{ or .{field} .{other} }}}}` | {field}=~`{values}`"
    )


# Requests and how long they took, as records of several loggers name them.
HAVING_STATUS = having_either("status_code", "status", "[1-5][0-9][0-9]")
HAVING_DURATION = having_either("duration_ms", "duration", "[0-9].*")
# The text of a JSON record: of the standard library, structlog and pino, and of several formatters of stack traces.
MESSAGE, STACK = "or .message .event .msg", "or .exception .stack .err_stack"


def readable(selected: str, *, source: str = "service_name", search: bool = False) -> str:
    """Return a query of lines as people read them: level, source and message, then the stack trace.

    Parsing decodes what JSON escapes, such as line breaks and non-ASCII text. All fields of a record are in the line's
    details. A search has to find the decoded text too, so lines with an escape are compared again after parsing.
    """
    before = after = ""
    if search:
        # Without the stars, Loki would take an empty search for lines with a backslash alone.
        before = r" |~ `(?i).*${search:regex}.*|\\`"
        after = (
            f" | label_format searched=`{{{{ __line__ }}}} {{{{ {MESSAGE} }}}} {{{{ {STACK} }}}}`"
            " | searched=~`(?is).*${search:regex}.*` | drop searched"
        )
    parse = " | json | drop __error__, __error_details__"
    # What a record repeats of its labels.
    repeated = " | drop level_extracted, service_name_extracted, trace_id_extracted, span_id_extracted"
    message = (
        f"{{{{ if {MESSAGE} }}}}{{{{ {MESSAGE} }}}}"
        "{{ if .duration_ms }}  ({{ .duration_ms }} ms){{ else if .duration }}  ({{ .duration }}){{ end }}"
        f'{{{{ with {STACK} }}}}{{{{ "\\n" }}}}{{{{ . }}}}{{{{ end }}}}'
        "{{ else }}{{ __line__ }}{{ end }}"
    )
    shown = f" | line_format `{{{{ alignLeft 8 .level }}}} {{{{ .{source} }}}}  {message}`"
    return selected + before + parse + after + repeated + shown


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


def filled(
    panel: Any, title: str, description: str, queries: Sequence[Query], span: int, height: int, empty: str = ""
) -> Any:
    """Give a panel what every panel has. `empty` is shown instead of "No data"."""
    panel = panel.title(title).description(description).span(span).height(height)
    for name, query in zip("ABCDEFGH", queries):
        panel = panel.with_target(query.ref_id(name))
    if empty:
        panel = panel.no_value(empty)
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
    empty: str = "",
) -> timeseries.Panel:
    """Show how values change; stacked ones are counts, which add up. `limit` is drawn as a line."""
    panel: timeseries.Panel = filled(timeseries.Panel(), title, description, queries, span, HEIGHT, empty)
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    panel = panel.unit(unit).min(0).show_points(common.VisibilityMode.NEVER)
    panel = panel.tooltip(tooltip.sort(common.SortOrder.DESCENDING))
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
    steps: Steps = ((None, NEUTRAL),),
    span: int = 4,
    link: str = "",
    total: bool = False,
    empty: str = "",
) -> stat_builders.Panel:
    """Show the newest value, or the `total` of all, with a sparkline if the query is one over time.

    `link` is the uid of the dashboard with the details.
    """
    panel: stat_builders.Panel = filled(stat_builders.Panel(), title, description, [query], span, 4, empty)
    reduced = common_builders.ReduceDataOptions().calcs(["sum" if total else "lastNotNull"])
    panel = panel.unit(unit).thresholds(thresholds(steps)).reduce_options(reduced)
    panel = panel.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.AREA)
    return panel.links([link_to(link, "Details")]) if link else panel


def ranking(title: str, description: str, expr: str, legend: str, *, empty: str, color: str = "blue") -> bargauge.Panel:
    """Show the first ten of many, the largest on top. Grafana makes one table of all: its rows are the bars."""
    query = logql(expr, legend, instant=True)
    panel: bargauge.Panel = filled(bargauge.Panel(), title, description, [query], 12, HEIGHT, empty)
    return (
        panel.unit("short")
        # Said itself, as a single bar would have no name.
        .display_name(bar_name(legend))
        .min(0)
        .thresholds(thresholds([(None, color)]))
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        # Otherwise the bars share the panel's height, and a single one fills it.
        .sizing(common.BarGaugeSizing.MANUAL)
        .min_viz_height(BAR_HEIGHT)
        .max_viz_height(BAR_HEIGHT)
        .text(common_builders.VizTextDisplayOptions().title_size(13).value_size(13))
        .reduce_options(common_builders.ReduceDataOptions().values(True).calcs(["lastNotNull"]))
    )


def lines(
    title: str,
    description: str,
    expr: str,
    *,
    height: int = 12,
    limit: int = 500,
    empty: str = NO_MATCH,
    oldest_first: bool = False,
) -> logs_builders.Panel:
    """Show log lines, the newest on top, each with the colour of its level."""
    panel: logs_builders.Panel = filled(
        logs_builders.Panel(), title, description, [logql(expr, lines=limit)], 24, height, empty
    )
    order = common.LogsSortOrder.ASCENDING if oldest_first else common.LogsSortOrder.DESCENDING
    return (
        panel.show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .dedup_strategy(common.LogsDedupStrategy.NONE)
        .sort_order(order)
    )


# --- Annotations ------------------------------------------------------------------------------------------------------


class Annotation(models.AnnotationQuery):
    """Events of a data source, with what the SDK's model leaves out: the texts."""

    def __init__(self, name: str, source: models.DataSourceRef, expr: str, color: str, **texts: str) -> None:
        super().__init__(name=name, datasource=source, expr=expr, icon_color=color)
        self.texts = texts

    def to_json(self) -> dict[str, object]:
        """Return what Grafana reads."""
        return {**super().to_json(), **self.texts}

    def build(self) -> models.AnnotationQuery:
        """Return itself, as a dashboard wants to build what it is given."""
        return self


def deploys() -> Any:
    """Mark starts, restarts and reloads by the platform, which it writes to each host's journal."""
    expr = '{job="systemd-journal", environment=~"$environment"} | identifier="logstead"'
    return Annotation("Deploys", LOKI, expr, "blue", titleFormat="{{host}}", tagKeys="host")


def alerts() -> Any:
    """Mark for how long alerts have been firing: those of Prometheus and of Loki's ruler."""
    expr = 'ALERTS{alertstate="firing", environment=~"$environment"}'
    texts = {"titleFormat": "{{alertname}}", "textFormat": "{{host}} {{service_name}}", "tagKeys": "severity"}
    return Annotation("Firing alerts", PROMETHEUS, expr, BAD, step="60s", **texts)


# --- Variables and links ----------------------------------------------------------------------------------------------


def datasource() -> builders.DatasourceVariable:
    """Let users choose the Loki that is queried."""
    current = models.VariableOption(text="Loki", value="loki")
    return builders.DatasourceVariable("datasource").label("Loki").type("loki").current(current)


def any_of(variable: builders.QueryVariable) -> builders.QueryVariable:
    """Let users choose several of a variable's values, in the chosen time; all of them at first."""
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
    """Let users choose among the values that a label of lines has."""
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


def noise() -> builders.ConstantVariable:
    """Return the filter that leaves known noise out; the role grafana replaces it by that of its inventory."""
    return builders.ConstantVariable("noise").value(noise_filter(DEFAULTS["platform_known_noise"]))


def drilldown() -> builders.DashboardLink:
    """Link to Logs Drilldown; the role grafana removes the link where that isn't installed."""
    return (
        builders.DashboardLink("Logs Drilldown")
        .type(models.DashboardLinkType.LINK)
        .url(DRILLDOWN)
        .keep_time(True)
        .icon("external link")
        .tooltip("")
    )


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
