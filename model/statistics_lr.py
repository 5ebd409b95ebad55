"""StatisticsLR: logistic regression on the dense features alone, what any network must beat.

A table that has it shows how much of a score is counting: the means of the label by user and item, and the price.
"""

from model.lr import LR
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, as_columns


class StatisticsLR(LR):
    """LR without ids and categories: one weight per dense input, plus a bias.

    Args:
        linear_feature_columns: all columns, users' and items'; those that are not dense are left out.
        device: where the parameters are put.
    Raises UserError where no column is dense.
    """

    def __init__(self, linear_feature_columns: list, task: str = "binary", device: str = "cpu"):
        dense = [column for column in as_columns(linear_feature_columns) if isinstance(column, DenseFeat)]
        if not dense:
            raise UserError("StatisticsLR: expected a dense column, such as a mean of the label, got none; use LR.")
        super().__init__(dense, task, device)
