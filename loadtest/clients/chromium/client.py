"""A page of a real Chromium that reads a stream: client.py EventSource|fetch-event-source plain|remedy URL"""

import json
import re
import sys
from pathlib import Path
from urllib.parse import urljoin

from devtools import Chromium

NPM = Path(__file__).resolve().parents[1] / "npm"

EVENT_SOURCE = """
const source = new EventSource(url);
source.onmessage = ({ data, lastEventId }) => report({ id: lastEventId, data });
"""
FETCH_EVENT_SOURCE = (
    "form(url, ({ id, event, data }) => report({ id, type: event, data })).catch(() => report({ over: 1 }));"
)


def fetch_event_source(form):
    """The package's two modules as one script, and what npm/fetch-event-source.mjs does with them."""
    package = NPM / "node_modules/@microsoft/fetch-event-source/lib/esm"
    library = "\n".join((package / name).read_text() for name in ("parse.js", "fetch.js"))
    library = re.sub(r"^(import .*|export (?=async|function|const))", "", library, flags=re.MULTILINE)
    ours = (NPM / "fetch-event-source.mjs").read_text()
    ours = ours[ours.index("// As the README") : ours.index("// end of remedy")]
    return f"{library}\n{ours}\nconst form = {'plain' if form == 'plain' else 'follow'};\n{FETCH_EVENT_SOURCE}"


def heard(event):
    if "over" in event:
        sys.exit(1)
    print(json.dumps(event), flush=True)


library, form, url = sys.argv[1:]
script = EVENT_SOURCE if library == "EventSource" else fetch_event_source(form)
browser = Chromium(["--ignore-certificate-errors"])
# The page is of the same origin, and has no script of its own.
browser.open(urljoin(url, "/nginx-health"), f"{{ const url = {json.dumps(url)};\n{script} }}", heard)
