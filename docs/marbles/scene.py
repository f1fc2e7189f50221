"""The scene of a picture, and its run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import headrace
from headrace import PullObj, PushObj
from headrace.testing import MarbleError, VirtualClock
from headrace.testing.marble import END, ERROR, frames
from marbles.fixtures import Fixture, item_of
from marbles.track import Track

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Coroutine, Mapping

__all__ = ["Played", "Scene", "play"]


@dataclass(frozen=True)
class Scene:
    """One picture: an operator, as code that is run, and its arguments.

        Scene("PullMapObj(source, lambda n: n * 10)", given={"source": Source("1-2-3|")})
        Scene("PushWindowObj(sink, 2)", given={"sink": Sink()}, pushed="a-b-c|")

    Args:
        code: An expression that makes the operator. It is shown in the picture exactly as it is run. Its names are those of headrace,
            `loop`, and the keys of `given`.
        given: The values of the names in the code: fixtures have a track in the picture, other values have none.
        pushed: A marble string to push, if the operator is a sink or has one.
        into: The sink to push into, as an expression; `it` is the operator.
        out: The pulled streams, by the names of their tracks: expressions in which `it` is the operator. By default an operator that
            is a pull object is pulled itself.
        takes: The seconds for which the consumer is busy with each item before it pulls the next.
        together: Pushes do not wait for one another.
        until: The frame at which an unfinished run is stopped. None for work in threads, which is outside virtual time: a timer would
            overtake it.
        result: An expression about the operator, `it`, that is shown with its value at the end.
        says: An additional remark in the picture.
        shows: The method that the scene shows, if it is not the class at the start of the code.
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
        """The name of the operator that the scene shows."""
        return self.shows or self.code.split("(", 1)[0]


@dataclass(frozen=True)
class Played:
    """The result of a scene: the tracks above and below its operator, and its final remark."""

    scene: Scene
    above: list[Track]
    below: list[Track]
    result: str

    def lines(self) -> str:
        """Describe the whole result in words."""
        return "; ".join(
            f"{track.name}: {track.line()}" for track in (*self.above, *self.below)
        ) + (f"; {self.result}" if self.result else "")


def play(scene: Scene) -> Played:
    """Run a scene under the virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClock()) as runner:
        return runner.run(_played(scene))


async def _played(scene: Scene) -> Played:
    loop = asyncio.get_running_loop()
    began = loop.time()
    names: dict[str, Any] = {"loop": loop, "headrace": headrace}
    names |= {name: getattr(headrace, name) for name in import_module("headrace").__all__}
    fixtures: list[tuple[Fixture, Track]] = []
    above: list[Track] = []
    below: list[Track] = []
    for name, fixture in scene.given.items():
        if isinstance(fixture, Fixture):
            track = Track(name, began)
            fixtures.append((fixture, track))
            if fixture.shown:
                (below if fixture.below else above).append(track)
            names[name] = fixture.enter(track)
        else:
            names[name] = fixture

    # The code is our own. `eval` ensures that the shown code is the code that runs.
    def value(code: str) -> Any:
        return eval(code, names)  # noqa: S307

    it = names["it"] = value(scene.code)
    jobs: list[Coroutine[Any, Any, None]] = []
    if scene.pushed:
        track = Track("pushed", began)
        above.insert(0, track)
        jobs.append(_push(value(scene.into), scene, track))
    pulled = dict(scene.out) or ({"pulled": "it"} if isinstance(it, PullObj) else {})
    for name, code in reversed(pulled.items()):
        track = Track(name, began)
        below.insert(0, track)
        jobs.append(_pull(value(code), scene, track))
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
    for fixture, track in fixtures:
        fixture.leave(track)
        if track.task is not None:
            track.task.cancel()
            await asyncio.gather(track.task, return_exceptions=True)
    return Played(scene, above, below, result)


async def _pull(stream: AsyncIterable[Any], scene: Scene, track: Track) -> None:
    iterator = aiter(stream)
    while True:
        try:
            track.item(await anext(iterator))
        except StopAsyncIteration:
            track.end()
            return
        except Exception:
            track.error()
        await asyncio.sleep(scene.takes)


async def _push(sink: PushObj[Any], scene: Scene, track: Track) -> None:
    loop = asyncio.get_running_loop()
    pushes: list[asyncio.Task[Any]] = []
    for frame, marble in frames(scene.pushed):
        if (left := track.began + frame - loop.time()) > 0:
            await asyncio.sleep(left)
        if marble == END:
            await asyncio.gather(*pushes)
            track.end()
            await sink.return_()
        elif marble == ERROR:
            track.error()
            await sink.throw(MarbleError(f"frame {frame} of {scene.pushed!r}"))
        else:
            track.item(marble)
            push = asyncio.ensure_future(_once(sink, item_of(marble)))
            pushes.append(push)
            if not scene.together:
                await push


async def _once(sink: PushObj[Any], item: Any) -> None:
    await sink.next(item)
