"""Layers that the models share: field embeddings, the fully connected tower, dropout.

Shapes: B batch, F fields of one tower, D embedding size, T padded length, N dense inputs, W layer width.
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat, as_columns


class FieldEmbedding(nn.Module):
    """Embed the sparse and varlen columns of one tower and gather its dense ones.

    Columns that share an `embedding_name` share a table. In a varlen field id 0 is padding: it is pooled over the
    other ids only (`combiner` "mean", "sum" or "max"; an empty list gives zeros), and the row of id 0 is zero and stays
    zero. A table that no varlen field uses has no padding: its id 0 is an id like others.

    Raises UserError where the sparse columns differ in embedding_dim, share a table but not its size, or there are
    no columns at all.
    """

    def __init__(self, columns: list, init_std: float = 0.01):
        super().__init__()
        columns = as_columns(columns)
        self.sparse = [c for c in columns if isinstance(c, SparseFeat)]
        self.varlen = [c for c in columns if isinstance(c, VarLenSparseFeat)]
        self.dense = [c for c in columns if isinstance(c, DenseFeat)]
        if not columns:
            raise UserError("columns: expected at least one feature column in each tower, got an empty list.")
        dims = {c.name: c.embedding_dim for c in self.sparse + self.varlen}
        if len(set(dims.values())) > 1:
            raise UserError(f"columns: expected one embedding_dim within a tower, got {dims}; make them equal.")
        if not 0 <= init_std < math.inf:
            raise UserError(f"init_std: expected a number of at least 0, got {init_std}.")
        self.field_names = list(dims)
        self.num_fields = len(dims)
        self.embedding_dim = next(iter(dims.values()), 0)
        self.num_dense = sum(c.dimension for c in self.dense)
        self.output_dim = self.num_fields * self.embedding_dim + self.num_dense
        lengths = [c.length_name for c in self.varlen if c.length_name is not None]
        self.feature_names = [c.name for c in columns] + lengths
        # A list and not a ModuleDict, which refuses names such as "type" or "a.b".
        self.tables = nn.ModuleList()
        self.table_index: dict[str, int] = {}
        padded = {c.embedding_name for c in self.varlen}
        for column in self.sparse + self.varlen:
            if column.embedding_name not in self.table_index:
                is_padded = column.embedding_name in padded
                table = embedding_table(column.vocabulary_size, column.embedding_dim, init_std, is_padded)
                self.table_index[column.embedding_name] = len(self.tables)
                self.tables.append(table)
            elif self.table(column.embedding_name).num_embeddings != column.vocabulary_size:
                raise UserError(
                    f"column {column.name!r}: expected the vocabulary_size of the other columns that share the table "
                    f"{column.embedding_name!r}, got {column.vocabulary_size}; make them equal."
                )

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Embedded fields (B, F, D) and dense inputs (B, N); None for what the tower has none of."""
        embedded = [self.table(c.embedding_name)(features[c.name]) for c in self.sparse]
        embedded += [self._pool(c, features) for c in self.varlen]
        fields_BFD = torch.stack(embedded, dim=1) if embedded else None
        dense = [features[c.name].view(-1, c.dimension) for c in self.dense]
        dense_BN = torch.cat(dense, dim=1) if dense else None
        return fields_BFD, dense_BN

    def table(self, embedding_name: str) -> "Embedding":
        """The embedding table of that name."""
        return self.tables[self.table_index[embedding_name]]

    def _pool(self, column: VarLenSparseFeat, features: dict[str, Tensor]) -> Tensor:
        table = self.table(column.embedding_name)
        ids_BT = features[column.name]
        if column.length_name is not None:
            position_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
            ids_BT = ids_BT.masked_fill(position_T >= features[column.length_name].view(-1, 1), 0)
        return table.pooled(ids_BT, column.combiner)


class Embedding(nn.Embedding):
    """nn.Embedding whose gradient is summed by index_add_ on the CPU: half the time of torch's own, the same sums."""

    def forward(self, ids: Tensor) -> Tensor:
        if self.weight.device.type != "cpu" or self.padding_idx is not None or not torch.is_grad_enabled():
            return super().forward(ids)
        return _Rows.apply(self.weight, ids.reshape(-1)).view(*ids.shape, -1)

    def pooled(self, ids_BT: Tensor, mode: str) -> Tensor:
        """The rows of each list of ids, but for the padding, 0, as one: (B, D); zeros for an empty list."""
        return functional.embedding_bag(ids_BT, self.weight, mode=mode, padding_idx=0)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.num_rows = len(weight)
        return weight.index_select(0, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        return grad.new_zeros(ctx.num_rows, grad.shape[1]).index_add_(0, ids, grad), None


def embedding_table(vocabulary_size: int, width: int, init_std: float, padded: bool = False) -> Embedding:
    """A table of normal entries; where it is padded, the row of id 0 is zero and gets no gradient."""
    table = Embedding(vocabulary_size, width, padding_idx=0 if padded else None)
    nn.init.normal_(table.weight, std=init_std)
    if padded:
        with torch.no_grad():
            table.weight[0].zero_()
    return table


def concatenate(*inputs: Tensor | None) -> Tensor:
    """The inputs of a row side by side, (B, W): fields (B, F, D) laid flat, dense ones (B, N) as they are, no None."""
    return torch.cat([part.flatten(1) for part in inputs if part is not None], dim=1)


def is_read_at_once(tensor: Tensor) -> bool:
    """Whether a step may ask for numbers that it computed: a GPU would have to be waited for."""
    return tensor.device.type == "cpu"


class Dropout(nn.Module):
    """Dropout whose mask costs 16 random bits an element on the CPU, where torch draws a whole float.

    The keep probability is rounded to a multiple of 2^-16 and the kept values are scaled by exactly that, so
    the expectation is unchanged.
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise UserError(f"dropout: expected a probability in [0, 1), got {p}.")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        # Full-range int64 draws, read as four int16 each, uniform over all 2^16 values.
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        num_kept = max(1, round((1 - self.p) * 2**16))
        kept = (bits <= num_kept - 2**15 - 1).to(x.dtype)
        return x * kept.mul_(2**16 / num_kept)


class MLP(nn.Module):
    """Fully connected layers: linear, batch norm, ReLU, dropout; gives every layer's output.

    Args:
        input_dim: width of the input.
        hidden_units: width of each layer; none gives no outputs.
        linear_output: the last layer is linear alone.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_units: tuple[int, ...],
        dropout: float = 0.0,
        batch_norm: bool = True,
        linear_output: bool = False,
    ):
        super().__init__()
        self.layers = nn.ModuleList()
        for i, width in enumerate(hidden_units):
            linear = nn.Linear(input_dim, width)
            norm = [nn.BatchNorm1d(width)] if batch_norm else []
            is_linear = linear_output and i == len(hidden_units) - 1
            self.layers.append(nn.Sequential(linear, *([] if is_linear else [*norm, nn.ReLU(), Dropout(dropout)])))
            input_dim = width

    def forward(self, x: Tensor) -> list[Tensor]:
        """The outputs of all layers, each (B, W)."""
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs


def check_hidden_units(hidden_units: tuple[int, ...]) -> None:
    """Raise UserError where a model that needs a layer is given none."""
    if not hidden_units:
        raise UserError("dnn_hidden_units: expected at least one layer, got none.")
