"""`import headrace` is cheap, and everything is there all the same."""

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

HOUSE = Path(headrace.__file__).parent
LAZY = [
    "headrace",
    *(
        f"headrace.{name}"
        for name in ("capacity", "graph", "pool", "pull", "push", "task", "testing")
    ),
]


def child(program: str) -> Any:
    """What a program prints, in JSON, that begins with asyncio and nothing else."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import asyncio, json, sys\n{program}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    return json.loads(ran.stdout)


def entered(statement: str) -> set[str]:
    """The modules that a statement loads."""
    return set(
        child(
            f"before = set(sys.modules)\n{statement}\nprint(json.dumps([*(set(sys.modules) - before)]))"
        )
    )


def promised(package: str) -> dict[str, str]:
    """What a checker reads in a package: each name, and the module that has it."""
    source = Path(importlib.import_module(package).__file__ or "").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for statement in ast.walk(ast.parse(source)):
        if not isinstance(statement, ast.ImportFrom) or statement.module is None:
            continue
        if statement.module in {"typing", "headrace._internal.lazy_import"}:
            continue
        for alias in statement.names:
            if alias.name == "*":
                found |= promised(statement.module)
                continue
            # Without the second name, it would be the package's own business.
            assert alias.name == alias.asname, f"import {alias.name} as {alias.name}"
            found[alias.name] = statement.module
    return found


def test_importing_loads_no_room() -> None:
    loaded = entered("import headrace")
    assert {name for name in loaded if name.startswith("headrace")} == {
        "headrace",
        "headrace._internal",
        "headrace._internal.lazy_import",
    }
    assert len(loaded) <= 5, sorted(loaded)


@pytest.mark.parametrize(
    ("names", "most", "not_entered"),
    [
        ("SourceIterObj, PullMapObj", 22, ("push", "pool", "buffer", "capacity")),
        ("SinkCollectObj, PushMapObj", 22, ("pull", "pool", "buffer", "capacity")),
        ("WaitObject", 8, ("pull", "push", "pool", "buffer", "capacity")),
        ("CapacitySource", 15, ("pull", "push", "pool", "buffer")),
    ],
)
def test_a_program_pays_for_the_rooms_that_it_enters(
    names: str, most: int, not_entered: tuple[str, ...]
) -> None:
    loaded = entered(f"from headrace import {names}")
    assert not {f"headrace.{room}" for room in not_entered} & loaded
    assert len(loaded) <= most, sorted(loaded)


def test_nothing_heavy_is_loaded_for_a_pull_line() -> None:
    loaded = entered("from headrace import SourceIterObj, PullMapObj, PullWindowObj")
    assert not {"dataclasses", "json", "queue"} & loaded


# What the first use of each loads, after the names were imported and beside what that loaded.
FIRST_USES = {
    "map": (
        "SourceIterObj",
        """
    async for _ in SourceIterObj([1]).map(str): pass""",
        # The fluent interface imports an operator when it is asked for.
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
def test_the_first_item_loads_next_to_nothing(use: str) -> None:
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
    # Nothing that a program would notice in its start: the servers, readers and writers of the standard library.
    assert not {"graph.graph", "graph.sources", "pool.map_pool", "capacity.balancer"} & {
        name.removeprefix("headrace.") for name in loaded
    }
    assert not {"http", "json", "pickle", "multiprocessing", "unittest", "urllib"} & loaded


@pytest.mark.parametrize("package", LAZY)
def test_what_is_imported_is_what_checkers_read(package: str) -> None:
    module = importlib.import_module(package)
    read = promised(package)
    assert sorted(read) == sorted(module.__all__)
    for name, home in read.items():
        assert module.__getattr__(name) is getattr(importlib.import_module(home), name)
    # Neither has the table more than that.
    given = {name for name in dir(module) if not name.startswith("__")}
    inner = {"_internal.sentinels"} | {
        path.stem for path in Path(module.__file__ or "").parent.iterdir()
    }
    others = {"TYPE_CHECKING", "annotations", "lazy_exports"}
    assert given - inner - others == {name for name in read if not name.startswith("__")}


@pytest.mark.parametrize("package", LAZY)
def test_a_star_gives_everything(package: str) -> None:
    names = child(f"from {package} import *\nprint(json.dumps([*globals()]))")
    assert set(importlib.import_module(package).__all__) <= set(names)


CHECK_ALL = """
import importlib
names = {}
for package in NAMES:
    module = importlib.import_module(package)
    names[package] = [name for name in NAMES[package] if not hasattr(module, name)]
    names[package] += [name for name in NAMES[package] if name not in dir(module)]
    names[package] += sorted(set(NAMES[package]) - set(module.__all__))
    names[package] += [name for name in ("nothing", "_nothing") if hasattr(module, name)]
print(json.dumps(names))
"""


def test_names_are_found_in_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in HOUSE.rglob("*.py"):
            file.write(path, path.relative_to(HOUSE.parent))
    # The extension cannot be loaded out of a zip.
    names = {package: sorted(promised(package)) for package in LAZY}
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
    shutil.copytree(HOUSE, tmp_path / "headrace", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(tmp_path, quiet=1, legacy=True)
    for path in tmp_path.rglob("*.py"):
        path.unlink()
    names = {package: sorted(promised(package)) for package in LAZY}
    program = f"""
sys.path.insert(0, {str(tmp_path)!r})
NAMES = {names!r}
{CHECK_ALL}
assert importlib.import_module("headrace").__file__.endswith(".pyc")
"""
    assert child(program) == {key: [] for key in LAZY}


def test_names_are_found_without_a_table() -> None:
    names = {package: sorted(promised(package)) for package in LAZY}
    program = f"""
from headrace._internal import lazy_import
NAMES = {names!r}
lazy_import._tables |= dict.fromkeys(NAMES)
{CHECK_ALL}
assert not any(lazy_import._tables.values())
"""
    assert child(program) == {key: [] for key in LAZY}


def test_rooms_are_there_without_being_imported() -> None:
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


def test_a_name_is_looked_up_once() -> None:
    program = """
import headrace
before = "PullMapObj" in vars(headrace)
headrace.PullMapObj
print(json.dumps([before, vars(headrace)["PullMapObj"] is headrace.pull.transform.PullMapObj]))
"""
    assert child(program) == [False, True]


@pytest.mark.parametrize("package", LAZY)
def test_a_name_that_is_not_there_says_so(package: str) -> None:
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
def test_a_subinterpreter_is_refused_and_the_main_one_works(kind: str, steps: str) -> None:
    calls = {"main": "asyncio.run(works())", "sub": f"is_refused({kind!r})"}
    outcomes = ", ".join(calls[step] for step in steps.split())
    assert all(child(f"{SUBINTERPRETERS}\nprint(json.dumps([{outcomes}]))"))


def modules() -> list[str]:
    """Every module of the package."""
    names = (".".join(path.relative_to(HOUSE.parent).parts) for path in HOUSE.rglob("*.py"))
    return sorted(name.removesuffix(".py").removesuffix(".__init__") for name in names)


def test_every_module_can_be_the_first(tmp_path: Path) -> None:
    # Each in a process of its own; a fork is a quick one.
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
def test_a_stream_has_its_methods_whatever_was_imported(base: str) -> None:
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
def test_no_module_has_the_name_of_an_export(package: str) -> None:
    # Importing the module would replace the export.
    names = {name.rpartition(".")[2] for name in modules() if name.rpartition(".")[0] == package}
    assert not names & promised(package).keys()
