"""`PullGateObj`: items released in batches by a signal. `PullObj.gate()` creates it."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace._core import AsyncIterSource
from headrace._internal.depth import check_depth
from headrace._internal.kernel_properties import KernelProperty
from headrace._internal.sentinels import NOTHING
from headrace.errors import ClosedError
from headrace.pull.base import PullObj
from headrace.pull.source import Restartable, as_pull
from headrace.signal import check_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Self

    from headrace.pull.source import Source
    from headrace.signal import WaitObject

T = TypeVar("T")


class PullGateObj(PullObj[T], stock=True):
    """Yield the ready items at each signal.

    Law: the items of the source, each once. The gate is initially closed. A value of `wait_obj` opens it. It stays open
    until a pull of the source has to wait: that closes it, and the outcome of the pull is held here until the next
    value. While the gate is closed, no pull of the source starts. Yielding to the event loop is not waiting.
    Order: the source's.
    Bound: one item.
    Cost: O(1) per item.
    Cancel safety: as the source's. An item held for the signal is kept for the next pull.

    The end and the errors of the source are not held back. A value that arrives while the gate is open reopens it as
    soon as it closes; several such values count as one. A rejected signal raises its error at each pull that needs it;
    after `wait_obj.reset()` the stream continues. Once the signal is stopped, the gate stays open, so that no item is
    lost.

    Depth: at most 100 gates, limits, bridges and branches of `tee` may be nested; a link whose task pulls the source, such
    as `.prefetch(1)`, resets the count.

    Args:
        source: A pull object or an iterable, sync or async.
        wait_obj: The signal; its values are ignored.

    Raises:
        TypeError: `source` is not iterable, or `wait_obj` is not a `WaitObject`.
        ValueError: `source` is nested too deeply.
    """

    wait_obj: KernelProperty[WaitObject[Any], WaitObject[Any]] = KernelProperty(
        "The signal, live: a new one applies from the next time that the gate closes.",
        of="_gate",
        check=check_signal,
    )

    def __init__(self, source: Source[T], wait_obj: WaitObject[Any]) -> None:
        self._gate: _Gate[T] = _Gate(as_pull(source), check_signal("wait_obj", wait_obj))
        self._depth = check_depth(self._gate.source, type(self).__name__)
        super().__init__(AsyncIterSource(Restartable(self._gate)))

    @property
    def source(self) -> PullObj[T]:
        """The source."""
        return self._gate.source

    def _repr_parts(self) -> Iterator[str]:
        yield from self._gate.parts()
        yield from super()._repr_parts()

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        yield from super()._restarting()
        yield self._gate.source
        self._gate.restart()


class _Gate(Generic[T]):
    """The iterator over the items. The link of the stream allows one pull at a time."""

    def __init__(self, source: PullObj[T], wait_obj: WaitObject[Any]) -> None:
        self.source = source
        self.wait_obj = wait_obj
        self._is_open = False
        self._held: Any = NOTHING

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._held is NOTHING:
            await self._open()
            self._held = await self._pull()
        await self._open()
        item: T = self._held
        self._held = NOTHING
        return item

    async def aclose(self) -> None:
        self._held = NOTHING
        await self.source.aclose()

    def restart(self) -> None:
        """Begin a new cycle, with the gate closed."""
        self._held = NOTHING
        self._is_open = False

    def parts(self) -> Iterator[str]:
        """Describe the state, for `repr`."""
        yield "lets through" if self._is_open else "waits for its signal"
        if self._held is not NOTHING:
            yield "1 held"

    async def _open(self) -> None:
        """Wait for the signal if the gate is closed."""
        if self._is_open:
            return
        wait_obj = self.wait_obj
        try:
            await wait_obj.wait()
        except ClosedError:
            if not wait_obj.stopped:
                raise
        self._is_open = True

    @types.coroutine
    def _pull(self) -> Generator[Any, Any, T]:
        """Pull one item of the source. The gate closes if the pull has to wait."""
        pull: Any = anext(self.source)
        if not hasattr(pull, "send"):
            pull = pull.__await__()
        step: Callable[[Any], Any] = pull.send
        sent: Any = None
        while True:
            try:
                awaited = step(sent)
            except StopIteration as done:
                item: T = done.value
                return item
            if awaited is not None:
                self._is_open = False
            try:
                sent = yield awaited
                step = pull.send
            except GeneratorExit:
                pull.close()
                raise
            except BaseException as error:
                sent = error
                step = pull.throw
