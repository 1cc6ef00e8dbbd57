"""What stands between a decoder's products, as compiled loops. Optional: they need numba, on Linux.

torch makes each of these in up to ten passes, whose calls alone cost more than the numbers when few rows decode.
bfloat16 travels as its bits, uint16. The loops run on torch's own threads: a second pool would fight the first for
the cores. Each row is computed by one thread, so the number of threads changes no result. All that is compiled stands
in this one file, as numba keeps what it compiled until the file of the loop itself changes.

Shapes: N rows, W width, H query heads, K key-value heads, D head size, I inner width; caches are (S, K, C, D).
"""

# mypy: ignore-errors
# The loops are in numba's language, which is not Python's; what callers see is annotated.

from __future__ import annotations

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic
from torch import Tensor

_FAST = {"contract", "reassoc", "arcp", "nsz"}  # sums may be taken in vectors; NaN and infinity stay what they are
_OPTIONS: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy"}
_SIGNATURE = types.void(types.CPointer(types.int64))
_PART = 32
"""Rows whose part of a weight's gradient is summed by itself, whatever the number of threads."""
_thread = types.ExternalFunction("sharpen_thread", types.int32())
_threads = types.ExternalFunction("sharpen_threads", types.int32())


class NoKernels(Exception):
    """The loops cannot run here."""


@cache
def _pool() -> Any:
    """The OpenMP library that torch runs on, told to the compiler. Raises NoKernels."""
    try:
        loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    except OSError as error:
        raise NoKernels("no /proc") from error
    own = [path for path in loaded if "torch" in path]
    if len(own) != 1:
        raise NoKernels(f"torch's libgomp is not to be found among {sorted(loaded)}")
    library = ctypes.CDLL(own[0])
    library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    library.GOMP_parallel.restype = None
    for name, function in (
        ("sharpen_thread", library.omp_get_thread_num),
        ("sharpen_threads", library.omp_get_num_threads),
    ):
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return library


def _run(loop: Any, items: int, *numbers: int) -> None:
    """Run a compiled loop over `items` on torch's threads."""
    given = np.array((items, *numbers), np.int64)
    _pool().GOMP_parallel(loop.address, given.ctypes.data, min(torch.get_num_threads(), items), 0)


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@njit(inline="always")
def _share(items):
    """This thread's part of so many items."""
    me, of = _thread(), _threads()
    return items * me // of, items * (me + 1) // of


@intrinsic
def _float_of(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic
def _bits_of(context: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@njit(inline="always")
def _wide(bits):
    """The number that bfloat16 bits are."""
    return _float_of(np.uint32(np.uint32(bits) << np.uint32(16)))


@njit(inline="always")
def _narrow(number):
    """A number's bits in bfloat16, rounded to nearest, ties to even."""
    bits = _bits_of(np.float32(number))
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@njit(inline="always")
def _exp(x):
    """exp of a float32, to 2 units in the last place: 2ⁿ · e^r with |r| ≤ ln 2 / 2, by the series of degree 6."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)  # ln 2 in two parts
    p = np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    return p * _float_of(np.uint32((np.int32(n) + np.int32(127)) << np.int32(23)))


@cache
def _add_norm():
    @cfunc(_SIGNATURE, cache=True, **_OPTIONS)
    def loop(given):
        rows, width, adds = given[0], given[1], given[2]
        stream = carray(_pointer(given[3]), (rows, width), np.float32)
        added = carray(_pointer(given[4]), (rows, width), np.uint16)
        weight = carray(_pointer(given[5]), (width,), np.float32)
        epsilon = carray(_pointer(given[6]), (1,), np.float32)[0]
        output = carray(_pointer(given[7]), (rows, width), np.uint16)
        first, last = _share(rows)
        for row in range(first, last):
            total = np.float32(0)
            if adds:
                for i in range(width):
                    stream[row, i] += _wide(added[row, i])
            for i in range(width):
                total += stream[row, i] * stream[row, i]
            scale = np.float32(1) / np.sqrt(total / np.float32(width) + epsilon)
            for i in range(width):
                output[row, i] = _narrow(stream[row, i] * scale * weight[i])

    return loop


@cache
def _gate():
    @cfunc(_SIGNATURE, cache=True, **_OPTIONS)
    def loop(given):
        rows, width = given[0], given[1]
        made = carray(_pointer(given[2]), (rows, 2 * width), np.uint16)
        output = carray(_pointer(given[3]), (rows, width), np.uint16)
        first, last = _share(rows)
        for row in range(first, last):
            for i in range(width):
                gate = _wide(made[row, i])
                acted = _wide(_narrow(gate / (np.float32(1) + _exp(-gate))))
                output[row, i] = _narrow(acted * _wide(made[row, width + i]))

    return loop


@cache
def _norm_back():
    @cfunc(_SIGNATURE, cache=True, **_OPTIONS)
    def loop(given):
        parts, rows, width = given[0], given[1], given[2]
        inputs = carray(_pointer(given[3]), (rows, width), np.float32)
        weight = carray(_pointer(given[4]), (width,), np.float32)
        epsilon = carray(_pointer(given[5]), (1,), np.float32)[0]
        d_output = carray(_pointer(given[6]), (rows, width), np.uint16)
        d_inputs = carray(_pointer(given[7]), (rows, width), np.float32)
        d_weight = carray(_pointer(given[8]), (parts, width), np.float32)
        first, last = _share(parts)
        for part in range(first, last):
            for i in range(width):
                d_weight[part, i] = 0
            for row in range(part * _PART, min(rows, (part + 1) * _PART)):
                total, along = np.float32(0), np.float32(0)
                for i in range(width):
                    total += inputs[row, i] * inputs[row, i]
                    along += inputs[row, i] * weight[i] * _wide(d_output[row, i])
                scale = np.float32(1) / np.sqrt(total / np.float32(width) + epsilon)
                along *= scale * scale / np.float32(width)
                for i in range(width):
                    slope = _wide(d_output[row, i])
                    d_inputs[row, i] = (slope * weight[i] - inputs[row, i] * along) * scale
                    d_weight[part, i] += slope * inputs[row, i] * scale

    return loop


@cache
def _gate_back():
    @cfunc(_SIGNATURE, cache=True, **_OPTIONS)
    def loop(given):
        rows, width = given[0], given[1]
        made = carray(_pointer(given[2]), (rows, 2 * width), np.uint16)
        d_output = carray(_pointer(given[3]), (rows, width), np.uint16)
        d_made = carray(_pointer(given[4]), (rows, 2 * width), np.uint16)
        first, last = _share(rows)
        for row in range(first, last):
            for i in range(width):
                gate, up, slope = _wide(made[row, i]), _wide(made[row, width + i]), _wide(d_output[row, i])
                share = np.float32(1) / (np.float32(1) + _exp(-gate))
                bend = share * (np.float32(1) + gate * (np.float32(1) - share))
                d_made[row, i] = _narrow(slope * up * bend)
                d_made[row, width + i] = _narrow(slope * gate * share)

    return loop


@cache
def _accumulate():
    @cfunc(_SIGNATURE, cache=True, **_OPTIONS)
    def loop(given):
        count = given[0]
        total = carray(_pointer(given[1]), (count,), np.float32)
        added = carray(_pointer(given[2]), (count,), np.uint16)
        first, last = _share(count)
        for i in range(first, last):
            total[i] += _wide(added[i])

    return loop


@cache
def _attention(group: int, size: int):
    """The loop for so many query heads a key-value head, and that head size: as constants they stay in registers."""
    half = size // 2

    @cfunc(_SIGNATURE, cache=True, **_OPTIONS)
    def loop(given):
        items, shared, columns, window = given[0], given[1], given[2], given[3]
        rows = items // shared
        slots = given[4]
        made = carray(_pointer(given[5]), (rows, (group + 2) * shared * size), np.uint16)
        cos = carray(_pointer(given[6]), (rows, half), np.float32)
        sin = carray(_pointer(given[7]), (rows, half), np.float32)
        keys = carray(_pointer(given[8]), (slots, shared, columns, size), np.float32)
        values = carray(_pointer(given[9]), (slots, shared, columns, size), np.float32)
        places = carray(_pointer(given[10]), (rows,), np.int64)
        scale = carray(_pointer(given[11]), (1,), np.float32)[0]
        output = carray(_pointer(given[12]), (rows, group * shared * size), np.uint16)
        query = np.empty((group, size), np.float32)
        result = np.empty((group, size), np.float32)
        scores = np.empty((group, columns), np.float32)
        begin, end = _share(items)
        for item in range(begin, end):
            row, head = item // shared, item % shared
            place = places[row]
            key, value = keys[row, head], values[row, head]
            at = (group * shared + head) * size
            for d in range(half):
                left, right = _wide(made[row, at + d]), _wide(made[row, at + half + d])
                key[place, d] = left * cos[row, d] - right * sin[row, d]
                key[place, half + d] = right * cos[row, d] + left * sin[row, d]
            at += shared * size
            for d in range(size):
                value[place, d] = _wide(made[row, at + d])
            for g in range(group):
                at = (head * group + g) * size
                for d in range(half):
                    left, right = _wide(made[row, at + d]), _wide(made[row, at + half + d])
                    query[g, d] = (left * cos[row, d] - right * sin[row, d]) * scale
                    query[g, half + d] = (right * cos[row, d] + left * sin[row, d]) * scale
            first = max(0, place - window + 1)
            seen = place + 1 - first
            key, value = key[first : place + 1], value[first : place + 1]  # indices that may be negative are slow
            for j in range(seen):
                for g in range(group):
                    product = np.float32(0)
                    for d in range(size):
                        product += query[g, d] * key[j, d]
                    scores[g, j] = product
            for g in range(group):
                peak = np.float32(-math.inf)
                for j in range(seen):
                    peak = max(peak, scores[g, j])
                total = np.float32(0)
                for j in range(seen):
                    scores[g, j] = _exp(scores[g, j] - peak)
                    total += scores[g, j]
                for j in range(seen):
                    scores[g, j] /= total
                for d in range(size):
                    result[g, d] = 0
            for j in range(seen):
                for g in range(group):
                    weight = scores[g, j]
                    for d in range(size):
                        result[g, d] += weight * value[j, d]
            for g in range(group):
                for d in range(size):
                    output[row, (head * group + g) * size + d] = _narrow(result[g, d])

    return loop


def add_norm(stream: Tensor, added: Tensor | None, weight: Tensor, epsilon: Tensor) -> Tensor:
    """Add bfloat16 (N, W) to the float32 stream (N, W) in place, where there is something to add; returns the RMS norm
    of the sum times `weight` (W,), in bfloat16. `weight` and `epsilon` (1,) are float32."""
    rows, width = stream.shape
    output = torch.empty((rows, width), dtype=torch.bfloat16)
    more = output if added is None else added
    _run(_add_norm(), rows, width, added is not None, *_places(stream, more, weight, epsilon, output))
    return output


def gate(made: Tensor) -> Tensor:
    """silu(gate) · up of bfloat16 (N, 2I), rounded after each as torch does: (N, I)."""
    rows, width = len(made), made.shape[1] // 2
    output = made.new_empty(rows, width)
    _run(_gate(), rows, width, *_places(made, output))
    return output


def norm_back(inputs: Tensor, weight: Tensor, epsilon: Tensor, d_output: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by inputs (N, W) and weight (W,), float32, of an RMS norm whose output's (N, W) is bfloat16."""
    rows, width = inputs.shape
    parts = -(-rows // _PART)
    d_inputs, d_weight = torch.empty_like(inputs), inputs.new_empty(parts, width)
    places = _places(inputs, weight, epsilon, d_output, d_inputs, d_weight)
    _run(_norm_back(), parts, rows, width, *places)
    return d_inputs, d_weight.sum(0)


def gate_back(made: Tensor, d_output: Tensor) -> Tensor:
    """The gradient by gate and up (N, 2I) of `gate`, whose output's is (N, I); all bfloat16."""
    d_made = torch.empty_like(made)
    _run(_gate_back(), len(made), made.shape[1] // 2, *_places(made, d_output, d_made))
    return d_made


def accumulate(total: Tensor, added: Tensor) -> None:
    """Add bfloat16 numbers to float32 ones in place."""
    _run(_accumulate(), total.numel(), *_places(total, added))


def attend(
    made: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    places: Tensor,
    scale: Tensor,
    window: int | None,
) -> Tensor:
    """Queries, keys and values of N rows' newest tokens, as one product made them (N, (H + 2K)·D) in bfloat16, to
    their attention (N, H·D) in bfloat16.

    Queries and keys are turned by cos and sin (N, D/2); row n's key and value are written to column `places[n]` of
    the caches, float32, and its queries see all columns up to it, or the last `window` of them. `scale` is (1,).
    """
    slots, shared, columns, size = keys.shape
    heads = made.shape[1] // size - 2 * shared
    output = made.new_empty(len(made), heads * size)
    _run(
        _attention(heads // shared, size),
        len(made) * shared,
        shared,
        columns,
        window or 2**62,
        slots,
        *_places(made, cos, sin, keys, values, places, scale, output),
    )
    return output


def here() -> bool:
    """Whether the loops can run with this torch, on this system."""
    try:
        _pool()
    except NoKernels:
        return False
    return True


def ready(*heads: int) -> bool:
    """Compile the loops, or load them; false where they cannot run.

    `heads` are query heads a key-value head, and head size: for the loop of attention.
    """
    if not here():
        return False
    try:
        _add_norm(), _gate(), _norm_back(), _gate_back(), _accumulate(), heads and _attention(*heads)
    except RuntimeError:  # numba finds no folder that it may keep the loops in
        return False
    return True


def _places(*tensors: Tensor) -> list[int]:
    """Where the tensors begin; they are dense."""
    assert all(tensor.is_contiguous() for tensor in tensors)
    return [tensor.data_ptr() for tensor in tensors]
