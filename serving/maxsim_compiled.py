"""The score of serving/maxsim.py as machine code, made by llvmlite for the heads that it is asked of.

A server's time goes into what numpy cannot say: it writes an item's row out before it reads it, and the similarities of
a block before it takes their maximum. Here a candidate's row is read once, from where it lies, while those of the
candidates after it are on their way; products and maxima stay in registers, eight user heads side by side.

Shapes: B users, Q user heads (of all levels side by side), N items, G item heads, K head size.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, reduce

import numpy as np
from llvmlite import binding, ir

AHEAD = 16  # candidates whose rows are asked for before they are read
LINE = 64  # bytes that come from memory at once
UNROLLED = 1024  # multiplications of registers that are written one after the other, without a loop

_INT, _FLOAT, _POINTER = ir.IntType(64), ir.FloatType(), ir.PointerType()
_STORED = {"f": _FLOAT, "e": ir.HalfType(), "b": ir.IntType(8)}  # by numpy's letters, quicker to ask for than names
_one_at_a_time = threading.Lock()  # LLVM compiles for one thread


def maxsim(
    user_BQK: np.ndarray,
    items_NGK: np.ndarray,
    scales_N: np.ndarray | None = None,
    rows_N: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Scores (B, N) float32, by the arguments of serving/maxsim.py. A kind of heads is compiled when it first comes.

    A score depends on the user and the item alone, to the bit, and not on what else is scored with them.
    """
    num_scores = len(items_NGK) if rows_N is None else len(rows_N)
    scores_BN = np.empty((len(user_BQK), num_scores), np.float32) if out is None else out
    if not num_scores:
        return scores_BN
    _, num_heads, head_dim = items_NGK.shape
    if num_heads == 1:  # nothing to choose from: the sum of products is the product with the sum
        user_BQK = user_BQK.sum(1, keepdims=True)
    num_user_heads = user_BQK.shape[1]
    items_NGK = np.ascontiguousarray(items_NGK)
    scales_N = None if scales_N is None else np.ascontiguousarray(scales_N, np.float32)
    rows_N = None if rows_N is None else np.ascontiguousarray(rows_N, np.int64)
    has = scales_N is not None, rows_N is not None
    score = _compiled(num_user_heads, num_heads, head_dim, items_NGK.dtype.char, *has)
    user_KQ = np.zeros((head_dim, _filled(num_user_heads, 8) if num_user_heads > 1 else 1), np.float32)
    for user_QK, scores_N in zip(user_BQK, scores_BN, strict=True):
        user_KQ[:, :num_user_heads] = user_QK.T
        to = scores_N if scores_N.flags.c_contiguous else np.empty(num_scores, np.float32)
        score(*map(_address, (user_KQ, items_NGK, scales_N, rows_N, to)), num_scores, len(items_NGK) - 1)
        if to is not scores_N:
            scores_N[...] = to
    return scores_BN


def _filled(number: int, lanes: int) -> int:
    """Of so many numbers, how many registers of so many lanes hold: the next multiple."""
    return -(-number // lanes) * lanes


def _address(array: np.ndarray | None) -> int:
    return 0 if array is None else array.__array_interface__["data"][0]


@lru_cache
def _compiled(*kind) -> Callable:
    """The function that _write wrote for a kind; it is called without Python's lock."""
    with _one_at_a_time:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        target = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3
        )
        module = binding.parse_assembly(str(_write(*kind)))
        module.triple, module.data_layout = target.triple, str(target.target_data)
        passes = binding.create_pass_builder(target, binding.create_pipeline_tuning_options(speed_level=3))
        passes.getModulePassManager().run(module, passes)
        engine = binding.create_mcjit_compiler(module, target)
        engine.finalize_object()
        address = engine.get_function_address("score")
    arguments = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 2
    function = ctypes.CFUNCTYPE(None, *arguments)(address)
    function.engine = engine  # which owns the code
    return function


def _write(
    num_user_heads: int, num_heads: int, head_dim: int, dtype: str, has_scales: bool, has_rows: bool
) -> ir.Module:
    """score(user, items, scales, rows, out, number of scores, last row of the items), in LLVM's language.

    A user of several heads comes as (K, Q), filled up with heads of zeros to whole registers: a number of an item is
    multiplied by as many heads as a register has lanes. One of a single head comes as (K,), and lanes are its numbers.
    """
    stored, size = _STORED[dtype], np.dtype(dtype).itemsize
    # Sixteen where that leaves none of them idle; numbers that are widened first come eight at a time.
    lanes = 16 if stored is _FLOAT and _filled(num_user_heads, 16) == _filled(num_user_heads, 8) else 8
    vectors = -(-num_user_heads // lanes)
    vector = ir.VectorType(_FLOAT, lanes)
    item_bytes = num_heads * head_dim * size
    at_once = max(
        n for n in range(1, num_heads + 1) if num_heads % n == 0 and (n == 1 or n * head_dim * vectors <= UNROLLED)
    )

    module = ir.Module()
    signature = ir.FunctionType(ir.VoidType(), [_POINTER] * 5 + [_INT] * 2)
    function = ir.Function(module, signature, "score")
    user, items, scales, rows, out, num_scores, last_row = function.args
    code = ir.IRBuilder(function.append_basic_block())
    multiply_add = ir.Function(module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f32")
    add_lanes = ir.Function(module, ir.FunctionType(_FLOAT, [_FLOAT, vector]), f"llvm.vector.reduce.fadd.v{lanes}f32")
    prefetch = ir.Function(
        module, ir.FunctionType(ir.VoidType(), [_POINTER, *[ir.IntType(32)] * 3]), "llvm.prefetch.p0"
    )

    def load(kind: ir.Type, array: ir.Value, place: ir.Value, align: int) -> ir.Value:
        return code.load(code.gep(array, [place], source_etype=kind), typ=kind, align=align)

    def row_of(number: ir.Value) -> ir.Value:
        """Of a candidate; one that is beyond the items is their last, and never read beyond them."""
        row = load(_INT, rows, number, 8)
        return code.select(code.icmp_unsigned("<", row, last_row), row, last_row)

    def start_of(row: ir.Value) -> ir.Value:
        return code.gep(items, [code.mul(row, _INT(item_bytes))], source_etype=ir.IntType(8))

    def widened(count: int, item: ir.Value, place: ir.Value) -> ir.Value:
        """Numbers of an item from a place on, as float32: one, or as many as a register has."""
        kind, wide = (stored, _FLOAT) if count == 1 else (ir.VectorType(stored, count), vector)
        found = code.load(code.gep(item, [place], source_etype=stored), typ=kind, align=size)
        if stored is _FLOAT:
            return found
        return code.sitofp(found, wide) if dtype == "b" else code.fpext(found, wide)

    def everywhere(value: ir.Value, lane: int) -> ir.Value:
        """A register with one of its lanes in all of them."""
        return code.shuffle_vector(value, value, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [lane] * lanes))

    def larger(one: ir.Value, other: ir.Value) -> ir.Value:
        return code.select(code.fcmp_ordered(">", one, other), one, other)

    def total_of(sums: list[ir.Value]) -> ir.Value:
        total = reduce(code.fadd, sums)
        return total if total.type is _FLOAT else code.call(add_lanes, [_FLOAT(0.0), total], fastmath=("reassoc",))

    def products_of_heads(item: ir.Value, first: ir.Value) -> list[ir.Value]:
        """Of an item's head, whose first number stands there, with all of the user's: so many registers."""
        sums = [zeros] * vectors
        several = zeros
        for k in range(head_dim):
            place = code.add(first, _INT(k))
            if stored is _FLOAT or k >= whole:
                number = everywhere(code.insert_element(zeros, widened(1, item, place), ir.IntType(32)(0)), 0)
            else:
                several = several if k % lanes else widened(lanes, item, place)
                number = everywhere(several, k % lanes)
            for v in range(vectors):
                heads = load(vector, user, _INT(k * vectors + v), 4)
                sums[v] = code.call(multiply_add, [number, heads, sums[v]])
        return sums

    def product_of_vectors(item: ir.Value, first: ir.Value) -> list[ir.Value]:
        """Of an item's head, whose first number stands there, with the user's only one: a number."""
        sums = [zeros] * 4  # none waits for the one before
        for k in range(0, whole, lanes):
            numbers = widened(lanes, item, code.add(first, _INT(k)))
            of_user = code.load(code.gep(user, [_INT(k)], source_etype=_FLOAT), typ=vector, align=4)
            sums[k // lanes % 4] = code.call(multiply_add, [numbers, of_user, sums[k // lanes % 4]])
        total = total_of(sums)
        for k in range(whole, head_dim):
            number = widened(1, item, code.add(first, _INT(k)))
            total = code.fadd(total, code.fmul(number, load(_FLOAT, user, _INT(k), 4)))
        return [total]

    zeros, whole = ir.Constant(vector, [0.0] * lanes), head_dim - head_dim % lanes
    if num_user_heads == 1:
        products, kind, lowest = product_of_vectors, _FLOAT, _FLOAT(float("-inf"))
    else:
        products, kind, lowest = products_of_heads, vector, ir.Constant(vector, [float("-inf")] * lanes)
    best = [code.alloca(kind) for _ in range(vectors)]
    with _counted(code, num_scores) as number:
        row = number
        if has_rows:
            ahead = code.add(number, _INT(AHEAD))
            ahead = code.select(code.icmp_unsigned("<", ahead, num_scores), ahead, number)
            next_item = start_of(row_of(ahead))
            for byte in range(0, item_bytes, LINE):
                place = code.gep(next_item, [_INT(byte)], source_etype=ir.IntType(8))
                code.call(prefetch, [place, *map(ir.IntType(32), (0, 3, 1))])  # to be read, kept near, data
            row = row_of(number)
        item = start_of(row)
        for place in best:
            code.store(lowest, place)
        with _counted(code, _INT(num_heads // at_once)) as group:
            for head in range(at_once):
                first = code.mul(code.add(code.mul(group, _INT(at_once)), _INT(head)), _INT(head_dim))
                for place, product in zip(best, products(item, first), strict=True):
                    code.store(larger(code.load(place, typ=kind), product), place)
        score = total_of([code.load(place, typ=kind) for place in best])
        if has_scales:
            score = code.fmul(score, load(_FLOAT, scales, row, 4))
        code.store(score, code.gep(out, [number], source_etype=_FLOAT), align=4)
    code.ret_void()
    return module


@contextmanager
def _counted(code: ir.IRBuilder, times: ir.Value) -> Iterator[ir.Value]:
    """What is written within the block is done for 0, 1, ... of so many times, at least once."""
    before = code.block
    body, after = code.append_basic_block(), code.append_basic_block()
    code.branch(body)
    code.position_at_end(body)
    number = code.phi(_INT)
    number.add_incoming(_INT(0), before)
    yield number
    following = code.add(number, _INT(1))
    number.add_incoming(following, code.block)
    code.cbranch(code.icmp_unsigned("<", following, times), body, after)
    code.position_at_end(after)
