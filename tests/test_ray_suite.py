"""The conformance suite of executors on Ray."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import RayExecutor
from headrace.testing.executors import _lifecycle, cases_for
from tests.ray_support import import_ray, skip_without_ray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextvars import ContextVar

    from headrace.pool import Executor
    from headrace.testing.executors import Case

skip_without_ray()

pytestmark = pytest.mark.loops("asyncio")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of the program, which the executors use and leave."""
    ray, _ = import_ray()
    ray.init(
        "local",
        _node_ip_address="127.0.0.1",
        num_cpus=8,  # a case may have several executors
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
    )
    yield
    assert ray.is_initialized()
    ray.shutdown()


def own_descriptors() -> int:
    """Return the number of open descriptors, but for the IPv6 sockets by which Ray keeps connections to dead actors for a while."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            descriptor = os.dup(int(entry.name))
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                found += 1
                continue
            with socket.socket(fileno=descriptor) as connection:
                found += connection.family != socket.AF_INET6
    return found


def make(*, carry: Sequence[ContextVar[Any]] = ()) -> Executor:
    return RayExecutor(workers=2, prefetch=1, window=4, grace=0.2, carry=carry, fence=6.0)


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in cases_for(make)])
async def test_executor_conforms(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lifecycle, "_descriptors", own_descriptors)
    await case.run(make)
