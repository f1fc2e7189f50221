"""`Retry`: decides whether and when a failed task runs again. `Task` and the pools take one as `retry`."""

from __future__ import annotations

import random as random_module
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import ReprMixin, describe_value
from headrace._internal.validate import (
    check_callable_or_none,
    check_flag,
    check_int,
    check_positive,
    check_seconds,
)
from headrace.task.failure import KINDS, PROGRAMMING_ERRORS, Verdict, classify as default_classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from headrace.task._service_codes import Kind

    Classifier = Callable[[Exception], Verdict | Kind]
    Kinds = type[BaseException] | tuple[type[BaseException], ...]


class Retry(ReprMixin):
    """The retry policy of a task: the number of retries, the errors to retry, and the back-off.

    The delay before attempt `n + 1` is `backoff * factor ** (n - 1)`, at most `max_backoff`. With `jitter` each delay is
    a random number between half of this and all of this, which spreads the retries of tasks that failed together. The
    task holds no capacity during the delay, and joins the end of the wait queue after it.

    Only errors that another call may not repeat are retried. Each error gets a `Verdict` from `classify`:

    1. A *permanent* or *fatal* error, such as a 404, a refused key or a `TypeError`, is not retried.
    2. Of the others, `on` selects the errors to retry: all by default.
    3. An `on` other than `Exception` also selects among the programming errors of Python that `headrace.classify` finds permanent.
       `Retry(on=TypeError)` retries a `TypeError`. It does not make a 404 retryable: `classify` can.
    4. The delay of the verdict, which a server requires, replaces the back-off, without jitter and without `max_backoff`.

    A pool calls a task again after a *throttled* answer, such as a 429, whatever its `Retry` says: the answer cools down the
    capacity and costs no attempt. `HierarchicalTaskPoolRunner(cooldown=False)` leaves these errors to the `Retry`, too.

    Args:
        retries: The maximum number of calls after the first one; an integer, 0 or more. 0 never retries.
        on: The errors to retry, of those that may be retried: an exception class, a tuple of them, or a function that takes
            the error and returns whether to retry. A timeout is a `TimeoutError`. A cancelled task is never retried.
        backoff: Seconds before the second attempt, 0 or more.
        factor: The factor by which the delay grows from attempt to attempt, at least 1.
        max_backoff: The maximum delay in seconds, 0 or more.
        jitter: Whether to randomize the delay.
        classify: A function that takes the error and returns a `Verdict`, or only its kind, in place of `headrace.classify`.
            None for that. It is called once for each failed call. An exception that it raises becomes the error of the task.
        random: The random generator for the jitter; None for the module `random`. `Random(7)` makes runs repeatable.

    Raises:
        TypeError: A parameter is of the wrong type.
        ValueError: A number is out of range.
    """

    __slots__ = (
        "_draw",
        "_matches",
        "_random",
        "backoff",
        "classify",
        "factor",
        "jitter",
        "max_backoff",
        "on",
        "retries",
    )

    def __init__(
        self,
        retries: int = 2,
        on: Kinds | Callable[[Exception], bool] = Exception,
        backoff: float = 0.5,
        factor: float = 2.0,
        max_backoff: float = 60.0,
        jitter: bool = True,
        *,
        classify: Classifier | None = None,
        random: Random | None = None,
    ) -> None:
        self.retries: int = check_int("Retry: retries", 0, retries)
        self.on: Kinds | Callable[[Exception], bool] = on
        self._matches = _matcher(on)
        self.backoff: float = check_seconds("Retry: backoff", backoff)
        self.factor: float = check_positive("Retry: factor", factor)
        if factor < 1:
            raise ValueError(f"Retry: factor must be at least 1, got {factor!r}")
        self.max_backoff: float = check_seconds("Retry: max_backoff", max_backoff)
        self.jitter: bool = check_flag("Retry: jitter", jitter)
        check_callable_or_none("Retry: classify", classify)
        self.classify: Classifier | None = classify
        if random is not None and not isinstance(cast("object", random), random_module.Random):
            raise TypeError(f"Retry: random must be a random.Random or None, got {random!r}")
        self._random = random
        self._draw = random_module.uniform if random is None else random.uniform

    def verdict(self, error: BaseException) -> Verdict:
        """Return the verdict of `classify` on an error.

        Raises:
            TypeError: `classify` returned something other than a `Verdict` or its kind.
            ValueError: `classify` returned an unknown kind, or a delay that is negative or not finite.
        """
        if self.classify is None or not isinstance(error, Exception):
            return default_classify(error)
        found = cast("object", self.classify(error))
        if isinstance(found, str):
            return Verdict(_check_kind(found))
        if not isinstance(found, Verdict):
            raise TypeError(
                f"the result of classify must be a Verdict or its kind, not {describe_value(found)}"
            )
        _check_kind(found.kind)
        if found.delay is not None:
            check_seconds("the delay of the result of classify", found.delay)
        return found

    def applies(
        self, error: BaseException, attempt: int, *, verdict: Verdict | None = None
    ) -> bool:
        """Return whether to retry a task whose `attempt`-th call raised `error`.

        Args:
            error: The error.
            attempt: The number of calls.
            verdict: The verdict on the error, if it is known already; otherwise `verdict()` is called.
        """
        if attempt > self.retries or not isinstance(error, Exception):
            return False
        kind = (verdict or self.verdict(error)).kind
        if kind == "fatal" or (kind == "permanent" and not self._overrules(error)):
            return False
        return bool(self._matches(error))

    def _overrules(self, error: Exception) -> bool:
        """Return whether `on` decides about an error in place of a permanent verdict."""
        is_default = self.classify is None
        return is_default and self.on is not Exception and isinstance(error, PROGRAMMING_ERRORS)

    def delay(self, error: BaseException, attempt: int, *, verdict: Verdict | None = None) -> float:
        """Return the seconds to wait after the end of the `attempt`-th call.

        Args:
            error: The error.
            attempt: The number of calls.
            verdict: The verdict on the error, if it is known already; otherwise `verdict()` is called.
        """
        if isinstance(error, Exception):
            required = (verdict or self.verdict(error)).delay
            if required is not None:
                return required
        try:
            delay = min(self.backoff * self.factor ** (attempt - 1), self.max_backoff)
        except OverflowError:
            delay = self.max_backoff
        return self._draw(delay / 2, delay) if self.jitter else delay

    def _parameters(self) -> tuple[object, ...]:
        return (
            self.retries,
            self.on,
            self.backoff,
            self.factor,
            self.max_backoff,
            self.jitter,
            self.classify,
        )

    def __eq__(self, other: object) -> bool:
        """Return whether the parameters are equal and the jitter generators are in the same state."""
        if not isinstance(other, Retry) or type(other) is not type(self):
            return NotImplemented
        mine, others = self._random, other._random
        if self._parameters() != other._parameters():
            return False
        if mine is None or others is None:
            return mine is others
        return mine.getstate() == others.getstate()

    def __hash__(self) -> int:
        # Not of `on` and `classify`: a callable may be unhashable.
        return hash((self.retries, self.backoff, self.factor, self.max_backoff, self.jitter))

    def __getstate__(self) -> tuple[object, ...]:
        """Return the parameters for `copy` and `pickle`, without the values derived from them."""
        return (*self._parameters(), self._random)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Initialize the object from its parameters."""
        *parameters, classify, random = state
        Retry.__init__(self, *parameters, classify=classify, random=random)

    def _repr_parts(self) -> Iterator[str]:
        yield "1 retry" if self.retries == 1 else f"{self.retries} retries"
        yield f"from {self.backoff} s by {self.factor} to {self.max_backoff} s"


def as_retry(parameter: str, value: object) -> Retry | None:
    """Return a `Retry` or None; a number of retries is short for `Retry(number)`.

    Raises:
        TypeError: `value` is not a `Retry`, an integer or None.
        ValueError: The number is negative.
    """
    if value is None or isinstance(value, Retry):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Retry(check_int(parameter, 0, value))
    raise TypeError(
        f"{parameter} must be a Retry, a number of retries or None, not {describe_value(value)}"
    )


def _check_kind(kind: object) -> Kind:
    if kind not in KINDS:
        raise ValueError(
            f"the kind in the result of classify must be one of {', '.join(map(repr, KINDS))}, "
            f"got {describe_value(kind)}"
        )
    return kind


def _matcher(on: object) -> Callable[[Exception], object]:
    """Return a predicate for the errors that `on` selects."""
    kinds = cast("tuple[object, ...]", on) if isinstance(on, tuple) else (on,)
    if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        return lambda error: isinstance(error, cast("Kinds", on))
    if isinstance(on, (type, tuple)) or not callable(on):
        raise TypeError(
            f"Retry: on must be an exception class, a tuple of them or a function of the error, got {on!r}"
        )
    return on
