"""The one exception that stands for a mistake of the user's, not of the code's."""


class UserError(ValueError):
    """Bad input: its text is one line that says where, what was expected, what came and what to do.

    The training scripts print that line and leave with exit code 2, without a traceback.
    """
