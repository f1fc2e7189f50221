"""Pull: lazy streams, from many to one."""

from headrace.pull.base import PullObj
from headrace.pull.source import SourceBufferObj, SourceIterObj, SourceObj
from headrace.pull.transform import PullFilterObj, PullMapObj, PullObj1To1Link, PullReduceObj

__all__ = [
    "PullFilterObj",
    "PullMapObj",
    "PullObj",
    "PullObj1To1Link",
    "PullReduceObj",
    "SourceBufferObj",
    "SourceIterObj",
    "SourceObj",
]
