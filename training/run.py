"""A whole run: train a model, evaluate it on test, leave a record."""

import time
from pathlib import Path

from torch import nn

from preprocessing.tables import Dataset
from training.code_version import code_version
from training.metrics import evaluate
from training.report import (
    SYNTHETIC_BANNER,
    begin_run,
    finished_record,
    make_record,
    open_run_folder,
    run_identity,
    write_record,
)
from training.settings import TrainingSettings
from training.trainer import Trainer, resolve_device


def train_and_record(settings: TrainingSettings, data: Dataset, model: nn.Module) -> tuple[dict, Path]:
    """Train until validation AUC stops rising, evaluate on test; returns the record and the folder that holds it.

    With `settings.resume`, a finished run is not run again, and a stopped one goes on from its checkpoint.
    Raises UserError where another run stands in the folder.
    """
    if data.synthetic:
        print(SYNTHETIC_BANNER)
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
    begin_run(folder, data, settings.overwrite)
    trainer.fit(data.train, data.valid, settings.epochs, settings.patience)

    start = time.perf_counter()
    test_logits = trainer.predict(data.test)
    test = evaluate(data.test.labels.numpy(), test_logits, data.test.groups)
    seconds = time.perf_counter() - start
    valid = evaluate(data.valid.labels.numpy(), trainer.predict(data.valid), data.valid.groups)
    record = make_record(settings, data, trainer, code, test, valid, seconds)
    write_record(folder, record, test_logits)
    return record, folder
