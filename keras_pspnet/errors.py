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


def reason_of(error: BaseException) -> str:
    """Return the first line of an error, at most 160 characters; its class if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


PIP_NAMES = {"PIL": "pillow", "google": "protobuf", "yaml": "pyyaml"}
"""What pip calls a package, where it is not its name with hyphens."""


def missing_package(error: ImportError) -> UserError | None:
    """Return what to do about a package that cannot be imported; None if it is one of ours."""
    package = (error.name or "").partition(".")[0]
    if not package or package == "keras_pspnet":
        return None
    reason = (str(error) or "no reason given").splitlines()[0]
    name = PIP_NAMES.get(package, package.replace("_", "-"))
    return UserError(
        f"{package} is missing or half-installed ({reason}); run: pip install --force-reinstall "
        f"{name}"
    )
