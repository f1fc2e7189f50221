"""What the command answers to bad input."""


class ComplaintError(Exception):
    """Something that the user has to put right: its text is one clear line, and the exit code is 2."""
