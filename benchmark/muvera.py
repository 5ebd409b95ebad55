"""MUVERA (arXiv 2405.19504): a sum over heads of best dot products, by one dot product of long encodings.

A repetition cuts the space by random hyperplanes into buckets. A user's encoding is the sum of their heads in each
bucket, an item's the mean of its heads there; an empty bucket takes the item's head that lies on the other side of the
fewest hyperplanes. The repetitions stand side by side.

Shapes: B users, Q user heads, N items, G item heads, K head size, P hyperplanes, C = 2^P buckets.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

ITEMS_AT_ONCE = 2**12


class Muvera:
    """Encodings of heads of a size.

    Args:
        head_dim: K.
        generator: of the hyperplanes.
        num_planes: P.
        num_repetitions: each with hyperplanes of its own.
    """

    def __init__(self, head_dim: int, generator: np.random.Generator, num_planes: int = 3, num_repetitions: int = 40):
        self.planes = generator.standard_normal((num_repetitions, head_dim, num_planes), dtype=np.float32)
        self.bits_CP = np.arange(2**num_planes)[:, None] >> np.arange(num_planes) & 1
        self.size = num_repetitions * 2**num_planes * head_dim

    def user(self, users_BQK: np.ndarray, planes_KP: np.ndarray) -> np.ndarray:
        """A repetition's encodings (B, C, K)."""
        is_in_BQC = self._distance(users_BQK, planes_KP) == 0
        return is_in_BQC.swapaxes(1, 2).astype(np.float32) @ users_BQK

    def item(self, items_NGK: np.ndarray, planes_KP: np.ndarray) -> np.ndarray:
        """A repetition's encodings (N, C, K)."""
        distance_NGC = self._distance(items_NGK, planes_KP)
        is_in_NGC = distance_NGC == 0
        is_nearest_NGC = np.arange(items_NGK.shape[1])[:, None] == distance_NGC.argmin(1)[:, None]
        count_N1C = is_in_NGC.sum(1, keepdims=True)
        weight_NGC = np.where(count_N1C > 0, is_in_NGC / np.maximum(count_N1C, 1), is_nearest_NGC)
        return weight_NGC.swapaxes(1, 2).astype(np.float32) @ items_NGK

    def scores(self, users_BQK: np.ndarray, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Dot products (B, N) of encodings of users and items, whose parts are (M, G, K)."""
        blocks = (part[start : start + ITEMS_AT_ONCE] for part in parts for start in range(0, len(part), ITEMS_AT_ONCE))
        users = [self.user(users_BQK, planes_KP).reshape(len(users_BQK), -1) for planes_KP in self.planes]
        return np.concatenate([self._of_block(users, np.asarray(block, np.float32)) for block in blocks], axis=1)

    def _of_block(self, users: list[np.ndarray], items_NGK: np.ndarray) -> np.ndarray:
        pairs = zip(users, self.planes, strict=True)
        return sum(of_users @ self.item(items_NGK, planes).reshape(len(items_NGK), -1).T for of_users, planes in pairs)

    def _distance(self, heads_NGK: np.ndarray, planes_KP: np.ndarray) -> np.ndarray:
        """On how many hyperplanes' other side than each bucket a head lies, (N, G, C)."""
        sides_NGP = heads_NGK @ planes_KP > 0
        return (sides_NGP[:, :, None] != self.bits_CP).sum(-1)
