"""StatisticsLR: logistic regression on the dense features alone, what any network must beat.

A table that has it shows how much of a score is counting: the means of the label by user and item, and the price.

Shapes: B batch, D numbers of a vector, T values of a list.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.lr import LR
from preprocessing.encode import FIRST_ID
from preprocessing.errors import UserError
from preprocessing.inputs import Column, DenseFeat, as_columns, build_input_features


class StatisticsLR(LR):
    """LR without ids and categories: one weight per dense input, plus a bias.

    A vector `..._by_COLUMN` holds a statistic for each value of that column (preprocessing/statistics.py), as a user's
    residuals by genre: it counts as one input, its mean over the values that the row has.

    Args:
        linear_feature_columns: all columns, users' and items'; those that are not dense are left out.
        device: where the parameters are put.
    Raises UserError where no column is dense.
    """

    def __init__(self, linear_feature_columns: list, task: str = "binary", device: str | torch.device = "cpu"):
        columns = as_columns(linear_feature_columns)
        dense = [column for column in columns if isinstance(column, DenseFeat)]
        if not dense:
            raise UserError("StatisticsLR: expected a dense column, such as a mean of the label, got none; use LR.")
        by = {column.name: other for column in dense if (other := _goes_by(column, columns))}
        super().__init__([column for column in dense if column.name not in by], task, device)
        self.by = {name: other.name for name, other in by.items()}
        if by:
            self.columns = list({column.name: column for column in [*dense, *by.values()]}.values())
            self.feature_index = build_input_features(self.columns)
            self.vector_weights = nn.Parameter(torch.zeros(len(by), device=self.device))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        logits_B = super().forward(features)
        for place, (name, other) in enumerate(self.by.items()):
            logits_B = logits_B + self.vector_weights[place] * of_values(features[name], features[other])
        return logits_B


def of_values(vector_BD: Tensor, ids: Tensor) -> Tensor:
    """The mean of each row's vector over the values that it has, (B,); 0 where it has none.

    Args:
        vector_BD: the number of the id i + FIRST_ID at place i.
        ids: (B,) or (B, T).
    """
    ids_BT = ids.long().view(len(ids), -1)
    is_value_BT = ids_BT >= FIRST_ID
    values_BT = functional.pad(vector_BD, (FIRST_ID, 0)).gather(1, ids_BT) * is_value_BT
    return values_BT.sum(1) / is_value_BT.sum(1).clamp(min=1)


def _goes_by(column: DenseFeat, columns: list[Column]) -> Column | None:
    name = column.name.rpartition("_by_")[2] if "_by_" in column.name else None
    of_size = (c for c in columns if getattr(c, "vocabulary_size", 0) == column.dimension + FIRST_ID)
    return next((c for c in of_size if c.name == name), None)
