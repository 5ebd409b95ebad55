"""The synthetic sample in MovieLens-1M's layout."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from preprocessing.errors import UserError
from preprocessing.movielens import OFFICIAL_FILES, load_movielens, read_movielens
from preprocessing.sample import AGES, GENRES, SAMPLE_PROBABILITIES, write_movielens_sample

FILES = (*OFFICIAL_FILES, SAMPLE_PROBABILITIES)


def write(folder, **changes):
    return write_movielens_sample(folder, **{"num_users": 30, "num_movies": 20, "num_ratings": 300} | changes)


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    np.random.seed(1)
    ours = contents(write(tmp_path / "ours"))
    np.random.seed(2)
    assert contents(write(tmp_path / "theirs")) == ours


def test_another_seed_gives_other_ratings_users_and_movies(tmp_path):
    ours, theirs = contents(write(tmp_path / "ours", seed=1)), contents(write(tmp_path / "theirs", seed=2))
    for name in FILES:
        assert ours[name] != theirs[name]


def test_the_folder_holds_the_official_files_and_the_probabilities_and_nothing_is_left_beside_it(tmp_path):
    folder = write(tmp_path / "a" / "sample")
    assert folder == tmp_path / "a" / "sample"
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert list(folder.parent.iterdir()) == [folder]


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "ratings.dat").write_text("mine")
    assert write(tmp_path / "sample") == tmp_path / "sample"
    assert [path.name for path in (tmp_path / "sample").iterdir()] == ["ratings.dat"]
    assert (tmp_path / "sample" / "ratings.dat").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as caught:
        write(tmp_path / "file" / "sample")
    assert str(caught.value).startswith(f"{tmp_path / 'file' / 'sample'}: the synthetic sample could not be written")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_tables_look_like_those_of_movielens(sample_folder):
    raw = read_movielens(sample_folder, strict_data=True)
    assert raw.users["user_id"].tolist() == list(range(1, 121))
    assert set(raw.users["gender"]) == {"F", "M"}
    assert set(raw.users["age"]) == set(AGES)
    assert raw.users["occupation"].between(0, 20).all()
    assert raw.movies["movie_id"].tolist() == list(range(1, 81))
    genres = raw.movies["genres"].str.split("|")
    assert set(genres.explode()) == set(GENRES)
    assert genres.map(lambda names: len(set(names)) == len(names)).all()
    assert abs(len(raw.ratings) - 4000) < 400
    assert raw.ratings["rating"].value_counts(normalize=True)[3] == pytest.approx(0.26, abs=0.03)
    assert not raw.ratings.duplicated(["user_id", "movie_id"]).any()


def test_every_rating_has_the_probability_of_its_label(sample_folder):
    raw = read_movielens(sample_folder)
    assert raw.probabilities.shape == (len(raw.ratings),)
    assert raw.probabilities.min() > 0
    assert raw.probabilities.max() < 1


def test_the_probabilities_rank_the_labels_well_and_are_calibrated(sample_folder):
    raw = read_movielens(sample_folder)
    kept = (raw.ratings["rating"] != 3).to_numpy()
    labels, probabilities = (raw.ratings["rating"] > 3).to_numpy()[kept], raw.probabilities[kept]
    assert 0.75 < roc_auc_score(labels, probabilities) < 0.95
    for low in np.arange(0, 1, 0.2):
        among = (probabilities >= low) & (probabilities < low + 0.2)
        assert labels[among].mean() == pytest.approx(probabilities[among].mean(), abs=0.08)


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
def test_the_datasets_probabilities_are_those_of_its_test_rows(sample_folder, protocol):
    data = load_movielens(sample_folder, protocol)
    assert data.synthetic
    of_every_rating = np.load(sample_folder / SAMPLE_PROBABILITIES)
    np.testing.assert_array_equal(data.probabilities, of_every_rating[data.test.rows])


def test_probabilities_follow_their_ratings_when_others_are_dropped(tmp_path, capsys):
    folder = write(tmp_path / "sample")
    every_rating, every_probability = read_movielens(folder).ratings, np.load(folder / SAMPLE_PROBABILITIES)
    users = (folder / "users.dat").read_text().splitlines(keepends=True)
    (folder / "users.dat").write_text("".join(users[1:]))
    raw = read_movielens(folder)
    assert "1 rated user_id(s) missing (1)" in capsys.readouterr().out
    np.testing.assert_array_equal(raw.probabilities, every_probability[(every_rating["user_id"] != 1).to_numpy()])
