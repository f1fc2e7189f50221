"""Errors that end the command with one line on standard error and exit code 2. `main` catches them."""


class CommandError(Exception):
    """The command cannot continue. The message is one line that says why."""


class UsageError(CommandError):
    """The command line is wrong. The message names the option or argument and its value."""
