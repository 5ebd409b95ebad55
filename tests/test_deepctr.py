"""deepctr-torch's ranking models under our loop score as they do in deepctr-torch, and refuse what would go wrong."""

import inspect
import pickle

import pytest
import torch
from models import ALL_COLUMNS, item_columns, random_features, random_labels, sparse, user_columns, varlen
from torch import Tensor, nn
from torch.nn import functional

from experiment.model_settings import taken_fields
from model import deepctr, model_class
from model.deepctr import RANKING_MODELS, DeepCTR, adapt, deepctr_column
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat

from deepctr_torch import models as deepctr_models

REGISTERED = ["WDL", "DeepFM", "DCN", "AutoInt"]
# Every kind of layer that is computed faster here, and one model without any.
FASTER = [
    ("DCN", {}),
    ("DCN", {"cross_num": 3, "dnn_use_bn": True}),
    ("DCN", {"cross_parameterization": "matrix"}),
    ("AutoInt", {}),
    ("AutoInt", {"att_head_num": 1, "att_res": False}),
    ("DIFM", {"att_head_num": 2}),  # its attention is scaled by the size of a head
    ("WDL", {}),
    ("DeepFM", {}),
]


def arguments(name: str, **options) -> dict:
    """The options with a small network and large embeddings, as far as the model takes them."""
    taken = inspect.signature(getattr(deepctr_models, name)).parameters
    options = {"dnn_hidden_units": (6, 4), "init_std": 0.5} | options
    return {option: value for option, value in options.items() if option in taken}


def columns_of(name: str, columns: list | None = None) -> list[list]:
    """The columns as deepctr-torch's constructor takes them: PNN has no linear part, AFM and CCPM no dense input."""
    columns = columns or ALL_COLUMNS
    without_dense = [column for column in columns if not isinstance(column, DenseFeat)]
    return ([] if name == "PNN" else [columns]) + [without_dense if name in ("AFM", "CCPM") else columns]


def adapted(name: str, **options) -> DeepCTR:
    """The model as we build it."""
    return adapt(name)(*columns_of(name), **arguments(name, **options))


def pair(name: str, **options) -> tuple[DeepCTR, nn.Module]:
    """The model as we and as deepctr-torch build it, with the same weights, all of them large enough to show."""
    torch.manual_seed(0)
    ours = adapted(name, **options)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    columns = [[*map(deepctr_column, part)] for part in columns_of(name)]
    own = getattr(deepctr_models, name)(*columns, task="binary", **arguments(name, **options))
    own.load_state_dict(ours.network.state_dict())  # the weights have deepctr-torch's names
    return ours, own


def matrix(own: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """deepctr-torch's input: every feature in the columns that its own index names."""
    x_BN = torch.full((8, max(stop for _, stop in own.feature_index.values())), float("nan"))
    for name, (start, stop) in own.feature_index.items():
        x_BN[:, start:stop] = features[name].reshape(8, stop - start)
    return x_BN


@pytest.mark.parametrize("name", RANKING_MODELS)
def test_the_probability_is_deepctr_torchs_own(name):
    ours, own = pair(name)
    features = random_features(ALL_COLUMNS, num_rows=8)
    logits = ours.eval()(features)
    assert logits.std() > 1e-3
    probabilities = logits.sigmoid()
    torch.testing.assert_close(probabilities, own.eval()(matrix(own, features))[:, 0])


@pytest.mark.parametrize(("name", "options"), FASTER)
def test_the_gradients_are_deepctr_torchs_own(name, options):
    ours, own = pair(name, **options)
    features, labels = random_features(ALL_COLUMNS, num_rows=8), random_labels(8)
    functional.binary_cross_entropy_with_logits(ours(features), labels, reduction="sum").backward()
    functional.binary_cross_entropy(own(matrix(own, features))[:, 0], labels, reduction="sum").backward()
    for (parameter_name, parameter), own_parameter in zip(own.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, own_parameter.grad, rtol=1e-4, atol=1e-5, msg=parameter_name)


@pytest.mark.parametrize("name", RANKING_MODELS)
def test_the_penalties_are_deepctr_torchs_own(name):
    ours, own = pair(name, l2_reg_embedding=0.1, l2_reg_linear=0.2, l2_reg_dnn=0.3, l2_reg_cross=0.4, l2_reg_cin=0.5)
    penalty = sum(l2 * weight.square().sum() for weight, l2 in ours.penalties())
    assert penalty > 1
    torch.testing.assert_close(penalty, own.get_regularization_loss()[0])


@pytest.mark.parametrize("name", RANKING_MODELS)
def test_every_ranking_model_is_built_from_both_towers_columns(name):
    torch.manual_seed(0)
    built = adapt(name).from_columns(user_columns(), item_columns(), **arguments(name, dnn_use_bn=False))
    torch.manual_seed(0)
    constructed = adapted(name, dnn_dropout=0.3)
    features = random_features(ALL_COLUMNS, num_rows=8)
    assert torch.equal(built.eval()(features), constructed.eval()(features))


def test_the_seeds_lines_for_dcn_work_as_they_are_written():
    from model.dcn import DCN

    linear_feature_columns = dnn_feature_columns = ALL_COLUMNS
    dropout, device = 0.3, "cpu"
    model = DCN(linear_feature_columns, dnn_feature_columns, task="binary", dnn_dropout=dropout, device=device)
    assert model(random_features(ALL_COLUMNS, num_rows=8)).shape == (8,)
    positional = DCN(linear_feature_columns, dnn_feature_columns, 2, "vector", (7, 5))
    assert [layer.out_features for layer in positional.network.dnn.linears] == [7, 5]


@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_model_is_deepctr_torchs_of_that_name(name):
    assert model_class(name) is adapt(name)
    model = model_class(name).from_columns(user_columns(), item_columns())
    assert type(model.network) is getattr(deepctr_models, name)


@pytest.mark.parametrize("place", ["linear", "dnn"])
@pytest.mark.parametrize("column", [sparse("ad", 2**24 + 1), varlen("ads", 2**24 + 1)])
def test_a_vocabulary_that_float32_cannot_count_is_refused_before_a_table_is_made(monkeypatch, column, place):
    monkeypatch.setattr(nn, "Embedding", None)
    linear, dnn = ([column], ALL_COLUMNS) if place == "linear" else (ALL_COLUMNS, [*ALL_COLUMNS, column])
    message = f"column '{column.name}': expected a vocabulary of at most 2.24 ids, got 16777"
    with pytest.raises(UserError, match=message):
        adapt("DCN")(linear, dnn)


def test_a_vocabulary_that_float32_can_just_count_is_accepted(monkeypatch):
    table, num_rows = nn.Embedding, []

    def small_table(vocabulary_size: int, embedding_dim: int, sparse: bool) -> nn.Embedding:
        num_rows.append(vocabulary_size)
        return table(2, embedding_dim)

    monkeypatch.setattr(nn, "Embedding", small_table)  # the real one would take 128 MB
    adapt("DCN")([sparse("ad", 2**24)], [sparse("ad", 2**24)])
    assert num_rows == [2**24, 2**24]


def test_the_largest_ids_reach_the_network_unchanged():
    model = adapt("DCN")([sparse("ad")], [sparse("ad")])
    model.network.forward = lambda x_BN: x_BN.long()  # ids beyond the small table come back as they arrive
    largest_ids = torch.arange(deepctr.LARGEST_VOCABULARY - 1000, deepctr.LARGEST_VOCABULARY, dtype=torch.int32)
    assert torch.equal(model({"ad": largest_ids}), largest_ids.long())


@pytest.mark.parametrize("name", ["DIN", "MLR", "dcn"])
def test_a_model_that_is_no_ranking_model_is_refused_with_those_that_are(name):
    with pytest.raises(UserError) as refusal:
        adapt(name)
    assert str(refusal.value) == f"architecture: expected one of {', '.join(RANKING_MODELS)}, got {name!r}."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dnn_droput": 0.3}, "DCN: got an unexpected keyword argument 'dnn_droput'"),
        ({"gpus": [0]}, r"gpus: expected None, got \[0\]; name one GPU with device"),
        ({"task": "regression"}, "task: expected 'binary', got 'regression'"),
    ],
)
def test_an_option_that_would_mislead_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        adapt("DCN")(ALL_COLUMNS, ALL_COLUMNS, **options)


def test_an_explicit_seed_gives_the_weights_that_deepctr_torch_starts_from():
    columns = [*map(deepctr_column, ALL_COLUMNS)]
    own = deepctr_models.DCN(columns, columns, **arguments("DCN"), seed=5)
    torch.manual_seed(0)
    weights = adapted("DCN", seed=5).network.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in own.state_dict().items())


@pytest.mark.parametrize("name", [name for name in RANKING_MODELS if name not in ("AFM", "CCPM", "ONN")])
def test_ids_past_a_lists_length_change_nothing(name):
    columns = [sparse("user_id"), sparse("movie_id"), varlen("genres", length_name="num_genres")]
    model = adapt(name)(*columns_of(name, columns), **arguments(name)).eval()
    features = random_features(columns, num_rows=8)
    filled = features["genres"].masked_fill(features["genres"] == 0, 3)
    torch.testing.assert_close(model(features | {"genres": filled}), model(features))
    longer = features["num_genres"] % 3 + 1
    assert not torch.allclose(model(features | {"num_genres": longer}), model(features))


def test_a_feature_that_is_too_wide_is_refused_and_not_read_as_the_next():
    features = random_features(ALL_COLUMNS, num_rows=4)
    features["genres"] = torch.cat([features["genres"], features["genres"]], dim=1)
    with pytest.raises(UserError, match=r"expected 8 input columns together, got 11: .*'genres': \(4, 6\)"):
        adapt("DCN").from_columns(user_columns(), item_columns())(features)


def test_an_adapted_model_is_imported_by_its_name_and_pickled_by_it():
    from model.deepctr import xDeepFM

    assert xDeepFM is adapt("xDeepFM")
    assert pickle.loads(pickle.dumps(xDeepFM)) is xDeepFM
    with pytest.raises(ImportError, match="DIEN"):
        from model.deepctr import DIEN  # noqa: F401


def test_what_deepctr_torch_refuses_is_one_line():
    with pytest.raises(UserError, match=r"AutoInt: deepctr-torch refuses .*integer multiple of head_num"):
        adapt("AutoInt")([sparse("user_id", embedding_dim=5)], [sparse("user_id", embedding_dim=5)])
    with pytest.raises(UserError, match="DCN: deepctr-torch refuses"):
        adapt("DCN")(ALL_COLUMNS, ALL_COLUMNS, init_std=-1.0)


@pytest.mark.parametrize(
    ("name", "absent"), [("AFM", "dnn_hidden_units"), ("FiBiNET", "dnn_use_bn"), ("LR", "dropout")]
)
def test_a_setting_that_the_network_does_not_have_is_not_taken(name, absent):
    model = model_class("LR") if name == "LR" else adapt(name)
    assert absent not in {*taken_fields(model), *taken_fields(model).values()}
    assert ("init_std" in taken_fields(model)) == (name != "LR")
