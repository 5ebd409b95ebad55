"""COLD: a single light network for pre-ranking, with feature selection and crosses (Wang et al., DLP-KDD 2020).

Shapes: B batch, U user fields, V item fields, M = U + V + U * V feature groups, D embedding size, N dense inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.estimator import Estimator
from model.layers import MLP, FieldEmbedding, check_hidden_units, concatenate
from preprocessing.errors import UserError


class SEBlock(nn.Module):
    """Weigh each feature group by all of them: s = sigmoid(W [e_1 .. e_M] + b), then s_i * e_i (COLD, section 4.2).

    Unlike LightSE's softmax, the weights do not compete; a group whose weight is near 0 on average can be dropped.
    """

    def __init__(self, num_groups: int, embedding_dim: int):
        super().__init__()
        self.excitation = nn.Linear(num_groups * embedding_dim, num_groups)

    def weights(self, groups_BMD: Tensor) -> Tensor:
        """The weight of each group, (B, M) in (0, 1)."""
        return self.excitation(groups_BMD.flatten(1)).sigmoid()

    def forward(self, groups_BMD: Tensor) -> Tensor:
        return groups_BMD * self.weights(groups_BMD).unsqueeze(-1)


class COLD(Estimator):
    """One network over all fields and the products of each user field with each item field, weighed by an SE block.

    Nothing can be computed ahead per item: the crosses need the pair.

    Args:
        user_feature_columns, item_feature_columns: the columns; embedding_dim must be one throughout.
        dnn_hidden_units: widths of the layers.
        groups: the feature groups to use, as `group_names` and `importance` name them, or "all", or "fields", which
            leaves the crosses out. COLD picks them by importance in a first training and trains again with those it
            keeps.
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
        groups: list[str] | str | None = "all",
        init_std: float = 0.01,
    ):
        super().__init__([*user_feature_columns, *item_feature_columns], task)
        check_hidden_units(dnn_hidden_units)
        self.user_embedding = FieldEmbedding(user_feature_columns, init_std)
        self.item_embedding = FieldEmbedding(item_feature_columns, init_std)
        users, items = self.user_embedding, self.item_embedding
        if not users.num_fields or users.embedding_dim != items.embedding_dim:
            got = f"{users.num_fields} of {users.embedding_dim} and {items.num_fields} of {items.embedding_dim}"
            raise UserError(
                "columns: expected sparse or varlen fields of one embedding_dim on both sides, since COLD multiplies "
                f"them, got {got}; make them equal."
            )
        crosses = [f"{user} x {item}" for user in users.field_names for item in items.field_names]
        fields = [*users.field_names, *items.field_names]
        every_group = [*fields, *crosses]
        self.group_names = _chosen(fields if groups == "fields" else groups, every_group)
        kept = [every_group.index(name) for name in self.group_names]
        self.register_buffer("kept_groups", torch.tensor(kept) if len(kept) < len(every_group) else None)
        self.se_block = SEBlock(len(kept), users.embedding_dim)
        width = len(kept) * users.embedding_dim + users.num_dense + items.num_dense
        self.mlp = MLP(width, dnn_hidden_units, dnn_dropout)
        self.output = nn.Linear(dnn_hidden_units[-1], 1)
        self.to(device)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.output.bias

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        groups_BMD, dense = self._groups(features)
        hidden_BW = self.mlp(concatenate(self.se_block(groups_BMD), *dense))[-1]
        return self.output(hidden_BW)[:, 0]

    @torch.no_grad()
    def importance(self, features: dict[str, Tensor]) -> dict[str, float]:
        """The mean weight of each feature group over the rows, the most important first."""
        groups_BMD, _ = self._groups(features)
        means = self.se_block.weights(groups_BMD).mean(0).tolist()
        return dict(sorted(zip(self.group_names, means, strict=True), key=lambda pair: -pair[1]))

    def _groups(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor | None]]:
        user_BUD, user_dense_BN = self.user_embedding(features)
        item_BVD, item_dense_BN = self.item_embedding(features)
        crosses_BUVD = user_BUD[:, :, None] * item_BVD[:, None]
        groups_BMD = torch.cat([user_BUD, item_BVD, crosses_BUVD.flatten(1, 2)], dim=1)
        if self.kept_groups is not None:
            groups_BMD = groups_BMD[:, self.kept_groups]
        return groups_BMD, [user_dense_BN, item_dense_BN]


def _chosen(groups: list[str] | str | None, every_group: list[str]) -> list[str]:
    if groups is None or groups == "all":
        return every_group
    if isinstance(groups, str):
        raise UserError(f"groups: expected all, fields or a list of names, got {groups!r}.")
    unknown = [name for name in groups if name not in every_group]
    if unknown or not groups:
        raise UserError(f"groups: expected some of {', '.join(every_group)}, got {', '.join(unknown) or 'none'}.")
    return [name for name in every_group if name in groups]
