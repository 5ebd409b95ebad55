"""Settings from the command line: flags, presets, and mistakes that end with one readable line."""

import dataclasses
import inspect
import math
import re
import sys
from dataclasses import dataclass

import pytest
from torch import nn

from experiment.command import read_settings, run_script
from experiment.flags import changed as default_changed
from experiment.flags import flag_name, levels, option
from experiment.model_settings import IDLE_BESIDE, IDLE_FOR, ModelSettings, model_fields, taken_fields
from experiment.settings import LATER, TrainingSettings, parse_settings
from model import MODELS, model_class
from model.choices import parse_levels
from model.estimator import Estimator
from model.IntTower import IntTower
from model.lr import LR
from preprocessing.command import EXIT_INTERRUPTED, EXIT_OK, EXIT_STOPPED, EXIT_USER_ERROR
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from train_alibaba_IntTower import PRESETS as ALIBABA_PRESETS
from train_alibaba_IntTower import Settings as AlibabaSettings
from train_movielens_IntTower import PRESETS
from train_movielens_IntTower import Settings as MovieLensSettings
from training.errors import Interrupted, NonFiniteLoss

from deepctr_torch import models as deepctr_models


@dataclass
class Settings(TrainingSettings):
    """Common settings and a few of a model."""

    user_head: int = option(4, "heads of each user level")
    pooling: str = option("mean", "how lists are pooled", choices=("mean", "sum"))
    levels: str = option("all", "levels that are scored", type=levels)


@dataclass
class ScriptSettings(TrainingSettings):
    """A script's own defaults: of common flags, and of one that IntTower alone has."""

    lr: float = default_changed(TrainingSettings, "lr", 0.5)
    dropout: float = default_changed(TrainingSettings, "dropout", 0.1)
    user_head: int = default_changed(TrainingSettings, "user_head", 7)
    hidden_units: list[int] = default_changed(TrainingSettings, "hidden_units", (8, 4))


TOY_PRESETS = {"released": {"user_head": 32, "epochs": 10, "lr": 0.1}, "quick": {"epochs": 1}}


def parse(*arguments: str, settings: type = Settings, presets: dict | None = None):
    return parse_settings(settings, list(arguments), TOY_PRESETS if presets is None else presets, "Train a toy.")


def run_command_line(monkeypatch, main, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    try:
        settings = read_settings(Settings, TOY_PRESETS)
    except SystemExit as left:
        return left.code
    return run_script(main, settings)


def test_without_flags_every_setting_has_its_default():
    assert parse() == dataclasses.replace(Settings(), hidden_units=[300, 300, 128])


def test_a_preset_that_was_chosen_under_one_protocol_is_refused_under_another(capsys):
    best = {"best": {"protocol": "strict", "epochs": 2}}
    assert parse("--preset", "best", presets=best).protocol == "strict"
    with pytest.raises(SystemExit) as left:
        parse("--preset", "best", "--protocol", "temporal", presets=best)
    assert left.value.code == EXIT_USER_ERROR
    assert "--preset best: chosen under --protocol strict, got temporal" in capsys.readouterr().err


def test_flags_change_settings_in_their_own_types():
    settings = parse(
        *("--epochs", "7", "--lr", "1e-4", "--data", "folder", "--hidden-units", "64,32", "--levels", "0,2"),
        *("--resume", "--no-light-se-residual", "--pooling", "sum", "--protocol", "temporal"),
    )
    assert (settings.epochs, settings.lr, settings.data) == (7, 1e-4, "folder")
    assert (settings.hidden_units, settings.levels) == ([64, 32], [0, 2])
    assert (settings.resume, settings.light_se_residual) == (True, False)
    assert (settings.pooling, settings.protocol) == ("sum", "temporal")
    assert [levels(text) for text in ("all", "last", "0")] == ["all", "last", [0]]


@pytest.mark.parametrize("settings", [TrainingSettings, MovieLensSettings])
def test_every_flag_has_help_that_names_its_default(settings, capsys):
    with pytest.raises(SystemExit) as left:
        parse("--help", settings=settings, presets=PRESETS)
    help_text = " ".join(capsys.readouterr().out.split())
    assert left.value.code == EXIT_OK
    for field in dataclasses.fields(settings):
        assert len(field.metadata["help"]) > 5, field.name
        assert field.metadata["help"] in help_text
        assert flag_name(field.name) in help_text
    assert help_text.count("(default: ") >= len(dataclasses.fields(settings))
    assert all(model in help_text for model in MODELS)
    # The paper's nine, six that came since, IntTower's further parts, the two-tower with CIR, LR on statistics alone.
    assert len(MODELS) == 18


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--pooling", "median"), ("--pooling", "'median'", "mean", "sum")),
        (("--protocol", "nonsense"), ("--protocol", "'nonsense'", "paper", "strict", "temporal")),
        (("--preset", "nonsense"), ("--preset", "'nonsense'", "quick", "released")),
        (("--learning-rate", "0.1"), ("--learning-rate",)),
        (("--epoch", "3"), ("--epoch",)),  # not guessed from its beginning
        (("--epochs", "1.5"), ("--epochs", "'1.5'")),
        (("--hidden-units", "64,x"), ("--hidden-units", "whole numbers such as 300,300,128, got '64,x'")),
        (("--levels", "first"), ("--levels", "all, last or indices such as 0,2, got 'first'")),
        (("--epochs",), ("--epochs",)),
    ],
)
def test_a_wrong_word_of_the_command_line_is_refused_in_one_line(capsys, arguments, fragments):
    with pytest.raises(SystemExit) as left:
        parse(*arguments)
    printed = capsys.readouterr()
    assert left.value.code == EXIT_USER_ERROR == 2
    assert (printed.out, printed.err.count("\n"), printed.err[-1]) == ("", 1, "\n")
    for fragment in fragments:
        assert fragment in printed.err


def test_a_preset_changes_defaults_and_flags_overrule_it():
    preset = parse("--preset", "released")
    assert (preset.user_head, preset.epochs, preset.lr) == (32, 10, 0.1)
    assert preset.batch_size == Settings().batch_size
    overruled = parse("--epochs", "3", "--preset", "released", "--lr", "0.5")
    assert (overruled.user_head, overruled.epochs, overruled.lr) == (32, 3, 0.5)
    assert parse("--preset", "released", "--epochs", str(Settings().epochs)).epochs == Settings().epochs


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_presets_of_the_movielens_script_are_settings_in_their_ranges(name):
    settings = parse("--preset", name, settings=MovieLensSettings, presets=PRESETS)
    settings.check()
    assert {key: getattr(settings, key) for key in PRESETS[name]} == PRESETS[name]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *((name, 0, "a number of at least 1") for name in ("epochs", "patience", "embedding_dim")),
        ("batch_size", 1, "a number of at least 2"),
        *(
            (name, -1, "a number of at least 0")
            for name in ("seed", "split_seed", "l2_embedding", "checkpoint_seconds")
        ),
        ("l2_embedding", math.nan, "a number of at least 0"),
        *((name, 2**32, r"a number below 2\^32") for name in ("seed", "split_seed")),
        *(("lr", value, "a number above 0") for value in (0.0, math.nan, math.inf)),
        *(("dropout", value, r"a number in \[0, 1\)") for value in (1.0, -0.5)),
        *(("hidden_units", value, "widths of at least 1") for value in ([64, 0], [])),
    ],
)
def test_a_number_out_of_its_range_is_refused(name, value, expected):
    message = f"{flag_name(name)}: expected {expected}, got {re.escape(str(value))}"
    with pytest.raises(UserError, match=message):
        dataclasses.replace(Settings(), **{name: value}).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(protocol="paper", statistics="crossed"),
            "--statistics: expected means with --protocol paper, got crossed",
        ),
        (dict(label_delay=60.0), "--label-delay: expected --protocol online beside it, got strict"),
        (dict(protocol="online", label_delay=-1.0), "--label-delay: expected a number of at least 0, got -1.0"),
        (dict(drop_statistics=True), "--drop-statistics: expected --user-id-dropout or --item-id-dropout beside it"),
        (dict(cross_num=0), "--cross-num: expected 1 or more, got 0"),
        (dict(warmup=0.1), "--warmup: expected --lr-schedule cosine beside it, got constant"),
        *((dict([(n, 1.0)]), "expected a share in") for n in ("user_id_dropout", "item_id_dropout", "average_decay")),
    ],
)
def test_settings_of_statistics_and_strangers_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Settings(**settings).check()
    Settings(protocol="online", statistics="crossed", label_delay=60.0, average_decay=0.9).check()
    Settings(item_id_dropout=0.5, drop_statistics=True).check()


def test_a_protocol_may_have_defaults_which_a_preset_overrules_and_a_flag_both():
    own = {"online": {"statistics": "crossed", "lr": 0.5, "epochs": 7}}
    OfProtocols = dataclasses.make_dataclass("OfProtocols", [], bases=(Settings,), namespace={"BY_PROTOCOL": own})

    def chosen(*arguments):
        settings = parse_settings(OfProtocols, list(arguments), {"released": {"lr": 0.1}}, "")
        return settings.statistics, settings.lr, settings.epochs

    assert chosen() == ("means", Settings().lr, Settings().epochs)
    assert chosen("--protocol", "online") == ("crossed", 0.5, 7)
    assert chosen("--protocol", "online", "--preset", "released") == ("crossed", 0.1, 7)
    assert chosen("--protocol", "online", "--preset", "released", "--lr", "0.2", "--epochs", "9") == ("crossed", 0.2, 9)


@pytest.mark.parametrize(
    ("words", "default"), [([], "means"), (["--protocol", "online"], "crossed"), (["--preset", "best"], "residuals")]
)
def test_help_has_the_defaults_of_the_protocol_and_the_preset_that_stand_beside_it(words, default, capsys):
    own = {"online": {"statistics": "crossed"}}
    OfProtocols = dataclasses.make_dataclass("OfProtocols", [], bases=(Settings,), namespace={"BY_PROTOCOL": own})
    with pytest.raises(SystemExit) as left:
        parse_settings(OfProtocols, ["--help", *words], {"best": {"statistics": "residuals"}}, "")
    assert left.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"these crossed with the other tower's fields, too (default: {default})" in printed


def test_a_model_takes_no_notice_of_a_protocols_settings_that_it_does_not_have_but_refuses_those_that_were_chosen():
    own = {"online": {"biases": True, "field_dim": 8}}
    OfProtocols = dataclasses.make_dataclass("OfProtocols", [], bases=(Settings,), namespace={"BY_PROTOCOL": own})

    def options(model: str, *flags: str) -> dict:
        settings = parse_settings(OfProtocols, ["--protocol", "online", *flags], {}, "")
        return settings.model_options(model_class(model))

    assert (options("IntTower")["biases"], options("IntTower")["field_dim"]) == (True, 8)
    assert not options("IntTower", "--no-biases")["biases"]
    assert not {"biases", "field_dim"} & options("DCN").keys()
    assert "biases" not in OfProtocols(protocol="online").model_options(model_class("DCN"))
    with pytest.raises(UserError, match="--field-dim 32: expected a setting of DCN"):
        options("DCN", "--field-dim", "32")


def test_heads_of_no_size_two_ways_to_start_and_an_unknown_device_are_refused():
    with pytest.raises(UserError, match="--user-head, --item-head, --field-dim: expected 1 or more, got 0 x 4 heads"):
        parse("--user-head", "0").check()
    with pytest.raises(UserError, match="--resume, --overwrite: expected one of them, got both"):
        parse("--resume", "--overwrite").check()
    with pytest.raises(UserError, match=r"--device: expected auto, cpu, .*, got 'tpu'"):
        parse("--device", "tpu").check()


def test_levels_are_each_named_once(capsys):
    assert parse_levels([2, 0], 3) == [0, 2]
    with pytest.raises(UserError, match=r"levels: expected each index once, got \[0, 0\]; leave out"):
        parse_levels([0, 0], 3)
    with pytest.raises(SystemExit):
        parse("--levels", "0,0")
    assert "--levels: expected each index once, got '0,0'" in capsys.readouterr().err


def test_the_default_settings_are_in_their_ranges():
    Settings().check()
    dataclasses.replace(Settings(), epochs=1, patience=1, batch_size=2, dropout=0.0, seed=0, l2_embedding=0.0).check()


def test_a_model_gets_only_the_options_that_it_names():
    class Base(Estimator):
        def __init__(self, columns, init_std=0.5):
            pass

    class Narrow(Base):
        def __init__(self, user_feature_columns, item_feature_columns, user_head=1, dnn_dropout=0.0, **options):
            pass

    settings = parse("--user-head", "8", "--dropout", "0.2")
    assert settings.model_options(Narrow) == {"user_head": 8, "dnn_dropout": 0.2, "init_std": 0.01}


@pytest.mark.parametrize(
    ("settings", "model", "arguments"),
    [
        (Settings, "DSSM", ("--user-head", "8")),
        (Settings, "IntTower", ("--no-dnn-use-bn",)),
        (Settings, "LR", ("--hidden-units", "64")),
        (ScriptSettings, "LR", ("--dropout", "0.3")),  # the default of all scripts, and not of this one
        (ScriptSettings, "LR", ("--hidden-units", "300,300,128")),
        (ScriptSettings, "DSSM", ("--user-head", "4")),
    ],
)
def test_a_flag_that_the_model_does_not_have_is_refused(settings, model, arguments):
    with pytest.raises(UserError, match=f"{' '.join(arguments)}: expected a setting of {model}"):
        parse(*arguments, settings=settings).model_options(model_class(model))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_settings_defaults_are_the_models_own(name):
    model = model_class(name)
    functions = [model.from_columns, *(base.__init__ for base in model.__mro__)]
    if hasattr(model, "architecture"):
        functions.append(getattr(deepctr_models, model.architecture))
    own = {}
    for function in functions:
        parameters = inspect.signature(function).parameters
        own = {option_name: parameter.default for option_name, parameter in parameters.items()} | own
    options = parse().model_options(model)
    assert options == {option_name: own[option_name] for option_name in options}
    assert {"dnn_dropout", "dnn_hidden_units"} <= options.keys() or name in ("LR", "StatisticsLR")
    # A script's own defaults are as good: they are refused with no model.
    assert parse(settings=AlibabaSettings).model_options(model).get("dnn_dropout", 0.5) == 0.5


def test_a_script_may_have_defaults_of_its_own():
    settings = parse(settings=ScriptSettings)
    assert (settings.lr, settings.dropout, settings.user_head, settings.hidden_units) == (0.5, 0.1, 7, [8, 4])
    assert settings.epochs == TrainingSettings().epochs
    assert parse("--preset", "released", settings=ScriptSettings).lr == 0.1
    assert parse("--lr", "0.3", "--dropout", "0.3", settings=ScriptSettings).dropout == 0.3
    # The class that was derived from keeps its own.
    assert (TrainingSettings().lr, TrainingSettings().hidden_units) == (1e-3, (300, 300, 128))


def test_a_default_of_the_scripts_own_keeps_the_flags_help_and_type(capsys):
    metadata = TrainingSettings.__dataclass_fields__["hidden_units"].metadata
    assert ScriptSettings.__dataclass_fields__["hidden_units"].metadata == metadata
    assert parse("--hidden-units", "5,6", settings=ScriptSettings).hidden_units == [5, 6]
    with pytest.raises(SystemExit):
        parse("--help", settings=ScriptSettings)
    assert f"{metadata['help']} (default: [8, 4])" in " ".join(capsys.readouterr().out.split())


def test_a_default_of_the_scripts_own_is_not_refused_with_a_model_that_lacks_the_flag():
    assert parse(settings=ScriptSettings).model_options(LR) == {}
    repeated = parse("--dropout", "0.1", "--hidden-units", "8,4", "--user-head", "7", settings=ScriptSettings)
    assert repeated.model_options(LR) == {}
    dssm = parse(settings=ScriptSettings).model_options(model_class("DSSM"))
    assert (dssm["dnn_dropout"], dssm["dnn_hidden_units"]) == (0.1, (8, 4))
    assert "user_head" not in dssm
    assert parse(settings=ScriptSettings).model_options(IntTower)["user_head"] == 7


def test_a_preset_of_another_model_is_refused_in_the_alibaba_script():
    settings = parse("--preset", "released", "--model", "LR", settings=AlibabaSettings, presets=ALIBABA_PRESETS)
    with pytest.raises(UserError, match="expected a setting of LR, got one that it does not have; leave it out"):
        settings.model_options(LR)


def test_a_cache_shapes_no_number_and_a_sample_rate_does():
    plain = parse(settings=AlibabaSettings)
    without, sampled = (parse(flag, settings=AlibabaSettings) for flag in ("--no-cache", "--sample-rate=0.5"))
    assert (plain.cache, without.cache) == (True, False)
    assert plain.recorded(IntTower) == without.recorded(IntTower)
    assert plain.identity(IntTower) == without.identity(IntTower)
    assert plain.identity(IntTower) != sampled.identity(IntTower)


def test_every_setting_of_the_models_belongs_to_one():
    taken = set().union(*(taken_fields(model_class(model)) for model in MODELS))
    assert taken == model_fields().keys()


def test_every_flag_of_int_tower_reaches_the_model():
    changed = {
        "user_head": 3,
        "item_head": 2,
        "field_dim": 5,
        "levels": (0,),
        "fe_input": "input",
        "fe_scale": "mean",
        "reweighting": "senet",
        "light_se_residual": False,
        "interaction": "dot",
        "biases": True,
        "cir_weight": 0.5,
        "cir_temperature": 0.2,
        "init_std": 0.3,
    }
    options = dataclasses.replace(MovieLensSettings(), **changed).model_options(IntTower)
    assert options == changed | {"dnn_dropout": 0.3, "dnn_hidden_units": (300, 300, 128)}


def test_a_record_and_a_checkpoint_agree_on_what_shapes_the_numbers():
    settings = parse("--lr", "0.5", "--output", "folder", "--epochs", "3")
    assert settings.recorded(IntTower)["lr"] == settings.identity(IntTower)["lr"] == 0.5
    assert settings.recorded(IntTower)["epochs"] == 3
    # A run may be resumed for more epochs, from another place, on another device.
    other = parse("--lr", "0.5", "--epochs", "9", "--resume", "--device", "cpu")
    assert settings.identity(IntTower) == other.identity(IntTower)
    assert settings.identity(IntTower) != parse("--lr", "0.6", "--epochs", "3").identity(IntTower)


def test_a_record_leaves_out_the_settings_of_other_models():
    assert parse().recorded(IntTower)["user_head"] == 4
    assert not {"user_head", "similarity", "dropout", "hidden_units", "init_std"} & parse().recorded(LR).keys()
    assert {"lr", "embedding_dim", "protocol", "seed"} <= parse().recorded(LR).keys()


def test_a_finished_main_leaves_with_code_zero(monkeypatch):
    seen = []
    assert run_command_line(monkeypatch, seen.append, "--preset", "quick", "--seed", "5") == EXIT_OK == 0
    assert (seen[0].epochs, seen[0].seed) == (1, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lr", "0"), r"--lr: expected a number above 0, got 0\.0\."),
        (("--device", "tpu"), "--device: expected auto, cpu, mps, cuda or cuda:<n>, got 'tpu'."),
        (("--device", "cuda:99"), r"--device cuda:99: expected that CUDA device, got \d+ on this machine; .*"),
    ],
)
def test_a_value_that_cannot_be_used_ends_before_main_with_one_line_and_code_two(
    monkeypatch, capsys, arguments, message
):
    seen = []
    assert run_command_line(monkeypatch, seen.append, *arguments) == EXIT_USER_ERROR
    assert seen == []
    assert re.fullmatch(f"error: {message}\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UserError("data: expected a file."), EXIT_USER_ERROR, "error: data: expected a file."),
        (NonFiniteLoss("epoch 1, batch 2"), EXIT_STOPPED, "stopped: epoch 1, batch 2"),
        (Interrupted("in epoch 1"), EXIT_INTERRUPTED, "stopped: in epoch 1"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "stopped; with --resume"),
    ],
)
def test_what_stops_main_becomes_one_line_and_an_exit_code(monkeypatch, capsys, raised, code, line):
    def main(settings):
        raise raised

    assert run_command_line(monkeypatch, main) == code
    printed = capsys.readouterr().err.strip()
    assert printed.startswith(line)
    assert "\n" not in printed


def test_a_mistake_of_the_code_is_not_hidden(monkeypatch):
    def main(settings):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run_command_line(monkeypatch, main)


def test_a_setting_that_came_later_is_recorded_where_it_is_in_use():
    settings = TrainingSettings(model="IntTower", prior_bias=True)
    recorded = settings.recorded(model_class("IntTower"))
    assert recorded["prior_bias"] is True
    assert LATER.keys() & recorded.keys() == {"prior_bias"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--interaction dot --user-head 8", "--user-head 8: has no effect with --interaction dot.\n"),
        ("--cir-temperature .2 --cir-weight 0", "--cir-temperature 0.2: has no effect with --cir-weight 0.0.\n"),
        (
            "--reweighting none --no-light-se-residual",
            "--no-light-se-residual: has no effect with --reweighting none.\n",
        ),
        ("--model HIT --user-head 8", ""),  # whose heads always count
        ("--model DSSM --similarity dot --initial-temperature .2", "with --similarity dot.\n"),
        ("--model LR --embedding-dim 8", "--embedding-dim 8: has no effect with --model LR.\n"),
        ("--model LR --l2-embedding 1", ""),  # of its weights
        ("--model StatisticsLR --l2-embedding 1", "--l2-embedding 1.0: has no effect with --model StatisticsLR.\n"),
        ("--interaction dot --cir-weight 0", ""),  # what nobody chose is not spoken of
        ("--user-head 8 --cir-temperature .2", ""),
    ],
)
def test_a_flag_that_has_no_effect_beside_another_is_told(flags, told, capsys):
    parse(*flags.split(), settings=TrainingSettings).choose_model(IntTower)
    printed = capsys.readouterr().out
    assert printed.endswith(told)
    assert bool(printed) is bool(told)


@pytest.mark.parametrize("model", IDLE_FOR)
def test_what_has_no_effect_on_a_model_changes_nothing_of_it(model):
    shapes = []
    for dim in (4, 8):
        users, items = [SparseFeat("u", 5, dim), DenseFeat("m")], [VarLenSparseFeat(SparseFeat("g", 4, dim), 3)]
        built = model_class(model).from_columns(users, items)
        shapes.append({name: value.shape for name, value in built.state_dict().items()})
    assert shapes[0] == shapes[1]
    has_embeddings = any(isinstance(module, nn.Embedding) for module in built.modules())
    assert has_embeddings is ("l2_embedding" not in IDLE_FOR[model])


def test_what_has_no_effect_beside_another_is_named_by_settings_that_are_there():
    fields = ModelSettings.__dataclass_fields__
    for name, (other, values) in IDLE_BESIDE.items():
        assert fields[name].default is not None
        for value in values:
            assert type(value) is type(fields[other].default)
            assert value in fields[other].metadata.get("choices", [value])
