"""The errors that the command line shows as one line, and how they show a value."""

MAX_SHOWN = 80  # characters of a value in a message


class UserError(ValueError):
    """A wrong name, value, file or folder, for which the command line exits with 2.

    The message says what came, what was expected, and what to do next.
    """


class NonFiniteError(RuntimeError):
    """NaN or infinity in a loss, a weight or an output, for which the command line exits with 1."""


def shown(value: object) -> str:
    """Return the `repr` of a value, cut to a length that a message can hold."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
