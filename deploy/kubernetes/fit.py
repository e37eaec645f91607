"""Do the manifests fit each other and the program? Says everything that does not, and fails then.

    fit.py MANIFESTS PROGRAM NGINX

Names, ports, selectors, Secrets and ConfigMaps are compared with what is there; the configuration is judged by the
program, which is then started with it, and asked what the probes ask. nginx is started with the configuration of its
pods, and asked for a stream while no replica is there, and while one is.
"""

import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
# Requests and tasks that have begun when the drain is over have so long each.
JOIN_SECONDS = int(re.search(r"JOIN: Duration = Duration::from_secs\((\d+)\)", (ROOT / "src/app.rs").read_text())[1])
TASKS_SECONDS = 2 * JOIN_SECONDS
START_SECONDS = 20

manifests, program, nginx = sys.argv[1:]
objects = [one for one in yaml.safe_load_all(Path(manifests).read_text()) if one]
faults = []


def expect(holds, fault):
    if not holds:
        faults.append(fault)


def of(kind):
    return [one for one in objects if one["kind"] == kind]


def named(kind, name):
    return next((one for one in of(kind) if one["metadata"]["name"] == name), None)


def fits(selector, labels):
    return selector.items() <= (labels or {}).items()


deployment = named("Deployment", "tidegate")
spec = deployment["spec"]
pod = spec["template"]["spec"]
labels = spec["template"]["metadata"]["labels"]
(container,) = pod["containers"]
ports = {port["name"]: port["containerPort"] for port in container["ports"]}
values = {entry["name"]: entry for entry in container["env"]}
config = named("ConfigMap", pod["volumes"][0]["configMap"]["name"])["data"]["tidegate.toml"]


def selectors():
    expect(fits(spec["selector"]["matchLabels"], labels), "the Deployment does not select its own pods")
    every_pod = [one["spec"]["template"]["metadata"]["labels"] for one in of("Deployment")]
    for one in of("Deployment"):
        own = pod_labels(one)
        chosen = [(each, each["spec"]["selector"]["matchLabels"]) for each in of("PodDisruptionBudget")]
        chosen += [(each, each["spec"]["podSelector"]["matchLabels"]) for each in of("NetworkPolicy")]
        mine = [(each["metadata"]["name"], selector) for each, selector in chosen if fits(selector, own)]
        name = one["metadata"]["name"]
        expect(name == "redis" or [found for found, _ in mine] == [name, name], f"{name} is selected by {mine}")
        for spread in one["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            expect(fits(spread["labelSelector"]["matchLabels"], own), f"{name} is spread by other pods")
    for service in of("Service"):
        hit = sum(fits(service["spec"]["selector"], known) for known in every_pod)
        expect(hit == 1, f"Service {service['metadata']['name']} selects the pods of {hit} Deployments")


def ports_fit():
    for service in of("Service"):
        target = next(one for one in of("Deployment") if fits(service["spec"]["selector"], pod_labels(one)))
        known = {port["name"] for one in target["spec"]["template"]["spec"]["containers"] for port in one["ports"]}
        for port in service["spec"]["ports"]:
            expect(port["targetPort"] in known, f"Service {service['metadata']['name']}: no port {port['targetPort']}")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        expect(container[probe]["httpGet"]["port"] == "ops", f"{probe} asks another port than that of the operators")
    for policy in of("NetworkPolicy"):
        meant = policy["spec"]["podSelector"].get("matchLabels", {})
        pods = [one["spec"]["template"]["spec"] for one in of("Deployment") if fits(meant, pod_labels(one))]
        known = {port["name"] for pod in pods for one in pod["containers"] for port in one["ports"]}
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                expect(port["port"] in known, f"NetworkPolicy: no port {port['port']}")
    for key, port in (("TIDEGATE__SERVER__LISTEN", "http"), ("TIDEGATE__OPS__LISTEN", "ops")):
        expect(values[key]["value"].endswith(f":{ports[port]}"), f"{key} is not at containerPort {port}")
    public = named("Service", "tidegate")["spec"]["ports"]
    expect([port["targetPort"] for port in public] == ["http"], "the Service for clients shows more than streams")


def pod_labels(one):
    return one["spec"]["template"]["metadata"]["labels"]


def routes():
    for route in of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                service = named("Service", backend["name"])
                known = [port["port"] for port in service["spec"]["ports"]] if service else []
                expect(backend["port"] in known, f"HTTPRoute: no port {backend['port']} at {backend['name']}")
            if rule["name"] == "streams":
                off = {"request": "0s", "backendRequest": "0s"}
                expect(rule["timeouts"] == off, "HTTPRoute: a stream has a time-out")
    for monitor in of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        hit = [one for one in of("Service") if fits(wanted, one["metadata"].get("labels"))]
        names = {port["name"] for one in hit for port in one["spec"]["ports"]}
        asked = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
        expect(len(hit) == 1 and asked <= names, f"ServiceMonitor: {asked} of {len(hit)} Services with {names}")


def alerts():
    """The rules are those that promtool has tested, and the job that they speak of is that of the monitor."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/tidegate.yml").read_text())
    for one in of("PrometheusRule"):
        expect(one["spec"] == rules, "PrometheusRule: other rules than those of deploy/prometheus")
    for monitor in of("ServiceMonitor"):
        expect(of("PrometheusRule"), "metrics without alerts")
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (service,) = (one for one in of("Service") if fits(wanted, one["metadata"].get("labels")))
        job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        expect(f'up{{job="{job}"}}' in str(rules), f"no rule speaks of the job {job}")


def grace():
    toml = tomllib.loads(config)
    default = re.search(r'\[drain\].*?#time = "(\d+)s"', (ROOT / "deploy/tidegate.toml").read_text(), re.DOTALL)[1]
    drain, wait = (int(toml["drain"].get(*key).removesuffix("s")) for key in (("time", f"{default}s"), ("wait", "0s")))
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    probe = container["readinessProbe"]
    least = sleep + wait + drain + TASKS_SECONDS
    given = pod["terminationGracePeriodSeconds"]
    expect(given > least, f"grace {given} s, but {sleep} + {wait} + {drain} + {TASKS_SECONDS} are needed")
    unready = probe["periodSeconds"] * probe["failureThreshold"]
    expect(unready <= drain, f"found not ready after {unready} s, the drain is over after {drain}")


def scaling():
    for scaler in of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        expect(named(target["kind"], target["name"]) is deployment, "the autoscaler scales something else")
        expect("replicas" not in spec, "each apply sets back what the autoscaler has decided")


def secrets():
    for entry in container["env"]:
        reference = entry.get("valueFrom", {}).get("secretKeyRef")
        if not reference:
            continue
        # "tidegate" is made by hand, by the command that the overlay shows; a generated name ends in a hash.
        secret = named("Secret", reference["name"])
        there = secret["data"] if secret else ("redis-url", "publish-key") if reference["name"] == "tidegate" else ()
        expect(reference["key"] in there, f"no Secret {reference['name']} with {reference['key']}")


def closed():
    for one in of("Deployment"):
        name, inside = one["metadata"]["name"], one["spec"]["template"]["spec"]
        inner = inside["containers"][0]["securityContext"]
        expect(inner["readOnlyRootFilesystem"] and not inner["allowPrivilegeEscalation"], f"{name}: it is open")
        expect(inner["capabilities"] == {"drop": ["ALL"]}, f"{name}: it has capabilities")
        closed_pod = inside["securityContext"]["runAsNonRoot"] and not inside["automountServiceAccountToken"]
        expect(closed_pod, f"{name}: the pod is open")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def program_takes_it():
    """The real program with this configuration: over a log in memory, and on free ports of loopback."""
    environment = {name: entry["value"] for name, entry in values.items() if "value" in entry}
    environment |= {
        "TIDEGATE__REPLICA__NAME": "tidegate-7d9c6b5f4-x2x9z",
        "TIDEGATE__AUTH__PUBLISH_KEY": "a key",
        "TIDEGATE__REDIS__URL": "redis://redis:6379",
    }
    expect(environment.keys() == values.keys(), f"variables that are not checked: {values.keys() - environment.keys()}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tidegate.toml")
        file.write_text(config)
        path = container["volumeMounts"][0]["mountPath"] + "/tidegate.toml"
        expect(path in container["args"], f"the container does not read {path}")
        arguments = [str(file) if one == path else one for one in container["args"]]
        judged = subprocess.run(
            [program, "check-config", *arguments[1:]], env=environment, capture_output=True, text=True
        )
        expect(judged.returncode == 0, judged.stderr.strip())
        main, ops = free_port(), free_port()
        environment |= {
            "TIDEGATE__REDIS__URL": "",
            "TIDEGATE__SERVER__LISTEN": f"127.0.0.1:{main}",
            "TIDEGATE__OPS__LISTEN": f"127.0.0.1:{ops}",
        }
        replica = subprocess.Popen([program, *arguments], env=environment, stderr=subprocess.DEVNULL)
        try:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container[probe]["httpGet"]["path"]
                expect(answers(ops, asked), f"{probe}: {asked} is not answered 200")
            paths = [endpoint["path"] for one in of("ServiceMonitor") for endpoint in one["spec"]["endpoints"]]
            expect(all(answers(ops, path) for path in paths), f"{paths} are not answered 200")
            expect(not answers(main, "/metrics", tries=1), "metrics are shown to clients")
            exposed = answers(ops, "/metrics") or ""
            for scaler in of("HorizontalPodAutoscaler"):
                for metric in (one["pods"]["metric"] for one in scaler["spec"]["metrics"] if one["type"] == "Pods"):
                    expect(
                        re.search(rf"^{metric['name']}[ {{]", exposed, re.MULTILINE),
                        f"no metric is called {metric['name']}",
                    )
        finally:
            replica.kill()
            replica.wait()


class Resolver:
    """Answers each name with 127.0.0.1 while `there`, and knows none otherwise."""

    def __init__(self):
        self.there = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.answer, daemon=True).start()

    def answer(self):
        while True:
            asked, client = self.socket.recvfrom(512)
            question = asked[12 : asked.index(0, 12) + 5]
            if self.there:
                flags, found = b"\x81\x80\0\1\0\1\0\0\0\0", b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1"
            else:
                flags, found = b"\x81\x83\0\1\0\0\0\0\0\0", b""
            self.socket.sendto(asked[:2] + flags + question + found, client)


def nginx_keeps_streams():
    """The proxy's pods with their own files: what a stream is told when no replica is there, and when one is."""
    proxy = named("Deployment", "tidegate-nginx")["spec"]["template"]["spec"]
    (part,) = proxy["containers"]
    given = {entry["name"]: entry["value"] for entry in part["env"] if "value" in entry}
    name, _, port = given["NGINX_REPLICAS"].rpartition(":")
    expect(name == "tidegate-replicas.$(NAMESPACE).svc.cluster.local", f"nginx looks for {name}")
    (known,) = named("Service", "tidegate-replicas")["spec"]["ports"]
    expect(int(port) == known["port"] == ports["http"], f"a headless Service maps no port: {port} is none of the pods")
    sources = [source["configMap"]["name"] for source in proxy["volumes"][0]["projected"]["sources"]]
    files = {file: text for each in sources for file, text in named("ConfigMap", each)["data"].items()}
    shared = {path.name for path in (ROOT / "nginx").glob("tidegate-*.conf")}
    expect(shared <= {file.removesuffix(".template") for file in files}, f"nginx lacks some of {shared}")
    quits = int(re.search(r"^worker_shutdown_timeout (\d+)m;", files["nginx.conf.template"], re.MULTILINE)[1]) * 60
    sleep = part["lifecycle"]["preStop"]["sleep"]["seconds"]
    expect(proxy["terminationGracePeriodSeconds"] > sleep + quits, "nginx is killed before its streams have ended")
    main, upstream, resolver = free_port(), free_port(), Resolver()
    given |= {
        "NGINX_LISTEN": f"127.0.0.1:{main}",
        "NGINX_REPLICAS": f"{name.replace('$(NAMESPACE)', 'tidegate')}:{upstream}",
        "NGINX_LOCAL_RESOLVERS": resolver.address,
        "NGINX_WORKER_CONNECTIONS": "64",
        "NGINX_WORKER_FILES": "264",
    }
    # The packages of distributions and the image have this module; the wheel that may be given here has not.
    said = subprocess.run([nginx, "-V"], capture_output=True, text=True).stderr
    counts_connections = "http_stub_status_module" in said
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files.items():
            text = re.sub(r"\$\{(NGINX_\w+)\}", lambda found: given[found[1]], text)
            if not counts_connections:
                text = re.sub(r"^\s*stub_status;|\$connections_\w+", "", text, flags=re.MULTILINE)
            Path(folder, file.removesuffix(".template")).write_text(text)
        user = "user root; " if os.geteuid() == 0 else ""
        command = [nginx, "-p", f"{folder}/", "-c", f"{folder}/nginx.conf", "-e", "stderr", "-g", f"{user}daemon off;"]
        proxied = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        replica = None
        try:
            expect(answers(main, part["readinessProbe"]["httpGet"]["path"]), "nginx does not listen")
            told = answers(main, "/events/news")
            expect(told and re.fullmatch(r"retry: \d+\n", told), f"without replicas a stream is told {told!r}")
            environment = {"TIDEGATE__SERVER__LISTEN": f"127.0.0.1:{upstream}"}
            replica = subprocess.Popen([program, "serve"], env=environment, stderr=subprocess.DEVNULL)
            expect(answers(upstream, "/readyz"), "a replica is not ready")
            resolver.there = True
            tries = START_SECONDS * 4
            while tries and "tidegate.open" not in (answers(main, "/events/news?max_age=1s") or ""):
                tries -= 1
                time.sleep(0.25)
            expect(tries, "a replica that has come is not found by its name")
        finally:
            for process in filter(None, (proxied, replica)):
                process.terminate()
                process.wait()


# The body of an answer 200; none if there was no such answer.
def answers(port, path, tries=START_SECONDS * 10):
    for _ in range(tries):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status == 200:
                return answer.read().decode()
        except http.client.IncompleteRead as cut:  # as nginx does on purpose where no replica is there
            return cut.partial.decode()
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1 if tries > 1 else 0)
    return None


for check in (selectors, ports_fit, routes, alerts, grace, scaling, secrets, closed, program_takes_it, nginx_keeps_streams):
    check()
for fault in faults:
    print(f"{os.path.basename(manifests)}: {fault}", file=sys.stderr)
sys.exit(1 if faults else 0)
