"""What may be loaded, what is refused and why, and what a loaded model knows of itself."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.errors import ModelError
from sharpen.models.load import compute_dtype, load, load_tokenizer, resolve, save
from sharpen.train.engine import score
from sharpen.types import Sequence as Row
from tests.tiny import ARCHITECTURES, tiny_model


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def only_pickles(folder: Path) -> None:
    torch.save({"anything": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def damaged(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def a_tensor_short(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def a_longer_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra {number}>" for number in range(40)])
    tokenizer.save_pretrained(folder)


def config(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder / "config.json", **changes)


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (only_pickles, "pickled weights can run code when opened.*pytorch_model.bin"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors"),
    (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing"),
    (lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"), "an adapter"),
    (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
    (config(auto_map={"AutoModelForCausalLM": "code.Model"}), "its own Python code"),
    (
        lambda folder: edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["c.T", None]}),
        "own Python code",
    ),
    (config(quantization_config={"quant_method": "gptq"}), "quantised.*gptq"),
    (config(architectures=["BertForSequenceClassification"]), "not a causal language model"),
    (config(model_type="from_the_future"), "cannot be loaded"),
    (damaged, "cannot be loaded"),
    (a_tensor_short, "weights are missing.*up_proj"),
    (without_template, "no chat template"),
    (lambda folder: (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}"), "template fails"),
    (a_longer_tokenizer, "more tokens than the model has embeddings"),
]


@pytest.mark.parametrize(("spoil", "reason"), REFUSED, ids=[reason[:24] for _, reason in REFUSED])
def test_what_cannot_be_trusted_or_read_is_refused_with_the_reason(
    tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    folder = tiny_model(tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelError, match=reason) as caught:
        load(folder, torch.float32)
    assert caught.value.remedy


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    ours = load(folder, torch.float32)
    with torch.no_grad():
        ours.model.lm_head.weight.fill_(float("nan"))
    save(ours.model, ours.tokenizer, folder, torch.float32)
    with pytest.raises(ModelError, match="not finite"):
        load(folder, torch.float32)


@pytest.mark.parametrize("architecture", ["gpt2", *ARCHITECTURES])
def test_every_named_architecture_loads_in_bfloat16(tmp_path: Path, architecture: str) -> None:
    loaded = load(tiny_model(tmp_path, architecture), torch.bfloat16)
    assert loaded.model.lm_head.weight.dtype == torch.bfloat16
    assert not loaded.notice
    assert not loaded.model.training


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_oss", "mamba"])
def test_a_model_travels_to_another_process_as_it_computes(tmp_path: Path, architecture: str) -> None:
    loaded = load(tiny_model(tmp_path, architecture), torch.bfloat16)
    row = Row(tuple(range(5, 25)), (False, *[True] * 19), "")
    copy = pickle.loads(pickle.dumps(loaded.model))
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.mul_(0)  # the copy has weights of its own
    (there,), (again,) = score(copy, [row], 100), score(load(tmp_path, torch.bfloat16).model, [row], 100)
    assert there.old_logprobs == again.old_logprobs


def test_a_hub_id_is_fetched_at_its_revision_without_pickles_or_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def fake(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(tiny_model(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert resolve("some-lab/some.model@v1.0") == tmp_path
    assert (asked["repo"], asked["revision"]) == ("some-lab/some.model", "v1.0")
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for pattern in asked["allow_patterns"])


def test_a_misspelt_alias_gets_a_suggestion() -> None:
    with pytest.raises(ModelError, match="Did you mean 'smollm2-135m-instruct'"):
        resolve("smollm-135m-instruct")


def test_an_answer_stops_at_every_end_token_and_at_the_end_of_its_turn(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    edit(folder / "generation_config.json", eos_token_id=[0])
    edit(folder / "tokenizer_config.json", eos_token="<|unk|>")
    assert load(folder, torch.float32).stop == {0, 2, 3}  # the config's, the turn's <|im_end|>, the tokenizer's


def test_an_end_of_turn_that_is_plain_text_is_no_stop_token(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    edit(folder / "generation_config.json", eos_token_id=0)
    assert load(folder, torch.float32).stop == {0, 2}


def test_the_compute_type_is_the_one_asked_for_or_what_the_hardware_has() -> None:
    assert compute_dtype("float32") == torch.float32
    assert compute_dtype("bfloat16") == torch.bfloat16
    assert compute_dtype("auto") in (torch.float32, torch.bfloat16)
    assert compute_dtype("auto", "mps") == torch.float32


def said_in_a_process(code: str, **environment: str) -> str:
    """What code prints in a process of its own: oneDNN reads its variables once."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN")}
    given = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run([sys.executable, "-c", code], env=given, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_without_units_for_bfloat16_auto_is_float32() -> None:
    code = "from sharpen.models.load import compute_dtype; print(compute_dtype('auto'))"
    assert said_in_a_process(code, ONEDNN_MAX_CPU_ISA="AVX2").strip() == "torch.float32"


def test_onednn_keeps_few_primitives_unless_the_user_says_how_many() -> None:
    code = "import os, sharpen.models.load; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    assert said_in_a_process(code).strip() == "64"
    assert said_in_a_process(code, ONEDNN_PRIMITIVE_CACHE_CAPACITY="900").strip() == "900"


def test_the_tokenizer_alone_comes_with_the_same_end_tokens(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, eos_token_id=[2, 3])
    for generation_config in ("kept", "left out"):
        if generation_config == "left out":
            (folder / "generation_config.json").unlink()
        tokenizer, stop = load_tokenizer(str(folder))
        loaded = load(folder, torch.float32)
        assert stop == loaded.stop == {2, 3}
        assert tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
