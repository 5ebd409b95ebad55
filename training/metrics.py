"""AUC, logloss and gAUC over a whole split, from logits."""

import numpy as np


def evaluate(labels: np.ndarray, logits: np.ndarray, groups: np.ndarray | None = None) -> dict[str, float]:
    """AUC and logloss of a split and, where groups are given, gAUC.

    Args:
        labels: (N,) in {0, 1}; both must occur.
        logits: (N,), before the sigmoid.
        groups: (N,) the user of each row.
    """
    metrics = {"auc": auc(labels, logits), "logloss": logloss(labels, logits)}
    if groups is not None:
        metrics["gauc"] = group_auc(labels, logits, groups)
    return metrics


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of all rows together."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def logloss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross-entropy in nats, in float64; no probability is clipped."""
    logits = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def group_auc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """AUC within each group, averaged with the groups' numbers of rows as weights; nan where no group counts.

    A group of one class has no AUC and is left out. Ties count half (Zhu et al., KDD 2018, for the weighting).
    """
    if len(labels) == 0:
        return float("nan")
    order = np.lexsort((scores, groups))
    labels, scores, groups = labels[order].astype(np.float64), scores[order], groups[order]
    new_group = np.append(True, groups[1:] != groups[:-1])
    new_score = new_group | np.append(True, scores[1:] != scores[:-1])
    first_of_group = np.flatnonzero(new_group)
    group_of_row = np.cumsum(new_group) - 1
    # The mean rank of a run of tied scores, counted from 1 within its group.
    first_of_run = np.flatnonzero(new_score)
    run_length = np.diff(np.append(first_of_run, len(order)))
    mean_position = first_of_run + (run_length - 1) / 2
    rank = np.repeat(mean_position, run_length) - first_of_group[group_of_row] + 1
    num_rows = np.bincount(group_of_row)
    num_positive = np.bincount(group_of_row, weights=labels)
    rank_sum = np.bincount(group_of_row, weights=labels * rank)
    num_pairs = num_positive * (num_rows - num_positive)
    counts = num_pairs > 0
    if not counts.any():
        return float("nan")
    aucs = (rank_sum - num_positive * (num_positive + 1) / 2)[counts] / num_pairs[counts]
    return float(np.average(aucs, weights=num_rows[counts]))
