"""A whole run: train a model, evaluate it on test, leave a record."""

import time
from pathlib import Path

from torch import nn

from experiment.code_version import code_version
from experiment.folder import ENCODERS, TENSORBOARD, clear_run_folder, open_run_folder
from experiment.record import finished_record, make_record, run_identity, write_record
from experiment.report import SYNTHETIC_BANNER
from experiment.settings import TrainingSettings
from experiment.tensorboard import epoch_writer
from preprocessing.encode import save_encoders
from preprocessing.sources import stands_in
from preprocessing.tables import Dataset
from training.device import resolve_device
from training.metrics import evaluate
from training.trainer import Trainer


def train_and_record(settings: TrainingSettings, data: Dataset, model: nn.Module) -> tuple[dict, Path]:
    """Train until validation AUC stops rising, evaluate on test; returns the record and the folder that holds it.

    With `settings.resume`, a finished run is not run again, and a stopped one goes on from its checkpoint.
    Raises UserError where another run stands in the folder.
    """
    if data.synthetic:
        print(SYNTHETIC_BANNER)
    if stands_in(data.source) and (flags := settings.shorten()):
        print(f"a first look, with {flags}; other values of these flags train longer.")
    folder = open_run_folder(settings, data.name, type(model).__name__)
    if settings.resume and (record := finished_record(folder, settings, data, type(model))):
        return record, folder
    code = code_version(type(model))  # now: a file may be edited while it runs
    trainer = Trainer(
        model,
        learning_rate=settings.lr,
        batch_size=settings.batch_size,
        l2_embedding=settings.l2_embedding,
        device=resolve_device(settings.device),
        seed=settings.seed,
        run_dir=folder,
        identity=run_identity(settings, data, model),
        checkpoint_seconds=settings.checkpoint_seconds,
    )
    if settings.resume:
        trainer.restore()  # refuses another run's checkpoint before anything of that run is written over
    clear_run_folder(folder, settings.overwrite)
    save_encoders(folder / ENCODERS, data.user_encoder, data.item_encoder)
    on_epoch = None
    if settings.tensorboard:
        on_epoch = epoch_writer(folder / TENSORBOARD, trainer.progress.history)
    trainer.fit(data.train, data.valid, settings.epochs, settings.patience, on_epoch=on_epoch)

    start = time.perf_counter()
    test_logits = trainer.predict(data.test)
    test = evaluate(data.test.labels.numpy(), test_logits, data.test.groups)
    seconds = time.perf_counter() - start
    valid = evaluate(data.valid.labels.numpy(), trainer.predict(data.valid), data.valid.groups)
    record = make_record(settings, data, trainer, code, test, valid, seconds)
    write_record(folder, record, test_logits)
    return record, folder
