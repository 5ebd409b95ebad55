"""The scorer: few products and a running maximum give what the formula gives."""

import numpy as np
import pytest
import torch
from models import ALL_COLUMNS, int_tower, random_features
from served import heads, plain_scores, users

import serving.maxsim
import serving.maxsim_compiled
import serving.maxsim_torch
from preprocessing.errors import UserError
from serving.heads import Heads
from serving.maxsim import maxsim
from serving.quantisation import quantise, restore


def test_the_score_is_the_sum_over_user_heads_of_the_best_item_head():
    user = np.array([[[1.0, 0.0], [0.0, 2.0]]], np.float32)
    item = np.array([[[3.0, 1.0], [-1.0, 4.0]]], np.float32)  # one item of two heads
    assert maxsim(user, item).tolist() == [[3.0 + 8.0]]


@pytest.mark.parametrize("num_heads", [1, 2, 5])
@pytest.mark.parametrize("num_user_heads", [1, 3, 12])
def test_scores_equal_the_formula_whatever_the_size_of_a_block(monkeypatch, num_heads, num_user_heads):
    user = users(3, num_user_heads=num_user_heads)
    item = heads(50, num_heads=num_heads)
    for block in (1, 7 * num_user_heads, 2**15):
        monkeypatch.setattr(serving.maxsim, "BLOCK", block)
        np.testing.assert_allclose(maxsim(user, item), plain_scores(user, item, bias=0.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_chosen_rows_are_scored_in_their_order(monkeypatch, dtype):
    monkeypatch.setattr(serving.maxsim, "BLOCK", 12)
    stored, scales = quantise(heads(30), dtype)
    rows = np.array([29, 0, 7, 7, 3])
    np.testing.assert_allclose(
        maxsim(users(2), stored, scales, rows), maxsim(users(2), stored, scales)[:, rows], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("block", [7, 2**18])
def test_the_form_in_torch_gives_the_scores_of_the_form_in_numpy(monkeypatch, num_heads, dtype, block):
    monkeypatch.setattr(serving.maxsim_torch, "BLOCK_ON_CPU", block)
    user, (stored, scales) = users(3), quantise(heads(50, num_heads=num_heads), dtype)
    tensors = [None if array is None else torch.from_numpy(array) for array in (user, stored, scales)]
    rows = np.array([49, 0, 7, 7])
    for chosen in (None, rows, rows[:0]):
        expected = maxsim(user, stored, scales, chosen)
        scores = serving.maxsim_torch.maxsim(*tensors, None if chosen is None else torch.from_numpy(chosen))
        np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert serving.maxsim_torch.maxsim(tensors[0][:0], *tensors[1:]).shape == (0, 50)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize(
    ("num_user_heads", "num_heads", "head_dim"),
    # Whole registers and parts of them, of 8 lanes and of 16; one user head; heads that are looped over.
    [(1, 1, 1), (3, 2, 5), (12, 4, 16), (16, 3, 8), (24, 8, 9), (1, 3, 19), (5, 1, 128), (40, 6, 64)],
)
def test_the_compiled_form_gives_the_scores_of_the_form_in_numpy(num_user_heads, num_heads, head_dim, dtype):
    user = users(2, num_user_heads=num_user_heads, head_dim=head_dim)
    stored, scales = quantise(heads(50, num_heads=num_heads, head_dim=head_dim), dtype)
    for chosen in (None, np.array([49, 0, 7, 7]), np.arange(50, dtype=np.int32)[::-2], np.empty(0, np.int64)):
        expected = maxsim(user, stored, scales, chosen)
        scores = serving.maxsim_compiled.maxsim(user, stored, scales, chosen)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3)


def test_the_compiled_score_of_a_pair_is_the_same_to_the_bit_whatever_is_scored_with_it():
    user, item = users(2, num_user_heads=12), heads(50, num_heads=4)
    scores = serving.maxsim_compiled.maxsim(user, item)
    rows = np.array([3, 49, 3])
    into = np.zeros((2, 6), np.float32)[:, ::2]  # not side by side
    assert serving.maxsim_compiled.maxsim(user, item, None, rows, into) is into
    assert np.array_equal(into, scores[:, rows])
    assert np.array_equal(serving.maxsim_compiled.maxsim(user[1:], item[7:8])[0], scores[1, 7:8])


def test_the_compiled_form_reads_no_row_beyond_the_items():
    user, item = users(1), heads(5)
    beyond = serving.maxsim_compiled.maxsim(user, item, None, np.array([4, 5, 2**40, -1]))
    assert beyond.tolist() == [[beyond[0, 0]] * 4]  # the last


@pytest.mark.parametrize("levels", ["all", "last"])
def test_all_forms_give_the_logits_of_forward(levels):
    served = Heads(int_tower(levels=levels, init_std=0.5))
    features = random_features(ALL_COLUMNS, 20)
    with torch.inference_mode():
        expected = served.model(features).numpy()
        user_BQK, items_NGK = served.user(features), served.item(features)
    arrays = user_BQK.numpy(), items_NGK.numpy()
    in_torch = serving.maxsim_torch.maxsim(user_BQK, items_NGK)
    for scores_BN in (maxsim(*arrays), serving.maxsim_compiled.maxsim(*arrays), in_torch):
        logits = np.diagonal(np.asarray(scores_BN)) + served.bias
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_no_items_and_no_users_give_no_scores():
    assert maxsim(users(2), heads(0)).shape == (2, 0)
    assert maxsim(users(0), heads(5)).shape == (0, 5)
    assert maxsim(users(2), heads(5), None, np.empty(0, np.int64)).shape == (2, 0)


def test_int8_keeps_each_number_within_half_a_step_of_its_items_largest():
    item = heads(20) * np.logspace(-3, 3, 20, dtype=np.float32)[:, None, None]
    stored, scales = quantise(item, "int8")
    assert stored.dtype == np.int8
    assert np.abs(stored).max(axis=(1, 2)).tolist() == [127] * 20
    assert (np.abs(restore(stored, scales) - item) <= scales[:, None, None] * 0.5001).all()


def test_float16_rounds_and_float32_changes_nothing():
    assert np.array_equal(quantise(heads(5), "float32")[0], heads(5))
    np.testing.assert_allclose(restore(*quantise(heads(5), "float16")), heads(5), rtol=1e-3)


def test_an_item_of_zeros_stays_one_in_int8():
    stored, scales = quantise(np.zeros((1, 2, 4), np.float32), "int8")
    assert not restore(stored, scales).any()
    assert np.isfinite(scales).all()


def test_numbers_beyond_float16_and_unknown_dtypes_are_refused():
    with pytest.raises(UserError, match="7e\\+04; use float32"):
        quantise(np.full((1, 1, 1), 7e4, np.float32), "float16")
    with pytest.raises(UserError, match="float32, float16, int8, got 'int4'"):
        quantise(heads(1), "int4")


def test_every_finite_half_float_is_widened_exactly():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    item = halves[:, None, None]  # a head of size 1
    scores = maxsim(np.ones((1, 1, 1), np.float32), item)[0]
    assert np.array_equal(scores, halves.astype(np.float32))
