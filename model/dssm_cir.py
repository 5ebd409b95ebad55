"""The plain two-tower model trained with IntTower's contrastive loss: what CIR alone is worth."""

from torch import Tensor

from model.dssm import DSSM
from model.IntTower import CIR, contrasted_item_id


class DSSMCIR(DSSM):
    """DSSM with CIR beside the cross-entropy, on the very vectors whose similarity is the logit.

    Args:
        cir_weight: CIR's share in the loss; 0 leaves it out, and DSSM remains.
        cir_temperature: see CIR.
        options: those of DSSM. The first SparseFeat of the item tower is taken as the item's id.
    """

    auxiliary = True

    def __init__(
        self,
        user_feature_columns: list,
        item_feature_columns: list,
        cir_weight: float = 1.0,
        cir_temperature: float = 0.1,
        **options,
    ):
        super().__init__(user_feature_columns, item_feature_columns, **options)
        self.cir = CIR(cir_temperature)
        self.cir_weight = cir_weight
        self.item_id = contrasted_item_id(item_feature_columns, cir_weight)

    def forward(self, features: dict[str, Tensor], labels: Tensor | None = None):
        """Logits (B,); with labels, also the auxiliary losses by name, each weighted as it enters the loss."""
        user, item = self.encode_user(features), self.encode_item(features)
        logits_B = self.score(user, item)
        if labels is None:
            return logits_B
        losses = {}
        if self.cir_weight:
            losses["cir"] = self.cir_weight * self.cir(user[0], item[0], labels, features[self.item_id])
        return logits_B, losses
