"""The FE-Block's score of one user against many items, whose heads lie side by side. numpy alone.

A request is a few products of matrices and a running maximum over the item's heads: no array of all similarities is
ever made. An item is one row of all its heads, so a candidate is fetched in one piece, and the whole catalogue is read
in order.

Shapes: B users, Q user heads (of all levels side by side), N items, G item heads, K head size, M items of a block.
"""

from __future__ import annotations

import numpy as np

# Similarities of a block, in numbers: two such arrays and the block's heads stay in the processor's second cache.
# In trials the best, or nearly so, of 2^13 to 2^19 for 4 x 16, 8 x 32 and 32 x 64 heads.
BLOCK = 2**15

_SIGN_AND_MAGNITUDE, _BIAS = np.int32(0x8FFFE000 - 2**32), np.float32(2.0**112)


def maxsim(
    user_BQK: np.ndarray,
    items_NGK: np.ndarray,
    scales_N: np.ndarray | None = None,
    rows_N: np.ndarray | None = None,
    out: np.ndarray | None = None,
    temperature: float | None = None,
) -> np.ndarray:
    """Scores (B, N) float32: the sum over a user's heads of the largest dot product with a head of the item.

    Args:
        user_BQK: float32.
        items_NGK: float32, or float16 or int8 that is widened block by block.
        scales_N: what an item's heads are to be multiplied by, where they are int8; above 0.
        rows_N: score these items alone, in this order.
        out: (B, N) float32, where the scores go and what is returned; a new array without it.
        temperature: of items of one head: in place of their sum, the user heads' products, each weighed by their
            softmax at this temperature (model/poly_encoder.py).
    """
    num_users, num_user_heads, head_dim = user_BQK.shape
    num_items, num_heads, _ = items_NGK.shape
    if (
        num_heads == 1 and temperature is None
    ):  # nothing to choose from: the sum of products is the product with the sum
        user_BQK, num_user_heads = user_BQK.sum(1, keepdims=True), 1
    items_NE = items_NGK.reshape(num_items, num_heads * head_dim)
    num_scores = num_items if rows_N is None else len(rows_N)
    size = max(1, min(BLOCK // num_user_heads, num_scores))
    scores_BN = np.empty((num_users, num_scores), np.float32) if out is None else out
    best, similarity = np.empty((2, size, num_user_heads), np.float32)
    block = np.empty((size, num_heads * head_dim), np.float32)
    user_BKQ = np.ascontiguousarray(user_BQK.transpose(0, 2, 1))
    ones_Q = np.ones(num_user_heads, np.float32)  # BLAS sums the rows of a matrix faster than numpy
    for start in range(0, num_scores, size):
        stop = min(start + size, num_scores)
        best_MQ, similarity_MQ, block_ME = best[: stop - start], similarity[: stop - start], block[: stop - start]
        # Copied into the cache even where they are float32 and in order: each head then reads every item's row.
        _fetch(items_NE, slice(start, stop) if rows_N is None else rows_N[start:stop], block_ME)
        first_MK, *others = block_ME.reshape(-1, num_heads, head_dim).swapaxes(0, 1)
        for user_KQ, scores_N in zip(user_BKQ, scores_BN, strict=True):
            np.matmul(first_MK, user_KQ, out=best_MQ)
            for head_MK in others:
                np.matmul(head_MK, user_KQ, out=similarity_MQ)
                np.maximum(best_MQ, similarity_MQ, out=best_MQ)
            if temperature is None:
                np.matmul(best_MQ, ones_Q, out=scores_N[start:stop])
                continue
            if scales_N is not None:
                best_MQ *= (scales_N[start:stop] if rows_N is None else scales_N[rows_N[start:stop]])[:, None]
            attended(best_MQ, temperature, out=scores_N[start:stop])
    if scales_N is not None and temperature is None:
        scores_BN *= scales_N if rows_N is None else scales_N[rows_N]
    return scores_BN


def attended(products_MQ: np.ndarray, temperature: float, out: np.ndarray) -> None:
    """Into `out`, (M,): the mean of products, each weighed by the exponential of itself over the temperature."""
    weights_MQ = products_MQ - products_MQ.max(1, keepdims=True)
    weights_MQ /= np.float32(temperature)
    np.exp(weights_MQ, out=weights_MQ)
    np.einsum("mq,mq->m", products_MQ, weights_MQ, out=out)
    out /= weights_MQ.sum(1)


def _fetch(items_NE: np.ndarray, rows: slice | np.ndarray, block_ME: np.ndarray) -> None:
    """Copy some items into a block of float32."""
    if isinstance(rows, slice):
        _widen(items_NE[rows], block_ME)
    elif items_NE.dtype == np.float32:
        items_NE.take(rows, axis=0, out=block_ME, mode="clip")  # any other mode copies once more
    else:
        _widen(items_NE.take(rows, axis=0), block_ME)


def _widen(stored: np.ndarray, block: np.ndarray) -> None:
    """Copy float32, float16 or int8 into a block of float32."""
    if stored.dtype != np.float16:
        block[...] = stored
        return
    # numpy converts half floats one by one; as whole numbers it takes many at once. The sign is spread over the
    # bits above it and cut back to one; the exponent is moved in place, and its other bias made up for by a factor.
    bits = block.view(np.int32)
    bits[...] = stored.view(np.int16)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _SIGN_AND_MAGNITUDE, out=bits)
    block *= _BIAS
