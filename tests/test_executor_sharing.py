"""Shares, floors, rates and cooldowns through the executors of one machine. `test_ray_sharing.py` has a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace import ProcessExecutor
from headrace.pool import LoopExecutor
from tests.sharing_runs import CHECKS, SLOTS
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from headrace.pool import Executor

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_loop_shares(
    check: Callable[[Executor, Path], Awaitable[None]], tmp_path: Path
) -> None:
    await check(LoopExecutor(), tmp_path / "log")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_processes_share(
    check: Callable[[Executor, Path], Awaitable[None]], tmp_path: Path
) -> None:
    async with ProcessExecutor(2, prefetch=SLOTS // 2 - 1) as executor:
        await eventually(lambda: executor.capabilities.slots == SLOTS, 30)
        await check(executor, tmp_path / "log")
