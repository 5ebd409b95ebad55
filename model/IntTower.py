"""IntTower: a two-tower model whose towers interact at every layer, and stay apart (CIKM 2022).

Shapes: B batch, F fields of one tower, D embedding size, L levels, W layer width, H user heads, G item heads,
K head size, P positive pairs, E flattened heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.choices import FE_INPUTS, FE_SCALES, INTERACTIONS, REWEIGHTINGS, parse_levels
from model.estimator import Estimator
from model.layers import MLP, FieldEmbedding, check_hidden_units, concatenate, is_read_at_once
from preprocessing.errors import UserError
from preprocessing.inputs import SparseFeat, as_columns
from preprocessing.utils import fe_score
from training.distributed import gather_rows, total_of_each


class LightSE(nn.Module):
    """Reweight a tower's field embeddings by learned importance: E + E * softmax(W mean(E) + b).

    Args:
        field_size: number of fields F; W is F x F.
        embedding_size: size D of each; the layer works for any.
        residual: add the input, as the seed's listing does; False gives E * softmax(...) alone.
    """

    def __init__(self, field_size: int, embedding_size: int = 32, residual: bool = True):
        super().__init__()
        self.field_size = field_size
        self.embedding_size = embedding_size
        self.residual = residual
        self.excitation = nn.Linear(field_size, field_size)

    def forward(self, fields_BFD: Tensor) -> Tensor:
        if fields_BFD.dim() != 3 or fields_BFD.shape[1] != self.field_size:
            raise UserError(
                f"LightSE: expected fields of shape (batch, {self.field_size}, embedding size), "
                f"got {tuple(fields_BFD.shape)}; list every sparse and varlen column of the tower."
            )
        weights_BF = self.excitation(fields_BFD.mean(dim=-1)).softmax(dim=-1)
        reweighted_BFD = fields_BFD * weights_BF.unsqueeze(-1)
        return fields_BFD + reweighted_BFD if self.residual else reweighted_BFD


class SENET(nn.Module):
    """Squeeze and excitation of the fields, in LightSE's place: E * sigmoid(W2 relu(W1 mean(E))), with biases.

    Two layers with a bottleneck of a third of the fields, as in FiBiNET (RecSys 2019). The gate is a sigmoid, as in the
    first SE block (Hu et al., CVPR 2018): under FiBiNET's ReLU a field whose gate starts negative never learns.
    """

    def __init__(self, field_size: int, reduction: int = 3):
        super().__init__()
        bottleneck = max(1, field_size // reduction)
        self.excitation = nn.Sequential(
            nn.Linear(field_size, bottleneck), nn.ReLU(), nn.Linear(bottleneck, field_size), nn.Sigmoid()
        )

    def forward(self, fields_BFD: Tensor) -> Tensor:
        return fields_BFD * self.excitation(fields_BFD.mean(dim=-1)).unsqueeze(-1)


class Tower(nn.Module):
    """One side: embed the fields, reweight them (by LightSE, unless told otherwise), run the fully connected layers."""

    def __init__(
        self,
        columns: list,
        hidden_units: tuple[int, ...],
        dropout: float,
        reweighting: str,
        light_se_residual: bool,
        init_std: float,
    ):
        super().__init__()
        self.embedding = FieldEmbedding(columns, init_std)
        num_fields, embedding_dim = self.embedding.num_fields, self.embedding.embedding_dim
        if reweighting == "none" or not num_fields:
            self.reweighting = nn.Identity()
        elif reweighting == "senet":
            self.reweighting = SENET(num_fields)
        else:
            self.reweighting = LightSE(num_fields, embedding_dim, light_se_residual)
        self.input_dim = self.embedding.output_dim
        self.mlp = MLP(self.input_dim, hidden_units, dropout)

    def input(self, features: dict[str, Tensor]) -> Tensor:
        """The reweighted fields and the dense inputs, (B, W)."""
        fields_BFD, dense_BN = self.embedding(features)
        if fields_BFD is not None:
            fields_BFD = self.reweighting(fields_BFD)
        return concatenate(fields_BFD, dense_BN)

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The tower's input and the output of each of its layers: L + 1 tensors (B, W)."""
        x_BW = self.input(features)
        return [x_BW, *self.mlp(x_BW)]


class FEBlock(nn.Module):
    """Compare each user level with the last item layer, head by head (IntTower, FE-Block).

    Level i of the user tower is projected to H heads of size K, the last item layer to G heads of size K. The
    logit is the sum over levels of fe_score's MaxSim, plus a bias.

    Such a sum grows with L, H and K, at the start and with each of Adam's steps, which are as long for many heads as
    for few. With the scale "mean" the user's heads are divided by L * H * sqrt(K): the logit is the mean over levels
    and user heads of MaxSims of products divided by sqrt(K), and starts near the bias for any L, H, G and K. What is
    kept of an item and how a pair is scored are the same.

    Args:
        user_widths: width of the user layer behind each scored level.
        item_width: width of the item layer.
        scale: "sum" (the paper's) or "mean".
    """

    def __init__(
        self,
        user_widths: list[int],
        item_width: int,
        user_head: int,
        item_head: int,
        field_dim: int,
        scale: str = "sum",
    ):
        super().__init__()
        self.divisor = len(user_widths) * user_head * math.sqrt(field_dim) if scale == "mean" else None
        self.user_head, self.item_head, self.field_dim = user_head, item_head, field_dim
        self.user_projections = nn.ModuleList(nn.Linear(width, user_head * field_dim) for width in user_widths)
        self.item_projection = nn.Linear(item_width, item_head * field_dim)
        self.bias = nn.Parameter(torch.zeros(1))

    def encode_user(self, layers: list[Tensor]) -> list[Tensor]:
        """The heads of each level, L tensors (B, H * K)."""
        heads = [project(layer_BW) for project, layer_BW in zip(self.user_projections, layers, strict=True)]
        return heads if self.divisor is None else [heads_BE / self.divisor for heads_BE in heads]

    def encode_item(self, layer_BW: Tensor) -> list[Tensor]:
        """The heads of the item, one tensor (B, G * K)."""
        return [self.item_projection(layer_BW)]

    def score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,)."""
        head_dims = [self.field_dim] * len(user)
        return fe_score(user, item, self.user_head, self.item_head, head_dims, head_dims) + self.bias

    def contrasted(self, user: list[Tensor], item: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What CIR compares: the flattened heads of the last level and of the item, (B, E) each."""
        if self.user_head == self.item_head:
            return user[-1], item[-1]
        # With unequal numbers of heads the flattened vectors differ in length; their mean heads do not.
        return (
            user[-1].view(-1, self.user_head, self.field_dim).mean(1),
            item[-1].view(-1, self.item_head, self.field_dim).mean(1),
        )

    def forward(self, user_layers: list[Tensor], item_layer_BW: Tensor) -> Tensor:
        return self.score(self.encode_user(user_layers), self.encode_item(item_layer_BW))


class DotProduct(nn.Module):
    """In the FE-Block's place, for the ablation: the dot product of the last layers, plus a bias."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def encode_user(self, layers: list[Tensor]) -> list[Tensor]:
        """The last layer, one tensor (B, W)."""
        return layers[-1:]

    def encode_item(self, layer_BW: Tensor) -> list[Tensor]:
        """The last layer, one tensor (B, W)."""
        return [layer_BW]

    def score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,)."""
        return (user[0] * item[0]).sum(1) + self.bias

    def contrasted(self, user: list[Tensor], item: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What CIR compares: the last layers."""
        return user[0], item[0]


class CIR(nn.Module):
    """Contrastive interaction regularisation: pull matching pairs together (IntTower, CIR).

    InfoNCE over the pairs with label 1: -log exp(sim(u, v) / t) / sum over the batch's items v' of
    exp(sim(u, v') / t), averaged over those pairs. The paper leaves sim, t and the set of items open as far as
    we could find. Ours: cosine similarity, all items of the batch, and further rows of the pair's own item are
    left out of the sum, since they would be pushed away from the user who likes them.
    """

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        if not 0 < temperature < math.inf:
            raise UserError(f"cir_temperature: expected a number above 0, got {temperature}.")
        self.temperature = temperature

    def forward(self, user_BE: Tensor, item_BE: Tensor, labels_B: Tensor, item_ids_B: Tensor) -> Tensor:
        """The loss, a scalar; 0 for a batch without a positive pair.

        Of several processes each contrasts its own pairs with the items of all, and has its share of the loss.
        """
        positive_B = labels_B > 0.5
        item_BE, first = gather_rows(item_BE)
        ids_B, _ = gather_rows(item_ids_B)
        num_positive = total_of_each(positive_B.sum()).clamp(min=1)
        rows_P = self._rows(positive_B)
        with torch.autocast(user_BE.device.type, enabled=False):  # a cosine over a small temperature needs its digits
            user_PE = functional.normalize(user_BE[rows_P].float(), dim=1) / self.temperature
            similarity_PB = user_PE @ functional.normalize(item_BE.float(), dim=1).T
        place_P = first + rows_P
        same_item_PB = item_ids_B[rows_P, None] == ids_B[None, :]
        similarity_PB.masked_fill_(same_item_PB.scatter_(1, place_P[:, None], False), -torch.inf)
        target_P = place_P.where(positive_B[rows_P], -100)  # which cross_entropy passes over
        return functional.cross_entropy(similarity_PB, target_P, reduction="sum") / num_positive

    def _rows(self, positive_B: Tensor) -> Tensor:
        """The rows that are looked at: the positive ones, or all of them where it would take a wait to know these."""
        if is_read_at_once(positive_B):
            return torch.nonzero(positive_B)[:, 0]
        return torch.arange(len(positive_B), device=positive_B.device)


def contrasted_item_id(item_columns: list, cir_weight: float) -> str | None:
    """The name of the column with the item's id, which CIR needs; raises UserError where it has none to use."""
    if not 0 <= cir_weight < math.inf:
        raise UserError(f"cir_weight: expected a number of at least 0, got {cir_weight}.")
    item_id = next((column.name for column in as_columns(item_columns) if isinstance(column, SparseFeat)), None)
    if cir_weight and item_id is None:
        raise UserError(
            "cir_weight: expected a SparseFeat with the item's id in the item tower, got none; set it to 0."
        )
    return item_id


class IntTower(Estimator):
    """Two towers with LightSE, joined by the FE-Block, trained with CIR beside the cross-entropy.

    Args:
        user_feature_columns, item_feature_columns: the columns of each tower; the first SparseFeat of the item
            tower is taken as the item's id.
        field_dim: head size K.
        user_head, item_head: numbers of heads H and G.
        dnn_hidden_units: widths of both towers' layers.
        levels: the user layers that are scored: "all", "last", or indices such as [0, 2]. (For fast serving the
            seed's text scores the last level, its code the one with index 0; both can be had.)
        fe_input: project each layer's "output", as the paper's figure draws it, or its "input", as released.
        fe_scale: the "sum" over levels and heads, as the paper draws it, or the "mean", which starts near the prior for
            any number of them; see FEBlock.
        reweighting: how a tower weighs its fields: by "light_se", by "senet" (see SENET), or "none".
        light_se_residual: see LightSE.
        interaction: what joins the towers: the "fe_block", or the "dot" product of their last layers, for which heads
            do not count and only the last of `levels` does.
        biases: add a bias of the user and one of the item, each linear in its tower's input.
        cir_weight: CIR's share in the loss; 0 leaves it out.
        cir_temperature: see CIR.
        init_std: standard deviation of the initial embeddings.
        device: where the parameters are put.
        make_tower: what makes a side of Tower's arguments.
    """

    auxiliary = True

    def __init__(
        self,
        user_feature_columns: list,
        item_feature_columns: list,
        field_dim: int = 16,
        task: str = "binary",
        dnn_dropout: float = 0.3,
        device: str | torch.device = "cpu",
        user_head: int = 4,
        item_head: int = 4,
        dnn_hidden_units: tuple[int, ...] = (300, 300, 128),
        levels: str | list[int] = "all",
        fe_input: str = "output",
        fe_scale: str = "sum",
        reweighting: str = "light_se",
        light_se_residual: bool = True,
        interaction: str = "fe_block",
        biases: bool = False,
        cir_weight: float = 1.0,
        cir_temperature: float = 0.1,
        init_std: float = 0.01,
        make_tower: Callable[..., Tower] = Tower,
    ):
        super().__init__([*user_feature_columns, *item_feature_columns], task)
        _check_choice("fe_input", fe_input, FE_INPUTS)
        _check_choice("fe_scale", fe_scale, FE_SCALES)
        _check_choice("reweighting", reweighting, REWEIGHTINGS)
        _check_choice("interaction", interaction, INTERACTIONS)
        if min(field_dim, user_head, item_head) < 1:
            raise UserError(f"heads: expected 1 or more, got {user_head} x {item_head} heads of size {field_dim}.")
        check_hidden_units(dnn_hidden_units)
        self.levels = parse_levels(levels, len(dnn_hidden_units))
        # A tower gives its input and then each layer's output, so a level's own input stands one place earlier.
        offset = 1 if fe_input == "output" else 0
        self.user_layers = [level + offset for level in self.levels]
        self.item_layer = len(dnn_hidden_units) - 1 + offset
        # Layers above the last one that is scored would get no gradient; they are not built.
        user_units, item_units = dnn_hidden_units[: self.user_layers[-1]], dnn_hidden_units[: self.item_layer]
        self.user_tower, self.item_tower = (
            make_tower(columns, units, dnn_dropout, reweighting, light_se_residual, init_std)
            for columns, units in ((user_feature_columns, user_units), (item_feature_columns, item_units))
        )
        user_widths = [self.user_tower.input_dim, *user_units]
        user_widths = [user_widths[layer] for layer in self.user_layers]
        item_width = [self.item_tower.input_dim, *item_units][-1]
        if interaction == "fe_block":
            self.interaction = FEBlock(user_widths, item_width, user_head, item_head, field_dim, fe_scale)
        elif user_widths[-1] == item_width:
            self.interaction = DotProduct()
        else:
            raise UserError(
                f"interaction: expected layers of one width for a dot product, got {user_widths[-1]} and {item_width}; "
                "score the last level."
            )
        self.user_feature_names = self.user_tower.embedding.feature_names
        self.item_feature_names = self.item_tower.embedding.feature_names
        self.biases = None
        if biases:
            self.biases = nn.ModuleList(
                nn.Linear(tower.input_dim, 1, bias=False) for tower in (self.user_tower, self.item_tower)
            )
            for bias in self.biases:
                nn.init.zeros_(bias.weight)
        self.cir = CIR(cir_temperature)
        self.cir_weight = cir_weight
        self.item_id = contrasted_item_id(item_feature_columns, cir_weight)
        self.to(device)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.interaction.bias

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The user's heads at each scored level: L tensors (B, H * K); with biases, the user's besides, (B, 1)."""
        layers = self.user_tower(features)
        heads = self.user_heads(layers)
        return heads if self.biases is None else [*heads, self.biases[0](layers[0])]

    def encode_item(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The item's heads: one tensor (B, G * K); with biases, the item's besides, (B, 1)."""
        layers = self.item_tower(features)
        heads = self.interaction.encode_item(layers[self.item_layer])
        return heads if self.biases is None else [*heads, self.biases[1](layers[0])]

    def score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,) of encoded pairs; one user or one item row meets every row of the other side."""
        if self.biases is None:
            return self.interact(user, item)
        return self.interact(user[:-1], item[:-1]) + (user[-1] + item[-1])[:, 0]

    def user_heads(self, layers: list[Tensor]) -> list[Tensor]:
        """The heads of each scored level, L tensors (B, H * K), from the user tower's layers."""
        return self.interaction.encode_user([layers[layer] for layer in self.user_layers])

    def interact(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        """Logits (B,) from heads alone."""
        return self.interaction.score(user, item)

    def forward(self, features: dict[str, Tensor], labels: Tensor | None = None):
        """Logits (B,); with labels, also the auxiliary losses by name, each weighted as it enters the loss."""
        user, item = self.encode_user(features), self.encode_item(features)
        logits_B = self.score(user, item)
        if labels is None:
            return logits_B
        if self.biases is not None:
            user, item = user[:-1], item[:-1]
        return logits_B, self.auxiliary_losses(features, user, item, labels)

    def auxiliary_losses(
        self, features: dict[str, Tensor], user: list[Tensor], item: list[Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        """The losses beside the cross-entropy, of heads alone, each weighted as it enters the loss."""
        if not self.cir_weight:
            return {}
        user_BE, item_BE = self.interaction.contrasted(user, item)
        return {"cir": self.cir_weight * self.cir(user_BE, item_BE, labels, features[self.item_id])}


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")
