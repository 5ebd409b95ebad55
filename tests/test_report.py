"""What is printed under a result, before anybody quotes it."""

import json

import pytest

from experiment.report import PUBLISHED, print_report

RECORD = {
    "dataset": "movielens",
    "synthetic": False,
    "protocol": "strict",
    "labels_leak": False,
    "model": "DCN",
    "settings": {},
    "seed": 1,
    "device": "cpu",
    "test": {"auc": 0.8, "logloss": 0.4, "gauc": 0.7},
    "epochs": 3,
    "best_epoch": 2,
    "train_seconds": 60,
    "samples_per_second": 1000,
    "counts": {"test": 400},
    "dense_feature_test_auc": {"user_mean_rating": 0.7, "item_mean_rating": 0.7},
}


@pytest.fixture
def remarks(tmp_path, capsys):
    def printed(**changes) -> str:
        print_report(RECORD | changes, tmp_path)
        return "\n".join(capsys.readouterr().out.splitlines()[4:-1])

    return printed


def test_where_features_are_made_of_labels_the_protocol_decides_what_may_be_compared(remarks):
    assert "this is not the same measurement" in remarks()
    leaking = remarks(protocol="paper", labels_leak=True)
    assert leaking.startswith("published for DCN: AUC 0.8964, logloss 0.3151\nlabels leak:")


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_where_no_feature_is_made_of_labels_none_is_said_to_leak(remarks, protocol):
    said = remarks(dataset="alibaba", protocol=protocol, dense_feature_test_auc={"price": 0.5})
    assert said == "published for DCN: AUC 0.6831, logloss 0.2244; no feature here is made of labels, so none leaks."


def test_test_rows_that_repeat_training_are_said_where_there_are_any(remarks):
    def said(repeated: int) -> str:
        return remarks(dataset="own", counts={"test": 400, "test_rows_with_pair_and_label_in_train": repeated})

    assert said(50) == "50 test rows (12.5%) have user, item and label of a training row, at another time."
    assert said(0) == ""


def test_rows_of_users_and_items_that_training_has_not_are_said_apart_where_they_are_one_in_a_hundred(remarks):
    def part(rows, auc=None):
        return {"rows": rows, "auc": auc}

    parts = {
        "user": {"seen": part(4000, 0.81), "unseen": part(1000, 0.7)},
        "item": {"seen": part(4960, 0.8), "unseen": part(40, 0.6)},
    }
    said = "AUC on 4,000 rows of users of training 0.8100, on 1,000 of others 0.7000."
    assert remarks(dataset="own", strangers=parts) == said
    parts["item"] = {"seen": part(0), "unseen": part(5000, 0.6)}
    assert remarks(dataset="own", strangers=parts).splitlines()[1] == (
        "AUC on 0 rows of items of training none, on 5,000 of others 0.6000."
    )


def test_a_share_of_the_users_is_set_beside_no_published_figure(remarks):
    said = remarks(dataset="alibaba", settings={"sample_rate": 0.1}, dense_feature_test_auc={"price": 0.5})
    assert said == "trained and tested on a share of the users: not to be compared with published figures."


def test_a_dataset_that_the_paper_has_not_is_set_beside_no_figure(remarks):
    assert remarks(dataset="amazon-Books_5") == ""
    assert set(json.loads(PUBLISHED.read_text())) >= {"movielens", "amazon", "alibaba"}
