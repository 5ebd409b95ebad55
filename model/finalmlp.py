"""FinalMLP: two networks over gated copies of the same fields, joined by a bilinear form (Mao et al., AAAI 2023).
FinalMLPTower is what of it can be served: one network reads the user, the other the item, and no gate crosses.

Shapes: B batch, W layer width, H heads of the bilinear form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.estimator import Estimator
from model.layers import MLP, FieldEmbedding, check_hidden_units, concatenate
from preprocessing.errors import UserError

GATE_UNITS = 64  # width of a gate's hidden layer


class Fusion(nn.Module):
    """b + <w1, o1> + <w2, o2> + sum_h o1_h' W_h o2_h, outputs cut into H pieces (FinalMLP, section 3.3)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise UserError(f"fusion_heads: expected a number that divides the last layer's {width}, got {num_heads}.")
        size = width // num_heads
        self.first, self.second = nn.Linear(width, 1, bias=False), nn.Linear(width, 1, bias=False)
        self.heads = nn.Parameter(torch.empty(num_heads, size, size))
        nn.init.normal_(self.heads, std=size**-0.5)
        self.bias = nn.Parameter(torch.zeros(1))

    def turned(self, second_BW: Tensor) -> Tensor:
        """W_h o2_h of all heads side by side, (B, W)."""
        pieces_BHV = second_BW.unflatten(1, (len(self.heads), -1))
        return torch.einsum("huv,bhv->bhu", self.heads, pieces_BHV).flatten(1)

    def forward(self, first_BW: Tensor, second_BW: Tensor) -> Tensor:
        """Logits (B,)."""
        linear_B = (self.first(first_BW) + self.second(second_BW))[:, 0]
        return linear_B + (first_BW * self.turned(second_BW)).sum(1) + self.bias


class FinalMLP(Estimator):
    """Both streams read all fields, one through a gate made of the user, the other through one made of the item.

    A gate is 2 * sigmoid of a network of one hidden layer over its context, the inputs of one side.

    Args:
        user_feature_columns, item_feature_columns: the columns of each side.
        dnn_hidden_units: widths of both streams' layers.
        fusion_heads: H; must divide the last width.
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
        fusion_heads: int = 2,
        init_std: float = 0.01,
    ):
        super().__init__([*user_feature_columns, *item_feature_columns], task)
        check_hidden_units(dnn_hidden_units)
        self.user_embedding = FieldEmbedding(user_feature_columns, init_std)
        self.item_embedding = FieldEmbedding(item_feature_columns, init_std)
        contexts = [self.user_embedding.output_dim, self.item_embedding.output_dim]
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(width, GATE_UNITS), nn.ReLU(), nn.Linear(GATE_UNITS, sum(contexts)), nn.Sigmoid())
            for width in contexts
        )
        self.streams = nn.ModuleList(MLP(sum(contexts), dnn_hidden_units, dnn_dropout) for _ in contexts)
        self.fusion = Fusion(dnn_hidden_units[-1], fusion_heads)
        self.to(device)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.fusion.bias

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        contexts = [concatenate(*embed(features)) for embed in (self.user_embedding, self.item_embedding)]
        x_BW = torch.cat(contexts, dim=1)
        outputs = [
            stream(2 * gate(context_BW) * x_BW)[-1]
            for gate, stream, context_BW in zip(self.gates, self.streams, contexts, strict=True)
        ]
        return self.fusion(*outputs)


class FinalMLPTower(Estimator):
    """FinalMLP whose first stream is the user's and whose second is the item's, without gates.

    Of an item W_h o2_h is kept, and <w2, o2> as a bias of its own; of a user o1, and <w1, o1>.

    Args: as those of FinalMLP, but for its gates.
    """

    def __init__(
        self,
        user_feature_columns: list,
        item_feature_columns: list,
        task: str = "binary",
        dnn_dropout: float = 0.3,
        device: str | torch.device = "cpu",
        dnn_hidden_units: tuple[int, ...] = (300, 300, 128),
        fusion_heads: int = 2,
        init_std: float = 0.01,
    ):
        super().__init__([*user_feature_columns, *item_feature_columns], task)
        check_hidden_units(dnn_hidden_units)
        self.user_embedding = FieldEmbedding(user_feature_columns, init_std)
        self.item_embedding = FieldEmbedding(item_feature_columns, init_std)
        self.streams = nn.ModuleList(
            MLP(embedding.output_dim, dnn_hidden_units, dnn_dropout)
            for embedding in (self.user_embedding, self.item_embedding)
        )
        self.similarity = Fusion(dnn_hidden_units[-1], fusion_heads)
        self.user_feature_names = self.user_embedding.feature_names
        self.item_feature_names = self.item_embedding.feature_names
        self.to(device)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.similarity.bias

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The user's vector (B, W) and bias (B, 1)."""
        output_BW = self.streams[0](concatenate(*self.user_embedding(features)))[-1]
        return [output_BW, self.similarity.first(output_BW)]

    def encode_item(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The item's vector (B, W) and bias (B, 1)."""
        output_BW = self.streams[1](concatenate(*self.item_embedding(features)))[-1]
        return [self.similarity.turned(output_BW), self.similarity.second(output_BW)]

    def score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,) of encoded pairs; one user or one item row meets every row of the other side."""
        return (user[0] * item[0]).sum(1) + (user[1] + item[1])[:, 0] + self.similarity.bias

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        return self.score(self.encode_user(features), self.encode_item(features))
