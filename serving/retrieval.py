"""The best of a catalogue that no scan covers in time: candidates by faiss, rescored exactly by the index.

The score of an item is a maximum over assignments a of the user's heads to the item's: sum over its heads g of
<sum of the user heads h with a(h) = g, item head g>. Any one assignment is thus a dot product with the numbers that the
index stores of the item, and a lower bound of the score: what libraries for nearest neighbours look for. Which
assignments a user is asked with is taken from the best items of a sample, whose own they are.

faiss goes through half of the items, in lists of neighbours, at half a byte for each of their numbers (product
quantisation of 4 bits, "fast scan").

Shapes: Q user heads, N items, G item heads, K head size, S items of the sample, A assignments, E = G * K.
"""

from __future__ import annotations

import math

import numpy as np

from preprocessing.errors import UserError
from serving.choices import check_installed
from serving.index_files import Segment
from serving.item_index import ItemIndex, TopK
from serving.maxsim import maxsim
from serving.quantisation import restore

SAMPLE = 4096  # items whose assignments users are asked with
TRAINING_ROWS = 39  # at least, for each list and for each of the 16 values of a code: faiss warns of fewer
ROWS_AT_ONCE = 2**16
MAX_CODES = 256  # of an item: faiss sums their parts, each a byte, in 16 bits


class Retriever:
    """Finds the best items of an index without scoring all: approximate, and exact in the scores that it gives.

    It keeps a copy of the items at an eighth of their size. `refresh` adds what was put into the index since; what was
    removed is never returned, and what was replaced is scored as it is now. After many updates, or where new items are
    unlike the old ones, make a new one.

    Args:
        index: which is refreshed with it.
        num_lists: into which items are sorted; None takes the root of their number.
        num_probes: lists that are gone through for an assignment, None half of them. More find more, and take longer.
        num_assignments: A, of a user: likewise.
        num_candidates: that each assignment brings, to be scored: likewise. None takes 40 k, or a 300th of the items.
        seed: of the sample, and of what is learned.
    Raises UserError where faiss is not installed, the index is empty, or of a model whose scores have a temperature.
    """

    def __init__(
        self,
        index: ItemIndex,
        num_lists: int | None = None,
        num_probes: int | None = None,
        num_assignments: int = 2,
        num_candidates: int | None = None,
        seed: int = 0,
    ):
        check_installed(["faiss"], "requirements-retrieval.txt")
        import faiss

        if not len(index):
            raise UserError(f"{index.folder}: expected an index with items, got an empty one; put some into it.")
        if index.form.temperature is not None:
            raise UserError(
                f"{index.folder}: expected scores that are a sum of the best products, got {index.form.model}'s, which "
                "weighs them; use the index's own top_k, which scans."
            )
        num_lists = num_lists or max(1, round(math.sqrt(len(index))))
        self.index, self.num_probes = index, num_probes or -(-num_lists // 2)
        self.num_assignments, self.num_candidates = num_assignments, num_candidates
        shape = index.form.num_heads, index.form.head_dim
        num_rows = TRAINING_ROWS * max(num_lists, 16)
        training = _sample(index.segments, max(SAMPLE, num_rows), np.random.default_rng(seed))
        self._sample_SGK = training[: min(SAMPLE, len(training))].reshape(-1, *shape)
        size = shape[0] * shape[1]
        num_codes = max(codes for codes in range(1, min(size, MAX_CODES) + 1) if size % codes == 0)
        middles = faiss.IndexFlatIP(size)
        self._items = faiss.IndexIVFPQFastScan(middles, size, num_lists, num_codes, 4, faiss.METRIC_INNER_PRODUCT)
        self._items.by_residual = True  # codes say how far an item is from the middle of its list
        self._items.cp.seed = self._items.pq.cp.seed = seed + 1
        self._items.train(np.resize(training, (max(len(training), num_rows), size)))
        self._ids, self._seen = [], set()
        self._add()

    def refresh(self) -> bool:
        """See what others have updated since; returns whether there was anything."""
        is_another = self.index.refresh()
        self._add()
        return is_another

    def top_k(self, user: np.ndarray, k: int) -> TopK:
        """About the k items with the highest logits, the highest first, with their logits.

        Args:
            user: heads (Q, K).
        Raises UserError for a k below 1, or heads of another shape or not finite.
        """
        import faiss

        user = np.asarray(user, dtype=np.float32)
        self.index.top_k(user[None], k, [])  # of no candidates: refuses what cannot be asked
        num_candidates = self.num_candidates or max(40 * k, len(self.index) // 300)
        probes = faiss.SearchParametersIVF(nprobe=self.num_probes)
        _, places = self._items.search(self._queries(user), num_candidates, params=probes)
        places = np.sort(places, axis=None)  # what is read of them lies far apart, and is found sooner in order
        return self.index.top_k(user, k, self._known[places[places >= 0]])

    def _queries(self, user_QK: np.ndarray) -> np.ndarray:
        """(A, E): the user by the assignments of the sample's best items for them, each once."""
        scores_S = maxsim(user_QK[None], self._sample_SGK)[0]
        best_SGK = self._sample_SGK[np.argsort(-scores_S)[: 16 * self.num_assignments]]
        distinct = dict.fromkeys(map(tuple, (best_SGK @ user_QK.T).argmax(1)))
        assignments = list(distinct)[: self.num_assignments]
        queries = np.zeros((len(assignments), *self._sample_SGK.shape[1:]), np.float32)
        for query_GK, assignment_Q in zip(queries, assignments, strict=True):
            np.add.at(query_GK, list(assignment_Q), user_QK)
        return queries.reshape(len(queries), -1)

    def _add(self) -> None:
        """Copy the items of segments that were not seen before."""
        for segment in self.index.segments:
            if segment.name not in self._seen:
                self._seen.add(segment.name)
                for start in range(0, len(segment), ROWS_AT_ONCE):
                    rows = slice(start, start + ROWS_AT_ONCE)
                    self._items.add(_rows(segment, rows))
                    self._ids.append(segment.ids[rows])
        self._known = np.concatenate(self._ids)


def _rows(segment: Segment, rows: slice | np.ndarray) -> np.ndarray:
    """(M, E) float32, items of a segment."""
    scales = None if segment.scales is None else segment.scales[rows]
    items_MGK = restore(segment.heads[rows], scales)
    return np.ascontiguousarray(items_MGK.reshape(len(items_MGK), -1))


def _sample(segments: list[Segment], size: int, generator: np.random.Generator) -> np.ndarray:
    """At most `size` items of all segments, (M, E), in no order."""
    total = sum(map(len, segments))
    chosen = np.sort(generator.choice(total, min(size, total), replace=False))
    firsts = np.cumsum([0, *map(len, segments)])
    parts = [
        _rows(segment, chosen[(chosen >= first) & (chosen < first + len(segment))] - first)
        for segment, first in zip(segments, firsts[:-1], strict=True)
    ]
    return generator.permutation(np.concatenate(parts))
