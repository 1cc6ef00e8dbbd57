"""`sharpen data check` from outside: what is printed, as text and as JSON, and the exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sharpen.cli.main import main
from sharpen.config.stages import DPO, SFT, Stage
from tests.tiny import tiny_model

GOOD = '{"prompt": "1+1=", "completion": "2"}\n'
BAD = '{"prompt": "1+1="}\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_a_good_file_is_described_and_exits_with_0(rows: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write_text(GOOD * 2 + GOOD.replace("1+1", "ask a@b.org"))
    assert main(["data", "check", str(rows), "--for", "sft", "--model", model, "--against", str(rows)]) == 0
    said = capsys.readouterr().out
    for line in (
        "  rows         3, of which 0 have faults\n",
        "  loss covers  6 of 83 tokens (7.2%)\n",
        "  duplicates   1 exact, 0 near\n",
        "line 2 says what line 1 says\n",
        f"  overlap      3 prompts stand in {rows} too: line 1, 2, 3\n",
        "1 × e-mail address: line 3 prompt a@…\n",
        "<|im_start|>user\n1+1=<|im_end|>\n<|im_start|>assistant\n⟦2<|im_end|>⟧\n",
        "No faults.\n",
    ):
        assert line in said


def test_a_faulty_file_exits_with_2_and_names_each_place_and_remedy(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.write_text(GOOD + BAD * 60)
    assert main(["data", "check", str(rows), "--for", "sft"]) == 2
    said = capsys.readouterr()
    assert said.out.count(": not a row of this kind; its keys are ['prompt']. SFT reads") == 50
    assert f"  {rows}:2: not a row" in said.out and f"  {rows}:51: not a row" in said.out
    assert said.out.endswith("  and 10 more\n")
    assert said.err == ""


def test_json_says_the_same(rows: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write_text(GOOD * 2 + BAD + GOOD.replace("1+1", "ask a@b.org"))
    command = ["data", "check", str(rows), "--for", "sft", "--model", model, "--json", "--against", str(rows)]
    rows.with_name("other.jsonl").write_text(GOOD)
    assert main([*command[:-1], str(rows.with_name("other.jsonl"))]) == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["schema_version"], said["file"], said["for"]) == (1, str(rows), "sft")
    assert (said["rows"], said["faulty_rows"], said["loss"]) == (4, 1, {"trained": 6, "total": 83})
    (fault,) = said["faults"]
    assert (fault["file"], fault["line"], fault["field"]) == (str(rows), 3, "")
    assert said["duplicates"]["exact"] == {"rows": 1, "first": [{"line": 2, "earlier": 1}]}
    assert said["overlap"] == {str(rows.with_name("other.jsonl")): {"count": 2, "lines": [1, 2]}}
    assert said["private"]["e-mail address"]["first"] == [{"line": 4, "field": "prompt", "masked": "a@…"}]
    assert said["rendered"]["spans"][1] == {"text": "2<|im_end|>", "trained": True}
    assert (said["tokens"]["min"], said["tokens"]["max"], sum(said["tokens"]["histogram"])) == (25, 33, 3)


def test_without_a_model_nothing_is_said_of_tokens(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write_text(GOOD)
    assert main(["data", "check", str(rows), "--for", "sft", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["tokens"] is said["loss"] is said["rendered"] is None


@pytest.mark.parametrize(
    ("purpose", "row"),
    [("sft", {"prompt": "1+1=", "completion": "2"}), ("dpo", {"prompt": "1+1=", "rejected": "3", "chosen": "2"})],
)
def test_the_longest_row_is_a_recipes_unless_told(
    rows: Path, model: str, capsys: pytest.CaptureFixture[str], purpose: str, row: dict[str, str]
) -> None:
    stages: dict[str, type[Stage]] = {"sft": SFT, "dpo": DPO}
    default = stages[purpose].model_fields["max_length"].default
    rows.write_text(json.dumps({name: value * default if value == "2" else value for name, value in row.items()}))
    command = ["data", "check", str(rows), "--for", purpose, "--model", model]
    assert main(command) == 2
    assert f"longer than max_length = {default} tokens" in capsys.readouterr().out
    assert main([*command, "--max-length", str(2 * default)]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-length", "9"], "--max-length: tokens cannot be counted without a model"),
        (["--max-length", "0", "--model", "smollm2-135m-instruct"], "--max-length: must be 1 or more"),
        (["--model", "no-such-model"], "no such model"),
        (["--against", "none.jsonl"], "none.jsonl: cannot read the file"),
    ],
)
def test_a_wrong_option_is_one_paragraph(
    rows: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.write_text(GOOD)
    assert main(["data", "check", str(rows), "--for", "sft", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_on_a_terminal_trained_tokens_are_coloured_and_the_row_cannot_steer_it(
    rows: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.write_text(json.dumps({"prompt": "\x1b[2J", "completion": "2"}))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["data", "check", str(rows), "--for", "sft", "--model", model])
    said = capsys.readouterr().out
    assert "\x1b[30;42m2<|im_end|>\x1b[0m" in said
    assert "⟦" not in said and "\x1b[2J" not in said
    monkeypatch.setenv("NO_COLOR", "1")
    main(["data", "check", str(rows), "--for", "sft", "--model", model])
    assert "⟦2<|im_end|>⟧" in capsys.readouterr().out


def test_a_long_text_is_shown_by_its_ends(rows: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write_text(json.dumps({"prompt": "1+1=", "completion": "a" * 700 + "z"}))
    main(["data", "check", str(rows), "--for", "sft", "--model", model])
    left_out = 701 + len("<|im_end|>") - 600
    assert f"⟦{'a' * 300} [… {left_out:,} characters …] {'a' * 289}z<|im_end|>⟧" in capsys.readouterr().out


def test_for_rft_the_prompt_is_shown_up_to_the_models_answer(
    rows: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.write_text('{"prompt": "1+1=", "answer": "2"}')
    assert main(["data", "check", str(rows), "--for", "rft", "--model", model]) == 0
    said = capsys.readouterr().out
    assert "<|im_start|>user\n1+1=<|im_end|>\n<|im_start|>assistant\n" in said
    assert "loss covers  the model's own answers" in said and "⟦" not in said
