"""The run's state on disk: what is written comes back, and what is not a checkpoint is refused in one line."""

import pickle
from pathlib import Path

import pytest
import torch
from shell import limited_file_size

from preprocessing.errors import UserError
from training.checkpoint import ENCODERS_CHECKSUM, load_checkpoint, save_checkpoint, weights_checksum

IDENTITY = {"model": "IntTower", "lr": 0.001, "hidden_units": [300, 300, 128], "data": "a" * 64}
STATE = {
    "identity": IDENTITY,
    "progress": {"epoch": 2, "best_auc": 0.75, "history": [{"epoch": 1}, {"epoch": 2}], "finished": False},
    "model": {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)},
    "rng": torch.get_rng_state(),
}


class Foreign:
    """Something that a pickle could make: it would run code of its own when it is read."""

    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        load_checkpoint(path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(path))


@pytest.fixture
def path(tmp_path) -> Path:
    """A saved checkpoint."""
    save_checkpoint(tmp_path / "run" / "checkpoint.pt", STATE)
    return tmp_path / "run" / "checkpoint.pt"


def test_a_checkpoint_comes_back_as_it_was_saved(path):
    for state in (load_checkpoint(path), load_checkpoint(path, IDENTITY), torch.load(path, weights_only=True)):
        assert state["identity"] == IDENTITY
        assert state["progress"] == STATE["progress"]
        assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])
        assert torch.equal(state["rng"], STATE["rng"])
    assert list(path.parent.iterdir()) == [path]


def test_a_newer_checkpoint_replaces_the_older_one_which_its_reader_keeps_whole(path):
    content = path.read_bytes()
    with path.open("rb") as reader:
        save_checkpoint(path, STATE | {"progress": {"epoch": 3}})
        assert reader.read() == content
    assert load_checkpoint(path)["progress"] == {"epoch": 3}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path, "expected a whole checkpoint of this project, got a damaged file")


def test_what_is_no_checkpoint_is_refused_and_not_run(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    damaged = "expected a whole checkpoint of this project, got a damaged file"
    assert_refused(path.parent, "expected a whole checkpoint of this project")
    path.write_text("user_id,movie_id\n1,2\n")
    assert_refused(path, damaged)
    path.write_bytes(pickle.dumps(Foreign(), protocol=2))
    assert_refused(path, damaged)
    torch.save({"identity": Foreign()}, path)
    assert_refused(path, damaged)
    assert not Path("touched").exists()
    for content in ({"weight": torch.zeros(2)}, [1, 2]):
        torch.save(content, path)
        assert_refused(path, "expected a checkpoint of this project, got another kind of file")
    path.unlink()
    assert_refused(path, "expected a checkpoint, got no such file; train first")


def test_the_checkpoint_of_another_run_is_refused_by_what_differs(path):
    wanted = IDENTITY | {"lr": 0.01, "hidden_units": [64], "seed": 3}
    del wanted["data"]
    with pytest.raises(UserError) as refused:
        load_checkpoint(path, wanted)
    assert str(refused.value) == (
        f"{path}: belongs to another run: data is '{'a' * 56}... there, None here; "
        "hidden_units is [300, 300, 128] there, [64] here; lr is 0.001 there, 0.01 here; "
        "seed is None there, 3 here. Use its settings, or another --output."
    )
    # The model says most, and comes first; of many differences four are told.
    message = r"model is 'IntTower' there, 'LR' here; data .* lr is 0\.001 there, 0\.01 here; and 1 more\. Use"
    with pytest.raises(UserError, match=message):
        load_checkpoint(path, wanted | {"model": "LR"})


def test_a_full_disk_leaves_the_older_checkpoint_as_it_was(path):
    content = path.read_bytes()
    # A checkpoint of some 201 kB fails at the start, within the tensor, and at its very end.
    for limit in (0, 5_000, 150_000, 200_500):
        with (
            limited_file_size(limit),
            pytest.raises(UserError, match=r"could not be saved \(.* what stood there before is untouched"),
        ):
            save_checkpoint(path, {"identity": {}, "model": {"weight": torch.zeros(50_000)}})
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(path):
    with pytest.raises(UserError, match=r"checkpoint\.pt/file: could not be saved \("):
        save_checkpoint(path / "file", STATE)


def test_a_flipped_bit_in_a_weight_is_noticed(path):
    weight = torch.arange(1000, dtype=torch.float32)
    save_checkpoint(path, {"identity": {}, "model": {"weight": weight}})
    content = bytearray(path.read_bytes())
    content[content.find(weight.numpy().tobytes()) + 2002] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        load_checkpoint(path)


def test_memory_that_is_too_small_is_not_taken_for_a_damaged_file(path, monkeypatch):
    def refuse(*_, **__) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr("torch.load", refuse)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_checkpoint(path)


def test_a_checkpoint_of_other_encoders_is_refused_and_an_older_one_that_names_none_is_taken(path):
    assert load_checkpoint(path, IDENTITY | {ENCODERS_CHECKSUM: "b" * 64})["identity"] == IDENTITY
    save_checkpoint(path, STATE | {"identity": IDENTITY | {ENCODERS_CHECKSUM: "c" * 64}})
    with pytest.raises(UserError, match="belongs to another run: encoders is 'ccc"):
        load_checkpoint(path, IDENTITY | {ENCODERS_CHECKSUM: "b" * 64})


def test_a_checksum_of_weights_is_the_same_for_equal_weights_alone():
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}
    equal = {"b": torch.tensor(7), "a": torch.arange(6.0).view(3, 2).T.contiguous().T.reshape(2, 3)}
    assert weights_checksum(weights) == weights_checksum(equal)
    others = [
        {**weights, "a": torch.arange(6.0).view(3, 2)},
        {**weights, "a": torch.arange(6.0).double().view(2, 3)},
        {**weights, "b": torch.tensor(8)},
        {"b": weights["a"], "a": weights["b"]},
    ]
    assert len({weights_checksum(w) for w in [weights, *others]}) == 5
