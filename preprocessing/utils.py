"""The FE-Block's score, under the seed's name and signature. The models call these very functions.

Shapes: B pairs, H user heads, G item heads, K head size, L levels.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def maxsim(user_BHK: Tensor, item_BGK: Tensor) -> Tensor:
    """Score each user-item pair by its best-matching heads; returns (B,).

    Each user head takes its most similar item head (dot product, nothing normalised); the score sums over the
    user heads. One user or one item row, (1, ., K), is compared with every row of the other side.
    """
    if torch.is_grad_enabled() and (user_BHK.requires_grad or item_BGK.requires_grad):
        num_pairs = max(len(user_BHK), len(item_BGK))
        return _MaxSim.apply(user_BHK.expand(num_pairs, -1, -1), item_BGK.expand(num_pairs, -1, -1))
    if len(user_BHK) == 1:
        # One user, many items: a single matrix product instead of a batch of small ones.
        similarity_BGH = (item_BGK.flatten(0, 1) @ user_BHK[0].T).view(*item_BGK.shape[:2], -1)
        return similarity_BGH.amax(1).sum(1)
    return (user_BHK @ item_BGK.transpose(1, 2)).amax(2).sum(1)


class _MaxSim(torch.autograd.Function):
    """maxsim with a backward pass that follows the winning heads only.

    Autograd would spend a dense product on the user side, whose gradient is one row of the item heads per user
    head: reading that row is several times cheaper.
    """

    @staticmethod
    def forward(ctx, user_BHK: Tensor, item_BGK: Tensor) -> Tensor:
        best_BH, winner_BH = (user_BHK @ item_BGK.transpose(1, 2)).max(2)
        ctx.save_for_backward(user_BHK, item_BGK, winner_BH)
        return best_BH.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_B: Tensor) -> tuple[Tensor | None, Tensor | None]:
        user_BHK, item_BGK, winner_BH = ctx.saved_tensors
        num_pairs, num_item_heads, head_dim = item_BGK.shape
        grad_user = grad_item = None
        if ctx.needs_input_grad[0]:
            scaled_items = (item_BGK * grad_B[:, None, None]).reshape(-1, head_dim)
            first_row_B1 = torch.arange(num_pairs, device=grad_B.device)[:, None] * num_item_heads
            grad_user = scaled_items.index_select(0, (winner_BH + first_row_B1).reshape(-1)).view(user_BHK.shape)
        if ctx.needs_input_grad[1]:
            weight_BHG = grad_B.new_zeros(*winner_BH.shape, num_item_heads)
            weight_BHG.scatter_(2, winner_BH[:, :, None], grad_B[:, None, None].expand(-1, winner_BH.shape[1], 1))
            grad_item = weight_BHG.transpose(1, 2) @ user_BHK
        return grad_user, grad_item


def fe_score(
    user_rep: list[Tensor],
    item_rep: list[Tensor],
    user_fea_col: int,
    item_fea_col: int,
    user_embedding_dim: list[int],
    item_embedding_dim: list[int],
) -> Tensor:
    """Score pairs level by level against the last item representation; returns (B,) (IntTower, FE-Block).

    Args:
        user_rep: L tensors (B, H * K), one per level.
        item_rep: a list whose last entry is (B, G * K).
        user_fea_col, item_fea_col: the numbers of heads H and G.
        user_embedding_dim, item_embedding_dim: the head size K of each level.

    To score one level only, as the README's "Accelerate" section does, replace this body: the model calls it.
    """
    score = 0.0
    for level in range(len(user_embedding_dim)):
        user_BHK = user_rep[level].reshape(-1, user_fea_col, user_embedding_dim[level])
        item_BGK = item_rep[-1].reshape(-1, item_fea_col, item_embedding_dim[level])
        score = score + maxsim(user_BHK, item_BGK)
    return score
