"""Train IntTower on the Alibaba display ads and report AUC, logloss and gAUC on the test split.

    python train_alibaba_IntTower.py
    python train_alibaba_IntTower.py --sample-rate 0.1 --protocol temporal

To train another model, edit the import of Model below or name it with --model.
"""

import sys
from dataclasses import dataclass

from experiment.command import read_settings, run_script
from experiment.flags import changed, option
from experiment.settings import TrainingSettings
from preprocessing.choices import check_memory
from preprocessing.sources import CACHE_FOLDER, alibaba_files


@dataclass
class Settings(TrainingSettings):
    """The common settings (experiment/settings.py) with the released script's values, and those of these data."""

    sample_rate: float = option(1.0, "share of users to keep, with all their rows")
    cache: bool = option(True, f"keep the encoded tables in {CACHE_FOLDER.parent.name}/{CACHE_FOLDER.name}/")
    memory: float | None = option(
        None, "GiB that building the tables may take: rows go through files then; else no bound"
    )
    lr: float = changed(TrainingSettings, "lr", 1e-4)
    dropout: float = changed(TrainingSettings, "dropout", 0.5)
    epochs: int = changed(TrainingSettings, "epochs", 15)
    patience: int = changed(TrainingSettings, "patience", 3)
    # A checkpoint of two million embeddings is more than a gigabyte.
    checkpoint_seconds: float = changed(TrainingSettings, "checkpoint_seconds", 600.0)

    NOT_IN_RECORD = (*TrainingSettings.NOT_IN_RECORD, "cache", "memory")
    NOT_IN_IDENTITY = (*TrainingSettings.NOT_IN_IDENTITY, "cache", "memory")

    def check(self) -> None:
        """Raise UserError for a number out of its range, or data that are not where they should be."""
        super().check()
        check_memory(self.memory, self.statistics, self.cache)
        alibaba_files(self.data)


# What else the released script does: the layers' inputs in the FE-Block, CIR left out of the loss.
PRESETS = {"released": dict(fe_input="input", cir_weight=0.0, init_std=1e-4)}


if __name__ == "__main__":
    settings = read_settings(Settings, PRESETS)  # before the imports below, which take a second or two

from experiment.folder import LEARNING_CURVE
from experiment.report import print_report
from experiment.run import train_and_record
from figure.learning_curve import draw_learning_curve
from model.IntTower import IntTower as Model
from preprocessing.alibaba import load_alibaba
from preprocessing.tables import Dataset
from training.generators import seed_everything


def load(settings: Settings) -> Dataset:
    """Read, split and encode the data that the settings name."""
    return load_alibaba(
        alibaba_files(settings.data),
        settings.protocol,
        settings.embedding_dim,
        settings.split_seed,
        settings.strict_data,
        settings.sample_rate,
        statistics=settings.statistics,
        label_delay=settings.label_delay,
        known=settings.known(),
        cache=CACHE_FOLDER if settings.cache else None,
        memory=settings.memory,
    )


def main(settings: Settings) -> None:
    """Read the data, build the model, train until validation AUC stops rising, evaluate on test, report."""
    model_type = settings.choose_model(Model)
    options = settings.model_options(model_type)
    data = load(settings)

    seed_everything(settings.seed)
    model = model_type.from_columns(data.user_columns, data.item_columns, **options)
    record, folder = train_and_record(settings, data, model)
    draw_learning_curve(record, folder / LEARNING_CURVE)
    print_report(record, folder)


if __name__ == "__main__":
    sys.exit(run_script(main, settings))
