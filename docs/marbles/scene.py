"""What is run for a picture, and the run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import headrace
from headrace import PullObj, PushObj
from headrace.testing import MarbleError, VirtualClock
from headrace.testing.marble import END, ERROR, frames
from marbles.lane import Lane
from marbles.props import Prop, item_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Coroutine, Mapping

__all__ = ["Played", "Scene", "play"]


@dataclass(frozen=True)
class Scene:
    """One picture: an operator, as code that is run, and what it is given.

        Scene("PullMapObj(source, lambda n: n * 10)", given={"source": Source("1-2-3|")})
        Scene("PushWindowObj(sink, 2)", given={"sink": Sink()}, pushed="a-b-c|")

    Args:
        code: An expression that makes the operator. It stands in the picture as it is run. It knows all names of headrace, `loop`, and
            what is `given`.
        given: What the names in the code mean: props have a lane in the picture, other values have none.
        pushed: A line of marbles that is pushed, if the operator is a sink or has one.
        into: Where it is pushed; `it` is the operator.
        out: What is pulled, by the names of their lanes: expressions in which `it` is the operator. An operator that is a pull object is
            pulled itself if nothing is said.
        takes: How many seconds the consumer is busy with each item before it asks for the next.
        together: Pushes do not wait for one another.
        until: The frame at which the run is broken off, if it does not end before; None where something is done in threads, which are no
            part of the virtual time: a timer would pass them.
        result: An expression about the operator, `it`, that is shown with its value at the end.
        says: What else a reader has to know, in the picture.
        shows: The method that it shows, if it is not the class with which the code begins.
    """

    code: str
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pushed: str = ""
    into: str = "it"
    out: Mapping[str, str] = field(default_factory=dict[str, str])
    takes: float = 0
    together: bool = False
    until: int | None = 12
    result: str = ""
    says: str = ""
    shows: str = ""

    @property
    def operator(self) -> str:
        """What it shows."""
        return self.shows or self.code.split("(", 1)[0]


@dataclass(frozen=True)
class Played:
    """What came of a scene: the lanes above its operator and below it, and what it had to say at the end."""

    scene: Scene
    above: list[Lane]
    below: list[Lane]
    result: str

    def lines(self) -> str:
        """All of it in words."""
        return "; ".join(f"{lane.name}: {lane.line()}" for lane in (*self.above, *self.below)) + (
            f"; {self.result}" if self.result else ""
        )


def play(scene: Scene) -> Played:
    """Runs a scene under the virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClock()) as runner:
        return runner.run(_played(scene))


async def _played(scene: Scene) -> Played:
    loop = asyncio.get_running_loop()
    began = loop.time()
    names: dict[str, Any] = {"loop": loop, "headrace": headrace}
    names |= {name: getattr(headrace, name) for name in import_module("headrace").__all__}
    props: list[tuple[Prop, Lane]] = []
    above: list[Lane] = []
    below: list[Lane] = []
    for name, prop in scene.given.items():
        if isinstance(prop, Prop):
            lane = Lane(name, began)
            props.append((prop, lane))
            if prop.shown:
                (below if prop.below else above).append(lane)
            names[name] = prop.enter(lane)
        else:
            names[name] = prop

    # The code is ours, and that what is shown is what is run is the point of it.
    def value(code: str) -> Any:
        return eval(code, names)  # noqa: S307

    it = names["it"] = value(scene.code)
    jobs: list[Coroutine[Any, Any, None]] = []
    if scene.pushed:
        lane = Lane("pushed", began)
        above.insert(0, lane)
        jobs.append(_push(value(scene.into), scene, lane))
    pulled = dict(scene.out) or ({"pulled": "it"} if isinstance(it, PullObj) else {})
    for name, code in reversed(pulled.items()):
        lane = Lane(name, began)
        below.insert(0, lane)
        jobs.append(_pull(value(code), scene, lane))
    try:
        async with asyncio.timeout(scene.until):
            await asyncio.gather(*jobs)
    except TimeoutError:
        pass
    result = (
        f"{scene.result.replace('it.', '.')} == {value(scene.result)!r}" if scene.result else ""
    )
    if isinstance(it, PullObj):
        await it.aclose()
    for prop, lane in props:
        prop.leave(lane)
        if lane.task is not None:
            lane.task.cancel()
            await asyncio.gather(lane.task, return_exceptions=True)
    return Played(scene, above, below, result)


async def _pull(stream: AsyncIterable[Any], scene: Scene, lane: Lane) -> None:
    iterator = aiter(stream)
    while True:
        try:
            lane.item(await anext(iterator))
        except StopAsyncIteration:
            lane.end()
            return
        except Exception:
            lane.error()
        await asyncio.sleep(scene.takes)


async def _push(sink: PushObj[Any], scene: Scene, lane: Lane) -> None:
    loop = asyncio.get_running_loop()
    pushes: list[asyncio.Task[Any]] = []
    for frame, marble in frames(scene.pushed):
        if (left := lane.began + frame - loop.time()) > 0:
            await asyncio.sleep(left)
        if marble == END:
            await asyncio.gather(*pushes)
            lane.end()
            await sink.return_()
        elif marble == ERROR:
            lane.error()
            await sink.throw(MarbleError(f"frame {frame} of {scene.pushed!r}"))
        else:
            lane.item(marble)
            push = asyncio.ensure_future(_once(sink, item_of(marble)))
            pushes.append(push)
            if not scene.together:
                await push


async def _once(sink: PushObj[Any], item: Any) -> None:
    await sink.next(item)
