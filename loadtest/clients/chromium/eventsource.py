"""EventSource of a real Chromium, as any page has it: eventsource.py plain URL"""

import json
import sys
from urllib.parse import urljoin

from devtools import Chromium

SCRIPT = """
const source = new EventSource(URL_OF_STREAM);
source.onmessage = ({ data, lastEventId }) => report({ id: lastEventId, data });
"""
url = sys.argv[2]
browser = Chromium(["--ignore-certificate-errors"])
browser.open(
    urljoin(url, "/nginx-health"),  # of the same origin, and without a script of its own
    SCRIPT.replace("URL_OF_STREAM", json.dumps(url)),
    lambda event: print(json.dumps(event), flush=True),
)
