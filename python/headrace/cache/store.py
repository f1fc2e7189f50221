"""`CacheStore`: the protocol of a store of a `Cache`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Awaitable


@runtime_checkable
class CacheStore(Protocol):
    """The protocol of a store of a `Cache`. `LruStore` and `SqliteStore` follow it.

    A key is 32 bytes: a hash of the function, its version and the key of the call. A cache that is used in several threads calls the
    store in all of them.
    """

    def get(self, key: bytes, default: Any, /) -> Any:
        """Return a stored value, or `default`. It runs on the event loop, so it must not take long.

        An exception is raised to the caller, whose function is then not called.
        """
        ...

    def put(self, key: bytes, value: Any, ttl: float | None, /) -> Awaitable[object] | None:
        """Accept a value; from now on `get` returns it.

        Args:
            key: The key.
            value: The result of a call.
            ttl: The seconds after which the value is forgotten; None for never.

        Returns:
            None; or an awaitable, if the store has more values to write than it should hold. The result is delivered when
            that is done, so that the callers do not outrun the store.

        An exception does not concern the caller, which gets its result: the cache warns once.
        """
        ...

    async def aclose(self) -> None:
        """Write all accepted values, and release the resources of the store. Idempotent."""
        ...
