"""A program that runs tasks on Ray, which `test_ray_driver.py` kills.

python ray_driver.py beat DIRECTORY
python ray_driver.py journal DIRECTORY COUNT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from headrace import Journal, RayExecutor, amap
from tests.ray_support import beat, note_slowly


async def beat_for_long(directory: Path) -> None:
    """Run a task that beats for a minute, on a Ray of this program."""
    async with RayExecutor(workers=1, fence=30.0) as executor:
        await amap(_beat, [directory / "beat"], limit=1, executor=executor).collect()


def _beat(path: Path) -> None:
    beat(path, 60.0)


async def note_all(directory: Path, count: int) -> None:
    """Run tasks with a journal, and write down their values."""
    numbers = range(count)
    with Journal(directory / "journal") as journal:
        async with (
            RayExecutor(workers=2, fence=30.0) as executor,
            amap(
                _Noting(directory), numbers, limit=4, executor=executor, journal=journal, key=str
            ) as values,
        ):
            async for value in values:
                with (directory / "values").open("a") as file:
                    file.write(f"{value}\n")


class _Noting:
    """A function of the main module with state, which is sent by value."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def __call__(self, number: int) -> int:
        return await note_slowly(self._directory, number, 0.02)


def main(mode: str, directory: str, count: str = "0") -> None:
    """Run a mode."""
    if mode == "beat":
        asyncio.run(beat_for_long(Path(directory)))
    else:
        asyncio.run(note_all(Path(directory), int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
