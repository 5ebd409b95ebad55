"""Embedding tables that are dealt out to all processes, row by row, by TorchRec; the models know nothing of it.

A look-up is an exchange: each process asks the others for the rows that they have, so all of them look up equally
often. The gradients go the same way back, where fbgemm takes the optimiser's step within the backward pass. That is
row-wise Adagrad, which it has for CPUs, too: one number a row in the place of Adam's two a weight. For each id that
occurs in a batch, with the gradient g summed over all of the batch,

    g += weight_decay * w;  squares += mean(g^2);  w -= learning_rate * g / (sqrt(squares) + 1e-8).

Shapes: R rows of a table, S those of this process, D embedding size, B batch, T padded length, N ids.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from preprocessing.errors import UserError
from training.distributed import num_processes, rank

logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # it warns each process of TorchRec's own ways

from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import ShardingEnv

WIDTH = 4  # fbgemm has tables of so many columns, or twice, three times, ...


class ShardedTable(nn.Module):
    """In the place of a model's embedding table: the same rows at the start, the same interface (model/layers.py).

    Its `weight` is a buffer, this process's rows (S, D): neither DistributedDataParallel nor Adam sees it, and the
    state has it under the table's name. `squares`, (S,), is what Adagrad keeps. A step looks a table up once: where
    columns share it, each of them is a step of the optimiser's.
    """

    def __init__(self, table: nn.Embedding, device: torch.device, learning_rate: float, weight_decay: float):
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.weight.shape
        self.padding_idx, self.learning_rate = table.padding_idx, learning_rate
        sharder = EmbeddingCollectionSharder(
            {
                "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
                "learning_rate": learning_rate,
                "eps": 1e-8,
                "weight_decay": weight_decay,
                "weight_decay_mode": WeightDecayMode.L2,
            }
        )
        config = EmbeddingConfig(self.num_embeddings, self.embedding_dim, name="table", feature_names=["ids"])
        collection = EmbeddingCollection(tables=[config], device=torch.device("meta"))
        plan = construct_module_sharding_plan(
            collection,
            {"table": row_wise(compute_kernel=EmbeddingComputeKernel.FUSED.value)},
            sharder,
            local_size=num_processes(),
            world_size=num_processes(),
            device_type=device.type,
        )
        collection = sharder.shard(collection, plan, ShardingEnv.from_process_group(distributed.group.WORLD), device)
        # In a list: as a submodule its parameters would be the model's, under names of TorchRec's.
        self.collection = [collection]
        name = "embeddings.table.weight"
        [weight] = collection.state_dict()[name].local_shards()
        [state] = collection.fused_optimizer.state_dict()["state"][name].values()
        [squares] = state.local_shards()
        self.register_buffer("weight", weight.tensor)
        self.squares = squares.tensor
        self.weight.copy_(self.own(table.weight.detach()))

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of ids of any shape, (..., D); of padding zeros, without a gradient."""
        if torch.is_inference_mode_enabled():  # in which fbgemm has no look-up
            with torch.inference_mode(False), torch.no_grad():
                return self(ids.clone())
        ids_N = ids.reshape(-1)
        lengths = ids_N.new_full((1,), len(ids_N))  # one list of all ids; its length is exchanged, too
        [collection] = self.collection
        rows_ND = collection(KeyedJaggedTensor(["ids"], ids_N, lengths=lengths))["ids"].values()
        if self.padding_idx is not None:
            rows_ND = rows_ND.masked_fill((ids_N == self.padding_idx)[:, None], 0.0)
        return rows_ND.view(*ids.shape, self.embedding_dim)

    def pooled(self, ids_BT: Tensor, mode: str) -> Tensor:
        """See Embedding.pooled, (B, D)."""
        is_id_BT = ids_BT != 0
        counts_B = is_id_BT.sum(1)
        rows_ND = self(ids_BT[is_id_BT])
        places_N = torch.arange(len(rows_ND), device=ids_BT.device)
        return functional.embedding_bag(places_N, rows_ND, counts_B.cumsum(0) - counts_B, mode=mode)

    def scale_learning_rate(self, factor: float) -> None:
        """The learning rate of the steps from here on, as a share of the one it was made with."""
        [collection] = self.collection
        [group] = collection.fused_optimizer.param_groups
        group["lr"] = self.learning_rate * factor
        collection.fused_optimizer.step()  # which hands it on; the rows' steps are the backward pass's

    def own(self, whole: Tensor) -> Tensor:
        """A copy of this process's rows of a whole table (R, ...), on its device."""
        return whole[self._rows_of(rank())].to(self.weight.device, copy=True)

    def whole(self, own: Tensor) -> Tensor:
        """The opposite: (R, ...) on the first process, in main memory; the others, who call it too, get back theirs."""
        if rank():
            distributed.send(own.contiguous(), 0)
            return own
        whole = torch.empty(self.num_embeddings, *own.shape[1:], dtype=own.dtype)
        whole[self._rows_of(0)] = own.cpu()
        for process in range(1, num_processes()):
            rows = self._rows_of(process)
            part = torch.empty_like(whole[rows], device=self.weight.device)
            distributed.recv(part, process)
            whole[rows] = part.cpu()
        return whole

    def _rows_of(self, process: int) -> slice:
        size = -(-self.num_embeddings // num_processes())  # TorchRec's: the last process has fewer
        return slice(process * size, min((process + 1) * size, self.num_embeddings))


def shard_tables(
    model: nn.Module, rows: int, device: torch.device, learning_rate: float, weight_decay: float
) -> dict[str, ShardedTable]:
    """Put a ShardedTable in the place of each table of more rows; gives them by their weights' names in the state.

    Tables whose width fbgemm does not have (WIDTH) stay as they are, as the linear weights of a model do, and so do
    those of too few rows to have one for each process. Raises UserError where none is left.
    """
    least = max(rows, (num_processes() - 1) ** 2) + 1  # from there on the last of the parts has a row
    tables = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Embedding)]
    tables = [(name, m) for name, m in tables if m.num_embeddings >= least and m.embedding_dim % WIDTH == 0]
    if not tables:
        raise UserError(
            f"--shard-embeddings {rows}: expected an embedding table of at least {least} rows and of a width that is a "
            f"multiple of {WIDTH}, got none in {type(model).__name__}; leave the flag out, or name fewer rows."
        )
    if not distributed.is_initialized():  # a process that is alone: TorchRec wants a group all the same
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    sharded = {}
    for name, table in tables:
        parent, _, place = name.rpartition(".")
        sharded[f"{name}.weight"] = ShardedTable(table, device, learning_rate, weight_decay)
        setattr(model.get_submodule(parent), place, sharded[f"{name}.weight"])
    return sharded
