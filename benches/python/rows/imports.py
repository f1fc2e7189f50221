"""The cost of importing: CPU time beyond `import asyncio`, the best of several fresh processes; and the size of the wheel.

Bytecode exists and files are in the system's cache, as from the second start of a program on.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import tempfile
import zlib
from functools import partial
from pathlib import Path

from row import Absent, Probe

PROGRAM = """
import asyncio, time
begun = time.process_time()
{statement}
print(time.process_time() - begun)
"""
PROCESSES = 7

HEADRACE = {
    "from headrace import SourceIterObj, PullMapObj": "-",
    "from headrace import PushPullBufferObj, PushChain": "-",
    "from headrace import HierarchicalTaskPoolRunner, CapacitySource": "-",
    "from headrace import *": "-",
}
PEERS = (
    "aiostream",
    "streamable",
    "asyncstdlib",
    "aioitertools",
    "reactivex",
    "aioreactive",
    "aiochan",
    "janus",
    "culsans",
    "aiologic",
    "aiometer",
    "aiojobs",
    "anyio",
    "pypeln",
    "quattro",
)


def imported(statement: str) -> float:
    """Seconds."""
    with tempfile.TemporaryDirectory() as folder:
        # Independent of the environment's settings for bytecode.
        setting = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        runs = [
            subprocess.run(  # noqa: S603  (it is this program)
                [sys.executable, "-W", "ignore", "-c", PROGRAM.format(statement=statement)],
                env=os.environ | setting,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for _ in range(PROCESSES + 1)
        ]
    return min(map(float, runs[1:]))


async def took(statement: str) -> str:
    return f"{await asyncio.to_thread(imported, statement) * 1e3:.1f} ms"


async def took_to_import(module: str) -> str:
    if importlib.util.find_spec(module) is None:
        raise Absent(module)
    return await took(f"import {module}")


async def zipped() -> str:
    """The files of the package in a wheel."""
    import headrace

    package = Path(headrace.__file__).parent
    module = importlib.util.find_spec("headrace._core")
    if module is None or module.origin is None:
        raise Absent("headrace._core")
    files = [Path(module.origin), *package.rglob("*.py"), *package.rglob("*.pyi")]
    return f"{sum(len(zlib.compress(file.read_bytes())) for file in files) / 1e6:.2f} MB"


GROUP = [
    Probe(
        "`import` of the package alone",
        "<= 8 ms",
        {name: partial(took_to_import, name) for name in ("headrace", *PEERS)},
        is_alone=True,
    ),
    *(
        Probe(f"`{statement}`", right, {"headrace": partial(took, statement)}, is_alone=True)
        for statement, right in HEADRACE.items()
    ),
    Probe("the wheel, about", "<= 2 MB", {"headrace": zipped}),
]
