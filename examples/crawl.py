"""Crawls sites over HTTP, following the links that it finds, with a limit for each host and one for all.

    python examples/crawl.py [URL ...]

Each host has a line of its own: what was found there waits in a queue, and a pool fetches it under that host's node of
the tree. Links to hosts that were not named are not followed. Without a URL the program crawls two packages of the
standard library, which it serves itself, as directories and files, under two names of this machine.
"""

import asyncio
import html
import re
import sys
import sysconfig

from aiohttp import ClientConnectionError, ClientSession, web
from aiohttp.test_utils import TestServer
from yarl import URL

from headrace import CapacitySource, HierarchicalTaskPoolRunner, PushPullBufferObj, Retry, Task

RETRY = Retry(retries=2, on=(ClientConnectionError, TimeoutError))


async def crawl(session: ClientSession, seeds: list[URL]) -> None:
    everything = CapacitySource(6, name="all hosts")
    queues = {url.authority: PushPullBufferObj[Task]() for url in seeds}
    found = set[URL]()
    done = 0

    def find(url: URL) -> None:
        if url.authority in queues and url not in found:
            found.add(url)
            queues[url.authority].sink.next_nowait(Task(fetch, url, key=url))

    async def fetch(url: URL) -> int:
        async with session.get(url, allow_redirects=False, raise_for_status=True) as response:
            page = await response.text(errors="replace")
        links = response.headers.getall("Location", [])  # a redirect may lead to another host
        if response.content_type == "text/html":
            links += map(html.unescape, re.findall(r'<a href="([^"]+)', page))
        for link in links:
            find(url.join(URL(link)).with_fragment(None))
        return len(page)

    async def work(host: str) -> None:
        nonlocal done
        node = CapacitySource(4, everything, name=host)
        runner = HierarchicalTaskPoolRunner(queues[host].source, node, retry=RETRY, timeout=10)
        sizes: list[int] = []
        async with runner.run_tasks() as progress:
            async for envelope in progress:
                if envelope.error is None:
                    sizes.append(envelope.value)
                else:
                    print(f"{envelope.key}: {envelope.error}")
                done += 1
                if done == len(found):  # nothing waits, and nothing runs that could find more
                    for queue in queues.values():
                        queue.end()
        print(f"{host}: {len(sizes)} pages, {sum(sizes):,} characters")

    for url in seeds:
        find(url)
    async with asyncio.TaskGroup() as group:
        for host in queues:
            group.create_task(work(host))


async def main() -> None:
    site = web.Application()
    site.add_routes([web.static("/", sysconfig.get_path("stdlib"), show_index=True)])
    async with ClientSession() as session, TestServer(site) as server:
        own = [server.make_url("/email"), server.make_url("/xml").with_host("localhost")]
        await crawl(session, [URL(url) for url in sys.argv[1:]] or own)


if __name__ == "__main__":
    asyncio.run(main())
