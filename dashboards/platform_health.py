"""How the platform itself is: what comes in, what is stored, what is asked, and the disks under it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.blocks import BAD, GOOD, PROMETHEUS, any_of, number, page, promql, series

UID = "logstead-platform"
ON = 'environment=~"$environment", host=~"$host"'
FILESYSTEMS = 'fstype!~"tmpfs|ramfs|squashfs|fuse.*", mountpoint!~"/boot.*"'
FILES = f"{{{ON}, {FILESYSTEMS}}}"
FILES_ANYWHERE = f'{{environment=~"$environment", {FILESYSTEMS}}}'


def choice(label: str) -> builders.QueryVariable:
    """Let people choose among the values that a label of the scraped targets has."""
    query: dict[str, object] = {"query": f"label_values(up, {label})", "refId": label}
    return any_of(builders.QueryVariable(label).label(label.capitalize()).datasource(PROMETHEUS).query(query))


def rate(metric: str, by: str = "host", more: str = "") -> str:
    """Return a counter's increase per second."""
    return f"sum by ({by}) (rate({metric}{{{ON}{more}}}[$__rate_interval]))"


def latency(share: float, metric: str, more: str) -> str:
    """Return the duration below which a share of the requests stay, in seconds."""
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{ON}{more}}}[$__rate_interval])))"


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(UID, "Platform health", "Loki, Promtail, Grafana and the disks; each panel says what to do next.")
    for label in ("environment", "host"):
        built = built.with_variable(choice(label))

    built = built.with_row(builders.Row("Now"))
    rows = (
        (
            "Parts that are down",
            "Targets that Prometheus can't scrape. Next: ./manage.sh status, then ./manage.sh doctor.",
            f"count(up{{{ON}}} == 0) or vector(0)",
            "short",
            [(None, GOOD), (1, BAD)],
        ),
        (
            "Rejected lines in an hour",
            "Lines that Loki refused; they are lost. Next: the reasons are below.",
            f"sum(increase(loki_discarded_samples_total{{{ON}}}[1h])) or vector(0)",
            "short",
            [(None, GOOD), (1, BAD)],
        ),
        (
            "Behind",
            "Bytes of files that Promtail hasn't read yet. Next, if it grows: is Loki reachable, and does it refuse? "
            "See "
            "Retries. Rotation waits meanwhile.",
            f"sum(clamp_min(promtail_file_bytes_total{{{ON}}} - promtail_read_bytes_total{{{ON}}}, 0)) or vector(0)",
            "bytes",
            [(None, GOOD), (10e6, "yellow"), (100e6, BAD)],
        ),
        (
            "Fullest disk",
            "Used share of the fullest file system. Next: shorten platform_retention (it deletes data, so it asks), "
            "or add "
            "disk. From 90 % on, Loki refuses lines.",
            f"max(1 - node_filesystem_avail_bytes{FILES} / node_filesystem_size_bytes{FILES})",
            "percentunit",
            [(None, GOOD), (0.8, "yellow"), (0.9, BAD)],
        ),
        (
            "Streams",
            "Streams that Loki has in memory; 5000 is its limit. Next, if many: look for a label with many values "
            "among "
            "promtail_log_files.",
            f"sum(loki_ingester_memory_streams{{{ON}}})",
            "short",
            [(None, GOOD), (3000, "yellow"), (4500, BAD)],
        ),
        (
            "Since the last compaction",
            "Time since Loki's compactor last ended well; it also deletes what is too old. Next, if hours: "
            "./manage.sh logs "
            "loki, and look for the compactor. Empty for the first minutes after Loki's start.",
            f"time() - max(loki_boltdb_shipper_compact_tables_operation_last_successful_run_timestamp_seconds{{{ON}}} "
            f"> 0)",
            "s",
            [(None, GOOD), (3600, "yellow"), (10800, BAD)],
        ),
    )
    for title, description, expr, unit, steps in rows:
        built = built.with_panel(number(title, description, promql(expr, instant=True), unit=unit, steps=steps))

    built = built.with_row(builders.Row("Lines on their way"))
    for panel in (
        series(
            "Lines read and stored",
            "What Promtail sends, and what Loki takes, per second. Next, if they part: Rejected lines, and Retries.",
            promql(rate("promtail_sent_entries_total"), "sent by {{host}}"),
            promql(rate("loki_distributor_lines_received_total"), "received by {{host}}"),
        ),
        series(
            "Bytes stored",
            "What Loki takes, per second; by this the disk fills. Next, if too much: Units with the most lines, in "
            "System "
            "log monitoring; sample DEBUG and INFO (promtail_sampling).",
            promql(rate("loki_distributor_bytes_received_total"), "{{host}}"),
            unit="Bps",
        ),
        series(
            "Rejected lines by reason",
            "Lines that Loki refused. Empty is good. Next: rate_limited, raise ingestion_rate_mb in "
            "loki_config_overrides; "
            "too_far_behind or greater_than_max_sample_age, look at the host's clock; line_too_long, the application.",
            promql(rate("loki_discarded_samples_total", "reason"), "{{reason}}"),
        ),
        series(
            "Dropped by Promtail",
            "Lines that Promtail gave up, by reason. Anything but 0 is lost. Next: ./manage.sh logs promtail says "
            "which.",
            promql(rate("promtail_dropped_entries_total", "host, reason"), "{{reason}} on {{host}}"),
        ),
        series(
            "Retries",
            "Batches that Promtail had to send again. Next: if Loki is up, its log says why it refuses.",
            promql(rate("promtail_batch_retries_total"), "{{host}}"),
        ),
        series(
            "Behind by file",
            "Bytes of each file that Promtail hasn't read yet. Next: see Behind.",
            promql(
                f"clamp_min(promtail_file_bytes_total{{{ON}}} - promtail_read_bytes_total{{{ON}}}, 0)",
                "{{path}} on {{host}}",
            ),
            unit="bytes",
        ),
    ):
        built = built.with_panel(panel)

    built = built.with_row(builders.Row("Loki"))
    for panel in (
        series(
            "Query latency",
            "How long Loki takes to answer. Next, if slow: choose a shorter time or fewer streams; the log line with "
            "query= tells the slow ones.",
            promql(latency(0.5, "loki_request_duration_seconds", ', route=~"loki_api_v1_query.*"'), "p50"),
            promql(latency(0.99, "loki_request_duration_seconds", ', route=~"loki_api_v1_query.*"'), "p99"),
            unit="s",
        ),
        series(
            "Answers by status",
            "Loki's answers per second. Next: 5xx, ./manage.sh logs loki; 429 and 400 are refused pushes.",
            promql(rate("loki_request_duration_seconds_count", "status_code", ', method!="gRPC"'), "{{status_code}}"),
            unit="reqps",
            stacked=True,
        ),
        series(
            "Write-ahead log",
            "Bytes written to it per second; what isn't flushed yet is in it alone. Next, if writes fail: the disk is "
            "full or "
            "broken.",
            promql(rate("loki_ingester_wal_logged_bytes_total"), "written on {{host}}"),
            promql(rate("loki_ingester_wal_disk_full_failures_total"), "refused for lack of disk on {{host}}"),
            unit="Bps",
        ),
        series(
            "Chunks",
            "Chunks in memory, and those that wait to be written. Next, if the queue grows: the disk is too slow.",
            promql(f"sum by (host) (loki_ingester_memory_chunks{{{ON}}})", "in memory on {{host}}"),
            promql(f"sum by (host) (loki_ingester_flush_queue_length{{{ON}}})", "waiting on {{host}}"),
        ),
    ):
        built = built.with_panel(panel)

    built = built.with_row(builders.Row("Disks and processes"))
    for panel in (
        series(
            "Disk used",
            "Used share of each file system. Next: see Fullest disk.",
            promql(
                f"1 - node_filesystem_avail_bytes{FILES} / node_filesystem_size_bytes{FILES}",
                "{{mountpoint}} on {{host}}",
            ),
            unit="percentunit",
            at_most=1,
            limit=0.9,
        ),
        series(
            "Days until a disk is full",
            "By how fast it has filled in 6 hours. Empty while no disk fills. Next: see Fullest disk.",
            promql(
                f"node_filesystem_avail_bytes{FILES} / (-deriv(node_filesystem_avail_bytes{FILES}[6h]) > 0) / 86400",
                "{{mountpoint}} on {{host}}",
            ),
            unit="d",
        ),
        series(
            "Memory",
            "Memory of each part. Next, if at its limit: raise <role>_memory_max.",
            promql(f"process_resident_memory_bytes{{{ON}}}", "{{job}} on {{host}}"),
            unit="bytes",
        ),
        series(
            "Processor time",
            "Processors that each part keeps busy.",
            promql(rate("process_cpu_seconds_total", "job, host"), "{{job}} on {{host}}"),
        ),
        series(
            "Grafana's answers",
            "Grafana's answers per second, by status. Next: 5xx, ./manage.sh logs grafana.",
            promql(rate("grafana_http_request_duration_seconds_count", "status_code"), "{{status_code}}"),
            unit="reqps",
            stacked=True,
        ),
        series(
            "Reachable parts",
            "1 while Prometheus can scrape the part. Next: ./manage.sh status.",
            promql(f"min by (job, host) (up{{{ON}}})", "{{job}} on {{host}}"),
            at_most=1,
        ),
    ):
        built = built.with_panel(panel)
    return built
