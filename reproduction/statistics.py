"""What several seeds and many test users say of a difference: paired tests, their correction, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from scipy import stats
from tqdm import trange

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
    rankings = {run: _Ranking(labels, scores, user_of_row) for run, scores in logits.items()}
    generator = np.random.default_rng(seed)
    aucs = {run: np.empty(resamples) for run in logits}
    for i in trange(resamples, desc="bootstrap", leave=False, disable=None):
        times_drawn = generator.multinomial(num_users, np.full(num_users, 1 / num_users)).astype(np.float64)
        for run, ranking in rankings.items():
            aucs[run][i] = ranking.auc(times_drawn)
    return aucs


class _Ranking:
    """Rows in the order of their scores, for AUCs in which each row counts as often as its user was drawn."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray, user_of_row: np.ndarray):
        order = np.argsort(scores, kind="stable")
        scores, positive = scores[order], labels[order] > 0.5
        self.positive_users = user_of_row[order][positive]
        self.negative_users = user_of_row[order][~positive]
        # Of each positive row: the negatives below it, and those below it or tied with it.
        self.below = np.searchsorted(scores[~positive], scores[positive], side="left")
        self.not_above = np.searchsorted(scores[~positive], scores[positive], side="right")

    def auc(self, times_drawn: np.ndarray) -> float:
        """The AUC where user u counts times_drawn[u] times; ties count half."""
        weights = times_drawn[self.positive_users]
        negatives = np.concatenate([[0.0], np.cumsum(times_drawn[self.negative_users])])
        beaten = (negatives[self.below] + negatives[self.not_above]) / 2
        return float(weights @ beaten / (weights.sum() * negatives[-1]))


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
