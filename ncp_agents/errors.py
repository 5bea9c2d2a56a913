"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """A wrong name, value, file or folder: the message says what came, what was expected, and what
    to do next. The command line shows it as one line and exits with 2."""
