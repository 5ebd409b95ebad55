"""README's tables, made from the records under results/.

    python -m figure.results_table

In README.md each table stands between `<!-- records: FOLDER -->` and `<!-- end -->`; FOLDER names the records.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from preprocessing.files import write_atomically

PROJECT = Path(__file__).resolve().parent.parent
README = PROJECT / "README.md"
RESULTS = PROJECT / "results"

Columns = dict[str, Callable[[dict], str]]

_PUBLISHED = json.loads((RESULTS / "published.json").read_text())
_MEASURES: Columns = {
    "test AUC": lambda r: f"{r['test']['auc']:.4f}",
    "test logloss": lambda r: f"{r['test']['logloss']:.4f}",
    "test gAUC": lambda r: f"{r['test']['gauc']:.4f}",
}
_VALIDATION: Columns = {
    "valid AUC": lambda r: f"{r['valid']['auc']:.4f}",
    "valid logloss": lambda r: f"{r['valid']['logloss']:.4f}",
}
_EFFORT: Columns = {
    "epochs (best)": lambda r: f"{r['epochs']} ({r['best_epoch']})",
    "training": lambda r: f"{r['train_seconds'] / 60:.1f} min",
}


def _changed(record: dict) -> str:
    """The flags by which a record's run differs from the default run."""
    default = json.loads((RESULTS / record["dataset"] / "protocols" / "strict.json").read_text())["settings"]
    changed = {name: value for name, value in record["settings"].items() if value != default[name]}
    return " ".join(f"`--{name.replace('_', '-')} {value}`" for name, value in changed.items()) or "none (the default)"


def _published(record: dict) -> str:
    auc, logloss = _PUBLISHED[record["dataset"]][record["model"]]
    return f"{auc:.4f} / {logloss:.4f}"


# For each folder of records: the order of its rows, and its columns.
TABLES: dict[str, tuple[Callable[[dict], object], Columns]] = {
    "movielens/protocols": (
        lambda r: ("strict", "temporal", "paper").index(r["protocol"]),
        {
            "protocol": lambda r: f"`{r['protocol']}`" + (" (labels leak)" if r["labels_leak"] else ""),
            **_MEASURES,
            "published AUC / logloss": _published,
            "AUC of user mean alone": lambda r: f"{r['dense_feature_test_auc']['user_mean_rating']:.4f}",
            "AUC of item mean alone": lambda r: f"{r['dense_feature_test_auc']['item_mean_rating']:.4f}",
            **_EFFORT,
            "samples/s": lambda r: f"{r['samples_per_second']:,.0f}",
            "peak memory": lambda r: f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
        },
    ),
    "movielens/cir": (
        lambda r: (r["settings"]["cir_weight"], r["settings"]["cir_temperature"]),
        {
            "weight": lambda r: f"{r['settings']['cir_weight']:g}",
            "temperature": lambda r: f"{r['settings']['cir_temperature']:g}" if r["settings"]["cir_weight"] else "-",
            **_VALIDATION,
            **_MEASURES,
            **_EFFORT,
        },
    ),
    "movielens/variations": (
        lambda r: (_changed(r) != "none (the default)", _changed(r)),
        {"changed settings": _changed, **_VALIDATION, **_MEASURES, **_EFFORT},
    ),
}


def read_records(folder: str) -> list[dict]:
    """The records of one table, in the order of its rows."""
    order, _ = TABLES[folder]
    return sorted((json.loads(path.read_text()) for path in (RESULTS / folder).glob("*.json")), key=order)


def markdown_table(folder: str) -> str:
    """The table of one folder of records."""
    _, columns = TABLES[folder]
    rows = [[cell(record) for cell in columns.values()] for record in read_records(folder)]
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def with_tables(readme: str) -> str:
    """README's text with every table made anew."""
    pattern = re.compile(r"(<!-- records: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{markdown_table(match[2])}\n{match[3]}", readme)


if __name__ == "__main__":
    write_atomically(README, with_tables(README.read_text()).encode())
