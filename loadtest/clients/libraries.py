"""The libraries, how each program is had, and how it is started."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILT = ROOT / ".local/clients"  # what is installed and compiled; the npm packages lie beside their programs


@dataclass(frozen=True)
class Library:
    name: str
    family: str  # whose registry has it
    package: str  # what it is called there
    plain: tuple  # the command; the URL of the stream follows
    remedy: tuple = ()  # the same with our remedy; none where none is needed
    cure: str = "–"  # the remedy in words, or the name of another client
    source: str = ""  # the file that has the remedy
    speaks: str = "json"  # json: a line of JSON for each event; sse: the stream itself; lines: the data alone

    def version(self):
        """The one that is locked, or of a program the one that is here."""
        file, pattern = {
            "npm": ("npm/package-lock.json", r'"node_modules/{}": \{{[^}}]*?"version": "([^"]+)"'),
            "python": ("python/requirements.txt", r"^{}==(.+)$"),
            "go": ("go/go.mod", r"^\t{} v(\S+)$"),
            "rust": ("rust/Cargo.lock", r'name = "{}"\nversion = "([^"]+)"'),
            "java": ("java/pom.xml", r"<artifactId>{}</artifactId>\s*<version>([^<]+)"),
        }.get(self.family, (None, r"(\d+[.\d]*)"))
        if file:
            text = (HERE / file).read_text()
        else:
            text = subprocess.run([self.package, "--version"], capture_output=True, text=True).stdout
        return re.search(pattern.format(re.escape(self.package)), text, re.MULTILINE)[1]


def with_remedy(name, family, package, command, source, cure):
    """A library whose program has both forms."""
    return Library(name, family, package, (*command, "plain"), (*command, "remedy"), cure, source)


def libraries():
    node, python = "node", BUILT / "python/bin/python3"
    java = ("java", "-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", f"{BUILT}/java:{BUILT}/java/*", "Client")

    def with_python(name, module):
        source = f"python/with_{module}.py"
        return with_remedy(name, "python", name, (python, HERE / source), source, "a loop")

    return [
        Library(
            "Chromium EventSource",
            "chromium",
            "chromium",
            plain=(sys.executable, HERE / "chromium/client.py", "EventSource", "plain"),
        ),
        *(
            Library(f"npm eventsource {major}", "npm", name, plain=(node, HERE / "npm/eventsource.mjs", name))
            for major in (2, 3, 4)
            for name in [f"eventsource{major}"]
        ),
        with_remedy(
            "fetch-event-source in Node",
            "npm",
            "@microsoft/fetch-event-source",
            (node, HERE / "npm/fetch-event-source.mjs"),
            "npm/fetch-event-source.mjs",
            "a clean end is an error, and 204 and 400 are final",
        ),
        with_remedy(
            "fetch-event-source in Chromium",
            "chromium",
            "chromium",
            (sys.executable, HERE / "chromium/client.py", "fetch-event-source"),
            "",
            "the same",
        ),
        with_python("httpx-sse", "httpx_sse"),
        with_python("sseclient-py", "sseclient"),
        with_python("aiohttp-sse-client", "aiohttp_sse_client"),
        with_remedy(
            "r3labs/sse",
            "go",
            "github.com/r3labs/sse/v2",
            (BUILT / "go/r3labs",),
            "go/r3labs/main.go",
            "a loop; events without data are skipped, 204 and 400 are final",
        ),
        Library("tmaxmax/go-sse", "go", "github.com/tmaxmax/go-sse", plain=(BUILT / "go/tmaxmax", "plain")),
        with_remedy(
            "launchdarkly/eventsource",
            "go",
            "github.com/launchdarkly/eventsource",
            (BUILT / "go/launchdarkly",),
            "go/launchdarkly/main.go",
            "errors have a handler",
        ),
        with_remedy(
            "eventsource-client (Rust)",
            "rust",
            "eventsource-client",
            (ROOT / "target/clients/release/tidegate-client",),
            "rust/src/main.rs",
            "an error does not end the loop",
        ),
        with_remedy(
            "okhttp-sse (Java)", "java", "okhttp-sse", java, "java/Client.java", "a loop, and another read time-out"
        ),
        Library(
            "curl",
            "curl",
            "curl",
            plain=("curl", "-sSN", "--retry", "1000", "--retry-all-errors", "--retry-delay", "1"),
            cure="`tidegate tail`",
            speaks="sse",
        ),
        Library("tidegate tail", "tidegate", os.environ["TIDEGATE_BIN"], plain=(HERE / "tail",), speaks="lines"),
    ]


NPM = threading.Lock()  # two families have packages of npm


class Missing(Exception):
    """What cannot be had here, in words."""


def have(family):
    """Installs and builds what the programs of this family need. Missing: a registry or a tool is not there."""
    {
        "npm": have_npm,
        "python": have_python,
        "go": have_go,
        "rust": have_rust,
        "java": have_java,
        "chromium": have_chromium,
        "curl": lambda: need("curl"),
        "tidegate": lambda: None,
    }[family]()


def have_npm():
    need("node", "npm")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    if not version.startswith("v") or int(version[1:].split(".")[0]) < 20:
        raise Missing(f"node 20 or later, not {version.strip()}")
    with NPM:
        once(
            HERE / "npm/node_modules",
            HERE / "npm/package-lock.json",
            ["npm", "ci", "--no-audit", "--no-fund", "--prefix", HERE / "npm"],
        )


def have_chromium():
    need("chromium")
    have_npm()  # a page with fetch-event-source


def have_python():
    need("python3-venv")
    venv, wanted = BUILT / "python", HERE / "python/requirements.txt"
    pip = [
        venv / "bin/python3",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
        wanted,
    ]
    once(venv, wanted, [sys.executable, "-m", "venv", "--clear", venv], pip)


def have_go():
    need("go")
    module = ["go", "-C", HERE / "go"]
    fetched("go mod download", [*module, "mod", "download"])
    BUILT.mkdir(parents=True, exist_ok=True)
    build([*module, "build", "-buildvcs=false", "-o", f"{BUILT}/go/", "./..."])


def have_rust():
    present("cargo")
    manifest = ["--locked", "--manifest-path", HERE / "rust/Cargo.toml"]
    fetched("cargo fetch", ["cargo", "fetch", *manifest])
    build(["cargo", "build", "--release", *manifest, "--target-dir", ROOT / "target/clients"])


def have_java():
    present("mvn", "javac")
    classes = BUILT / "java"
    jars = [
        "mvn",
        "-q",
        "-B",
        "-f",
        HERE / "java/pom.xml",
        "dependency:copy-dependencies",
        f"-DoutputDirectory={classes}",
    ]
    once(classes, HERE / "java/pom.xml", jars)
    build(["javac", "-d", classes, "-cp", f"{classes}/*", HERE / "java/Client.java"])


def need(*programs):
    """These are here, or can be had from the distribution."""
    if subprocess.run([ROOT / "deploy/install.sh", *programs], stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        raise Missing(f"{', '.join(programs)}: not installed")


def present(*programs):
    """These are here. Nobody is to get a compiler on their machine for a table."""
    if missing := [name for name in programs if not shutil.which(name)]:
        raise Missing(f"{', '.join(missing)}: not installed")


def once(place, wanted, *commands):
    """Fills a folder, unless it was filled from a file with the same content."""
    stamp = place / "filled-from"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(place, ignore_errors=True)
    for command in commands:
        fetched(Path(command[0]).name, command)
    stamp.write_text(digest)


def fetched(what, command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    said = done.stderr or done.stdout
    if re.search("EUSAGE|missing go.sum|updates to go.mod|checksum mismatch|--locked", said) and done.returncode:
        raise RuntimeError(f"{what}: the lock file is wrong, and no registry is: {said[-2000:]}")
    if done.returncode:
        raise Missing(f"{what}: {' / '.join(said.strip().splitlines()[:2])}")


def build(command):
    """All that it needs is here: if it fails, the fault is ours."""
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
