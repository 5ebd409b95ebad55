"""What several seeds and many test users say of a difference: paired tests, their correction, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from scipy import stats
from tqdm import tqdm

RESAMPLES = 1000


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """The mean and the standard deviation of a sample (n - 1), nan for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def relative_improvement(auc: float, auc_of_base: float) -> float:
    """RelaImpr: how much more of the way from .5, in percent, than the base model (Yan et al., ICML 2014)."""
    return 100 * ((auc - 0.5) / (auc_of_base - 0.5) - 1)


def paired_p_value(ours: list[float], theirs: list[float]) -> float:
    """Two-sided p of a paired t-test over seeds; nan for fewer than two pairs, or where all differences are equal."""
    differences = np.subtract(ours, theirs)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return float("nan")
    return float(stats.ttest_rel(ours, theirs).pvalue)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """p-values corrected for the number of comparisons (Holm, 1979); a nan counts as a comparison and stays nan."""
    adjusted, largest = {}, 0.0
    for i, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: (np.isnan(item[1]), item[1]))):
        largest = max(largest, min(1.0, (len(p_values) - i) * p)) if not np.isnan(p) else float("nan")
        adjusted[name] = largest
    return adjusted


def bootstrap_aucs(
    labels: np.ndarray,
    logits: dict[Hashable, np.ndarray],
    groups: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Hashable, np.ndarray]:
    """AUCs of runs on test sets whose users are drawn anew, with replacement, and bring all of their rows.

    Args:
        labels, groups: (N,) the label and the user of each row.
        logits: (N,) of each run.
    Returns:
        for each run (resamples,). All runs meet the same draws, so a difference of two is paired.
    """
    _, user_of_row = np.unique(groups, return_inverse=True)
    num_users = user_of_row.max() + 1
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(num_users, np.full(num_users, 1 / num_users), size=resamples)
    bar = tqdm(logits.items(), desc="bootstrap", unit="run", leave=False, disable=None)
    return {run: _weighted_aucs(labels, scores, user_of_row, draws) for run, scores in bar}


def _weighted_aucs(labels: np.ndarray, scores: np.ndarray, user_of_row: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(len(draws),) the AUC where each row counts as often as its user was drawn; ties count half."""
    order = np.argsort(scores, kind="stable")
    positive, user_of_row = labels[order] > 0.5, user_of_row[order]
    # Of each positive row: how many rows stand before its run of tied scores, and how many before the next run.
    sorted_scores = scores[order]
    first = np.searchsorted(sorted_scores, sorted_scores[positive], side="left")
    behind = np.searchsorted(sorted_scores, sorted_scores[positive], side="right")
    aucs = np.empty(len(draws))
    negatives_before = np.zeros(len(labels) + 1)
    for i, draw in enumerate(draws):
        weights = draw[user_of_row].astype(np.float64)
        np.cumsum(np.where(positive, 0.0, weights), out=negatives_before[1:])
        of_positives = weights[positive]
        beaten = (negatives_before[first] + negatives_before[behind]) / 2
        aucs[i] = of_positives @ beaten / (of_positives.sum() * negatives_before[-1])
    return aucs


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
