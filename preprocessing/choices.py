"""What the settings of data may be, without pandas: a command line is read before it is imported."""

from preprocessing.errors import UserError

PROTOCOLS = ("strict", "paper", "temporal", "online")
BY_TIME = ("temporal", "online")  # those that split by time
# What a row is told of its user's and its item's labels; each holds the one before it.
STATISTICS = ("means", "residuals", "crossed")
KUAIRAND_LABELS = ("is_click", "long_view")  # columns of its logs

GIB = 2**30
# What a build takes whatever the number of rows: Python and its packages, the tables of users and items, a block of a
# raw file. Measured with a million users and as many items.
LEAST_MEMORY = 1.0  # GiB


def check_memory(memory: float | None, statistics: str = "means", has_cache: bool = True) -> None:
    """Raise UserError for a bound of memory, in GiB, that no build keeps to."""
    if memory is None:
        return
    if not memory >= LEAST_MEMORY:
        raise UserError(f"--memory: expected at least {LEAST_MEMORY:g} (GiB), got {memory:g}.")
    if statistics != "means":
        raise UserError(
            f"--memory: expected --statistics means beside it, got {statistics}, made in memory; leave out one."
        )
    if not has_cache:
        raise UserError("--memory: expected the cache, whose files hold the tables, got --no-cache; leave out one.")
