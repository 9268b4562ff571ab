"""Errors that a person can act on.

Every failure TinyGen foresees is a :class:`TinyGenError`: one sentence that says what is wrong and
where, a hint that says what to try, and the exit code of the command line.
"""

from __future__ import annotations


class TinyGenError(Exception):
    """Something failed for a reason we can name.  Exit code 1.

    ``message`` starts with what it concerns (a file, a board, a tool); ``hint`` says what to try
    and may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(TinyGenError):
    """Bad usage, or an input that cannot be used.  Exit code 2."""

    exit_code = 2


class FitError(TinyGenError):
    """The model does not fit the board.  Exit code 3."""

    exit_code = 3


class MismatchError(TinyGenError):
    """Outputs differ from the reference.  Exit code 4."""

    exit_code = 4
