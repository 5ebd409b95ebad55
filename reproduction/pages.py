"""The pages' tables and printed output, made from what is recorded under results/.

    python -m reproduction.pages

In README.md, docs/ and results/README.md stand, each up to `<!-- end -->`, after `<!-- table: FILE -->` a table that
reproduce.py wrote, after `<!-- output: FILE -->` what a command printed, or with `<!-- output: FILE 1-10 -->` those
lines of it, and after `<!-- runs: NAME -->` a table with a row per record (RUNS below). FILE is a path under results/.
"""

from __future__ import annotations

import sys

from preprocessing.command import Parser, exit_code, read_command_line

if __name__ == "__main__":
    read_command_line(Parser(description=__doc__.split("\n")[0]).parse_args)  # before the imports below

import functools
import itertools
import json
import re
from collections.abc import Callable

from experiment.flags import as_flag
from experiment.settings import LATER
from model import MODELS
from preprocessing.choices import BY_TIME
from preprocessing.files import write_atomically
from reproduction.plans import (
    BASE,
    EVERY,
    NAMES,
    OWN,
    RANKING_MODELS,
    REFERENCE,
    TABLE_2,
    TUNED,
    table_2_run,
    table_2_runs,
)
from reproduction.records import PROJECT, RESULTS, Records
from reproduction.runs import DATA_NAMES, Run
from reproduction.serving import quality_rows, serving_rows
from reproduction.tables import PUBLISHED, table_2_rows

PAGES = tuple(sorted([PROJECT / "README.md", *PROJECT.glob("docs/*.md"), RESULTS / "README.md"]))

Columns = dict[str, Callable[[dict], str]]

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
    "threads": lambda r: f"{r['num_threads']}",
}

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
_ABOUT_COLUMNS: Columns = {
    "model": lambda r: f"`{r['model']}`",
    "paper": lambda r: _ABOUT[r["model"]][0],
    "kind": lambda r: _ABOUT[r["model"]][1],
    "computed ahead": lambda r: _ABOUT[r["model"]][2],
    "parameters": lambda r: f"{r['num_parameters']:,}",
    "the import": lambda r: f"`from {MODELS[r['model']]} import {r['model']} as Model`",
}


def _changed(record: dict) -> str:
    """The flags, but for the model and the protocol, by which a record's run differs from the script's defaults."""
    default = Run(record["dataset"], record["protocol"], record["model"], record["seed"]).recorded()
    changed = {n: v for n, v in (LATER | record["settings"]).items() if v != (LATER | default)[n]}
    return " ".join(f"`{as_flag(name, value)}`" for name, value in changed.items()) or "none"


def _protocol(record: dict) -> str:
    return f"`{record['protocol']}`" + (" (labels leak)" if record["labels_leak"] else "")


def _published(record: dict) -> str:
    if record["protocol"] != "paper":
        return "not comparable"
    auc, logloss = PUBLISHED[record["dataset"]][record["model"]]
    return f"{auc:.4f} / {logloss:.4f}"


def _first_run(model: str, protocol: str = "strict") -> dict:
    record = Records().find(table_2_run("movielens", protocol, model))
    assert record is not None, f"results/movielens/{protocol}.jsonl has no record of {model}"
    return record


def _choices(what: str, data_name: str = "movielens") -> list[dict]:
    """Runs of one seed by which settings were chosen."""
    return [json.loads(path.read_text()) for path in (RESULTS / data_name / "choices" / what).glob("*.json")]


def _about() -> tuple[list[dict], Columns]:
    return [_first_run(model) for model in _ABOUT], _ABOUT_COLUMNS


def _cir() -> tuple[list[dict], Columns]:
    records = [*_choices("cir"), _first_run("IntTower")]
    records.sort(key=lambda r: (r["settings"]["cir_weight"], r["settings"]["cir_temperature"]))
    own: Columns = {
        "weight": lambda r: f"{r['settings']['cir_weight']:g}",
        "temperature": lambda r: f"{r['settings']['cir_temperature']:g}" if r["settings"]["cir_weight"] else "-",
    }
    return records, own | _VALIDATION | _MEASURES | _EFFORT


def _variations() -> tuple[list[dict], Columns]:
    records = sorted([*_choices("variations"), _first_run("IntTower")], key=_changed, reverse=True)
    return records, {"changed settings": _changed} | _VALIDATION | _MEASURES | _EFFORT


def _tuning() -> tuple[list[dict], Columns]:
    tuned = _choices("tuning")
    records = [*tuned, *map(_first_run, sorted({r["model"] for r in tuned}))]
    records.sort(key=lambda r: (EVERY.index(r["model"]), _changed(r)))
    return records, {
        "model": lambda r: r["model"], "changed settings": _changed, **_VALIDATION, **_MEASURES, **_EFFORT
    }  # fmt: skip


def _by_time(dataset: str, protocol: str) -> tuple[list[dict], Columns]:
    """The runs by which the settings of a protocol by time were chosen, the chosen ones in bold."""
    found = [Records().find(table_2_run(dataset, protocol, model), DATA_NAMES[dataset]) for model in ("DCN", REFERENCE)]
    chosen = [record for record in found if record is not None]
    tried = [r for r in _choices("time", DATA_NAMES[dataset]) if r["protocol"] == protocol]
    settings = {id(r): LATER | r["settings"] for r in [*tried, *chosen]}
    records = sorted([*tried, *chosen], key=lambda r: (EVERY.index(r["model"]), r["valid"]["auc"]))

    def setting(name: str) -> Callable[[dict], str]:
        return lambda r: f"{value:g}" if (value := settings[id(r)].get(name)) else "-"

    def dropped(r: dict) -> str:
        shares = {"users": settings[id(r)]["user_id_dropout"], "items": settings[id(r)]["item_id_dropout"]}
        text = ", ".join(f"{share:g} of {side}" for side, share in shares.items() if share) or "-"
        return text + (" with statistics" if settings[id(r)]["drop_statistics"] else "")

    def of_users(kind: str) -> Callable[[dict], str]:
        return lambda r: f"{r['strangers']['user'][kind]['auc']:.4f}"

    columns: Columns = {
        "model": lambda r: f"**{r['model']}**" if r in chosen else r["model"],
        "statistics": lambda r: settings[id(r)]["statistics"],
        "ids dropped": dropped,
        "L2": setting("l2_embedding"),
        "bias at prior": lambda r: "yes" if settings[id(r)]["prior_bias"] else "-",
        "averaged": setting("average_decay"),
        "biases": lambda r: "yes" if settings[id(r)]["biases"] else "-",
        "CIR": setting("cir_weight"),
        "FE-Block": lambda r: r["settings"].get("fe_input", "-"),
    }
    seen = {"test AUC, seen users": of_users("seen"), "unseen": of_users("unseen")}
    return records, columns | _VALIDATION | {"test AUC": _MEASURES["test AUC"]} | seen | _EFFORT


def _handicaps() -> tuple[list[dict], Columns]:
    records = [*_choices("handicaps"), *(_first_run("DSSM", protocol) for protocol in ("strict", "paper"))]
    records.sort(key=lambda r: (r["protocol"], r["test"]["auc"]))
    own: Columns = {"protocol": _protocol, "changed settings": _changed}
    return records, own | _MEASURES | {"published AUC / logloss": _published} | _EFFORT


def _rate(record: dict) -> float:
    """The learning rate of a run's shared embedding tables."""
    return (LATER | record["settings"])["shard_lr"] or record["settings"]["lr"]


def _processes() -> tuple[list[dict], Columns]:
    """One run by one process, and by two that train together, tables whole and shared, these at several rates."""
    alone = Records().find(table_2_runs("movielens", "strict", TUNED)[REFERENCE])
    assert alone is not None, "results/movielens/strict.jsonl has no record of what was searched for IntTower"
    together = sorted(_choices("processes"), key=lambda r: ("sharded" in r, _rate(r)))

    def tables(record: dict) -> str:
        return f"shared, {record['sharded']['optimizer']} at {_rate(record):g}" if "sharded" in record else "whole"

    own: Columns = {"processes": lambda r: f"{r.get('num_processes', 1)}", "tables": tables}
    return [alone, *together], own | _VALIDATION | _MEASURES | _EFFORT


def _every_dataset() -> tuple[list[dict], Columns]:
    """AUC and logloss of three models and of the best of the others, a row for each data set, protocol and settings."""
    records, rows, shown = Records(), [], ("StatisticsLR", BASE, REFERENCE)
    for dataset, data_name in DATA_NAMES.items():
        for protocol, settings in itertools.product(("strict", "temporal", "online"), (TUNED, OWN)):
            of_model = {row["model"]: row for row in table_2_rows(records, dataset, protocol, data_name, settings)}
            if of_model.keys() >= {*shown} and of_model.keys() & RANKING_MODELS:
                searched = ", each model searched" if settings == TUNED else ""
                rows.append({"data": data_name, "protocol": f"`{protocol}`{searched}", "models": of_model})

    def measures(row: dict, name: str) -> str:
        of_model = row["models"][name]
        return f"{of_model['auc']:.4f} / {of_model['logloss']:.4f}"

    def best_ranker(row: dict) -> str:
        return max(sorted(RANKING_MODELS & row["models"].keys()), key=lambda name: row["models"][name]["auc"])

    def of_best_ranker(row: dict) -> str:
        rankers, name = RANKING_MODELS & row["models"].keys(), best_ranker(row)
        of_some = "" if RANKING_MODELS & TABLE_2.keys() <= rankers else f", of {len(rankers)}"
        return f"{NAMES.get(name, name)} {measures(row, name)}{of_some}"

    columns: Columns = {"data": lambda row: row["data"], "protocol": lambda row: row["protocol"]}
    for name in shown:
        columns[NAMES.get(name, name)] = functools.partial(measures, name=name)
    columns["best ranking model"] = of_best_ranker

    def seeds(row: dict) -> str:
        counts = {row["models"][name]["seeds"] for name in {*TABLE_2, best_ranker(row)} & row["models"].keys()}
        return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"

    return rows, columns | {"seeds": seeds}


RUNS = {
    "every_dataset": _every_dataset,
    "about": _about,
    "cir": _cir,
    "variations": _variations,
    "tuning": _tuning,
    "handicaps": _handicaps,
    "processes": _processes,
    **{
        f"{data}-{protocol}": functools.partial(_by_time, data, protocol) for data in DATA_NAMES for protocol in BY_TIME
    },
    "serving": serving_rows,
    "quality": quality_rows,
}


def runs_table(name: str) -> str:
    """A table with a row per record."""
    records, columns = RUNS[name]()
    rows = [[cell(record) for cell in columns.values()] for record in records]
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(columns), ["---"] * len(columns), *rows])


def written_table(file: str) -> str:
    """A table that reproduce.py wrote."""
    return (RESULTS / file).read_text().rstrip()


def recorded_output(file: str, shown: str | None = None) -> str:
    """What a command printed, as a block; of many epochs only the first two and the last are shown.

    `shown` names lines, from 1 on: "1-10".
    """
    lines = (RESULTS / file).read_text().rstrip().split("\n")
    if shown:
        first, last = map(int, shown.split("-"))
        lines = lines[first - 1 : last]
    epochs = [i for i, line in enumerate(lines) if line.startswith("epoch ")]
    if len(epochs) > 4:
        lines[epochs[2] : epochs[-1]] = ["..."]
    return "\n".join(["```", *lines, "```"])


def with_results(page: str) -> str:
    """A page's text with every table and output made anew."""
    make = {"table": written_table, "output": recorded_output, "runs": runs_table}
    pattern = re.compile(r"(<!-- (table|output|runs): ([^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{make[match[2]](*match[3].split())}\n{match[4]}", page)


def main() -> None:
    """Write every page anew."""
    for path in PAGES:
        write_atomically(path, with_results(path.read_text()).encode())


if __name__ == "__main__":
    sys.exit(exit_code(main))
