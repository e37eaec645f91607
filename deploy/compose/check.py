"""Does the compose file fit the files and the program that it speaks of? Says everything that does not.

Docker's own check (`docker compose config`) knows the words, and not that a mounted file is there, that a variable is a key
of the configuration, or that the grace is longer than the drain.
"""

import re
import sys
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent.parent
ROOT = FOLDER.parent
# Requests and tasks that have begun when the drain is over have so long each.
JOIN_SECONDS = int(re.search(r"JOIN: Duration = Duration::from_secs\((\d+)\)", (ROOT / "src/app.rs").read_text())[1])

compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
services = compose["services"]
documented = (FOLDER / "tidegate.toml").read_text()
faults = []


def expect(holds, fault):
    if not holds:
        faults.append(fault)


def section(name):
    return re.search(rf"^\[{name}\]$(.*?)(?=^\[|\Z)", documented, re.MULTILINE | re.DOTALL)


def seconds(text):
    return int(text.strip('"').removesuffix("s"))


for name, service in services.items():
    expect("healthcheck" in service, f"{name}: who needs it cannot wait for it")
    for needed, how in service.get("depends_on", {}).items():
        expect(needed in services and how["condition"] == "service_healthy", f"{name}: depends on {needed}")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            expect((FOLDER / source).exists(), f"{name}: {source} is not there")
        else:
            expect(source in compose["volumes"], f"{name}: no volume {source}")
    for port in service.get("ports", []):
        expect(port.startswith("127.0.0.1:"), f"{name}: port {port} is open to the world")
    image = service["image"]
    expect(":" in image or "build" in service, f"{name}: {image} is whatever version is newest")

gateway = services["gateway"]
environment = {"TIDEGATE": gateway["environment"]}["TIDEGATE"]
for variable in environment:
    _, part, key = variable.lower().split("__")
    found = section(part)
    expect(found and re.search(rf"^#{key} = ", found[1], re.MULTILINE), f"gateway: {variable} is no key")
subnet = compose["networks"]["default"]["ipam"]["config"][0]["subnet"]
trusted = environment["TIDEGATE__SERVER__TRUSTED_PROXIES"]
expect(trusted == subnet, f"gateway: trusts {trusted}, and nginx is in {subnet}")
drain = seconds(re.search(r"^#time = (.*)$", section("drain")[1], re.MULTILINE)[1])
grace = seconds(gateway["stop_grace_period"])
expect(grace > drain + 2 * JOIN_SECONDS, f"gateway: a grace of {grace} s is too short for drain.time, {drain} s, and tasks")
port = environment["TIDEGATE__SERVER__LISTEN"].rpartition(":")[2]
expect(port in gateway["expose"], f"gateway: listens on {port}, which is not exposed")
for file in ("replicas.conf", "replicas-requests.conf", "prometheus.yml"):
    text = (FOLDER / "compose" / file).read_text()
    named = re.search(r"gateway:(\d+)|names: \[gateway\].*?port: (\d+)", text, re.DOTALL)
    expect(named and port in named.groups(), f"{file} looks for replicas somewhere else")
# Every shared file of nginx is mounted, under a name that the image's entry point renders.
mounted = {volume.split(":")[0] for volume in services["nginx"]["volumes"]}
for shared in (ROOT / "nginx").glob("tidegate-*.conf"):
    expect(f"../nginx/{shared.name}" in mounted, f"nginx: {shared.name} is not mounted")
wanted = set(re.findall(r"\$\{(NGINX_\w+)\}", (ROOT / "nginx/nginx.conf.template").read_text()))
given = set(services["nginx"]["environment"])
expect(wanted <= given, f"nginx: {wanted - given} are not set")
status = services["nginx"]["environment"]["NGINX_STATUS_LISTEN"]
scraped = re.search(r"names: \[nginx\].*?port: (\d+)", (FOLDER / "compose/prometheus.yml").read_text(), re.DOTALL)
expect(status in services["nginx"]["expose"] and scraped and scraped[1] == status, f"nginx: nobody asks at {status}")
rules = [path for path in (FOLDER / "prometheus/rules").glob("*.yml")]
if rules:
    mounts = " ".join(services["prometheus"]["volumes"])
    expect("prometheus/rules" in mounts, "prometheus: no rules")
for fault in faults:
    print(f"compose: {fault}", file=sys.stderr)
sys.exit(1 if faults else 0)
