"""`CallKey`: the key of a call in a store. It identifies the function, its version, and the call by the key that the user gives to it."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

from headrace._internal.reprs import describe_value
from headrace.task._version import name_of, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Key: TypeAlias = Union[str, bytes, int, "tuple[Key, ...]"]
"""The identity of a call."""


class CallKey:
    """Makes the keys of the calls of one function.

    Args:
        fn: The function.
        key: A function of the arguments of a call that returns its key.
        version: The version of the function; None for a hash of its code.

    Raises:
        TypeError: `version` is neither a string nor None.
    """

    __slots__ = ("_hash", "_key")

    def __init__(
        self, fn: Callable[..., object], key: Callable[..., Key], version: str | None
    ) -> None:
        if version is not None and not isinstance(cast("object", version), str):
            raise TypeError(f"version must be a str or None, got {describe_value(version)}")
        self._key = key
        # An explicit version never equals a hash.
        given = ("code", version_of(fn)) if version is None else ("given", version)
        self._hash = blake2b(_encode((*name_of(fn), *given), None), digest_size=32)

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Return the key of a call, of 32 bytes.

        Raises:
            TypeError: The user's function returned something else than a key. Its own exceptions are raised as they are.
        """
        key = self._key(*args, **kwargs)
        made = self._hash.copy()
        made.update(_encode(key, key))
        return made.digest()


def _encode(key: object, whole: object) -> bytes:
    """Return bytes that no other key has. The length of each part comes first."""
    if isinstance(key, str):
        text = key.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    if isinstance(key, bytes):
        return b"b%d:%b" % (len(key), key)
    if isinstance(key, int):
        # In hexadecimal digits: the number of decimal ones is limited.
        return b"i%x:" % key
    if isinstance(key, tuple):
        parts = [_encode(part, whole) for part in cast("tuple[object, ...]", key)]
        return b"t%d:%b" % (len(parts), b"".join(parts))
    where = "" if key is whole else f" in {describe_value(whole)}"
    raise TypeError(
        f"key must return a str, bytes, int or tuple of these, got {describe_value(key)}{where}"
    )
