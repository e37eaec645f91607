"""aiohttp-sse-client: with_aiohttp_sse_client.py plain|remedy URL"""

import asyncio
import sys

import aiohttp
from aiohttp_sse_client import client
from said import show


async def plain(url):
    """As the README shows."""
    async with client.EventSource(url) as source:
        try:
            async for event in source:
                show(event.last_event_id, event.type, event.data)
        except ConnectionError:
            pass


# remedy
async def check(response):
    if response.status in (204, 400):
        raise EOFError(response.status)


async def events(url, last=""):
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=45), raise_for_status=check) as session:
        while True:
            try:
                async with client.EventSource(url, session=session, headers={"Last-Event-Id": last}) as source:
                    async for event in source:
                        last = event.last_event_id or last
                        yield event
            except EOFError:
                return
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(3)


# end of remedy


async def remedy(url):
    async for event in events(url):
        show(event.last_event_id, event.type, event.data)


asyncio.run({"plain": plain, "remedy": remedy}[sys.argv[1]](sys.argv[2]))
