"""Where the time of a GRPO step goes, beside the floor: its floating-point operations at this machine's best speed.

    python -m bench.profile

One step of the work of `bench.grpo_step` runs under torch.profiler, after a warm-up and after steps without it, whose
time is the measurement. An operation's own time counts for the first group that fits: what runs in the head, in the
drawing of tokens or in the optimiser, attention, matrix products, any other operation. `rest` is what is left of the
step: Python, and what no operation reports.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench.common import Gauge, Measurement, Measurements, Record, apart, arguments, picked, prepared
from bench.grpo_step import GROUP, PROMPTS

SCOPES = {
    "head": ("sharpen.models.head:predict", "sharpen.models.head:Head.shifted", "sharpen.models.head:Head.exact"),
    "draw": ("sharpen.rollout.draw:draw", "sharpen.rollout.draw:cut"),
    "attention": ("sharpen.models.kernels:attend",),
    "elementwise": ("sharpen.models.kernels:add_norm", "sharpen.models.kernels:gate"),
}
"""Functions whose operations, or compiled loops, all count for one group."""

GROUPS = ("products", "attention", "elementwise", "head", "optimiser", "draw", "rest")
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::", "aten::mkldnn_")


class Shape(NamedTuple):
    """What of a model its operations are counted from."""

    body: int
    """Weights of all linear layers but the head."""
    head: int
    attention: int
    """Layers × query heads × head size."""


def group_of(names: Iterable[str]) -> str:
    """The group of an operation, from its name and those of what it ran in, innermost first; "" for a scope itself."""
    chain = list(names)
    for name in chain:
        if name in SCOPES:
            return name
        if "_HeadBackward" in name:
            return "head"
        if name.startswith("Optimizer.step"):
            return "optimiser"
    if any("scaled_dot_product" in name for name in chain):
        return "attention"
    if chain[0].startswith(PRODUCTS):
        return "products"
    return "elementwise" if "::" in chain[0] or "Backward" in chain[0] else ""


def flop(shape: Shape, prompts: Sequence[int], completions: Sequence[Sequence[int]]) -> dict[str, float]:
    """Operations of a step that computes each prompt once in sampling and once in training, and pads nothing.

    `completions` has the lengths of each prompt's. A product counts 2 operations a weight and token, its backward pass
    4; attention 4 a token and token seen, its backward pass 8. Logits are computed for sampled tokens only.
    """
    made = sum(map(sum, completions))
    tokens = sum(prompts) + made
    seen = sum(
        prompt * (prompt + 1) / 2 + sum(length * prompt + length * (length + 1) / 2 for length in lengths)
        for prompt, lengths in zip(prompts, completions, strict=True)
    )
    sampling = 2 * shape.body * tokens + 2 * shape.head * made + 4 * shape.attention * seen
    return {"sampling": sampling, "training": 3 * sampling}


def measure(model: str, dtype: Any, adapter: str, steps: int, max_tokens: int) -> Measurement:
    """Steps without and one with the profiler, in this process."""
    from bench.ours import learn, learner, sample, versions
    from sharpen.cli.machine import matmul_speed
    from sharpen.rollout.local import LocalSampler

    held = learner(model, dtype, adapter)
    sampler = LocalSampler(held.loaded.model, held.loaded.stop)
    rows = held.prompts((steps + 2) * PROMPTS)

    def step(number: int) -> tuple[Sequence[Any], Sequence[Any]]:
        chosen = rows[number * PROMPTS : (number + 1) * PROMPTS]
        segments = sample(sampler, chosen, GROUP, (0, number), max_tokens)
        learn(held, chosen, segments)
        return chosen, segments

    with Gauge(warmup=1) as gauge:
        for number in range(steps + 1):
            with gauge.step() as tokens:
                tokens += [segment.sampled for segment in step(number)[1]]
    seconds, groups, (chosen, segments) = _profiled(lambda: step(steps + 1))
    lengths = [[one.sampled for one in segments[place * GROUP : (place + 1) * GROUP]] for place in range(PROMPTS)]
    operations = flop(_shape(held.loaded.model), [len(prompt) for prompt in chosen], lengths)
    speed = matmul_speed()
    return gauge.measurement(
        versions(),
        profiled={"seconds": seconds, "tokens": sum(map(sum, lengths)), "groups": groups},
        floor={
            "flop": operations,
            "flop_per_second": speed.flops,
            "product_dtype": speed.dtype,
            "seconds": sum(operations.values()) / speed.flops,
        },
        **held.facts(),
    )


def _shape(model: Any) -> Shape:
    from torch import nn

    config, head = model.config, model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        body=sum(module.weight.numel() for module in linear),
        head=head.weight.numel(),
        attention=config.num_hidden_layers * config.num_attention_heads * size,
    )


def _profiled(work: Callable[[], Any]) -> tuple[float, dict[str, float], Any]:
    """Seconds of the work, its seconds by group, and what it returns."""
    from torch.profiler import ProfilerActivity, profile

    with _scoped(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        began = time.monotonic()
        result = work()
        seconds = time.monotonic() - began
    groups = dict.fromkeys(GROUPS, 0.0)
    for event in profiler.events():
        group = group_of(_chain(event))
        if group:
            groups[group] += event.self_cpu_time_total / 1e6
    groups["rest"] = seconds - sum(groups.values())
    return seconds, groups, result


def _chain(event: Any) -> Iterator[str]:
    while event is not None:
        yield event.name
        event = event.cpu_parent


@contextmanager
def _scoped() -> Iterator[None]:
    """Inside this block the functions of SCOPES announce themselves to the profiler, wherever they are imported."""
    from torch.profiler import record_function

    def announcing(function: Callable[..., Any], scope: str) -> Callable[..., Any]:
        def announced(*args: Any, **settings: Any) -> Any:
            with record_function(scope):
                return function(*args, **settings)

        return announced

    replaced = []
    for scope, places in SCOPES.items():
        for place in places:
            module, _, path = place.partition(":")
            *within, name = path.split(".")
            try:
                owner: Any = importlib.import_module(module)
            except ImportError:  # the compiled loops are optional
                continue
            for part in within:
                owner = getattr(owner, part)
            function: Callable[..., Any] = getattr(owner, name)
            holders = [held for key, held in sys.modules.items() if key.startswith("sharpen.")]
            for holder in [owner] if within else holders:
                if getattr(holder, name, None) is function:
                    replaced.append((holder, name, function))
                    setattr(holder, name, announcing(function, scope))
    try:
        yield
    finally:
        for holder, name, function in replaced:
            setattr(holder, name, function)


def ratio(ours: Measurements, _: Measurements) -> dict[str, Any]:
    """How many times the floor each step takes."""
    return {name: {"over_floor": one["median"] / one["floor"]["seconds"]} for name, one in ours.items()}


def main() -> None:
    """Measure, and print the document."""
    parser = arguments(__doc__)
    parser.add_argument("--adapter", choices=("full", "lora"), default="full")
    parser.add_argument("--steps", type=int, default=5, help="measured without the profiler")
    parser.add_argument("--max-tokens", type=int, default=128, help="of a completion")
    options = prepared(parser)
    record = Record(options, ratio)
    settings = picked(options, "model", "dtype", "adapter", "steps", "max_tokens")
    record.add("ours", options.adapter, apart("bench.profile:measure", **settings))
    record.finish()


if __name__ == "__main__":
    main()
