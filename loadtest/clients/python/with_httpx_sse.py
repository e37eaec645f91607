"""httpx-sse: with_httpx_sse.py plain|remedy URL"""

import sys
import time

import httpx
from httpx_sse import SSEError, connect_sse
from said import show


def plain(url):
    """As the README shows."""
    with httpx.Client() as client:
        with connect_sse(client, "GET", url) as source:
            for event in source.iter_sse():
                show(event.id, event.event, event.data)


# remedy
def events(url):
    last, wait = "", 3.0
    with httpx.Client(timeout=httpx.Timeout(5, read=45)) as client:  # three heartbeats
        while True:
            try:
                headers = {"Last-Event-ID": last} if last else {}
                with connect_sse(client, "GET", url, headers=headers) as source:
                    if source.response.status_code in (204, 400):
                        return
                    for event in source.iter_sse():
                        last, wait = event.id or last, event.retry / 1000 if event.retry else wait
                        yield event
            except (httpx.TransportError, SSEError):
                pass
            time.sleep(wait)


# end of remedy


def remedy(url):
    for event in events(url):
        show(event.id, event.event, event.data)


{"plain": plain, "remedy": remedy}[sys.argv[1]](sys.argv[2])
