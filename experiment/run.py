"""A whole run: train a model, evaluate it on test, leave a record."""

import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from experiment.code_version import code_version
from experiment.folder import (
    ENCODERS,
    TENSORBOARD,
    clear_run_folder,
    ensure_temporary_folder,
    only_run,
    open_run_folder,
)
from experiment.init_from import take_weights
from experiment.installed import check_fbgemm
from experiment.record import finished_record, make_record, run_identity, write_record
from experiment.report import SYNTHETIC_BANNER
from experiment.settings import TrainingSettings
from experiment.tensorboard import epoch_writer
from preprocessing.command import EXIT_OK, is_first_process
from preprocessing.encode import encoders_as_json
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from preprocessing.sources import stands_in
from preprocessing.tables import Dataset
from training import CHECKPOINT
from training.device import resolve_device
from training.distributed import gather_objects, num_processes
from training.metrics import evaluate
from training.progress import Progress
from training.schedule import cosine
from training.trainer import ROWWISE_ADAGRAD, Trainer


def train_and_record(settings: TrainingSettings, data: Dataset, model: nn.Module) -> tuple[dict, Path]:
    """Train until validation AUC stops rising, evaluate on test; returns the record and the folder that holds it.

    With `settings.resume`, a finished run is not run again, and a stopped one goes on from its checkpoint. What stands
    in the folder of an older run stays until this one's first checkpoint is on the disk.
    Raises UserError where another run stands in the folder, or is at work there.
    """
    if data.synthetic:
        print(SYNTHETIC_BANNER)
    if stands_in(data.source) and (flags := settings.shorten()):
        print(f"a first look, with {flags}; other values of these flags train longer.")
    folder = open_run_folder(settings, data.name, type(model).__name__)
    with only_run(folder) if is_first_process() else nullcontext():
        open_run_folder(settings, data.name, type(model).__name__)  # again: who had the lock may have left a run
        ensure_temporary_folder(folder)
        if settings.resume and (record := finished_record(folder, settings, data, type(model))):
            return _of_the_first(record), folder
        return _of_the_first(_train(settings, data, model, folder)), folder


def _of_the_first(record: dict) -> dict:
    """The record; of several processes the first one goes on with it, and the others have done their part."""
    if not is_first_process():
        raise SystemExit(EXIT_OK)
    return record


def make_trainer(settings: TrainingSettings, data: Dataset, model: nn.Module, folder: Path | None) -> Trainer:
    """The trainer that the settings ask for; with `settings.resume` it stands where the folder's checkpoint does.

    Without a folder it keeps nothing. Raises UserError where the checkpoint is another run's.
    """
    device = resolve_device(settings.device)
    if settings.shard_embeddings:
        check_fbgemm(device.type)
    if settings.prior_bias:
        model.start_from(float(data.train.labels.mean()))
    if settings.init_from is not None:
        take_weights(model, data, settings.init_from)
    towers = (data.user_encoder, data.item_encoder)
    encoders = encoders_as_json(*towers)

    def replace_older_run() -> None:
        write_atomically(folder / ENCODERS, encoders, before=lambda: clear_run_folder(folder, settings.overwrite))

    trainer = Trainer(
        model,
        learning_rate=settings.lr,
        batch_size=settings.batch_size,
        l2_embedding=settings.l2_embedding,
        device=device,
        schedule=cosine(settings.warmup) if settings.lr_schedule == "cosine" else None,
        seed=settings.seed,
        run_dir=folder,
        identity=run_identity(settings, data, model),
        checkpoint_seconds=settings.checkpoint_seconds,
        validate_every=settings.validate_every,
        id_dropout={
            data.user_encoder.id_column: settings.user_id_dropout,
            data.item_encoder.id_column: settings.item_id_dropout,
        },
        unknown={e.id_column: e.unknown_statistics() for e in towers} if settings.drop_statistics else None,
        average_decay=settings.average_decay,
        before_checkpoint=replace_older_run,
        amp=torch.bfloat16 if settings.amp == "bf16" else None,
        compiled=settings.compile,
        shard_rows=settings.shard_embeddings,
        shard_learning_rate=settings.shard_lr,
    )
    if trainer.sharded:
        print(f"on all {num_processes()} processes, trained by {ROWWISE_ADAGRAD}: {', '.join(trainer.sharded)}")
    if settings.resume and (folder / CHECKPOINT).exists():
        trainer.restore()  # refuses another run's checkpoint
        refuse_a_longer_run(trainer.progress, settings, folder)
        if is_first_process():
            write_atomically(folder / ENCODERS, encoders)  # they may be missing, or of a run that was killed
    begun = {"rows": [len(data.train), len(data.valid), len(data.test)], "progress": vars(trainer.progress)}
    first, *others = gather_objects(run_identity(settings, data, model) | begun)
    if any(other != first for other in others):
        raise UserError(
            f"{folder}: expected the same data, settings and checkpoint for all processes, got others; share it."
        )
    return trainer


def refuse_a_longer_run(progress: Progress, settings: TrainingSettings, folder: Path) -> None:
    """Raise UserError where the checkpoint's run would have ended sooner with the --epochs and --patience given here.

    Its record would name them all the same.
    """
    best_auc, no_better = -1.0, 0
    for row in progress.history:
        no_better = 0 if row["valid_auc"] > best_auc else no_better + 1
        best_auc = max(best_auc, row["valid_auc"])
        # A validation within an epoch, of which the history does not tell, may have been better.
        lost_patience = no_better >= settings.patience and not settings.validate_every
        trained_on = row["epoch"] < progress.epoch or progress.batch > 0
        if (row["epoch"] >= settings.epochs or lost_patience) and trained_on:
            raise UserError(
                f"{folder}: --epochs {settings.epochs} and --patience {settings.patience} end after epoch "
                f"{row['epoch']}, and the run there has trained beyond it; give larger ones, or another --output."
            )


def _train(settings: TrainingSettings, data: Dataset, model: nn.Module, folder: Path) -> dict:
    code = code_version(type(model))  # now: a file may be edited while it runs
    trainer = make_trainer(settings, data, model, folder)
    on_epoch = None
    if settings.tensorboard and is_first_process():
        on_epoch = epoch_writer(folder / TENSORBOARD, trainer.progress.history)
    trainer.fit(data.train, data.valid, settings.epochs, settings.patience, on_epoch=on_epoch)

    start = time.perf_counter()
    test_logits = trainer.predict(data.test)
    test = evaluate(data.test.labels.numpy(), test_logits, data.test.groups)
    seconds = time.perf_counter() - start
    valid = evaluate(data.valid.labels.numpy(), trainer.predict(data.valid), data.valid.groups)
    record = make_record(settings, data, trainer, code, test, valid, seconds, test_logits)
    if is_first_process():
        write_record(folder, record, test_logits)
    return record
