"""Lazy exports of a package: a name's module is imported when the name is first used (PEP 562).

Every `__init__` with exports calls `lazy_exports`.

`import headrace` loads nothing else, so that a program pays only for the modules that it uses. Each exported name is listed once, in
the imports under `TYPE_CHECKING` of the package's `__init__`, where type checkers read them. The table of lazy names is derived
from these imports at the first use:

1. Take the compiled code of the `__init__`: from the frame that called `lazy_exports` or, if the package is not imported yet, from its
   loader, which may read cached bytecode, an archive or a frozen program.
2. Run it with a function in place of `__import__` that imports nothing, records what is imported, and makes `TYPE_CHECKING` true.

This takes a fifth of the time of parsing the source. `from headrace.pull import *` in such a block stands for the exports of
that package, whose own table is derived without importing it.

Where there is no such code, as in a program translated to C, all modules of the package are imported, and a name is taken from the
module that defines it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType


def lazy_exports(
    package: str, *, unlisted: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package with lazy exports.

    `__getattr__` also serves `__all__`, and the modules that the exports are imported from. A resolved name is stored in the
    package, so that it is looked up once. Two threads get the same object, since the interpreter imports a module once.

    Args:
        package: Its `__name__`.
        unlisted: The exports that are not in `__all__`.
    """
    _codes[package] = sys._getframe(1).f_code  # pyright: ignore[reportPrivateUsage]  # of the package's `__init__`

    def get(name: str) -> Any:
        table = _table(package)
        if name == "__all__":
            listed = _scan(package) if table is None else table.names()
            value: Any = sorted(set(listed).difference(unlisted))
        elif table is None:
            if name not in (found := _scan(package)):
                raise _missing(package, name)
            value = found[name]
        elif (module := table.module_of(name)) is not None:
            value = getattr(import_module(module), name)
        elif name in table.modules:
            value = import_module(f"{package}.{name}")
        else:
            raise _missing(package, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        table = _table(package)
        exports = _scan(package) if table is None else [*table.names(), *table.modules]
        return sorted({*vars(sys.modules[package]), *exports})

    return get, names


class _Table:
    """The exports of a package, as its `__init__` lists them."""

    def __init__(self, package: str, code: CodeType) -> None:
        self._exports: dict[str, str] = {}
        self._packages: list[str] = []
        # The package's own code, with nothing but this function as its builtins.
        exec(code, {"__name__": package, "__builtins__": {"__import__": self._record}})  # noqa: S102
        prefix = f"{package}."
        self.modules = {
            module.removeprefix(prefix).partition(".")[0]
            for module in (*self._exports.values(), *self._packages)
            if module.startswith(prefix)
        }
        """The direct submodules that exports come from."""

    def _record(
        self,
        module: str,
        namespace: object = None,
        local_names: object = None,
        names: tuple[str, ...] = (),
        level: int = 0,
    ) -> SimpleNamespace:
        """Stand in for `__import__`: return a module whose names are all true, so that `TYPE_CHECKING` is."""
        if names == ("*",):
            self._packages.append(module)
            return SimpleNamespace(__all__=())
        if module not in ("typing", __name__):
            self._exports |= dict.fromkeys(names, module)
        return SimpleNamespace(**dict.fromkeys(names, True))

    def module_of(self, name: str) -> str | None:
        """Return the module that defines an export, or None."""
        module = self._exports.get(name)
        if module is None:
            for package in self._packages:
                if (table := _table(package)) and (module := table.module_of(name)):
                    break
        return module

    def names(self) -> Iterator[str]:
        """Return the names of all exports."""
        yield from self._exports
        for package in self._packages:
            if table := _table(package):
                yield from table.names()


_codes: dict[str, CodeType] = {}
"""The code of each imported package whose table was not derived yet."""

_tables: dict[str, _Table | None] = {}
"""The tables that were requested, by package; None where the loader of the package has no code."""


def _table(package: str) -> _Table | None:
    """Return the table of a package, derived at the first call."""
    if package not in _tables:
        _tables[package] = _derived(package)
    return _tables[package]


def _derived(package: str) -> _Table | None:
    code = _codes.pop(package, None) or _load_code(package)
    # A module translated to C has a code object without bytecode, or none.
    return _Table(package, code) if code is not None and code.co_code else None


def _load_code(package: str) -> CodeType | None:
    """Load the code of a package that is not imported yet, without importing it."""
    path = sys.modules[package.rpartition(".")[0]].__path__
    for finder in sys.meta_path:
        if spec := finder.find_spec(package, path):
            get_code: Callable[[str], CodeType | None] | None
            get_code = getattr(spec.loader, "get_code", None)
            return get_code and get_code(package)
    return None


_scanned: dict[str, dict[str, Any]] = {}
"""The public names that `_scan` found, by package."""


def _scan(package: str) -> dict[str, Any]:
    """Import all modules of a package; return their public names with their values."""
    if package not in _scanned:
        from pkgutil import walk_packages

        root = package.partition(".")[0]
        path = sys.modules[package].__path__
        modules = [info.name for info in walk_packages(path, f"{package}.", lambda _: None)]
        found: dict[str, Any] = {}
        # The extension, since a package may export a name of it.
        for full_name in [*modules, f"{root}._core"]:
            parent, _, module_name = full_name.rpartition(".")
            if module_name == "__main__":
                continue
            try:
                module = import_module(full_name)
            except ImportError:
                # It needs an optional dependency.
                continue
            if parent == package:
                found[module_name] = module
            for name, value in vars(module).items():
                is_public = name == "__version__" or not name.startswith("_")
                if is_public and not _is_foreign(name, value, root):
                    found.setdefault(name, value)
        _scanned[package] = found
    return _scanned[package]


def _is_foreign(name: str, value: object, root: str) -> bool:
    """Return whether a name was imported from outside of the root package."""
    home: str = getattr(value, "__module__", None) or root
    return home.partition(".")[0] != root and getattr(sys.modules.get(home), name, None) is value


def _missing(package: str, name: str) -> AttributeError:
    return AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
