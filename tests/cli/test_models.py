"""`sharpen models`: the list, one model, JSON, on machines of any size, without network: the cache is a folder here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from sharpen.cli import machine, models_table
from sharpen.cli.main import main
from sharpen.models import registry
from sharpen.models.bases import BASES
from tests.tiny import tiny_model


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 GB with bfloat16 and no models, offline."""
    monkeypatch.setenv("SHARPEN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(16 * 10**9, 9 * 10**9))
    monkeypatch.setattr(machine, "matrix_units", lambda: ("amx_bf16",))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["models", *words]) == 0
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(said(capsys, *words, "--json"))


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(name + " "))


def test_the_list_has_a_row_a_model_and_marks_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "list")
    for name in BASES:
        assert line_of(text, name)
    assert line_of(text, "qwen3-0.6b").split()[:7] == ["qwen3-0.6b", "596", "M", "32k", "yes", "yes", "–"]
    assert "✗" not in line_of(text, "smollm2-135m-instruct") and "!" in line_of(text, "qwen3-0.6b")
    assert line_of(text, "qwen3-32b").count("✗") == 5
    assert "†" in line_of(text, "llama-3.2-1b-instruct") and "?" in line_of(text, "mistral-7b-instruct-v0.3")
    assert "16.0 GB, of which 9.0 GB free" in text


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_figure_is_cut_whatever_the_width(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharpen.cli.table.WIDTH", width)
    text = said(capsys, "list")
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert ("Apache-2.0" in text) == (width >= models_table.WIDE)
    assert "677" in line_of(text, "qwen3-32b") and "152" in line_of(text, "qwen3-32b")


def test_json_says_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "list")
    assert found["machine"] == {"memory_bytes": 16 * 10**9, "free_bytes": 9 * 10**9, "bfloat16": True}
    assert [model["alias"] for model in found["models"]] == list(BASES)
    small = found["models"][0]
    assert small["licence"] == "Apache-2.0" and small["folder"] is None and small["context"] == 8192
    assert {name: method["fits"] for name, method in small["methods"].items()} == dict.fromkeys(small["methods"], "yes")
    shares = {name: f"{100 * method['trained_share']:.2g}" for name, method in small["methods"].items()}
    assert shares == {"sft": "1e+02", "rft": "1e+02", **dict.fromkeys(("sft_lora", "sft_qlora", "rft_lora"), "3.5")}
    for model in found["models"]:
        for method in model["methods"].values():
            assert method["bytes"] == pytest.approx(sum(method["parts"].values()), abs=5)


def test_what_is_here_is_marked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    packaged = tiny_model(registry.cached(registry.DEFAULT))
    (packaged / registry.MARKER).write_text("{}")
    repo = tmp_path / "cache/models--Qwen--Qwen3-0.6B"
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tiny_model(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(commit)
    here = {model["alias"]: model["folder"] for model in told(capsys, "list")["models"] if model["folder"]}
    assert here == {registry.DEFAULT: str(packaged), "qwen3-0.6b": str(snapshot)}
    assert line_of(said(capsys, "list"), "qwen3-0.6b").split()[6] == "yes"
    assert told(capsys, "show", "qwen3-0.6b")["model"]["folder"] == str(snapshot)


def test_show_says_where_the_memory_goes_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "show", "llama-3.2-1b-instruct")
    assert "https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct" in text
    assert "Llama 3.2 Community; gated: to be accepted at that page first" in text
    assert "no: sharpen models pull llama-3.2-1b-instruct" in text
    assert line_of(text, "SFT").split()[1] == "all" and line_of(text, "QLoRA").split()[1:3] == ["0.9", "%"]
    assert "no (needs 27 GB, here 16 GB)" in line_of(text, "SFT") and "yes (needs " in line_of(text, "LoRA")
    shown = told(capsys, "show", "llama-3.2-1b-instruct")["model"]
    assert (
        shown["shape"]["layers"] == 16
        and shown["methods"]["sft"]["parts"]["weights"] == 2 * BASES["llama-3.2-1b-instruct"].shape.parameters
    )


def test_show_describes_any_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path / "mine", "qwen3"))
    text = said(capsys, "show", folder)
    assert "qwen3: 2 layers, width 32, inner 64, 4 heads of 8 (2 for keys and values), vocabulary 128" in text
    assert told(capsys, "show", folder)["model"]["licence"] is None


def test_without_bfloat16_units_figures_are_for_float32(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = told(capsys, "list")["models"][0]["methods"]["sft"]["parts"]["weights"]
    monkeypatch.setattr(machine, "matrix_units", lambda: ("avx2",))
    assert told(capsys, "list")["models"][0]["methods"]["sft"]["parts"]["weights"] == 2 * before
    assert "in float32, as it has no units for bfloat16" in " ".join(said(capsys, "list").split())


def test_where_the_system_does_not_say_its_memory_nothing_is_claimed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: None)
    assert {m["fits"] for row in told(capsys, "list")["models"] for m in row["methods"].values()} == {None}
    text = said(capsys, "list")
    assert "Memory here: not known" in text and "✗" not in line_of(text, "qwen3-32b")
    assert "needs 597 GB" in said(capsys, "show", "qwen3-32b")


def test_the_list_imports_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from sharpen.cli.main import main; main(['models', 'list']); "
        "assert not {'torch', 'pydantic', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_container_s_memory_is_its_limit(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000000 kB\nMemFree:        1000000 kB\nMemAvailable:   9000000 kB\n")
    assert machine.within(meminfo, tmp_path) == (16_384_000_000, 9_216_000_000)
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712")  # version 1's word for none
    assert machine.within(meminfo, tmp_path) == (16_384_000_000, 9_216_000_000)
    (tmp_path / "memory/memory.limit_in_bytes").write_text("4000000000")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1000000000")
    assert machine.within(meminfo, tmp_path) == (4_000_000_000, 3_000_000_000)
    (tmp_path / "memory.max").write_text("max")
    assert machine.within(meminfo, tmp_path) == (4_000_000_000, 3_000_000_000)
    (tmp_path / "memory.max").write_text("2000000000")
    (tmp_path / "memory.current").write_text("500000000")
    assert machine.within(meminfo, tmp_path) == (2_000_000_000, 1_500_000_000)
