"""LR: logistic regression on every feature value, the simplest baseline.

Shapes: B batch, F fields, N dense inputs.
"""

import torch
from torch import Tensor, nn

from model.estimator import Estimator
from model.layers import FieldEmbedding
from preprocessing.inputs import DenseFeat, VarLenSparseFeat, as_columns


class LR(Estimator):
    """One weight per feature value, summed, plus a bias; a varlen field adds its values' pooled weights.

    Args:
        linear_feature_columns: all columns, users' and items'; their embedding_dim does not matter.
        device: where the parameters are put.
    """

    def __init__(self, linear_feature_columns: list, task: str = "binary", device: str | torch.device = "cpu"):
        super().__init__(linear_feature_columns, task)
        self.weights = FieldEmbedding([_of_dimension_one(c) for c in as_columns(linear_feature_columns)], init_std=0.0)
        self.dense_weights = nn.Parameter(torch.zeros(self.weights.num_dense))
        self.bias = nn.Parameter(torch.zeros(1))
        self.to(device)

    @classmethod
    def from_columns(cls, user_feature_columns: list, item_feature_columns: list, **options) -> "LR":
        """The model over both towers' columns."""
        return cls([*user_feature_columns, *item_feature_columns], **options)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.bias

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        weights_BF1, dense_BN = self.weights(features)
        logits_B = self.bias
        if weights_BF1 is not None:
            logits_B = logits_B + weights_BF1.sum(dim=(1, 2))
        if dense_BN is not None:
            logits_B = logits_B + dense_BN @ self.dense_weights
        return logits_B


def _of_dimension_one(column):
    if isinstance(column, DenseFeat):
        return column
    if isinstance(column, VarLenSparseFeat):
        return column._replace(sparsefeat=_of_dimension_one(column.sparsefeat))
    # A table that fields share would be one weight for a value's every role.
    return column._replace(embedding_dim=1, embedding_name=column.name)
