"""`Case`: one rule of the conformance suite with its check, and `CaseList`, in which a module declares its cases."""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from typing import TYPE_CHECKING, TypeVar

from headrace._internal.copying import Uncopied
from headrace.testing.executors._needs import SLOT_NEEDS
from headrace.testing.executors._setting import Setting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from headrace.pool.executor.executor import Capabilities
    from headrace.testing.executors._setting import MakeExecutor

    Need = Callable[[Capabilities], bool]
    Body = Callable[[Setting], Awaitable[None]]

B = TypeVar("B", bound="Body")


class Case(Uncopied):
    """One rule that executors must keep, and its check. `str(case)` is its name.

    Args:
        body: The check; its name is the name of the case, and its docstring the rule.
        needs: The conditions on the capabilities under which an executor must keep the rule.
    """

    __slots__ = ("_body", "_needs")

    def __init__(self, body: Body, needs: tuple[Need, ...] = ()) -> None:
        self._body = body
        self._needs = needs

    @property
    def name(self) -> str:
        """The name of the case, unique in the suite."""
        return getattr(self._body, "__name__", "case")

    @property
    def rule(self) -> str:
        """The rule."""
        return (inspect.getdoc(self._body) or "").replace("\n", " ")

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Case {self.name}>"

    def missing(self, capabilities: Capabilities) -> list[str]:
        """Return the names of the conditions that an executor does not fulfil. The case applies if there are none."""
        return [
            getattr(need, "__name__", "a condition")
            for need in self._needs
            if not need(capabilities)
        ]

    async def run(
        self,
        make_executor: MakeExecutor,
        *,
        directory: str | Path | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Make an executor, check that it keeps the rule, and close it. It takes real time, on any event loop of asyncio.

        Args:
            make_executor: Returns a new executor. It takes the context variables that travel as `carry=`, and is called
                once or more.
            directory: An existing directory that the workers see, too. None for that of the temporary files of this
                machine. The case makes a directory in it, and removes it.
            timeout: The maximum duration in seconds.

        Raises:
            AssertionError: The executor breaks the rule, or the case has not ended in time. A note names the case.
            ValueError: The case does not apply to this executor; see `missing`.

        *Cancel safety*: a cancelled case closes its executors.
        """
        with tempfile.TemporaryDirectory(
            prefix="headrace-", dir=directory, ignore_cleanup_errors=True
        ) as own:
            setting = Setting(make_executor, own)
            if missing := self.missing(setting.capabilities):
                raise ValueError(f"case {self.name} does not apply: {', '.join(missing)}")
            try:
                await self._check(setting, timeout)
            except AssertionError as error:
                for fault in setting.faults():
                    if fault not in str(error):
                        error.add_note(fault)
                error.add_note(f"case {self.name}: {self.rule}")
                raise

    def _has_slots(self, setting: Setting) -> bool:
        return setting.capabilities.slots != 0 and not self.missing(setting.capabilities)

    async def _check(self, setting: Setting, timeout: float) -> None:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await setting.executor.start()
                if not set(SLOT_NEEDS).isdisjoint(self._needs):
                    await setting.until(
                        lambda: self._has_slots(setting), "as many slots as it needs"
                    )
                await self._body(setting)
        except TimeoutError:
            if not limit.expired():
                raise
            raise AssertionError(
                f"not ended after {timeout:g} s; it waited for {setting.waits_for}"
            ) from None
        finally:
            await setting.aclose()
        if faults := setting.faults():
            raise AssertionError("; ".join(faults))


class CaseList(list[Case]):
    """The cases of a module, in their order."""

    def case(self, *needs: Need) -> Callable[[B], B]:
        """Return a decorator that declares a function as a case.

        Args:
            *needs: The conditions under which an executor must keep the rule.
        """

        def declare(body: B) -> B:
            self.append(Case(body, needs))
            return body

        return declare
