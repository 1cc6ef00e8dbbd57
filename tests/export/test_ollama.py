"""TEMPLATEs for Ollama: chat templates of known families are met sign by sign; what cannot be met is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template  # transformers' own way to render

from sharpen.errors import ModelError
from sharpen.export import gotemplate, modelfile, ollama
from sharpen.types import Message
from tests.export.worlds import CHATML

TEMPLATES = Path(__file__).parent.parent / "templates"

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n' }}{%- endif %}{%- for message in messages %}{%- if (message.role == 'user') or "
    "(message.role == 'system' and not loop.first) or (message.role == 'assistant' and not message.tool_calls) %}"
    "{{- '<|im_start|>' + message.role "
    "+ '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA31 = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"
    "\n\n' }}{{- system_message }}{{- '<|eot_id|>' }}{%- for message in messages %}{{- '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + "
    "message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first = messages[0]['content'] + '\n\n' -%}"
    "{%- set turns = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- set turns = messages -%}{%- endif -%}"
    "{%- for message in turns -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('alternate') }}{%- endif -%}{%- set role = 'model' if message['role'] == 'assistant' else "
    "message['role'] -%}{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
MISTRAL1 = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('alternate') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token + ' ' }}"
    "{% endif %}{% endfor %}"
)
MISTRAL3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}{%- for message in turns %}"
    "{%- if message['role'] == 'user' %}{%- if loop.last and system is defined %}{{ '[INST]' + system + '\n\n' + "
    "message['content'] + '[/INST]' }}{%- else %}{{ '[INST]' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{%- else %}{{ raise_exception('roles') }}{%- endif %}{%- endfor %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set turns = messages %}{% set system = false %}{% endif %}{% for message in turns %}"
    "{% if loop.index0 == 0 and system %}{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + "
    "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% else %}{{ raise_exception('roles') }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI4 = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + "
    "'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
KNOWN = {
    **{
        "chatml": CHATML,
        "smollm2": SMOLLM2,
        "qwen2.5": QWEN25,
        "llama3": LLAMA3,
        "llama3.1": LLAMA31,
        "gemma2": GEMMA2,
    },
    **{"gemma3": GEMMA3, "mistral1": MISTRAL1, "mistral3": MISTRAL3, "llama2": LLAMA2, "phi3": PHI3, "phi4": PHI4},
    **{"zephyr": ZEPHYR, **{path.stem: path.read_text("utf-8") for path in sorted(TEMPLATES.glob("*.jinja"))}},
}


def jinja(template: str, bos: str = "<s>") -> ollama.Render:
    """The chat template as `export` renders it: without the bos that readers of a GGUF put first."""
    compiled = _compile_jinja_template(template)

    def render(messages: Sequence[Message], answer: bool) -> str:
        text: str = compiled.render(messages=messages, add_generation_prompt=answer, bos_token=bos, eos_token="</s>")
        return text.removeprefix(bos)

    return render


def talk(*contents: str, system: str = "") -> list[Message]:
    turns: list[Message] = [{"role": "system", "content": system}] if system else []
    return turns + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


@pytest.mark.parametrize("family", KNOWN)
def test_the_template_of_a_known_family_is_met_on_other_conversations(family: str) -> None:
    render = jinja(KNOWN[family])
    made = ollama.template(render)
    for messages in (talk("a?"), talk("b", "c", "d"), talk("e", "f", "g", "h", "i"), talk("x = 3 {", "1\n2", "z")):
        assert gotemplate.render(made, ollama.values(messages)) == render(messages, True)
        if ollama.takes_system(render):
            led = [{"role": "system", "content": "Rhyme."}, *messages]
            assert gotemplate.render(made, ollama.values(led)) == render(led, True)


def test_a_default_system_message_is_written_where_none_is_given_and_only_there() -> None:
    made = ollama.template(jinja(SMOLLM2))
    plain = gotemplate.render(made, ollama.values(talk("Hi")))
    assert plain == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    told = gotemplate.render(made, ollama.values(talk("Hi", system="Rhyme.")))
    assert told == "<|im_start|>system\nRhyme.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_folded_system_message_stands_in_the_turn_that_the_chat_template_says() -> None:
    first, last = (ollama.template(jinja(KNOWN[name])) for name in ("gemma3", "mistral3"))
    values = ollama.values(talk("a", "b", "c", system="S"))
    assert gotemplate.render(first, values).startswith("<start_of_turn>user\nS\n\na<end_of_turn>")
    assert gotemplate.render(last, values) == "[INST]a[/INST] b</s>[INST]S\n\nc[/INST]"


def test_thoughts_are_left_out_of_earlier_answers_and_kept_in_the_one_under_way() -> None:
    made = ollama.template(jinja(KNOWN["qwen3"]))
    before = talk("a", "b", "c")
    before[1]["thinking"] = "hm"
    assert "hm" not in gotemplate.render(made, ollama.values(before))
    under_way = talk("a", "b")
    under_way[1]["thinking"] = "hm"
    assert "<think>\nhm\n</think>\n\nb" in gotemplate.render(made, ollama.values(under_way))


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}. {{ m['content'] }}\n{% endfor %}",  # a number a turn
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | upper }}{% endfor %}",
        "{% for m in messages %}<{{ m['role'] }}:{{ m['content'] | length }}>{{ m['content'] }}{% endfor %}",
        "{{ messages[-1]['content'] }}",  # forgets what was said before
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | replace('{', '[') }}{% endfor %}",
    ],
)
def test_a_chat_template_of_another_form_is_refused_and_never_guessed(template: str) -> None:
    with pytest.raises(ModelError, match="no TEMPLATE"):
        ollama.template(jinja(template))


@pytest.mark.parametrize(
    "damage", [("user", "usr"), ("named SmolLM", "named Smol"), ('(ne .Role "system")', "(eq $i 0)")]
)
def test_a_wrong_template_is_seen(damage: tuple[str, str]) -> None:
    render = jinja(SMOLLM2)
    made = ollama.template(render)
    assert ollama.compare(made, render) is None
    difference = ollama.compare(made.replace(*damage), render)
    assert difference is not None and "the chat template writes" in difference


def test_spaces_that_a_chat_template_takes_away_are_noticed() -> None:
    assert ollama.trims(jinja(LLAMA3)) and not ollama.trims(jinja(SMOLLM2))


@pytest.mark.parametrize("text", ["# no remark\n### System\n", "two\n\nlines\n", "a {{ .Content }} b"])
def test_a_modelfile_is_read_as_it_was_written(text: str) -> None:
    written = modelfile.write("m.gguf", text, ["<|im_end|>", "</s>"], "Be brief.\nRhyme.")
    found: dict[str, Any] = modelfile.read(written)
    assert (found["from"], found["template"], found["system"]) == ("./m.gguf", text, "Be brief.\nRhyme.")
    assert found["parameters"][:2] == [("stop", "<|im_end|>"), ("stop", "</s>")]
    assert ("temperature", "0") in found["parameters"] and ("repeat_penalty", "1") in found["parameters"]


@pytest.mark.parametrize("text", ['say """', '"quoted"', "zero\u200bwidth"])
def test_what_a_modelfile_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="a Modelfile cannot hold"):
        modelfile.write("m.gguf", "{{ .Content }}", [], text)
