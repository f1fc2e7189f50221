"""Find the modules that the standard library imports most: parse its files on all processors.

    python examples/imports.py [DIRECTORY]                 in worker processes of this machine
    python examples/imports.py [DIRECTORY] --ray auto      on all nodes of a Ray cluster, which have the same files
    python examples/imports.py [DIRECTORY] --ray local     on a Ray that is started here

Parsing is Python code that computes, so threads would share one processor. Each file is read and parsed in a worker process, and a table
of its imports is sent back. The limit, the errors and the progress stay here. `site-packages` is skipped.
"""

import argparse
import ast
import asyncio
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from headrace import SKIP, CapacitySource, ProcessExecutor, RayExecutor, Skip, SourceIterObj

warnings.simplefilter("ignore")  # each worker imports this: old files have invalid escapes


def files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*.py"):
        if "site-packages" not in path.relative_to(root).parts and path.is_file():
            yield path


def imports(path: Path) -> Counter[str]:
    """Count the imports of a file by their top module; a worker runs this."""
    counts: Counter[str] = Counter()
    for node in ast.walk(ast.parse(path.read_bytes(), path.name)):
        if isinstance(node, ast.Import):
            counts.update(name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            counts[node.module.partition(".")[0]] += 1
    return counts


def make_executor(ray: str | None) -> ProcessExecutor | RayExecutor:
    if ray is None:
        return ProcessExecutor()
    return RayExecutor(None if ray == "local" else ray)


async def main(root: Path, ray: str | None) -> None:
    total: Counter[str] = Counter()
    parsed = failed = 0

    def unparsed(error: Exception) -> Skip:
        nonlocal failed
        failed += 1
        print(f"not parsed: {type(error).__name__}: {error}")
        return SKIP

    async with make_executor(ray) as workers:
        parsing = CapacitySource(64, name="parsing")
        counted = SourceIterObj(files(root)).map_pool(imports, parsing, executor=workers)
        begun = time.perf_counter()
        async with counted.catch(unparsed) as counts:
            async for count in counts:
                total.update(count)
                parsed += 1
                if parsed % 250 == 0:
                    rate = parsed / (time.perf_counter() - begun)
                    print(f"{parsed} files, {rate:.0f} a second, {workers}", flush=True)
    print(f"\n{parsed} files were parsed, {failed} were not")
    for module, times in total.most_common(10):
        print(f"{times:>6}  {module}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count the imports of Python files.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster; local starts one")
    options = parser.parse_args()
    if not options.root.is_dir():
        sys.exit(f"{options.root} is no directory; name one that is there")
    asyncio.run(main(options.root, options.ray))
