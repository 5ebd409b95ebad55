"""Where a training run stands: what it has done, what came of it, and whether it is at its end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where training stands; all of it is in the checkpoint."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches finished in the running epoch
    loss_sum: float = 0.0  # over the running epoch's samples
    auxiliary_sum: float = 0.0
    num_samples: int = 0
    best_epoch: int = 0
    best_batch: int = 0  # of that epoch, where validation came within it; 0 for its end
    best_auc: float = -1.0
    seconds: float = 0.0  # spent in training batches, all epochs
    epoch_seconds: float = 0.0
    finished: bool = False
    history: list[dict] = field(default_factory=list)

    def add(self, num_rows: int, loss: float, auxiliary: float) -> None:
        """Take in a batch's losses, means over its rows."""
        self.num_samples += num_rows
        self.loss_sum += loss * num_rows
        self.auxiliary_sum += auxiliary * num_rows

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Write the running epoch into the history, with the metrics of its validation, and begin the next."""
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "train_loss": self.loss_sum / self.num_samples,
                "train_auxiliary_loss": self.auxiliary_sum / self.num_samples,
                **{f"valid_{name}": value for name, value in metrics.items()},
                "seconds": self.epoch_seconds,
                "samples_per_second": self.num_samples / self.epoch_seconds,
            }
        )
        self.epoch += 1
        self.seconds += self.epoch_seconds
        self.batch = self.num_samples = 0
        self.loss_sum = self.auxiliary_sum = self.epoch_seconds = 0.0

    def is_finished(self, epochs: int, patience: int | None) -> bool:
        """Whether it is at an epoch's end, and all epochs are run or `patience` of them in a row were no better."""
        between_epochs = self.epoch > 0 and self.batch == 0
        no_better = patience is not None and self.epoch - self.best_epoch >= patience
        return between_epochs and (self.epoch >= epochs or no_better)

    def print_epoch(self) -> None:
        """A line of the last epoch, with a star where it is the best so far."""
        last = self.history[-1]
        valid = ""
        if "valid_auc" in last:
            valid = f"valid AUC {last['valid_auc']:.4f}  valid logloss {last['valid_logloss']:.4f}  "
        best = "  *" if self.best_epoch == last["epoch"] else ""
        line = (
            f"epoch {last['epoch']:3d}  train loss {last['train_loss']:.4f}  {valid}{last['seconds']:6.1f} s  "
            f"{last['samples_per_second']:,.0f} samples/s{best}"
        )
        try:
            print(line, flush=True)
        except BrokenPipeError:
            raise
        except OSError:  # a disk behind `>` that is full, a terminal that is gone: no reason to lose hours of work
            pass
