"""What the tests of the synthetic samples and of the real Amazon reviews share."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_ranked_and_calibrated(
    labels: np.ndarray, probabilities: np.ndarray, bounds, tolerance: float, least_auc: float = 0.75
) -> None:
    """The probabilities rank the labels well, and between two bounds their mean is that of the labels."""
    assert probabilities.min() > 0
    assert probabilities.max() < 1
    assert least_auc < roc_auc_score(labels, probabilities) < 0.95
    for low, high in pairwise(bounds):
        among = (probabilities >= low) & (probabilities < high)
        assert labels[among].mean() == pytest.approx(probabilities[among].mean(), abs=tolerance)


def real_amazon_reviews() -> Path:
    """The first 290 reviews of the real Electronics, in the folder that INTTOWER_DATA names; else a skip."""
    path = Path(os.environ.get("INTTOWER_DATA", "")) / "amazon" / "reviews_Electronics_5.head290.json.gz"
    if not path.is_file():
        pytest.skip(f"needs real Amazon reviews: no amazon/{path.name} in INTTOWER_DATA")
    return path
