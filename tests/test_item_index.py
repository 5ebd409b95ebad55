"""The item index: exact answers, updates that readers see whole, files that are checked."""

import errno
import json
import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from served import form, heads, index_of, plain_scores, users

import serving.item_index
import serving.merging
import serving.scorer
from preprocessing.errors import UserError
from serving.index_files import HEADS, LOCK, MANIFEST, MARK, make_marked, new_name, read_manifest
from serving.item_index import ItemIndex, best_places, create_index
from serving.scorer import SCORERS, scorer_called

IDS = [10, 3, 7, 100, 5]


@pytest.fixture
def index(tmp_path):
    return index_of(tmp_path / "index", IDS, heads(5))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 0.02), ("int8", 0.2)])
def test_candidates_get_the_formulas_score_in_the_order_that_they_are_asked_in(tmp_path, dtype, tolerance):
    index = index_of(tmp_path, IDS, heads(5), dtype=dtype)
    expected = plain_scores(users(2), heads(5))
    assert np.abs(index.score(users(2), IDS) - expected).max() < tolerance
    assert np.abs(index.score(users(2)[0], IDS[::-1]) - expected[0, ::-1]).max() < tolerance


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_any_form_of_the_scorer_gives_the_same_answers(tmp_path, recwarn, scorer, dtype):
    index = index_of(tmp_path, range(300), heads(300), dtype=dtype)
    index.put([7, 1000], heads(2, seed=5))
    other = ItemIndex(tmp_path, scorer=scorer)
    asked = [5, 1000, 8, 999]
    np.testing.assert_allclose(other.score(users(2), asked), index.score(users(2), asked), rtol=1e-5, atol=1e-5)
    assert other.top_k(users(1)[0], 20).ids.tolist() == index.top_k(users(1)[0], 20).ids.tolist()
    assert not recwarn.list


def test_a_scorer_that_is_not_there_is_refused(index, monkeypatch):
    with pytest.raises(UserError, match="expected one of numpy, compiled, torch, fastest, got 'faiss'"):
        ItemIndex(index.folder, scorer="faiss")
    monkeypatch.setattr(serving.scorer, "is_installed", lambda package: False)
    for scorer, package in (("torch", "torch"), ("compiled", "llvmlite")):
        with pytest.raises(UserError, match=f"expected {package} to be installed"):
            ItemIndex(index.folder, scorer=scorer)
    expected = index.score(users(1)[0], IDS)
    assert np.array_equal(ItemIndex(index.folder, scorer="fastest").score(users(1)[0], IDS), expected)


def test_the_fastest_scorer_is_the_one_that_took_less_time_on_all_items_and_on_chosen_ones(monkeypatch):
    forms = (serving.scorer.maxsim, serving.scorer.maxsim_compiled, serving.scorer.maxsim_in_torch)
    for fast in forms:
        monkeypatch.setattr(serving.scorer, "_seconds", lambda form, *_, fast=fast: float(form is not fast))
        assert scorer_called("fastest", 3, 2, 4) is fast
    called = []
    for name in ("maxsim", "maxsim_compiled", "maxsim_in_torch"):
        monkeypatch.setattr(serving.scorer, name, lambda *_, name=name: called.append(name))
    wanted = {True: serving.scorer.maxsim_in_torch, False: serving.scorer.maxsim_compiled}  # of all, and of chosen ones
    monkeypatch.setattr(serving.scorer, "_seconds", lambda form, _u, _h, rows: float(form is not wanted[rows is None]))
    mixed = scorer_called("fastest", 3, 2, 4)
    mixed(users(1), heads(3), None, None, None)
    mixed(users(1), heads(3), None, np.array([1]), None)
    assert called == ["maxsim_in_torch", "maxsim_compiled"]


def test_each_user_of_a_batch_may_have_candidates_of_their_own(index):
    scores = index.score(users(2), [[10, 3], [5, 5]])
    expected = plain_scores(users(2), heads(5))
    np.testing.assert_allclose(scores, [expected[0, [0, 1]], expected[1, [4, 4]]], rtol=1e-5)


def test_scores_that_go_where_the_user_stands_are_of_that_user(index):
    index.put([20, 30], heads(2, seed=5))
    user, ids = users(1)[0], [10, 20, -1]
    expected = index.score(user, ids)
    assert index.score(user, ids, user.ravel()[:3]).tolist() == pytest.approx(expected.tolist())


def test_candidates_of_each_user_are_no_list_of_ids_to_choose_from_or_to_remove(index):
    for ask in (lambda ids: index.top_k(users(2), 2, ids), index.remove):
        with pytest.raises(UserError, match=r"expected a list of ids, got an array of shape \(2, 3\)"):
            ask(np.array([[10, 3, 7], [5, 7, 3]]))
    assert len(index) == 5


@pytest.mark.parametrize("scorer", ["numpy", "compiled", "torch"])
def test_scores_go_where_the_caller_says(index, scorer):
    index = ItemIndex(index.folder, scorer=scorer)
    index.put([20, 30], heads(2, seed=5))  # a second segment
    for user, ids in [
        (users(1)[0], [10, 3, 4, 20]),
        (users(2), [3, 10]),
        (users(2), [[10, 3, 30], [5, 5, 4]]),
        (users(1)[0], [4]),
        (users(2), []),
    ]:
        expected = index.score(user, ids)
        out = np.full((*expected.shape[:-1], 2 * expected.shape[-1]), np.nan, np.float32)[..., ::2]
        assert index.score(user, ids, out) is out
        np.testing.assert_allclose(out, expected, rtol=1e-5)
    fixed = np.empty(2, np.float32)
    fixed.flags.writeable = False
    for wrong in (np.empty(3, np.float32), np.empty((1, 2), np.float32), np.empty(2), fixed, [0.0, 0.0]):
        with pytest.raises(UserError, match=r"out: expected an array of float32 of shape \(2,\) that can be written"):
            index.score(users(1)[0], [10, 3], wrong)


def test_an_id_that_is_not_in_the_index_scores_minus_infinity_and_is_never_returned(index):
    scores = index.score(users(1)[0], [3, 4, -1, 10**12, 10])
    assert np.isneginf(scores[[1, 2, 3]]).all()
    assert np.isfinite(scores[[0, 4]]).all()
    assert index.top_k(users(1)[0], 5, [4, 3, -1]).ids.tolist() == [3]


def test_ids_that_arrive_as_text_or_floats_are_found(index):
    expected = index.score(users(1)[0], [10, 3])
    assert np.array_equal(index.score(users(1)[0], ["10", "3"]), expected)
    assert np.array_equal(index.score(users(1)[0], [10.0, 3.0]), expected)
    assert np.isneginf(index.score(users(1)[0], ["ten", "3.5"])).all()


def test_the_top_k_are_the_best_of_all_items_and_of_candidates(index):
    expected = plain_scores(users(1), heads(5))[0]
    order = np.argsort(-expected)
    best = index.top_k(users(1)[0], 3)
    assert best.ids.tolist() == [IDS[i] for i in order[:3]]
    np.testing.assert_allclose(best.scores, expected[order[:3]], rtol=1e-5)
    among = [i for i in order if IDS[i] in (3, 7)]
    assert index.top_k(users(1)[0], 3, [7, 3, 7, 8]).ids.tolist() == [IDS[i] for i in among]


def test_a_k_above_the_number_of_items_gives_all_of_them_and_no_candidates_give_none(index):
    assert sorted(index.top_k(users(1)[0], 99).ids) == sorted(IDS)
    assert len(index.top_k(users(1)[0], 3, []).ids) == 0
    assert index.score(users(1)[0], []).shape == (0,)
    assert index.score(users(2), []).shape == (2, 0)


def test_a_batch_of_users_gets_what_each_gets_alone(index, monkeypatch):
    monkeypatch.setattr(serving.item_index, "USERS_AT_ONCE", 2)
    batch = index.top_k(users(5), 3)
    for user, best in zip(users(5), batch, strict=True):
        assert np.array_equal(index.top_k(user, 3).ids, best.ids)
    assert index.top_k(users(0), 3) == []


def test_equal_scores_are_ordered_by_id_across_segments(tmp_path):
    same = np.ones((6, 2, 4), np.float32)
    index = index_of(tmp_path, [9, 4, 8, 1, 7, 2], same)
    index.put([3, 0], same[:2])
    assert index.top_k(users(1)[0], 4).ids.tolist() == [0, 1, 2, 3]
    assert index.top_k(users(1)[0], 2, [9, 3, 8]).ids.tolist() == [3, 8]


def test_the_best_places_are_those_of_a_full_sort(monkeypatch):
    monkeypatch.setattr(serving.item_index, "CHUNK", 16)
    generator = np.random.default_rng(0)
    for _ in range(50):
        scores = generator.integers(0, 6, 100).astype(np.float32)  # many ties
        scores[generator.random(100) < 0.2] = -np.inf
        ids = generator.permutation(100)
        k = int(generator.integers(1, 110))
        expected = np.lexsort((ids, -scores))
        expected = expected[np.isfinite(scores[expected])][:k]
        assert np.array_equal(best_places(scores, ids, k), expected)


@pytest.mark.parametrize("merged_at_once", [3, 2**16])
def test_random_updates_leave_what_a_dictionary_would_hold(tmp_path, monkeypatch, merged_at_once):
    monkeypatch.setattr(serving.merging, "MERGED_AT_ONCE", merged_at_once)
    create_index(tmp_path, form())
    index, truth = ItemIndex(tmp_path), {}
    generator = np.random.default_rng(0)
    for step in range(60):
        ids = generator.choice(80, size=generator.integers(1, 20), replace=False)
        if step % 3:
            put = heads(len(ids), seed=step)
            index.put(ids, put)
            truth |= {int(i): put[n] for n, i in enumerate(ids)}
        else:
            assert index.remove(ids) == sum(int(i) in truth for i in ids)
            for i in ids:
                truth.pop(int(i), None)
        assert len(index) == len(truth)
        assert index.ids.tolist() == sorted(truth)
        scores = index.score(users(1)[0], np.arange(80))
        for i in range(80):
            assert (i in index) == (i in truth)
            expected = plain_scores(users(1), truth[i][None])[0, 0] if i in truth else -np.inf
            np.testing.assert_allclose(scores[i], expected, rtol=1e-4, atol=1e-5)
        assert set(index.top_k(users(1)[0], 100).ids) == set(truth)
    assert len(read_manifest(tmp_path).entries) < 8  # merged as they come
    assert np.array_equal(ItemIndex(tmp_path).score(users(1)[0], np.arange(80)), scores)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_merging_segments_rounds_nothing_twice(tmp_path, dtype):
    index = index_of(tmp_path, range(10), heads(10), dtype=dtype)
    before = index.score(users(1)[0], range(10))
    for i in range(10, 30):
        index.put([i], heads(1, seed=i))
    np.testing.assert_allclose(index.score(users(1)[0], range(10)), before, rtol=1e-6)


def test_an_update_holds_no_more_heads_than_its_own_and_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(serving.merging, "MERGED_AT_ONCE", 500)
    index = index_of(tmp_path, range(20_000), heads(20_000, head_dim=64), head_dim=64)
    more = heads(10_000, seed=1, head_dim=64)
    tracemalloc.start()
    index.put(range(20_000, 30_000), more)  # joins the items before, as there are no more than twice as many
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(read_manifest(tmp_path).entries) == 1
    assert peak < 3 * more.nbytes  # in order, and as they are stored; all items are three times as many
    assert np.array_equal(
        index.score(users(1, head_dim=64)[0], range(20_000, 30_000)).argsort()[-3:],
        plain_scores(users(1, head_dim=64), more)[0].argsort()[-3:],
    )


def test_another_reader_sees_an_update_when_it_refreshes_and_not_before(index):
    reader = ItemIndex(index.folder)
    before = reader.score(users(1)[0], IDS)
    index.put([3, 999], heads(2, seed=9))
    index.remove([5])
    assert np.array_equal(reader.score(users(1)[0], IDS), before)
    assert 999 not in reader
    assert reader.refresh()
    assert 999 in reader
    assert 5 not in reader
    assert not reader.refresh()


def test_a_reader_beside_a_writer_never_sees_half_an_update(tmp_path):
    # Each update puts the same heads under all ids, so a whole generation has one score.
    create_index(tmp_path, form())
    writer, ids = ItemIndex(tmp_path), np.arange(50)
    writer.put(ids, np.zeros((50, 2, 4), np.float32))
    stop, faults, reads = threading.Event(), [], 0

    def read() -> None:
        nonlocal reads
        reader = ItemIndex(tmp_path)
        while not stop.is_set():
            reader.refresh()
            scores = reader.score(users(1)[0], ids)
            reads += 1
            if len(np.unique(scores)) != 1 or not np.isfinite(scores).all():
                faults.append(scores)

    thread = threading.Thread(target=read)
    thread.start()
    for value in range(1, 60):
        writer.put(ids, np.full((50, 2, 4), value, np.float32))
    stop.set()
    thread.join()
    assert reads > 5
    assert not faults


def test_thirty_two_threads_share_an_index_that_is_updated_under_them(tmp_path):
    # Again each generation has one score, so one that differs within an answer would be of two.
    create_index(tmp_path, form())
    index, ids, user = ItemIndex(tmp_path), np.arange(50), users(1)[0]
    index.put(ids, np.zeros((50, 2, 4), np.float32))

    def ask(thread: int) -> int:
        answers = 0
        while not stop.wait(0.01):  # without a rest, thirty-two of them would leave the writer no time
            scores = index.score(user, ids) if thread % 2 else index.top_k(user, 50).scores
            assert scores.shape == (50,)
            assert len(np.unique(scores)) == 1
            answers += 1
        return answers

    stop = threading.Event()
    with ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(ask, thread) for thread in range(32)]
        try:
            for value in range(1, 21):
                index.put(ids, np.full((50, 2, 4), value, np.float32))
        finally:
            stop.set()
    assert sum(answers.result() for answers in asked) > 32
    assert np.unique(index.score(user, ids)) == pytest.approx(20 * user.sum() + form().bias, rel=1e-5)


def test_an_index_of_other_weights_is_refused_also_when_it_appears_later(index):
    with pytest.raises(UserError, match="expected an index of the weights that encode the users \\(bbbb"):
        ItemIndex(index.folder, checkpoint="b" * 64)
    reader = ItemIndex(index.folder, checkpoint="a" * 64)
    create_index(index.folder, form(checkpoint="c" * 64))
    with pytest.raises(UserError, match="got one of others \\(cccc"):
        reader.refresh()


def test_an_empty_index_answers(tmp_path):
    create_index(tmp_path, form())
    index = ItemIndex(tmp_path)
    assert len(index) == 0
    assert 3 not in index
    assert np.isneginf(index.score(users(1)[0], [3])).all()
    assert len(index.top_k(users(1)[0], 3).ids) == 0
    assert index.remove([3]) == 0


def test_ids_may_be_text(tmp_path):
    index = index_of(tmp_path, ["B07", "A1", "C-long-asin"], heads(3))
    expected = plain_scores(users(1), heads(3))[0]
    np.testing.assert_allclose(index.score(users(1)[0], ["C-long-asin", "A1"]), expected[[2, 1]], rtol=1e-5)
    assert np.isneginf(index.score(users(1)[0], ["A", "C-long-asin-indeed"])).all()
    index.put(["a-much-longer-id-than-before"], heads(1))
    assert "a-much-longer-id-than-before" in index
    assert len(index) == 4
    index.put([5], heads(1))
    assert "5" in index
    index.put([], heads(0))
    assert len(index) == 5
    index.put(["007"], heads(1))
    with pytest.raises(UserError, match="expected text such as '007', got the number 7"):
        index.put([7], heads(1))


def test_an_id_put_as_text_is_the_number_that_it_is(tmp_path):
    index = index_of(tmp_path, [1, 2], heads(2))
    index.put(["2", "3"], heads(2))
    index.put([], heads(0))
    assert index.ids.tolist() == [1, 2, 3]
    with pytest.raises(UserError, match="expected whole numbers of 64 bits as ids, got 'B07'"):
        index.put(["B07"], heads(1))


def test_what_one_thread_reads_does_not_take_the_place_of_what_another_put_meanwhile(tmp_path, monkeypatch):
    index = index_of(tmp_path, [1, 2], heads(2))
    ItemIndex(tmp_path).put([3], heads(1))  # what the first refresh is to read
    reads, read = threading.Event(), serving.item_index.open_segment

    def slow(*arguments):
        segment = read(*arguments)
        if threading.current_thread() is refreshing:
            reads.set()
            putting.join(0.2)
        return segment

    monkeypatch.setattr(serving.item_index, "open_segment", slow)
    refreshing = threading.Thread(target=index.refresh)
    putting = threading.Thread(target=lambda: (reads.wait(), index.put([99], heads(1))))
    putting.start()
    refreshing.start()
    refreshing.join()
    putting.join()
    assert 99 in index


def test_an_index_made_anew_with_a_temperature_is_scored_with_it(tmp_path):
    index = index_of(tmp_path, [1, 2], heads(2))
    create_index(tmp_path, replace(index.form, temperature=1.0))
    ItemIndex(tmp_path).put([1, 2], heads(2))
    before = index.score(users(1)[0], [1, 2])
    index.refresh()
    after = index.score(users(1)[0], [1, 2])
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, ItemIndex(tmp_path).score(users(1)[0], [1, 2]))


def test_numbers_beyond_64_bits_are_unknown_and_lists_keep_the_kinds_of_their_ids(tmp_path):
    numbers = index_of(tmp_path / "numbers", [1, 2], heads(2))
    for large in (2**63, 2**64, -(2**70)):
        assert np.isneginf(numbers.score(users(1)[0], [large, 1])).tolist() == [True, False]
    texts = index_of(tmp_path / "text", np.array(["07", "8"]), heads(2))
    with pytest.raises(UserError, match="expected text such as '07', got the number 7"):
        texts.score(users(2), [[7, "8"], ["8", "8"]])
    with pytest.raises(UserError, match="expected a list of ids, or lists of the same length"):
        texts.score(users(2), [["07", "8"], ["8"]])


def test_numbers_beside_text_are_looked_up_by_the_rule_for_ids_and_not_made_text_of_before(tmp_path):
    index = index_of(tmp_path / "index", np.array(["0528881469", "9"]), heads(2))
    user = users(1)[0]
    assert index.score(user, ["9", "9"]).tolist() == pytest.approx([index.score(user, ["9"])[0]] * 2)
    for ask in (index.score, lambda user, ids: index.top_k(user, 1, ids), lambda _, ids: index.remove(ids)):
        with pytest.raises(UserError, match=r"expected text such as '0528881469', got the number 528881469 in row 1"):
            ask(user, ["9", 528881469])


def test_ids_far_apart_are_found_too(tmp_path):
    ids = [1, 10**15, 5 * 10**17]
    index = index_of(tmp_path, ids, heads(3))
    np.testing.assert_allclose(index.score(users(1)[0], ids), plain_scores(users(1), heads(3))[0], rtol=1e-5)
    assert np.isneginf(index.score(users(1)[0], [2, 10**15 + 1])).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.score(users(1, num_user_heads=2)[0], IDS), "expected heads of shape \\(3, 4\\)"),
        (lambda index: index.score(np.full((3, 4), np.nan), IDS), "user: expected finite heads"),
        (lambda index: index.top_k(users(1)[0], 0), "k: expected a whole number of at least 1, got 0"),
        (lambda index: index.top_k(users(1)[0], 2.0), "k: expected a whole number of at least 1, got 2.0"),
        (lambda index: index.top_k(users(1)[0], True), "k: expected a whole number of at least 1, got True"),
        (lambda index: index.score(users(3), [[1], [2]]), "or one for each of 3 users"),
        (lambda index: index.put([1, 1], heads(2)), "each item once, got 1 twice"),
        (lambda index: index.put([1], heads(2)), "heads: expected shape \\(1, 2, 4\\)"),
        (lambda index: index.put([1, 2], np.full((2, 2, 4), np.inf)), "infinite ones for item 1"),
        (lambda index: index.put([1, None], heads(2)), "an id for each item, got none in row 1"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(index, change, message):
    before = index.score(users(1)[0], IDS)
    with pytest.raises(UserError, match=message) as error:
        change(index)
    assert "\n" not in str(error.value)
    assert np.array_equal(ItemIndex(index.folder).score(users(1)[0], IDS), before)


def test_a_file_that_was_altered_cut_short_or_removed_is_noticed(index):
    [entry] = read_manifest(index.folder).entries
    path = index.folder / entry["name"] / HEADS
    content = path.read_bytes()
    damages = {
        "expected the checksum": content[:-1] + bytes([content[-1] ^ 1]),
        "checksum": content[:-8],
        "expected a file of the index, got none": None,
    }
    for message, damaged in damages.items():
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            ItemIndex(index.folder)
    path.write_bytes(content)
    assert len(ItemIndex(index.folder)) == 5


def test_a_manifest_that_is_damaged_missing_or_of_another_format_is_refused(index):
    path = index.folder / MANIFEST
    content = path.read_text()
    for damaged in (content.replace("0.5", "0.6"), content[:-5], "[]", ""):
        path.write_text(damaged)
        with pytest.raises(UserError, match="expected the manifest of an item index"):
            ItemIndex(index.folder)
    path.unlink()
    with pytest.raises(UserError, match=r"expected an item index, got no manifest\.json"):
        ItemIndex(index.folder)
    assert json.loads(content)  # it was one before


def test_what_a_killed_writer_left_is_removed_by_the_next_update(index):
    left = index.folder / new_name()
    make_marked(left)
    (left / HEADS).write_bytes(b"half")
    index.put([1], heads(1))
    assert not left.exists()
    assert len(ItemIndex(index.folder)) == 6


def test_an_empty_segment_of_a_writer_that_was_killed_around_its_mark_is_removed_by_the_next_update(index):
    left = index.folder / new_name()
    left.mkdir()
    index.put([1], heads(1))
    assert not left.exists()


def test_what_others_keep_in_the_folder_of_an_index_stays(tmp_path):
    names = ["segment-notes/x", f"segment-0123456789ab/{HEADS}", "segment-list.txt", "building/y", LOCK, "heads.npy"]
    theirs = {tmp_path / name: name.encode() for name in names}
    for path, content in theirs.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    index = index_of(tmp_path, IDS, heads(5))
    [ours] = [place for place in tmp_path.glob("segment-*") if (place / MARK).exists()]
    theirs[ours / "notes.txt"] = theirs[ours / "heads.npy.bak"] = b"written into a segment"
    for path in (ours / "notes.txt", ours / "heads.npy.bak"):
        path.write_bytes(theirs[path])
    index.put(IDS, heads(5, seed=1))  # in the place of all that the segment held
    assert index.remove(IDS[:2]) == 2
    create_index(tmp_path, form())
    assert {path: path.read_bytes() for path in theirs} == theirs
    assert not (ours / HEADS).exists()
    assert len(list(tmp_path.glob("segment-*"))) == 4  # three of others, and the segment that they wrote into


def test_segments_of_an_older_version_bear_no_mark_and_are_removed_as_a_manifest_named_them(index):
    [old] = index.folder.glob("segment-*")
    (old / MARK).unlink()
    index.put(IDS, heads(5, seed=1))
    assert not old.exists()


def test_the_manifest_of_something_else_is_never_written_over(tmp_path):
    (tmp_path / MANIFEST).write_text('{"format": 1, "sha256": {}}')
    with pytest.raises(UserError, match="got a damaged or another one"):
        create_index(tmp_path, form())
    assert (tmp_path / MANIFEST).read_text() == '{"format": 1, "sha256": {}}'


@pytest.mark.parametrize("place", ["link", "link/index"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, place):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"link: expected a folder, got a link that leads nowhere \(.*gone\)"):
        create_index(tmp_path / place, form())


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file/index: expected a folder that an index can be written to, got"):
        create_index(tmp_path / "file" / "index", form())


def test_heads_are_mapped_to_be_read_alone_and_torch_takes_them_as_they_lie(index, recwarn):
    [segment] = index._snapshot.segments
    assert not segment.heads.flags.writeable
    before = segment.heads.copy()
    expected = index.score(users(1)[0], IDS)
    np.testing.assert_allclose(ItemIndex(index.folder, scorer="torch").score(users(1)[0], IDS), expected, rtol=1e-5)
    assert np.array_equal(segment.heads, before)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "give the process more memory"),
        (MemoryError("Unable to allocate 5 GiB"), "give the process more memory"),
        (PermissionError(errno.EACCES, "Permission denied"), "check its permissions and the disk"),
    ],
)
def test_a_whole_index_that_cannot_be_read_is_not_told_to_be_built_anew(index, monkeypatch, error, advice):
    def refuse(*_, **__):
        raise error

    for called in ("serving.index_files.np.load", "pathlib.Path.read_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(called, refuse)
            with pytest.raises(UserError, match=advice) as told:
                ItemIndex(index.folder)
        assert "anew" not in str(told.value)


def test_a_pickled_index_is_its_folder_and_not_its_heads(index, monkeypatch):
    monkeypatch.chdir(index.folder.parent)
    for scorer in SCORERS:
        pickled = pickle.dumps(ItemIndex(index.folder.name, "a" * 64, scorer=scorer))
        assert len(pickled) < 300
        monkeypatch.chdir("/")
        copy = pickle.loads(pickled)
        monkeypatch.chdir(index.folder.parent)
        np.testing.assert_allclose(copy.score(users(1)[0], IDS), index.score(users(1)[0], IDS), rtol=1e-5)
        assert copy.checkpoint == "a" * 64
