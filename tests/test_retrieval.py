"""Approximate retrieval: nearly all of the exact best, with exact scores, through updates."""

import numpy as np
import pytest
from served import form, heads, index_of, users

from benchmark.muvera import Muvera
from preprocessing.errors import UserError
from serving.item_index import ItemIndex, create_index
from serving.maxsim import maxsim
from serving.retrieval import Retriever

NUM_ITEMS = 3000


def catalogue(seed: int = 0, num_items: int = NUM_ITEMS) -> np.ndarray:
    """Items around a hundred centres, as those of a trained model lie."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((100, 2, 4))
    noise = 0.3 * generator.standard_normal((num_items, 2, 4))
    return (centres[generator.integers(0, 100, num_items)] + noise).astype(np.float32)


def recall(retriever: Retriever, index: ItemIndex, k: int = 50) -> float:
    """The share of the exact best that is found, over ten users; scores are checked to be exact."""
    found = []
    for user in users(10):
        expected, best = index.top_k(user, k), retriever.top_k(user, k)
        exact = dict(zip(expected.ids.tolist(), expected.scores, strict=True))
        for item, score in zip(best.ids.tolist(), best.scores, strict=True):
            assert score == pytest.approx(exact.get(item, score), abs=1e-4)
        assert (np.diff(best.scores) <= 0).all()
        found.append(np.isin(expected.ids, best.ids).mean())
    return float(np.mean(found))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_nearly_all_of_the_best_are_found_and_more_candidates_find_more(tmp_path, dtype):
    index = index_of(tmp_path, range(NUM_ITEMS), catalogue(), dtype=dtype)
    few, many = (Retriever(index, num_candidates=candidates) for candidates in (60, 500))
    assert recall(few, index) < recall(many, index)
    assert recall(many, index) > 0.95


@pytest.mark.parametrize("setting", ["num_assignments", "num_probes"])
def test_more_assignments_and_more_probes_find_more(tmp_path, setting):
    index = index_of(tmp_path, range(NUM_ITEMS), catalogue())
    few, many = (Retriever(index, **{setting: number}, num_candidates=60) for number in (1, 8))
    assert recall(few, index) < recall(many, index)


@pytest.mark.parametrize("num_items", [1, 7, 300])
def test_with_all_items_as_candidates_it_is_exact(tmp_path, num_items):
    index = index_of(tmp_path, range(num_items), catalogue(num_items=num_items))
    retriever = Retriever(index, num_probes=99, num_candidates=300)
    for user in users(5):
        best, expected = retriever.top_k(user, 20), index.top_k(user, 20)
        assert best.ids.tolist() == expected.ids.tolist()
        np.testing.assert_allclose(best.scores, expected.scores, rtol=1e-5)


def test_heads_of_more_numbers_than_faiss_sums_are_coded_several_at_once(tmp_path):
    create_index(tmp_path, form(num_user_heads=3, num_heads=3, head_dim=100))
    index, generator = ItemIndex(tmp_path), np.random.default_rng(0)
    index.put(range(700), generator.standard_normal((700, 3, 100)))
    user = generator.standard_normal((3, 100))
    retriever = Retriever(index, num_probes=99, num_candidates=700)
    assert retriever.top_k(user, 5).ids.tolist() == index.top_k(user, 5).ids.tolist()


def test_what_is_put_replaced_and_removed_is_found_as_it_is_after_a_refresh(tmp_path):
    names = np.array([f"item {n:04d}" for n in range(NUM_ITEMS)])
    writer = index_of(tmp_path, names, catalogue())
    retriever = Retriever(ItemIndex(tmp_path), num_candidates=500)
    user = users(1)[0]
    best = writer.top_k(user, 1).ids
    writer.put(["new"], 1.2 * catalogue()[np.searchsorted(names, best)])
    writer.remove(best)
    writer.put(names[:500], catalogue(seed=1)[:500])
    assert retriever.refresh()
    assert not retriever.refresh()
    found = retriever.top_k(user, 50).ids
    assert found[0] == "new"
    assert best[0] not in found
    assert recall(retriever, writer) > 0.95


def test_what_cannot_be_asked_is_refused(tmp_path):
    create_index(tmp_path / "empty", form())
    with pytest.raises(UserError, match="expected an index with items, got an empty one"):
        Retriever(ItemIndex(tmp_path / "empty"))
    retriever = Retriever(index_of(tmp_path / "index", range(40), heads(40)))
    with pytest.raises(UserError, match="user: expected heads of shape"):
        retriever.top_k(users(1)[0, :1], 3)
    with pytest.raises(UserError, match="k: expected a whole number of at least 1, got 0"):
        retriever.top_k(users(1)[0], 0)
    with pytest.raises(UserError, match="user: expected finite heads"):
        retriever.top_k(np.full_like(users(1)[0], np.nan), 3)


def test_muveras_product_is_exact_where_an_item_has_one_head_and_near_the_score_where_it_has_more():
    encoding = Muvera(8, np.random.default_rng(0), num_repetitions=50)
    items, asking = heads(200, num_heads=2, head_dim=8), users(3, head_dim=8)
    alone = encoding.scores(asking, [items[:150, :1], items[150:, :1]])
    np.testing.assert_allclose(alone / 50, maxsim(asking, items[:, :1]), rtol=1e-3, atol=1e-4)
    of_two = encoding.scores(asking, [items])
    for product, score in zip(of_two, maxsim(asking, items), strict=True):
        assert np.corrcoef(product, score)[0, 1] > 0.5
