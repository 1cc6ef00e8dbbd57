"""Exports of tiny models in every form; a damaged one is never published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sharpen.cli.main import main
from sharpen.errors import ModelError, RunError, SharpenError
from sharpen.export import export as work
from sharpen.export import files, gguf, ollama, proof
from sharpen.export.order import Order
from sharpen.export.source import Source, find
from tests.export.worlds import adapted_run, byte_model

TARGETS = ("hf", "merged", "peft", "gguf", "ollama")


def quiet(line: str) -> None:
    """For what is said on the way."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return adapted_run(folder, byte_model(folder / "model"))


@pytest.fixture
def source(run: Path) -> Source:
    return find(str(run / "models/sft"), quiet)


def made(source: Source, target: str, out: Path, kind: str = "f16") -> work.Done:
    return work.export(source, Order(target, out, kind), quiet)


@pytest.mark.parametrize("target", TARGETS)
def test_every_form_is_written_and_proven(
    target: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    out = tmp_path / "out"
    capsys.readouterr()
    assert main(["export", str(run), "--to", target, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"Export   {out}" in said and "Chat template and tokens are the same" in said
    assert "llama-quantize" not in said
    proof = json.loads((out / "proof.json").read_text("utf-8"))
    assert proof["passed"] and (proof["schema_version"], proof["target"]) == (1, target)
    for name, digest in proof["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    expected = {
        "hf": {"model.safetensors", "tokenizer.json", "adapter/adapter_model.safetensors"},
        "merged": {"model.safetensors", "tokenizer.json"},
        "peft": {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"},
        "gguf": {"run-sft-F16.gguf"},
        "ollama": {"run-sft-F16.gguf", "Modelfile"},
    }[target]
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there >= expected | {"README.md", "proof.json", "lineage.json", "manifest.json"}
    assert ("adapter/adapter_config.json" in there) == (target == "hf")
    assert (out / "lineage.json").read_bytes() == (run / "models/sft/lineage.json").read_bytes()
    assert not list(tmp_path.glob(".*"))  # nothing is left aside


def test_an_adapter_names_what_it_was_trained_on_and_peft_finds_it(source: Source, run: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    made(source, "peft", tmp_path / "out")
    settings = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(run.parent / "model")
    found = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").merge_and_unload()
    wanted = load_file(run / "models/sft/model.safetensors")
    for name, weight in found.state_dict().items():
        if name in wanted:
            assert torch.allclose(weight, wanted[name], atol=1e-6), name


def test_an_adapter_on_the_model_of_another_stage_names_that_folder(tmp_path: Path) -> None:
    lora = {"type": "lora", "rank": 2}
    stages = ({"type": "sft", "name": "first"}, {"type": "sft", "name": "second", "adapter": lora})
    run = adapted_run(tmp_path, byte_model(tmp_path / "model"), *stages, dtype="bfloat16")
    source = find(str(run / "models/second"), quiet)
    done = made(source, "peft", tmp_path / "out")
    settings = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(run / "models/first")
    assert any("others need that folder" in note for note in done.notes)


def test_an_adapter_over_4_bits_is_proven_on_a_base_of_4_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    stage = {"type": "sft", "adapter": {"type": "qlora", "rank": 4}}
    run = adapted_run(tmp_path, byte_model(tmp_path / "model", hidden_size=64, head_dim=16), stage)
    source = find(str(run / "models/sft"), quiet)
    done = made(source, "peft", tmp_path / "out")
    assert all(check.passed for check in done.checks)
    assert "rounded to 4 bits" in json.loads((tmp_path / "out/proof.json").read_text())["how"]
    assert source.lineage
    source.lineage["adapter"]["settings"]["type"] = "lora"  # as if it had been trained on dense weights
    with pytest.raises(ModelError, match="does not compute what the model does"):
        made(source, "peft", tmp_path / "other")


Damage = Callable[[Path], None]


def _weight(folder: Path, name: str = "model.safetensors") -> None:
    state = load_file(folder / name)
    key = next(key for key in sorted(state) if "down_proj" in key or "lora_B" in key)
    state[key] = state[key] + 0.5
    save_file(state, folder / name, metadata={"format": "pt"})


def _adapter(folder: Path) -> None:
    _weight(folder, "adapter_model.safetensors")


def _template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + " ")


def _tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][5:]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("target", "writer", "damage", "missed"),
    [
        ("hf", "whole", _weight, "greedy steps that differ"),
        ("merged", "whole", _weight, "greedy steps that differ"),
        ("merged", "whole", _template, "sha256 of the chat template"),
        ("merged", "whole", _tokens, "texts with other tokens"),
        ("peft", "adapter", _adapter, "greedy steps that differ"),
    ],
)
def test_a_damaged_export_is_not_published(
    target: str,
    writer: str,
    damage: Damage,
    missed: str,
    source: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = getattr(files, writer)

    def spoil(source: Source, folder: Path, *others: Any) -> None:
        write(source, folder, *others)
        damage(folder)

    monkeypatch.setattr(files, writer, spoil)
    with pytest.raises(ModelError, match=missed) as caught:
        made(source, target, tmp_path / "out")
    assert "must be" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_a_gguf_with_rows_in_another_order_is_not_published(
    kind: str, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gguf, "permuted", lambda weight, heads: weight)
    command = ["export", str(source.folder), "--to", "gguf", "--quantize", kind, "--out", str(tmp_path / "out")]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "mean KL in nats" in told and "must be at most" in told
    assert not list(tmp_path.iterdir())


def test_a_gguf_with_one_weight_altered_is_not_published(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = gguf._reader

    def wrong(path: Path, key: str, heads: int | None) -> Any:
        read = right(path, key, heads)
        return (lambda: read() + 0.3) if key == "model.layers.1.mlp.down_proj.weight" else read

    monkeypatch.setattr(gguf, "_reader", wrong)
    with pytest.raises(ModelError, match="likeliest token"):
        made(source, "gguf", tmp_path / "out")


def test_a_wrong_template_for_ollama_is_not_published(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ollama.template
    monkeypatch.setattr(ollama, "template", lambda render: right(render).replace("<|im_end|>\n", "<|im_end|>"))
    with pytest.raises(ModelError, match="conversations that the TEMPLATE makes other tokens of 14 of 14"):
        made(source, "ollama", tmp_path / "out")


def test_the_modelfile_has_what_ollama_needs(source: Source, tmp_path: Path) -> None:
    led = Source(source.folder, source.name, source.base, source.run, source.lineage, "Answer with a number.")
    made(led, "ollama", tmp_path / "out")
    lines = (tmp_path / "out/Modelfile").read_text("utf-8")
    assert lines.startswith("FROM ./run-sft-F16.gguf\n")
    assert 'PARAMETER stop "<|im_end|>"' in lines and 'SYSTEM """Answer with a number."""' in lines


def test_the_card_says_where_the_model_is_from_and_what_it_is_worth(source: Source, run: Path, tmp_path: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    result = {"score": 0.5, "ci95": [0.4, 0.6], "n": 100}
    better = {**result, "score": 0.75, "ci95": [0.66, 0.83], "vs_previous": {"delta": 0.25, "ci95": [0.15, 0.35]}}
    summary["base"]["evals"] = {"held_out": result}
    summary["stages"][0]["evals"] = {"held_out": better}
    before = (run / "summary.json").read_text()
    (run / "summary.json").write_text(json.dumps(summary))
    known = Source(source.folder, source.name, "smollm2-135m-instruct", source.run, source.lineage, "")
    try:
        made(known, "merged", tmp_path / "out")
    finally:
        (run / "summary.json").write_text(before)
    text = (tmp_path / "out/README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (facts["license"], facts["library_name"]) == ("apache-2.0", "transformers")
    assert "sft" in facts["tags"]
    assert "| sft | 75.0% | [66.0, 83.0] | +25.0 | [+15.0, +35.0] |" in body
    assert "└─ sft, sft" in body and "LoRA rank 4 on attention" in body
    assert "greedy steps that differ" in body
    assert str(run.parent) not in body  # no paths of this machine


def test_a_model_without_lineage_or_run_is_exported_too(tmp_path: Path) -> None:
    source = find(str(byte_model(tmp_path / "alone")), quiet)
    done = made(source, "merged", tmp_path / "out")
    assert any("no adapter to merge" in note for note in done.notes)
    assert not (tmp_path / "out/lineage.json").exists()


def test_a_reward_model_goes_to_a_transformers_folder_alone(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    folder = byte_model(tmp_path / "judge")
    config = LlamaConfig(**{**json.loads((folder / "config.json").read_text()), "num_labels": 1, "pad_token_id": 0})
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    source = find(str(folder), quiet)
    done = made(source, "hf", tmp_path / "out")
    assert done.checks[0].name == "largest difference of scores" and done.checks[0].passed
    for target in ("peft", "merged", "gguf", "ollama"):
        with pytest.raises(ModelError, match="reward model"):
            made(source, target, tmp_path / "other")


def _refusal(model: Path, target: str, out: Path) -> str:
    with pytest.raises(SharpenError) as caught:
        made(find(str(model), quiet), target, out)
    return str(caught.value)


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = byte_model(tmp_path / "plain")
    assert "has no adapter" in _refusal(plain, "peft", tmp_path / "out")
    other = byte_model(tmp_path / "other", "mistral")
    assert "got 'mistral'" in _refusal(other, "gguf", tmp_path / "out")
    strange = byte_model(tmp_path / "strange", template="{% for m in messages %}{{ m['content'] | upper }}{% endfor %}")
    assert "no TEMPLATE for Ollama" in _refusal(strange, "ollama", tmp_path / "out")
    full = tmp_path / "full"
    full.mkdir()
    (full / "kept.txt").write_text("mine")
    assert "something in the export's place" in _refusal(plain, "hf", full)
    monkeypatch.chdir(full)
    assert "you are in that folder" in _refusal(plain, "hf", Path("."))
    assert "cannot be written" in _refusal(plain, "hf", full / "kept.txt" / "out")
    assert (full / "kept.txt").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_an_adapter_whose_base_is_gone_is_refused_and_the_whole_model_is_not(run: Path, tmp_path: Path) -> None:
    import shutil

    lost = shutil.copytree(run / "models/sft", tmp_path / "lost")
    path = lost / "adapter/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(tmp_path / "gone")}))
    assert "base that the adapter was trained on cannot be found" in _refusal(lost, "peft", tmp_path / "out")
    done = made(find(str(lost), quiet), "hf", tmp_path / "out")
    assert any("adapter is left out" in note for note in done.notes)
    assert not (tmp_path / "out/adapter").exists()


def test_a_full_disk_is_noticed_before(source: Source, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="too little disk space"):
        Order("hf", tmp_path / "out").check_place(10**18)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "hf", "--quantize", "q8_0"], "only gguf and ollama are quantised"),
        (["--to", "hf", "--public"], "--public"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    options: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), *options]) == 2
    assert said in capsys.readouterr().err


def test_the_command_for_k_quants_is_shown_where_llama_quantize_is_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "bin/llama-quantize"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    assert main(["export", str(run), "--to", "gguf", "--out", str(tmp_path / "again")]) == 0
    file = tmp_path / "again/run-sft"
    assert f"llama-quantize {file}-F16.gguf {file}-Q4_K_M.gguf Q4_K_M" in capsys.readouterr().out


def _reference(logits: torch.Tensor) -> proof.Reference:
    """A text of one prompt token and what was chosen after it."""
    tokens = torch.arange(len(logits))
    return proof.Reference((tokens[:1],), (tokens,), (logits,))


def test_greedy_steps_count_but_for_those_between_equals() -> None:
    wanted = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.00005, 0.0], [0.0, 3.0, 1.0], [5.0, 0.0, 0.0]])
    other = torch.tensor([[1.0, 2.0, 0.0], [1.1, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 5.0, 0.0]])
    differing, close = proof.same_choices(_reference(wanted), [other])  # the last row chooses nothing
    assert (differing.value, differing.of, differing.passed) == (1, 3, False)
    assert (close.value, close.passed) == (1, True)


def test_distributions_are_compared_by_agreement_and_kl() -> None:
    wanted, other = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).log1p(), torch.tensor([[2.0, 0.0], [0.0, 0.0]]).log1p()
    share, kl = proof.alike(_reference(wanted), [other], proof.Limits(0.5, 0.06))
    # (1/2, 1/2) from (3/4, 1/4) is 0.5 ln(4/3); (2/3, 1/3) from (1/2, 1/2) is 2/3 ln(4/3) + 1/3 ln(2/3)
    assert kl.value == pytest.approx((0.143841 + 0.056633) / 2, abs=1e-5)
    assert (share.value, share.passed, kl.passed) == (1.0, True, False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_proof(value: float) -> None:
    broken = torch.full((2, 2), value)
    assert not all(check.passed for check in proof.alike(_reference(torch.eye(2)), [broken], proof.LIMITS["q8_0"]))
    assert not proof.same_scores(torch.ones(2, 1), torch.full((2, 1), value))[0].passed


@pytest.mark.long
def test_the_real_model_as_q8_0_keeps_the_thresholds(tmp_path: Path) -> None:
    done = made(find("smollm2-135m-instruct", quiet), "gguf", tmp_path / "out", "q8_0")
    found = {check.name: check.value for check in done.checks}
    assert 1e-4 < float(found["mean KL in nats"]) < 5e-3  # measured: 0.0022
    assert done.gguf and done.gguf.stat().st_size == pytest.approx(144.8e6, rel=0.01)
