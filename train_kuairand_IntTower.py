"""Train IntTower on KuaiRand-Pure, short videos of Kuaishou, and report AUC, logloss and gAUC on the test split.

    python train_kuairand_IntTower.py
    python train_kuairand_IntTower.py --label long_view --protocol temporal

To train another model, edit the import of Model below or name it with --model.
"""

import sys
from dataclasses import dataclass
from typing import ClassVar

from experiment.command import read_settings, run_script
from experiment.flags import changed, option
from experiment.settings import TrainingSettings
from preprocessing.choices import KUAIRAND_LABELS
from preprocessing.sources import CACHE_FOLDER, kuairand_files


@dataclass
class Settings(TrainingSettings):
    """The common settings (experiment/settings.py), those of these data, and what other values the data want.

    The last seven were chosen on validation rows (docs/small_data.md, docs/live.md).
    """

    label: str = option("is_click", "the column of the logs that is to be predicted", choices=KUAIRAND_LABELS)
    cache: bool = option(True, f"keep the encoded tables in {CACHE_FOLDER.parent.name}/{CACHE_FOLDER.name}/")

    epochs: int = changed(TrainingSettings, "epochs", 10)
    patience: int = changed(TrainingSettings, "patience", 2)
    prior_bias: bool = changed(TrainingSettings, "prior_bias", True)
    fe_scale: str = changed(TrainingSettings, "fe_scale", "mean")
    l2_embedding: float = changed(TrainingSettings, "l2_embedding", 10.0)
    cir_weight: float = changed(TrainingSettings, "cir_weight", 0.0)
    average_decay: float = changed(TrainingSettings, "average_decay", 0.99)

    _RESIDUALS: ClassVar[dict] = dict(statistics="residuals")  # see docs/live.md
    _BY_TIME: ClassVar[dict] = _RESIDUALS | dict(patience=3)
    TUNED: ClassVar[str] = "kuairand"
    BY_PROTOCOL: ClassVar[dict[str, dict]] = {"strict": _RESIDUALS, "temporal": _BY_TIME, "online": _BY_TIME}
    NOT_IN_RECORD = (*TrainingSettings.NOT_IN_RECORD, "cache")
    NOT_IN_IDENTITY = (*TrainingSettings.NOT_IN_IDENTITY, "cache")

    def check(self) -> None:
        """Raise UserError for a number out of its range, or data that are not where they should be."""
        super().check()
        kuairand_files(self.data)


PRESETS = {}  # no script was released for these data


if __name__ == "__main__":
    settings = read_settings(Settings, PRESETS)  # before the imports below, which take a second or two

from experiment.folder import LEARNING_CURVE
from experiment.report import print_report
from experiment.run import train_and_record
from figure.learning_curve import draw_learning_curve
from model.IntTower import IntTower as Model
from preprocessing.kuairand import load_kuairand, locate_kuairand
from preprocessing.tables import Dataset
from training.generators import seed_everything


def load(settings: Settings) -> Dataset:
    """Read, split and encode the data that the settings name."""
    return load_kuairand(
        locate_kuairand(settings.data),
        settings.protocol,
        settings.embedding_dim,
        settings.split_seed,
        settings.strict_data,
        settings.label,
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
