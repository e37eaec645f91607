"""What the local cluster is made of: Redis, the replicas, nginx and Prometheus, with their settings and commands."""

import http.client
import json
import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Callable

import tls

ROOT = Path(__file__).resolve().parents[2]

# Every setting is an environment variable (`make up NGINX_PORT=18080`). All of them are kept while the cluster is up,
# so that later commands speak of the same one without being told again.
DEFAULTS = {
    "NGINX_PORT": "8080",
    "NGINX_STATUS_PORT": "8090",  # what nginx counts, for operators
    "TLS": "",  # 1: nginx speaks HTTPS with HTTP/2 as well, by a certificate made here
    "HTTPS_PORT": "8443",
    "REPLICA_PORT": "8081",  # of r1; r2 listens on the next one, and so on
    "PROMETHEUS_PORT": "9090",
    "REDIS_PORT": "6379",
    "REDIS_LINK_PORT": "",  # where r1 looks for Redis instead, through something that can be cut; r2 the next one
    "REPLICAS": "3",
    # For `run` only: how many sentinels watch Redis and a replica of it, and where these listen.
    "SENTINELS": "0",
    "SENTINEL_PORT": "26379",  # of sentinel1; sentinel2 listens on the next one, and so on
    "REDIS_REPLICA_PORT": "6380",
    "OLDER_BUILDS": "",  # for `run` only: anything says that TIDEGATE_BIN may be an older build, which knows fewer keys
    "REDIS_CLOCK": "",  # for `run` only: anything gives Redis a clock that can be moved, see clock.c
    "TIDEGATE_BIN": str(ROOT / ("target/release/tidegate" if (ROOT / "Cargo.toml").exists() else "tidegate")),
    "NGINX": "nginx",
    "REDIS_SERVER": "redis-server",
    "PROMETHEUS": "prometheus",
}

# Everything listens here only: the replicas take events from anybody who can reach them, and nginx would pass that on.
HOST = "127.0.0.1"

# Distributions keep nginx in sbin, which is not on everybody's path.
PATHS_MORE = ":/usr/local/sbin:/usr/sbin:/sbin"

MASTER = "main"  # what the sentinels call the server that takes writes
DRAIN_SECONDS = 20  # drain.time, in which a replica ends its streams
TASKS_SECONDS = 16  # for requests and tasks that have begun by then
NGINX_FILES_MAX = 131072
NGINX_CONNECTIONS_MAX = 65536
NGINX_SPARE_FILES = 200  # see nginx/nginx.conf.template


class Fault(Exception):
    """Something for the person at the terminal to read and mend."""


@dataclass(frozen=True)
class Part:
    name: str
    port: int
    variable: str  # which moves the port
    program: str
    arguments: list
    answers: Callable[[], bool]
    environment: dict = field(default_factory=dict)
    prepare: Callable[[Path], None] = lambda home: None  # writes what the process reads
    also: dict = field(default_factory=dict)  # more ports, by the variable that moves each
    start_seconds: int = 30
    stop_seconds: int = 20


def settings_from_environment():
    settings = {name: os.environ.get(name) or default for name, default in DEFAULTS.items()}
    for name in (name for name in DEFAULTS if name.endswith("_PORT") or name == "REPLICAS"):
        if name == "REDIS_LINK_PORT" and not settings[name]:
            continue
        if not settings[name].isdigit() or not 0 < int(settings[name]) < 65536:
            raise Fault(f"{name} is a whole number from 1 to 65535, not {settings[name]!r}")
    if settings["TLS"] not in ("", "0", "1"):
        raise Fault(f"TLS is 1 or 0, not {settings['TLS']!r}")
    settings["TLS"] = settings["TLS"].replace("0", "")
    if not settings["SENTINELS"].isdigit():
        raise Fault(f"SENTINELS is a whole number, not {settings['SENTINELS']!r}")
    for name in ("TIDEGATE_BIN", "NGINX", "REDIS_SERVER", "PROMETHEUS"):
        if "/" in settings[name]:  # a path; a bare name is looked up where it is needed
            settings[name] = str(Path(settings[name]).resolve())
    return settings


def replica_names(settings):
    return [f"r{number}" for number in range(1, int(settings["REPLICAS"]) + 1)]


def replica_addresses(settings):
    first = int(settings["REPLICA_PORT"])
    return [f"{HOST}:{first + offset}" for offset in range(int(settings["REPLICAS"]))]


def parts(settings):
    """All parts, in the order in which they start: each needs only those before it."""
    return [redis(settings), *watch(settings), *replicas(settings), nginx(settings), prometheus(settings)]


def redis(settings, name="redis", variable="REDIS_PORT", more=()):
    port = int(settings[variable])
    moves = bool(settings["REDIS_CLOCK"])
    return Part(
        name=name,
        port=port,
        variable=variable,
        program=settings["REDIS_SERVER"],
        # The log is the promise: it is written to disk, and never evicted to make room.
        arguments=[
            *("--bind", HOST, "--port", str(port), "--daemonize", "no", "--dir", "."),
            *("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
            # Whoever publishes more at once is refused: Redis would cut off all who listen.
            *("--client-output-buffer-limit", "pubsub 64mb 32mb 60", "--proto-max-bulk-len", "4mb"),
            *more,
        ],
        answers=lambda: redis_pongs(port),
        environment={"LD_PRELOAD": "./clock.so", "CLOCK_OFFSET_FILE": "clock"} if moves else {},
        prepare=build_clock if moves else lambda home: None,
    )


def build_clock(home):
    """The clock of the process that works in `home`: eight bytes there are what it is wrong by, in seconds."""
    (home / "clock").write_bytes(bytes(8))
    source = ROOT / "deploy/local/clock.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", home / "clock.so", source], check=True)


def watch(settings):
    """A replica of Redis that can take over, and the sentinels that see to it."""
    if not sentinel_addresses(settings):
        return []
    of_master = ("--replicaof", HOST, settings["REDIS_PORT"], "--repl-diskless-sync-delay", "0")
    sentinels = [sentinel(settings, *each) for each in enumerate(sentinel_addresses(settings), start=1)]
    return [redis(settings, "redis2", "REDIS_REPLICA_PORT", of_master), *sentinels]


def sentinel(settings, number, address):
    port = int(address.rpartition(":")[2])
    quorum = int(settings["SENTINELS"]) // 2 + 1
    lines = [
        f"port {port}",
        f"bind {HOST}",
        f"sentinel monitor {MASTER} {HOST} {settings['REDIS_PORT']} {quorum}",
        # A second without an answer. The defaults are made for networks that lose packets: half a minute.
        f"sentinel down-after-milliseconds {MASTER} 1000",
        f"sentinel failover-timeout {MASTER} 2000",
    ]
    return Part(
        name=f"sentinel{number}",
        port=port,
        variable="SENTINEL_PORT",
        program=settings["REDIS_SERVER"],
        arguments=["sentinel.conf", "--sentinel", "--daemonize", "no"],
        answers=lambda: redis_pongs(port),
        prepare=lambda home: (home / "sentinel.conf").write_text("\n".join(lines)),
        stop_seconds=5,
    )


def sentinel_addresses(settings):
    first = int(settings["SENTINEL_PORT"])
    return [f"{HOST}:{first + offset}" for offset in range(int(settings["SENTINELS"]))]


def redis_url(settings, port=None):
    """Where Redis is, or who knows."""
    sentinels = ",".join(sentinel_addresses(settings))
    return f"redis+sentinel://{sentinels}/{MASTER}" if sentinels else f"redis://{HOST}:{port or settings['REDIS_PORT']}"


def replicas(settings):
    def replica(name, address, redis_port):
        port = int(address.rpartition(":")[2])
        environment = {
            "TIDEGATE__SERVER__LISTEN": address,
            "TIDEGATE__SERVER__TRUSTED_PROXIES": HOST,  # nginx
            "TIDEGATE__REDIS__URL": redis_url(settings, redis_port),
            "TIDEGATE__REPLICA__NAME": name,
        }
        if settings["OLDER_BUILDS"]:
            environment = known_to(settings["TIDEGATE_BIN"], environment)
        return Part(
            name=name,
            port=port,
            variable="REPLICA_PORT",
            program=settings["TIDEGATE_BIN"],
            arguments=["serve"],
            environment=environment,
            answers=lambda: http_status(port, "/readyz") == 200,
            stop_seconds=DRAIN_SECONDS + TASKS_SECONDS,
        )

    names, addresses = replica_names(settings), replica_addresses(settings)
    link = settings["REDIS_LINK_PORT"]
    redis_ports = [int(link) + n if link else settings["REDIS_PORT"] for n in range(len(names))]
    return [replica(*each) for each in zip(names, addresses, redis_ports)]


def known_to(program, environment):
    """Of the settings, those that this build knows: it refuses any other."""
    said = subprocess.run([program, "check-config"], env=environment, capture_output=True, text=True).stderr
    unknown = re.findall(r"^tidegate: (\S+) \(in the environment\): there is no such key", said, re.MULTILINE)
    variables = {"TIDEGATE__" + key.upper().replace(".", "__") for key in unknown}
    return {name: value for name, value in environment.items() if name not in variables}


def has_tls(settings):
    return bool(settings["TLS"])


def nginx(settings):
    port, https = int(settings["NGINX_PORT"]), int(settings["HTTPS_PORT"])

    source = ROOT / "nginx"

    def prepare(home):
        _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = NGINX_FILES_MAX if files == resource.RLIM_INFINITY else min(files, NGINX_FILES_MAX)
        for shared in source.glob("tidegate-*.conf"):
            shutil.copy(shared, home)
        main = Template((source / "nginx.conf.template").read_text()).substitute(
            NGINX_LISTEN=f"{HOST}:{port}",
            NGINX_STATUS_LISTEN=f"{HOST}:{settings['NGINX_STATUS_PORT']}",
            NGINX_WORKER_CONNECTIONS=min(files - NGINX_SPARE_FILES, NGINX_CONNECTIONS_MAX),
            NGINX_WORKER_FILES=files,
        )
        (home / "nginx.conf").write_text(main)
        for name in ("replicas.conf", "replicas-requests.conf"):
            line = Template((source / f"{name}.template").read_text())
            servers = (line.substitute(REPLICA=address) for address in replica_addresses(settings))
            (home / name).write_text("\n".join(servers))
        listen_https(home)

    def listen_https(home):
        file = home / "listen-https.conf"
        file.unlink(missing_ok=True)  # of an earlier start
        if has_tls(settings):
            try:
                tls.keep_certificate(home)
            except OSError as why:
                raise Fault(f"no certificate for TLS=1: {why}") from why
            http2 = "; http2 on;" if nginx_version(settings["NGINX"]) >= (1, 25, 1) else "http2;"
            template = Template((source / f"{file.name}.template").read_text())
            file.write_text(template.substitute(NGINX_HTTPS_LISTEN=f"{HOST}:{https}", NGINX_HTTP2=http2))

    # Started by root, nginx would hand its workers to another user, who may not enter the folder that this lies in.
    user = "user root; " if os.geteuid() == 0 else ""
    return Part(
        name="nginx",
        port=port,
        variable="NGINX_PORT",
        program=settings["NGINX"],
        arguments=["-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", f"{user}daemon off;"],
        prepare=prepare,
        # Its own health, and that of the way through it: 502 and 504 are what it says when no replica answers.
        answers=lambda: (
            http_status(port, "/nginx-health") == 200
            and http_status(port, "/events", "HEAD") not in (None, 502, 504)
            and not (has_tls(settings) and http_status(https, "/nginx-health", connect=https_connection) != 200)
        ),
        also={
            "NGINX_STATUS_PORT": int(settings["NGINX_STATUS_PORT"]),
            **({"HTTPS_PORT": https} if has_tls(settings) else {}),
        },
        stop_seconds=5,
    )


def nginx_version(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + PATHS_MORE)
    if path is None:
        raise Fault(f"{name} is missing")
    said = subprocess.run([path, "-v"], capture_output=True, text=True).stderr
    return tuple(map(int, re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said).groups()))


def https_connection(port):
    """Whether the certificate is believed is for clients to say; here it is only asked who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(HOST, port, timeout=2, context=context)


def prometheus(settings):
    port = int(settings["PROMETHEUS_PORT"])

    def prepare(home):
        source = ROOT / "deploy/prometheus"
        shutil.copy(source / "prometheus.yml", home)
        for folder in ("rules", "targets"):
            (home / folder).mkdir(exist_ok=True)
        for rules in source.glob("rules/*.yml"):
            shutil.copy(rules, home / "rules")
        found = {"tidegate": replica_addresses(settings), "nginx": [f"{HOST}:{settings['NGINX_STATUS_PORT']}"]}
        for name, addresses in found.items():
            (home / f"targets/{name}.json").write_text(json.dumps([{"targets": addresses}]))

    return Part(
        name="prometheus",
        port=port,
        variable="PROMETHEUS_PORT",
        program=settings["PROMETHEUS"],
        arguments=[
            *("--config.file=prometheus.yml", "--storage.tsdb.path=data", "--storage.tsdb.retention.time=7d"),
            f"--web.listen-address={HOST}:{port}",
            "--web.enable-remote-write-receiver",  # k6 writes what it sees beside what is scraped
        ],
        prepare=prepare,
        answers=lambda: http_status(port, "/-/ready") == 200,
    )


def http_connection(port):
    return http.client.HTTPConnection(HOST, port, timeout=2)


def http_status(port, path, method="GET", connect=http_connection):
    """The status of one request, or None if there was no answer."""
    connection = connect(port)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def redis_pongs(port):
    """Does Redis answer PING? While it loads its log from disk it answers with an error instead."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
