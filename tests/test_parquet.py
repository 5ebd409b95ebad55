"""Parquet in the place of a CSV gives the same tables, and a line says what is wrong with it."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tables import assert_same_splits, refusal
from test_cache import assert_equal_bits
from test_space import little_memory, small_blocks  # noqa: F401

from preprocessing import parquet_tables
from preprocessing.alibaba import load_alibaba
from preprocessing.kuairand import load_kuairand
from preprocessing.parquet_tables import read_blocks
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sample_kuairand import write_kuairand_sample
from preprocessing.sources import AD_FEATURE, RAW_SAMPLE, USER_PROFILE, find_alibaba, find_kuairand, kuairand_files
from preprocessing.synthetic import SAMPLE_PROBABILITIES
from preprocessing.tables import Dataset
from preprocessing.text_tables import read_csv_blocks

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: requirements-parquet.txt")

COLUMNS = {"id": "int", "level": "int?", "price": "number?", "place": "str?"}
CSV = "id,level ,price,place\n7,1,2.5,b\n9007199254740993,,NULL,a\n-3,4.0,0,\n"


@pytest.fixture(autouse=True)
def blocks_of_a_thousand_rows(monkeypatch) -> None:
    monkeypatch.setattr(parquet_tables, "BLOCK_ROWS", 1000)


def as_parquet(source: Path, target: Path, **options) -> Path:
    """The CSV files of a folder as Parquet, in another."""
    target.mkdir()
    for path in source.iterdir():
        if path.suffix == ".csv":
            pd.read_csv(path).to_parquet(target / f"{path.stem}.parquet", index=False, **options)
        elif path.name == SAMPLE_PROBABILITIES:
            shutil.copyfile(path, target / path.name)
    return target


@pytest.fixture(scope="module")
def ads(tmp_path_factory) -> Path:
    """3,000 rows of generated ads, as Parquet with groups of 700 rows; the CSV files lie beside it."""
    folder = tmp_path_factory.mktemp("data")
    csv = write_alibaba_sample(folder / "csv", num_rows=3000)
    return as_parquet(csv, folder / "parquet", row_group_size=700)


def assert_same_tables(ours: Dataset, theirs: Dataset) -> None:
    assert ours.checksum() == theirs.checksum()
    assert_same_splits(ours, theirs)
    assert ours.counts == theirs.counts
    assert ours.fingerprint != theirs.fingerprint  # other files


@pytest.mark.parametrize("protocol", ["strict", "temporal"])
def test_ads_in_parquet_are_the_same_data_in_memory_and_in_files(protocol, ads, tmp_path, small_blocks):  # noqa: F811
    assert find_alibaba(ads) == ads
    from_csv, from_parquet = load_alibaba(ads.parent / "csv", protocol), load_alibaba(ads, protocol)
    assert_same_tables(from_parquet, from_csv)
    assert_equal_bits(from_parquet.probabilities, from_csv.probabilities)
    assert_same_tables(load_alibaba(ads, protocol, cache=tmp_path, memory=little_memory()), from_csv)


def test_videos_in_parquet_are_the_same_data(tmp_path):
    csv = write_kuairand_sample(tmp_path / "csv")
    folder = as_parquet(csv, tmp_path / "parquet")
    assert find_kuairand(folder) == folder
    assert kuairand_files(str(next(folder.glob("log_standard*.parquet")))) == folder
    assert_same_tables(load_kuairand(folder), load_kuairand(csv))


def test_a_csv_and_a_parquet_file_may_stand_side_by_side(ads, tmp_path):
    mixed = shutil.copytree(ads, tmp_path / "mixed")
    shutil.copyfile(ads.parent / "csv" / AD_FEATURE, mixed / AD_FEATURE)
    (mixed / "ad_feature.parquet").write_bytes(b"the CSV comes first")
    assert load_alibaba(mixed).checksum() == load_alibaba(ads).checksum()


def test_the_columns_of_both_formats_have_the_same_types_and_values(tmp_path):
    (tmp_path / "rows.csv").write_text(CSV)
    table = {
        "id": pd.array([7, 2**53 + 1, -3], dtype="int64"),
        "level ": pd.array([1, None, 4], dtype="Int64"),
        "price": [2.5, np.nan, 0.0],
        "place": ["b", "a", "NULL"],
        "other": [object.__name__] * 3,
    }
    (from_csv,) = read_csv_blocks(tmp_path / "rows.csv", COLUMNS)
    for place in (pd.Series(table["place"]), pd.Categorical(["b", "a", None])):
        pd.DataFrame(table | {"place": place}).to_parquet(tmp_path / "rows.parquet")
        (from_parquet,) = read_blocks(tmp_path / "rows.parquet", COLUMNS, if_there={"nothing": "int"})
        pd.testing.assert_frame_equal(from_parquet, from_csv)


def test_a_column_of_nothing_is_one_of_missing_values(tmp_path):
    table = pyarrow.table({"id": [1, 2], "level": [None, None], "price": [None, None], "place": [None, None]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    (frame,) = read_blocks(tmp_path / "rows.parquet", COLUMNS)
    assert frame.isna().sum().tolist() == [0, 2, 2, 2]
    assert [str(kind) for kind in frame.dtypes] == ["int64", "float64", "float64", "category"]


def test_a_row_group_of_any_size_is_read_in_blocks(tmp_path):
    pd.DataFrame({"id": np.arange(2500)}).to_parquet(tmp_path / "rows.parquet")
    assert [len(block) for block in read_blocks(tmp_path / "rows.parquet", {"id": "int"})] == [1000, 1000, 500]


# --- what is refused


def refused(tmp_path: Path, **changes) -> str:
    table = {"id": [7, 8], "level": [1, 2], "price": [2.5, 1.0], "place": ["b", "a"]} | changes
    pd.DataFrame({name: values for name, values in table.items() if values is not None}).to_parquet(
        tmp_path / "rows.parquet"
    )
    return refusal(lambda: list(read_blocks(tmp_path / "rows.parquet", COLUMNS)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": None}, ": expected the columns id,level,price,place, got no level."),
        ({"id": pd.array([7, None], dtype="Int64")}, ", row 2: expected a whole number as id, got None; mend or"),
        (
            {"id": pd.array([7, 2**63], dtype="uint64")},
            ", row 2: expected a whole number as id, got 9223372",
        ),
        ({"id": [7.0, 8.0]}, ": expected a whole number as id, got a column of double; convert the column."),
        ({"id": ["7", "8"]}, ": expected a whole number as id, got a column of"),
        (
            {"level": [1, 1.5]},
            ", row 2: expected a whole number below 2^53 or nothing as level, got 1.5; mend or remove the row.",
        ),
        ({"level": [np.inf, 1]}, ", row 1: expected a whole number below 2^53 or nothing as level, got inf;"),
        ({"price": [1, -1]}, ", row 2: expected a number of at least 0 or nothing as price, got -1;"),
        ({"price": ["1", "2"]}, ": expected a number of at least 0 or nothing as price, got a column of"),
        ({"place": [1, 2]}, ": expected text or nothing as place, got a column of int64; convert the column."),
    ],
)
def test_a_wrong_column_or_value_is_refused_with_its_file_and_row(changes, message, tmp_path):
    assert refused(tmp_path, **changes).startswith("rows.parquet" + message)


def test_clicks_that_are_none_or_contradict_are_named_by_their_row(ads, tmp_path):
    folder = shutil.copytree(ads, tmp_path / "ads")
    rows = pd.read_parquet(ads / "raw_sample.parquet")
    for column, value, message in (
        ("clk", 2, "expected 0 or 1 as clk, got 2; mend or remove the row."),
        ("nonclk", 7, f"expected nonclk {rows['nonclk'][1500]} beside clk {rows['clk'][1500]}, got 7; mend or remove"),
    ):
        changed = rows.copy()
        changed.loc[1500, column] = value
        changed.to_parquet(folder / "raw_sample.parquet")
        assert refusal(load_alibaba, folder).startswith(f"raw_sample.parquet, row 1501: {message}")


def test_files_without_rows_or_that_are_cut_short_are_refused(ads, tmp_path):
    pd.DataFrame({"id": np.zeros(0, dtype=int)}).to_parquet(tmp_path / "rows.parquet")
    message = refusal(lambda: list(read_blocks(tmp_path / "rows.parquet", {"id": "int"})))
    assert message == "rows.parquet: expected at least one row, got none."
    content = (ads / "user_profile.parquet").read_bytes()
    for damaged in (content[:-9], b"", b"text"):
        (tmp_path / "rows.parquet").write_bytes(damaged)
        message = refusal(lambda: list(read_blocks(tmp_path / "rows.parquet", {"id": "int"})))
        assert message.startswith(f"{tmp_path / 'rows.parquet'}: expected a whole Parquet file, got ")


def test_without_pyarrow_a_line_says_what_to_do(ads, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refusal(load_alibaba, ads)
    assert message.startswith(
        f"{ads / 'raw_sample.parquet'}: expected the package pyarrow, which reads Parquet, got none"
    )
    assert message.endswith("pip install -r requirements-parquet.txt, or save the table as CSV.")


def test_names_of_missing_files_stay_those_of_the_csv_files(ads, tmp_path):
    folder = shutil.copytree(ads, tmp_path / "ads")
    (folder / "user_profile.parquet").unlink()
    assert f"got no {USER_PROFILE}." in refusal(load_alibaba, folder)
    assert not (folder / RAW_SAMPLE).exists()
