"""The error raised for everything that a user can put right."""

from __future__ import annotations


class UserError(ValueError):
    """Report a user's mistake in one line: what, which file or argument, what was expected.

    The command line prints the message and exits with code 2. Where the message names the first
    of several errors, `errors` holds all of them.
    """

    errors: tuple[UserError, ...] = ()


def raise_first(errors) -> None:
    """Raise the first of several errors about pairs of picture and mask; return if there are none.

    The message counts the others; `errors` of the raised UserError holds all of them.
    """
    if errors:
        more = len(errors) - 1
        pairs = f" (and {more} more bad pair{'s' if more > 1 else ''})" if more else ""
        error = UserError(f"{errors[0]}{pairs}")
        error.errors = tuple(errors)
        raise error from errors[0]
