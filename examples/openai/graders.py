"""Graders tried before they are used: what each kind of fault looks like to a client."""

from __future__ import annotations

from typing import Any

from openai import BadRequestError, OpenAI

SAME = {"type": "string_check", "name": "same", "operation": "eq"}
FAULTS: dict[str, dict[str, Any]] = {
    "sample_parse_error": {**SAME, "input": "{{ sample.output_json.total }}", "reference": "7"},
    "invalid_variable_error": {**SAME, "input": "{{ item.missing }}", "reference": "7"},
    "python_grader_runtime_error": {
        "type": "python",
        "name": "raises",
        "source": "def grade(sample, item):\n    return 1 / 0\n",
    },
    "formula_parse_error": {
        "type": "multi",
        "graders": {"same": {**SAME, "input": "{{ sample.output_text }}", "reference": "7"}},
        "calculate_output": "1 / (same - same)",
    },
}


def main() -> None:
    """Ends with an error where anything is not as OpenAI's API has it."""
    graders = OpenAI().fine_tuning.alpha.graders
    for flag, grader in FAULTS.items():
        told = graders.run(grader=grader, item={"answer": "7"}, model_sample="seven").metadata.errors
        raised = [name for name, value in told.to_dict().items() if value is True]
        print(flag, raised)
        assert flag in raised
    unmapped = {"type": "score_model", "name": "judge", "model": "o3", "input": [{"role": "user", "content": "?"}]}
    try:
        graders.validate(grader=unmapped)  # type: ignore[arg-type]
    except BadRequestError as error:
        print(error.code, "-", error.message)
        assert error.code == "unmapped_judge" and error.param
    else:
        raise AssertionError("a judge that the operator has not mapped is refused")


if __name__ == "__main__":
    main()
