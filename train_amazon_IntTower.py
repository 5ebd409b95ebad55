"""Train IntTower on the Amazon Electronics reviews and report AUC, logloss and gAUC on the test split.

    python train_amazon_IntTower.py
    python train_amazon_IntTower.py --reviews reviews_Books_5.json.gz --meta meta_Books.json.gz

To train another model, edit the import of Model below or name it with --model.
"""

import sys
from dataclasses import dataclass

from figure.learning_curve import draw_learning_curve
from model import MODELS, model_class
from model.IntTower import IntTower as Model
from model.settings import changed, option
from preprocessing.amazon import load_amazon, locate_amazon
from preprocessing.cache import CACHE_FOLDER
from preprocessing.tables import Dataset
from training.report import LEARNING_CURVE, print_report
from training.run import train_and_record
from training.settings import TrainingSettings, command_line
from training.trainer import seed_everything


@dataclass
class Settings(TrainingSettings):
    """The common settings (training/settings.py) with the released script's values, and those of these data."""

    model: str = option(Model.__name__, "the model to train", choices=sorted({*MODELS, Model.__name__}))
    reviews: str | None = option(None, "the reviews of a category, of the 2014 or 2018 release, or the released CSV")
    meta: str | None = option(None, "its meta file; else meta_<category>.json.gz beside the reviews")
    cache: bool = option(True, f"keep the encoded tables in {CACHE_FOLDER.parent.name}/{CACHE_FOLDER.name}/")
    epochs: int = changed(TrainingSettings, "epochs", 10)
    patience: int = changed(TrainingSettings, "patience", 3)
    user_head: int = changed(TrainingSettings, "user_head", 2)
    item_head: int = changed(TrainingSettings, "item_head", 2)
    field_dim: int = changed(TrainingSettings, "field_dim", 64)

    NOT_IN_RECORD = (*TrainingSettings.NOT_IN_RECORD, "reviews", "meta", "cache")
    NOT_IN_IDENTITY = (*TrainingSettings.NOT_IN_IDENTITY, "reviews", "meta", "cache")


# What else the released script does: the layers' inputs in the FE-Block, CIR left out of the loss.
PRESETS = {"released": dict(fe_input="input", cir_weight=0.0, init_std=1e-4)}


def load(settings: Settings) -> Dataset:
    """Read, split and encode the data that the settings name."""
    return load_amazon(
        *locate_amazon(settings.data, settings.reviews, settings.meta),
        settings.protocol,
        settings.embedding_dim,
        settings.split_seed,
        settings.strict_data,
        cache=CACHE_FOLDER if settings.cache else None,
    )


def main(settings: Settings) -> None:
    """Read the data, build the model, train until validation AUC stops rising, evaluate on test, report."""
    model_type = Model if settings.model == Model.__name__ else model_class(settings.model)
    options = settings.model_options(model_type)
    data = load(settings)

    seed_everything(settings.seed)
    model = model_type.from_columns(data.user_columns, data.item_columns, **options)
    record, folder = train_and_record(settings, data, model)
    draw_learning_curve(record, folder / LEARNING_CURVE)
    print_report(record, folder)


if __name__ == "__main__":
    sys.exit(command_line(main, Settings, PRESETS))
