"""Find the modules that the standard library imports most: parse its files on all processors.

    python examples/imports.py [DIRECTORY]

Parsing is Python code that computes, so threads would share one processor. Each file is read and parsed in a worker process, and a table
of its imports is sent back. The limit, the errors and the progress stay here. `site-packages` is skipped.
"""

import ast
import asyncio
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from headrace import SKIP, CapacitySource, ProcessExecutor, Skip, SourceIterObj

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


async def main(root: Path) -> None:
    total: Counter[str] = Counter()
    parsed = failed = 0

    def unparsed(error: Exception) -> Skip:
        nonlocal failed
        failed += 1
        print(f"not parsed: {type(error).__name__}: {error}")
        return SKIP

    async with ProcessExecutor() as workers:
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
    root = Path(*sys.argv[1:] or [sysconfig.get_path("stdlib")])
    if not root.is_dir():
        sys.exit(f"{root} is no directory; name one that is there")
    asyncio.run(main(root))
