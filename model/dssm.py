"""DSSM: the plain two-tower model, two networks that meet in one cosine (Huang et al., CIKM 2013).

Shapes: B batch, F fields of one tower, D embedding size, N dense inputs, W layer width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.choices import SIMILARITIES
from model.estimator import Estimator
from model.layers import MLP, FieldEmbedding, check_hidden_units, concatenate
from preprocessing.errors import UserError


class Tower(nn.Module):
    """One side: embed the fields, run the fully connected layers.

    Args:
        num_extra: width of further inputs that `forward` is given beside the features.
    """

    def __init__(
        self,
        columns: list,
        hidden_units: tuple[int, ...],
        dropout: float,
        init_std: float,
        linear_output: bool,
        num_extra: int = 0,
    ):
        super().__init__()
        self.embedding = FieldEmbedding(columns, init_std)
        self.mlp = MLP(self.embedding.output_dim + num_extra, hidden_units, dropout, linear_output=linear_output)

    def forward(self, features: dict[str, Tensor], extra_BW: Tensor | None = None) -> Tensor:
        """The output of the last layer, (B, W)."""
        fields_BFD, dense_BN = self.embedding(features)
        return self.mlp(concatenate(fields_BFD, dense_BN, extra_BW))[-1]


class Similarity(nn.Module):
    """From two vectors to a logit: cosine / temperature + bias ("temperature"), cosine + bias ("paper"), or
    dot product + bias ("dot").

    A bare cosine lies in [-1, 1]: however well it ranks, its probabilities stay between .27 and .73 around the
    bias, and the gradient of a pair never fades. One learned temperature removes that handicap.
    """

    def __init__(self, kind: str, initial_temperature: float):
        super().__init__()
        if kind not in SIMILARITIES:
            raise UserError(f"similarity: expected one of {', '.join(SIMILARITIES)}, got {kind!r}.")
        if not 0 < initial_temperature < math.inf:
            raise UserError(f"initial_temperature: expected a number above 0, got {initial_temperature}.")
        self.kind = kind
        self.bias = nn.Parameter(torch.zeros(1))
        if kind == "temperature":
            # Its logarithm is learned, so the temperature stays positive.
            self.log_temperature = nn.Parameter(torch.tensor(math.log(initial_temperature)))

    def vector(self, output_BW: Tensor) -> Tensor:
        """What is cached and served: of length 1 unless the similarity is the dot product."""
        return output_BW if self.kind == "dot" else functional.normalize(output_BW, dim=1)

    def forward(self, user_BW: Tensor, item_BW: Tensor) -> Tensor:
        """Logits (B,) of vectors."""
        similarity_B = (user_BW * item_BW).sum(1)
        if self.kind == "temperature":
            similarity_B = similarity_B / self.log_temperature.exp()
        return similarity_B + self.bias


class DSSM(Estimator):
    """Two towers, and the similarity of their outputs.

    Args:
        user_feature_columns, item_feature_columns: the columns of each tower.
        dnn_hidden_units: widths of both towers' layers.
        similarity: "temperature" (default), "paper" (the bare cosine) or "dot"; see Similarity.
        initial_temperature: what the learned temperature starts from.
        linear_output: the towers' last layer is linear; otherwise it has batch norm, ReLU and dropout like the
            others, and no cosine is below 0.
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
        similarity: str = "temperature",
        initial_temperature: float = 0.1,
        linear_output: bool = True,
        init_std: float = 0.01,
    ):
        super().__init__([*user_feature_columns, *item_feature_columns], task)
        check_hidden_units(dnn_hidden_units)
        self.user_tower, self.item_tower = (
            Tower(columns, dnn_hidden_units, dnn_dropout, init_std, linear_output, self.num_extra(dnn_hidden_units))
            for columns in (user_feature_columns, item_feature_columns)
        )
        self.similarity = Similarity(similarity, initial_temperature)
        self.user_feature_names = self.user_tower.embedding.feature_names
        self.item_feature_names = self.item_tower.embedding.feature_names
        self.to(device)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.similarity.bias

    @staticmethod
    def num_extra(dnn_hidden_units: tuple[int, ...]) -> int:
        """Width of what a tower is given beside its features: nothing here."""
        return 0

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The user's vector, one tensor (B, W)."""
        return [self.similarity.vector(self.user_tower(features))]

    def encode_item(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The item's vector, one tensor (B, W)."""
        return [self.similarity.vector(self.item_tower(features))]

    def score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,) of encoded pairs; one user or one item row meets every row of the other side."""
        return self.similarity(user[0], item[0])

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        return self.score(self.encode_user(features), self.encode_item(features))
