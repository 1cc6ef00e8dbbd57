"""`sharpen predict`: every row once, in its place, with the model's answer, whatever container it comes in."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.answer import predict, survey
from sharpen.answer.predict import Progress
from sharpen.answer.rows import rows as rows_of
from sharpen.cli.main import main
from sharpen.cli.predict import NowAndThen, said
from tests.answer.small import Rows, asked, read, write
from tests.tiny import tiny_model, tiny_tokenizer


def answers(model: Path, rows: Rows, folder: Path, *options: str) -> list[str]:
    """What `sharpen predict` puts into the rows."""
    source, out = write(folder / "in.jsonl", rows), folder / "out.jsonl"
    out.unlink(missing_ok=True)
    assert main(["predict", str(model), "--in", str(source), "--out", str(out), "--max-tokens", "6", *options]) == 0
    return [row["prediction"] for row in read(out)]


def greedy(model: Path, question: str, tokens: int) -> str:
    """The answer by transformers' own generation."""
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    loaded: Any = AutoModelForCausalLM.from_pretrained(model)
    made = loaded.generate(ids, max_new_tokens=tokens, do_sample=False)
    kept = [token for token in made[0, ids.shape[1] :].tolist() if token != tokenizer.eos_token_id]
    return str(tokenizer.decode(kept))


def test_every_row_keeps_its_fields_and_its_place_and_gets_the_models_answer(model: Path, tmp_path: Path) -> None:
    rows = asked(11)
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "deep" / "out.jsonl"
    assert main(["predict", str(model), "--in", str(source), "--out", str(out), "--max-tokens", "6"]) == 0
    found = read(out)
    assert [{**row, "prediction": ""} for row in found] == [{**row, "prediction": ""} for row in rows]
    assert [list(row) for row in found] == [["n", "prompt", "tag", "prediction"]] * 11
    for row in found[:4]:
        assert row["prediction"] == greedy(model, row["prompt"], 6)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.jsonl"], "no state is left behind"


# Containers

TABLE = [{"q": "why?", "more": "a, b"}, {"q": 'say "x"', "more": ""}, {"q": "two\nlines", "more": "c"}]


def container(path: Path) -> Path:
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["q", "more"], delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(TABLE)
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(TABLE), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(TABLE))
    else:
        write(path, TABLE)
    return path


@pytest.fixture(scope="module")
def table_answers(model: Path) -> list[str]:
    return [greedy(model, row["q"], 6) for row in TABLE]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_any_container_is_read_with_its_columns_named(
    suffix: str, model: Path, table_answers: list[str], tmp_path: Path
) -> None:
    source = container(tmp_path / f"in.{suffix}")
    for name, delimiter in {"csv": [("out.tsv", "\t")], "jsonl": [("out.csv", ",")]}.get(suffix, [("out.jsonl", "")]):
        out = tmp_path / name
        command = ["predict", str(model), "--in", str(source), "--out", str(out), "--max-tokens", "6"]
        assert main([*command, "--columns", "prompt=q"]) == 0
        with out.open(newline="") as file:
            found = list(csv.DictReader(file, delimiter=delimiter)) if delimiter else read(out)
        assert [list(row) for row in found] == [["q", "more", "prediction"]] * 3
        assert [(row["q"], row["more"]) for row in found] == [(row["q"], row["more"]) for row in TABLE]
        assert [row["prediction"] for row in found] == table_answers


def test_values_that_are_no_text_stand_as_json_in_a_table(model: Path, tmp_path: Path) -> None:
    rows: Rows = [{"prompt": "a", "n": 3, "list": ["ü", None]}, {"prompt": "b", "none": None, "yes": True}]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.csv"
    assert main(["predict", str(model), "--in", str(source), "--out", str(out), "--max-tokens", "2"]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == ["prompt", "n", "list", "none", "yes", "prediction"]
    assert (first["n"], first["list"], first["yes"]) == ("3", '["ü", null]', "")
    assert (second["n"], second["none"], second["yes"]) == ("", "", "true")


def test_rows_on_standard_input_are_read_too(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = asked(3)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(model), "--in", "-", "--out", str(out), "--max-tokens", "6"]) == 0
    piped = [row["prediction"] for row in read(out)]
    assert piped == answers(model, rows, tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}\n")))
    assert main(["predict", str(model), "--in", "-", "--out", str(tmp_path / "other.jsonl")]) == 2
    assert "stdin.jsonl:1: nothing says what is asked" in capsys.readouterr().err


# Questions

HELLO = [{"role": "user", "content": "hello"}]
SYSTEM = {"role": "system", "content": "be brief"}
ANSWERED = {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    ("row", "options", "same_as"),
    [
        ({"prompt": "hello", "completion": "hi"}, [], {"prompt": "hello"}),
        ({"prompt": "hello", "prediction_": "x"}, [], {"prompt": "hello"}),
        ({"messages": HELLO}, [], {"prompt": "hello"}),
        ({"messages": [*HELLO, ANSWERED]}, [], {"prompt": "hello"}),
        ({"messages": [*HELLO, ANSWERED, *HELLO]}, [], {"prompt": [*HELLO, ANSWERED, *HELLO]}),
        ({"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]}, [], HELLO),
        ({"instruction": "hello", "input": "", "output": "hi"}, [], {"prompt": "hello"}),
        ({"question": "hello"}, ["--columns", "prompt=question"], {"prompt": "hello"}),
        ({"prompt": "other", "question": "hello"}, ["--columns", "prompt=question"], {"prompt": "hello"}),
        (
            {"task": "hello", "text": "you"},
            ["--columns", "instruction=task", "--columns", "input=text"],
            "hello\n\nyou",
        ),
        ({"prompt": "hello"}, ["--system", "be brief"], {"messages": [SYSTEM, *HELLO]}),
        ({"messages": [SYSTEM, *HELLO]}, ["--system", "be long"], {"messages": [SYSTEM, *HELLO]}),
    ],
)
def test_whatever_its_shape_the_question_of_a_row_is_asked(
    row: dict[str, Any], options: list[str], same_as: Any, model: Path, tmp_path: Path
) -> None:
    plain = same_as if isinstance(same_as, dict) else {"prompt": same_as}
    expected = answers(model, [plain], tmp_path)
    assert answers(model, [row], tmp_path, *options) == expected
    assert answers(model, [{"prompt": "another"}], tmp_path) != expected


def test_limit_and_max_tokens_cut_rows_and_answers_and_the_seed_changes_no_likeliest_ones(
    model: Path, tmp_path: Path
) -> None:
    plain = answers(model, asked(6), tmp_path)
    short = answers(model, asked(6), tmp_path, "--max-tokens", "2", "--limit", "5", "--seed", "3")
    assert len(short) == 5 and short != plain[:5]
    assert all(text.startswith(beginning) for text, beginning in zip(plain, short, strict=False))


def test_drawn_answers_hang_on_seed_temperature_and_top_p_and_on_the_row_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": "again"}] * 9
    warm = ["--temperature", "1.5", "--seed", "4"]
    drawn = answers(model, rows, tmp_path, *warm)
    assert len(set(drawn)) == 9, "rows that ask the same draw for themselves"
    assert answers(model, rows, tmp_path, *warm) == drawn
    assert answers(model, rows[:5], tmp_path, *warm) == drawn[:5]
    monkeypatch.setattr(predict, "ROWS", 128)
    assert answers(model, rows, tmp_path, *warm) == drawn
    for other in (["--seed", "5"], ["--temperature", "0.9"], ["--top-p", "0.5"]):
        assert answers(model, rows, tmp_path, *warm, *other) != drawn


def test_the_answers_field_has_the_name_asked_for(model: Path, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", [{"prompt": "a", "prediction": "old"}]), tmp_path / "out.jsonl"
    assert (
        main(
            [
                "predict",
                str(model),
                "--in",
                str(source),
                "--out",
                str(out),
                "--answer-column",
                "new",
                "--max-tokens",
                "6",
            ]
        )
        == 0
    )
    assert [{**row, "new": ""} for row in read(out)] == [{"prompt": "a", "prediction": "old", "new": ""}]


def test_answers_are_held_to_a_form(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    form = "{type: regex, pattern: '[0-9]{3}'}"
    for text in (form, str(tmp_path / "form.yaml")):
        (tmp_path / "form.yaml").write_text(form)
        assert all(
            answer.isdigit() and len(answer) == 3
            for answer in answers(model, asked(5), tmp_path, "--response-format", text)
        )


def test_thoughts_have_a_field_of_their_own(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thinker = tiny_model(tmp_path / "thinker", vocab_size=101)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>{% endif %}{# </think> #}"
    tokenizer.save_pretrained(thinker)
    rows = asked(2)
    assert answers(thinker, rows, tmp_path) == ["", ""], "the thoughts, once open, are not closed in six tokens"
    assert all(len(row["reasoning_content"]) >= 5 for row in read(tmp_path / "out.jsonl"))
    out = tmp_path / "out.csv"
    command = ["predict", str(thinker), "--in", str(tmp_path / "in.jsonl"), "--max-tokens", "6"]
    assert main([*command, "--out", str(out)]) == 0
    assert out.read_text().splitlines()[0] == "n,prompt,tag,reasoning_content,prediction"
    write(tmp_path / "in.jsonl", [{"prompt": "a", "reasoning_content": "mine"}])
    assert main([*command, "--out", str(tmp_path / "two.jsonl")]) == 2
    assert "reasoning_content: there is a field of this name already" in capsys.readouterr().err
    command[1] = str(model)
    assert main([*command, "--out", str(tmp_path / "two.jsonl")]) == 0, "without thoughts there is no quarrel"
    assert read(tmp_path / "two.jsonl")[0]["reasoning_content"] == "mine"


# What is said


def test_what_came_out_is_said_with_a_command_that_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"question": "a b", "reply": "x", "answer": "c"}, {"question": "d", "answer": "e"}]
    write(tmp_path / "rows.jsonl", rows)
    command = ["predict", str(model), "--in", "rows.jsonl", "--out", "out.jsonl", "--columns", "prompt=question"]
    assert main([*command, "--max-tokens", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{model} answers 2 rows" in lines
    cut = sum(len(row["prediction"]) == 2 for row in read(tmp_path / "out.jsonl"))
    assert cut and any(line.startswith(f"Cut off  {cut} answers") for line in lines)
    assert "Answers  out.jsonl" in lines
    (following,) = [line.removeprefix("Next     ") for line in lines if line.startswith("Next")]
    assert shlex.split(following)[:3] == ["sharpen", "eval", str(model)]
    assert main(shlex.split(following)[1:]) == 0
    assert "2 problems, greedy answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"prompt": "a", "answer": "b"}, "answer"),
        ({"prompt": "a", "completion": "b"}, "completion"),
        ({"prompt": "a", "answer": ""}, ""),
        ({"prompt": "a", "n": 3}, ""),
    ],
)
def test_a_field_that_holds_answers_is_known_by_its_name(row: dict[str, Any], reference: str, tmp_path: Path) -> None:
    found = survey.look(rows_of(str(write(tmp_path / "in.jsonl", [row, row]))), "prediction")
    assert found == (2, list(row), reference)


def test_progress_says_rate_and_time_left() -> None:
    assert said(Progress(0, 1000, 0, 0, 0.0, 0.0)) == "0/1,000 rows"
    assert said(Progress(200, 1000, 0, 4000, 250.0, 10.0)) == "200/1,000 rows  400 tokens/s  ETA 30 s"
    assert said(Progress(500, 1000, 500, 0, 0.0, 0.1)).endswith(
        "going on after 500 rows of an earlier run of this command"
    )
    assert said(Progress(600, 1000, 500, 800, 100.0, 8.0)) == "600/1,000 rows  100 tokens/s  ETA 32 s"
    assert said(Progress(1000, 1000, 0, 800, 1000.0, 8.0)) == "1,000/1,000 rows  100 tokens/s"


def test_progress_is_shown_now_and_then_and_at_the_end() -> None:
    shown: list[int] = []
    times = iter([0.0, 0.0, 1.0, 6.0, 6.0, 6.5, 6.6])
    watch = NowAndThen(lambda progress: shown.append(progress.rows), 5.0, lambda: next(times))
    for rows in (0, 1, 2, 5, 5):
        watch(Progress(rows, 5, 0, 0, 0.0, 0.0))
    assert shown == [0, 2, 5]
