"""Makes the image of an unpacked release, without an engine: the static program alone, set up as deploy/Dockerfile says.

    image.py RELEASE OUT

`docker load`, `podman load`, `ctr images import` and whatever reads the OCI layout take it: it has the index of both
(https://github.com/opencontainers/image-spec/blob/main/image-layout.md, and Docker's own manifest.json).
"""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

release, out = map(Path, sys.argv[1:])
ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # of Python and uname; as Go calls them
WHEN = int(os.environ["SOURCE_DATE_EPOCH"])
CREATED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(WHEN))


def dockerfile():
    """The instructions of its last stage: (word, rest)."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    _, last = text.rsplit("\nFROM ", 1)
    return [line.split(None, 1) for line in last.splitlines()[1:] if line.strip()]


def settings(version, revision):
    """What the image runs, and how."""
    arguments = {"VERSION": version, "REVISION": revision}
    found = {"Env": ["PATH=/"], "WorkingDir": "/"}
    for word, rest in dockerfile():
        rest = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest).strip()
        if word == "LABEL":
            found["Labels"] = dict(re.findall(r'(\S+?)="(.*?)"', rest))
        elif word == "ENV":
            found["Env"].append(rest)
        elif word == "EXPOSE":
            found["ExposedPorts"] = {f"{rest}/tcp": {}}
        elif word == "USER":
            found["User"] = rest
        elif word == "STOPSIGNAL":
            found["StopSignal"] = rest
        elif word in ("ENTRYPOINT", "CMD"):
            found[word.capitalize()] = json.loads(rest)
        elif word == "HEALTHCHECK":
            flags, command = rest.split(" CMD ")
            seconds = {name: int(value) * 10**9 for name, value in re.findall(r"--([\w-]+)=(\d+)s", flags)}
            found["Healthcheck"] = {
                "Test": ["CMD", *json.loads(command)],
                "Interval": seconds["interval"],
                "Timeout": seconds["timeout"],
                "StartPeriod": seconds["start-period"],
                "Retries": int(re.search(r"--retries=(\d+)", flags)[1]),
            }
        elif word not in ("COPY", "ARG"):
            sys.exit(f"image: what is {word} of the Dockerfile?")
    found["Cmd"] = found.pop("Cmd")
    return found


def tar(entries):
    """A tar of (name, bytes, mode), the same bytes each time."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, mode in entries:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), mode, WHEN
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def described(kind, data):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest(data)}", "size": len(data)}


said = subprocess.run([release / "tidegate", "--version"], capture_output=True, text=True, check=True).stdout
version, revision = re.fullmatch(r"tidegate (\S+)(?: \((.*)\))?\n", said).groups()
layer = tar([("tidegate", (release / "tidegate").read_bytes(), 0o755)])
packed = gzip.compress(layer, mtime=0)
config = json.dumps(
    {
        "architecture": ARCHITECTURES[os.uname().machine],
        "os": "linux",
        "created": CREATED,
        "config": {name: value for name, value in settings(version, revision or "unknown").items()},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}"]},
        "history": [{"created": CREATED, "created_by": "make dist"}],
    }
).encode()
manifest = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", config),
        "layers": [described("layer.v1.tar+gzip", packed)],
    }
).encode()
name = f"tidegate:{version}"
index = {"schemaVersion": 2, "manifests": [described("manifest.v1+json", manifest)]}
index["manifests"][0]["annotations"] = {
    "io.containerd.image.name": f"docker.io/library/{name}",
    "org.opencontainers.image.ref.name": version,
}
blobs = [(f"blobs/sha256/{digest(blob)}", blob, 0o644) for blob in (config, packed, manifest)]
docker = [{"Config": blobs[0][0], "RepoTags": [name], "Layers": [blobs[1][0]]}]
image = tar(
    [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}', 0o644),
        ("index.json", json.dumps(index).encode(), 0o644),
        ("manifest.json", json.dumps(docker).encode(), 0o644),
        *blobs,
    ]
)
(out / f"{release.name}-image.tar").write_bytes(image)
