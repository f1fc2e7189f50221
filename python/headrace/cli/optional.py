"""Packages of the extras, which are imported where an input or output needs them."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from headrace.cli.errors import CommandError


def import_arrow(purpose: str, module: str = "pyarrow") -> Any:
    """Import a module of `pyarrow`, which reads and writes Parquet and Arrow.

    Raises:
        CommandError: it is not installed. The message begins with `purpose`, such as `read a.parquet`.
    """
    return _import(module, "pyarrow", "parquet", purpose)


def import_zstd(purpose: str) -> Any:
    """Import the module for Zstandard: that of CPython from 3.14 on, before that its backport.

    Raises:
        CommandError: it is not installed. The message begins with `purpose`.
    """
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return _import(module, "backports.zstd", "cli", purpose)


def _import(module: str, package: str, extra: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CommandError(
            f"cannot {purpose}: the package {package} is not installed; pip install 'headrace[{extra}]'"
        ) from error
