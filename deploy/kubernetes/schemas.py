"""Writes the schemas that kubeconform reads: one file for each kind, with all that it refers to.

schemas.py VENV KUBERNETES GATEWAY_API FOLDER
"""

import json
import sys
from pathlib import Path

import yaml

venv, version, gateway_api, folder = sys.argv[1:]
folder = Path(folder)
# Of the builtin kinds that occur here; one that is missing is an error of kubeconform's.
KINDS = [
    *("configmap-v1", "deployment-apps-v1", "horizontalpodautoscaler-autoscaling-v2", "networkpolicy-networking-v1"),
    *("poddisruptionbudget-policy-v1", "secret-v1", "service-v1", "serviceaccount-v1"),
]


def closed(schema):
    """A field that the schema does not know is an error, as the server's strict mode has it."""
    if isinstance(schema, dict):
        inner = {key: closed(value) for key, value in schema.items()}
        if isinstance(inner.get("properties"), dict) and "additionalProperties" not in inner:
            inner["additionalProperties"] = False
        return inner
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


(source,) = Path(venv).glob(f"lib/python*/site-packages/kubernetes_validate/*/v{version}.0-local-strict")
definitions = json.loads((source / "_definitions.json").read_text())["$defs"]
for kind in KINDS:
    schema = json.loads((source / f"{kind}.json").read_text()) | {"$defs": definitions}
    text = json.dumps(closed(schema)).replace("/api/_definitions.json#/$defs/", "#/$defs/")
    (folder / f"{kind}.json").write_text(text)

crd = yaml.safe_load(Path(gateway_api, "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml").read_text())
(v1,) = (known for known in crd["spec"]["versions"] if known["name"] == "v1")
schema = closed(v1["schema"]["openAPIV3Schema"])
schema["properties"]["metadata"] = {"type": "object"}
(folder / "httproute-gateway-v1.json").write_text(json.dumps(schema))
