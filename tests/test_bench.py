"""What the benches compute from their measurements, and what they write of them; nothing is timed here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from bench import cost_ratio, profile, sampler, tables
from bench.common import Gauge, Measurement, Record, joined, machine
from bench.peer import against_best, best, wide

GB = 10**9


def measured(seconds: list[float], tokens: list[int], gigabytes: float, **more: Any) -> Measurement:
    """A measurement with steps of so many seconds and tokens."""
    gauge = Gauge()
    with gauge:
        gauge.seconds, gauge.tokens = seconds, tokens
    peaks = {"max_rss": 0, "proportional_tree": int(gigabytes * GB)}
    return {**gauge.measurement({"torch": "2"}), "others_cores": 0.0, "peak_memory_bytes": peaks, **more}


def trl(seconds: float, gigabytes: float, precision: str = "autocast") -> Measurement:
    return measured([seconds], [100], gigabytes, precision=precision, per_device=8)


def options(out: Path | None = None) -> argparse.Namespace:
    return argparse.Namespace(out=out, no_matrix_units=False)


def test_a_gauge_leaves_the_warm_up_out_and_takes_medians() -> None:
    with Gauge(warmup=1) as gauge:
        for made in (5, 10, 20, 60):
            with gauge.step() as tokens:
                tokens += [made - 1, 1]
    gauge.seconds = [100.0, 1.0, 2.0, 3.0]
    found = gauge.measurement({})
    assert found["tokens"] == [10, 20, 60]
    assert found["median"] == 2.0
    assert found["tokens_per_second"] == 10.0  # the median of 10, 10 and 20
    assert found["peak_memory_bytes"]["proportional_tree"] > 10**6


def test_rounds_are_joined_and_one_failed_fails_all() -> None:
    rounds = [measured([4.0], [8], 1.0), measured([1.0], [8], 3.0), measured([2.0], [8], 2.0)]
    found = joined(rounds)
    assert found["seconds"] == [4.0, 1.0, 2.0]
    assert (found["median"], found["tokens_per_second"]) == (2.0, 4.0)
    assert found["peak_memory_bytes"]["proportional_tree"] == 3 * GB
    assert joined([*rounds, {"failed": "why"}]) == {"failed": "why"}


def test_the_peers_best_is_chosen_separately_for_time_and_memory_among_float32_weights() -> None:
    peer = {"4": trl(90, 5), "8": trl(80, 6), "64": trl(100, 20), "bf16": trl(50, 4, "bfloat16")}
    assert best(wide(peer)) == {"seconds": "8", "memory": "4"}
    ours = {"full": measured([10.0], [50], 4.0), "lora": measured([8.0], [50], 3.0)}
    ratio = against_best(ours, peer)
    assert ratio["full"] == {"seconds": 8.0, "tokens_per_second": 5 / (100 / 80), "memory": 4 / 5}
    assert ratio["lora_over_full"] == 10 / 8


def test_without_a_peer_only_our_own_ratio_is_there() -> None:
    ours = {"full": measured([10.0], [50], 4.0), "lora": measured([8.0], [50], 3.0)}
    assert against_best(ours, {}) == {"lora_over_full": 1.25}


def test_a_record_keeps_what_its_file_has_and_replaces_what_is_measured_again(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    first = Record(options(out), against_best)
    first.add("ours", "full", measured([10.0], [50], 4.0))
    first.add("peer", "8", trl(80, 6))
    second = Record(options(out), against_best)
    second.add("peer", "4", {"failed": "killed"})
    second.add("peer", "8", trl(60, 6))
    document = json.loads(out.read_text())
    assert document["ratio"]["full"]["seconds"] == 6.0
    assert document["peer"]["4"] == {"failed": "killed"}
    assert document["tokens"] == {"ours": {"full": [50]}, "peer": {"8": [100]}}
    assert document["peak_memory"]["ours"] == {"full": 4 * GB}
    assert {"load_average", "versions", "machine", "command"} <= document.keys()
    with pytest.raises(SystemExit) as end:
        second.finish()
    assert end.value.code  # one of this call's measurements failed


def test_figures_of_another_machine_are_not_mixed_in(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    Record(options(out), against_best).add("ours", "full", measured([10.0], [50], 4.0))
    document = json.loads(out.read_text())
    document["machine"]["cpu"] = "another"
    out.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match="another machine"):
        Record(options(out), against_best)


def test_a_busy_machine_is_warned_about(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.0, 0.0))
    Record(options(), against_best)
    assert "busy" not in capsys.readouterr().err
    monkeypatch.setattr("os.getloadavg", lambda: (1.5, 0.0, 0.0))
    Record(options(), against_best)
    assert "busy (load 1.50)" in capsys.readouterr().err


def test_without_matrix_units_the_machine_has_none() -> None:
    assert machine(no_matrix_units=True)["bf16"] == "none"
    assert machine()["bf16"] in ("amx", "avx512_bf16", "none")


def test_queued_lengths_are_spread_evenly_over_their_logarithm() -> None:
    lengths = sampler.limits(4096)
    assert lengths == sampler.limits(4096)
    assert (min(lengths), max(lengths)) == (8, 256)
    for low in (8, 16, 32, 64, 128):  # a fifth of them in each doubling
        assert 0.17 < sum(low <= length < 2 * low for length in lengths) / len(lengths) < 0.23


def test_the_sampler_is_compared_with_the_better_type_of_generate() -> None:
    ours = {"steady": measured([1.0], [1000], 1), "queue": measured([1.0], [900], 1), "alone": measured([1.0], [50], 1)}
    peer = {"steady, bfloat16": measured([1.0], [100], 1), "steady, float32": measured([1.0], [200], 1)}
    ratio = sampler.ratio(ours, peer)
    assert ratio["steady"] == {"ratio": 5.0, "peer_best": "float32"}
    assert ratio["queue_over_steady"] == 0.9
    assert ratio["alone_ms_per_token"] == 20.0


def test_the_cost_ratio_is_a_prompts_cost_over_an_examples() -> None:
    rft = measured([16.0], [1], 1, core_seconds=[24.0], unit="prompt", units_per_step=8)
    sft = measured([4.0], [1], 1, core_seconds=[4.0], unit="example", units_per_step=16)
    assert cost_ratio.ratio({"rft": rft, "sft": sft}, {}) == {"seconds": 8.0, "core_seconds": 12.0}
    assert cost_ratio.ratio({"rft": rft}, {}) == {}


def test_the_floor_counts_each_prompt_once_and_logits_of_sampled_tokens_only() -> None:
    # One prompt of 2 tokens, completions of 1 and 2: 5 tokens, 3 of them sampled. Tokens seen: 1 + 2 by the prompt,
    # 3 by the first completion, 3 + 4 by the second.
    found = profile.flop(profile.Shape(body=10, head=100, attention=1000), [2], [[1, 2]])
    assert found["sampling"] == 2 * 10 * 5 + 2 * 100 * 3 + 4 * 1000 * (3 + 3 + 7)
    assert found["training"] == 3 * found["sampling"]


@pytest.mark.parametrize(
    ("chain", "group"),
    [
        (["aten::mm", "aten::linear", "sample"], "products"),
        (["mkldnn::_linear_pointwise"], "products"),
        (["aten::mm", "aten::matmul", "head"], "head"),
        (["aten::mm", "_HeadBackward", "autograd::engine::evaluate_function: _HeadBackward"], "head"),
        (["aten::bmm", "aten::_scaled_dot_product_attention_math"], "attention"),
        (["aten::cumsum", "draw"], "draw"),
        (["aten::_fused_adamw_", "Optimizer.step#AdamW.step"], "optimiser"),
        (["aten::mul"], "elementwise"),
        (["PythonSubclass"], ""),
    ],
)
def test_an_operation_counts_for_the_group_it_ran_in(chain: list[str], group: str) -> None:
    assert profile.group_of(chain) == group


def test_the_functions_that_the_profile_tells_apart_exist_and_come_back() -> None:
    from sharpen.models.head import Head
    from sharpen.rollout import draw, local

    before = draw.draw, Head.shifted
    with profile.scoped():
        assert local.__dict__["draw"] is not before[0] and Head.shifted is not before[1]
    assert (local.__dict__["draw"], Head.shifted) == before


def test_every_kind_of_table_shows_its_figures_and_its_command() -> None:
    record = Record(options(), against_best)
    record.add("ours", "full", measured([10.0], [50], 4.0))
    record.add("peer", "autocast, per_device 8", trl(80, 6))
    record.add("peer", "autocast, per_device 64", {"failed": "it ended with -9", "precision": "autocast"})
    document = {**record.document(), "command": ["python -m bench.x"]}
    text = tables.steps(document)
    assert "| sharpen | full | 10.00 | 5 | 4.0 GB |" in text
    assert "failed: it ended with -9" in text and "**8.0×**" in text and "67 %" in text
    assert "`python -m bench.x`, on" in text
    assert "| **8.0×** |" in tables.grpo_short(document)
    entry = {"name": "n", "predicted": "2×", "measured": "1.5×", "command": "c", "machine": "m", "note": ""}
    assert "| n | 2× | 1.5× | `c` | m |  |" in tables.gains([entry])
