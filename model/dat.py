"""DAT: a two-tower model whose towers see what the other side made of past matches (Yu et al., DLP-KDD 2021).

Shapes: B batch, W layer width, C categories in the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.dssm import DSSM
from model.layers import embedding_table, is_read_at_once
from preprocessing.errors import UserError
from preprocessing.inputs import SparseFeat, as_columns
from training.distributed import batch_rows, gather_rows, num_processes

# The item's category under the names that the datasets here give it.
CATEGORY_NAMES = ("cate_id", "category", "categories")


def mimic_loss(augmented_BW: Tensor, output_BW: Tensor, labels_B: Tensor) -> Tensor:
    """Adaptive mimic mechanism: mean |y a + (1 - y) p - p|^2, with p detached (DAT, section 2.3).

    For a match the augmented vector a of one side is drawn to the output p of the other tower; other pairs add
    nothing. Only a learns from it. Of several processes each has its share of the batch's mean.
    """
    target_BW = output_BW.detach()
    labels_B1 = labels_B[:, None]
    mimicked_BW = labels_B1 * augmented_BW + (1 - labels_B1) * target_BW
    squares_B = (mimicked_BW - target_BW).float().square().sum(1)
    return squares_B.sum() / batch_rows(len(squares_B))


def category_alignment_loss(item_BW: Tensor, category_B: Tensor, num_categories: int) -> Tensor:
    """Mean over the other categories of |cov(major) - cov(category)|^2, Frobenius norm (DAT, section 2.4).

    The major category is the batch's most frequent one. A category of a single row has no covariance and is left
    out; without two categories that have one the loss is 0. (The paper sums. A batch may hold hundreds of
    categories, and the loss's weight should not depend on their number.) Of several processes each has an equal share
    of the whole batch's.

    Args:
        num_categories: what the categories' ids are below.
    """
    rows_BW, code_B = gather_rows(item_BW.float())[0], gather_rows(category_B)[0]
    # Categories that are not in the batch and rows alone in theirs count for nothing; they are left out beforehand
    # where it takes no wait to know them.
    if is_read_at_once(rows_BW):
        _, code_B, count_C = code_B.unique(return_inverse=True, return_counts=True)
        keep_B = count_C[code_B] > 1
        code_B, rows_BW = code_B[keep_B], rows_BW[keep_B]
    else:
        count_C = torch.zeros(num_categories, dtype=code_B.dtype, device=code_B.device)
        count_C = count_C.index_add(0, code_B, torch.ones_like(code_B))
    # <cov(i), cov(j)> is the sum over the rows a of i and b of j of (x_a x_b)^2 / ((n_i - 1)(n_j - 1)), so one
    # product of the batch with itself stands for all covariances and their distances.
    sum_CW = torch.zeros(len(count_C), rows_BW.shape[1], dtype=rows_BW.dtype, device=rows_BW.device)
    mean_CW = sum_CW.index_add(0, code_B, rows_BW) / count_C[:, None].clamp(min=1)
    freedom_B1 = (count_C[code_B, None] - 1).clamp(min=1).to(rows_BW.dtype)  # a row alone is its mean, and centred 0
    centred_BW = (rows_BW - mean_CW[code_B]) / freedom_B1.sqrt()
    with torch.autocast(rows_BW.device.type, enabled=False):
        inner_BB = (centred_BW @ centred_BW.T).square()
    is_major_B = code_B == count_C.argmax()
    within = _sum(inner_BB, code_B[:, None] == code_B[None, :])
    major = _sum(inner_BB, is_major_B[:, None] & is_major_B[None, :])
    with_major = _sum(inner_BB, is_major_B[:, None].expand_as(inner_BB))
    num_others = (count_C > 1).sum() - 1
    has_others, num_others = num_others >= 1, num_others.clamp(min=1)
    loss = (within - major) / num_others + major - 2 * (with_major - major) / num_others
    return loss * has_others / num_processes()


def _sum(values_BB: Tensor, chosen_BB: Tensor) -> Tensor:
    return values_BB[chosen_BB].sum() if is_read_at_once(values_BB) else (values_BB * chosen_BB).sum()


class DAT(DSSM):
    """DSSM with a learned augmented vector for each user id and item id, fed to its own tower.

    Called with labels it also gives the mimic losses, which draw a user's augmented vector to the item tower's
    output in matching pairs and the reverse, and the category alignment loss where items have a category.

    Args:
        user_feature_columns, item_feature_columns: the columns of each tower; the first SparseFeat of each is
            taken as the id that owns an augmented vector.
        user_mimic_weight, item_mimic_weight: shares of the mimic losses of users' and items' vectors.
        alignment_weight: share of the category alignment loss.
        category: the item's SparseFeat with its category; None takes cate_id, category or categories where there
            is one, and leaves the loss out where there is none (a multi-hot list is no category).
        options: those of DSSM.
    """

    auxiliary = True

    def __init__(
        self,
        user_feature_columns: list,
        item_feature_columns: list,
        dnn_hidden_units: tuple[int, ...] = (300, 300, 128),
        user_mimic_weight: float = 1.0,
        item_mimic_weight: float = 1.0,
        alignment_weight: float = 0.1,
        category: str | None = None,
        init_std: float = 0.01,
        **options,
    ):
        super().__init__(
            user_feature_columns,
            item_feature_columns,
            dnn_hidden_units=dnn_hidden_units,
            init_std=init_std,
            **options,
        )
        weights = {"user_mimic": user_mimic_weight, "item_mimic": item_mimic_weight, "alignment": alignment_weight}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise UserError(f"{name}_weight: expected a number of at least 0, got {weight}.")
        self.weights = weights
        width = dnn_hidden_units[-1]
        user_id, item_id = _id_column("user", user_feature_columns), _id_column("item", item_feature_columns)
        self.user_id, self.item_id = user_id.name, item_id.name
        self.user_augmented = embedding_table(user_id.vocabulary_size, width, init_std)
        self.item_augmented = embedding_table(item_id.vocabulary_size, width, init_std)
        self.category = _category(category, item_feature_columns)
        sizes = {c.name: c.vocabulary_size for c in as_columns(item_feature_columns) if isinstance(c, SparseFeat)}
        self.num_categories = sizes.get(self.category, 0)
        self.to(self.device)

    @staticmethod
    def num_extra(dnn_hidden_units: tuple[int, ...]) -> int:
        """Width of an augmented vector: that of the other tower's output, which it mimics."""
        return dnn_hidden_units[-1]

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The user's vector, one tensor (B, W)."""
        augmented_BW = self.user_augmented(features[self.user_id])
        return [self.similarity.vector(self.user_tower(features, augmented_BW))]

    def encode_item(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The item's vector, one tensor (B, W)."""
        augmented_BW = self.item_augmented(features[self.item_id])
        return [self.similarity.vector(self.item_tower(features, augmented_BW))]

    def forward(self, features: dict[str, Tensor], labels: Tensor | None = None):
        """Logits (B,); with labels, also the auxiliary losses by name, each weighted as it enters the loss."""
        user, item = self.encode_user(features), self.encode_item(features)
        logits_B = self.score(user, item)
        if labels is None:
            return logits_B
        losses = {
            "user_mimic": mimic_loss(self.user_augmented(features[self.user_id]), item[0], labels),
            "item_mimic": mimic_loss(self.item_augmented(features[self.item_id]), user[0], labels),
        }
        if self.category is not None and self.weights["alignment"]:
            category_B = features[self.category]
            losses["alignment"] = category_alignment_loss(item[0], category_B, self.num_categories)
        return logits_B, {name: self.weights[name] * loss for name, loss in losses.items()}


def _id_column(tower: str, columns: list) -> SparseFeat:
    for column in as_columns(columns):
        if isinstance(column, SparseFeat):
            return column
    raise UserError(f"{tower} tower: expected a SparseFeat with the {tower}'s id, got none; DAT augments ids.")


def _category(named: str | None, item_columns: list) -> str | None:
    sparse = [c.name for c in as_columns(item_columns) if isinstance(c, SparseFeat)]
    if named is not None and named not in sparse:
        raise UserError(f"category: expected a SparseFeat of the item tower ({', '.join(sparse)}), got {named!r}.")
    return named or next((name for name in CATEGORY_NAMES if name in sparse), None)
