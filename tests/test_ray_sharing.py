"""Shares, floors, rates and cooldowns through a `RayExecutor` with two hosts, on two nodes of one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace import RayExecutor
from headrace.testing.executors import _sharing
from tests.ray_support import cluster_of, hosts_are, skip_without_ray
from tests.sharing_runs import CHECKS, SLOTS
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from contextvars import ContextVar
    from pathlib import Path

    from headrace.pool import Executor
    from headrace.testing.executors import Case

skip_without_ray()

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two nodes, to which this program is connected."""
    with cluster_of(2):
        yield


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_two_hosts_share(
    check: Callable[[Executor, Path], Awaitable[None]], tmp_path: Path
) -> None:
    async with RayExecutor(workers=1, prefetch=SLOTS // 2 - 1) as executor:
        await hosts_are(executor, 2)
        await eventually(lambda: executor.capabilities.slots == SLOTS)
        await check(executor, tmp_path / "log")


def make(*, carry: Sequence[ContextVar[Any]] = ()) -> Executor:
    # Both hosts have the four slots that the cases need.
    return RayExecutor(workers=1, prefetch=1, grace=0.2, carry=carry, fence=6.0)


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in _sharing.CASES])
async def test_two_hosts_conform(case: Case) -> None:
    await case.run(make)
