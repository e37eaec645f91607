"""What the released binary is made of, from cargo's own lists.

    inventory.py licences TARGET    the licence of each crate in it, with its text
    inventory.py sbom TARGET        a bill of materials (CycloneDX 1.6, JSON)

Only what is linked in, or runs while it is built: no crate that only tests use. A crate without a text of its licence,
or without a licence, ends it with a fault.
"""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The names that licence texts have: LICENSE, LICENCE-MIT, COPYING, UNLICENSE, license-apache-2.0.txt, NOTICE ...
TEXT = re.compile(r"(licen[cs]e|copying|unlicense|notice|copyright)", re.IGNORECASE)
# Crates that ship no text: that of what they may be used under, as the crate says, is taken from this repository.
OWN_TEXTS = {"MIT": "LICENSE-MIT", "Apache-2.0": "LICENSE-APACHE"}


def crates(target):
    """The packages of the binary by id, and for each the ids that it needs."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    (root,) = (one for one in metadata["workspace_members"] if packages[one]["name"] == "tidegate")
    needs, todo = {}, [root]
    while todo:
        one = todo.pop()
        if one in needs:
            continue
        found = (dep for dep in nodes[one]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"]))
        needs[one] = sorted({dep["pkg"] for dep in found})
        todo += needs[one]
    return root, {one: packages[one] for one in sorted(needs, key=lambda one: name_of(packages[one]))}, needs


def name_of(package):
    return package["name"], package["version"]


def texts(package):
    folder = Path(package["manifest_path"]).parent
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and TEXT.match(file.name)]
    files = [file for file in files if file.suffix not in (".rs", ".toml")]
    found = [file.read_text(errors="replace").strip() for file in files]
    if not found:
        usable = re.split(r"\s+OR\s+|/", package["license"] or "")
        found = [(ROOT / OWN_TEXTS[one]).read_text().strip() for one in usable if one in OWN_TEXTS][:1]
    if not found:
        sys.exit(f"inventory: {package['name']} {package['version']} comes without the text of its licence")
    return found


def licences(target):
    root, packages, _ = crates(target)
    users, wording = defaultdict(list), {}
    print("Tidegate is made of the crates below. Each is followed by its licence, as it says it; the texts come after.\n")
    for one, package in packages.items():
        if one == root:
            continue
        label = f"{package['name']} {package['version']}"
        print(f"{label:40} {package['license'] or fail(label)}")
        for text in texts(package):
            # Texts that differ in their white space alone are one.
            key = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
            wording.setdefault(key, text)
            users[key].append(label)
    for key, text in wording.items():
        print(f"\n{'=' * 120}\n{', '.join(users[key])}\n{'-' * 120}\n\n{text}")


def fail(label):
    sys.exit(f"inventory: {label} has no licence")


def sbom(target):
    root, packages, needs = crates(target)
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in locked}

    def reference(one):
        return f"pkg:cargo/{packages[one]['name']}@{packages[one]['version']}"

    def component(one):
        package = packages[one]
        entry = {
            "type": "application" if one == root else "library",
            "bom-ref": reference(one),
            "name": package["name"],
            "version": package["version"],
            "purl": reference(one),
            "licenses": [{"expression": (package["license"] or fail(package["name"])).replace("/", " OR ")}],
        }
        if package["description"]:
            entry["description"] = " ".join(package["description"].split())
        if package["repository"]:
            entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        if checksums.get(name_of(package)):
            entry["hashes"] = [{"alg": "SHA-256", "content": checksums[name_of(package)]}]
        return entry

    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": component(root),
            "properties": [{"name": "tidegate:target", "value": target}],
        },
        "components": [component(one) for one in packages if one != root],
        "dependencies": [
            {"ref": reference(one), "dependsOn": sorted(reference(dep) for dep in needs[one])} for one in packages
        ],
    }
    print(json.dumps(bill, indent=1))


{"licences": licences, "sbom": sbom}[sys.argv[1]](sys.argv[2])
