"""`import headrace` is cheap, and every name is available."""

from __future__ import annotations

import ast
import compileall
import importlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace import _core

PACKAGE = Path(headrace.__file__).parent
LAZY = [
    "headrace",
    *(
        f"headrace.{name}"
        for name in (
            "cache",
            "capacity",
            "graph",
            "pool",
            "pull",
            "push",
            "task",
            "testing",
            "testing.executors",
        )
    ),
]


# The exports that a star import leaves out: it would replace a builtin.
UNLISTED = {"map"}


def child(program: str) -> Any:
    """Run a program that has imported only asyncio, json and sys, and return the JSON that it prints."""
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import asyncio, json, sys\n{program}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (completed.stderr, completed.returncode) == ("", 0)
    return json.loads(completed.stdout)


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads."""
    return set(
        child(
            f"before = set(sys.modules)\n{statement}\nprint(json.dumps([*(set(sys.modules) - before)]))"
        )
    )


def exported(package: str) -> dict[str, str]:
    """Return the names that a type checker finds in a package, each with its defining module."""
    source = Path(importlib.import_module(package).__file__ or "").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for statement in ast.walk(ast.parse(source)):
        if not isinstance(statement, ast.ImportFrom) or statement.module is None:
            continue
        if statement.module in {"typing", "headrace._internal.lazy_import"}:
            continue
        for alias in statement.names:
            if alias.name == "*":
                found |= exported(statement.module)
                continue
            # Without `as`, a checker takes the name for private.
            assert alias.name == alias.asname, f"import {alias.name} as {alias.name}"
            found[alias.name] = statement.module
    return found


def test_import_loads_no_subpackage() -> None:
    loaded = loaded_by("import headrace")
    assert {name for name in loaded if name.startswith("headrace")} == {
        "headrace",
        "headrace._internal",
        "headrace._internal.lazy_import",
    }
    assert len(loaded) <= 5, sorted(loaded)


@pytest.mark.parametrize(
    ("names", "most", "not_loaded"),
    [
        ("SourceIterObj, PullMapObj", 22, ("push", "pool", "buffer", "capacity")),
        ("SinkCollectObj, PushMapObj", 22, ("pull", "pool", "buffer", "capacity")),
        ("WaitObject", 8, ("pull", "push", "pool", "buffer", "capacity")),
        ("CapacitySource", 15, ("pull", "push", "pool", "buffer")),
    ],
)
def test_import_loads_only_the_needed_subpackages(
    names: str, most: int, not_loaded: tuple[str, ...]
) -> None:
    loaded = loaded_by(f"from headrace import {names}")
    assert not {f"headrace.{subpackage}" for subpackage in not_loaded} & loaded
    assert len(loaded) <= most, sorted(loaded)


def test_pull_pipeline_loads_no_heavy_module() -> None:
    loaded = loaded_by("from headrace import SourceIterObj, PullMapObj, PullWindowObj")
    assert not {"dataclasses", "json", "queue"} & loaded


# Modules that the first use may load, beyond those that the import of the names loaded.
FIRST_USES = {
    "map": (
        "SourceIterObj",
        """
    async for _ in SourceIterObj([1]).map(str): pass""",
        # The fluent interface imports an operator at its first use.
        {
            "_internal.kernel_properties",
            "_internal.sentinels",
            "_internal.tasks",
            "_internal.validate",
            "errors",
            "pull._concurrent_map",
            "pull._concurrent_source",
            "pull.transform",
        },
        24,
    ),
    "push": (
        "SinkCollectObj, PushMapObj",
        """
    await PushMapObj(SinkCollectObj(), str).next(1)""",
        set[str](),
        24,
    ),
    "pool": (
        "CapacitySource, HierarchicalTaskPoolRunner",
        """
    async def work(): await asyncio.sleep(0)
    async with HierarchicalTaskPoolRunner([work], CapacitySource(1)).run_tasks() as run:
        async for _ in run: pass""",
        set[str](),
        80,
    ),
}


@pytest.mark.parametrize("use", FIRST_USES)
def test_first_item_loads_few_modules(use: str) -> None:
    names, body, late, most = FIRST_USES[use]
    program = f"""
before = set(sys.modules)
from headrace import {names}
imported = set(sys.modules) - before
async def main():{body}
asyncio.run(main())
print(json.dumps([[*imported], [*(set(sys.modules) - before - imported)]]))
"""
    imported, added = map(set, child(program))
    assert added <= {f"headrace.{module}" for module in late}
    loaded = imported | added
    assert len(loaded) <= most, sorted(loaded)
    # None of the modules that make a start noticeably slower.
    assert not {"graph.graph", "graph.sources", "pool.map_pool", "capacity.balancer"} & {
        name.removeprefix("headrace.") for name in loaded
    }
    assert not {"http", "json", "pickle", "multiprocessing", "unittest", "urllib"} & loaded


@pytest.mark.parametrize("package", LAZY)
def test_lazy_names_match_those_of_type_checkers(package: str) -> None:
    module = importlib.import_module(package)
    read = exported(package)
    assert sorted(set(read) - UNLISTED) == sorted(module.__all__)
    for name, home in read.items():
        assert module.__getattr__(name) is getattr(importlib.import_module(home), name)
    # The lazy table has no further names.
    available = {name for name in dir(module) if not name.startswith("__")}
    inner = {"_internal.sentinels"} | {
        path.stem for path in Path(module.__file__ or "").parent.iterdir()
    }
    others = {"TYPE_CHECKING", "annotations", "lazy_exports"}
    assert available - inner - others == {name for name in read if not name.startswith("__")}


@pytest.mark.parametrize("package", LAZY)
def test_star_import_has_every_name(package: str) -> None:
    names = child(f"from {package} import *\nprint(json.dumps([*globals()]))")
    assert set(importlib.import_module(package).__all__) <= set(names)


CHECK_ALL = """
import importlib
names = {}
for package in NAMES:
    module = importlib.import_module(package)
    names[package] = [name for name in NAMES[package] if not hasattr(module, name)]
    names[package] += [name for name in NAMES[package] if name not in dir(module)]
    names[package] += sorted(set(NAMES[package]) - {"map"} - set(module.__all__))
    names[package] += [name for name in ("nothing", "_nothing") if hasattr(module, name)]
print(json.dumps(names))
"""


def test_names_are_found_in_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in PACKAGE.rglob("*.py"):
            file.write(path, path.relative_to(PACKAGE.parent))
    # The extension cannot be loaded out of a zip.
    names = {package: sorted(exported(package)) for package in LAZY}
    program = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("headrace._core", {_core.__file__!r})
sys.path.insert(0, {str(archive)!r})
sys.modules["headrace._core"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["headrace._core"])
NAMES = {names!r}
{CHECK_ALL}
assert importlib.import_module("headrace").__file__.startswith({str(archive)!r})
"""
    assert child(program) == {key: [] for key in LAZY}


def test_names_are_found_without_source(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "headrace", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(tmp_path, quiet=1, legacy=True)
    for path in tmp_path.rglob("*.py"):
        path.unlink()
    names = {package: sorted(exported(package)) for package in LAZY}
    program = f"""
sys.path.insert(0, {str(tmp_path)!r})
NAMES = {names!r}
{CHECK_ALL}
assert importlib.import_module("headrace").__file__.endswith(".pyc")
"""
    assert child(program) == {key: [] for key in LAZY}


def test_names_are_found_without_a_table() -> None:
    names = {package: sorted(exported(package)) for package in LAZY}
    program = f"""
from headrace._internal import lazy_import
NAMES = {names!r}
lazy_import._tables |= dict.fromkeys(NAMES)
{CHECK_ALL}
assert not any(lazy_import._tables.values())
"""
    assert child(program) == {key: [] for key in LAZY}


def test_subpackages_are_available_as_attributes() -> None:
    program = """
import headrace
found = [headrace.pull.PullMapObj, headrace.push.sink.SinkNullObj, headrace.task.Task, headrace.errors.ClosedError]
print(json.dumps([thing.__module__ for thing in found]))
"""
    assert child(program) == [
        "headrace.pull.transform",
        "headrace.push.sink",
        "headrace.task.task",
        "headrace.errors",
    ]


def test_name_is_looked_up_once() -> None:
    program = """
import headrace
before = "PullMapObj" in vars(headrace)
headrace.PullMapObj
print(json.dumps([before, vars(headrace)["PullMapObj"] is headrace.pull.transform.PullMapObj]))
"""
    assert child(program) == [False, True]


@pytest.mark.parametrize("package", LAZY)
def test_missing_name_raises(package: str) -> None:
    module: Any = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
    assert not hasattr(module, "nothing")
    with pytest.raises(ImportError, match="nothing"):
        exec(f"from {package} import nothing")  # noqa: S102 - a statement is what is tested


SUBINTERPRETERS = """
import os
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
is_named = sys.version_info >= (3, 13)

def create(kind):
    return interpreters.create(kind) if is_named else interpreters.create(isolated=kind == "isolated")

def execute(interpreter, program):
    if is_named:
        # Up to 3.12 an error in there is raised here, and from 3.13 on it is returned.
        assert (failed := interpreters.exec(interpreter, program)) is None, failed
    else:
        interpreters.run_string(interpreter, program)

def is_refused(kind):
    reader, writer = os.pipe()
    interpreter = create(kind)
    execute(interpreter, f'''
import os, sys
sys.path[:] = {sys.path!r}
refused = []
for statement in ["import headrace._core", "from headrace import SourceIterObj", "from headrace.pool import TaskRun"] * 2:
    try:
        exec(statement)
    except ImportError as error:
        refused.append("subinterpreter" in str(error))
    else:
        refused.append(False)
os.write({writer}, repr(refused).encode())
''')
    interpreters.destroy(interpreter)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return pipe.read() == repr([True] * 6)

async def works():
    from headrace import CapacitySource, PullRaceObj, SourceIterObj
    capacity = CapacitySource(1)
    first = await capacity.acquire(owner=None)
    waiting = asyncio.ensure_future(capacity.acquire(owner=None))
    await asyncio.sleep(0)
    first.release()
    (await waiting).release()
    items = await PullRaceObj(SourceIterObj(range(3)).prefetch(1), range(3)).collect()
    return sorted(items) == [0, 0, 1, 1, 2, 2]
"""


@pytest.mark.parametrize("kind", ["legacy", "isolated"])
@pytest.mark.parametrize("steps", ["main sub main", "sub main sub main"])
def test_subinterpreter_is_refused_and_main_works(kind: str, steps: str) -> None:
    calls = {"main": "asyncio.run(works())", "sub": f"is_refused({kind!r})"}
    outcomes = ", ".join(calls[step] for step in steps.split())
    assert all(child(f"{SUBINTERPRETERS}\nprint(json.dumps([{outcomes}]))"))


def modules() -> list[str]:
    """Return the names of all modules of the package."""
    names = (".".join(path.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("*.py"))
    return sorted(name.removesuffix(".py").removesuffix(".__init__") for name in names)


def test_every_module_can_be_imported_first(tmp_path: Path) -> None:
    # Each module is imported in its own process. A fork is the quickest way.
    program = f"""
import importlib, os
failed = {{}}
for name in {[name for name in modules() if not name.endswith("__main__")]!r}:
    out, into = os.pipe()
    if os.fork() == 0:
        said = ""
        try:
            importlib.import_module(name)
        except BaseException as error:
            said = repr(error)
        os.write(into, said.encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as file:
        said = file.read()
    os.wait()
    if said:
        failed[name] = said
print(json.dumps(failed))
"""
    assert child(program) == {}


@pytest.mark.parametrize("base", ["PullObj", "PushObj"])
def test_imports_add_no_methods_to_a_stream(base: str) -> None:
    program = f"""
import importlib
from headrace import {base}
before = {{name for name in dir({base}) if not name.startswith("_")}}
for name in {[name for name in modules() if "__main__" not in name]!r}:
    importlib.import_module(name)
print(json.dumps([name for name in dir({base}) if not name.startswith("_") and name not in before]))
"""
    assert child(program) == []


@pytest.mark.parametrize("package", LAZY)
def test_no_module_shadows_an_export(package: str) -> None:
    # Importing the module would replace the export.
    names = {name.rpartition(".")[2] for name in modules() if name.rpartition(".")[0] == package}
    assert not names & exported(package).keys()
