"""`version_of`: the hash of a function's code changes with its meaning, and with nothing else."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from headrace.task._version import name_of, version_of
from tests.support import wrong

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = """
async def fn(a, b=1, *, c="x"):
    total = {"k": (1, 2.5, None)}
    try:
        total = [x async for x in a if x in {"p", "q", "r"}]
    except ValueError:
        def inner(y): return y + 1
        return inner(b)
    return total, c
"""


def made(source: str, name: str = "fn", **names: Any) -> Callable[..., Any]:
    """Return the function that a source defines."""
    exec(source, names)  # noqa: S102
    fn: Callable[..., Any] = names[name]
    return fn


# Each replaces a part of `BASE`.
CHANGES = [
    ("b=1", "b=2"),
    ('c="x"', 'c="y"'),
    ("2.5", "2.6"),
    ("(1, 2.5, None)", "(True, 2.5, None)"),
    ("(1, 2.5, None)", "(1.0, 2.5, None)"),
    ("(1, 2.5, None)", "[1, 2.5, None]"),
    ('"q"', '"s"'),
    ("y + 1", "y + 2"),
    ("y + 1", "y - 1"),
    ("ValueError", "KeyError"),
    ("*, c", "c"),
    ("a, b", "d, b"),
    ("x in {", "x not in {"),
    ("inner(b)", "inner(c)"),
    ("return total, c", "return c, total"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_changed_code_has_another_version(old: str, new: str) -> None:
    assert old in BASE
    assert version_of(made(BASE)) != version_of(made(BASE.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\nasync", "\n\n\n\n# moved\nasync"),
        ("    try:", "    # a comment\n\n    try:"),
        ('"x"):\n', '"x"):\n    """A docstring, which is a constant."""\n'),
        ("def inner(y): ", 'def inner(y):\n            "Another one."\n            '),
        ("(a, b=1", "(a, b: int = 1"),
        ("async def fn", "async def other"),
        ('{"p", "q", "r"}', '{"r", "p", "q"}'),
    ],
)
def test_layout_comments_and_docstrings_do_not_count(old: str, new: str) -> None:
    assert old in BASE
    name = "other" if "def other" in new else "fn"
    assert version_of(made(BASE)) == version_of(made(BASE.replace(old, new), name))


def test_kind_of_function_counts() -> None:
    bodies = ["def fn(): return 1", "async def fn(): return 1", "def fn(*a): return 1"]
    assert len({version_of(made(body)) for body in bodies}) == 3


def test_place_of_a_constant_counts() -> None:
    bodies = ["def fn(a): return a(None, b=a(1))", "def fn(a): return a(1, b=a(None))"]
    assert len({version_of(made(body)) for body in bodies}) == 2


def test_range_of_a_try_block_counts() -> None:
    first = "def fn(a):\n  a()\n  try: a()\n  except ValueError: return 1\n"
    second = "def fn(a):\n  try:\n    a()\n    a()\n  except ValueError: return 1\n"
    assert version_of(made(first)) != version_of(made(second))


PRINT = """
import sys
sys.path.insert(0, sys.argv[1])
import asyncio, functools
from collections import OrderedDict
from headrace.task._version import version_of
from enum import Enum
Colour = Enum("Colour", "RED GREEN")
class Client:
    def __call__(self): return 1
def factory(client, names):
    def inner(item): return client, names, item in {"a", "b", "c", 1, 2.0, None, (3, 4)}
    return inner
def fn(item, *, names=frozenset("abcdefgh"), colour=Colour.RED): return item in {"x", "y", "z", "w"}
async def main(fn=fn):
    async with fn as x: return [y async for y in x]
for one in [fn, main, lambda: fn, factory(Client(), {"u", "v", "w", fn}), len, Client, Client(),
            functools.partial(fn, Client(), set("qwertz"), names={"a": object(), "b": {1, 2}})]:
    print(version_of(one))
"""


def test_version_is_the_same_in_every_process(tmp_path: Path) -> None:
    outputs: set[str] = set()
    for seed in ("0", "1", "12345"):
        # Another path and other line numbers: a file of its own for each process.
        program = tmp_path / seed / f"program_{seed}.py"
        program.parent.mkdir()
        program.write_text("\n" * int(seed[0]) + PRINT, encoding="utf-8")
        package = str(Path(sys.modules["headrace"].__path__[0]).parent)
        completed = subprocess.run(
            [sys.executable, program, package],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(completed.stdout)
    assert len(outputs) == 1
    versions = outputs.pop().split()
    assert len(versions) == len(set(versions)) == 8


def test_running_a_function_does_not_change_its_version() -> None:
    fn = made("def fn(n):\n  total = 0\n  for i in range(n): total += i\n  return total\n")
    before = version_of(fn)
    for _ in range(100):
        # The interpreter specialises the bytecode in place.
        fn(100)
    assert version_of(fn) == before


class Colour(Enum):
    RED = 1
    GREEN = 2


@dataclass
class Config:
    model: str
    extra: Any = None


class Pair(NamedTuple):
    a: int
    b: int


class Client:
    def __init__(self, name: str = "") -> None:
        self.name = name

    def ask(self, prompt: str) -> str:
        return prompt

    def __call__(self, prompt: str) -> str:
        return prompt + "!"


def ask(*options: Any, **named: Any) -> Any:
    return options, named


VALUES = [
    *(None, True, 1, 1.0, 1 + 0j, -0.0, 0.0, 10**5000, "1", b"1", ..., "\ud800"),
    *((1,), [1], {1}, frozenset({1}), {1: 1}, {1: 2}, {2: 1}, (1, 1), ((1,), 1), (1, (1,)), ()),
    *(Pair(1, 2), Pair(1, 3), (1, 2), OrderedDict({1: 1}), slice(1), slice(2), bytearray(b"1")),
    *(Colour.RED, Colour.GREEN, Config("a"), Config("b"), Config("a", 1), Client, Client()),
    *(Path("a"), Path("b"), Decimal(1), Decimal("1.0"), range(1), range(2), asyncio, os),
    *(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), len, abs, "a".upper),
    *(Client().ask, Client.ask, ask, lambda: 1, lambda: 2),
]


def test_arguments_of_a_partial_count_by_content() -> None:
    versions = [version_of(functools.partial(ask, value)) for value in VALUES]
    versions += [version_of(functools.partial(ask, named=value)) for value in VALUES]
    assert len(set(versions)) == len(versions)
    assert version_of(functools.partial(ask)) not in {version_of(ask), *versions}


def test_equal_arguments_of_a_partial_have_one_version() -> None:
    def make(client: Client) -> Callable[..., Any]:
        names = {"b": Config("m", Path("x")), "a": {Decimal(1), Decimal(2)}}
        return functools.partial(ask, client, options=names)

    def reordered(client: Client) -> Callable[..., Any]:
        names = {"a": {Decimal(2), Decimal(1)}, "b": Config("m", Path("x"))}
        return functools.partial(ask, client, options=names)

    # A client counts by its type.
    assert version_of(make(Client("a"))) == version_of(reordered(Client("b")))


def test_closures_and_defaults_count() -> None:
    def factory(prompt: object) -> Callable[[str], object]:
        def fn(item: str) -> object:
            return prompt, item

        return fn

    assert version_of(factory("a")) == version_of(factory("a")) != version_of(factory("b"))
    fn = factory("a")
    before = version_of(fn)
    wrong(fn).__defaults__ = ("x",)
    assert version_of(fn) != before


def test_decorated_functions_count_by_the_function_inside() -> None:
    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn(*args)

        return wrapper

    first, second = made("def fn(a): return a"), made("def fn(a): return a + 1")
    assert version_of(decorate(first)) != version_of(decorate(second))
    cached = functools.lru_cache
    assert version_of(cached(first)) != version_of(cached(second)) != version_of(second)
    assert version_of(first) != version_of(decorate(first)) == version_of(decorate(first))


def test_recursive_functions_and_values_end() -> None:
    def outer() -> Callable[[int], int]:
        def inner(n: int) -> int:
            return n and inner(n - 1)

        return inner

    cyclic: list[Any] = [1]
    cyclic.append(cyclic)
    deep: Any = ()
    for _ in range(10_000):
        deep = (deep,)
    assert version_of(outer()) == version_of(outer())
    assert version_of(functools.partial(ask, cyclic)) != version_of(functools.partial(ask, deep))


def test_object_with_any_attribute_ends() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            return Anything()

        def __call__(self) -> None: ...

    assert version_of(Anything()) == version_of(Anything())


def test_unset_closure_is_accepted() -> None:
    def outer() -> Callable[[], int]:
        late = 1

        def inner() -> int:
            return late  # noqa: F821  # deleted below

        del late
        return inner

    assert version_of(outer()) == version_of(outer())


def test_name_of() -> None:
    here = __name__
    assert name_of(ask) == name_of(functools.partial(functools.partial(ask, 1), 2)) == (here, "ask")
    assert name_of(Client().ask) == (here, "Client.ask")
    assert name_of(Client()) == name_of(Client) == (here, "Client")
    assert name_of(len) == ("builtins", "len")


def test_refuses_a_value_that_is_not_callable() -> None:
    with pytest.raises(TypeError, match=r"fn must be callable, got 3 \(int\)"):
        version_of(wrong(3))
