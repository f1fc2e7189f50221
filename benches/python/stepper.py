"""The minimum cost of combining async generators: a stepper in C, `stepper.c`, which this module builds.

It combines the same generators for the same consumer, and assumes that they are ready: it handles no suspension, error, cancellation or
closing. *Steps* run in the task and context of the consumer. With *identities*, each step runs in the task and context of its source,
entered as cheaply as CPython allows: a context variable, a timeout or a task group inside a source needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from row import Absent


@functools.cache
def built() -> Any:
    """Build and import `stepper.c`."""
    if sys.version_info >= (3, 14):
        raise Absent("from CPython 3.14 on asyncio keeps its current tasks out of reach")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "_stepper.so"
        include = f"-I{sysconfig.get_path('include')}"
        source = str(Path(__file__).with_suffix(".c"))
        try:
            subprocess.run(  # noqa: S603  (of our own file)
                ["cc", "-O3", "-shared", "-fPIC", include, source, "-o", str(library)],  # noqa: S607
                check=True,
            )
        except FileNotFoundError as error:
            raise Absent("there is no C compiler") from error
        spec = importlib.util.spec_from_file_location("_stepper", library)
        if spec is None or spec.loader is None:
            raise ImportError(str(library))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def current_tasks() -> dict[Any, Any]:
    """Return asyncio's dictionary of the current task of each loop."""
    import _asyncio

    tasks: dict[Any, Any] = vars(_asyncio)["_current_tasks"]
    return tasks


async def stepped_total(generators: list[Any], *, rows: bool, identities: bool) -> int:
    """Return the sum of the stepper's items."""
    loop = asyncio.get_running_loop()
    result = 0
    async with contextlib.AsyncExitStack() as stack:
        owners: list[tuple[Any, contextvars.Context]] = []
        for _ in generators if identities else ():
            context = contextvars.copy_context()
            task = loop.create_task(asyncio.sleep(3600), context=context)
            stack.callback(task.cancel)
            owners.append((task, context))
        async for x in built().Stepper(generators, rows, owners, current_tasks(), loop):
            result += sum(x) if rows else x
    return result
