"""Train IntTower on MovieLens-1M and report AUC, logloss and gAUC on the test split.

    python train_movielens_IntTower.py
    python train_movielens_IntTower.py --protocol paper --seed 7

To train another model, edit the import of Model below or name it with --model.
"""

import sys
from dataclasses import dataclass
from typing import ClassVar

from experiment.command import read_settings, run_script
from experiment.settings import TrainingSettings
from experiment.tuned import tuned_settings
from preprocessing.sources import movielens_files


@dataclass
class Settings(TrainingSettings):
    """The common settings (experiment/settings.py), and what other values a split by time wants (docs/live.md)."""

    TUNED: ClassVar[str] = "movielens"
    TUNED_BY_DEFAULT: ClassVar[bool] = True
    BY_PROTOCOL: ClassVar[dict[str, dict]] = {
        "temporal": dict(
            **dict(statistics="crossed", user_id_dropout=0.5, drop_statistics=True, l2_embedding=1.0, prior_bias=True),
            **dict(average_decay=0.998, fe_input="input", fe_scale="mean", cir_weight=0.0, biases=True),
        ),
        "online": dict(
            **dict(statistics="crossed", l2_embedding=3.0, prior_bias=True, average_decay=0.998),
            **dict(fe_input="input", fe_scale="mean", cir_weight=0.0, biases=True),
        ),
    }

    def check(self) -> None:
        """Raise UserError for a number out of its range, or data that are not where they should be."""
        super().check()
        movielens_files(self.data)


PRESETS = {
    # The settings of the released script, with the part it left out of the loss left out here too.
    "released": dict(
        user_head=32, item_head=32, field_dim=64, fe_input="input", cir_weight=0.0, epochs=10, patience=5, init_std=1e-4
    ),
    # Ours, and not the paper's: what a search found for IntTower, with the further part and the statistics that
    # validation chose.
    "best": tuned_settings(Settings.TUNED, "strict").get("IntTower", {})
    | dict(protocol="strict", model="IntTowerPlus", level_gates=True, statistics="crossed"),
}


if __name__ == "__main__":
    settings = read_settings(Settings, PRESETS)  # before the imports below, which take a second or two

from experiment.folder import LEARNING_CURVE
from experiment.report import print_report
from experiment.run import train_and_record
from figure.learning_curve import draw_learning_curve
from model.IntTower import IntTower as Model
from preprocessing.movielens import load_movielens, locate_movielens
from preprocessing.tables import Dataset
from training.generators import seed_everything


def load(settings: Settings) -> Dataset:
    """Read, split and encode the data that the settings name."""
    path = locate_movielens(settings.data)
    return load_movielens(
        path,
        settings.protocol,
        settings.embedding_dim,
        settings.split_seed,
        settings.strict_data,
        settings.statistics,
        settings.label_delay,
        settings.known(),
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
