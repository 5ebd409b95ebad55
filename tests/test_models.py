"""What every model promises, whatever its equations are; those stand in a file a model."""

import math
from contextlib import nullcontext

import pytest
import torch
from models import (
    ALL_COLUMNS,
    encoded_apart,
    item_columns,
    random_features,
    random_labels,
    small_model,
    sparse,
    tables,
    user_columns,
    varlen,
)
from torch import Tensor, distributed, nn
from torch.nn import functional

from model import MODELS, model_class
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat
from training.predict import is_two_tower
from training.trainer import Trainer

WITH_LAYERS = sorted(MODELS.keys() - {"LR", "StatisticsLR"})
SUCCESSORS = ["HIT", "PolyEncoder", "MVKE", "FinalMLP", "FinalMLPTower"]
OURS = ["IntTower", "LR", "DSSM", "DSSMCIR", "DAT", "COLD", *SUCCESSORS]
USER_NAMES = [column.name for column in user_columns()]
TWO_TOWERS = [
    ("IntTower", {}),
    ("IntTower", {"fe_input": "input"}),
    ("IntTower", {"dnn_hidden_units": (8, 7, 6, 5), "levels": [0, 2], "user_head": 3, "item_head": 2, "field_dim": 1}),
    ("IntTower", {"interaction": "dot", "reweighting": "senet", "cir_weight": 0.0}),
    ("IntTower", {"light_se_residual": False}),
    ("IntTower", {"fe_scale": "mean"}),
    ("DSSM", {"similarity": "temperature"}),
    ("DSSM", {"similarity": "paper", "linear_output": False}),
    ("DSSM", {"similarity": "dot"}),
    ("DSSMCIR", {}),
    ("DAT", {}),
    ("DAT", {"similarity": "dot"}),
    ("HIT", {"user_head": 3, "field_dim": 2}),
    ("PolyEncoder", {"code_temperature": 0.3}),
    ("MVKE", {"num_kernels": 2}),
    ("FinalMLPTower", {"fusion_heads": 3}),
    ("IntTowerPlus", {"level_gates": True, "guess_weight": 0.1, "biases": True}),
    ("IntTowerPlus", {"maxsim_temperature": 0.5, "fe_input": "input", "guess_weight": 0.1, "item_head": 3}),
]


def other_value(values: Tensor) -> Tensor:
    """Another number, or another id that is no padding, in every row."""
    return values + 1.0 if values.is_floating_point() else values.masked_fill(values > 0, 1) + (values == 1)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_a_logit_per_row_of_one_row_and_of_many(name):
    model = small_model(name).eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    logits = model(features)
    assert logits.shape == (6,)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(model({n: values[:1] for n, values in features.items()}), logits[:1])
    assert is_two_tower(model) == (name in [two_tower for two_tower, _ in TWO_TOWERS])


@pytest.mark.parametrize(("name", "options"), TWO_TOWERS)
def test_users_and_items_that_are_encoded_apart_score_as_in_forward(name, options):
    user = [*user_columns(), varlen("tags")]
    item = [*item_columns(), varlen("actors", length_name="num_actors")]
    model = small_model(name, user, item, **options).eval()
    features = random_features([*user, *item], num_rows=6)
    logits = model(features)
    users, items = encoded_apart(model, features)
    torch.testing.assert_close(model.score(users, items), logits)
    assert logits.std() > 0
    # One user meets all items, and one item all users.
    one_user, one_item = [level[4:5] for level in users], [level[4:5] for level in items]
    repeated_user = {n: features[n][[4] * 6] for n in model.user_feature_names}
    repeated_item = {n: features[n][[4] * 6] for n in model.item_feature_names}
    torch.testing.assert_close(model.score(one_user, items), model(features | repeated_user))
    torch.testing.assert_close(model.score(users, one_item), model(features | repeated_item))


@pytest.mark.parametrize("column", [column.name for column in ALL_COLUMNS])
@pytest.mark.parametrize("name", MODELS)
def test_every_feature_enters_the_logit_and_the_vectors_of_its_own_side_alone(name, column):
    model = small_model(name, dnn_hidden_units=(32, 32)).eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    changed = features | {column: other_value(features[column])}
    is_left_out = name == "StatisticsLR" and not column.endswith("mean_rating")
    assert torch.allclose(model(changed), model(features)) == is_left_out
    if is_two_tower(model):
        sides = zip(encoded_apart(model, changed), encoded_apart(model, features), strict=True)
        changes = [not all(map(torch.equal, ours, theirs)) for ours, theirs in sides]
        assert changes == [column in USER_NAMES, column not in USER_NAMES]


@pytest.mark.parametrize("name", OURS)
def test_padding_and_the_order_of_a_list_change_nothing_and_its_length_ends_it(name):
    columns = [sparse("movie_id"), varlen("genres"), varlen("actors", length_name="num_actors")]
    model = small_model(name, item=columns).eval()
    features = random_features([*user_columns(), *columns], num_rows=6)
    logits = model(features)
    genres, padding = features["genres"], torch.zeros_like(features["genres"])
    for rewritten in (
        torch.cat([genres, padding], dim=1),
        torch.stack([padding, genres], dim=2).flatten(1),
        genres.flip(1),
    ):
        torch.testing.assert_close(model(features | {"genres": rewritten}), logits)
    filled = features["actors"].masked_fill(features["actors"] == 0, 3)
    torch.testing.assert_close(model(features | {"actors": filled}), logits)
    longer = features["num_actors"] % 3 + 1
    assert not torch.allclose(model(features | {"actors": filled, "num_actors": longer}), logits)
    assert torch.isfinite(model(features | {"genres": padding})).all()


@pytest.mark.parametrize("name", OURS)
def test_ids_may_be_32_or_64_bits_wide_and_id_1_is_no_padding(name):
    model = small_model(name).eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    wide = {n: values if values.is_floating_point() else values.long() for n, values in features.items()}
    assert features["user_id"].dtype == torch.int32
    assert torch.equal(model(features), model(wide))
    unknown, padding = (features | {"movie_id": torch.full((6,), value)} for value in (1, 0))
    assert not torch.allclose(model(unknown), model(padding))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LR", {}),
        ("COLD", {}),
        ("FinalMLP", {}),
        *TWO_TOWERS,
        *(("IntTower", {"levels": levels}) for levels in ("last", [0])),
        *(("IntTower", {"levels": levels, "fe_input": "input", "cir_weight": 0.0}) for levels in ("all", "last", [0])),
    ],
)
def test_every_weight_learns(name, options):
    # A parameter without a gradient would make DistributedDataParallel wait for it for ever.
    model = small_model(name, **options)
    features, labels = random_features(ALL_COLUMNS, num_rows=16), random_labels(16)
    logits, losses = model(features, labels) if model.auxiliary else (model(features), {})
    (functional.binary_cross_entropy_with_logits(logits, labels) + sum(losses.values())).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.dim() == 1 or parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("IntTower", ["cir"]),
        ("DSSMCIR", ["cir"]),
        ("DAT", ["user_mimic", "item_mimic"]),
        ("HIT", ["generators"]),
        ("IntTowerPlus", ["cir"]),
    ],
)
def test_with_labels_a_model_gives_the_same_logits_and_its_losses(name, losses):
    model = small_model(name)
    features, labels = random_features(ALL_COLUMNS, num_rows=6), random_labels(6)
    logits, given = model(features, labels)
    torch.testing.assert_close(logits, model(features))
    assert torch.equal(logits, model(features, 1 - labels)[0])
    assert list(given) == losses
    assert all(loss.shape == () and loss > 0 for loss in given.values())


@pytest.mark.parametrize("name", ["IntTower", "DSSMCIR"])
def test_a_cir_weight_of_zero_leaves_no_auxiliary_loss(name):
    model = small_model(name, cir_weight=0.0)
    assert model(random_features(ALL_COLUMNS, num_rows=6), random_labels(6))[1] == {}


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_torchs_seed_decides_the_weights_and_saved_ones_give_the_same_logits(name):
    first, again, other = (small_model(name, seed=seed).eval() for seed in (1, 1, 2))
    features = random_features(ALL_COLUMNS, num_rows=6)
    assert torch.equal(first(features), again(features))
    for ours, theirs in zip(tables(first), tables(other), strict=True):
        assert not torch.equal(ours.weight, theirs.weight)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(features), other(features))


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_dropout_acts_in_training_and_not_in_evaluation(name):
    model = small_model(name, dnn_dropout=0.5)
    features = random_features(ALL_COLUMNS, num_rows=6)
    assert not torch.equal(model(features), model(features))
    model.eval()
    assert torch.equal(model(features), model(features))


@pytest.mark.parametrize("name", ["IntTower", "DSSM", "DAT", "COLD", *SUCCESSORS])
def test_init_std_is_the_spread_of_every_table(name):
    model = small_model(name, [sparse("user_id", 5000)], [sparse("movie_id", 5000)], init_std=0.02)
    for table in tables(model):
        assert table.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (OURS, {"task": "regression"}, "task: expected 'binary', got 'regression'"),
        (OURS[2:], {"dnn_hidden_units": ()}, "dnn_hidden_units: expected at least one layer, got none"),
        (["IntTower", "DSSM", "COLD"], {"dnn_dropout": 1.0}, r"dropout: expected a probability in \[0, 1\), got 1.0"),
        *(
            (
                ["IntTower", "DSSMCIR"],
                {"cir_weight": value},
                f"cir_weight: expected a number of at least 0, got {value}",
            )
            for value in (-1.0, math.nan, math.inf)
        ),
        (["IntTower", "DSSMCIR"], {"cir_temperature": 0.0}, "cir_temperature: expected a number above 0, got 0.0"),
        (["IntTower"], {"cir_temperature": math.nan}, "cir_temperature: expected a number above 0, got nan"),
        (["IntTower"], {"dnn_hidden_units": ()}, "dnn_hidden_units: expected at least one layer, got none"),
        (["IntTower"], {"fe_input": "both"}, "fe_input: expected one of output, input, got 'both'"),
        (["IntTower"], {"reweighting": "x"}, "reweighting: expected one of light_se, senet, none, got 'x'"),
        (["IntTower"], {"interaction": "x"}, "interaction: expected one of fe_block, dot, got 'x'"),
        (["IntTower"], {"field_dim": 0}, "heads: expected 1 or more, got 4 x 4 heads of size 0"),
        (["IntTower"], {"user_head": 0}, "heads: expected 1 or more, got 0 x 4 heads of size 16"),
        (["IntTower"], {"item_head": -1}, "heads: expected 1 or more, got 4 x -1 heads of size 16"),
        (["DSSM"], {"similarity": "x"}, "similarity: expected one of temperature, paper, dot, got 'x'"),
        *(
            (["DSSM"], {"initial_temperature": value}, f"initial_temperature: expected a number above 0, got {value}")
            for value in (0.0, -0.1, math.nan, math.inf)
        ),
        *(
            (["DAT"], {name: value}, f"{name}: expected a number of at least 0, got {value}")
            for name in ("user_mimic_weight", "item_mimic_weight", "alignment_weight")
            for value in (-1.0, math.nan, math.inf)
        ),
        (["IntTower", "DSSMCIR"], {"item": [DenseFeat("price", 1)]}, "cir_weight: expected a SparseFeat with the item"),
        (["IntTower"], {"item": [varlen("genres")]}, "cir_weight: expected a SparseFeat with the item's id"),
        (["HIT"], {"generator_weight": -1.0}, "generator_weight: expected a number of at least 0, got -1.0"),
        (["HIT"], {"generator_loss": "x"}, "generator_loss: expected one of paper, released, got 'x'"),
        (["HIT"], {"item_head": 0}, "heads: expected 1 or more, got 4 x 0 heads of size 16"),
        (["PolyEncoder"], {"num_codes": 0}, "num_codes: expected 1 or more, got 0 of size 64"),
        (["PolyEncoder"], {"code_temperature": 0.0}, "code_temperature: expected a number above 0, got 0.0"),
        (["MVKE"], {"num_kernels": 0}, "num_kernels: expected 1 or more, got 0"),
        (["MVKE"], {"user": [DenseFeat("age", 1)]}, "user tower: expected sparse or varlen columns, got none"),
        (
            ["MVKE"],
            {"item": [varlen("genres")]},
            "item tower: expected a SparseFeat of embedding_dim 4, the users', got",
        ),
        (
            ["FinalMLP", "FinalMLPTower"],
            {"fusion_heads": 3},
            "fusion_heads: expected a number that divides the last layer's 128, got 3",
        ),
        (["DAT"], {"user": [DenseFeat("age", 1)]}, "user tower: expected a SparseFeat with the user's id, got none"),
        (["DAT"], {"item": [varlen("genres")]}, "item tower: expected a SparseFeat with the item's id, got none"),
    ],
)
def test_an_option_out_of_its_range_is_refused(names, options, message):
    columns = {"user": user_columns(), "item": item_columns()} | options
    user, item = columns.pop("user"), columns.pop("item")
    for name in names:
        with pytest.raises(UserError, match=message):
            model_class(name).from_columns(user, item, **columns)


@pytest.mark.parametrize("name", MODELS)
def test_a_rows_logit_does_not_depend_on_the_other_rows_of_its_batch(name):
    model = small_model(name).eval()
    features, others = random_features(ALL_COLUMNS, num_rows=6), random_features(ALL_COLUMNS, num_rows=6, seed=1)
    mixed = {n: torch.cat([values[:2], others[n][2:]]) for n, values in features.items()}
    torch.testing.assert_close(model(mixed)[:2], model(features)[:2])


class AsItIs(nn.parallel.DistributedDataParallel):
    """The model itself: what torch makes of it asks for numbers once, before the first step."""

    def __new__(cls, model, **_):
        return model


@pytest.fixture(params=[1, 2])
def num_processes(request, monkeypatch):
    """So many, of which this is the first; nothing comes from the other one, and no wait for it has an end."""
    if request.param == 1:
        yield 1
        return
    pytest.importorskip("torch.distributed._tools.fake_collectives")  # exchanges for "meta", not in older torch
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", AsItIs)
    distributed.init_process_group("fake", store=fake.FakeStore(), rank=0, world_size=request.param)
    yield request.param
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_another_device_than_the_cpu_asks_for_no_number(name, num_processes, monkeypatch):
    # The device "meta" has shapes and no numbers: what a GPU would have to be waited for fails there.
    item = [*item_columns(), sparse("cate_id", 4)]
    features = {n: values.to("meta") for n, values in random_features([*user_columns(), *item], num_rows=6).items()}
    model = small_model(name, item=item)
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: nullcontext()
    )  # neither this nor a fused optimiser knows it
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, device="meta", optimizer=plain, average_decay=0.9, id_dropout={"user_id": 0.5})
    losses = trainer.step(trainer._without_ids(features), random_labels(6).to("meta"), 6 * num_processes)
    assert [loss.device.type for loss in losses] == ["meta", "meta"]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_starts_from_a_share_of_positives_has_its_log_odds_as_bias(name):
    model, features = small_model(name).eval(), random_features(ALL_COLUMNS, num_rows=6)
    before = model(features)
    model.start_from(0.5)
    torch.testing.assert_close(model.output_bias, torch.zeros(1))
    model.start_from(0.8)
    torch.testing.assert_close(model.output_bias, torch.full((1,), math.log(4)))
    shift = model(features) - before  # the same for every row: it is the bias of the logit
    torch.testing.assert_close(shift, shift[:1].expand(6))
    model.start_from(1.0)  # of one class: the log odds are infinite
    torch.testing.assert_close(model.output_bias, torch.full((1,), math.log(4)))
