"""README's tables and printed output, made from what is recorded under results/.

    python -m figure.results_table

In README.md a table stands between `<!-- records: FOLDER -->` and `<!-- end -->`, the output of a command between
`<!-- output: FILE -->` and `<!-- end -->`; both are paths under results/.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.settings import as_flag
from preprocessing.files import write_atomically

PROJECT = Path(__file__).resolve().parent.parent
README = PROJECT / "README.md"
RESULTS = PROJECT / "results"
DEFAULT_RUN = RESULTS / "movielens" / "protocols" / "strict.json"

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
_THREADS: Columns = {"threads": lambda r: f"{r['num_threads']}"}
_EFFORT: Columns = {
    "epochs (best)": lambda r: f"{r['epochs']} ({r['best_epoch']})",
    "training": lambda r: f"{r['train_seconds'] / 60:.1f} min",
}


def _changed(record: dict) -> str:
    """The flags by which a record's run differs from the default run."""
    default = json.loads(DEFAULT_RUN.read_text())["settings"]
    changed = {name: value for name, value in record["settings"].items() if value != default.get(name)}
    return " ".join(f"`{as_flag(name, value)}`" for name, value in changed.items())


def _published(record: dict) -> str:
    if not record["labels_leak"]:
        return "not comparable"
    auc, logloss = _PUBLISHED[record["dataset"]][record["model"]]
    return f"{auc:.4f} / {logloss:.4f}"


@dataclass
class ResultTable:
    """A table of the records in one folder; `with_default` adds the default run's record to them."""

    order: Callable[[dict], object]
    columns: Columns
    with_default: bool = False


_PROTOCOLS = ResultTable(
    lambda r: ("strict", "temporal", "paper").index(r["protocol"]),
    {
        "protocol": lambda r: f"`{r['protocol']}`" + (" (labels leak)" if r["labels_leak"] else ""),
        **_MEASURES,
        "published AUC / logloss": _published,
        "AUC of user mean alone": lambda r: f"{r['dense_feature_test_auc']['user_mean_rating']:.4f}",
        "AUC of item mean alone": lambda r: f"{r['dense_feature_test_auc']['item_mean_rating']:.4f}",
        **_EFFORT,
        "samples/s": lambda r: f"{r['samples_per_second']:,.0f}",
        **_THREADS,
        "peak memory": lambda r: f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
    },
)

TABLES = {
    "movielens/protocols": _PROTOCOLS,
    "movielens/one_thread": _PROTOCOLS,
    "movielens/cir": ResultTable(
        lambda r: (r["settings"]["cir_weight"], r["settings"]["cir_temperature"]),
        {
            "weight": lambda r: f"{r['settings']['cir_weight']:g}",
            "temperature": lambda r: f"{r['settings']['cir_temperature']:g}" if r["settings"]["cir_weight"] else "-",
            **_VALIDATION,
            **_MEASURES,
            **_EFFORT,
            **_THREADS,
        },
        with_default=True,
    ),
    "movielens/variations": ResultTable(
        _changed,
        {"changed settings": lambda r: _changed(r) or "none", **_VALIDATION, **_MEASURES, **_EFFORT, **_THREADS},
        with_default=True,
    ),
}


def read_records(folder: str) -> list[dict]:
    """The records of one table, in the order of its rows."""
    paths = [*(RESULTS / folder).glob("*.json"), *([DEFAULT_RUN] if TABLES[folder].with_default else [])]
    return sorted((json.loads(path.read_text()) for path in paths), key=TABLES[folder].order)


def markdown_table(folder: str) -> str:
    """The table of one folder of records."""
    columns = TABLES[folder].columns
    rows = [[cell(record) for cell in columns.values()] for record in read_records(folder)]
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def recorded_output(file: str) -> str:
    """What a command printed, as a block; of many epochs only the first two and the last are shown."""
    lines = (RESULTS / file).read_text().rstrip().split("\n")
    epochs = [i for i, line in enumerate(lines) if line.startswith("epoch ")]
    if len(epochs) > 4:
        lines[epochs[2] : epochs[-1]] = ["..."]
    return "\n".join(["```", *lines, "```"])


def with_results(readme: str) -> str:
    """README's text with every table and output made anew."""
    make = {"records": markdown_table, "output": recorded_output}
    pattern = re.compile(r"(<!-- (records|output): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{make[match[2]](match[3])}\n{match[4]}", readme)


if __name__ == "__main__":
    write_atomically(README, with_results(README.read_text()).encode())
