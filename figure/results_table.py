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

from model import MODELS
from model.settings import as_flag
from preprocessing.files import write_atomically

PROJECT = Path(__file__).resolve().parent.parent
README = PROJECT / "README.md"
RESULTS = PROJECT / "results"
DEFAULT_RUN = RESULTS / "movielens" / "protocols" / "strict.json"
ONE_THREAD_RUNS = RESULTS / "movielens" / "one_thread"  # of IntTower, a record per protocol
MODEL_RUNS = RESULTS / "movielens" / "models"  # of the other models, a folder per protocol

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
    """The flags, but for the model and the protocol, by which a record's run differs from the default command's."""
    default = json.loads(DEFAULT_RUN.read_text())["settings"]
    if record["model"] != "IntTower":
        own = json.loads((MODEL_RUNS / "strict" / f"{record['model']}.json").read_text())["settings"]
        default = own | {name: value for name, value in default.items() if name in own}
    default |= {"model": record["model"], "protocol": record["protocol"]}
    changed = {name: value for name, value in record["settings"].items() if value != default.get(name)}
    return " ".join(f"`{as_flag(name, value)}`" for name, value in changed.items())


def _model(record: dict) -> str:
    return f"`{record['model']}` {_changed(record)}".strip()


def _published(record: dict) -> str:
    if record["protocol"] != "paper":
        return "not comparable"
    auc, logloss = _PUBLISHED[record["dataset"]][record["model"]]
    return f"{auc:.4f} / {logloss:.4f}"


# What each model is, and what of it can be computed before a request comes.
_ABOUT = {
    "LR": ("one weight per feature value", "additive", "a number per item"),
    "DSSM": ("[Huang et al., CIKM 2013](https://doi.org/10.1145/2505515.2505665)", "two towers", "item vectors"),
    "DAT": ("Yu et al., DLP-KDD 2021", "two towers", "item vectors"),
    "IntTower": ("[Li et al., CIKM 2022](https://arxiv.org/abs/2210.09890)", "two towers, MaxSim", "item heads"),
    "COLD": ("[Wang et al., DLP-KDD 2020](https://arxiv.org/abs/2007.16122)", "cross", "nothing"),
    "WDL": ("[Cheng et al., DLRS 2016](https://arxiv.org/abs/1606.07792)", "cross", "nothing"),
    "DeepFM": ("[Guo et al., IJCAI 2017](https://arxiv.org/abs/1703.04247)", "cross", "nothing"),
    "DCN": ("[Wang et al., ADKDD 2017](https://arxiv.org/abs/1708.05123)", "cross", "nothing"),
    "AutoInt": ("[Song et al., CIKM 2019](https://arxiv.org/abs/1810.11921)", "cross", "nothing"),
}


@dataclass
class ResultTable:
    """A table of the records in one folder, and of further ones that stand elsewhere."""

    order: Callable[[dict], object]
    columns: Columns
    further: tuple[Path, ...] = ()
    folder: str | None = None  # where the records are, if not in the folder of the table's name


def _protocol(record: dict) -> str:
    return f"`{record['protocol']}`" + (" (labels leak)" if record["labels_leak"] else "")


_PROTOCOLS = ResultTable(
    lambda r: ("strict", "temporal", "paper").index(r["protocol"]),
    {
        "protocol": _protocol,
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

_MODEL_MEASURES: Columns = {
    **_VALIDATION,
    **_MEASURES,
    **_EFFORT,
    "samples/s": lambda r: f"{r['samples_per_second']:,.0f}",
    **_THREADS,
}


def _by_auc(record: dict) -> float:
    return -record["test"]["auc"]


def _published_rank(record: dict) -> str:
    published = _PUBLISHED[record["dataset"]]
    by_auc = sorted(published, key=lambda model: -published[model][0])
    return f"{by_auc.index(record['model']) + 1}"


TABLES = {
    "movielens/about": ResultTable(
        lambda r: list(_ABOUT).index(r["model"]),
        {
            "model": lambda r: f"`{r['model']}`",
            "paper": lambda r: _ABOUT[r["model"]][0],
            "kind": lambda r: _ABOUT[r["model"]][1],
            "computed ahead": lambda r: _ABOUT[r["model"]][2],
            "parameters": lambda r: f"{r['num_parameters']:,}",
            "the import": lambda r: f"`from {MODELS[r['model']]} import {r['model']} as Model`",
        },
        further=(DEFAULT_RUN,),
        folder="movielens/models/strict",
    ),
    "movielens/models/strict": ResultTable(
        _by_auc, {"model": _model, **_MODEL_MEASURES}, further=(ONE_THREAD_RUNS / "strict.json",)
    ),
    "movielens/models/paper": ResultTable(
        _by_auc,
        {
            "model": _model,
            **_MEASURES,
            "published AUC / logloss": _published,
            "published rank": _published_rank,
            **_EFFORT,
            **_THREADS,
        },
        further=(ONE_THREAD_RUNS / "paper.json",),
    ),
    "movielens/handicaps": ResultTable(
        lambda r: (r["protocol"], r["test"]["auc"]),
        {
            "protocol": _protocol,
            "changed settings": lambda r: _changed(r) or "none",
            **_MEASURES,
            "published AUC / logloss": _published,
            **_EFFORT,
        },
        further=(MODEL_RUNS / "strict" / "DSSM.json", MODEL_RUNS / "paper" / "DSSM.json"),
    ),
    "movielens/tuning": ResultTable(
        lambda r: (list(_ABOUT).index(r["model"]), _changed(r)),
        {"model": lambda r: r["model"], "changed settings": lambda r: _changed(r) or "none", **_MODEL_MEASURES},
        further=tuple(
            MODEL_RUNS / "strict" / f"{model}.json"
            for model in ("LR", "DSSM", "DAT", "WDL", "DeepFM", "DCN", "AutoInt")
        ),
    ),
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
        further=(DEFAULT_RUN,),
    ),
    "movielens/variations": ResultTable(
        _changed,
        {"changed settings": lambda r: _changed(r) or "none", **_VALIDATION, **_MEASURES, **_EFFORT, **_THREADS},
        further=(DEFAULT_RUN,),
    ),
}


def read_records(folder: str) -> list[dict]:
    """The records of one table, in the order of its rows."""
    paths = [*(RESULTS / (TABLES[folder].folder or folder)).glob("*.json"), *TABLES[folder].further]
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
