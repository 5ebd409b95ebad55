"""The run's state on disk: what is written comes back, and what is not a checkpoint is refused in one line."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from preprocessing.errors import UserError
from training.checkpoint import load_checkpoint, save_checkpoint

PROJECT = Path(__file__).resolve().parent.parent
IDENTITY = {"model": "IntTower", "lr": 0.001, "hidden_units": [300, 300, 128], "data": "a" * 64}
STATE = {
    "identity": IDENTITY,
    "progress": {"epoch": 2, "best_auc": 0.75, "history": [{"epoch": 1}, {"epoch": 2}], "finished": False},
    "model": {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)},
    "rng": torch.get_rng_state(),
}

# Saves a checkpoint of some 201 kB where a file may have only so many bytes: it fails at the start, within the
# tensor, and at its very end.
FULL_DISK_SCRIPT = """
import resource, sys
from pathlib import Path
import torch
from preprocessing.errors import UserError
from training.checkpoint import save_checkpoint

path, hard_limit = Path(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in (0, 5_000, 150_000, 200_500):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard_limit))
    try:
        save_checkpoint(path, {"identity": {}, "model": {"weight": torch.zeros(50_000)}})
    except UserError as error:
        print(error)
"""


class Foreign:
    """Something that a pickle could make: it would run code of its own when it is read."""

    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        load_checkpoint(path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(path))


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    path = tmp_path / "run" / "checkpoint.pt"
    save_checkpoint(path, STATE)
    for state in (load_checkpoint(path), load_checkpoint(path, IDENTITY), torch.load(path, weights_only=True)):
        assert state["identity"] == IDENTITY
        assert state["progress"] == STATE["progress"]
        assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])
        assert torch.equal(state["rng"], STATE["rng"])
    assert list(path.parent.iterdir()) == [path]


def test_saving_again_replaces_the_older_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    save_checkpoint(path, STATE | {"progress": {"epoch": 3}})
    assert load_checkpoint(path)["progress"] == {"epoch": 3}
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_is_reading_a_checkpoint_keeps_the_older_one_whole(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    with path.open("rb") as reader:
        save_checkpoint(path, STATE | {"model": {"weight": torch.ones(3)}})
        assert reader.read() == content
    assert path.read_bytes() != content


def test_a_missing_checkpoint_is_refused(tmp_path):
    assert_refused(tmp_path / "checkpoint.pt", "expected a checkpoint, got no such file; train first")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path, "expected a whole checkpoint of this project, got a damaged file")


@pytest.mark.parametrize(
    "text",
    [
        "user_id,movie_id\n1,2\n",
        "1::1193::5::978300760\n",
        '{"epoch": 1}\n',
        "(a note\n",
        ".hidden\n",
        "gone\n",
        "r\n",
        "\n",
    ],
)
def test_a_text_file_is_refused(tmp_path, text):
    path = tmp_path / "checkpoint.pt"
    path.write_text(text)
    assert_refused(path, "expected a whole checkpoint of this project, got a damaged file")


def test_a_pickle_of_a_foreign_object_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Foreign(), protocol=2)),
        lambda: torch.save({"identity": Foreign()}, path),
    ):
        write()
        assert_refused(path, "expected a whole checkpoint of this project, got a damaged file")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [{"weight": torch.zeros(2)}, [1, 2], torch.zeros(3)])
def test_weights_of_another_project_are_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    assert_refused(path, "expected a checkpoint of this project, got another kind of file")


def test_a_folder_in_the_checkpoints_place_is_refused(tmp_path):
    assert_refused(tmp_path, "expected a whole checkpoint of this project")


def test_the_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    with pytest.raises(UserError) as refused:
        load_checkpoint(path, IDENTITY | {"lr": 0.01, "hidden_units": [64]})
    assert str(refused.value) == (
        f"{path}: belongs to another run: hidden_units is [300, 300, 128] there, [64] here; "
        "lr is 0.001 there, 0.01 here. Use its settings, or another --output."
    )


def test_a_setting_that_only_one_run_has_differs(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    with pytest.raises(UserError, match="seed is None there, 3 here"):
        load_checkpoint(path, IDENTITY | {"seed": 3})
    with pytest.raises(UserError, match=r"lr is 0\.001 there, None here"):
        load_checkpoint(path, {name: value for name, value in IDENTITY.items() if name != "lr"})


def test_many_and_long_differences_are_cut_short(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"identity": {f"option{i}": "x" * 1000 for i in range(6)}})
    with pytest.raises(UserError, match=r"option3 is 'x+\.\.\. there, None here; and 2 more\. Use") as refused:
        load_checkpoint(path, {})
    assert len(str(refused.value)) < 700


def test_a_full_disk_leaves_the_older_checkpoint_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK_SCRIPT, str(path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith(f"{path}: could not be saved (")
        assert "what stood there before is untouched" in line
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(UserError, match=r"checkpoint\.pt: could not be saved \("):
        save_checkpoint(file / "checkpoint.pt", STATE)


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.pt"
    weight = torch.arange(1000, dtype=torch.float32)
    save_checkpoint(path, {"identity": {}, "model": {"weight": weight}})
    content = bytearray(path.read_bytes())
    content[content.find(weight.numpy().tobytes()) + 2002] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        load_checkpoint(path)
