"""The objects that a suspended coroutine awaits, down to the innermost. `explain()` and the warning of stuck trees follow them.

Nothing here runs or changes a coroutine, so any thread may call it while an event loop runs: each read is one step under the GIL.
"""

from __future__ import annotations

import asyncio
import gc
import os
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, cast

from headrace._core import AsyncIterSource, BufferSource, PullLink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

MOST = 256
"""The number of awaitables at which a chain is cut."""

_FRAMES = ("cr_frame", "ag_frame", "gi_frame")
# Not `pathlib`, whose import is slow.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__))  # noqa: PTH100, PTH120


def await_chain(awaitable: object) -> list[object]:
    """Return a coroutine, the awaitable that it awaits, and so on, down to a future or an awaitable of the core."""
    found: list[object] = []
    seen: set[int] = set()
    one: object = awaitable
    while one is not None and id(one) not in seen and len(found) < MOST:
        seen.add(id(one))
        found.append(one)
        one = _awaited_by(one, seen)
    return found


def chain_of(task: asyncio.Task[Any] | None) -> list[object]:
    """Return the awaitables that an asyncio task is suspended in, outermost first."""
    return [] if task is None else await_chain(task.get_coro())


def _awaited_by(one: object, seen: set[int]) -> object:
    if isinstance(one, asyncio.Future):
        return None
    for name in ("cr_await", "ag_await", "gi_yieldfrom"):
        if (awaited := getattr(one, name, None)) is not None:
            return cast("object", awaited)
    if isinstance(one, (CoroutineType, AsyncGeneratorType, GeneratorType)):
        return None
    # An awaitable that is not written in Python. The collector knows the objects that it refers to.
    future: object = None
    for referent in _referents(one):
        if id(referent) not in seen and _is_suspended(referent):
            if not isinstance(referent, asyncio.Future):
                return referent
            # The innermost one, which a suspended pull refers to as well as to the awaitable that yielded it.
            future = future or cast("object", referent)
    return future


def _is_suspended(one: object) -> bool:
    """Return whether an object is an awaitable that may be suspended now."""
    if isinstance(one, AsyncGeneratorType):
        # It is also set while the generator is suspended inside `__anext__`.
        return one.ag_running
    if isinstance(one, CoroutineType):
        return one.cr_suspended or one.cr_running
    kind = type(one)
    return issubclass(kind, asyncio.Future) or (hasattr(kind, "send") and hasattr(kind, "throw"))


def _referents(one: object) -> Iterator[object]:
    """Yield the objects that an object refers to. A pull is suspended in its link, so links are entered, with their sources."""
    left: list[object] = [one]
    seen = {id(one)}
    while left:
        for referent in gc.get_referents(left.pop()):
            if id(referent) in seen:
                continue
            seen.add(id(referent))
            yield referent
            if isinstance(referent, (PullLink, BufferSource, AsyncIterSource)) and len(seen) < MOST:
                left.append(cast("object", referent))


def foreign_objects(chain: list[object]) -> Iterator[object]:
    """Yield the objects that the awaitables of the core in a chain refer to, such as the buffer that one waits for."""
    for one in chain:
        if type(one).__module__ == "headrace._core":
            yield from _referents(one)


def frames_of(chain: list[object]) -> list[FrameType]:
    """Return the frames of the coroutines and generators of a chain, outermost first."""
    found: list[FrameType] = []
    for one in chain:
        frames: list[Any] = [getattr(one, name, None) for name in _FRAMES]
        found += [frame for frame in frames if frame is not None]
    return found


def thread_frames(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of a thread, outermost first."""
    found: list[FrameType] = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    found.reverse()
    return found


def position(frames: list[FrameType]) -> str:
    """Describe the top of a stack: the innermost frame of user code and, if the standard library is above it, that top too."""
    if not frames:
        return ""
    users = [frame for frame in frames if not _is_ours(frame)]
    top = frames[-1]
    if not users:
        return _line(top)
    is_library = _is_ours(top) and not top.f_code.co_filename.startswith(_PACKAGE)
    return f"{_line(users[-1])} > {_line(top)}" if is_library else _line(users[-1])


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith((_PACKAGE, _LIBRARY, "<frozen")) and "-packages" not in name


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
