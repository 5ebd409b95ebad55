"""A whole run: what it does on the sample that stands in for real data, and for TensorBoard."""

import errno
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from shell import assert_refused, environment, run, run_in_process
from tables import refusal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_movielens_IntTower
from experiment.command import run_script
from experiment.record import EARLIER_ROWS
from experiment.run import refuse_a_longer_run
from experiment.settings import ON_SAMPLE
from figure.learning_curve import draw_learning_curve
from figure.style import subplots
from preprocessing import sources
from preprocessing.errors import UserError
from preprocessing.movielens import as_interactions, read_movielens
from preprocessing.sources import stands_in
from train_movielens_IntTower import Settings
from training.metrics import auc
from training.progress import Progress

QUICK = (
    "--epochs",
    "2",
    "--preset",
    "untuned",
    "--hidden-units",
    "16,8",
    "--batch-size",
    "512",
    "--embedding-dim",
    "4",
)


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw: the steps and values of each curve."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_draws_what_the_history_holds_and_a_resumed_run_goes_on(sample_folder, tmp_path):
    arguments = ("train_movielens_IntTower.py", "--data", sample_folder, "--output", tmp_path / "run", "--tensorboard")
    assert run(*arguments, *QUICK).returncode == 0
    result = run(*arguments, *QUICK[2:], "--epochs", "3", "--resume")
    assert result.returncode == 0, result.stderr
    history = json.loads((tmp_path / "run" / "record.json").read_text())["history"]
    drawn = scalars(tmp_path / "run")
    assert drawn.keys() == history[0].keys() - {"epoch"}
    for name, points in drawn.items():
        assert points == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in history], name
    assert len(history) == 3

    assert run(*arguments[:-1], *QUICK, "--overwrite").returncode == 0
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_without_the_package_the_flag_is_refused_before_data_are_read(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("train_movielens_IntTower.py", "--tensorboard")
    assert_refused(result, "--tensorboard: expected the package tensorboard, got none; pip install -r requirements")


@pytest.mark.parametrize(
    ("changes", "batch", "after"),
    [
        ({"epochs": 3, "patience": 2}, 0, None),  # where it stands
        ({"epochs": 2}, 0, 2),
        ({"epochs": 3}, 7, 3),
        ({"patience": 1}, 0, 2),
        ({"patience": 2}, 7, 3),
        ({"patience": 2, "validate_every": 20}, 7, None),  # what came within an epoch may have been better
    ],
)
def test_a_run_is_not_resumed_with_settings_by_which_it_would_have_ended_sooner(changes, batch, after, tmp_path):
    history = [{"epoch": number, "valid_auc": auc} for number, auc in ((1, 0.7), (2, 0.6), (3, 0.65))]
    progress, settings = Progress(epoch=3, batch=batch, history=history), replace(Settings(), **changes)
    if after is None:
        refuse_a_longer_run(progress, settings, tmp_path)
    else:
        with pytest.raises(UserError, match=f"end after epoch {after}, and the run there has trained beyond it"):
            refuse_a_longer_run(progress, settings, tmp_path)


@pytest.mark.parametrize(
    ("chosen", "epochs"), [({}, ON_SAMPLE["epochs"]), ({"epochs": 2}, 2), ({"batch_size": 1024, "epochs": 3}, 3)]
)
def test_the_sample_that_stands_in_is_looked_at_shortly_unless_the_person_chose(
    chosen, epochs, sample_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sources, "DATA_FOLDER", tmp_path)
    stand_in = tmp_path / "sample-movielens"
    stand_in.symlink_to(sample_folder)
    monkeypatch.setattr(train_movielens_IntTower, "locate_movielens", lambda named: stand_in)
    settings = Settings(output=str(tmp_path / "run"), hidden_units=[8, 4], embedding_dim=4, **chosen)
    assert run_script(train_movielens_IntTower.main, settings) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["epochs"] <= record["settings"]["epochs"] == epochs
    assert ("a first look, with --batch-size 512 --epochs 6" in capsys.readouterr().out) is (not chosen)


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def no_folder(*_, **__):
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")


def a_fault_of_the_library(*_, **__):
    raise RuntimeError("a font\nis broken")


# What fails, and what is said of it.
PICTURES = {
    "a full disk": ("figure.style.write_atomically", no_room, "No space left on device"),
    "no folder for matplotlib": ("matplotlib.use", no_folder, "No usable temporary directory found"),
    "any other fault": ("matplotlib.figure.Figure.savefig", a_fault_of_the_library, "a font is broken"),
}


@pytest.mark.parametrize("fault", PICTURES)
def test_a_learning_curve_that_cannot_be_drawn_is_said_in_a_line_and_the_report_stands(
    fault, sample_folder, tmp_path, monkeypatch
):
    target, fails, said = PICTURES[fault]
    monkeypatch.setattr(target, fails)
    arguments = ("train_movielens_IntTower.py", "--data", sample_folder, "--output", tmp_path / "run", *QUICK)
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    [line] = [line for line in result.stdout.splitlines() if "learning curve" in line]
    assert line.startswith("learning curve: not drawn; the record holds its numbers. ")
    assert said in line
    assert "test split of movielens" in result.stdout
    assert f"record, checkpoint and encoders: {tmp_path / 'run'}/" in result.stdout
    assert (tmp_path / "run" / "record.json").is_file()
    assert not (tmp_path / "run" / "learning_curve.png").exists()

    monkeypatch.undo()
    result = run(*arguments, "--resume")  # the finished run is not run again, but has its picture now
    assert f"record, checkpoint, encoders and learning curve: {tmp_path / 'run'}/" in result.stdout
    assert (tmp_path / "run" / "learning_curve.png").is_file()


@pytest.mark.slow
def test_a_run_without_any_temporary_folder_ends_with_its_report_and_leaves_none(sample_folder, tmp_path):
    # As on a machine whose disks are read-only but for the folder of the run.
    (tmp_path / "start.py").write_text(
        "import runpy, sys, tempfile\n"
        f"tempfile._candidate_tempdir_list = lambda: [{str(tmp_path / 'nowhere')!r}]\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, '.')\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    arguments = ("train_movielens_IntTower.py", "--data", sample_folder, "--output", tmp_path / "run", *QUICK)
    result = run_in_process(tmp_path / "start.py", *arguments, env=environment(HOME=str(tmp_path / "nowhere")))
    assert result.returncode == 0, result.stderr
    assert "record, checkpoint, encoders and learning curve: " in result.stdout
    assert not list((tmp_path / "run").glob(".temporary*"))


def test_ctrl_c_while_a_picture_is_drawn_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("figure.learning_curve._draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_learning_curve({}, tmp_path / "curve.png")


def test_other_figures_say_what_matplotlib_lacks(monkeypatch):
    monkeypatch.setattr("matplotlib.use", no_folder)
    message = refusal(subplots)
    assert message.startswith("a figure: expected a folder that matplotlib can write to, got none (")
    assert "MPLCONFIGDIR=FOLDER" in message


def test_only_what_a_script_made_in_data_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DATA_FOLDER", tmp_path)
    assert stands_in(tmp_path / "sample-movielens")
    assert stands_in(tmp_path / "sample-amazon" / "reviews_Electronics_5.json.gz")
    assert not stands_in(tmp_path / "ml-1m.zip")
    assert not stands_in(tmp_path / "elsewhere" / "sample-movielens")


def test_a_model_is_named_by_its_flag_or_imported_by_the_script():
    class Own:
        pass

    assert Settings().choose_model(Own) is Own
    settings = replace(Settings(), model="DSSM")
    assert settings.choose_model(Own).__name__ == settings.model == "DSSM"


@pytest.mark.parametrize("protocol", ["strict", "temporal", "online"])
def test_the_record_says_how_strangers_are_ranked_and_users_by_what_they_did_before(protocol, sample_folder, tmp_path):
    settings = Settings(
        data=str(sample_folder), output=str(tmp_path / "run"), protocol=protocol, epochs=1, model="LR", device="cpu"
    )
    train_movielens_IntTower.main(settings)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    data, logits = train_movielens_IntTower.load(settings), np.load(tmp_path / "run" / "test_logits.npy")
    labels = data.test.labels.numpy()
    raw = as_interactions(read_movielens(sample_folder))
    of_raw = np.searchsorted(raw.rows, data.test.rows)
    users, times = raw.user_of_row, raw.times
    of_train = users[np.searchsorted(raw.rows, data.train.rows)]
    is_seen = np.isin(users[of_raw], of_train)
    for name, rows in (("seen", is_seen), ("unseen", ~is_seen)):
        part = record["strangers"]["user"][name]
        assert part["rows"] == rows.sum()
        assert part["auc"] == (auc(labels[rows], logits[rows]) if rows.any() else None)
    if protocol == "strict":
        assert record["by_earlier_rows"] is None
        return
    earlier = np.array([np.sum((users == users[row]) & (times < times[row])) for row in of_raw])
    bounds = [*EARLIER_ROWS, np.inf]
    expected = [int(np.sum((low <= earlier) & (earlier < high))) for low, high in itertools.pairwise(bounds)]
    assert [part["rows"] for part in record["by_earlier_rows"]] == expected
    assert [part["from"] for part in record["by_earlier_rows"]] == list(EARLIER_ROWS)
    assert sum(expected) == len(data.test)
