"""How much memory training a model takes, from its shape: the arithmetic behind "fits here?". Imports no torch.

Letters as in `bases.Shape`; P numbers in all matrices, of which Q in linear layers; b bytes a number that computes,
2 in bfloat16 and 4 in float32. Peaks of real runs are within a quarter of what this says (`tests/models/test_fits.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from sharpen.models.bases import Shape

PROCESS = 0.9e9
"""Python, torch, transformers, the code oneDNN makes, and what the allocator keeps; measured."""

HELD_BYTES = 3 * 2**30
"""`models.fused`: beyond this, layers are computed again in the backward pass."""

CHUNK, BLOCK = 128, 1024
"""`models.head`: predictions whose logits are float32 at one time, and whose gradients are."""

FUSED = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
"""Kinds whose layers are computed in few passes (`models.fused`); others run their own code."""

HEAD_NORMS = ("qwen3", "qwen3_moe")
"""Fused kinds whose queries and keys are normalised."""

FOUR_BITS = 0.516
"""Bytes a number of a 4-bit base: 4 bits, and 8-bit scales of 64 numbers with a float32 for 256 of those
(arXiv:2305.14314, section 3)."""

Verdict = Literal["yes", "tight", "no"]
ROOM = 0.8
"""A method that takes more than this share of the memory is tight: the system and other programs want some too."""


class Work(NamedTuple):
    """What a step holds at one time; the defaults are a recipe's."""

    tokens: int = 1024
    """Tokens of a microbatch."""

    rows: int = 128
    """Completions side by side."""

    length: int = 256
    """Tokens of each, with its prompt."""

    rank: int = 16
    """Of an adapter, on all linear layers."""


DEFAULTS = Work()


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train."""

    name: str
    title: str
    trains: Literal["all", "lora", "qlora"]
    samples: bool = False


METHODS = (
    Method("sft", "SFT", "all"),
    Method("sft_lora", "LoRA", "lora"),
    Method("sft_qlora", "QLoRA", "qlora"),
    Method("rft", "RFT", "all", samples=True),
    Method("rft_lora", "RFT, LoRA", "lora", samples=True),
)


class Needs(NamedTuple):
    """What is in memory at the peak, in bytes."""

    weights: float
    training: float
    """Master weights, both moments of Adam, gradients."""

    activations: float
    head: float
    sampler: float
    process: float = PROCESS

    @property
    def total(self) -> int:
        """All of it."""
        return round(sum(self))


def needs(shape: Shape, method: Method, *, narrow: bool, work: Work = DEFAULTS) -> Needs:
    """What a method takes at a recipe's defaults; `narrow` where bfloat16 is multiplied in hardware, else float32."""
    number = 2 if narrow else 4
    found = Needs(
        weights=_weights(shape, method, number),
        training=_training(shape, method, narrow, work),
        activations=_activations(shape, method, number, work),
        head=_head(shape, method, number, work),
        sampler=_sampler(shape, narrow, work) if method.samples else 0.0,
    )
    room = sum(found) - found.process - found.weights
    return found._replace(weights=max(found.weights, number * shape.parameters - room))


def verdict(needed: float, memory: float) -> Verdict:
    """Whether that fits into so many bytes."""
    return "yes" if needed <= ROOM * memory else "tight" if needed <= memory else "no"


def _weights(shape: Shape, method: Method, number: int) -> float:
    """b·P; with a 4-bit base, all but the embeddings in 4 bits.

    It is whole all the same while it is read in, and when it is merged at the end. Then nothing is held for training,
    so only for large models is that more: `needs` has the larger of the two.
    """
    packed = shape.attention + shape.inside if method.trains == "qlora" else 0
    return number * (shape.parameters - packed) + FOUR_BITS * packed


def _training(shape: Shape, method: Method, narrow: bool, work: Work) -> float:
    """Adam's moments and a gradient in float32, 12 bytes a trained number, and 4 more for its master where it computes
    in bfloat16; adapters are float32 themselves."""
    if method.trains == "all":
        return (16 if narrow else 12) * shape.parameters
    return 16 * adapter_numbers(shape, work.rank)


def adapter_numbers(shape: Shape, rank: int, *, dora: bool = False) -> int:
    """r·(inputs + outputs) of every linear layer, and with DoRA one for each output."""
    width, query, key = shape.width, shape.heads * shape.head_size, shape.shared_heads * shape.head_size
    sides = 2 * (width + query) + 2 * (width + key)
    outputs = query + 2 * key + width
    if shape.experts == 1:
        sides += 3 * (width + shape.inner)
        outputs += 2 * shape.inner + width
    return shape.layers * (rank * sides + (outputs if dora else 0))


def trained_share(shape: Shape, method: Method, work: Work = DEFAULTS, *, dora: bool = False) -> float:
    """The share of all numbers, the adapter's among them, that a method trains."""
    if method.trains == "all":
        return 1.0
    numbers = adapter_numbers(shape, work.rank, dora=dora)
    return numbers / (shape.parameters + numbers)


def _activations(shape: Shape, method: Method, number: int, work: Work) -> float:
    """What layers hold for the backward pass.

    A layer saves its stream twice in float32 and twice normalised, queries, keys, values, what attention gives, gate
    and up and their product: (8 + 2b)·W + b·D·(2H + 2K) + 3b·I bytes a token; queries and keys twice where a norm
    follows them. With an adapter the outputs of linear layers, b·(D·(H + 2K) + 2W + 2I), are there once more: they are
    added to, and the holes they leave are not filled. Beyond `HELD_BYTES` a layer of a fused kind holds its stream
    only, and one layer at a time all of that.
    """
    keys, inner = shape.head_size * shape.shared_heads, shape.inner * shape.active
    queries = shape.head_size * shape.heads
    a_token = (8 + 2 * number) * shape.width + number * (2 * queries + 2 * keys + 3 * inner)
    if shape.kind in HEAD_NORMS:
        a_token += number * (queries + keys)
    if method.trains != "all":
        a_token += number * (queries + 2 * keys + 2 * shape.width + 2 * inner)
    a_layer = work.tokens * a_token
    if shape.kind not in FUSED:
        return OWN_CODE * a_layer * shape.layers
    if 34 * work.tokens * shape.width * shape.layers > HELD_BYTES:
        return 4 * work.tokens * shape.width * shape.layers + a_layer
    return a_layer * shape.layers


OWN_CODE = 2.0
"""What layers of transformers' own code hold, beside those of a fused kind; measured on Gemma 3."""


def _head(shape: Shape, method: Method, number: int, work: Work) -> float:
    """The head laid out (b·V·W, in bfloat16), the gradients of a block's logits, a chunk of logits in float32, and
    where the head is trained its own gradient, twice while blocks are added up."""
    copies = (1 if number == 2 else 0) + (2 if method.trains == "all" else 0)
    predictions = min(work.tokens, BLOCK)
    return shape.vocabulary * (number * predictions + 3 * 4 * CHUNK + copies * number * shape.width)


def _sampler(shape: Shape, narrow: bool, work: Work) -> float:
    """Linear weights laid out once more (2·Q, in bfloat16), keys and values in float32 (rows · length · 8·L·K·D), and
    three matrices of scores (rows × V) in float32."""
    held = work.rows * work.length * 8 * shape.layers * shape.shared_heads * shape.head_size
    return (2 * shape.linear if narrow else 0) + held + 3 * 4 * work.rows * shape.vocabulary
