"""Sums over what came earlier in time."""

import numpy as np


class Earlier:
    """For each row, sums over the rows of its code at strictly earlier times. Rows of one time do not see each other.

    Args:
        codes: (N,) whole numbers of at least 0.
        times: (N,).
        delay: how much earlier a row has to be, in the unit of the times; 0: at all.
    """

    def __init__(self, codes: np.ndarray, times: np.ndarray, delay: float = 0.0):
        distinct, rank = np.unique(times, return_inverse=True)
        # The first time that a row does not know yet.
        limit = np.minimum(np.arange(len(distinct)), np.searchsorted(distinct, distinct - delay, side="right"))
        base = len(distinct) + 1
        keys = codes.astype(np.int64) * base + rank
        self.order = np.argsort(keys, kind="stable")
        keys = keys[self.order]
        of_code, ranks = keys // base, keys % base
        self.start = np.searchsorted(keys, of_code * base)
        self.end = np.searchsorted(keys, of_code * base + limit[ranks])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(N,) float64, of values, (N,). Exact where they are whole or multiples of a power of two."""
        running = np.concatenate([[0.0], np.cumsum(values[self.order], dtype=np.float64)])
        sums = np.empty(len(values))
        sums[self.order] = running[self.end] - running[self.start]
        return sums

    def counts(self) -> np.ndarray:
        """(N,) float64, how many rows there are."""
        counts = np.empty(len(self.order))
        counts[self.order] = self.end - self.start
        return counts
