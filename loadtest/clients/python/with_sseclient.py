"""sseclient-py: with_sseclient.py plain|remedy URL"""

import sys
import time

import requests
import sseclient
from said import show


def plain(url):
    """As the README shows."""
    response = requests.get(url, stream=True, headers={"Accept": "text/event-stream"})
    client = sseclient.SSEClient(response)
    for event in client.events():
        show(event.id, event.event, event.data)


# remedy
def events(url):
    headers, wait = {"Accept": "text/event-stream"}, 3.0
    while True:
        try:
            with requests.get(url, stream=True, headers=headers, timeout=(5, 45)) as response:
                if response.status_code in (204, 400):
                    return
                response.raise_for_status()
                for event in sseclient.SSEClient(response).events():
                    headers["Last-Event-ID"] = event.id or headers.get("Last-Event-ID")
                    wait = int(event.retry) / 1000 if event.retry else wait
                    yield event
        except requests.RequestException:
            pass
        time.sleep(wait)


# end of remedy


def remedy(url):
    for event in events(url):
        show(event.id, event.event, event.data)


{"plain": plain, "remedy": remedy}[sys.argv[1]](sys.argv[2])
