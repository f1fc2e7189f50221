"""The programs in `examples/` that serve and fetch, over real local sockets and in a real browser."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import re
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

EXAMPLES = Path(__file__).parents[1] / "examples"
STDLIB = Path(sysconfig.get_path("stdlib"))


def load(name: str, *needs: str) -> Any:
    """Import an example as a module."""
    for package in needs:
        pytest.importorskip(package, reason=f"examples/{name}.py needs {package}")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The crawler.


def page_counts() -> list[int]:
    """Return the number of pages of the crawler's own site, for each host."""
    return [1 + sum(1 for _ in (STDLIB / package).rglob("*")) for package in ("email", "xml")]


def test_crawl_of_its_own_site_finds_all_pages() -> None:
    load("crawl", "aiohttp")
    command = [sys.executable, "-W", "error", str(EXAMPLES / "crawl.py")]
    # Another program may compile a module there during the crawl, so the pages are counted before and after it.
    before = page_counts()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reported = re.findall(r"^(\S+):\d+: (\d+) pages, [\d,]+ characters$", done.stdout, re.MULTILINE)
    assert len(reported) == len(done.stdout.splitlines()), "it reports an error"
    for (host, pages), *counts in zip(sorted(reported), before, page_counts(), strict=True):
        assert host in ("127.0.0.1", "localhost")
        assert int(pages) in counts


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize(("hosts", "concurrency"), [(1, 4), (2, 6)])
async def test_crawl_keeps_its_limits_and_its_hosts(
    hosts: int, concurrency: int, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load("crawl", "aiohttp")
    from aiohttp import ClientSession, web
    from aiohttp.test_utils import TestServer

    requests: Counter[str] = Counter()
    in_progress: Counter[str] = Counter()
    peaks: dict[str, int] = defaultdict(int)
    full = asyncio.Event()

    async def index(request: web.Request) -> web.Response:
        requests[request.host] += 1
        links = [f"leaf/{number}" for number in range(24)]
        links += ["/#top", "dead", "http://elsewhere.invalid/", "once?a=1&amp;b=2"]
        text = "".join(f'<a href="{link}">' for link in links)
        return web.Response(text=text, content_type="text/html")

    async def leaf(request: web.Request) -> web.Response:
        host = request.host.split(":")[0]
        for name in (host, "all"):
            in_progress[name] += 1
            peaks[name] = max(peaks[name], in_progress[name])
        if in_progress["all"] == concurrency:
            full.set()
        await full.wait()  # a lower limit would block here
        await asyncio.sleep(0.01)  # a higher limit would admit more here
        in_progress.subtract([host, "all"])
        return web.Response(text='<a href="/">', content_type="text/html")

    async def once(request: web.Request) -> web.Response:
        requests[request.path_qs] += 1
        if requests[request.path_qs] == 1:
            assert request.transport is not None
            request.transport.close()
        return web.Response(text="at the second call", content_type="text/html")

    site = web.Application()
    site.add_routes([web.get("/", index), web.get("/leaf/{n}", leaf), web.get("/once", once)])
    async with ClientSession() as session, TestServer(site) as server:
        seeds = [server.make_url("/"), server.make_url("/").with_host("localhost")]
        async with asyncio.timeout(30):
            await example.crawl(session, seeds[:hosts])
    assert peaks["all"] == concurrency
    assert all(peak <= 4 for host, peak in peaks.items() if host != "all")
    # Each index once. The page `once` once for each host, and once more because its first response was cut off.
    assert sorted(requests.values()) == [1] * hosts + [hosts + 1]
    printed = capsys.readouterr().out
    assert printed.count(": 404, ") == hosts
    assert "elsewhere" not in printed
    entries = re.findall(r"^(\S+): 26 pages, ", printed, re.MULTILINE)
    assert sorted(entries) == sorted(url.authority for url in seeds[:hosts])


@pytest.mark.loops("asyncio")
async def test_crawl_follows_redirects_across_its_hosts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = load("crawl", "aiohttp")
    from aiohttp import ClientSession, web
    from aiohttp.test_utils import TestServer

    requests: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.Response:
        host, path = request.url.host, request.path
        requests[f"{host}{path}"] += 1
        other = server.make_url("/").with_host("localhost")
        if path == "/moved":
            raise web.HTTPFound(other.with_path("/there"))
        if path == "/gone":
            raise web.HTTPFound("http://elsewhere.invalid/")
        if path == "/there":
            return web.Response(text='<a href="/trap">', content_type="text/x-python")
        links = ["/moved", "/gone", other.with_path("/across"), server.make_url("/")]
        text = "".join(f'<a href="{link}">' for link in links)
        return web.Response(text=text, content_type="text/html")

    site = web.Application()
    site.add_routes([web.get("/{path:.*}", answer)])
    async with ClientSession() as session, TestServer(site) as server:
        seeds = [server.make_url("/"), server.make_url("/across").with_host("localhost")]
        async with asyncio.timeout(30):
            await example.crawl(session, seeds)
    paths = {"127.0.0.1": ["", "moved", "gone"], "localhost": ["across", "there", "moved", "gone"]}
    assert requests == Counter(f"{host}/{path}" for host in paths for path in paths[host])
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 2, "it reports an error"
    for url in seeds:
        assert f"{url.authority}: {len(paths[str(url.host)])} pages, " in printed


# Progress in a browser.


@contextmanager
def serving(app: Any) -> Generator[tuple[str, int]]:
    """Serve an application from a thread, and yield its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for number in range(12):
        (root / f"folder {number}" / "deep").mkdir(parents=True)
        for file in range(number * 5):
            (root / f"folder {number}" / "deep" / f"{file:03}").write_bytes(bytes([file]) * file)
    (root / "no folder").touch()
    return root


def digests(root: Path) -> dict[str, str]:
    return {
        folder.name: hashlib.sha256(
            b"".join(file.read_bytes() for file in sorted((folder / "deep").iterdir()))
        ).hexdigest()
        for folder in root.iterdir()
        if folder.is_dir()
    }


@pytest.mark.loops("asyncio")
async def test_events_cover_every_folder(folders: Path) -> None:
    example = load("progress", "starlette", "uvicorn")
    events = [event async for event in example.events(folders)]
    assert events[-1] == "event: end\ndata:\n\n"
    entries = [entry for event in events[:-1] for entry in json.loads(event.removeprefix("data: "))]
    assert {name: result for name, part, result in entries if part == 1} == digests(folders)
    parts = defaultdict(list)
    for name, part, _ in entries:
        parts[name].append(part)
    for number in range(12):
        files = number * 5
        assert parts[f"folder {number}"] == [*(file / files for file in range(files)), 1]


def test_disconnecting_browser_ends_its_work(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load("progress", "starlette", "uvicorn")

    async def endless(_: Path) -> AsyncIterator[object]:
        while True:
            await asyncio.sleep(0.001)
            yield 0.5

    monkeypatch.setattr(example, "checksum", endless)
    with serving(example.app(folders)) as address:
        first, second = (socket.create_connection(address, timeout=30) for _ in range(2))
        with first, second:
            for visitor in (first, second):
                visitor.sendall(b"GET /events HTTP/1.1\r\nHost: here\r\n\r\n")
                answer = b""
                while b"data: [[" not in answer:
                    answer += visitor.recv(1000)
                assert b"content-type: text/event-stream" in answer.lower()
            assert example.MACHINE.held == 8
            for held, visitor in ((4, first), (0, second)):
                visitor.close()
                deadline = time.monotonic() + 30
                while example.MACHINE.held != held:
                    assert time.monotonic() < deadline, f"{example.MACHINE!r}: its work continues"
                    time.sleep(0.01)


def test_browser_shows_the_progress(folders: Path, tmp_path: Path) -> None:
    example = load("progress", "starlette", "uvicorn")
    with browser(tmp_path / "browser") as page, serving(example.app(folders)) as (host, port):
        page.open(f"http://{host}:{port}/")
        page.evaluate(
            "stream.readyState == 2 || new Promise(done => stream.addEventListener('end', done))"
        )
        shown = page.evaluate(
            "[...document.querySelectorAll('main div')].map(row =>"
            " [row.children[0].textContent, row.children[1].value, row.children[2].textContent])"
        )
        assert {name: result for name, _, result in shown} == digests(folders)
        assert [part for _, part, _ in shown] == [1] * 12
        for dark in (False, True):
            page.look(width=800, dark=dark)
            page.screenshot(tmp_path / f"progress-{'dark' if dark else 'light'}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= 800
        problems = [event for event in page.events if event["method"] == "Log.entryAdded"]
        assert [event for event in problems if "favicon" not in str(event)] == []
    assert example.MACHINE.held == 0
