"""`version_of`: identifies the code of a function by a hash. The cache and the journal recognise by it that a function has changed.

The hash is the same in every process of one minor version of CPython, whatever its hash seed. It covers

- the bytecode of the function and of the functions inside it, with the names and constants that the bytecode uses. Instructions are
  taken in their decoded form, so that neither the order of a constants table nor an unused constant, such as a docstring, matters.
  Line numbers, file names and comments are not part of it.
- default values, the values of closures, and the function and arguments of a `functools.partial`. A decorated function is covered
  through the closure of its wrapper, or through `__wrapped__`.

A value is hashed by its content if it is a number, a text, a builtin container, a function, a member of an enum, a dataclass, or of
a type of the standard library such as `Path`, `Decimal` or `datetime`. Any other object, such as a client, is hashed by its type: its
`repr` may contain an address, and its state may change from run to run. Sets are hashed in the order of their encoded elements.

The journal asks for the code alone. Then closures count by their functions only, and default values and the object of a method count only
if they are functions or cannot change: a run may change all others, for example a list that its function fills.

Global names count by name: a change of a helper function or of a global constant is not noticed. Neither is a change of a
function that has no bytecode, which is hashed by name.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import inspect
import types
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.validate import check_callable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_FLAGS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
"""The flags that change the meaning of a function; the others depend on its surroundings."""

_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, types.EllipsisType))
"""The types whose values are encoded directly."""

_STANDARD = frozenset(
    (
        "builtins",
        "datetime",
        "decimal",
        "fractions",
        "ipaddress",
        "pathlib",
        "re",
        "uuid",
        "zoneinfo",
    )
)
"""The modules whose objects are values: their reduced form, as for `pickle`, is their content."""

_MAX_DEPTH = 64
"""The depth below which values count by their type, so that no nesting exhausts the stack."""


def version_of(fn: Callable[..., object], *, of_state: bool = True) -> str:
    """Return a hash of the code of a function, as 32 hexadecimal digits.

    Args:
        fn: A function, method, `functools.partial` or other callable.
        of_state: Whether it covers values that a call may change: those of closures, of mutable defaults and of a method's object.

    Raises:
        TypeError: `fn` is not callable.

    *Cost*: about 20 us for each instruction of its bytecode, and O(n) in the size of the values.
    """
    check_callable("fn", fn)
    return blake2b(_Encoder(of_state=of_state).encode(fn), digest_size=16).hexdigest()


def name_of(fn: Callable[..., object]) -> tuple[str, str]:
    """Return the module and the qualified name of a function; of a partial, those of its function."""
    named: object = fn
    while isinstance(named, functools.partial):
        named = cast("functools.partial[object]", named).func
    name: object = getattr(named, "__qualname__", None)
    if not isinstance(name, str):
        named = cast("type", type(named))
        name = named.__qualname__
    return str(getattr(named, "__module__", None)), name


class _Encoder:
    """Encodes a value as bytes, so that values have equal bytes only if they are equal and of one type."""

    def __init__(self, *, of_state: bool) -> None:
        self._of_state = of_state
        self._path: list[int] = []
        """The ids of the objects that are being encoded, from the outermost on, to find cycles."""

    def encode(self, value: object) -> bytes:
        """Return the bytes of a value."""
        kind = type(value)
        if kind in _PLAIN:
            return _tagged(kind.__name__, _plain(value))
        if id(value) in self._path:
            return _tagged("cycle", str(self._path.index(id(value))).encode())
        if len(self._path) >= _MAX_DEPTH:
            return _tagged("object", _type_name(kind))
        self._path.append(id(value))
        try:
            return self._compound(value, kind)
        finally:
            self._path.pop()

    def _compound(self, value: Any, kind: type) -> bytes:
        if isinstance(value, (tuple, list)):
            return self._sequence("sequence", (kind, *cast("tuple[object, ...]", value)))
        if isinstance(value, (set, frozenset)):
            elements = map(self.encode, cast("set[object]", value))
            return _tagged("set", self.encode(kind), *sorted(elements))
        if isinstance(value, (dict, types.MappingProxyType)):
            pairs = cast("dict[object, object]", value).items()
            encoded = (self.encode(key) + self.encode(one) for key, one in pairs)
            return _tagged("mapping", self.encode(kind), *sorted(encoded))
        if kind is types.CodeType:
            return self._code(value)
        if kind is types.FunctionType:
            return self._function(value)
        if kind is types.MethodType:
            return self._sequence("method", (value.__func__, self._state(value.__self__)))
        if isinstance(value, functools.partial):
            partial = cast("functools.partial[object]", value)
            fn = self.encode(partial.func)
            # The user has passed them.
            of_state, self._of_state = self._of_state, True
            try:
                return _tagged(
                    "partial", fn, self.encode(partial.args), self.encode(partial.keywords)
                )
            finally:
                self._of_state = of_state
        if isinstance(value, type):
            return _tagged("type", _type_name(value))
        if kind is types.ModuleType:
            return _tagged("module", value.__name__.encode())
        if kind in (types.BuiltinFunctionType, types.MethodWrapperType):
            # The `__self__` of a function of a module is the module.
            return self._sequence("builtin", (value.__qualname__, value.__self__))
        return self._object(value, kind)

    def _object(self, value: Any, kind: type) -> bytes:
        if isinstance(value, Enum):
            return self._sequence("enum", (kind, value.name))
        if dataclasses.is_dataclass(value) and self._of_state:
            fields = {
                field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)
            }
            return self._sequence("dataclass", (kind, fields))
        parts: list[object] = [kind]
        if kind.__module__.partition(".")[0] in _STANDARD and not hasattr(kind, "__next__"):
            # An iterator changes while it is used.
            parts.append(_reduced(value))
        elif callable(value):
            # Of a C function with Python code below it, such as that of `functools.lru_cache`, that code.
            parts += (getattr(value, "__wrapped__", None), inspect.getattr_static(kind, "__call__"))
            name: object = getattr(value, "__qualname__", None)
            parts.append(name if isinstance(name, str) else None)
        return self._sequence("object", parts)

    def _sequence(self, tag: str, values: Iterable[object]) -> bytes:
        return _tagged(tag, *map(self.encode, values))

    def _function(self, function: types.FunctionType) -> bytes:
        names = function.__code__.co_freevars
        contents: Iterable[object] = map(_contents, function.__closure__ or ())
        defaults: Iterable[object] = function.__defaults__ or ()
        named: dict[str, object] = function.__kwdefaults__ or {}
        if not self._of_state:
            # A call may assign another number to a variable of a closure, but not to a default.
            contents = [one if callable(one) else None for one in contents]
            defaults = map(self._state, defaults)
            named = {name: self._state(one) for name, one in named.items()}
        closure = dict(zip(names, contents, strict=True))
        return self._sequence("function", (function.__code__, tuple(defaults), named, closure))

    def _state(self, value: object) -> object:
        """Return a value, or its type if a call may change it and that does not matter."""
        is_fixed = self._of_state or type(value) in _PLAIN or callable(value)
        return value if is_fixed else type(value)

    def _code(self, code: types.CodeType) -> bytes:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        instructions = list(dis.get_instructions(code))
        operations = " ".join([one.opname for one in instructions])
        operands = [one.argval for one in instructions if one.arg is not None]
        table = code.co_exceptiontable
        return self._sequence(
            "code", (counts, code.co_flags & _FLAGS, arguments, table, operations, operands)
        )


def _tagged(tag: str, *parts: bytes) -> bytes:
    """Join parts with their lengths, so that no two lists of parts have the same bytes."""
    head = " ".join([tag, *(str(len(part)) for part in parts)])
    return b"".join([head.encode("utf-8", "surrogatepass"), b"\n", *parts])


def _plain(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, int):
        # Not in decimal digits, whose number is limited.
        return hex(value).encode()
    text = value if isinstance(value, str) else repr(value)
    return text.encode("utf-8", "surrogatepass")


def _type_name(kind: type) -> bytes:
    return f"{kind.__module__}.{kind.__qualname__}".encode("utf-8", "surrogatepass")


def _contents(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        # Not assigned yet.
        return None


def _reduced(value: object) -> tuple[object, ...] | None:
    """Return the arguments and the state with which `pickle` would restore a value."""
    try:
        reduced = value.__reduce_ex__(4)
    except TypeError:
        # Such as a generator.
        return None
    return reduced[1:3] if isinstance(reduced, tuple) else None
