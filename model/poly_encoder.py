"""Poly-Encoder: several views of a user, weighed by the item that looks at them (Humeau et al., ICLR 2020).

Shapes: B batch, F fields of one tower, T user tokens, C codes, D embedding size, W layer width, K head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.dssm import Tower
from model.estimator import Estimator
from model.layers import MLP, FieldEmbedding, check_hidden_units, concatenate
from preprocessing.errors import UserError


class SoftMaxSim(nn.Module):
    """The sum of a user's products with an item, s_i = <p_i, v>, each weighed by softmax_i(s_i / temperature).

    That is the attention of the item to the user's vectors and the product with what it attends to. It needs the
    products alone; near a temperature of 0 it is the largest of them.
    """

    def __init__(self, num_codes: int, temperature: float):
        super().__init__()
        self.num_codes, self.temperature = num_codes, temperature
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, user_BCK: Tensor, item_BK: Tensor) -> Tensor:
        """Logits (B,)."""
        product_BC = (user_BCK * item_BK.unsqueeze(1)).sum(2)
        return (product_BC * (product_BC / self.temperature).softmax(1)).sum(1) + self.bias


class UserTower(nn.Module):
    """Learned codes attend to the user's tokens: the fields, and the output of each fully connected layer.

    In the paper tokens are a transformer's outputs over the words of a text; a row of fields has none.
    """

    def __init__(self, columns: list, hidden_units: tuple[int, ...], dropout: float, codes: tuple[int, int], init_std):
        super().__init__()
        self.embedding = FieldEmbedding(columns, init_std)
        self.mlp = MLP(self.embedding.output_dim, hidden_units, dropout)
        field_dims = [self.embedding.embedding_dim] if self.embedding.num_fields else []
        self.field_projection = nn.ModuleList(nn.Linear(dim, codes[1]) for dim in field_dims)
        self.layer_projections = nn.ModuleList(nn.Linear(width, codes[1]) for width in hidden_units)
        self.codes = nn.Parameter(torch.randn(codes))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """What each code finds, (B, C, K)."""
        fields_BFD, dense_BN = self.embedding(features)
        layers = self.mlp(concatenate(fields_BFD, dense_BN))
        tokens = [project(fields_BFD) for project in self.field_projection]
        tokens += [project(layer_BW)[:, None] for project, layer_BW in zip(self.layer_projections, layers, strict=True)]
        tokens_BTK = torch.cat(tokens, dim=1)
        weights_BCT = (self.codes @ tokens_BTK.transpose(1, 2)).softmax(2)
        return weights_BCT @ tokens_BTK


class PolyEncoder(Estimator):
    """A user of several vectors and an item of one, which attends to the user's.

    Args:
        user_feature_columns, item_feature_columns: the columns of each tower.
        code_dim: size K of the vectors.
        num_codes: of the user's vectors, C.
        code_temperature: of the item's attention; the paper's is 1.
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
        code_dim: int = 64,
        num_codes: int = 8,
        code_temperature: float = 1.0,
        init_std: float = 0.01,
    ):
        super().__init__([*user_feature_columns, *item_feature_columns], task)
        check_hidden_units(dnn_hidden_units)
        if min(num_codes, code_dim) < 1:
            raise UserError(f"num_codes: expected 1 or more, got {num_codes} of size {code_dim}.")
        if not 0 < code_temperature < math.inf:
            raise UserError(f"code_temperature: expected a number above 0, got {code_temperature}.")
        codes = num_codes, code_dim
        self.user_tower = UserTower(user_feature_columns, dnn_hidden_units, dnn_dropout, codes, init_std)
        item_units = (*dnn_hidden_units, code_dim)
        self.item_tower = Tower(item_feature_columns, item_units, dnn_dropout, init_std, linear_output=True)
        self.similarity = SoftMaxSim(num_codes, code_temperature)
        self.user_feature_names = self.user_tower.embedding.feature_names
        self.item_feature_names = self.item_tower.embedding.feature_names
        self.to(device)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.similarity.bias

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The user's vectors, one tensor (B, C * K)."""
        return [self.user_tower(features).flatten(1)]

    def encode_item(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The item's vector, one tensor (B, K)."""
        return [self.item_tower(features)]

    def score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,) of encoded pairs; one user or one item row meets every row of the other side."""
        return self.similarity(user[0].unflatten(1, (self.similarity.num_codes, -1)), item[0])

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        return self.score(self.encode_user(features), self.encode_item(features))
