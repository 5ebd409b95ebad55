"""What the tables are made of, as data: the models of table 2 and the variants of the ablation."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from experiment.tuned import tuned_settings
from preprocessing.choices import BY_TIME, PROTOCOLS, STATISTICS
from reproduction.runs import DATA_NAMES, FIRST_SEED, Run, as_under_strict, script

# In the order of the published table, behind what has no network and no ids. LR learns slowest by far; it, too, stops
# by its validation AUC.
TABLE_2 = {
    "StatisticsLR": {"epochs": 300, "lr": 0.05},
    "LR": {"epochs": 300},
    "DSSM": {},
    "DAT": {},
    "COLD": {},
    "WDL": {},
    "DeepFM": {},
    "DCN": {},
    "AutoInt": {},
    "IntTower": {},
}
# Models that the paper could not know or left out, trained for the same table where they are asked for.
SUCCESSORS = ("HIT", "PolyEncoder", "MVKE", "FinalMLPTower", "DCNv2", "FinalMLP")
EVERY = (*(model for model in TABLE_2 if model != "IntTower"), *SUCCESSORS, "IntTower")  # as a table lists them
SEARCHED = (*EVERY, "DSSMCIR")  # the models whose settings tune.py looks for: the last is of the ablation
# Beyond MovieLens an epoch is a tenth of the steps: at its pace LR would be stopped long before it has learned.
BEYOND_MOVIELENS = {"LR": {"lr": 1e-2, "patience": 10}}
OWN, TUNED = "own", "tuned"  # settings: the scripts' own, or what a search found for each model
SUFFIX = {OWN: "", TUNED: "_tuned"}  # of the names of files
REFERENCE = "IntTower"  # what all others are compared with
BASE = "DSSM"  # what RelaImpr is measured from
# Which score a pair and keep nothing of an item.
RANKING_MODELS = {"COLD", "WDL", "DeepFM", "DCN", "AutoInt", "DCNv2", "FinalMLP"}
NAMES = {
    "StatisticsLR": "LR on statistics",
    "DSSM": "Two-Tower (DSSM)",
    "WDL": "Wide&Deep",
    "DSSMCIR": "Two-Tower + CIR",
    "PolyEncoder": "Poly-Encoder",
    "FinalMLPTower": "FinalMLP, cut to towers",
    "DCNv2": "DCN-V2",
    "IntTowerPlus": "IntTower, further parts",
}
SEARCH_OF = {"IntTowerPlus": REFERENCE}  # whose search a model without one of its own takes


@dataclass(frozen=True)
class Variant:
    """A row of the ablation: a model with some settings changed. `seeds` of None means as many as asked for.

    A `preset` is taken from the dataset's script, whose settings of that name it then has. Where not `by_protocol`, it
    is trained as the script trains under strict, whatever that chose for the run's protocol. Where `tuned`, what it
    does not change is what a search found for the model.
    """

    name: str
    changes: tuple[tuple[str, object], ...] = ()
    model: str = REFERENCE
    seeds: int | None = None
    preset: str | None = None
    by_protocol: bool = True
    tuned: bool = False

    def run(self, dataset: str, protocol: str, seed: int = FIRST_SEED) -> Run:
        """Its run with a seed; what it does not change is as in table 2."""
        if self.tuned:
            found = tuned_settings(DATA_NAMES[dataset], protocol)[SEARCH_OF.get(self.model, self.model)]
            return Run(dataset, protocol, self.model, seed, tuple((found | dict(self.changes)).items()))
        preset = script(dataset).PRESETS[self.preset] if self.preset else {}
        changes = {} if self.by_protocol else as_under_strict(dataset, protocol, self.model)
        changes |= _of_table_2(dataset, self.model) | preset | dict(self.changes)
        return Run(dataset, protocol, self.model, seed, tuple(changes.items()))

    def runs(self, dataset: str, protocol: str, num_seeds: int) -> list[Run]:
        """Its runs, one per seed."""
        count = min(num_seeds, self.seeds or num_seeds)
        return [self.run(dataset, protocol, FIRST_SEED + i) for i in range(count)]


def _variant(name: str, model: str = REFERENCE, seeds: int | None = None, **changes) -> Variant:
    return Variant(name, tuple(changes.items()), model, seeds)


# The main rows have as many seeds as asked for; the three that only refine one of them have one.
PARTS = [
    _variant(REFERENCE),
    _variant("no LightSE", reweighting="none"),
    _variant("SENET for LightSE", seeds=1, reweighting="senet"),
    _variant("no FE-Block: dot product of last layers", interaction="dot"),
    # The FE-Block's linear projections stay, all else of it goes.
    _variant("one head of 64, last level", seeds=1, user_head=1, item_head=1, field_dim=64, levels="last"),
    _variant("last level only", levels="last"),
    _variant("inputs of layers in the FE-Block", fe_input="input"),
    _variant("no CIR", cir_weight=0.0),
    _variant("Two-Tower", model="DSSM"),
    _variant("Two-Tower + CIR", model="DSSMCIR"),
    _variant("Two-Tower + CIR of weight 0.1", model="DSSMCIR", seeds=1, cir_weight=0.1),
]
# Around what a search found, which may read inputs or outputs: the row that is the whole model's falls away.
_TURNED = _variant("outputs of layers in the FE-Block", fe_input="output")
TUNED_PARTS = [replace(variant, tuned=True) for variant in [*PARTS, _TURNED] if variant.seeds is None]
CIR = [
    _variant(f"weight {weight:g}, temperature {temperature:g}", seeds=1, **changes)
    for weight, temperature, changes in [
        (0.1, 0.1, {"cir_weight": 0.1}),
        (0.3, 0.1, {"cir_weight": 0.3}),
        (1, 0.1, {"cir_weight": 1.0}),  # said, since some scripts have none
        (3, 0.1, {"cir_weight": 3.0}),
        (1, 0.05, {"cir_weight": 1.0, "cir_temperature": 0.05}),
        (1, 0.2, {"cir_weight": 1.0, "cir_temperature": 0.2}),
        (1, 0.5, {"cir_weight": 1.0, "cir_temperature": 0.5}),
    ]
]
# All with one short budget of epochs: an epoch of the largest takes eight times as long as one of the smallest, and all
# 18 trained to their best epoch would take some four hours on two cores.
HEAD_EPOCHS = 3
HEADS = [
    _variant(f"{heads} x {size}", seeds=1, user_head=heads, item_head=heads, field_dim=size, epochs=HEAD_EPOCHS)
    for size in (16, 32, 64)
    for heads in (1, 2, 4, 8, 16, 32)
]
RELEASED = [Variant("the released script's setting", seeds=1, preset="released")]
# What small data wanted, a step at a time, and what was tried besides. A step names every setting, so that the defaults
# of a dataset's script have no say in it.
_AS_ON_MOVIELENS = dict(
    **dict(prior_bias=False, l2_embedding=1e-5, user_id_dropout=0.0, item_id_dropout=0.0, lr=1e-3),
    **dict(statistics="means", average_decay=0.0),
)
_STEPS = {
    "as on MovieLens": {},
    "+ start near the prior": dict(prior_bias=True),
    "+ L2 of embeddings 10": dict(l2_embedding=10.0),
    "+ dropout of ids, .9 of users, .5 of items": dict(user_id_dropout=0.9, item_id_dropout=0.5),
    "+ learning rate 3e-4": dict(lr=3e-4),
}
_BESIDES = {"validated every 20 batches": dict(validate_every=20), "towers of 64 and 32": dict(hidden_units=(64, 32))}


def _measures(model: str) -> list[Variant]:
    name, steps, settings = NAMES.get(model, model), dict(_STEPS), dict(_AS_ON_MOVIELENS)
    if model == REFERENCE:
        settings |= dict(fe_scale="sum", cir_weight=1.0)
        steps["+ start near the prior"] = dict(prior_bias=True, fe_scale="mean")
        steps["+ no CIR"] = dict(cir_weight=0.0)
    steps["+ residuals"] = dict(statistics="residuals")
    variants = []
    for step, changes in steps.items():
        settings |= changes
        variants.append(_variant(f"{name}: {step}", model, 1, **settings))
    settings |= dict(statistics="means")  # with which these were tried
    besides = [
        _variant(f"{name}, means, {what}", model, 1, **settings, **changes) for what, changes in _BESIDES.items()
    ]
    return [*variants, *besides]


MEASURES = [variant for model in (REFERENCE, BASE, "DCN") for variant in _measures(model)]
_ALL_STARTS = dict(statistics="means", average_decay=0.0)
_STARTS = {
    "sum of MaxSims, bias 0": dict(fe_scale="sum", prior_bias=False) | _ALL_STARTS,
    "mean of MaxSims, bias at the prior": dict(fe_scale="mean", prior_bias=True) | _ALL_STARTS,
}
_LARGE = dict(user_head=32, item_head=32, field_dim=64, epochs=HEAD_EPOCHS)
START = [
    *(_variant(name, seeds=1, **start) for name, start in _STARTS.items()),
    *(_variant(f"32 x 64 heads, {HEAD_EPOCHS} epochs: {n}", seeds=1, **_LARGE, **s) for n, s in _STARTS.items()),
]
# What is made of labels, all else as under strict, without an average of the weights.
STATISTICS_SETS = [
    Variant(
        f"{NAMES.get(model, model)}: {name}",
        (("statistics", name), ("average_decay", 0.0)),
        model,
        seeds=1,
        by_protocol=False,
    )
    for model in ("StatisticsLR", BASE, "DCN", REFERENCE)
    for name in STATISTICS
]
# The same around what a search found with means, for those that came out first, the Two-Tower, and our own addition.
SEARCHED_STATISTICS = [
    Variant(
        f"{called}: {name}",
        tuple((changes | {"statistics": name}).items()),
        model,
        seeds=1 if name == "residuals" else None,  # by validation, one seed each, the others are what is to be compared
        tuned=True,
    )
    for called, model, changes in [
        *((NAMES.get(model, model), model, {}) for model in (BASE, "COLD", "WDL", "DCN", "FinalMLP", REFERENCE)),
        (f"{REFERENCE} with a gate of each level", "IntTowerPlus", {"level_gates": True}),
    ]
    for name in STATISTICS
]
# For the protocol online: when labels are known.
LABEL_DELAYS = {"at once": 0.0, "an hour later": 3600.0, "a day later": 86400.0}
DELAYS = [
    _variant(f"{NAMES.get(model, model)}: {name}", model, label_delay=delay)
    for model in TABLE_2
    for name, delay in LABEL_DELAYS.items()
]
# What its successors might give IntTower, each alone, around what a search found for IntTower. The temperature of soft
# maxima goes from nearly even weights of an item's heads to nearly the best head alone.
_BIASES = {"a bias of each user and item": True, "no bias of a user or an item": False}  # a script has them, or not
_FURTHER = {
    "a gate of each level": dict(level_gates=True),
    **{f"soft maxima, temperature {value:g}": dict(maxsim_temperature=value) for value in (3.0, 1.0, 0.3, 0.1)},
    **{f"heads drawn apart, weight {value:g}": dict(apart_weight=value) for value in (0.01, 0.1, 1.0)},
    **{f"guesses of the other side, weight {value:g}": dict(guess_weight=value) for value in (0.01, 0.1, 1.0)},
}
# By validation, one seed each, under each protocol: these alone have as many seeds as are asked for.
_CHOSEN = {"strict": "a gate of each level", "temporal": "guesses of the other side, weight 0.1"}
NEXT = [
    Variant(REFERENCE, tuned=True),
    *(Variant(name, (("biases", biases),), seeds=1, tuned=True) for name, biases in _BIASES.items()),
    *(Variant(name, tuple(part.items()), "IntTowerPlus", seeds=1, tuned=True) for name, part in _FURTHER.items()),
]
# What their papers leave open or their code does otherwise, around what a search found for each of them.
_OF_SUCCESSORS = {
    "HIT": {
        "the released code's sign and scale": dict(generator_loss="released"),
        "no loss of the generators": dict(generator_weight=0.0),
    },
    "PolyEncoder": {f"temperature {value:g}": dict(code_temperature=value) for value in (10.0, 1.0, 0.1, 0.01)},
    "MVKE": {f"experts for users: {count}": dict(num_kernels=count) for count in (1, 2, 3, 5)},
}
OF_SUCCESSORS = [
    Variant(f"{NAMES.get(model, model)}: {name}", tuple(changes.items()), model, seeds=1, tuned=True)
    for model, rows in _OF_SUCCESSORS.items()
    for name, changes in {"as found": {}, **rows}.items()
]
DEFAULT_GROUPS = {"parts": PARTS, "cir": CIR, "heads": HEADS, "released": RELEASED}
ABLATION = DEFAULT_GROUPS | {
    "start": START,
    "measures": MEASURES,
    "statistics": STATISTICS_SETS,
    "searched-statistics": SEARCHED_STATISTICS,
    "delays": DELAYS,
    "tuned": TUNED_PARTS,
    "next": NEXT,
    "successors": OF_SUCCESSORS,
}
OF_PARTS = ("parts", "tuned", "next")  # groups whose rows are compared with the whole model


def _of_table_2(dataset: str, model: str) -> dict:
    """What table 2 changes of a script's defaults for a model."""
    return TABLE_2.get(model, {}) | (BEYOND_MOVIELENS.get(model, {}) if dataset != "movielens" else {})


def table_2_run(dataset: str, protocol: str, model: str, seed: int = FIRST_SEED) -> Run:
    """A model's run in table 2."""
    return Run(dataset, protocol, model, seed, tuple(_of_table_2(dataset, model).items()))


def table_2_runs(dataset: str, protocol: str, settings: str = OWN) -> dict[str, Run]:
    """The run of each model in table 2 with the first seed; under TUNED of those for which a search found settings."""
    if settings == OWN:
        return {model: table_2_run(dataset, protocol, model) for model in EVERY}
    tuned = tuned_settings(DATA_NAMES.get(dataset, dataset), protocol)
    return {m: Run(dataset, protocol, m, FIRST_SEED, tuple(tuned[m].items())) for m in EVERY if m in tuned}


def table_2(dataset: str, protocol: str, models: list[str], num_seeds: int, settings: str = OWN) -> list[Run]:
    """The runs of table 2, seed by seed, so that a part of them already compares all models."""
    run_of = table_2_runs(dataset, protocol, settings)
    runs = [run_of[model] for model in models if model in run_of]
    return [replace(run, seed=run.seed + i) for i in range(num_seeds) for run in runs]


# Groups that say something under some protocols alone.
_PROTOCOLS_OF = {"delays": ("online",), "statistics": ("strict", *BY_TIME)}


def variants_of(dataset: str, group: str, protocol: str) -> list[Variant]:
    """A group's variants: none where the protocol is not the group's, nor those of a preset that the script has not."""
    if protocol not in _PROTOCOLS_OF.get(group, PROTOCOLS):
        return []
    tuned = tuned_settings(DATA_NAMES.get(dataset, dataset), protocol)
    variants = [
        variant
        for variant in ABLATION[group]
        if (variant.preset is None or variant.preset in script(dataset).PRESETS)
        and (not variant.tuned or SEARCH_OF.get(variant.model, variant.model) in tuned)
    ]
    if group not in OF_PARTS:
        return variants
    variants = [replace(v, seeds=None) if v.name == _CHOSEN.get(protocol) else v for v in variants]
    # What the search, or the script's protocol, has by itself is no change to it.
    return [v for v in variants if v.name == REFERENCE or not _is_no_change(v, dataset, protocol)]


def _is_no_change(variant: Variant, dataset: str, protocol: str) -> bool:
    """Whether it is the whole model, or the Two-Tower with a CIR of weight 0, which is the Two-Tower."""
    run = variant.run(dataset, protocol)
    whole = replace(variant, name=REFERENCE, changes=(), model=REFERENCE).run(dataset, protocol)
    is_whole = variant.model == REFERENCE and run.recorded() == whole.recorded()
    return is_whole or (variant.model == "DSSMCIR" and run.settings().cir_weight == 0)


def ablation(dataset: str, protocol: str, groups: list[str], num_seeds: int) -> list[Run]:
    """The runs of the ablation's groups, each once."""
    # A group's last variants are its longest: started first, they leave no core idle at the end.
    variants = [variant for group in groups for variant in reversed(variants_of(dataset, group, protocol))]
    runs = [run for variant in variants for run in variant.runs(dataset, protocol, num_seeds)]
    by_settings = {}  # two groups may say the same in other words
    for run in sorted(runs, key=lambda run: run.seed):
        by_settings.setdefault(json.dumps(run.recorded(), sort_keys=True), run)
    return list(by_settings.values())
