"""Small columns, random features and models for the tests of the model and training layers."""

import torch
from torch import Tensor, nn

from model import model_class
from model.estimator import Estimator
from model.IntTower import IntTower
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat


def sparse(name: str, vocabulary_size: int = 10, embedding_dim: int = 4, **options) -> SparseFeat:
    return SparseFeat(name, vocabulary_size, embedding_dim=embedding_dim, dtype="int32", **options)


def varlen(name: str, vocabulary_size: int = 7, embedding_dim: int = 4, maxlen: int = 3, **options) -> VarLenSparseFeat:
    return VarLenSparseFeat(sparse(name, vocabulary_size, embedding_dim), maxlen=maxlen, **options)


def user_columns() -> list:
    return [sparse("user_id"), sparse("gender", 4), DenseFeat("user_mean_rating", 1)]


def item_columns() -> list:
    return [sparse("movie_id", 12), varlen("genres"), DenseFeat("item_mean_rating", 1)]


ALL_COLUMNS = [*user_columns(), *item_columns()]


def random_features(columns: list, num_rows: int, seed: int = 0) -> dict[str, Tensor]:
    """A value of every column: ids from 1 on, lists of at least one id with padding behind, numbers in [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    features = {}
    for column in columns:
        if isinstance(column, DenseFeat):
            features[column.name] = torch.rand(num_rows, column.dimension, generator=generator)
            continue
        shape = (num_rows, column.maxlen) if isinstance(column, VarLenSparseFeat) else (num_rows,)
        ids = torch.randint(1, column.vocabulary_size, shape, generator=generator, dtype=torch.int32)
        if isinstance(column, VarLenSparseFeat):
            lengths = torch.randint(1, column.maxlen + 1, (num_rows, 1), generator=generator)
            ids = ids.masked_fill(torch.arange(column.maxlen) >= lengths, 0)
            if column.length_name is not None:
                features[column.length_name] = lengths[:, 0]
        features[column.name] = ids
    return features


def random_labels(num_rows: int, seed: int = 0) -> Tensor:
    """Labels of which the first is 1 and the second 0."""
    labels = (torch.rand(num_rows, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    labels[0], labels[1] = 1.0, 0.0
    return labels


def int_tower(user: list | None = None, item: list | None = None, seed: int = 0, **options) -> IntTower:
    """A small IntTower with three layers; embeddings are large, so that every feature shows in the logit."""
    torch.manual_seed(seed)
    options = {"dnn_hidden_units": (8, 6, 5), "field_dim": 3, "user_head": 2, "item_head": 2, "init_std": 0.5} | options
    return IntTower(user or user_columns(), item or item_columns(), **options)


def small_model(name: str, user: list | None = None, item: list | None = None, seed: int = 0, **options) -> Estimator:
    """Any model, small and without dropout; every weight that says what a value means is large."""
    torch.manual_seed(seed)
    options = {"dnn_hidden_units": (8, 6), "dnn_dropout": 0.0, "init_std": 0.5} | options
    if name in ("LR", "StatisticsLR"):
        options = {}
    model = model_class(name).from_columns(user or user_columns(), item or item_columns(), **options)
    if name in ("LR", "StatisticsLR"):  # which starts from zeros
        for weights in model.parameters():
            nn.init.normal_(weights, std=0.5)
    return model


def encoded_apart(model: Estimator, features: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Users and items, each from the tower's own features and nothing else."""
    user = model.encode_user({name: features[name] for name in model.user_feature_names})
    return user, model.encode_item({name: features[name] for name in model.item_feature_names})


def tables(model: nn.Module) -> list[nn.Embedding]:
    """The embedding tables of a model or a layer, in the order of its columns."""
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]


def plain_maxsim(user_BHK: Tensor, item_BGK: Tensor) -> Tensor:
    """The formula as the paper draws it, (B,)."""
    return (user_BHK @ item_BGK.transpose(1, 2)).max(2).values.sum(1)
