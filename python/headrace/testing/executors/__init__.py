"""A conformance suite for executors: more than 80 cases that every `headrace.pool.Executor` must pass.

Run it against an executor of yours with any test runner:

    import asyncio
    import pytest
    from headrace.testing.executors import cases_for

    def make(*, carry=()):
        return MyExecutor(workers=2, carry=carry)

    @pytest.mark.parametrize("case", cases_for(make), ids=str)
    def test_conforms(case):
        asyncio.run(case.run(make))

- `cases_for(make)`: the cases that apply to an executor. Executors differ only by their `capabilities`; `CASES` has all cases.
- `case.run(make)`: makes an executor, checks one rule, and closes it. A broken rule raises an `AssertionError`, whose note names the rule.
- `carry`: the context variables that must travel to the workers of a remote executor; others ignore it.

The tasks are functions of this package, so that they pickle by reference: a worker must be able to import `headrace`. They wait for
files in a directory for temporary files, and mark their progress there. If the workers are on other machines, pass a shared
`directory=` to `run`.

Give an executor two workers or more, and short times: a case may wait until work is ended by force.
"""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace.testing.executors._cases import CASES as CASES, cases_for as cases_for
    from headrace.testing.executors._setting import MakeExecutor as MakeExecutor
    from headrace.testing.executors.case import Case as Case
else:
    __getattr__, __dir__ = lazy_exports(__name__)
