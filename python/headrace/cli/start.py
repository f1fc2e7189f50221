"""The entry point of the command: handles signals before it imports anything that takes time."""

from __future__ import annotations

import sys

from headrace.cli import signals


def start() -> int:
    """Run the command and return its exit code."""
    code = 2
    try:
        signals.install()
        from headrace.cli.main import main

        code = main()
    except signals.Interrupted as interrupted:
        code = interrupted.code
        signals.end(code)
        # `say` may not be imported yet.
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]
            print("headrace map: interrupted", file=sys.stderr, flush=True)
    finally:
        signals.end(code)
    return code
