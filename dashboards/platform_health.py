"""How the platform itself is: what comes in, what is stored, what is queried, and the disks under it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.blocks import (
    BAD,
    GOOD,
    NEUTRAL,
    NONE_IS_GOOD,
    NOTICE,
    PROMETHEUS,
    Steps,
    alerts,
    any_of,
    number,
    page,
    promql,
    series,
)

UID = "logstead-platform"
ON = 'environment=~"$environment", host=~"$host"'
FILESYSTEMS = 'fstype!~"tmpfs|ramfs|squashfs|fuse.*", mountpoint!~"/boot.*"'
FILES = f"{{{ON}, {FILESYSTEMS}}}"
FILES_ANYWHERE = f'{{environment=~"$environment", {FILESYSTEMS}}}'


def usage(files: str) -> str:
    """Return the used share of each disk.

    By device, as one may be mounted often: a host that is a container has no other mounts of its disk than the files
    /etc/hostname, /etc/hosts and /etc/resolv.conf.
    """
    return f"max by (host, device) (1 - node_filesystem_avail_bytes{files} / node_filesystem_size_bytes{files})"


def choice(label: str) -> builders.QueryVariable:
    """Let users choose among the values that a label of the scrape targets has."""
    query: dict[str, object] = {"query": f"label_values(up, {label})", "refId": label}
    return any_of(builders.QueryVariable(label).label(label.capitalize()).datasource(PROMETHEUS).query(query))


def rate(metric: str, by: str = "host", more: str = "") -> str:
    """Return a counter's increase per second."""
    return f"sum by ({by}) (rate({metric}{{{ON}{more}}}[$__rate_interval]))"


def latency(share: float, metric: str, more: str) -> str:
    """Return the duration below which a share of the requests stay, in seconds."""
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{ON}{more}}}[$__rate_interval])))"


LAG = f"clamp_min(promtail_file_bytes_total{{{ON}}} - promtail_read_bytes_total{{{ON}}}, 0)"


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(UID, "Platform health", "Loki, Promtail, Grafana and the disks; each panel names the next step.")
    for label in ("environment", "host"):
        built = built.with_variable(choice(label))
    built = built.annotation(alerts())

    built = built.with_row(builders.Row("Status"))
    rows: tuple[tuple[str, str, str, str, Steps, str], ...] = (
        (
            "Targets down",
            "Scrape targets that Prometheus cannot reach. Next: ./manage.sh status, then ./manage.sh doctor.",
            f"count(up{{{ON}}} == 0) or vector(0)",
            "short",
            [(None, GOOD), (1, BAD)],
            "",
        ),
        (
            "Rejected lines (1 h)",
            "Lines that Loki rejected in the last hour. They are lost. Next: Rejected lines by reason.",
            f"sum(increase(loki_discarded_samples_total{{{ON}}}[1h])) or vector(0)",
            "short",
            [(None, GOOD), (1, BAD)],
            "",
        ),
        (
            "Log lag",
            "Bytes of files that Promtail has not read yet. Rotation waits meanwhile. Next, if it grows: is Loki "
            "reachable, and does it reject lines? See Push retries.",
            f"sum({LAG}) or vector(0)",
            "bytes",
            [(None, GOOD), (10e6, NOTICE), (100e6, BAD)],
            "",
        ),
        (
            "Fullest disk",
            "Usage of the fullest disk. From 90 %, Loki rejects lines. Next: shorten platform_retention, which deletes "
            "data and must be confirmed, or add disk.",
            f"max({usage(FILES)})",
            "percentunit",
            [(None, GOOD), (0.8, NOTICE), (0.9, BAD)],
            "",
        ),
        (
            "Active streams",
            "Streams that Loki has in memory; its maximum is 5000. Next, if there are many: find the label with many "
            "values in platform_logs.",
            f"sum(loki_ingester_memory_streams{{{ON}}})",
            "short",
            [(None, NEUTRAL), (3000, NOTICE), (4500, BAD)],
            "",
        ),
        (
            "Time since compaction",
            "Time since the last successful run of Loki's compactor, which also applies the retention. Next, if it is "
            "hours: ./manage.sh logs loki, and search for the compactor.",
            f"time() - max(loki_boltdb_shipper_compact_tables_operation_last_successful_run_timestamp_seconds{{{ON}}} "
            f"> 0)",
            "s",
            [(None, GOOD), (3600, NOTICE), (10800, BAD)],
            "Not run yet",
        ),
    )
    for title, description, expr, unit, steps, empty in rows:
        built = built.with_panel(number(title, description, promql(expr), unit=unit, steps=steps, empty=empty))

    built = built.with_row(builders.Row("Ingestion"))
    for panel in (
        series(
            "Lines sent and received",
            "What Promtail sends and what Loki receives, per second. Next, if they differ: Rejected lines by reason, "
            "and Push retries.",
            promql(rate("promtail_sent_entries_total"), "promtail on {{host}}"),
            promql(rate("loki_distributor_lines_received_total"), "loki on {{host}}"),
        ),
        series(
            "Ingest rate",
            "Bytes that Loki receives per second, which determine how fast the disk fills. Next, if it is too high: "
            "Units with the most lines, in System log monitoring; sample DEBUG and INFO (promtail_sampling).",
            promql(rate("loki_distributor_bytes_received_total"), "loki on {{host}}"),
            unit="Bps",
        ),
        series(
            "Rejected lines by reason",
            "Lines that Loki rejects, per second. Next: for rate_limited, raise ingestion_rate_mb in "
            "loki_config_overrides; for too_far_behind or greater_than_max_sample_age, check the host's clock; for "
            "line_too_long, the application.",
            promql(rate("loki_discarded_samples_total", "reason"), "{{reason}}"),
            empty=NONE_IS_GOOD,
        ),
        series(
            "Lines dropped by Promtail",
            "Lines that Promtail drops, by reason. They are lost to Loki. Next: ./manage.sh logs promtail names them.",
            promql(rate("promtail_dropped_entries_total", "host, reason"), "{{reason}} on {{host}}"),
        ),
        series(
            "Push retries",
            "Batches that Promtail had to send again. Next: if Loki is up, its log has the reason.",
            promql(rate("promtail_batch_retries_total"), "promtail on {{host}}"),
        ),
        series(
            "Log lag by file",
            "Bytes of each file that Promtail has not read yet. Next: see Log lag.",
            promql(LAG, "{{path}} on {{host}}"),
            unit="bytes",
        ),
    ):
        built = built.with_panel(panel)

    built = built.with_row(builders.Row("Loki and Grafana"))
    for panel in (
        series(
            "p95 query latency",
            "95 % of Loki's queries take less. Next, if it is slow: select a shorter time or fewer streams; Loki's log "
            "has each slow query.",
            promql(latency(0.95, "loki_request_duration_seconds", ', route=~"loki_api_v1_query.*"'), "p95"),
            unit="s",
            empty="No queries yet",
        ),
        series(
            "Responses by status",
            "Responses of Loki and Grafana per second. Next: for 5xx, ./manage.sh logs of the service; 429 and 400 of "
            "Loki are rejected pushes.",
            promql(
                "sum by (job, status_code) (rate({__name__=~"
                '"(loki_request|grafana_http_request)_duration_seconds_count", method!="gRPC", '
                f"{ON}}}[$__rate_interval]))",
                "{{job}} {{status_code}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        series(
            "WAL write rate",
            "Bytes written to Loki's write-ahead log per second. Lines that are not flushed yet are only there. Next, "
            "if it stops: the disk is full or broken.",
            promql(rate("loki_ingester_wal_logged_bytes_total"), "loki on {{host}}"),
            unit="Bps",
        ),
        series(
            "Flush queue",
            "Chunks that wait to be written. Next, if the queue grows: the disk is too slow.",
            promql(f"sum by (host) (loki_ingester_flush_queue_length{{{ON}}})", "loki on {{host}}"),
        ),
    ):
        built = built.with_panel(panel)

    built = built.with_row(builders.Row("Disks and processes"))
    for panel in (
        series(
            "Disk usage",
            "Used share of each disk. Next: see Fullest disk.",
            promql(usage(FILES), "{{device}} on {{host}}"),
            unit="percentunit",
            at_most=1,
            limit=0.9,
        ),
        series(
            "Days until full",
            "By how fast each disk has filled in 6 hours. Next: see Fullest disk.",
            promql(
                f"min by (host, device) (node_filesystem_avail_bytes{FILES}"
                f" / (-deriv(node_filesystem_avail_bytes{FILES}[6h]) > 0) / 86400)",
                "{{device}} on {{host}}",
            ),
            unit="d",
            empty="No disk is filling",
        ),
        series(
            "Memory",
            "Resident memory of each service. Next, if it is at its maximum: raise <role>_memory_max.",
            promql(f"process_resident_memory_bytes{{{ON}}}", "{{job}} on {{host}}"),
            unit="bytes",
        ),
        series(
            "CPU",
            "Cores that each service uses.",
            promql(rate("process_cpu_seconds_total", "job, host"), "{{job}} on {{host}}"),
        ),
        series(
            "Scrape targets up",
            "1 while Prometheus can scrape the target. Next: ./manage.sh status.",
            promql(f"min by (job, host) (up{{{ON}}})", "{{job}} on {{host}}"),
            at_most=1,
        ),
    ):
        built = built.with_panel(panel)
    return built
