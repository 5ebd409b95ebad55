"""MVKE of a single task: virtual kernels, each an expert for users, chosen between by the item (Xu et al., KDD 2022).

Shapes: B batch, F user fields, J kernels, D embedding size, W layer width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.estimator import Estimator
from model.IntTower import DotProduct
from model.layers import MLP, FieldEmbedding, check_hidden_units, concatenate
from preprocessing.errors import UserError
from preprocessing.inputs import SparseFeat, as_columns


class Experts(nn.Module):
    """A kernel k_j attends to the user's fields, sum_f softmax_f(<k_j, e_f> / sqrt(D)) e_f, for a network of its own.

    Dense columns enter every network as they are.
    """

    def __init__(self, columns: list, num_kernels: int, hidden_units: tuple[int, ...], dropout: float, init_std: float):
        super().__init__()
        self.embedding = FieldEmbedding(columns, init_std)
        if not self.embedding.num_fields:
            raise UserError("user tower: expected sparse or varlen columns, got none; kernels attend to fields.")
        width = self.embedding.embedding_dim
        self.kernels = nn.Parameter(torch.randn(num_kernels, width))
        input_dim = width + self.embedding.num_dense
        self.mlps = nn.ModuleList(MLP(input_dim, hidden_units, dropout, linear_output=True) for _ in range(num_kernels))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """The output of every expert, (B, J, W)."""
        fields_BFD, dense_BN = self.embedding(features)
        weights_BJF = (self.kernels @ fields_BFD.transpose(1, 2) / math.sqrt(fields_BFD.shape[2])).softmax(2)
        views_BJD = weights_BJF @ fields_BFD
        outputs = [
            mlp(concatenate(view_BD, dense_BN))[-1] for mlp, view_BD in zip(self.mlps, views_BJD.unbind(1), strict=True)
        ]
        return torch.stack(outputs, dim=1)


class MVKE(Estimator):
    """score = < sum_j g_j x_j, v > of the user's experts x_j, the item's vector v and its gate g over the kernels.

    The gate, softmax_j(<k_j, t> / sqrt(D)), is the item's alone, t being the embedding of its first SparseFeat. So the
    score is a plain dot product of the x_j side by side and the g_j v side by side, which is how it is computed and
    served.

    Args:
        user_feature_columns, item_feature_columns: the columns of each tower; the item's first SparseFeat, its tag,
            must have the users' embedding_dim.
        num_kernels: J.
        init_std: standard deviation of the initial embeddings.
        device: where the parameters are put.
    """

    def __init__(
        self,
        user_feature_columns: list,
        item_feature_columns: list,
        task: str = "binary",
        dnn_dropout: float = 0.3,
        device: str | torch.device = "cpu",
        dnn_hidden_units: tuple[int, ...] = (300, 300, 128),
        num_kernels: int = 3,
        init_std: float = 0.01,
    ):
        super().__init__([*user_feature_columns, *item_feature_columns], task)
        check_hidden_units(dnn_hidden_units)
        if num_kernels < 1:
            raise UserError(f"num_kernels: expected 1 or more, got {num_kernels}.")
        self.experts = Experts(user_feature_columns, num_kernels, dnn_hidden_units, dnn_dropout, init_std)
        self.item_embedding = FieldEmbedding(item_feature_columns, init_std)
        self.item_mlp = MLP(self.item_embedding.output_dim, dnn_hidden_units, dnn_dropout, linear_output=True)
        width = self.experts.embedding.embedding_dim
        tag = next((c for c in as_columns(item_feature_columns) if isinstance(c, SparseFeat)), None)
        if tag is None or tag.embedding_dim != width:
            got = "none" if tag is None else f"{tag.name!r} of {tag.embedding_dim}"
            raise UserError(f"item tower: expected a SparseFeat of embedding_dim {width}, the users', got {got}.")
        self.tag = self.item_embedding.field_names.index(tag.name)
        self.similarity = DotProduct()
        self.user_feature_names = self.experts.embedding.feature_names
        self.item_feature_names = self.item_embedding.feature_names
        self.to(device)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.similarity.bias

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The experts' outputs side by side, one tensor (B, J * W)."""
        return [self.experts(features).flatten(1)]

    def encode_item(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The item's vector once for each kernel, times its gate, one tensor (B, J * W)."""
        fields_BFD, dense_BN = self.item_embedding(features)
        tag_BD = fields_BFD[:, self.tag]
        gate_BJ = (tag_BD @ self.experts.kernels.T / math.sqrt(tag_BD.shape[1])).softmax(1)
        vector_BW = self.item_mlp(concatenate(fields_BFD, dense_BN))[-1]
        return [(gate_BJ[:, :, None] * vector_BW[:, None]).flatten(1)]

    def score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,) of encoded pairs; one user or one item row meets every row of the other side."""
        return self.similarity.score(user, item)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        return self.score(self.encode_user(features), self.encode_item(features))
