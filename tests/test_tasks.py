"""`wait_until_done` waits for all tasks, even if it is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from headrace._internal.tasks import wait_until_done
from tests.support import quiet


async def test_cancellation_is_returned_when_all_are_done() -> None:
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    closing = asyncio.create_task(wait_until_done(first, second))
    await quiet()
    for message in ("one", "two"):
        closing.cancel(message)
        await quiet()
        assert not closing.done()
    first.set_result(None)
    await quiet()
    assert not closing.done()
    second.set_exception(KeyError("it is not read here"))
    cancellation = await closing
    assert cancellation is not None
    assert cancellation.args == ("one",)
    assert isinstance(second.exception(), KeyError)


@pytest.mark.usefixtures("gc_disabled")
async def test_cancelled_waiter_is_freed_without_gc() -> None:
    class Held:
        pass

    done = asyncio.get_running_loop().create_future()

    async def close() -> weakref.ref[Held]:
        held = Held()
        await wait_until_done(done)
        return weakref.ref(held)

    closing = asyncio.create_task(close())
    await quiet()
    closing.cancel()
    await quiet()
    done.set_result(None)
    held = await closing
    assert held() is None
