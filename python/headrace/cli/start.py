"""The entry point of the command. It handles signals before it imports slow modules. The script `headrace` and `__main__` call `start`."""

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
        signals.set_exit_code(code)
        # `eprint` may not be imported yet.
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]
            print("headrace map: interrupted", file=sys.stderr, flush=True)
    finally:
        signals.set_exit_code(code)
    return code
