"""IntTower and what its successors might give it: ours, and not the paper's.

Shapes: B batch, W layer width, L scored levels, H user heads, G item heads, K head size, E flattened heads.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.hit import Generators, guess_loss
from model.IntTower import IntTower, Tower
from model.layers import MLP, concatenate
from preprocessing.errors import UserError
from training.distributed import batch_rows


class GuessingTower(Tower):
    """A side that has a guess of the other's mean head among its inputs, as HIT's towers have (model/hit.py).

    Args:
        guessed: size of the guess.
    """

    def __init__(self, columns: list, hidden_units: tuple[int, ...], dropout: float, *arguments, guessed: int):
        super().__init__(columns, hidden_units, dropout, *arguments)
        self.generators = Generators(self.input_dim, guessed)
        self.input_dim += 2 * guessed
        self.mlp = MLP(self.input_dim, hidden_units, dropout)

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The tower's input, guesses included, and the output of each of its layers: L + 1 tensors (B, W)."""
        x_BW = self.input(features)
        x_BW = concatenate(x_BW, *(guess.detach() for guess in self.generators(x_BW)))
        return [x_BW, *self.mlp(x_BW)]

    def guesses(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The guessed mean heads of a match and of a miss, (B, K) each, for their loss alone."""
        with torch.no_grad():
            x_BW = self.input(features)
        return self.generators(x_BW)


class IntTowerPlus(IntTower):
    """IntTower with further parts, each off by default: what is left then is IntTower.

    Gates, penalty and guesses change how heads are made, not how they meet: they are served like IntTower's. Soft
    maxima are another score, for which there is no index.

    Args:
        user_feature_columns, item_feature_columns, field_dim: see IntTower.
        level_gates: weigh each user's levels by L * softmax(W x + b), x being the tower's input; 1 each at the start.
        maxsim_temperature: weigh an item's heads by softmax(product / temperature) where MaxSim takes the best of them,
            as a Poly-Encoder does; 0 takes the best.
        apart_weight: weight of the squared cosine between different heads of one item, and of one user's level, in the
            mean: it draws heads apart.
        guess_weight: weight of the loss of HIT's generators, whose guesses the towers then read; 0 leaves both out.
        options: IntTower's others.
    """

    def __init__(
        self,
        user_feature_columns: list,
        item_feature_columns: list,
        field_dim: int = 16,
        level_gates: bool = False,
        maxsim_temperature: float = 0.0,
        apart_weight: float = 0.0,
        guess_weight: float = 0.0,
        **options,
    ):
        weights = dict(maxsim_temperature=maxsim_temperature, apart_weight=apart_weight, guess_weight=guess_weight)
        for name, value in weights.items():
            if not 0 <= value < math.inf:
                raise UserError(f"{name}: expected a number of at least 0, got {value}.")
        if options.get("interaction") == "dot" and (level_gates or any(weights.values())):
            raise UserError("interaction: expected the fe_block, whose heads these parts are of, got dot.")
        make_tower = partial(GuessingTower, guessed=field_dim) if guess_weight else Tower
        device = options.pop("device", "cpu")
        super().__init__(user_feature_columns, item_feature_columns, field_dim, make_tower=make_tower, **options)
        self.maxsim_temperature, self.apart_weight, self.guess_weight = weights.values()
        self.level_gates = nn.Linear(self.user_tower.input_dim, len(self.levels)) if level_gates else None
        if level_gates:
            nn.init.zeros_(self.level_gates.weight)
            nn.init.zeros_(self.level_gates.bias)
        self.to(device)

    def user_heads(self, layers: list[Tensor]) -> list[Tensor]:
        """See IntTower; each level's times its gate."""
        heads = super().user_heads(layers)
        if self.level_gates is None:
            return heads
        gates_BL = len(heads) * self.level_gates(layers[0]).softmax(1)
        return [heads_BE * gate_B[:, None] for heads_BE, gate_B in zip(heads, gates_BL.unbind(1), strict=True)]

    def interact(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """See IntTower; with a temperature, of soft maxima."""
        if not self.maxsim_temperature:
            return super().interact(user, item)
        item_BGK = self._apart(item[0])
        products = (torch.einsum("...hk,...gk->...hg", self._apart(heads), item_BGK) for heads in user)
        soft = ((p_BHG * (p_BHG / self.maxsim_temperature).softmax(2)).sum((1, 2)) for p_BHG in products)
        return sum(soft) + self.interaction.bias

    def auxiliary_losses(
        self, features: dict[str, Tensor], user: list[Tensor], item: list[Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        """See IntTower."""
        losses = super().auxiliary_losses(features, user, item, labels)
        if self.apart_weight:
            alike = torch.stack([_alikeness(self._apart(heads)) for heads in (*user, *item)])
            losses["apart"] = self.apart_weight * alike.mean()
        if self.guess_weight:
            mean_heads = (self._apart(heads).mean(1) for heads in (item[0], user[-1]))
            sides = zip((self.user_tower, self.item_tower), mean_heads, strict=True)
            losses["guesses"] = self.guess_weight * sum(
                guess_loss(tower.guesses(features), mean_BK, labels) for tower, mean_BK in sides
            )
        return losses

    def _apart(self, heads_BE: Tensor) -> Tensor:
        """(B, H, K)"""
        return heads_BE.unflatten(1, (-1, self.interaction.field_dim))


def _alikeness(heads_BHK: Tensor) -> Tensor:
    """The mean squared cosine between different heads, 0 of one head; of several processes each has its share."""
    num_heads = heads_BHK.shape[1]
    if num_heads == 1:
        return heads_BHK.sum() * 0.0
    units_BHK = functional.normalize(heads_BHK.float(), dim=2)
    squared_BHH = (units_BHK @ units_BHK.transpose(1, 2)).square()
    different = squared_BHH.sum((1, 2)) - squared_BHH.diagonal(dim1=1, dim2=2).sum(1)
    return different.sum() / (batch_rows(len(heads_BHK)) * num_heads * (num_heads - 1))
