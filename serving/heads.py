"""A two-tower model as user heads, item heads and a bias: the one form in which all of them are served.

    logit = sum over the user's heads of max over the item's heads of <user head, item head>, + bias

IntTower is that already; its levels lie side by side. A model that compares two vectors has one head on each side, and
what its similarity multiplies by goes into the user's. Biases, b of the user and c of the item, are two more numbers of
each head: 1 / Q and b / Q of the user's, c and 1 of the item's. Q products add up to b + c, whichever head is best.

A Poly-Encoder has a temperature besides: its user heads' products with the item's one head are not added up, but
each is weighed by their softmax.

Shapes: B rows, Q user heads (H of each level side by side), G item heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.IntTower import FEBlock
from model.poly_encoder import SoftMaxSim
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, VarLenSparseFeat
from serving.maxsim import maxsim
from training.predict import is_two_tower

Levels = str | list[int]


class Heads(nn.Module):
    """The towers of a model, each giving heads.

    Args:
        model: one whose towers are apart; it is put into evaluation mode.
        levels: of IntTower, which of the levels that it was trained to score are served: "all", the "last", or a list
            such as [0, 2]. Logits were trained as a sum over all, so fewer cost AUC and calibration.
    Raises UserError for a model of another kind or with soft maxima, weights that are not finite, a level that it does
    not score, or a `score` that is not this form, as after an edit of fe_score that leaves out levels which are served
    here.
    """

    def __init__(self, model: nn.Module, levels: Levels = "all"):
        super().__init__()
        if not is_two_tower(model):
            raise UserError(
                f"{type(model).__name__}: expected a model whose towers are apart, as IntTower's and DSSM's are; one "
                "that needs the pair has nothing to compute ahead."
            )
        if getattr(model, "maxsim_temperature", 0.0):
            raise UserError(
                f"--maxsim-temperature: expected 0, since an index scores by MaxSim, got {model.maxsim_temperature:g}; "
                "train without it."
            )
        check_weights(model, type(model).__name__)
        self.model = model.eval()
        joint = model.interaction if hasattr(model, "interaction") else model.similarity
        self.user_head, self.num_heads = (joint.user_head, joint.item_head) if isinstance(joint, FEBlock) else (1, 1)
        self.temperature = None
        if isinstance(joint, SoftMaxSim):
            self.user_head, self.temperature = joint.num_codes, joint.temperature
        is_divided = getattr(joint, "kind", None) == "temperature"
        self.scale = 1 / joint.log_temperature.exp().item() if is_divided else 1.0
        self.bias = joint.bias.item()
        trained = model.levels if isinstance(joint, FEBlock) else [0]
        self.levels = _places(levels, trained)
        self._check(len(trained))

    @property
    def num_user_heads(self) -> int:
        """Q, over all levels that are served."""
        return len(self.levels) * self.user_head

    def user(self, features: dict[str, Tensor]) -> Tensor:
        """(B, Q, K)"""
        return self._user_heads(self.model.encode_user(features))

    def item(self, features: dict[str, Tensor]) -> Tensor:
        """(B, G, K)"""
        return self._item_heads(self.model.encode_item(features))

    def _user_heads(self, user: list[Tensor]) -> Tensor:
        levels = [user[level].unflatten(1, (self.user_head, -1)) for level in self.levels]
        heads_BQK = torch.cat(levels, dim=1) * self.scale
        if not self.has_biases:
            return heads_BQK
        more_B2 = torch.cat([torch.ones_like(user[-1]), user[-1]], dim=1) / self.num_user_heads
        return _with(more_B2, heads_BQK)

    def _item_heads(self, item: list[Tensor]) -> Tensor:
        heads_BGK = item[0].unflatten(1, (self.num_heads, -1))
        if not self.has_biases:
            return heads_BGK
        return _with(torch.cat([item[-1], torch.ones_like(item[-1])], dim=1), heads_BGK)

    @torch.inference_mode()
    def _check(self, num_levels: int) -> None:
        """Learn the head size and whether there are biases; see that the model's own `score` is this form."""
        rows = blank_rows(self.model.columns, 4)
        user, item = self.model.encode_user(rows), self.model.encode_item(rows)
        self.has_biases = len(user) > num_levels
        self.head_dim = self._item_heads(item).shape[2]
        generator = torch.Generator().manual_seed(0)
        user, item = ([torch.randn(part.shape, generator=generator) for part in side] for side in (user, item))
        scored = self.model.score(user, item)
        served, self.levels = self.levels, list(range(num_levels))
        by_levels = {"all": self._score(user, item)}
        self.levels = served
        by_levels["served"] = self._score(user, item)
        if not any(torch.allclose(scored, ours, rtol=1e-4, atol=1e-4) for ours in by_levels.values()):
            raise UserError(
                "fe_score of preprocessing/utils.py: expected the sum of MaxSim over the levels that are served, got "
                f"another score; undo its edit and choose the levels here (served now: {served})."
            )

    def _score(self, user: list[Tensor], item: list[Tensor]) -> Tensor:
        users, items = self._user_heads(user), self._item_heads(item)
        pairs = zip(users.numpy()[:, None], items.numpy()[:, None], strict=True)
        scores = [maxsim(user_1QK, item_1GK, temperature=self.temperature)[0] for user_1QK, item_1GK in pairs]
        return torch.tensor([score.item() for score in scores]) + self.bias


def _with(more_B2: Tensor, heads_BHK: Tensor) -> Tensor:
    """Heads (B, H, K + 2), each with two numbers of its row behind it."""
    return torch.cat([heads_BHK, more_B2[:, None].expand(-1, heads_BHK.shape[1], -1)], dim=2)


def _places(levels: Levels, trained: list[int]) -> list[int]:
    """Where the levels to serve stand among those that the model scores."""
    wanted = {"all": trained, "last": trained[-1:]}.get(levels, levels) if isinstance(levels, str) else levels
    if not wanted or isinstance(wanted, str) or not set(wanted) <= set(trained):
        raise UserError(f"levels: expected 'all', 'last' or some of {trained}, which were trained, got {levels!r}.")
    return [trained.index(level) for level in sorted(set(wanted))]


def check_weights(model: nn.Module, where: str) -> None:
    """Raise UserError where a weight is NaN or infinite: nothing that such a model says can be ranked by."""
    for name, weights in model.state_dict().items():
        if not weights.isfinite().all():
            raise UserError(
                f"{where}: expected finite weights, got NaN or infinite ones in {name}; train again, with a lower "
                "learning rate if the loss ran away."
            )


def blank_rows(columns: list, num_rows: int) -> dict[str, Tensor]:
    """Features of the right shapes, all 0."""
    features = {}
    for column in columns:
        width = getattr(column, "maxlen", None) or getattr(column, "dimension", 1)
        dtype = torch.float32 if isinstance(column, DenseFeat) else torch.int32
        shape = (num_rows, width) if isinstance(column, DenseFeat | VarLenSparseFeat) else (num_rows,)
        features[column.name] = torch.zeros(shape, dtype=dtype)
        if getattr(column, "length_name", None) is not None:
            features[column.length_name] = torch.ones(num_rows, dtype=torch.int32)
    return features
