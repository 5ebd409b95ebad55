"""The ranking script, as a person runs it."""

import io
import shutil

import pandas as pd
import pytest
from served import trained
from shell import assert_refused, run

import rank_movielens
from preprocessing.errors import UserError
from preprocessing.movielens import read_movielens
from serving.item_index import ItemIndex
from serving.trained_run import load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_folder):
    return trained(tmp_path_factory.mktemp("run"), sample_folder)


@pytest.fixture
def rank(folder, sample_folder):
    """Runs the script's main in this process."""

    def call(*arguments: str) -> None:
        rank_movielens.main(rank_movielens.parse(["--run", str(folder), "--data", str(sample_folder), *arguments]))

    return call


def ranking(text: str) -> list[tuple[int, float, int, str]]:
    """The printed lines of a ranking."""
    lines = text.split("title\n")[1].splitlines()
    parts = [line.split(maxsplit=3) for line in lines]
    return [(int(place), float(logit), int(movie), title) for place, logit, movie, title in parts]


def test_the_command_prints_titles_and_logits_and_keeps_the_index(folder, sample_folder):
    command = ["rank_movielens.py", "--run", folder, "--data", sample_folder, "--user", 3, "--top", 4]
    first, again = run(*command), run(*command)
    assert first.returncode == 0, first.stderr
    assert "SYNTHETIC" in first.stdout
    assert "encoding 80 movies" in first.stdout
    assert "encoding" not in again.stdout
    assert ranking(again.stdout) == ranking(first.stdout)
    rows = ranking(first.stdout)
    assert [place for place, *_ in rows] == [1, 2, 3, 4]
    served = load_run(folder)
    raw = read_movielens(sample_folder)
    user = served.encode_users(raw.users[raw.users["user_id"] == 3])[0]
    best = rank_movielens.open_or_build(served, raw).top_k(user, 4)
    assert [movie for _, _, movie, _ in rows] == best.ids.tolist()
    titles = raw.movies.set_index("movie_id")["title"]
    assert [title for *_, title in rows] == titles[best.ids].tolist()


def test_a_user_who_is_not_in_the_data_is_served_as_unknown_and_said_so(rank, capsys):
    rank("--user", "99999")
    printed = capsys.readouterr().out
    assert "user 99999 has no rating in the training rows and is served as unknown." in printed
    assert len(ranking(printed)) == 10


def test_a_user_whom_the_data_have_and_training_has_not_is_told_with_all_that_is_known(folder):
    raw_user = pd.DataFrame({"user_id": [99999], "gender": ["M"], "age": [25], "occupation": [3]})
    told, *_ = rank_movielens.remarks(load_run(folder), raw_user, is_cold=False)
    assert told == "user 99999: gender M, age 25, occupation 3"


def test_movies_of_other_data_than_the_runs_are_said_to_be_and_leave_its_index_alone(
    folder, sample_folder, tmp_path, capsys
):
    data = shutil.copytree(sample_folder, tmp_path / "data")
    ratings = (data / "ratings.dat").read_text().splitlines()
    (data / "ratings.dat").write_text("\n".join([*ratings[1:], ratings[0]]))
    fresh = shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("index"))
    words = ["--run", str(fresh), "--user", "3", "--data"]
    rank_movielens.main(rank_movielens.parse([*words, str(data)]))
    printed = capsys.readouterr().out
    assert (
        f"{fresh} was trained on other data than these, so ids may mean others (--data names the data); 80" in printed
    )
    assert len(ranking(printed)) == 10
    assert not (fresh / "index").exists()
    rank_movielens.main(rank_movielens.parse([*words, str(sample_folder)]))
    assert "other data" not in capsys.readouterr().out
    assert (fresh / "index").exists()


def test_a_cold_user_is_what_the_flags_tell(rank, capsys):
    rank("--cold", "--gender", "F", "--age", "27", "--top", "80")
    printed = capsys.readouterr().out
    assert "a user not in the data: gender F, age 25" in printed
    rank("--cold", "--gender", "M", "--age", "3", "--occupation", "77", "--top", "80")
    other = capsys.readouterr().out
    assert "gender M, age 1" in other
    assert "served as unknown, since training never saw them: occupation (77)." in other
    assert ranking(other) != ranking(printed)


def test_candidates_come_from_a_file_and_unknown_ones_are_named(rank, tmp_path, capsys):
    path = tmp_path / "candidates.txt"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("5\n7\n\n5\n999999\nseven\n", encoding)
        rank("--user", "3", "--candidates", str(path))
        printed = capsys.readouterr().out
        assert "passed over 2 that are no movies of the index (999999, seven)." in printed
        assert {movie for _, _, movie, _ in ranking(printed)} == {5, 7}


def test_candidates_in_utf_16_are_named(rank, tmp_path):
    path = tmp_path / "candidates.txt"
    path.write_text("5\n7\n", "utf-16")
    with pytest.raises(UserError) as refused:
        rank("--user", "3", "--candidates", str(path))
    assert str(refused.value) == f"{path}: expected plain text, got text in UTF-16; save it as UTF-8."


def test_a_movie_that_was_put_into_the_index_later_is_ranked_without_a_title(rank, folder, tmp_path, capsys):
    rank("--user", "3")
    served = load_run(folder)
    index = ItemIndex(folder / "index", served.checkpoint)
    index.put([5000], served.encode_items(pd.DataFrame({"movie_id": [5000], "genres": ["Drama"]})))
    (tmp_path / "candidates").write_text("5000\n")
    capsys.readouterr()
    rank("--user", "3", "--candidates", str(tmp_path / "candidates"))
    [(_, _, movie, title)] = ranking(capsys.readouterr().out)
    assert (movie, title) == (5000, "(in the index, not in the data)")
    index.remove([5000])


def test_a_title_that_the_terminal_cannot_show_is_ranked_with_marks_in_it(rank, sample_folder, tmp_path, monkeypatch):
    data = shutil.copytree(sample_folder, tmp_path / "data")
    movies = (data / "movies.dat").read_text(encoding="latin-1")
    (data / "movies.dat").write_text(movies.replace("(", "Invent\xe9 ("), encoding="latin-1")
    for encoding, title in (("ascii", "Invent? ("), ("utf-8", "Invent\xe9 (")):
        terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr("sys.stdout", terminal)
        rank("--user", "3", "--data", str(data))
        terminal.flush()
        printed = terminal.buffer.getvalue().decode(encoding)
        assert len(ranking(printed)) == 10
        assert printed.count(title) == 10


def test_an_index_of_other_levels_is_left_as_it_is(rank, folder, capsys):
    rank("--user", "3")
    index = ItemIndex(folder / "index")
    capsys.readouterr()
    rank("--user", "3", "--levels", "last")
    printed = capsys.readouterr().out
    assert "index is of other weights or levels and stays; 80 movies are encoded for this ranking." in printed
    assert len(ranking(printed)) == 10
    assert not index.refresh()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--user", "3", "--top", "0"], "--top: expected a whole number of at least 1, got '0'"),
        (["--user", "3", "--age", "25"], "--age: expected with --cold alone"),
        (
            ["--user", "3", "--candidates", "nowhere.txt"],
            "--candidates nowhere.txt: expected a file of movie ids",
        ),
        ([], "one of the arguments --user --cold is required"),
    ],
)
def test_mistakes_are_one_line(folder, sample_folder, flags, message):
    assert_refused(run("rank_movielens.py", "--run", folder, "--data", sample_folder, *flags), message)
