"""Two environments that share one Loki: prod has it, dev's hosts are in an inventory of their own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import (
    REPOSITORY,
    Hosts,
    check_no_secret_is_readable,
    check_service,
    eventually,
    fetch,
    journal,
    run_playbook,
    unique,
)

GATEWAY = "https://10.89.77.131:3102"
API = f"{GATEWAY}/loki/api/v1"
OPEN = ("query", "query_range", "labels", "label/job/values", "series", "index/stats", "index/volume", "patterns")
CLOSED = (
    "/metrics",
    "/config",
    "/services",
    "/ring",
    "/memberlist",
    "/log_level",
    "/compactor/ring",
    "/scheduler/ring",
    "/ruler/ring",
    "/indexgateway/ring",
    "/flush",
    "/ingester/flush",
    "/ingester/shutdown",
    "/ingester/prepare_shutdown",
    "/debug/pprof/",
    "/loki/api/v1/delete",
    "/loki/api/v1/cache/generation_numbers",
    "/loki/api/v1/query/../delete",
    "/loki/api/v1/label/%2e%2e/delete",
    "/loki/api/v1/label/..%2f..%2f..%2f..%2fingester%2fshutdown/values",
    "/loki/api/v1/query/../../../../ingester/shutdown",
    "//ingester/shutdown",
    "/otlp/v1/logs",
    "/api/prom/push",
    "/",
)
DEV = ("-i", str(REPOSITORY / "tests/hosts/inventory"), "-i", str(REPOSITORY / "molecule/gateway/dev"))
UNCHANGED = re.compile(r"\bchanged=0\b.*\bunreachable=0\b.*\bfailed=0\b")


def log_in(user: str) -> tuple[str, ...]:
    """Return curl's options for a user of this scenario, who verifies the gateway by its CA."""
    return ("--cacert", "/etc/promtail/ca.pem", "--user", f"{user}:{user}-only-for-this-test")


def as_tenant(tenant: str) -> tuple[str, ...]:
    """Return curl's options for a tenant that is named by hand."""
    return ("--header", f"X-Scope-OrgID: {tenant}")


ANONYMOUS = ("--cacert", "/etc/promtail/ca.pem")


def statuses(host: Any, asked: list[tuple[str, str]], *options: str) -> dict[tuple[str, str], int]:
    """Return what is answered to each method and path, all of them asked for by one command."""
    how = ("curl", "--silent", "--path-as-is", "--output", "/dev/null", "--write-out", "%{http_code} ")
    lines = (shlex.join((*how, *options, "--request", method, GATEWAY + path)) for method, path in asked)
    return dict(zip(asked, map(int, host.run("; ".join(lines)).stdout.split()), strict=True))


def push(host: Any, line: str, *options: str, hours_ago: int = 0) -> int:
    """Push a line, of now or of some time ago; return the status."""
    when = time.time_ns() - hours_ago * 3600 * 10**9
    body = {"streams": [{"stream": {"job": "old" if hours_ago else "probe"}, "values": [[str(when), line]]}]}
    words = "--header", "Content-Type: application/json", "--data", json.dumps(body)
    return fetch(host, f"{API}/push", *words, *options)[0]


def found(host: Any, query: str, *options: str) -> int:
    """Return how many lines of the last hour a user finds."""
    words = "--get", "--data-urlencode", f"query=sum(count_over_time({query} [1h]))"
    status, body = fetch(host, f"{API}/query", *words, *options)
    assert status == 200, f"{status}: {body}"
    result = json.loads(body)["data"]["result"]
    return int(result[0]["value"][1]) if result else 0


@pytest.fixture(scope="module")
def store() -> Any:
    """The host of Loki, the gateway and Grafana, which is prod's."""
    (host,) = Hosts("gateway-debian12")
    return host


@pytest.fixture(scope="module")
def dev(store: Any) -> Callable[..., str]:
    """What runs a playbook with dev's inventory, and returns what it printed."""
    ca = store.check_output("cat /etc/gateway/ca.pem")

    def run(playbook: str, *arguments: str, **variables: Any) -> str:
        code, output = run_playbook(playbook, *DEV, *arguments, **{"platform_gateway_ca": ca, **variables})
        assert code == 0, output
        return output

    return run


@pytest.fixture(scope="module")
def client(dev: Callable[..., str]) -> Any:
    """A host of dev, whose Promtail sends through the gateway."""
    dev("site.yml", "--check")
    dev("site.yml")
    (host,) = Hosts("gateway-debian13")
    host.check_output("install -d -o root -g adm -m 2750 /var/log/app")
    return host


@pytest.mark.usefixtures("client")
def test_a_second_run_with_the_other_inventory_changes_nothing(dev: Callable[..., str]) -> None:
    recap = dev("site.yml").rpartition("PLAY RECAP")[2]
    assert UNCHANGED.search(recap), recap


def test_the_gateway_runs_by_itself_and_shut_off_and_debians_own_nginx_does_not(store: Any) -> None:
    check_service(store, "gateway")
    assert store.run("systemctl is-active nginx.service").stdout.strip() == "inactive"
    assert store.check_output("ss -Hltn sport = :80") == ""
    for folder in ("/etc/gateway", "/etc/promtail", "/etc/grafana"):
        check_no_secret_is_readable(store, "only-for-this-test", folder)
    assert not store.run("grep -rl only-for-this-test /etc/gateway").stdout, "a password is there unhashed"
    assert store.file("/etc/gateway/ca.key").mode == 0o600


def test_without_a_credential_nothing_answers(client: Any) -> None:
    paths = (*(f"/loki/api/v1/{name}" for name in (*OPEN, "tail", "push", "rules")), "/ready", *CLOSED)
    answers = statuses(client, [(method, path) for path in paths for method in ("GET", "POST")], *ANONYMOUS)
    # Rules can't be written by anybody.
    assert answers.pop(("POST", "/loki/api/v1/rules")) in (401, 403)
    assert set(answers.values()) == {401}, answers
    assert fetch(client, f"{GATEWAY}/health", *ANONYMOUS) == (200, "logstead gateway\n")


def test_who_does_not_verify_by_the_ca_gets_no_connection(client: Any) -> None:
    assert client.run(f"curl -s {GATEWAY}/health").rc == 60


def test_lokis_own_ports_are_out_of_reach(client: Any, store: Any) -> None:
    for port in (3101, 9096):
        assert client.run(f"curl -s --max-time 5 http://10.89.77.131:{port}/ready").rc == 7
    assert fetch(store, "http://127.0.0.1:3101/ready")[0] == 200


def test_a_reader_may_ask_and_do_nothing_else(client: Any) -> None:
    for name in OPEN:
        query = 'count_over_time({job="probe"}[1h])' if name == "query" else '{job="probe"}'
        words = "--get", "--data-urlencode", f"query={query}", "--data-urlencode", 'match[]={job="probe"}'
        status, body = fetch(client, f"{API}/{name}", *words, *log_in("dev-read"))
        assert status == 200, f"{name}: {status} {body}"
    closed = [(method, path) for path in CLOSED for method in ("GET", "POST", "PUT", "DELETE")]
    closed += [(method, "/loki/api/v1/rules/x") for method in ("POST", "DELETE")]
    answers = statuses(client, closed, *log_in("dev-read"))
    assert set(answers.values()) == {403}, answers
    socket = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: " + 22 * "A" + "==",
    )
    upgrade = [word for header in socket for word in ("--header", header)]
    tail = ("GET", "/loki/api/v1/tail?query=%7Bjob%3D%22probe%22%7D")
    assert statuses(client, [tail], *upgrade, "--http1.1", "--max-time", "3", *log_in("dev-read")) == {tail: 101}


def test_a_credential_is_for_one_purpose(client: Any) -> None:
    assert fetch(client, f"{API}/labels", *log_in("dev-write"))[0] == 401
    # 503, not 401: a collector throws away what is answered with 401.
    assert push(client, unique("refused"), *log_in("dev-read")) == 503


def test_nobody_writes_or_reads_as_somebody_else(client: Any) -> None:
    line = unique("whose")
    query = f'{{job="probe"}} |= "{line}"'
    assert push(client, line, *log_in("dev-write"), *as_tenant("prod")) == 204
    assert push(client, line, *log_in("dev-write"), *as_tenant("prod|dev")) == 204
    eventually(lambda: found(client, query, *log_in("dev-read")) == 2)
    assert found(client, query, *log_in("prod-read")) == 0
    assert found(client, query, *log_in("prod-read"), *as_tenant("dev")) == 0
    secret = unique("prods")
    assert push(client, secret, *log_in("prod-write")) == 204
    query = f'{{job="probe"}} |= "{secret}"'
    eventually(lambda: found(client, query, *log_in("prod-read")) == 1)
    for named in ("prod", "dev|prod", "prod|dev"):
        assert found(client, query, *log_in("dev-read"), *as_tenant(named)) == 0


def test_a_tenant_has_a_retention_and_limits_of_its_own(client: Any, store: Any) -> None:
    line = unique("two-days-old")
    # Its time is beyond the day that dev's lines are kept, and within what prod's are.
    for tenant in ("dev", "prod"):
        assert push(client, line, *log_in(f"{tenant}-write"), hours_ago=48) == 204
    # A query of long ago looks only at what has been written to disk.
    assert fetch(store, "http://127.0.0.1:3101/flush", "--request", "POST")[0] == 204

    def ask(tenant: str, limit: int) -> tuple[int, str]:
        query = f'query={{job="old"}} |= "{line}"', "since=72h", f"limit={limit}"
        words = [word for each in query for word in ("--data-urlencode", each)]
        return fetch(client, f"{API}/query_range", "--get", *words, *log_in(f"{tenant}-read"))

    eventually(lambda: f'"{line}"' in ask("prod", 7778)[1])
    status, answer = ask("dev", 7777)
    assert (status, json.loads(answer)["data"]["result"]) == (200, [])
    status, answer = ask("dev", 7778)
    assert (status, "limit > max_entries_limit_per_query (7778 > 7777)" in answer) == (400, True), answer


def test_each_environments_journal_is_its_own(client: Any, store: Any) -> None:
    lines = {}
    for host, environment in ((client, "dev"), (store, "prod")):
        lines[environment] = unique(environment)
        host.check_output(f"logger {lines[environment]}")
    for environment, other in (("dev", "prod"), ("prod", "dev")):
        query = f'{{job="systemd-journal", environment="{environment}"}} |= "{lines[environment]}" != "probe"'
        eventually(
            lambda: found(client, query, *log_in(f"{environment}-read")) > 0,
            otherwise=lambda: journal(client, "promtail") + journal(store, "promtail", "gateway"),
        )
        assert found(client, query, *log_in(f"{other}-read")) == 0


# A thousand lines a second, until told to end; it ends by itself after some minutes.
WRITER = """
import json, os, time
from datetime import datetime, timezone
start = time.time()
os.umask(0o027)
with open("/var/log/app/app.log", "a", buffering=1) as log:
    for number in range(200000):
        time.sleep(max(0, start + number / 1000 - time.time()))
        now = time.time_ns()
        second = datetime.fromtimestamp(now // 10**9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        record = dict(timestamp=f"{{second}}.{{now % 10**9:09d}}Z", level="INFO", message="{word} %d" % number)
        print(json.dumps(record), file=log)
        if os.path.exists("/run/{word}"):
            break
"""


def test_no_line_is_lost_or_sent_twice_through_the_gateway(client: Any) -> None:
    word = unique("numbered")
    writer = shlex.quote(WRITER.format(word=word))
    client.check_output(f"systemd-run --unit=writer --collect -p Type=exec /usr/bin/python3 -c {writer}")
    query = f'{{job="app"}} |= "{word}"'

    def count() -> int:
        return found(client, query, *log_in("dev-read"))

    def told() -> str:
        return journal(client, "promtail")

    try:
        for action in ("kill --signal=SIGKILL promtail", "restart promtail", "kill --signal=SIGKILL promtail"):
            before = count()
            eventually(lambda: count() > before, seconds=60, otherwise=told)
            client.check_output(f"systemctl {action}")
    finally:
        client.check_output(f"touch /run/{word}")
    eventually(lambda: client.run("systemctl is-active writer").rc != 0)
    written = int(client.check_output(f"grep -c {word} /var/log/app/app.log"))
    eventually(lambda: count() >= written, seconds=60, otherwise=told)
    assert count() == written
    assert "Promtail goes on where it was" not in told()


def test_a_password_that_is_changed_at_the_gateway_first_costs_no_line(client: Any, store: Any) -> None:
    line = unique("waits")
    files = "/etc/gateway/write.htpasswd /etc/gateway/read.htpasswd"
    store.check_output(f"sed -i.was 's/^dev-/was-/' {files}")
    try:
        record = f'{{\\"timestamp\\":\\"$(date -u +%FT%T.%NZ)\\",\\"level\\":\\"INFO\\",\\"message\\":\\"{line}\\"}}'
        client.check_output(f'umask 027; echo "{record}" >> /var/log/app/app.log')
        sent = 'promtail_request_duration_seconds_count{host="10.89.77.131:3102",status_code="503"}'
        eventually(
            lambda: sent in fetch(client, "http://127.0.0.1:9080/metrics")[1],
            otherwise=lambda: fetch(client, "http://127.0.0.1:9080/metrics")[1],
        )
        client.check_output("systemctl restart promtail")
        eventually(lambda: "waiting for Loki" in fetch(client, "http://127.0.0.1:9080/ready")[1])
    finally:
        store.check_output(f"for file in {files}; do cat $file.was > $file; rm $file.was; done")
    query = f'{{job="app"}} |= "{line}"'
    eventually(
        lambda: found(client, query, *log_in("dev-read")) > 0,
        seconds=60,
        otherwise=lambda: journal(client, "promtail"),
    )
    assert found(client, query, *log_in("dev-read")) == 1


def test_a_tenants_rules_are_held_against_its_own_lines(store: Any) -> None:
    def firing(tenant: str) -> list[str]:
        _, body = fetch(store, "http://127.0.0.1:3101/prometheus/api/v1/alerts", *as_tenant(tenant))
        alerts = json.loads(body)["data"]["alerts"]
        # Lines that another test has sent by itself have no environment.
        return [alert["labels"]["environment"] for alert in alerts if "environment" in alert["labels"]]

    assert eventually(lambda: firing("prod"), otherwise=lambda: journal(store, "loki")) == ["prod"]
    # Dev's rules are none of this inventory's business.
    assert firing("dev") == []


def test_grafana_has_a_data_source_for_each_tenant_that_it_may_read(store: Any) -> None:
    log_in_to_grafana = "--user", "admin:only-for-this-test"
    for uid, tenant, other in (("loki", "prod", "dev"), ("loki-dev", "dev", "prod")):
        url = f"http://127.0.0.1:3100/api/datasources/uid/{uid}"
        status, body = fetch(store, f"{url}/health", *log_in_to_grafana)
        assert (status, json.loads(body)["status"]) == (200, "OK"), body
        url = f"http://127.0.0.1:3100/api/datasources/proxy/uid/{uid}/loki/api/v1/label/environment/values"
        status, body = fetch(store, url, *log_in_to_grafana)
        assert (status, json.loads(body)["data"]) == (200, [tenant]), (other, body)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("playbook", ["doctor", "status", "delete_lines"])
def test_the_other_playbooks_work_with_tenants(dev: Callable[..., str], playbook: str) -> None:
    code, output = run_playbook(f"playbooks/{playbook}.yml", "-vv")
    assert code == 0, output
    assert "only-for-this-test" not in output
    if playbook == "delete_lines":
        assert "There is no request." in output
    else:
        output = dev(f"playbooks/{playbook}.yml", "-vv")
        assert "write-only-for-this-test" not in output
        assert "read-only-for-this-test" not in output


# The gateway's certificate once more, with an end that is near.
SHORTEN = """
set -e
cd /etc/gateway
sed -n '/PRIVATE/,/PRIVATE/p' certificate.pem > /tmp/pair.pem
echo 'subjectAltName = IP:10.89.77.131, DNS:gateway-debian12' > /tmp/names
openssl x509 -in certificate.pem -x509toreq -signkey certificate.pem |
    openssl x509 -req -CA ca.pem -CAkey ca.key -days 30 -extfile /tmp/names >> /tmp/pair.pem
cat /tmp/pair.pem > certificate.pem
rm /tmp/pair.pem
systemctl restart gateway
"""


def test_a_certificate_that_is_about_to_end_is_renewed_and_clients_go_on(client: Any, store: Any) -> None:
    before = store.check_output("cat /etc/gateway/ca.pem")
    store.check_output(SHORTEN)
    served = "openssl s_client -connect 10.89.77.131:3102 < /dev/null 2>/dev/null"
    shown = f"{served} | openssl x509 -noout"
    last = 90 * 86400
    assert store.run(f"{shown} -checkend {last}").rc == 1
    code, output = run_playbook("site.yml", "--tags", "gateway")
    assert code == 0, output
    assert "PRIVATE" not in output
    assert store.run(f"{shown} -checkend {last}").rc == 0, output
    assert store.check_output("cat /etc/gateway/ca.pem") == before
    # By it, people are told in time.
    end = store.check_output(f'date +%s --date "$({shown} -enddate | cut -d= -f2)"')
    metric = store.check_output("grep -v '^#' /var/lib/node-exporter/textfile/gateway.prom")
    assert metric == f"gateway_certificate_not_after_seconds {end}"
    line = unique("renewed")
    client.check_output(f"logger {line}")
    eventually(
        lambda: found(client, f'{{job="systemd-journal"}} |= "{line}" != "COMMAND"', *log_in("dev-read")) > 0,
        otherwise=lambda: journal(client, "promtail"),
    )
    code, output = run_playbook("site.yml", "--tags", "gateway")
    assert "changed=0" in output


def certificate(folder: Path, days: int = 30, address: str = "10.89.77.131") -> dict[str, str]:
    """Make a CA and a certificate of it for an address, as somebody's own; return them as variables."""
    ca, own = folder / "ca.pem", folder / "own.pem"
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for words in (
        (*new, "-days", "60", "-subj", "/CN=a CA of our own", "-keyout", f"{ca}.key", "-out", str(ca)),
        (
            *(*new, "-subj", "/CN=logs", "-keyout", f"{own}.key", "-out", str(own), "-CA", str(ca)),
            *("-CAkey", f"{ca}.key", "-days", str(days), "-addext", f"subjectAltName = IP:{address}"),
            *("-addext", "basicConstraints = critical, CA:FALSE"),
        ),
    ):
        subprocess.run(words, check=True, capture_output=True)
    return {
        "gateway_certificate": own.read_text(),
        "gateway_certificate_key": Path(f"{own}.key").read_text(),
        "platform_gateway_ca": ca.read_text(),
    }


def test_bad_input_stops_the_run_before_the_gateway_is_touched(store: Any, tmp_path: Path) -> None:
    before = store.check_output("find /etc/gateway /etc/systemd/system -printf '%p %T@\\n' | sort")
    other = certificate(tmp_path, address="10.89.77.1")
    code, output = run_playbook(
        "site.yml",
        platform_credentials={"prod": {"write": "a" * 20, "read": "a" * 20}},
        **{**other, "gateway_certificate_key": Path(tmp_path, "ca.pem.key").read_text()},
    )
    assert code == 2, output
    said = re.sub(r"\s+", " ", output)
    assert "prod-read and prod-write have the same password" in said
    assert "gateway_certificate isn't for 10.89.77.131" in said
    assert "gateway_certificate_key isn't the key of the first" in said
    assert "PRIVATE KEY" not in output
    assert store.check_output("find /etc/gateway /etc/systemd/system -printf '%p %T@\\n' | sort") == before


# It is last: what follows would have to verify by another CA.
def test_a_certificate_of_ones_own_takes_the_place_of_the_made_one_and_all_go_on(
    client: Any, store: Any, dev: Callable[..., str], tmp_path: Path
) -> None:
    own = certificate(tmp_path)
    made = store.check_output("cat /etc/gateway/ca.pem")
    # First the clients know both CAs, then the gateway changes.
    dev("site.yml", "--tags", "promtail", platform_gateway_ca=f"{made}\n{own['platform_gateway_ca']}")
    before = unique("before")
    client.check_output(f"logger {before}")
    code, output = run_playbook("site.yml", "--tags", "gateway,promtail,grafana", **own)
    assert code == 0, output
    assert "PRIVATE KEY" not in output
    after = unique("after")
    client.check_output(f"logger {after}")
    client.check_output(f"install -m 644 /dev/stdin /root/own.pem <<'END'\n{own['platform_gateway_ca']}END")
    by_own = ("--cacert", "/root/own.pem")

    def arrives(line: str, environment: str) -> None:
        query = f'{{job="systemd-journal"}} |= "{line}" != "COMMAND"'
        eventually(
            lambda: found(client, query, *by_own, *log_in(f"{environment}-read")[2:]) == 1,
            seconds=60,
            otherwise=lambda: journal(client, "promtail") + journal(store, "promtail", "gateway"),
        )

    arrives(before, "dev")
    arrives(after, "dev")
    made_alone = ("--cacert", "/dev/stdin", f"{GATEWAY}/health")
    assert client.run(f"curl -s {shlex.join(made_alone)} <<'END'\n{made}\nEND").rc == 60
    ours = unique("ours")
    store.check_output(f"logger {ours}")
    arrives(ours, "prod")
    for uid in ("loki", "loki-dev"):
        url = f"http://127.0.0.1:3100/api/datasources/uid/{uid}/health"
        assert fetch(store, url, "--user", "admin:only-for-this-test")[0] == 200
    code, output = run_playbook("site.yml", "--tags", "gateway", **own)
    assert UNCHANGED.search(output.rpartition("PLAY RECAP")[2]), output
