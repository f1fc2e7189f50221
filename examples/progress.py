"""Progress streamed to a browser: checksums of the folders in a directory, as server-sent events.

    python examples/progress.py [DIRECTORY]   then open http://127.0.0.1:8000

Every visitor has a run, under a node of their own: the machine is shared fairly among them. When a browser goes, its
run is left, and by then its work has stopped.
"""

import asyncio
import hashlib
import json
import sys
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

from headrace import CapacitySource, Final, HierarchicalTaskPoolRunner, Task, TaskProgressEnvelope

MACHINE = CapacitySource(8, name="machine")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Checksums</title><style>
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
  div { display: grid; grid-template-columns: 10rem 8rem 1fr; gap: 1rem; align-items: center }
  div * { min-width: 0; width: 100%; overflow: hidden; text-overflow: ellipsis }
</style><h1>Checksums</h1><main></main><script>
  const rows = {}, stream = new EventSource("/events")
  stream.addEventListener("end", () => stream.close())
  stream.onmessage = ({data}) => JSON.parse(data).forEach(([name, part, said]) => {
    const row = rows[name] ??= document.querySelector("main").appendChild(document.createElement("div"))
    row.innerHTML ||= "<span></span><progress></progress><code></code>"
    row.children[0].textContent = name
    row.children[1].value = part
    row.children[2].textContent = said
  })</script>"""


async def checksum(folder: Path) -> AsyncIterator[object]:
    files = await asyncio.to_thread(lambda: sorted(it for it in folder.rglob("*") if it.is_file()))
    digest = hashlib.sha256()
    for number, file in enumerate(files):
        yield number / len(files)
        digest.update(await asyncio.to_thread(file.read_bytes))
    yield Final(digest.hexdigest())


def told(envelope: TaskProgressEnvelope[Any]) -> tuple[str, float, str]:
    if envelope.finished is None:  # it has yielded how far it is
        return str(envelope.key), envelope.value, ""
    return str(envelope.key), 1, envelope.value or f"failed: {envelope.error}"


async def events(root: Path) -> AsyncIterator[str]:
    folders = await asyncio.to_thread(lambda: sorted(it for it in root.iterdir() if it.is_dir()))
    tasks = [Task(checksum, folder, key=folder.name) for folder in folders]
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(4, MACHINE))
    async with runner.run_tasks().batch(100, 0.05) as batches:
        async for batch in batches:  # at most twenty events a second, however many files
            yield f"data: {json.dumps([told(envelope) for envelope in batch])}\n\n"
    yield "event: end\ndata:\n\n"


def app(root: Path) -> Starlette:
    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(events(root), media_type="text/event-stream")

    return Starlette(routes=[Route("/", HTMLResponse(PAGE)), Route("/events", stream)])


if __name__ == "__main__":
    root = Path(*sys.argv[1:] or [sysconfig.get_path("stdlib")])
    if not root.is_dir():
        sys.exit(f"{root} is no directory; name one that is there")
    uvicorn.run(app(root), port=8000)
