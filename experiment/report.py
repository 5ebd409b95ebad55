"""What a run says on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from experiment.code_version import PROJECT
from experiment.folder import LEARNING_CURVE

PUBLISHED = PROJECT / "results" / "published.json"

SYNTHETIC_BANNER = """\
###############################################################################
#  SYNTHETIC DATA, invented by preprocessing/sample.py.                       #
#  The numbers below say that the code runs; they say nothing of real users.  #
###############################################################################"""


def print_report(record: dict, folder: Path) -> None:
    """The result as a table, and under it what a reader must know before quoting a number."""
    test = record["test"]
    names = ("model", "protocol", "AUC", "logloss", "gAUC", "epochs (best)", "train time", "samples/s")
    values = (
        record["model"],
        record["protocol"] + (" (labels leak)" if record["labels_leak"] else ""),
        f"{test['auc']:.4f}",
        f"{test['logloss']:.4f}",
        f"{test['gauc']:.4f}",
        f"{record['epochs']} ({record['best_epoch']})",
        f"{record['train_seconds']:.0f} s",
        f"{record['samples_per_second']:,.0f}",
    )
    widths = [max(len(name), len(value)) for name, value in zip(names, values, strict=True)]
    synthetic = " (SYNTHETIC)" if record["synthetic"] else ""
    print(f"\ntest split of {record['dataset']}{synthetic}, seed {record['seed']}, {record['device']}")
    print("  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True)))
    print("  ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)))
    for line in [*_strangers(record), *_repeated_rows(record), *_remarks(record)]:
        print(line)
    # A picture that could not be drawn is not promised.
    curve = ["learning curve"] if (folder / LEARNING_CURVE).is_file() else []
    *kept, last = "record", "checkpoint", "encoders", *curve
    print(f"{', '.join(kept)} and {last}: {folder}/")


def _strangers(record: dict) -> list[str]:
    """How users (and items) that training has and has not are ranked, where the others are one in a hundred or more."""
    lines = []
    for tower, parts in record.get("strangers", {}).items():  # none in a record of an older version
        seen, unseen = parts["seen"], parts["unseen"]
        if unseen["rows"] >= 0.01 * (seen["rows"] + unseen["rows"]):
            of_seen, of_unseen = ("none" if p["auc"] is None else f"{p['auc']:.4f}" for p in (seen, unseen))
            lines.append(
                f"AUC on {seen['rows']:,} rows of {tower}s of training {of_seen}, on {unseen['rows']:,} of others "
                f"{of_unseen}."
            )
    return lines


def _repeated_rows(record: dict) -> list[str]:
    repeated = record["counts"].get("test_rows_with_pair_and_label_in_train", 0)  # none in a record of an older version
    if not repeated:
        return []
    share = repeated / record["counts"]["test"]
    return [f"{repeated:,} test rows ({share:.1%}) have user, item and label of a training row, at another time."]


def _remarks(record: dict) -> list[str]:
    if record["synthetic"]:
        best = record["best_possible_test_auc"]
        return [f"best possible AUC on this test split, by the generator's own probabilities: {best:.4f}"]
    published = json.loads(PUBLISHED.read_text()).get(record["dataset"], {}).get(record["model"])
    if published is None:
        return []
    if record["settings"].get("sample_rate", 1) < 1:
        return ["trained and tested on a share of the users: not to be compared with published figures."]
    figures = f"AUC {published[0]:.4f}, logloss {published[1]:.4f}"
    if not any("mean_rating" in name for name in record["dense_feature_test_auc"]):
        return [f"published for {record['model']}: {figures}; no feature here is made of labels, so none leaks."]
    if record["labels_leak"]:
        return [
            f"published for {record['model']}: {figures}",
            "labels leak: rating means are taken over the very rows that are scored; compare with the paper only.",
        ]
    return [
        f"the paper reports {figures}; the code released with it computes features from the labels of the scored "
        "rows. Here a row's features know nothing of its label, so this is not the same measurement."
    ]
