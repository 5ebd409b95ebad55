"""The best of a catalogue that no scan covers in time: candidates by faiss, rescored exactly by the index.

The score of an item is a maximum over assignments a of the user's heads to the item's: sum over its heads g of
<sum of the user heads h with a(h) = g, item head g>. Any one assignment is thus a dot product with the numbers that the
index stores of the item, and a lower bound of the score: what libraries for nearest neighbours look for. Which
assignments a user is asked with is taken from the best items of a sample, whose own they are.

Shapes: Q user heads, N items, G item heads, K head size, S items of the sample, A assignments, E = G * K.
"""

from __future__ import annotations

import math

import numpy as np

from preprocessing.errors import UserError
from serving.choices import check_installed
from serving.index_files import Segment
from serving.item_index import ItemIndex, TopK
from serving.quantisation import restore

SAMPLE = 4096  # items whose assignments users are asked with
ROWS_AT_ONCE = 2**16
TRAINING_ROWS = 64  # per list, of those that the lists are learned from


class Retriever:
    """Finds the best items of an index without scoring all: approximate, and exact in the scores that it gives.

    It learns its lists once. `refresh` adds what was put into the index since; what was removed is never returned, and
    what was replaced is scored as it is now. After many updates, make a new one.

    Args:
        index: which is refreshed with it.
        num_lists: into which items are sorted; None takes 4 sqrt(N).
        num_probes: lists that an assignment is looked for in. More find more, and take longer.
        num_assignments: A, of a user.
        seed: of the sample and the lists.
    Raises UserError where faiss is not installed, or the index is empty.
    """

    def __init__(
        self,
        index: ItemIndex,
        num_lists: int | None = None,
        num_probes: int = 16,
        num_assignments: int = 4,
        seed: int = 0,
    ):
        check_installed(["faiss"], "requirements-retrieval.txt")
        import faiss

        if not len(index):
            raise UserError(f"{index.folder}: expected an index with items, got an empty one; put some into it.")
        self.index, self.num_probes, self.num_assignments = index, num_probes, num_assignments
        num_lists = num_lists or max(1, min(round(4 * math.sqrt(len(index))), len(index) // 40))
        generator, size = np.random.default_rng(seed), index.form.num_heads * index.form.head_dim
        training = _sample(index.segments, TRAINING_ROWS * num_lists, generator)
        self._sample_SGK = training[: min(SAMPLE, len(training))].reshape(-1, index.form.num_heads, index.form.head_dim)
        self._lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, num_lists, faiss.METRIC_INNER_PRODUCT)
        self._lists.cp.seed = seed + 1
        self._lists.train(training)
        self._ids, self._seen = [], set()
        self._add()

    def refresh(self) -> bool:
        """See what others have updated since; returns whether there was anything."""
        is_another = self.index.refresh()
        self._add()
        return is_another

    def top_k(self, user: np.ndarray, k: int, num_candidates: int | None = None) -> TopK:
        """About the k items with the highest logits, the highest first, with their logits.

        Args:
            user: heads (Q, K).
            num_candidates: that each assignment brings, before all are scored; None takes 10 k.
        Raises UserError for a k below 1, or heads of another shape or not finite.
        """
        import faiss

        user = np.asarray(user, dtype=np.float32)
        self.index.top_k(user[None], k, [])  # of no candidates: refuses what cannot be asked
        probes = faiss.SearchParametersIVF(nprobe=self.num_probes)
        _, places = self._lists.search(self._queries(user), num_candidates or 10 * k, params=probes)
        places = np.unique(places)
        return self.index.top_k(user, k, self._known[places[places >= 0]])

    def _queries(self, user_QK: np.ndarray) -> np.ndarray:
        """(A, E): the user by the assignments of the sample's best items for them, each once."""
        products_SGQ = self._sample_SGK @ user_QK.T
        best = np.argsort(-products_SGQ.max(1).sum(1))[: 16 * self.num_assignments]
        distinct = dict.fromkeys(map(tuple, products_SGQ[best].argmax(1)))
        assignments = list(distinct)[: self.num_assignments]
        queries = np.zeros((len(assignments), *self._sample_SGK.shape[1:]), np.float32)
        for query_GK, assignment_Q in zip(queries, assignments, strict=True):
            np.add.at(query_GK, list(assignment_Q), user_QK)
        return queries.reshape(len(queries), -1)

    def _add(self) -> None:
        """Sort the items of segments that were not seen before into the lists."""
        for segment in self.index.segments:
            if segment.name not in self._seen:
                self._seen.add(segment.name)
                for start in range(0, len(segment), ROWS_AT_ONCE):
                    rows = slice(start, start + ROWS_AT_ONCE)
                    self._lists.add(_rows(segment, rows))
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
