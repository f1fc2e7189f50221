"""A task, its retries, and the lease that it runs under: shared by graphs, the pool and executors."""

from headrace.task._current_lease import current_lease
from headrace.task.retry import Retry
from headrace.task.task import Task

__all__ = ["Retry", "Task", "current_lease"]
