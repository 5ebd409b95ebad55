"""What every model here is: logits from a dict of features, and deepctr-torch's four calls for who is used to them."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, VarLenSparseFeat, as_columns, build_input_features
from preprocessing.tables import Table
from training.metrics import auc
from training.predict import predict
from training.trainer import Trainer

# The names and learning rates of deepctr-torch's compile.
OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}


def _log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    from sklearn.metrics import log_loss

    return log_loss(labels, np.clip(probabilities, 1e-7, 1 - 1e-7), labels=[0, 1])  # clipped as in deepctr-torch


def _mean_squared_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    from sklearn.metrics import mean_squared_error

    return mean_squared_error(labels, probabilities)


def _accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return np.mean((probabilities > 0.5) == labels)


METRICS = {
    "auc": auc,
    "binary_crossentropy": _log_loss,
    "logloss": _log_loss,
    "mse": _mean_squared_error,
    "acc": _accuracy,
    "accuracy": _accuracy,
}


class History:
    """What `fit` returns: the numbers of its epochs and, by name, the metrics of each."""

    def __init__(self):
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def add(self, epoch: int, logs: dict[str, float]) -> None:
        """Note an epoch's metrics."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class Estimator(nn.Module):
    """A module that gives logits (B,) for a dict of features.

    It can be trained by training.trainer.Trainer, or as in deepctr-torch by `compile`, `fit`, `evaluate` and
    `predict`, with its signatures. `fit` runs our loop: dropout is on in every epoch, ids stay integers.

    Args:
        columns: all feature columns.
        task: "binary"; the name is deepctr-torch's, which knows others.
    """

    auxiliary = False  # True: called with labels, the model gives its auxiliary losses too
    l2_reg_embedding = 1e-5  # what `fit` adds to the summed loss for each squared embedding weight

    def __init__(self, columns: list, task: str = "binary"):
        super().__init__()
        if task != "binary":
            raise UserError(f"task: expected 'binary', got {task!r}; the models here give the logit of a click.")
        self.columns = list({column.name: column for column in as_columns(columns)}.values())
        self.feature_index = build_input_features(self.columns)

    @classmethod
    def from_columns(cls, user_feature_columns: list, item_feature_columns: list, **options) -> Estimator:
        """The constructor under the name and with the columns that every model here takes."""
        return cls(user_feature_columns, item_feature_columns, **options)

    def __call__(self, *arguments, **options):
        """As of any module; where it fails for a feature that the columns do not allow, a UserError names that one.

        Nothing is looked at before: in training each batch was checked when its table was made.
        """
        try:
            return super().__call__(*arguments, **options)
        except (IndexError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            features = arguments[0] if arguments else options.get("features")
            fault = self._fault_of(features)
            if fault is None:
                raise
            raise UserError(fault) from error

    def _fault_of(self, features) -> str | None:
        """What is wrong with the features of a batch, in a line; None where nothing is."""
        if not isinstance(features, Mapping):
            got = type(features).__name__
            return f"features: expected a dict of tensors by column name, got {got}; name each one's column."
        for name in self.feature_index:
            if not isinstance(features.get(name), Tensor):
                got = type(features[name]).__name__ if name in features else "none"
                return f"features: expected a tensor for {name!r}, got {got}; add or convert it."
        for column in self.columns:
            values = features[column.name]
            if isinstance(column, DenseFeat) or not values.numel() or values.device.type != "cpu":
                continue  # a GPU whose kernel failed answers no more
            if values.is_floating_point() or values.is_complex():
                return f"features: expected whole numbers for {column.name!r}, got {values.dtype}; use .long()."
            if fault := _ids_out_of_range("features", column, int(values.min()), int(values.max())):
                return fault
        return None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @classmethod
    def option_names(cls) -> set[str]:
        """What the constructor takes; it may hand options on to its base class, so those of all classes count."""
        return set().union(*(inspect.signature(base.__init__).parameters for base in cls.__mro__))

    @property
    def output_bias(self) -> nn.Parameter | None:
        """The bias of the logit, one number; None where a model has none of its own."""
        return None

    def start_from(self, share: float) -> None:
        """Set the bias of the logit to the log odds of a share of positive labels, that of the training rows.

        A model that starts from 0 spends its first steps on finding it. Nothing is done for a share of 0 or 1, or
        without a bias.
        """
        if self.output_bias is not None and 0 < share < 1:
            with torch.no_grad():
                self.output_bias.fill_(math.log(share / (1 - share)))

    def penalties(self) -> list[tuple[nn.Parameter, float]]:
        """The parameters whose squares `fit` adds to the summed loss, each with its weight."""
        return [(m.weight, self.l2_reg_embedding) for m in self.modules() if isinstance(m, nn.Embedding)]

    def compile(
        self,
        optimizer: str | torch.optim.Optimizer,
        loss: str | None = "binary_crossentropy",
        metrics: list[str] | None = None,
    ) -> None:
        """Choose the optimiser ("adam", "sgd", "adagrad", "rmsprop" or an instance) and the metrics that `fit` shows.

        Raises UserError for a name that is not known; the loss is the binary cross-entropy.
        """
        if loss not in (None, "binary_crossentropy"):
            raise UserError(f"compile: expected loss 'binary_crossentropy', got {loss!r}.")
        unknown = [name for name in metrics or [] if name not in METRICS]
        if unknown:
            raise UserError(
                f"compile: expected metrics among {', '.join(METRICS)}, got {', '.join(map(str, unknown))}."
            )
        if optimizer not in OPTIMIZERS and not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"compile: expected {', '.join(OPTIMIZERS)} or a torch optimizer, got {optimizer!r}.")
        self.optim = OPTIMIZERS[optimizer](self.parameters()) if isinstance(optimizer, str) else optimizer
        self.metrics = {name: METRICS[name] for name in metrics or []}
        self.metrics_names = ["loss", *self.metrics]

    def fit(
        self,
        x: Mapping | list | None = None,
        y: np.ndarray | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int = 1,
        initial_epoch: int = 0,
        validation_split: float = 0.0,
        validation_data: tuple | None = None,
        shuffle: bool = True,
        callbacks: list | None = None,
    ) -> History:
        """Train as deepctr-torch's `fit` does, by our loop; the weights of the last epoch stay.

        Args:
            x: an array per feature, by name or in the order of `feature_index`.
            y: labels in {0, 1}, one per row.
            verbose: 0 silent, 1 a progress bar and a line per epoch, 2 the lines alone.
            validation_split: the share of rows, the last ones, that is held out.
            validation_data: (x, y) to compute metrics on instead.
            callbacks: deepctr_torch.callbacks.EarlyStopping, ModelCheckpoint or your own.
        Returns:
            A History, as deepctr-torch's: its `epoch` has the epochs, its `history` has "loss", the metrics over the
            training rows in evaluation mode (where verbose is not 0), and "val_" metrics where there is validation.
        """
        if not hasattr(self, "optim"):
            raise UserError("fit: expected a compiled model; call compile(optimizer, loss, metrics) first.")
        if x is None or y is None:
            raise UserError("fit: expected features x and labels y, got none.")
        batch_size = self._checked_batch_size(batch_size)
        train, valid = self._table(x, y), None
        if validation_data:
            if len(validation_data) not in (2, 3):
                raise UserError(
                    f"validation_data: expected (x, y) or (x, y, weights), got {len(validation_data)} entries."
                )
            valid = self._table(*validation_data[:2])
        elif 0 < validation_split < 1:
            split_at = int(len(train) * (1 - validation_split))
            train, valid = train.part(slice(0, split_at)), train.part(slice(split_at, None))
        if verbose:
            self._check_classes(train, "y")
        if valid is not None:
            self._check_classes(valid, "validation labels")
        self.history, self.stop_training = History(), False

        def tell(event: str, *arguments) -> None:
            for callback in callbacks or []:
                getattr(callback, event)(*arguments)

        tell("set_model", self)
        tell("on_train_begin")
        trainer = Trainer(
            self,
            batch_size=batch_size,
            device=self.device,
            seed=int(torch.randint(2**31, ())),
            optimizer=self.optim,
            penalties=self.penalties(),
            shuffle=shuffle,
            show_progress=verbose == 1,
        )
        started = time.time()

        def after_epoch(row: dict) -> bool:
            nonlocal started
            epoch = initial_epoch + row["epoch"] - 1
            logs = {"loss": row["train_loss"] + row["train_auxiliary_loss"]}
            if verbose:
                logs |= self._metrics_on(train)
            if valid is not None:
                logs |= {f"val_{name}": value for name, value in self._metrics_on(valid).items()}
            if verbose:
                shown = "".join(f" - {name}: {value: .4f}" for name, value in logs.items())
                print(f"Epoch {epoch + 1}/{epochs}\n{int(time.time() - started)}s{shown}", flush=True)
            tell("on_epoch_end", epoch, logs)
            self.history.add(epoch, logs)
            started = time.time()
            if not self.stop_training and epoch + 1 < epochs:
                tell("on_epoch_begin", epoch + 1)
            return self.stop_training

        if initial_epoch < epochs:
            tell("on_epoch_begin", initial_epoch)
            trainer.fit(train, epochs=epochs - initial_epoch, after_epoch=after_epoch)
        tell("on_train_end")
        return self.history

    def evaluate(self, x: Mapping | list, y: np.ndarray, batch_size: int = 256) -> dict[str, float]:
        """The compiled metrics by name; `batch_size` is taken for the signature's sake, see `predict`."""
        table = self._table(x, y)
        self._check_classes(table, "y")
        return self._metrics_on(table)

    def predict(self, x: Mapping | list, batch_size: int = 256) -> np.ndarray:
        """Probabilities (N, 1) float64, in evaluation mode.

        Rows are scored in batches of training.predict's own size, a two-tower model's decoupled; `batch_size` is
        there for the signature's sake.
        """
        return self._probabilities(self._table(x, None))[:, None]

    def _checked_batch_size(self, batch_size: int | None) -> int:
        """The batch size, 256 where there is none; raises UserError for one that the model cannot be trained with."""
        if not batch_size:
            return 256
        least = 2 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules()) else 1
        if not isinstance(batch_size, int | np.integer) or batch_size < least:
            why = ", since batch norm has no variance over one row" if least == 2 else ""
            raise UserError(f"batch_size: expected a whole number of at least {least}{why}, got {batch_size!r}.")
        return int(batch_size)

    def _check_classes(self, table: Table, where: str) -> None:
        """Raise UserError where an AUC is wanted of rows that are all of one class, or none: it has none."""
        if "auc" in getattr(self, "metrics", {}) and len(table.labels.unique()) < 2:
            got = f"{table.labels[0]:g} alone" if len(table) else "no row"
            raise UserError(
                f"{where}: expected labels 0 and 1, got {got}, which has no AUC; give rows of both, or compile without "
                "the metric 'auc'."
            )

    def _metrics_on(self, table: Table) -> dict[str, float]:
        if not hasattr(self, "metrics"):
            raise UserError("evaluate: expected a compiled model; call compile(optimizer, loss, metrics) first.")
        if not self.metrics:
            return {}
        probabilities, labels = self._probabilities(table), table.labels.numpy()
        return {name: float(metric(labels, probabilities)) for name, metric in self.metrics.items()}

    def _probabilities(self, table: Table) -> np.ndarray:
        logits = predict(self, table, self.device).astype(np.float64)
        return torch.from_numpy(logits).sigmoid().numpy()

    def _table(self, x: Mapping | list, y: np.ndarray | None) -> Table:
        """The arrays of `fit` as a table; raises UserError for a feature that is missing or an id out of range."""
        if not isinstance(x, Mapping | pd.DataFrame):
            if len(x) != len(self.feature_index):
                raise UserError(
                    f"x: expected {len(self.feature_index)} arrays, for {', '.join(self.feature_index)}, got {len(x)}."
                )
            x = dict(zip(self.feature_index, x, strict=True))
        missing = [name for name in self.feature_index if name not in x]
        if missing:
            raise UserError(
                f"x: expected an array for each of {', '.join(self.feature_index)}, got none for {missing[0]!r}."
            )
        kinds = {column.name: column for column in self.columns}
        features = {name: _tensor(name, x[name], kinds.get(name)) for name in self.feature_index}
        lengths = {name: len(values) for name, values in features.items()}
        num_rows = next(iter(lengths.values()))
        labels = _labels(y, num_rows)
        if {*lengths.values(), len(labels)} != {num_rows}:
            raise UserError(f"x, y: expected arrays of one length, got {lengths | {'y': len(labels)}}.")
        return Table(features, labels, groups=np.zeros(num_rows, np.int32), rows=np.arange(num_rows))


def _tensor(name: str, values, column) -> Tensor:
    """A feature's array as the tensor that a Table holds; `column` is None for the length of a varlen feature."""
    array = np.array(values)  # a copy: pandas hands out arrays that may not be written to
    width = getattr(column, "maxlen", getattr(column, "dimension", 1))
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != width:
        raise UserError(f"x: expected an array of shape (rows, {width}) for {name!r}, got {np.shape(values)}.")
    is_dense = isinstance(column, DenseFeat)
    is_whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and (array == np.floor(array)).all())
    if not ((is_dense and array.dtype.kind in "iubf") or is_whole):
        wanted = "numbers" if is_dense else "whole numbers"
        raise UserError(f"x: expected {wanted} for {name!r}, got {array.dtype}; encode its values first.")
    if is_dense:
        with np.errstate(over="ignore"):  # said below
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise UserError(
                f"x: expected finite numbers of 32 bits for {name!r}, got NaN, infinite or larger ones; fill, scale or "
                "drop them."
            )
        return torch.from_numpy(array)
    if column is not None and array.size and (fault := _ids_out_of_range("x", column, array.min(), array.max())):
        raise UserError(fault)
    ids = torch.from_numpy(array.astype(np.int32))
    return ids if isinstance(column, VarLenSparseFeat) else ids[:, 0]


def _ids_out_of_range(where: str, column, least, largest) -> str | None:
    """The line to say so; None where they are in range."""
    if 0 <= least <= largest < column.vocabulary_size:
        return None
    return (
        f"{where}: expected ids from 0 to {column.vocabulary_size - 1} for {column.name!r}, got {least} to {largest}; "
        "give unseen values an id of their own, or enlarge vocabulary_size."
    )


def _labels(y, num_rows: int) -> Tensor:
    if y is None:
        return torch.zeros(num_rows)
    labels = torch.from_numpy(np.array(y, dtype=np.float32).reshape(-1))
    if not ((labels == 0) | (labels == 1)).all():
        raise UserError(f"y: expected labels 0 and 1, got {labels.unique()[:4].tolist()}.")
    return labels
