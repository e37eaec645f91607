#!/usr/bin/env python3
"""Do the dashboards show something? Asked of a Prometheus that scrapes a cluster under load:

    deploy/local/cluster run -- grafana/test.py

Streams come and go, events are published every way, and meanwhile each query of each panel, with the variables filled in,
must return a number. So must the recording rules; no alert may fire. Before that the files themselves are judged, by the
rules of Grafana's dashboard-linter (lint.py) and by our own: that part needs no cluster (`grafana/test.py --files`).

What k6 writes is asked for right after a run of it, by `loadtest/k6/check` (`grafana/test.py --k6`).
"""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlencode, urlparse

sys.dont_write_bytecode = True
import lint  # noqa: E402
from panels import selector_of  # noqa: E402

HERE = Path(__file__).resolve().parent
PATIENCE_SECONDS = 60  # until every query has data; it is there after about 30
SCRAPE_SECONDS = 5  # deploy/prometheus/prometheus.yml
# Panels that show nothing while all is well, or where there are neither mtail nor blackbox_exporter, as in the local cluster.
QUIET = ("Alerts that fire", "Streams that nginx sent away, by reason", "Probe from outside")
# What Grafana would put there: four scrapes, and the time range of the dashboard.
VALUES = {"$__rate_interval": f"{4 * SCRAPE_SECONDS}s", "$__range": "1m", "$__interval": "15s", "$job": ".+", "$testid": ".+"}


# -- the files ---------------------------------------------------------------------------------------------------------


def dashboards():
    return {path.name: json.loads(path.read_text()) for path in sorted((HERE / "dashboards").glob("*.json"))}


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def faults_of(name, board, uids):
    """What makes boards that belong together hard to use. What Grafana's linter would say, lint.py does."""
    faults = []

    def expect(holds, fault):
        if not holds:
            faults.append(f"{name}: {fault}")

    variables = [each["name"] for each in board["templating"]["list"]]
    of_k6 = ["testid"] if board["uid"] == "tidegate-load" else []
    expect(variables == ["datasource", "job", "instance", *of_k6], "variables are datasource, job, instance")
    expect(board["id"] is None and board["schemaVersion"] <= 41, "id, schemaVersion")
    expect(re.fullmatch(r"tidegate-[a-z]+", board["uid"]) and uids.count(board["uid"]) == 1, "a uid of its own")
    links = [link["tags"] for link in board["links"] if link["type"] == "dashboards"]
    expect(links == [["tidegate"]], "links to the others")
    expect("tidegate" in board["tags"], "the tag that the links go by")

    ids = [panel["id"] for panel in board["panels"]]
    expect(len(set(ids)) == len(ids), "each panel has an id of its own")
    titles = [panel["title"] for panel in panels(board)]
    expect(len(set(titles)) == len(titles), "each panel has a title of its own")
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        expect(at["x"] + at["w"] <= 24 and not cells & taken, f"{panel['title']}: overlaps, or is beyond the edge")
        taken |= cells

    for panel in panels(board):
        def expect_here(holds, fault, panel=panel):
            expect(holds, f"{panel['title']}: {fault}")

        expect_here(len(panel["description"]) > 15, "a description that says something")
        for target in panel["targets"]:
            expr = target["expr"]
            expect_here(target["datasource"]["uid"] == "${datasource}", "the chosen data source in each query")
            expect_here(target["legendFormat"] or panel["type"] == "table", "a legend")
            for metric, labels in lint.selectors(expr):
                expect_here(labels.startswith(selector_of(metric, labels)), f"the selector of {metric}: {expr}")
            for interval in re.findall(r"increase\([^\[\]]*\[([^\]]*)\]", expr):
                over_range = interval == "$__range" and panel["type"] == "stat"
                expect_here(interval == "$__rate_interval" or over_range, f"$__rate_interval in increase: {expr}")
            if "histogram_quantile" in expr:
                expect_here("by (le)" in expr or ", le)" in expr, f"buckets are added up by le: {expr}")
    return faults


def faults_of_provisioning():
    """Do the files by which Grafana finds the dashboards, and its Prometheus, fit where compose mounts them?"""

    def first(path, pattern):
        found = re.search(pattern, (HERE.parent / path).read_text(), re.MULTILINE)
        return found.group(1) if found else f"no {pattern} in {path}"

    compose = "deploy/compose.yaml"
    folder = first("grafana/provisioning/dashboards/tidegate.yaml", r"^      path: (\S+)$")
    home = first(compose, r"GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH: (\S+)$")
    prometheus = first("grafana/provisioning/datasources/prometheus.yaml", r"url: http://(\w+):9090$")
    scrape = r"scrape_interval: (\d+)s$"
    told = first("grafana/provisioning/datasources/prometheus.yaml", r"timeInterval: (\d+)s$")
    fits = {
        "the folder of dashboards is mounted": folder == first(compose, r"- \.\./grafana/dashboards:(\S+):ro$"),
        "the home dashboard is one of them": home in (f"{folder}/{name}" for name in dashboards()),
        "the data source is a service of the compose file": prometheus == first(compose, rf"^  ({prometheus}):$"),
        "Grafana knows how often is scraped": told == first("deploy/compose/prometheus.yml", scrape),
        "and so does this": str(SCRAPE_SECONDS) == first("deploy/prometheus/prometheus.yml", scrape),
        "rules are mounted": first(compose, r"- \./prometheus/rules:(\S+):ro$") == "/etc/prometheus/rules",
        "rules are loaded": first("deploy/compose/prometheus.yml", r"^  - (rules/\*\.yml)$") == "rules/*.yml",
    }
    return [f"provisioning: it does not hold that {what}" for what, holds in fits.items() if not holds]


def judge_files():
    boards = dashboards()
    uids = [board["uid"] for board in boards.values()]
    faults = [fault for name, board in boards.items() for fault in faults_of(name, board, uids)]
    faults += lint.faults(boards, HERE / "dashboards/.lint")
    faults += lint.promql_faults(questions(".+"))
    faults += faults_of_provisioning()
    if subprocess.run([HERE / "dashboards.py", "--check"]).returncode != 0:
        faults.append("the dashboards are not what grafana/dashboards.py writes")
    return faults


# -- the load ----------------------------------------------------------------------------------------------------------


class Load:
    """Streams of every kind, and publishers of every kind, until it is told to stop."""

    def __init__(self, environment):
        gateway, redis = urlparse(environment["BASE_URL"]), urlparse(environment["REDIS_URL"])
        self.gateway = (gateway.hostname, gateway.port)
        self.redis = (redis.hostname, redis.port)
        first = int(environment["REPLICA_PORT"])
        self.replicas = [("127.0.0.1", first + number) for number in range(int(environment["REPLICAS"]))]
        self.over = threading.Event()
        self.faults = []
        self.threads = []

    def __enter__(self):
        for number, replica in enumerate(self.replicas):
            self.spawn(self.follow, replica, f"/events?topic=busy&topic=quiet{number}")
            self.spawn(self.follow, replica, "/events/busy?max_age=2s")  # as an ordinary body
            self.spawn(self.hop, replica)
            self.spawn(self.publish, replica)
        self.spawn(self.follow, self.gateway, "/events?topic=busy&topic=tidegate.connections")
        self.spawn(self.publish_raw)
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(timeout=10)

    def spawn(self, work, *arguments):
        def run():
            while not self.over.is_set():
                try:
                    work(*arguments)
                except (OSError, http.client.HTTPException) as fault:
                    if not self.over.is_set():
                        self.faults.append(f"{work.__name__}{arguments}: {fault!r}")
                        self.over.wait(1)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)

    def read(self, address, path, headers, until):
        """Reads a stream line by line until `until` says so. Streams that end, end."""
        connection = http.client.HTTPConnection(*address, timeout=30)
        try:
            connection.request("GET", path, headers=headers)
            stream = connection.getresponse()
            while not self.over.is_set():
                line = stream.readline()
                if not line or until(line.decode().strip()):
                    return
        except http.client.IncompleteRead:
            return  # cut on purpose
        finally:
            connection.close()

    def follow(self, address, path):
        self.read(address, path, {}, lambda _line: False)

    def hop(self, address):
        """Leaves after some events, and comes back with its last id: the replica replays what it has missed."""
        seen = []

        def enough(line):
            if line.startswith("id: "):
                seen.append(line[4:])
            return len(seen) > 3

        self.read(address, "/events/busy", {}, enough)
        self.over.wait(0.3)
        if seen:
            lines = iter(range(30))
            resume = {"Last-Event-ID": seen[0]}
            self.read(address, "/events/busy", resume, lambda _line: next(lines, None) is None)
        self.read(address, "/events/busy?since=earliest&limit=5", {}, lambda _line: False)

    def publish(self, address):
        connection = http.client.HTTPConnection(*address, timeout=30)
        try:
            while not self.over.wait(0.1):
                connection.request("POST", "/events/busy", body=b"x" * 100)
                connection.getresponse().read()
        finally:
            connection.close()

    def publish_raw(self):
        """PUBLISH, and the inbox."""
        with socket.create_connection(self.redis, timeout=30) as redis:
            while not self.over.wait(0.1):
                for text in ("PUBLISH events:busy raw", "XADD tidegate:inbox * topic busy data in"):
                    command = text.split()
                    redis.sendall(f"*{len(command)}\r\n".encode())
                    redis.sendall(b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in command))
                    redis.recv(256)


# -- the questions -----------------------------------------------------------------------------------------------------


class Prometheus:
    def __init__(self, url):
        self.address = urlparse(url).netloc

    def ask(self, path, **parameters):
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        if answer["status"] != "success":
            raise ValueError(f"{parameters}: {answer.get('error')}")
        return answer["data"]

    def has_numbers(self, expr):
        samples = self.ask("query", query=expr)["result"]
        return any(sample["value"][1] != "NaN" for sample in samples)


def questions(instance):
    """Every query of every board, as Prometheus takes it: where it stands -> the expression."""
    asked = {}
    for name, board in dashboards().items():
        one = re.escape(instance) if board["uid"] == "tidegate-replica" else ".+"
        for panel in panels(board):
            for target in panel["targets"]:
                expr = target["expr"].replace("$instance", one.replace("\\", "\\\\"))
                for variable, value in VALUES.items():
                    expr = expr.replace(variable, value)
                asked[f"{name}: {panel['title']} ({target['refId']})"] = expr
        for annotation in board["annotations"]["list"]:
            if "expr" in annotation:
                expr = annotation["expr"].replace(" > 0", "")  # nothing has restarted
                for variable, value in {**VALUES, "$instance": ".+"}.items():
                    expr = expr.replace(variable, value)
                asked[f"{name}: annotation {annotation['name']}"] = expr
    return asked


def is_of_k6(expr):
    return "k6_" in expr


def judge_k6(environment):
    """What k6 has written until a moment ago."""
    prometheus = Prometheus(environment["PROMETHEUS_URL"])
    asked = {where: expr for where, expr in questions(".+").items() if is_of_k6(expr)}
    if environment.get("K6_LIVE") != "yes":  # stock k6 sees events only when their stream has ended
        asked = {where: expr for where, expr in asked.items() if "k6_delivery_latency" not in expr}
    print(f"dashboards: {len(asked)} queries of k6's metrics asked")
    faults = [] if asked else ["no dashboard shows what k6 writes"]
    return faults + [f"{where} shows nothing: {expr}" for where, expr in asked.items() if not prometheus.has_numbers(expr)]


def judge_live(environment):
    prometheus = Prometheus(environment["PROMETHEUS_URL"])
    asked = questions(f"127.0.0.1:{environment['REPLICA_PORT']}")
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    asked |= {f"rule {rule['name']}": rule["name"] for rule in rules if rule["type"] == "recording"}
    with Load(environment) as load:
        deadline = time.monotonic() + PATIENCE_SECONDS
        loud = {where: expr for where, expr in asked.items() if not any(title in where for title in QUIET)}
        waiting = {where: expr for where, expr in loud.items() if not is_of_k6(expr)}
        while waiting and time.monotonic() < deadline and not load.over.wait(1):
            waiting = {where: expr for where, expr in waiting.items() if not prometheus.has_numbers(expr)}
        faults = [f"{where} shows nothing: {expr}" for where, expr in waiting.items()]
        for rule in (rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]):
            if rule["health"] != "ok":
                faults.append(f"rule {rule['name']}: {rule.get('lastError') or rule['health']}")
            elif rule["type"] == "alerting" and rule["state"] != "inactive":
                faults.append(f"alert {rule['name']} is {rule['state']} while all is well: {rule['alerts']}")
        if not rules:
            faults.append("Prometheus has no rules")
        faults += load.faults
    print(f"dashboards: {len(asked)} queries, {len(rules)} rules asked")
    return faults


def main(arguments):
    faults = judge_files() if arguments != ["--k6"] else judge_k6(os.environ)
    if arguments not in (["--files"], ["--k6"]):
        if "PROMETHEUS_URL" not in os.environ:
            print(__doc__.strip(), file=sys.stderr)
            return 64
        faults += judge_live(os.environ)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
