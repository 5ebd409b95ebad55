"""Times of two units in one file are refused, and any one unit is taken, whichever the dataset."""

import pytest
import tables
import test_alibaba
import test_amazon
import test_amazon_2023
import test_kuairand
import test_movielens

from preprocessing.alibaba import load_alibaba
from preprocessing.amazon import load_amazon
from preprocessing.kuairand import load_kuairand
from preprocessing.movielens import load_movielens

# Of each layout: what loads it, what writes rows into a new folder, the rows, and the place of the time in a row.
LAYOUTS = {
    "movielens": (
        load_movielens,
        lambda folder, rows: (test_movielens.write_folder(folder, test_movielens.official(rows)),),
        *(test_movielens.RATINGS, 3),
    ),
    "movielens CSV": (
        load_movielens,
        lambda folder, rows: (test_movielens.write_csv(folder.with_suffix(".csv"), rows),),
        *(test_movielens.RATINGS, 3),
    ),
    "alibaba": (
        load_alibaba,
        lambda folder, rows: (test_alibaba.write_folder(folder, rows),),
        *(test_alibaba.ROWS, 1),
    ),
    "amazon": (load_amazon, test_amazon.write, test_amazon.RATINGS, 3),
    "amazon of 2023": (load_amazon, test_amazon_2023.write_2023, test_amazon.RATINGS, 3),
    "kuairand": (
        load_kuairand,
        lambda folder, rows: (test_kuairand.write_folder(folder, {test_kuairand.LATE: rows}),),
        *(test_kuairand.ROWS * 4, 2),
    ),
    "amazon CSV": (
        load_amazon,
        lambda folder, rows: test_amazon.write_csv(folder.with_suffix(".csv"), test_amazon.released_csv(rows)),
        *(test_amazon.RATINGS, 3),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_times_of_two_units_are_refused_and_of_one_unit_whichever_give_the_same_splits(layout, tmp_path):
    load, write, rows, place = LAYOUTS[layout]

    def files(name: str, unit_of_row):
        timed = [
            (*row[:place], (1_400_000_000 + n) * unit_of_row(n), *row[place + 1 :]) for n, row in enumerate(rows[::-1])
        ]
        return write(tmp_path / name, timed[::-1])

    seconds, milliseconds = (
        load(*files(str(unit), lambda _, unit=unit: unit), protocol="temporal") for unit in (1, 1000)
    )
    tables.assert_same_splits(seconds, milliseconds)
    mixed = files("mixed", lambda n: 1000 if n % 4 == 0 else 1)
    for protocol in ("strict", "temporal"):
        tables.refusal(load, *mixed, protocol=protocol, fragments=("expected times of one unit, got ",))
