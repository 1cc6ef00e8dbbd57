"""The memory arithmetic: against peaks that were measured, against numbers worked by hand, and in how it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from sharpen.config.adapters import Lora
from sharpen.config.stages import RFT, SFT, Sampling
from sharpen.models import fits, fused, head
from sharpen.models.bases import BASES, Shape
from sharpen.models.fits import METHODS, Method, Needs, Work, needs, verdict
from tests.models.measure_memory import ANSWER, FILE, PROMPT, ROWS
from tests.models.shapes import config_of

BENCH = Path(__file__).parents[2] / "bench"
SMALL = BASES["smollm2-135m-instruct"].shape
BY_NAME = {method.name: method for method in METHODS}
SFT_ALL, SFT_LORA, SFT_QLORA, RFT_ALL, RFT_LORA = METHODS
SHAPE = Shape("llama", 2, 8, 16, 2, 1, 4, 100, tied=True)
"""P = 100·8 + 2·8·4·2·3 + 2·3·8·16 = 800 + 384 + 768 = 1,952 numbers, of which 1,152 in linear layers."""

MEASURED: dict[str, dict[str, Any]] = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", MEASURED)
def test_whole_runs_peak_within_a_quarter_of_it(name: str) -> None:
    run = MEASURED[name]
    method = BY_NAME[run["stage"] + ("" if run["trains"] == "full" else f"_{run['trains']}")]
    work = Work(rows=ROWS, length=PROMPT + ANSWER)
    found = needs(BASES[run["model"]].shape, method, narrow=run["dtype"] == "bfloat16", work=work)
    assert found.total == pytest.approx(run["peak_bytes"], rel=0.25)


@pytest.mark.parametrize(
    ("file", "side", "method", "work"),
    [
        ("sft", "full", SFT_ALL, Work()),
        ("sft", "lora", SFT_LORA, Work()),
        ("grpo_step", "full", RFT_ALL, Work(rows=64, length=128 + 45)),
        ("grpo_step", "lora", RFT_LORA, Work(rows=64, length=128 + 45)),
        ("grpo_step_no_matrix_units", "full", RFT_ALL, Work(rows=64, length=128 + 45)),
        ("long_context", "full", SFT_ALL, Work(tokens=8192)),
    ],
)
def test_the_benches_peak_within_a_quarter_of_it(file: str, side: str, method: Method, work: Work) -> None:
    measured = json.loads((BENCH / f"{file}.json").read_text())["ours"][side]
    found = needs(SMALL, method, narrow=measured["dtype"] == "torch.bfloat16", work=work)
    assert found.total == pytest.approx(measured["peak_memory_bytes"]["max_rss"], rel=0.25)


def test_the_parts_are_those_worked_by_hand() -> None:
    """In bfloat16, one microbatch of 10 tokens, 4 completions of 5 tokens, rank 2."""
    work = Work(tokens=10, rows=4, length=5, rank=2)
    layer = 10 * (12 * 8 + 2 * 4 * (2 * 2 + 2 * 1) + 3 * 2 * 16)
    scores = 100 * (2 * 10 + 3 * 4 * 128)
    adapter = 2 * 2 * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 16))
    full = needs(SHAPE, RFT_ALL, narrow=True, work=work)
    assert full.weights == 2 * 1952
    assert full.training == 16 * 1952
    assert full.activations == 2 * layer
    assert full.head == scores + 3 * 2 * 100 * 8
    assert full.sampler == 2 * 1152 + 4 * 5 * 2 * 1 * 4 * 8 + 3 * 4 * 4 * 100
    lora = needs(SHAPE, SFT_LORA, narrow=True, work=work)
    assert lora.training == 16 * adapter
    assert lora.activations == 2 * (layer + 10 * 2 * (4 * (2 + 2 * 1) + 2 * 8 + 2 * 16))
    assert lora.head == scores + 2 * 100 * 8
    assert lora.sampler == 0
    wide = needs(SHAPE, RFT_ALL, narrow=False, work=work)
    assert (wide.weights, wide.training) == (4 * 1952, 12 * 1952)
    assert wide.sampler == 4 * 5 * 2 * 1 * 4 * 8 + 3 * 4 * 4 * 100
    assert full.total == round(sum(full))


def test_normalised_queries_and_keys_are_held_twice() -> None:
    work = Work(tokens=10)
    plain, normed = (
        needs(Shape(kind, 2, 8, 16, 2, 1, 4, 100, tied=True), SFT_ALL, narrow=True, work=work)
        for kind in ("qwen2", "qwen3")
    )
    assert normed.activations - plain.activations == 2 * 10 * 2 * 4 * (2 + 1)


def test_a_base_of_four_bits_is_that_of_the_paper() -> None:
    """QLoRA's section 3: 4 bits, and 0.127 for constants that are quantised themselves."""
    assert pytest.approx((4 + 0.127) / 8, abs=5e-4) == fits.FOUR_BITS
    lora, qlora = (needs(SHAPE, method, narrow=True) for method in (SFT_LORA, SFT_QLORA))
    assert lora.weights - qlora.weights == pytest.approx((2 - fits.FOUR_BITS) * 1152)
    assert lora._replace(weights=0) == qlora._replace(weights=0)


def test_a_large_base_is_whole_before_it_is_in_four_bits() -> None:
    """Read in, and merged at the end, when nothing is held for training."""
    shape = BASES["llama-3.1-8b-instruct"].shape
    assert needs(shape, SFT_QLORA, narrow=True).total == 2 * shape.parameters + fits.PROCESS


@pytest.mark.parametrize(("name", "percent"), [("smollm2-135m-instruct", 3.5), ("llama-3.1-8b-instruct", 0.52)])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_the_trained_share_is_that_of_a_real_model(name: str, percent: float, dora: bool) -> None:
    """Counted by transformers and peft, on a model that takes no memory."""
    shape = BASES[name].shape
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(shape))
        adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", use_dora=dora))
    count, whole = adapted.get_nb_trainable_parameters()
    assert fits.adapter_numbers(shape, 16, dora=dora) == count
    share = fits.trained_share(shape, SFT_LORA, dora=dora)
    assert share == pytest.approx(count / whole, rel=2e-3) and (dora or 100 * share == pytest.approx(percent, abs=0.05))
    assert fits.trained_share(shape, SFT_ALL) == 1
    page = (BENCH.parent / "docs/adapters.md").read_text("utf-8")
    assert f" | {count:,} | {100 * count / whole:.2f} % |" in page


def test_beyond_what_layers_may_hold_they_hold_their_stream_only() -> None:
    shape = BASES["smollm2-1.7b-instruct"].shape
    most = int(fits.HELD_BYTES / (34 * shape.width * shape.layers))
    below, above = (needs(shape, SFT_ALL, narrow=True, work=Work(tokens=most + more)) for more in (0, 1))
    assert above.activations < below.activations / 5
    own = Shape(**{**{name: getattr(shape, name) for name in shape.__slots__}, "kind": "gemma3_text"})
    assert needs(own, SFT_ALL, narrow=True).activations > fits.HELD_BYTES


@pytest.mark.parametrize("shape", [base.shape for base in BASES.values()], ids=BASES)
def test_adapters_take_less_than_all_weights_and_sampling_takes_more_than_none(shape: Shape) -> None:
    for narrow in (True, False):
        totals = {method.name: needs(shape, method, narrow=narrow).total for method in METHODS}
        assert totals["sft_qlora"] < totals["sft_lora"] < totals["sft"] < totals["rft"]
        assert totals["sft_lora"] < totals["rft_lora"] < totals["rft"]


def test_a_mixture_holds_all_experts_and_computes_a_few() -> None:
    dense = Shape("gpt_oss", 2, 8, 16, 2, 1, 4, 100, tied=False)
    mixture = Shape("gpt_oss", 2, 8, 16, 2, 1, 4, 100, tied=False, experts=8, active=1)
    one, many = (needs(shape, SFT_LORA, narrow=True) for shape in (dense, mixture))
    assert many.weights - one.weights == 2 * 7 * 2 * 3 * 8 * 16
    assert many.activations == one.activations


@pytest.mark.parametrize(("needed", "expected"), [(8.0, "yes"), (8.1, "tight"), (10.0, "tight"), (10.1, "no")])
def test_it_fits_where_a_fifth_of_the_memory_is_left(needed: float, expected: str) -> None:
    assert verdict(needed, 10.0) == expected


def test_the_defaults_and_constants_are_those_of_the_code_they_speak_of() -> None:
    rows = RFT.model_fields["prompts_per_step"].default * RFT.model_fields["group_size"].default
    tokens = SFT.model_fields["tokens_per_microbatch"].default
    assert Work() == Work(tokens=tokens, rows=rows, rank=Lora().rank) and Work().length == 128 + Sampling().max_tokens
    assert fits.HELD_BYTES == fused.HELD_BYTES
    assert (fits.CHUNK, fits.BLOCK) == (head.CHUNK, head.BLOCK)
    kinds = {"".join(part.capitalize() for part in kind.split("_")) + "DecoderLayer" for kind in fits.FUSED}
    assert kinds == set(fused._LAYERS)
    assert Needs(1, 1, 1, 1, 1).process == fits.PROCESS
