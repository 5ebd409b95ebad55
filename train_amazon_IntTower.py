"""Train IntTower on the Amazon Electronics reviews and report AUC, logloss and gAUC on the test split.

    python train_amazon_IntTower.py
    python train_amazon_IntTower.py --reviews reviews_Books_5.json.gz --meta meta_Books.json.gz

To train another model, edit the import of Model below or name it with --model.
"""

import sys
from dataclasses import dataclass
from typing import ClassVar

from experiment.command import read_settings, run_script
from experiment.flags import changed, option
from experiment.settings import TrainingSettings
from preprocessing.sources import CACHE_FOLDER, amazon_files


@dataclass
class Settings(TrainingSettings):
    """The common settings (experiment/settings.py), those of these data, and what other values the data want.

    Epochs, patience and heads are the released script's. The last seven were chosen on Beauty's validation rows, since
    users of five reviews are learned by heart within an epoch (docs/small_data.md); so were statistics
    (docs/live.md).
    """

    reviews: str | None = option(None, "the reviews of a category, of 2014, 2018 or 2023, or the released CSV")
    meta: str | None = option(None, "its meta file; else meta_<category>.json(l).gz beside the reviews")
    cache: bool = option(True, f"keep the encoded tables in {CACHE_FOLDER.parent.name}/{CACHE_FOLDER.name}/")
    epochs: int = changed(TrainingSettings, "epochs", 10)
    patience: int = changed(TrainingSettings, "patience", 3)
    user_head: int = changed(TrainingSettings, "user_head", 2)
    item_head: int = changed(TrainingSettings, "item_head", 2)
    field_dim: int = changed(TrainingSettings, "field_dim", 64)
    lr: float = changed(TrainingSettings, "lr", 3e-4)
    prior_bias: bool = changed(TrainingSettings, "prior_bias", True)
    fe_scale: str = changed(TrainingSettings, "fe_scale", "mean")
    l2_embedding: float = changed(TrainingSettings, "l2_embedding", 10.0)
    user_id_dropout: float = changed(TrainingSettings, "user_id_dropout", 0.9)
    item_id_dropout: float = changed(TrainingSettings, "item_id_dropout", 0.5)
    cir_weight: float = changed(TrainingSettings, "cir_weight", 0.0)

    TUNED: ClassVar[str] = "amazon-Beauty_5"
    BY_PROTOCOL: ClassVar[dict[str, dict]] = {p: dict(statistics="residuals") for p in ("strict", "temporal")}
    NOT_IN_RECORD = (*TrainingSettings.NOT_IN_RECORD, "reviews", "meta", "cache")
    NOT_IN_IDENTITY = (*TrainingSettings.NOT_IN_IDENTITY, "reviews", "meta", "cache")

    def check(self) -> None:
        """Raise UserError for a number out of its range, or data that are not where they should be."""
        super().check()
        amazon_files(self.data, self.reviews, self.meta)


# What the released script does: the layers' inputs in the FE-Block, CIR left out of the loss, next to no L2.
PRESETS = {
    "released": dict(
        **dict(fe_input="input", fe_scale="sum", cir_weight=0.0, init_std=1e-4, statistics="means"),
        **dict(lr=1e-3, prior_bias=False, l2_embedding=1e-5, user_id_dropout=0.0, item_id_dropout=0.0),
    )
}


if __name__ == "__main__":
    settings = read_settings(Settings, PRESETS)  # before the imports below, which take a second or two

from experiment.folder import LEARNING_CURVE
from experiment.report import print_report
from experiment.run import train_and_record
from figure.learning_curve import draw_learning_curve
from model.IntTower import IntTower as Model
from preprocessing.amazon import load_amazon, locate_amazon
from preprocessing.tables import Dataset
from training.generators import seed_everything


def load(settings: Settings) -> Dataset:
    """Read, split and encode the data that the settings name."""
    return load_amazon(
        *locate_amazon(settings.data, settings.reviews, settings.meta),
        settings.protocol,
        settings.embedding_dim,
        settings.split_seed,
        settings.strict_data,
        statistics=settings.statistics,
        label_delay=settings.label_delay,
        known=settings.known(),
        cache=CACHE_FOLDER if settings.cache else None,
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
