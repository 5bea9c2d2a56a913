"""The errors that the command line tells in one line."""


class UserError(ValueError):
    """A wrong name, value, file or folder: the message says what came, what was expected, and what
    to do next. The command line shows it as one line and exits with 2.
    """


class NonFiniteError(RuntimeError):
    """A loss, a weight or a policy's output became NaN or infinite while it learnt. The command
    line shows it as one line and exits with 1.
    """
