"""The score of serving/maxsim.py on tensors: for a server that has torch, on the CPU or on a GPU.

Shapes: B users, Q user heads (of all levels side by side), N items, G item heads, K head size, M items of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Similarities of a block, in numbers. torch shares each product among its threads, so its blocks are larger than
# numpy's: in trials 2^17 to 2^19 were best for 4 x 16, 8 x 32 and 32 x 64 heads on one and two threads. A GPU works on
# many more at once.
BLOCK_ON_CPU, BLOCK_ON_GPU = 2**18, 2**25


@torch.inference_mode()
def maxsim(
    user_BQK: Tensor,
    items_NGK: Tensor,
    scales_N: Tensor | None = None,
    rows_N: Tensor | None = None,
    temperature: float | None = None,
) -> Tensor:
    """Scores (B, N) float32: the sum over a user's heads of the largest dot product with a head of the item.

    Args:
        user_BQK: float32, on the device of the items.
        items_NGK: float32, or float16 or int8 that is widened block by block.
        scales_N: what an item's heads are to be multiplied by, where they are int8; above 0.
        rows_N: score these items alone, in this order; int64.
        temperature: as there, for items of one head.
    """
    num_users, num_user_heads, _ = user_BQK.shape
    if (
        items_NGK.shape[1] == 1 and temperature is None
    ):  # nothing to choose from: the sum of products is the product with the sum
        user_BQK, num_user_heads = user_BQK.sum(1, keepdim=True), 1
    num_items = len(items_NGK) if rows_N is None else len(rows_N)
    block = BLOCK_ON_CPU if items_NGK.device.type == "cpu" else BLOCK_ON_GPU
    size = max(1, min(block // num_user_heads, num_items))
    user_BKQ = user_BQK.transpose(1, 2).contiguous()
    scores_BN = user_BQK.new_empty(num_users, num_items)
    best, similarity = user_BQK.new_empty(2, size, num_user_heads)
    for start in range(0, num_items, size):
        stop = min(start + size, num_items)
        best_MQ, similarity_MQ = best[: stop - start], similarity[: stop - start]
        rows = items_NGK[start:stop] if rows_N is None else items_NGK.index_select(0, rows_N[start:stop])
        first_MK, *others = rows.to(torch.float32).unbind(1)
        for user_KQ, scores_N in zip(user_BKQ, scores_BN, strict=True):
            torch.mm(first_MK, user_KQ, out=best_MQ)
            for head_MK in others:
                torch.mm(head_MK, user_KQ, out=similarity_MQ)
                torch.maximum(best_MQ, similarity_MQ, out=best_MQ)
            if temperature is None:
                torch.sum(best_MQ, dim=1, out=scores_N[start:stop])
                continue
            if scales_N is not None:
                best_MQ *= (scales_N[start:stop] if rows_N is None else scales_N[rows_N[start:stop]])[:, None]
            torch.sum(best_MQ * (best_MQ / temperature).softmax(1), dim=1, out=scores_N[start:stop])
    if scales_N is not None and temperature is None:
        scores_BN *= scales_N if rows_N is None else scales_N[rows_N]
    return scores_BN
