"""The training loop. It takes any model that gives logits, and knows none by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from preprocessing.encode import OOV
from preprocessing.errors import UserError, is_out_of_memory
from preprocessing.tables import Table
from training import CHECKPOINT
from training.average import WeightAverage
from training.checkpoint import load_checkpoint, save_checkpoint
from training.distributed import (
    gather_objects,
    gather_rows,
    num_processes,
    own_rows,
    rank,
    seed_apart,
    share_model,
    shared_batch,
    total,
    total_of_each,
)
from training.errors import Interrupted, NonFiniteLoss
from training.generators import generator_states, set_generators
from training.memory import keep_freed_memory
from training.metrics import evaluate
from training.predict import predict
from training.progress import Progress
from training.signals import catch_signals

# Batches after which losses are looked at: to read one waits for its step, on a GPU and of other processes. Several
# processes cannot stop between, so they look more often where batches take long.
LOOK, LOOK_SECONDS = 16, 2.0

ROWWISE_ADAGRAD = "row-wise Adagrad"  # trains the tables that all processes share (training/sharding.py)


class Trainer:
    """Fit a model on one table, stop early on the AUC of another, and predict.

    The loss is the binary cross-entropy plus the auxiliary losses that the model gives when it is called with
    labels (`auxiliary = True` on its class says that it can be). Adam sees it summed over the batch, as in the
    released code, which sets the scale of `l2_embedding`; what is reported are means per sample.

    Where torchrun started several processes (training/distributed.py), each is given the same arguments and has its
    part of every batch; what is printed and written is the first one's.

    Args:
        model: an nn.Module that returns logits (B,) for a dict of features.
        l2_embedding: weight of the squared embeddings in the summed loss, as Adam's coupled weight decay.
        seed: of the order of rows; seed the weights and dropout with `seed_everything`.
        run_dir: where the checkpoint is kept; None keeps none.
        identity: what a checkpoint must agree on to be resumed (model, settings, data fingerprint, ...).
        checkpoint_seconds: a checkpoint is written this often within an epoch, besides at each epoch's end.
        optimizer: in the place of Adam; `learning_rate` and `l2_embedding` are then not used.
        schedule: what a step multiplies the learning rate by, given the share of all epochs' steps that are done, in
            [0, 1); None: nothing.
        penalties: parameters whose squares are added to the summed loss, each with its weight.
        shuffle: deal the rows out anew each epoch.
        validate_every: validate after so many batches, too, and keep the weights of the best; 0: at each epoch's end.
        id_dropout: names of id features, each with the share of a batch's rows in which it becomes out-of-vocabulary
            (DropoutNet, NIPS 2017); each is drawn by itself.
        unknown: for a name in id_dropout, features that go with it, (B,) or (B, D), and what each is then: the (D,)
            statistics of who is not known.
        average_decay: share of an exponential moving average of the weights that a step keeps; the average is
            validated and kept. 0: no average.
        before_checkpoint: is called once, when the first checkpoint is written and before it takes its place: what
            stands in the run directory of an older run goes there.
        amp: what a step computes in where that is safe, such as torch.bfloat16; losses stay in float32, and so does
            whatever is validated, kept and served.
        compiled: have torch.compile make the step's forward and backward.
        shard_rows: embedding tables of more rows are dealt out to all processes, and row-wise Adagrad trains them in
            the optimiser's place; see training/sharding.py. 0: none.
        shard_learning_rate: of row-wise Adagrad; 0: learning_rate.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float = 1e-3,
        batch_size: int = 2048,
        l2_embedding: float = 1e-5,
        device: str | torch.device = "cpu",
        seed: int = 0,
        run_dir: Path | None = None,
        identity: dict | None = None,
        checkpoint_seconds: float = 60.0,
        show_progress: bool = True,
        optimizer: torch.optim.Optimizer | None = None,
        schedule: Callable[[float], float] | None = None,
        penalties: list[tuple[nn.Parameter, float]] | None = None,
        shuffle: bool = True,
        validate_every: int = 0,
        id_dropout: dict[str, float] | None = None,
        unknown: dict[str, dict[str, np.ndarray]] | None = None,
        average_decay: float = 0.0,
        before_checkpoint: Callable[[], None] | None = None,
        amp: torch.dtype | None = None,
        compiled: bool = False,
        shard_rows: int = 0,
        shard_learning_rate: float = 0.0,
    ):
        self.device = torch.device(device)
        self.sharded = {}  # the tables that are dealt out, by their weights' names
        if shard_rows:
            from training.sharding import shard_tables  # which imports TorchRec: seconds, and few have it

            rate = shard_learning_rate or learning_rate
            self.sharded = shard_tables(model, shard_rows, self.device, rate, 2 * l2_embedding)
        self.model = model.to(self.device)
        self.batch_size = batch_size
        self.seed = seed
        self.checkpoint_path = Path(run_dir) / CHECKPOINT if run_dir is not None else None
        self.identity = identity or {}
        self.checkpoint_seconds = checkpoint_seconds
        self.show_progress = show_progress and rank() == 0
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] = {}
        self.penalties = penalties or []
        self.shuffle = shuffle
        self.validate_every = validate_every
        self.id_dropout = {name: share for name, share in (id_dropout or {}).items() if share}
        self.unknown = {
            id_name: {name: torch.as_tensor(values, device=self.device) for name, values in statistics.items()}
            for id_name, statistics in (unknown or {}).items()
        }
        self.average = WeightAverage(self.model, average_decay) if average_decay else None
        self.before_checkpoint = before_checkpoint
        self.optimizer = optimizer or _adam(model, learning_rate, l2_embedding)
        self.schedule = schedule
        self.learning_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.amp = amp
        self._step_model = share_model(self.model, self.device, self.sharded)
        if compiled:
            self._step_model = torch.compile(self._step_model)
        if rank():
            seed_apart(seed)  # weights are the first one's; dropout is everyone's own

    def fit(
        self,
        train: Table,
        valid: Table | None = None,
        epochs: int = 1,
        patience: int | None = None,
        resume: bool = False,
        after_epoch: Callable[[dict], bool] | None = None,
        on_epoch: Callable[[dict], None] | None = None,
    ) -> Progress:
        """Train up to `epochs` epochs; stop after `patience` epochs in a row without a better validation AUC.

        The model ends with the weights of its best epoch. Without a validation table all epochs are run, and the
        last weights stay. With `resume`, training goes on from the checkpoint in the run directory, on the CPU
        bit for bit as if it had never stopped; without one it starts anew.

        Args:
            after_epoch: is given the epoch's row of the history, in the place of the printed line; training stops
                where it returns True.
            on_epoch: is given the same row, besides.
        Raises NonFiniteLoss, Interrupted, and UserError where the checkpoint is another run's or cannot be saved.
        """
        if len(train) < 2:
            raise UserError(f"train split: expected at least two rows, got {len(train)}.")
        if min(len(train), self.batch_size) < num_processes():
            raise UserError(
                f"train split: expected batches with a row for each of {num_processes()} processes, got {len(train)} "
                f"rows in batches of {self.batch_size}; start fewer processes, or raise --batch-size."
            )
        if valid is not None and len(valid.labels.unique()) < 2:
            raise UserError("valid split: expected labels 0 and 1, got one class only, which has no AUC.")
        patience = patience if valid is not None else None
        keep_freed_memory()
        if resume:
            self.restore()
        progress = self.progress
        progress.finished = progress.is_finished(epochs, patience)
        train = train.to(self.device)
        with catch_signals() as stop_requested:
            while not progress.finished:
                self._train_epoch(train, epochs, stop_requested, valid)
                metrics = {} if valid is None else self._validate(valid)
                progress.end_epoch(metrics)
                if metrics:
                    self._keep_if_best(metrics["auc"], progress.epoch)
                progress.finished = progress.is_finished(epochs, patience)
                if after_epoch is not None:
                    progress.finished = after_epoch(progress.history[-1]) or progress.finished
                self._save()  # first: where nobody reads what is printed any more, that raises
                if after_epoch is None and self.show_progress:
                    progress.print_epoch()
                if on_epoch is not None:
                    on_epoch(progress.history[-1])
                progress.finished = total(progress.finished) > 0  # whatever one process was told, all do
                if total(stop_requested.is_set()) and not progress.finished:
                    self._stop()
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
        elif self.average:
            self.model.load_state_dict(self.average.weights)
        return progress

    def _validate(self, valid: Table) -> dict[str, float]:
        with self.average.in_place() if self.average else nullcontext():
            logits = self.predict(valid)
        if not np.isfinite(logits).all():
            raise NonFiniteLoss(
                f"epoch {self.progress.epoch + 1}, validation: {(~np.isfinite(logits)).sum()} of {len(valid)} "
                "logits are no numbers; lower --lr, or look for NaN and huge values in the dense features."
            )
        return evaluate(valid.labels.numpy(), logits)

    def _train_epoch(self, train: Table, epochs: int, stop_requested: threading.Event, valid: Table | None) -> None:
        progress = self.progress
        least = max(2, num_processes())
        batches = epoch_batches(len(train), self.batch_size, [self.seed, progress.epoch], self.shuffle, least)
        self.model.train()
        last_saved = start = looked = time.perf_counter()
        look_after = 1
        unseen: list[tuple[int, Tensor]] = []
        bar = tqdm(
            total=len(train),
            initial=progress.num_samples,
            desc=f"epoch {progress.epoch + 1}",
            unit="sample",
            unit_scale=True,
            leave=False,
            disable=None if self.show_progress else True,
        )
        with bar:
            for batch in batches[progress.batch :]:
                rows = torch.from_numpy(own_rows(batch)).to(self.device, non_blocking=True)
                self._set_learning_rates((progress.epoch + progress.batch / len(batches)) / epochs)
                try:
                    losses = self.step(self._without_ids(train.batch(rows)), train.labels[rows], len(batch))
                except RuntimeError:
                    # The signal that asks this process to stop reaches the compiler that it waits for, too.
                    if not stop_requested.is_set() or num_processes() > 1:
                        raise
                    if unseen:
                        self._look(unseen, len(batches), stops=True, saves=True, seconds=0.0)
                    progress.epoch_seconds += time.perf_counter() - start
                    self._save()
                    self._stop()
                progress.batch += 1
                unseen.append((len(batch), torch.stack(losses)))
                bar.update(len(batch))
                is_within = progress.batch < len(batches)
                validates = valid is not None and self.validate_every and is_within
                validates = validates and not progress.batch % self.validate_every
                stops, saves = stop_requested.is_set(), time.perf_counter() - last_saved > self.checkpoint_seconds
                # Together with others a process can stop or save only where they do: where losses are looked at.
                asks = num_processes() == 1 and (stops or saves)
                if validates or asks or not is_within or len(unseen) >= look_after:
                    seconds = (time.perf_counter() - looked) / len(unseen)
                    stops, saves, seconds = self._look(unseen, len(batches), stops, saves, seconds)
                    look_after, looked = min(max(int(LOOK_SECONDS / seconds), 1), LOOK), time.perf_counter()
                    bar.set_postfix(loss=f"{progress.loss_sum / progress.num_samples:.4f}", refresh=False)
                    if validates:
                        begun = time.perf_counter()
                        self._keep_if_best(self._validate(valid)["auc"], progress.epoch + 1, progress.batch)
                        self.model.train()
                        validating = time.perf_counter() - begun  # which is no training
                        start, looked = start + validating, looked + validating
                    if stops or saves:
                        progress.epoch_seconds += time.perf_counter() - start
                        self._save()
                        if stops:
                            self._stop()
                        last_saved = start = time.perf_counter()
        progress.epoch_seconds += time.perf_counter() - start

    def _look(
        self, unseen: list[tuple[int, Tensor]], num_batches: int, stops: bool, saves: bool, seconds: float
    ) -> tuple[bool, bool, float]:
        """Take in the losses of batches that ran since the last look.

        Returns what all processes are told alike: whether one of them is to stop, whether the first one is to save, and
        the seconds that a batch took, their mean.

        Args:
            unseen: the number of rows of each batch and its losses, (2,); is emptied.
            stops, saves, seconds: the same of this process.
        """
        progress = self.progress
        asked = [[float(stops), float(saves and rank() == 0)], [seconds / num_processes(), 0.0]]
        own = [torch.stack([losses for _, losses in unseen]), torch.tensor(asked, device=self.device)]
        *losses, (stops, saves), (seconds, _) = total_of_each(torch.cat(own)).tolist()
        first = progress.batch - len(unseen) + 1
        for i, ((num_rows, _), (loss, auxiliary)) in enumerate(zip(unseen, losses, strict=True)):
            if not np.isfinite(loss + auxiliary):
                raise NonFiniteLoss(
                    f"epoch {progress.epoch + 1}, batch {first + i} of {num_batches}: the loss is "
                    f"{loss + auxiliary}; lower --lr, or look for NaN and huge values in the dense features."
                )
            progress.add(num_rows, loss, auxiliary)
        unseen.clear()
        return stops > 0, saves > 0, seconds

    def _set_learning_rates(self, done: float) -> None:
        if self.schedule is not None:
            factor = self.schedule(done)
            for table in self.sharded.values():
                table.scale_learning_rate(factor)
            for group, learning_rate in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
                group["lr"] = learning_rate * factor

    def step(self, features: dict[str, Tensor], labels: Tensor, num_rows: int | None = None) -> tuple[Tensor, Tensor]:
        """One update; returns the batch's mean cross-entropy and its auxiliary losses' sum, on the device.

        Args:
            num_rows: of the batch, where this process has a part of it alone; it gets its shares of both losses.
        """
        num_rows = num_rows or len(labels)
        autocast = torch.autocast(self.device.type, self.amp) if self.amp else nullcontext()
        with shared_batch(num_rows), autocast:
            if getattr(self.model, "auxiliary", False):
                logits, losses = self._step_model(features, labels)
            else:
                logits, losses = self._step_model(features), {}
        loss = functional.binary_cross_entropy_with_logits(logits.float(), labels) * (len(labels) / num_rows)
        auxiliary = sum(losses.values(), start=torch.zeros((), device=self.device))
        self.optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel takes the mean of what processes have; the sum is wanted.
        ((loss + auxiliary) * num_rows * num_processes()).backward()
        for parameter, weight in self.penalties:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach(), alpha=2 * weight)
        self.optimizer.step()
        if self.average:
            self.average.update()
        return loss.detach(), auxiliary.detach()

    def _keep_if_best(self, auc: float, epoch: int, batch: int = 0) -> None:
        progress = self.progress
        if auc > progress.best_auc:
            progress.best_auc, progress.best_epoch, progress.best_batch = auc, epoch, batch
            weights = self.average.weights if self.average else self.model.state_dict()
            self.best_weights = {name: value.detach().clone() for name, value in weights.items()}

    def _without_ids(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features of a batch, its ids out-of-vocabulary in a share of the rows."""
        for name, share in self.id_dropout.items():
            ids_B = features[name]
            dropped_B = torch.rand(len(ids_B), device=self.device) < share
            features[name] = ids_B.masked_fill(dropped_B, OOV)
            for statistic, unknown_D in self.unknown.get(name, {}).items():
                features[statistic] = torch.where(dropped_B[:, None], unknown_D, features[statistic])
        return features

    def predict(self, table: Table) -> np.ndarray:
        """Logits of a table's rows, (N,) float32, in evaluation mode; see training/predict.py."""
        if num_processes() == 1:
            return predict(self.model, table, self.device)
        together = bool(self.sharded)
        if together and len(table) < num_processes():  # not a row for each: each has them all
            return predict(self.model, table, self.device, together)
        own = predict(self.model, table.part(own_rows(np.arange(len(table)))), self.device, together)
        return gather_rows(torch.from_numpy(own).to(self.device), len(table))[0].cpu().numpy()

    def _stop(self) -> None:
        where = f"in epoch {self.progress.epoch + 1}, after batch {self.progress.batch}"
        if self.checkpoint_path is None:
            raise Interrupted(f"{where}; there is no run directory, so nothing was saved.")
        raise Interrupted(f"{where}; saved to {self.checkpoint_path}. Run the same command with --resume to go on.")

    def _save(self) -> None:
        if self.checkpoint_path is None:
            return
        state = {
            "identity": self.identity,
            "progress": vars(self.progress),
            "model": self.whole(self.model.state_dict()),
            "best_model": self.whole(self.best_weights),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.average:
            state["average"] = self.average.state() | {"weights": self.whole(self.average.weights)}
        if self.sharded:
            state["sharded"] = {name: table.whole(table.squares) for name, table in self.sharded.items()}
        generators, *of_others = gather_objects(generator_states(self.device))
        state |= generators
        if of_others:
            state["other_processes"] = of_others
        refused = None
        if rank() == 0:
            try:
                save_checkpoint(self.checkpoint_path, state, self.before_checkpoint)
            except UserError as error:
                refused = error
        if refused := gather_objects(refused)[0]:
            raise refused
        self.before_checkpoint = None

    def num_parameters(self) -> int:
        """How many numbers are trained, of all processes."""
        tables = [table.num_embeddings * table.embedding_dim for table in self.sharded.values()]
        return sum(parameter.numel() for parameter in self.model.parameters()) + sum(tables)

    def whole(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of which sharded tables are whole, on the first process; all of them call it."""
        tables = {name: table.whole(weights[name]) for name, table in self.sharded.items() if name in weights}
        return weights | tables if tables else weights

    def _own(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The opposite: weights of which sharded tables are this process's rows."""
        tables = {name: table.own(weights[name]) for name, table in self.sharded.items() if name in weights}
        return weights | tables if tables else weights

    def restore(self) -> None:
        """Take up the state of the run directory's checkpoint, if it has one; raises UserError if it is another's."""
        if self.checkpoint_path is None or not self.checkpoint_path.exists():
            return
        # A GPU may have no room for a whole table.
        state = load_checkpoint(self.checkpoint_path, self.identity, "cpu" if self.sharded else self.device)
        try:
            self.progress = Progress(**state["progress"])
            self.model.load_state_dict(self._own(state["model"]))
            self.best_weights = self._own(state["best_model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average:
                self.average.restore(state["average"] | {"weights": self._own(state["average"]["weights"])})
            for name, table in self.sharded.items():
                table.squares.copy_(table.own(state["sharded"][name]))
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise UserError(
                f"{self.checkpoint_path}: expected this code's model and loop, got another version's "
                f"({str(error).splitlines()[0]}); use that version, or --overwrite."
            ) from error
        of_processes = [state, *state.get("other_processes", [])]
        if len(of_processes) == num_processes():
            state = of_processes[rank()]
        elif rank():  # there were more or fewer
            seed_apart(self.seed, self.progress.epoch, self.progress.batch)
            return
        set_generators(state, self.device)


def _adam(model: nn.Module, learning_rate: float, l2_embedding: float) -> torch.optim.Adam:
    embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    is_embedding = {id(weight) for weight in embeddings}
    others = [p for p in model.parameters() if id(p) not in is_embedding]
    # The gradient of l2 * w^2 is 2 * l2 * w, what Adam's weight_decay adds; no pass over the tables is needed.
    groups = [{"params": others}, {"params": embeddings, "weight_decay": 2 * l2_embedding}]
    return torch.optim.Adam([g for g in groups if g["params"]], lr=learning_rate, fused=True)


def epoch_batches(
    num_rows: int, batch_size: int, seed: list[int], shuffle: bool = True, least: int = 2
) -> list[np.ndarray]:
    """The row numbers of an epoch's batches, shuffled unless told otherwise; the same for the same seed.

    A last batch of fewer rows than `least` joins the one before it: batch norm has no variance over one row, and each
    process needs one.
    """
    order = np.random.default_rng(seed).permutation(num_rows) if shuffle else np.arange(num_rows)
    bounds = list(range(batch_size, num_rows, batch_size))
    if bounds and num_rows - bounds[-1] < least:
        bounds.pop()
    return np.split(order, bounds)
