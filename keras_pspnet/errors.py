"""The error for everything a user can put right."""

from __future__ import annotations


def raise_first(errors) -> None:
    """Raises the first error of several, with all as its `errors`, and says how many there are."""
    if errors:
        more = len(errors) - 1
        pairs = f" (and {more} more bad pair{'s' if more > 1 else ''})" if more else ""
        error = UserError(f"{errors[0]}{pairs}")
        error.errors = tuple(errors)
        raise error from errors[0]


class UserError(ValueError):
    """Something given is wrong. The message is one line: what, which, expected, what to do.

    Where it names the first of several, `errors` holds all.
    """

    errors: tuple[UserError, ...] = ()
