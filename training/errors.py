"""How training ends before its time."""

from preprocessing.errors import Stopped


class NonFiniteLoss(Stopped, ArithmeticError):
    """The loss became NaN or infinite; the text names the epoch and the batch."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a termination signal; a checkpoint has been written where there is a run directory."""
