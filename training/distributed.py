"""Several processes that train one model on one batch (training/group.py): who they are and what they exchange.

A batch is dealt out: each process has a part of its rows, and its loss is its share of the batch's, so that the shares
add up to what one process would have. Where a process is alone, every function here gives back what it was given.

Within a step nobody asks the others how many rows they have: a number that comes from elsewhere has to be waited for.
All know the batch's, and how it is dealt out.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from preprocessing.errors import UserError

_batch_rows = 0  # of the batch that all processes train on, where shared_batch has said so


def rank() -> int:
    """This process's number, from 0; the first one prints and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def num_processes() -> int:
    """How many train together; 1 where a process is alone."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own_rows(rows: np.ndarray) -> np.ndarray:
    """This process's part of a batch's rows: as many as the others', or one more or fewer."""
    return np.array_split(rows, num_processes())[rank()] if num_processes() > 1 else rows


def _rows_of_each(num_rows: int) -> list[int]:
    """How many of so many rows each process has of `own_rows`."""
    least, more = divmod(num_rows, num_processes())
    return [least + (process < more) for process in range(num_processes())]


@contextmanager
def shared_batch(num_rows: int) -> Iterator[None]:
    """Within the block the processes train on a batch of so many rows, of which each has its `own_rows`."""
    global _batch_rows
    before, _batch_rows = _batch_rows, num_rows
    try:
        yield
    finally:
        _batch_rows = before


def batch_rows(own: int) -> int:
    """How many rows the batch has of which this process has so many.

    Raises UserError where there are several processes and no `shared_batch`, or one that gives this process others.
    """
    if num_processes() == 1:
        return own
    expected = _rows_of_each(_batch_rows)[rank()]
    if own != expected:
        raise UserError(
            f"process {rank()}: expected {expected} of a batch of {_batch_rows} rows, got {own}; several processes "
            "train within shared_batch, each on its own_rows (training/distributed.py)."
        )
    return _batch_rows


def total(number: float) -> float:
    """The sum of a number over all processes, which are waited for."""
    if num_processes() == 1:
        return number
    tensor = torch.tensor(number, dtype=torch.float64, device=_device())
    distributed.all_reduce(tensor)
    return tensor.item()


def total_of_each(numbers: Tensor) -> Tensor:
    """The same, number by number."""
    if num_processes() > 1:
        numbers = numbers.clone()
        distributed.all_reduce(numbers)
    return numbers


def gather_rows(rows_BW: Tensor, num_rows: int | None = None) -> tuple[Tensor, int]:
    """The rows of all processes, one behind the other, and the place of this one's first.

    Gradients come back: each process's rows get what the losses of all of them say.

    Args:
        num_rows: of all processes, dealt out by `own_rows`; None: those of the batch, see `batch_rows`.
    """
    return (rows_BW, 0) if num_processes() == 1 else _gather_rows(rows_BW, num_rows)


def _gather_rows(rows_BW: Tensor, num_rows: int | None) -> tuple[Tensor, int]:
    counts = _rows_of_each(batch_rows(len(rows_BW)) if num_rows is None else num_rows)
    return _Gather.apply(rows_BW, counts), sum(counts[: rank()])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows_BW: Tensor, counts: list[int]) -> Tensor:
        ctx.start, ctx.count = sum(counts[: rank()]), len(rows_BW)
        padded = rows_BW.new_zeros(max(counts), *rows_BW.shape[1:])
        padded[: len(rows_BW)] = rows_BW
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous()
        distributed.all_reduce(grad)
        return grad[ctx.start : ctx.start + ctx.count], None


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation by the mean and variance of the batch that all processes share.

    torch's SyncBatchNorm does that on GPUs alone.
    """

    def forward(self, x_BW: Tensor) -> Tensor:
        if not self.training or num_processes() == 1:
            return super().forward(x_BW)
        x_BW = x_BW.float()
        own_mean_W = x_BW.mean(0)
        own_squares_W = (x_BW - own_mean_W).square().sum(0)
        count = x_BW.new_full((1,), len(x_BW))
        # A row per process: with it each makes the whole batch's from the parts' (Chan et al., 1979).
        parts_P, _ = gather_rows(torch.cat([count, own_mean_W, own_squares_W])[None], num_processes())
        count_P1, mean_PW, squares_PW = parts_P.split([1, x_BW.shape[1], x_BW.shape[1]], dim=1)
        num_rows = count_P1.detach().sum()
        mean_W = (count_P1 * mean_PW).sum(0) / num_rows
        squares_W = squares_PW.sum(0) + (count_P1 * (mean_PW - mean_W).square()).sum(0)
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean_W, self.momentum)
                self.running_var.lerp_(squares_W / (num_rows - 1), self.momentum)
        normal_BW = (x_BW - mean_W) * (squares_W / num_rows + self.eps).rsqrt()
        return normal_BW if self.weight is None else normal_BW * self.weight + self.bias


def share_model(model: nn.Module, device: torch.device, own: Iterable[str] = ()) -> nn.Module:
    """The model as a step of all processes calls it: gradients are averaged, batch norms see the whole batch.

    The parameters are the model's own, those of the first process to begin with.

    Args:
        own: names of what each process has for itself, and keeps.
    """
    if num_processes() == 1:
        return model
    _keep_out_of_graphs()
    for module in model.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = BatchNorm
    wrapper = nn.parallel.DistributedDataParallel
    wrapper._set_params_and_buffers_to_ignore_for_model(model, own)
    # Buffers are the same everywhere; torch 2.13 has another name for leaving them alone.
    named = inspect.signature(wrapper).parameters
    buffers = {"forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers": False}
    return wrapper(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        process_group=distributed.new_group(),  # gradients are on their way while the batch norms exchange theirs
        **buffers,
        find_unused_parameters=True,  # a loss of weight 0, a linear part without columns
    )


def _keep_out_of_graphs() -> None:
    """Have torch.compile leave the exchanges as they are.

    As a decorator this line would load all of torch's compiler with every model, 1.7 s that a server of one process has
    no use for.
    """
    global _gather_rows
    _gather_rows = torch.compiler.disable(_gather_rows)


def seed_apart(*numbers: int) -> None:
    """Seed torch's generators by some numbers and by which process this is."""
    [seed] = np.random.SeedSequence([*numbers, rank()]).generate_state(1, np.uint64)
    torch.manual_seed(int(seed) % 2**63)


def gather_objects(value) -> list:
    """What each process has, in their order, on all of them."""
    if num_processes() == 1:
        return [value]
    values = [None] * num_processes()
    distributed.all_gather_object(values, value)
    return values


def _device() -> torch.device | str:
    return "cpu" if distributed.get_backend() == "gloo" else torch.device("cuda", torch.cuda.current_device())
