"""`News`: what a graph tells those who listen, in order and outside of its lock.

A callback may do anything with the graph, and what it does makes more news. They are not told from inside of it, which
would nest as deeply as the graph is, but by the one who is telling already.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast

from headrace.blame import noted, raise_all
from headrace.telling import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

__all__ = ["Listener", "News"]

Kind = Literal["ready", "finished"]


class Listener:
    """A callback, until it is told to stop.

    Raises:
        TypeError: It is not callable.
    """

    __slots__ = ("callback", "stopped")

    def __init__(self, callback: Callable[..., object]) -> None:
        if not callable(cast("object", callback)):
            raise TypeError(f"callback must be callable, got {shown(callback)}")
        self.callback: Callable[..., object] = callback
        self.stopped: bool = False


class News:
    """What is still to be told, oldest first. All but `tell` is called under the lock of the graph."""

    def __init__(self) -> None:
        self._listeners: dict[Kind, tuple[Listener, ...]] = {"ready": (), "finished": ()}
        # With those who listened when it happened.
        self._untold: deque[tuple[tuple[Listener, ...], tuple[Any, ...]]] = deque()
        self._lock = Lock()
        self._telling = False

    def listen(self, kind: Kind, listener: Listener, past: Iterable[Hashable] = ()) -> None:
        """Adds a listener, which gets to hear of these keys first."""
        self._listeners[kind] += (listener,)
        for key in past:
            self._untold.append(((listener,), (key,)))

    def stop(self, kind: Kind, listener: Listener) -> None:
        """Takes a listener away. It is not called any more."""
        listener.stopped = True
        self._listeners[kind] = tuple(
            each for each in self._listeners[kind] if each is not listener
        )

    def ready(self, key: Hashable) -> None:
        """A node has become ready."""
        self._put(self._listeners["ready"], key)

    def finished(self) -> None:
        """All nodes are settled."""
        self._put(self._listeners["finished"])

    def let_go(self, thing: object) -> None:
        """Keeps a thing until the lock is free: its finaliser may use the graph."""
        self._untold.append(((), (thing,)))

    def _put(self, listeners: tuple[Listener, ...], *keys: Hashable) -> None:
        if listeners:
            self._untold.append((listeners, keys))

    def tell(self) -> None:
        """Tells all that is untold, unless somebody is telling already, who then tells this too.

        Raises:
            BaseException: What a callback raised, when all is told; several as a group, but what ends the program by itself.
        """
        errors: list[BaseException] = []
        # Again after each round: what was put since its last look is nobody else's if they found it going on.
        while self._untold and self._begin():
            try:
                self._tell_all(errors)
            finally:
                self._telling = False
        raise_all(errors, "several callbacks of a DependencyGraph failed")

    def _begin(self) -> bool:
        with self._lock:
            if self._telling:
                return False
            self._telling = True
            return True

    def _tell_all(self, errors: list[BaseException]) -> None:
        while self._untold:
            listeners, keys = self._untold.popleft()
            for listener in listeners:
                if listener.stopped:
                    continue
                try:
                    listener.callback(*keys)
                # Whatever it is: the others have to hear of it too.
                except BaseException as error:
                    noted(error, "raised by a callback of DependencyGraph")
                    errors.append(error)
