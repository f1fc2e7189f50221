"""Crawls sites over HTTP, following the links that it finds, with a limit for each host and one for all.

    python examples/crawl.py [URL ...]

Each host has a line of its own: what was found there waits in a queue, and a pool fetches it under that host's node of
the tree. Links to hosts that were not named are not followed. Without a URL the program crawls a site that it serves itself:
the standard library, each module a page with links to what it imports, packages on one host and the rest on another.
"""

import asyncio
import html
import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path

from aiohttp import ClientConnectionError, ClientSession, web
from aiohttp.test_utils import TestServer
from yarl import URL

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    PullRaceObj,
    PushPullBufferObj,
    Retry,
    Task,
)

STDLIB = Path(sysconfig.get_path("stdlib"))


async def crawl(session: ClientSession, seeds: list[URL]) -> None:
    hosts = {url.authority: PushPullBufferObj[Task]() for url in seeds}
    links: Counter[URL] = Counter()
    left = 0

    def find(url: URL) -> None:
        nonlocal left
        links[url] += 1
        if links[url] == 1 and url.authority in hosts:
            left += 1
            hosts[url.authority].sink.next_nowait(Task(fetch, url, key=url))

    async def fetch(url: URL) -> int:
        async with session.get(url, raise_for_status=True) as response:
            page = await response.text(errors="replace")
        for link in re.findall(r'<a href="([^"]+)', page):
            find(response.url.join(URL(html.unescape(link))).with_fragment(None))
        return len(page)

    for url in seeds:
        find(url)
    retry = Retry(attempts=3, on=(ClientConnectionError, TimeoutError))
    everything = CapacitySource(6, name="all hosts")
    nodes = {host: CapacitySource(4, everything, name=host) for host in hosts}
    runners = [
        HierarchicalTaskPoolRunner(queue.source, nodes[host], retry=retry, timeout=10)
        for host, queue in hosts.items()
    ]
    sizes: list[int] = []
    async with PullRaceObj(*(runner.run_tasks() for runner in runners)) as fetched:
        async for envelope in fetched:
            if envelope.error is None:
                sizes.append(envelope.value)
            else:
                print(f"{envelope.key}: {envelope.error}")
            left -= 1
            if not left:  # and so nothing runs that could find more
                for queue in hosts.values():
                    await queue.sink.return_()
    print(f"{len(sizes)} pages, {sum(sizes):,} characters; linked most:")
    for url, count in links.most_common(10):
        print(f"{count:>6}  {url}")


def source(module: str) -> str:
    path = STDLIB / module.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")


async def page(request: web.Request) -> web.Response:
    def link(line: re.Match[str]) -> str:
        host = "localhost" if (STDLIB / line[2].replace(".", "/")).is_dir() else "127.0.0.1"
        return f'{line[1]}<a href="{request.url.with_host(host).with_path(line[2])}">{line[2]}</a>'

    try:
        text = html.escape(await asyncio.to_thread(source, request.match_info["module"]))
    except FileNotFoundError:
        raise web.HTTPNotFound from None
    text = re.sub(r"(?m)^( *(?:from|import) )(\w+(?:\.\w+)*)", link, text)
    return web.Response(text=f"<pre>{text}</pre>", content_type="text/html")


async def main() -> None:
    site = web.Application()
    site.add_routes([web.get(r"/{module:\w+(?:\.\w+)*}", page)])
    async with ClientSession() as session, TestServer(site) as server:
        own = [server.make_url("/pydoc"), server.make_url("/logging").with_host("localhost")]
        await crawl(session, [URL(url) for url in sys.argv[1:]] or own)


if __name__ == "__main__":
    asyncio.run(main())
