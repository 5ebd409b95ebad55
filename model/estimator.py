"""What every model here is: logits from a dict of features."""

from __future__ import annotations

from torch import nn

from preprocessing.errors import UserError


class Estimator(nn.Module):
    """A module that gives logits (B,) for a dict of features.

    Args:
        columns: all feature columns.
        task: "binary"; the name is deepctr-torch's, which knows others.
    """

    auxiliary = False  # True: called with labels, the model gives its auxiliary losses too

    def __init__(self, columns: list, task: str = "binary"):
        super().__init__()
        if task != "binary":
            raise UserError(f"task: expected 'binary', got {task!r}; the models here give the logit of a click.")

    @classmethod
    def from_columns(cls, user_feature_columns: list, item_feature_columns: list, **options) -> Estimator:
        """The constructor under the name and with the columns that every model here takes."""
        return cls(user_feature_columns, item_feature_columns, **options)
