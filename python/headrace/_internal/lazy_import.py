"""Lazy exports of a package: a name's module is imported when the name is first used (PEP 562).

`import headrace` loads nothing else, so that a program pays only for the modules that it uses. Type checkers read the imports
under `TYPE_CHECKING` in the package's `__init__`. The table of lazy names is derived from the same imports, by parsing the
source at the first use, so that each name is listed once. `from headrace.pull import *` in such a block stands for the exports of
that package, which has a block of its own; it is parsed without importing the package.

Without source, in a frozen program, the modules of the package are imported until one of them defines the name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# `ast.PyCF_ONLY_AST` and `compile`, without the import of `ast`, which costs more than the whole table.
_ONLY_AST = 0x400


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package with lazy exports.

    `__getattr__` also serves `__all__`, and the modules that the exports are imported from. A resolved name is stored in the
    package, so that it is looked up once. Two threads get the same object, since the interpreter imports a module once.

    Args:
        package: Its `__name__`.
    """

    def get(name: str) -> Any:
        table = _table(package)
        if name == "__all__":
            value: Any = sorted(_scan(package) if table is None else table.names())
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
    """The exports of a package, as its source lists them."""

    def __init__(self, package: str, statements: list[Any]) -> None:
        self._exports: dict[str, str] = {}
        self._packages: list[str] = []
        for statement in statements:
            if type(statement).__name__ != "ImportFrom":
                continue
            for alias in statement.names:
                if alias.name == "*":
                    self._packages.append(statement.module)
                else:
                    self._exports[alias.name] = statement.module
        prefix = f"{package}."
        self.modules = {
            module.removeprefix(prefix).partition(".")[0]
            for module in (*self._exports.values(), *self._packages)
            if module.startswith(prefix)
        }
        """The direct submodules that exports come from."""

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


_tables: dict[str, _Table | None] = {}
"""The table of each package that was asked for; None without source."""


def _table(package: str) -> _Table | None:
    """Return the table of a package, parsed at the first call."""
    if package not in _tables:
        _tables[package] = _parsed(package)
    return _tables[package]


def _parsed(package: str) -> _Table | None:
    # Found from the root package, so that the others need not be imported.
    root, *below = package.split(".")
    spec: Any = sys.modules[root].__spec__
    try:
        directory = spec.origin.removesuffix("__init__.py")
        path = f"{directory}{''.join(f'{name}/' for name in below)}__init__.py"
        # Bytes: `get_source` would import `tokenize` to decode them, and `compile` does that itself.
        source = spec.loader.get_data(path)
    except (AttributeError, OSError):
        return None
    module: Any = compile(source, path, "exec", _ONLY_AST, dont_inherit=True)
    for statement in module.body:
        if type(statement).__name__ == "If" and statement.test.id == "TYPE_CHECKING":
            return _Table(package, statement.body)
    return None


_scanned: dict[str, dict[str, Any]] = {}
"""What `_scan` found, by package."""


def _scan(package: str) -> dict[str, Any]:
    """Import all modules of a package without source; return their public names with their values."""
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
