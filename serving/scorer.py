"""Which form of the scorer an index uses: numpy's, a compiled one, torch's, or the fastest of them on this machine.

numpy's needs nothing else. The compiled one needs llvmlite, and takes about half of numpy's time for heads that are few
and small. torch's uses several threads better and shares them with the towers. Which one is fastest depends on the
heads, the threads and the processor (benchmark/maxsim.py shows it), so it can be measured where it runs.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.errors import UserError
from serving.choices import is_installed
from serving.maxsim import maxsim

if TYPE_CHECKING:
    import torch

SCORERS = ("numpy", "compiled", "torch", "fastest")
_NEEDS = {"compiled": "llvmlite", "torch": "torch"}
TRIAL_ITEMS, TRIAL_ROUNDS = 4096, 7

# User heads, items, their scales, the rows that are scored, and where the scores go.
Scorer = Callable[[np.ndarray, np.ndarray, "np.ndarray | None", "np.ndarray | None", "np.ndarray | None"], np.ndarray]


def scorers_here() -> list[str]:
    """Those forms that can be used: what they need is installed."""
    return ["numpy", *(name for name, package in _NEEDS.items() if is_installed(package))]


def scorer_called(
    name: str, num_user_heads: int, num_heads: int, head_dim: int, temperature: float | None = None
) -> Scorer:
    """A function with the arguments of serving/maxsim.py's.

    Args:
        name: of SCORERS; "fastest" tries those that are installed for a moment on heads of these numbers and size, with
            all items and with chosen ones.
        temperature: of a model that has one, for which there is no compiled form.
    Raises UserError for another name, and for a form that is not installed or not there.
    """
    if name not in SCORERS:
        raise UserError(f"scorer: expected one of {', '.join(SCORERS)}, got {name!r}.")
    here = scorers_here()
    if name in _NEEDS and name not in here:
        raise UserError(f"scorer: expected {_NEEDS[name]} to be installed, it is not; install it, or choose 'numpy'.")
    if name == "compiled" and temperature is not None:
        raise UserError("scorer: expected heads without a temperature, got some of a Poly-Encoder; choose 'numpy'.")
    forms = {"numpy": maxsim, "compiled": maxsim_compiled, "torch": maxsim_in_torch}
    if temperature is not None:
        del forms["compiled"]
        forms = {name: partial(form, temperature=temperature) for name, form in forms.items()}
    if name in forms:
        return forms[name]
    forms = [form for name, form in forms.items() if name in here]
    if len(forms) == 1:
        return forms[0]
    generator = np.random.default_rng(0)
    user_BQK = generator.standard_normal((1, num_user_heads, head_dim), dtype=np.float32)
    items_NGK = generator.standard_normal((TRIAL_ITEMS, num_heads, head_dim), dtype=np.float32)
    rows_N = generator.permutation(TRIAL_ITEMS)
    of_all, of_chosen = (
        min(forms, key=lambda form, rows_N=rows: _seconds(form, user_BQK, items_NGK, rows_N)) for rows in (None, rows_N)
    )
    if of_all is of_chosen:
        return of_all
    return lambda users, items, scales, rows, out: (of_all if rows is None else of_chosen)(
        users, items, scales, rows, out
    )


def maxsim_compiled(*arguments) -> np.ndarray:
    """serving/maxsim_compiled.py, which is imported when it is first asked."""
    import serving.maxsim_compiled

    return serving.maxsim_compiled.maxsim(*arguments)


def maxsim_in_torch(
    user_BQK: np.ndarray,
    items_NGK: np.ndarray,
    scales_N: np.ndarray | None = None,
    rows_N: np.ndarray | None = None,
    out: np.ndarray | None = None,
    temperature: float | None = None,
) -> np.ndarray:
    """serving/maxsim_torch.py on arrays, on the CPU; nothing is copied, but for the scores into `out`.

    Raises UserError in a forked process that has set more than one thread; see serving/forks.py.
    """

    import serving.maxsim_torch
    from serving.forks import check_threads

    check_threads()
    given = (user_BQK, items_NGK, scales_N, rows_N)
    tensors = (None if array is None else _tensor(np.ascontiguousarray(array)) for array in given)
    scores_BN = serving.maxsim_torch.maxsim(*tensors, temperature).numpy()
    if out is None:
        return scores_BN
    out[...] = scores_BN
    return out


def _tensor(array: np.ndarray) -> torch.Tensor:
    """An array as it lies, not copied. from_numpy would warn of an index, which is mapped to be read alone."""
    import torch

    try:
        return torch.from_dlpack(array)
    except BufferError:  # an older torch asks for a DLPack that knows no read-only arrays
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.from_numpy(array)


def _seconds(scorer: Scorer, user_BQK: np.ndarray, items_NGK: np.ndarray, rows_N: np.ndarray | None) -> float:
    """The shortest of some calls, after one that does not count."""
    taken = []
    for _ in range(1 + TRIAL_ROUNDS):
        start = time.perf_counter()
        scorer(user_BQK, items_NGK, None, rows_N)
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
