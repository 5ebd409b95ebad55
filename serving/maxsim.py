"""The FE-Block's score of one user against many items, on item heads that lie head by head. numpy alone.

A request is a few products of matrices and a running maximum over the item's heads: no array of all similarities is
ever made. The rows of a head lie together, so the whole catalogue is read in order, and the heads of a few candidates
are fetched in pieces of one head each.

Shapes: B users, Q user heads (of all levels side by side), N items, G item heads, K head size, M items of a block.
"""

from __future__ import annotations

import numpy as np

# Similarities of a block, in numbers: two such arrays and the block's heads stay in the processor's second cache.
# In trials the best, or nearly so, of 2^13 to 2^19 for 4 x 16, 8 x 32 and 32 x 64 heads.
BLOCK = 2**15

_SIGN_AND_MAGNITUDE, _BIAS = np.int32(0x8FFFE000 - 2**32), np.float32(2.0**112)


def maxsim(
    user_BQK: np.ndarray, heads_GNK: np.ndarray, scales_N: np.ndarray | None = None, rows_N: np.ndarray | None = None
) -> np.ndarray:
    """Scores (B, N) float32: the sum over a user's heads of the largest dot product with a head of the item.

    Args:
        user_BQK: float32.
        heads_GNK: float32, or float16 or int8 that is widened block by block.
        scales_N: what an item's heads are to be multiplied by, where they are int8; above 0.
        rows_N: score these items alone, in this order.
    """
    num_users, num_user_heads, head_dim = user_BQK.shape
    num_heads, num_items, _ = heads_GNK.shape
    if num_heads == 1:  # nothing to choose from: the sum of products is the product with the sum
        user_BQK, num_user_heads = user_BQK.sum(1, keepdims=True), 1
    num_items = num_items if rows_N is None else len(rows_N)
    size = max(1, min(BLOCK // num_user_heads, num_items))
    scores_BN = np.empty((num_users, num_items), np.float32)
    best, similarity = np.empty((2, size, num_user_heads), np.float32)
    block = np.empty((num_heads, size, head_dim), np.float32)
    user_BKQ = np.ascontiguousarray(user_BQK.transpose(0, 2, 1))
    ones_Q = np.ones(num_user_heads, np.float32)  # BLAS sums the rows of a matrix faster than numpy
    for start in range(0, num_items, size):
        stop = min(start + size, num_items)
        best_MQ, similarity_MQ = best[: stop - start], similarity[: stop - start]
        rows = slice(start, stop) if rows_N is None else rows_N[start:stop]
        block_GMK = _widened(heads_GNK, rows, block[:, : stop - start])
        for user_KQ, scores_N in zip(user_BKQ, scores_BN, strict=True):
            np.matmul(block_GMK[0], user_KQ, out=best_MQ)
            for head_MK in block_GMK[1:]:
                np.matmul(head_MK, user_KQ, out=similarity_MQ)
                np.maximum(best_MQ, similarity_MQ, out=best_MQ)
            np.matmul(best_MQ, ones_Q, out=scores_N[start:stop])
    if scales_N is not None:
        scores_BN *= scales_N if rows_N is None else scales_N[rows_N]
    return scores_BN


def _widened(heads_GNK: np.ndarray, rows: slice | np.ndarray, block_GMK: np.ndarray) -> np.ndarray:
    """The heads of some items in float32: where they lie, if they do, else copied into the block."""
    if isinstance(rows, slice):
        if heads_GNK.dtype == np.float32:
            return heads_GNK[:, rows]
        for head_NK, block_MK in zip(heads_GNK, block_GMK, strict=True):
            _widen(head_NK[rows], block_MK)
        return block_GMK
    for head_NK, block_MK in zip(heads_GNK, block_GMK, strict=True):
        if heads_GNK.dtype == np.float32:
            head_NK.take(rows, axis=0, out=block_MK, mode="clip")  # any other mode copies once more
        else:
            _widen(head_NK.take(rows, axis=0), block_MK)
    return block_GMK


def _widen(stored: np.ndarray, block: np.ndarray) -> None:
    """Copy float16 or int8 into a block of float32."""
    if stored.dtype == np.int8:
        block[...] = stored
        return
    # numpy converts half floats one by one; as whole numbers it takes many at once. The sign is spread over the
    # bits above it and cut back to one; the exponent is moved in place, and its other bias made up for by a factor.
    bits = block.view(np.int32)
    bits[...] = stored.view(np.int16)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _SIGN_AND_MAGNITUDE, out=bits)
    block *= _BIAS
