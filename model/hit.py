"""HIT: two towers that guess each other before they meet (arXiv 2505.19849).

Shapes: B batch, W layer width, H user heads, G item heads, K head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.choices import GENERATOR_LOSSES
from model.estimator import Estimator
from model.IntTower import FEBlock
from model.layers import MLP, FieldEmbedding, check_hidden_units, concatenate
from preprocessing.errors import UserError
from training.distributed import batch_rows


class Generators(nn.Module):
    """Two small networks of a tower: what the other side's matches look like, and what its misses do.

    They read the tower's input detached, so that they learn from their own loss alone.
    """

    def __init__(self, input_dim: int, output_dim: int):
        super().__init__()
        self.positive, self.negative = (
            nn.Sequential(nn.Linear(input_dim, output_dim), nn.ReLU(), nn.Linear(output_dim, output_dim), nn.ReLU())
            for _ in range(2)
        )

    def forward(self, x_BW: Tensor) -> list[Tensor]:
        """The generated vectors of a match and of a miss."""
        x_BW = x_BW.detach()
        return [self.positive(x_BW), self.negative(x_BW)]


def guess_loss(guessed: list[Tensor], vector_BE: Tensor, labels_B: Tensor, kind: str = "paper") -> Tensor:
    """Of one side's guesses, each against the pairs of its label; of several processes each has its share."""
    positive_B, negative_B = (
        functional.cosine_similarity(guess_BE.float(), vector_BE.detach().float()) for guess_BE in guessed
    )
    cosine_B = labels_B * positive_B + (1 - labels_B) * negative_B
    num_rows = batch_rows(len(labels_B))
    return cosine_B.sum() / num_rows**2 if kind == "released" else (1 - cosine_B).sum() / num_rows


class Tower(nn.Module):
    """One side: the fields and the generated vectors, detached, through the fully connected layers."""

    def __init__(self, columns: list, hidden_units: tuple[int, ...], dropout: float, generated: int, init_std: float):
        super().__init__()
        self.embedding = FieldEmbedding(columns, init_std)
        self.generators = Generators(self.embedding.output_dim, generated)
        self.mlp = MLP(self.embedding.output_dim + 2 * generated, hidden_units, dropout)

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The output of the last layer, (B, W), and what the generators made."""
        x_BW = concatenate(*self.embedding(features))
        generated = self.generators(x_BW)
        return self.mlp(concatenate(x_BW, *(vector.detach() for vector in generated)))[-1], generated


class HIT(Estimator):
    """Two towers, each with a guess of the other's vector among its inputs, that meet in MaxSim of their last layers.

    Called with labels it also gives the generators' loss: the mean of 1 - cos(g, v) over the batch, g being the guess
    for the pair's label and v the other tower's heads, which learn nothing from it; both sides added up.

    The released code has the cosine in place of 1 - cosine, which drives the guesses away, and adds a mean to a sum
    over the batch. Its generators read some fields of each data set; ours read their tower's input.

    Args:
        user_feature_columns, item_feature_columns: the columns of each tower.
        field_dim, user_head, item_head: size K and numbers H, G of the heads; the paper's are 2 and 2.
        generator_weight: share of the generators' loss.
        generator_loss: "paper", or "released" for the sign and the scale of the released code.
        init_std: standard deviation of the initial embeddings.
        device: where the parameters are put.
    """

    auxiliary = True

    def __init__(
        self,
        user_feature_columns: list,
        item_feature_columns: list,
        task: str = "binary",
        dnn_dropout: float = 0.3,
        device: str | torch.device = "cpu",
        dnn_hidden_units: tuple[int, ...] = (300, 300, 128),
        field_dim: int = 16,
        user_head: int = 4,
        item_head: int = 4,
        generator_weight: float = 0.1,
        generator_loss: str = "paper",
        init_std: float = 0.01,
    ):
        super().__init__([*user_feature_columns, *item_feature_columns], task)
        check_hidden_units(dnn_hidden_units)
        if min(field_dim, user_head, item_head) < 1:
            raise UserError(f"heads: expected 1 or more, got {user_head} x {item_head} heads of size {field_dim}.")
        if not 0 <= generator_weight < math.inf:
            raise UserError(f"generator_weight: expected a number of at least 0, got {generator_weight}.")
        if generator_loss not in GENERATOR_LOSSES:
            raise UserError(f"generator_loss: expected one of {', '.join(GENERATOR_LOSSES)}, got {generator_loss!r}.")
        self.generator_weight, self.generator_loss = generator_weight, generator_loss
        # A tower's guess is as wide as the other's heads.
        self.user_tower, self.item_tower = (
            Tower(columns, dnn_hidden_units, dnn_dropout, num_heads * field_dim, init_std)
            for columns, num_heads in ((user_feature_columns, item_head), (item_feature_columns, user_head))
        )
        self.levels = [0]  # MaxSim is of the last layer alone
        self.interaction = FEBlock([*dnn_hidden_units[-1:]], dnn_hidden_units[-1], user_head, item_head, field_dim)
        self.user_feature_names = self.user_tower.embedding.feature_names
        self.item_feature_names = self.item_tower.embedding.feature_names
        self.to(device)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.interaction.bias

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The user's heads, one tensor (B, H * K)."""
        return self.interaction.encode_user([self.user_tower(features)[0]])

    def encode_item(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The item's heads, one tensor (B, G * K)."""
        return self.interaction.encode_item(self.item_tower(features)[0])

    def score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,) of encoded pairs; one user or one item row meets every row of the other side."""
        return self.interaction.score(user, item)

    def forward(self, features: dict[str, Tensor], labels: Tensor | None = None):
        """Logits (B,); with labels, also the generators' loss, weighted as it enters the loss."""
        user_BW, guessed_items = self.user_tower(features)
        item_BW, guessed_users = self.item_tower(features)
        user, item = self.interaction.encode_user([user_BW]), self.interaction.encode_item(item_BW)
        logits_B = self.score(user, item)
        if labels is None:
            return logits_B
        sides = (guessed_items, item[0]), (guessed_users, user[0])
        loss = sum(guess_loss(*side, labels, self.generator_loss) for side in sides)
        return logits_B, {"generators": self.generator_weight * loss}
