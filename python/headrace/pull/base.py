"""`PullObj`: the base of every pull stream.

The native `PullLink` pulls, fuses and queues; this class closes, restarts and describes streams, and records which methods a
subclass overrides.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import headrace._core as _core
from headrace._core import IteratorResult, PullLink
from headrace._internal.error_notes import raise_closing
from headrace._internal.reprs import DescribeMixin, describe_value
from headrace._internal.tasks import wait_until_done, waits_for
from headrace.pull._methods import Fluent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from types import TracebackType

T_co = TypeVar("T_co", covariant=True)

# Methods that, once a subclass overrides them, keep its objects out of fused pipelines.
_PROTOCOL = frozenset(
    {"pull_impl", "next", "__anext__", "__aiter__", "aclose", "return_", "throw", "restart"}
)


class _NotAContextManagerError(TypeError, AttributeError):
    """The error of a plain `with` over a stream. As an `AttributeError` it hides `__enter__` from `hasattr`."""


class _NoEnter:
    """`__enter__` of streams, which raises when it is looked up.

    Python looks it up before `__exit__`, whose absence keeps a stream from being an `AbstractContextManager`.
    """

    def __get__(self, instance: object, owner: type) -> None:
        raise _NotAContextManagerError(f"{owner.__name__} is an async stream: use `async with`")


class PullObj(Fluent[T_co], DescribeMixin):
    """A lazy stream: nothing runs before the first pull.

    Iterate it with `async for`, take single items with `anext(stream)`, or with `await
    stream.next()`, which returns `IteratorResult(value, done)` and does not raise at the end. `async with` closes it.

    To make your own, override `pull_impl` as an async generator method; or, for full control,
    `__anext__` or `next`. Such a subclass works wherever a stock pull object does.

    Law: one pull does the work of one item.
    Order: concurrent pulls are served in the order of their first step.
    Bound: nothing is held, except the item that a cancelled pull left.
    Cost: O(1) per item, whatever the number of stages or waiters.
    Cancel safety: a cancelled pull loses no item of a stock source or operator, and the stream stays usable. A user's
    async generator is ended by the cancellation; the next pull then raises `SourceCancelledError`.
    """

    _is_opaque: ClassVar[bool] = False
    _has_own_pull: ClassVar[bool] = False

    def __init_subclass__(cls, *, stock: bool = False, **kwargs: Any) -> None:
        """Record which methods a subclass overrides.

        `stock` is for headrace's own classes: fusing skips none of the behaviour that they
        override.
        """
        super().__init_subclass__(**kwargs)
        _core.adopt(cls)
        overridden: frozenset[str] = frozenset() if stock else _PROTOCOL & cls.__dict__.keys()
        if overridden:
            cls._is_opaque = True
        if "pull_impl" in overridden:
            cls._has_own_pull = True
        # The two protocols are views of one stream: overriding one replaces the other too.
        if "next" in overridden and "__anext__" not in overridden:
            _override(cls, "__anext__", _anext_by_next)
        elif "__anext__" in overridden and "next" not in overridden:
            _override(cls, "next", _next_by_anext)

    def pull_impl(self) -> AsyncIterator[T_co]:
        """Return the items of this stream; override it as an async generator method.

        The inherited method (`super().pull_impl()`) returns the items of the stock class.

        Raises:
            NotImplementedError: The class has no stock feed and does not override this method.
        """
        return _core.stock(self)

    async def aclose(self) -> None:
        """Close the stream and all its sources, from the consumer upwards.

        Pending pulls raise `ClosedError` in their own tasks. Return when everything is closed. If another task is
        closing the stream already, wait for it; that task gets the errors. A source that closes its own stream while
        the stream is being closed does not wait. Idempotent. A cancellation in the meantime is raised after the
        clean-up. After an error of one source the others are still closed; a single error is raised as it is, several
        as a group.
        """
        errors: list[BaseException] = []
        cancelled: asyncio.CancelledError | None = None
        _core.check_closing(self)
        for link in _upwards(self):
            if link is not self and _has_own(link, "aclose"):
                # An overridden `aclose` also closes everything above its link.
                cancelled = await attempt(link.aclose(), errors) or cancelled
                break
            while (pending := _core.close_link(link)) is not None:
                try:
                    await pending
                except asyncio.CancelledError as cancellation:
                    cancelled = cancellation
            if (other := _core.await_closing(link)) is not None:
                closer, closed = other
                # A task that would wait for itself skips the wait: its closing is under way.
                if closer is None or not waits_for(closer, asyncio.current_task()):
                    cancelled = await wait_until_done(closed, behind=closer) or cancelled
                continue
            try:
                feeds = _core.begin_closing(link)
            except BaseException as failure:
                errors.append(failure)
                continue
            failed, is_through = len(errors), False
            try:
                for closing in feeds:
                    cancelled = await attempt(closing, errors) or cancelled
                is_through = True
            finally:
                _core.end_closing(link, not is_through or len(errors) > failed)
        raise_closing(cancelled, errors, "several sources failed to close")

    async def return_(self, value: Any = None) -> IteratorResult[Any]:
        """End the stream from the consumer's side, as `aclose` does, and return `IteratorResult(value, True)`."""
        for link in _upwards(self):
            if link is not self and _has_own(link, "return_"):
                try:
                    return await link.return_(value)
                finally:
                    await self.aclose()
        await self.aclose()
        return IteratorResult(value, True)

    async def throw(self, error: BaseException) -> IteratorResult[Any]:
        """End the stream with an error.

        The error is passed to the nearest source that overrides `throw`; otherwise it is raised here.

        Raises:
            TypeError: `error` is not an exception. BaseException: `error`, unless a source handled it.
        """
        if not isinstance(cast("object", error), BaseException):
            raise TypeError(f"error must be an exception, got {describe_value(error)}")
        for link in _upwards(self):
            if link is not self and _has_own(link, "throw"):
                try:
                    return await link.throw(error)
                finally:
                    await self.aclose()
        await self.aclose()
        raise error

    def restart(self) -> None:
        """Restart this stream and its sources, using their current configuration.

        Raises:
            RuntimeError: A pull is pending, or a source cannot restart (an iterator runs once). Links at and below that
                source are unchanged then; if a pull is pending, all links are.
        """
        # Iterative: a thousand links that each restart their own source must not use the recursion limit.
        under_way = [self._restarting()]
        failure: BaseException | None = None
        while under_way:
            step = under_way[-1]
            try:
                source = next(step) if failure is None else step.throw(failure)
            except StopIteration:
                under_way.pop()
                failure = None
            except BaseException as error:
                under_way.pop()
                failure = error
            else:
                failure = None
                under_way.append(source._restart_steps())
        if failure is not None:
            raise failure

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        """Run the steps of `restart`; yield each stream that must be restarted before the next step."""
        chain: list[PullObj[Any]] = []
        for link in _upwards(self):
            chain.append(link)
            if link is not self and _overrides_restart(link):
                break
            # Check all links before the first restarts: a pull that waits here must not find its source restarted.
            _core.check_restart(link)
        for link in reversed(chain):
            if link is not self and _overrides_restart(link):
                yield link
            else:
                _core.restart(link)

    def _restart_steps(self) -> Generator[PullObj[Any], None, None]:
        """Run the steps of `restart` for a source, in a single step if its class overrides `restart`."""
        if _has_own(self, "restart"):
            self.restart()
        else:
            yield from self._restarting()

    if not TYPE_CHECKING:
        # The core does the same for a plain `for` and for an `await`.
        __enter__ = _NoEnter()

    async def __aenter__(self) -> Self:
        """Return the stream; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the stream.

        The error of the block takes precedence; an error of closing is added to it as a note.
        """
        try:
            await self.aclose()
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as closing:
            if error is None:
                raise
            error.add_note(f"while closing: {closing!r}")

    def _repr_state(self) -> Iterator[str]:
        phase, kept, is_pulled = _core.link_status(self)
        if kept:
            yield f"{kept} kept"
        yield "being pulled" if is_pulled and phase == "open" else phase


def _has_own(link: PullObj[Any], name: str) -> bool:
    """Return whether the class of a link overrides this method of `PullObj`."""
    return getattr(type(link), name) is not getattr(PullObj, name)


def _overrides_restart(link: PullObj[Any]) -> bool:
    """Return whether the class of a link overrides restarting, which then covers all links above it."""
    return _has_own(link, "restart") or _has_own(link, "_restarting")


def _upwards(stream: PullObj[Any]) -> Iterator[PullObj[Any]]:
    """Iterate over the stream and the links above it, up to its source."""
    link: PullLink[Any] | None = stream
    while link is not None:
        yield cast("PullObj[Any]", link)
        link = _core.upstream(link)


async def attempt(closing: Any, errors: list[BaseException]) -> asyncio.CancelledError | None:
    """Await one closing. Collect its error or return its cancellation, so that the others are still closed."""
    try:
        await closing
    except asyncio.CancelledError as cancellation:
        return cancellation
    except GeneratorExit:
        raise
    except BaseException as error:
        errors.append(error)
    return None


def _override(cls: type[PullObj[Any]], name: str, method: Callable[..., Any]) -> None:
    # By `setattr`: type checkers reject an assignment to a method.
    setattr(cls, name, method)


async def _anext_by_next(self: PullObj[Any]) -> Any:
    result = await self.next()
    if result.done:
        raise StopAsyncIteration
    return result.value


async def _next_by_anext(self: PullObj[Any]) -> IteratorResult[Any]:
    try:
        return IteratorResult(await anext(self), False)
    except StopAsyncIteration:
        return IteratorResult(None, True)
