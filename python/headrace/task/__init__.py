"""Tasks, retries and the lease of the current task: shared by graphs, the pool and executors."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace.task._current_lease import current_lease as current_lease
    from headrace.task.failure import Verdict as Verdict, classify as classify
    from headrace.task.retry import Retry as Retry
    from headrace.task.task import Task as Task
else:
    __getattr__, __dir__ = lazy_exports(__name__)
