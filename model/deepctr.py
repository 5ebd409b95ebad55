"""deepctr-torch's ranking models under our loop: logits out, integer ids kept safe, dropout in every epoch.

The one module that imports deepctr-torch. (model/__init__.py keeps it from calling an outside server.)

Shapes: B batch, F fields, D embedding size, N input width.
"""

from __future__ import annotations

import functools
import inspect

import torch
from torch import Tensor, nn

from model.estimator import Estimator
from model.layers import Dropout, Embedding
from preprocessing.errors import UserError
from preprocessing.inputs import Column, DenseFeat, SparseFeat, VarLenSparseFeat, as_columns

from deepctr_torch import inputs, layers, models

LARGEST_VOCABULARY = 2**24  # float32 holds every whole number up to here, and deepctr-torch's input is float32

# Its models that score one row of plain columns. DIN and DIEN need a history, the multitask models several labels;
# MLR gives a probability, of which no safe logit can be had.
RANKING_MODELS = (
    *("AFM", "AFN", "AutoInt", "CCPM", "DCN", "DCNMix", "DIFM", "DeepFM"),
    *("FiBiNET", "IFM", "NFM", "ONN", "PNN", "WDL", "xDeepFM"),
)


COLUMN_ARGUMENTS = ("linear_feature_columns", "dnn_feature_columns")


def deepctr_column(column: Column) -> inputs.SparseFeat | inputs.DenseFeat | inputs.VarLenSparseFeat:
    """A column of ours as deepctr-torch's own, for a model of its own."""
    if isinstance(column, VarLenSparseFeat):
        return inputs.VarLenSparseFeat(inputs.SparseFeat(*column.sparsefeat), *column[1:])
    return (inputs.SparseFeat if isinstance(column, SparseFeat) else inputs.DenseFeat)(*column)


class DeepCTR(Estimator):
    """The network of one of deepctr-torch's ranking models, called with a dict of features.

    Its layers and parameters are deepctr-torch's own, under `network`. Embeddings, dropout, the cross layers and the
    attention are computed by faster equivalents (same parameters, same result).

    It is constructed as in deepctr-torch, `DCN(linear_feature_columns, dnn_feature_columns, ...)`, with the same
    options and defaults. `task` is "binary", the output all the same a logit. `seed` is drawn from torch's generator
    where it is not given: the fixed one of deepctr-torch would make all runs start alike. The options `l2_reg_*` act in
    `fit`; a Trainer of one's own has `l2_embedding`, one rule for all models.

    Raises UserError for a vocabulary of over 2^24 ids, which would collide in deepctr-torch's float32 input, and for
    whatever deepctr-torch's constructor refuses.
    """

    architecture: str  # the name in deepctr_torch.models
    dense_in_network = True  # False: dense columns enter the linear part alone

    def __init__(self, *arguments, **options):
        build = getattr(models, self.architecture)
        try:
            options = inspect.signature(build).bind(*arguments, **options).arguments
        except TypeError as error:
            raise UserError(f"{self.architecture}: {error}; see deepctr-torch's {self.architecture}.") from error
        of_parts = {name: as_columns(options[name]) for name in COLUMN_ARGUMENTS if name in options}
        options |= {name: [deepctr_column(column) for column in columns] for name, columns in of_parts.items()}
        columns = [column for columns in of_parts.values() for column in columns]
        super().__init__(columns, options.get("task", "binary"))
        for column in columns:
            if not isinstance(column, DenseFeat) and column.vocabulary_size > LARGEST_VOCABULARY:
                raise UserError(
                    f"column {column.name!r}: expected a vocabulary of at most 2^24 ids, got {column.vocabulary_size}; "
                    "deepctr-torch passes ids through float32, where larger ones collide. Hash it to fewer, or use "
                    "a model of ours."
                )
        if options.get("gpus"):
            raise UserError(f"gpus: expected None, got {options['gpus']}; name one GPU with device.")
        if options.get("seed") is None:
            options["seed"] = int(torch.randint(2**31, ()))
        try:
            # "regression" leaves out the sigmoid, nothing else.
            self.network = build(**(options | {"task": "regression"}))
        except (ValueError, RuntimeError, KeyError, IndexError) as error:
            reason = str(error).rstrip(".!")
            raise UserError(
                f"{self.architecture}: deepctr-torch refuses these columns or options: {reason}."
            ) from error
        _use_faster_layers(self.network)

    @classmethod
    def from_columns(
        cls,
        user_feature_columns: list,
        item_feature_columns: list,
        dnn_hidden_units: tuple[int, ...] = (300, 300, 128),
        dnn_dropout: float = 0.3,
        dnn_use_bn: bool = True,
        init_std: float = 0.01,
        **options,
    ) -> DeepCTR:
        """The model over both towers' columns, linear part included, with the sizes that all models here share."""
        columns = [*user_feature_columns, *item_feature_columns]
        shared = {
            "linear_feature_columns": columns,
            "dnn_feature_columns": [c for c in columns if cls.dense_in_network or not isinstance(c, DenseFeat)],
            "dnn_hidden_units": dnn_hidden_units,
            "dnn_dropout": dnn_dropout,
            "dnn_use_bn": dnn_use_bn,
            "init_std": init_std,
        }
        return cls(**{name: value for name, value in shared.items() if name in cls.option_names()}, **options)

    @classmethod
    def option_names(cls) -> set[str]:
        """What the constructor takes: deepctr-torch's own."""
        return set(inspect.signature(getattr(models, cls.architecture)).parameters)

    @property
    def output_bias(self) -> nn.Parameter:
        """See Estimator."""
        return self.network.out.bias

    def penalties(self) -> list[tuple[nn.Parameter, float]]:
        """deepctr-torch's own: what l2_reg_linear, l2_reg_embedding and the like set in its constructor."""
        named = [(w, l2) for weights, _, l2 in self.network.regularization_weight for w in weights if l2 > 0]
        return [(w[1] if isinstance(w, tuple) else w, l2) for w, l2 in named]

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B,)."""
        parts = [features[name] for name in self.network.feature_index]
        x_BN = torch.cat([part.reshape(len(part), -1).float() for part in parts], dim=1)
        _, width = next(reversed(self.network.feature_index.values()))
        if x_BN.shape[1] != width:  # the columns behind one that is too wide would be read from the wrong place
            shapes = {name: tuple(features[name].shape) for name in self.network.feature_index}
            raise UserError(f"features: expected {width} input columns together, got {x_BN.shape[1]}: {shapes}.")
        return self.network(x_BN)[:, 0]


@functools.cache
def adapt(architecture: str) -> type[DeepCTR]:
    """A model class around a ranking model of deepctr-torch: `adapt("xDeepFM").from_columns(...)`.

    `from model.deepctr import xDeepFM` gives the same class. The constructor is deepctr-torch's.

    Raises UserError for a model that needs a history, several labels, or is not there.
    """
    if architecture not in RANKING_MODELS:
        raise UserError(f"architecture: expected one of {', '.join(RANKING_MODELS)}, got {architecture!r}.")
    attributes = {
        "__module__": __name__,  # where `__getattr__` finds it, for pickle too
        "__doc__": f"deepctr-torch's {architecture}; see DeepCTR.",
        "architecture": architecture,
        "dense_in_network": architecture not in ("AFM", "CCPM"),  # these refuse dense columns in their network
    }
    return type(architecture, (DeepCTR,), attributes)


def __getattr__(name: str) -> type[DeepCTR]:
    if name in RANKING_MODELS:
        return adapt(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _InteractingLayer(layers.InteractingLayer):
    """AutoInt's attention with its softmax over an outer dimension: over a last one of few fields torch is slow."""

    def forward(self, inputs: Tensor) -> Tensor:
        batch, fields, _ = inputs.shape

        def heads(weight: Tensor) -> Tensor:  # (B * heads, F, D / heads)
            projected = (inputs @ weight).view(batch, fields, self.head_num, -1)
            return projected.transpose(1, 2).reshape(batch * self.head_num, fields, -1)

        query, key, value = heads(self.W_Query), heads(self.W_key), heads(self.W_Value)
        scores = query @ key.transpose(1, 2)
        if self.scaling:
            scores = scores / self.att_embedding_size**0.5
        attention = scores.view(-1, fields).t().contiguous().softmax(0).t().reshape(scores.shape)
        attended = (attention @ value).view(batch, self.head_num, fields, -1)
        attended = attended.transpose(1, 2).reshape(inputs.shape)
        return (attended + inputs @ self.W_Res if self.use_res else attended).relu()


class _CrossNet(layers.CrossNet):
    """DCN's cross layers as products of matrices, where deepctr-torch multiplies batches of (N, 1) ones."""

    def forward(self, inputs: Tensor) -> Tensor:
        x_BN = inputs
        for kernel, bias_N1 in zip(self.kernels, self.bias, strict=True):
            if self.parameterization == "vector":
                x_BN = inputs * (x_BN @ kernel) + bias_N1[:, 0] + x_BN
            else:
                x_BN = inputs * (x_BN @ kernel.t() + bias_N1[:, 0]) + x_BN
        return x_BN


_FASTER = {nn.Embedding: Embedding, layers.InteractingLayer: _InteractingLayer, layers.CrossNet: _CrossNet}


def _use_faster_layers(network: nn.Module) -> None:
    for module in list(network.modules()):
        # The subclass computes otherwise and adds no state, so the layer keeps its parameters and their names.
        module.__class__ = _FASTER.get(type(module), module.__class__)
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
