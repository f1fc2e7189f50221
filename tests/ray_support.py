"""Helpers for the tests on Ray, which `make test-ray` runs in namespaces of their own."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Retry, WorkerLost
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from headrace import RayExecutor, Task

HEAD: dict[str, Any] = {
    "num_cpus": 2,
    "include_dashboard": False,
    "object_store_memory": 80 << 20,
    "node_ip_address": "127.0.0.1",
}
"""The options of a node of a cluster in one network namespace."""


def skip_without_ray() -> None:
    """Skip the module that is being imported, unless `make test-ray` runs it."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: run make test-ray", allow_module_level=True)


def import_ray() -> tuple[Any, Any]:
    """Return Ray, and its class of clusters on one machine."""
    return import_module("ray"), import_module("ray.cluster_utils").Cluster


@contextmanager
def cluster_of(nodes: int, *, is_connected: bool = True) -> Generator[Any]:
    """Start a cluster in which each node has two processors, and connect this program to it."""
    ray, Cluster = import_ray()  # noqa: N806 (a class)
    made = Cluster(initialize_head=True, head_node_args=HEAD)
    if is_connected:
        ray.init(made.address, log_to_driver=False)
    for _ in range(1, nodes):
        made.add_node(**HEAD)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


async def hosts_are(executor: RayExecutor, count: int, most: float = 30.0) -> float:
    """Wait until so many hosts take tasks, and return the seconds."""
    begun = time.monotonic()
    await eventually(lambda: len(executor.hosts) == count, most)
    return time.monotonic() - begun


class Holder:
    """An actor that holds processors."""

    def ready(self) -> bool:
        return True


class Outcomes:
    """The outcomes of a run, and the longest time between two of them after a moment.

    Args:
        executor: The executor.
        at: The number of outcomes after which `then` is called.
        then: Called once.
    """

    def __init__(self, executor: RayExecutor, at: int, then: Callable[[], object]) -> None:
        self.values: list[Any] = []
        self.errors: list[BaseException] = []
        self.again = 0
        """The number of tasks that were called more than once."""
        self.gap = 0.0
        self.capacity = CapacitySource(8)
        self._executor = executor
        self._at = at
        self._then = then

    async def run(self, tasks: Iterable[Task[Any]]) -> None:
        """Run the tasks, and call those again that were lost."""
        retry = Retry(5, on=WorkerLost, backoff=0.01)
        runner = HierarchicalTaskPoolRunner(
            tasks, self.capacity, executor=self._executor, retry=retry
        )
        last: float | None = None
        async with runner.run_tasks() as progress:
            async for event in progress:
                if last is not None:
                    now = time.monotonic()
                    self.gap, last = max(self.gap, now - last), now
                if event.error is not None:
                    self.errors.append(event.error)
                else:
                    self.values.append(event.value)
                self.again += event.attempt > 1
                if last is None and len(self.values) >= self._at:
                    self._then()
                    last = time.monotonic()


def calls(directory: Path) -> dict[int, int]:
    """Return how often each task of `process_jobs.note_process` and the like has begun."""
    return {
        int(file.name.split()[1]): len(file.read_text().split())
        for file in directory.glob("begun *")
    }


def hold_interpreter(seconds: float) -> float:
    """Hold the interpreter lock, as a C extension may do."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return seconds


async def note_slowly(directory: Path, number: int, seconds: float) -> int:
    """Note that a task has begun, and return its number after a while."""
    with (directory / f"begun {number}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    await asyncio.sleep(seconds)
    return number


def beat(path: Path, seconds: float) -> None:
    """Write the time to a file, over and over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        draft = path.with_suffix(".draft")
        draft.write_text(repr(time.monotonic()))
        draft.rename(path)
        time.sleep(0.01)


def last_beat(path: Path) -> float:
    """Return the time of the last beat, on the clock that all processes of the machine share."""
    return float(path.read_text())


def processes() -> dict[int, str]:
    """Return the command of each process that can run and that this one may see."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if command:
            found[int(entry.name)] = command
    return found


def children(parent: int) -> Iterator[int]:
    """Return the processes that a process has started and that can run."""
    for pid in processes():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            yield pid
