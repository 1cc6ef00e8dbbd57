"""Messages to tokens and back: the only user of chat templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sharpen.completion import Parted, part, thinking
from sharpen.data.formats.messages import require_text
from sharpen.data.plain import Marks, Plain
from sharpen.data.shown import require_all_shown
from sharpen.errors import DataError
from sharpen.types import Example, Labelled, Message, Preference, Sample, Segment, Tool
from sharpen.types import Sequence as Row


class Renderer:
    """Renders conversations with a model's own tokenizer and chat template, and the template's `chat_template_kwargs`.

    The text of a control token inside a message stays plain text (`data.plain`). `thinking` says how the model marks
    its thoughts, None where it marks none.
    """

    def __init__(self, tokenizer: Any, stop: frozenset[int]) -> None:
        """`stop` are the tokens that end an assistant's turn."""
        self.tokenizer = tokenizer
        self.stop = stop
        self.thinking = thinking(_template_text(tokenizer), _added(tokenizer))
        self._kwargs = getattr(tokenizer, "chat_template_kwargs", {})
        self._controls = Plain(tokenizer)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """The tokens after which the assistant speaks."""
        hidden, described, marks = self._controls.hide(messages, tools)
        return self._encode(self._template(hidden, described, ask=True), marks)

    def example(self, example: Example) -> tuple[int, ...]:
        """The prompt tokens of an example.

        Raises DataError for content in parts, and for tools that the chat template would leave out.
        """
        place = example.place or example.id
        require_text(example.messages, place)
        require_all_shown(partial(self._template, ask=True), example.messages, example.tools, (), place)
        return self.prompt(example.messages, example.tools)

    def extend(
        self,
        tokens: tuple[int, ...],
        said: Sequence[Message],
        turn: Message,
        replies: Sequence[Message],
        tools: Sequence[Tool] = (),
        written: Parted = Parted(),  # noqa: B008 - it cannot change
    ) -> tuple[int, ...] | None:
        """The tokens after which the assistant speaks again, beginning with the very `tokens` it has seen and made.

        `tokens` are a rendering of the messages `said` and, sampled after it, the assistant's `turn` with the token
        that ended it; `replies` follow. `written` is what was sampled, where the turn has thoughts apart from its
        content. Returns None where no such tokens are what the template would write: it rewrites earlier turns (as
        those do that strip thoughts), or ends a turn otherwise than the model did.
        """
        hidden, described, marks = self._controls.hide([*said, turn, *replies], tools)
        opening = self._template(hidden[: len(said)], described, ask=True)
        whole = self._template(hidden, described, ask=True)
        end = str(self.tokenizer.decode(tokens[-1:], skip_special_tokens=False))
        own = hidden[len(said)]
        thoughts = f"{written.before}{own.get('reasoning_content', '')}{written.between}"
        kept = f"{opening}{thoughts}{own['content']}{end}"
        if tokens[-1] not in self.stop or not whole.startswith(kept):
            return None
        return (*tokens, *self._encode(whole[len(kept) :], marks))

    def labelled(self, row: Labelled, max_length: int) -> Row:
        """A trainer's row: the trained turns and the token that ends each are masked in, all else out.

        The text is rendered piece by piece, so that a turn's tokens are those the model would make after
        its prompt. Raises DataError when the row is longer than `max_length` tokens, when no token of it is
        trained, when the template rewrites earlier turns or leaves tools, calls or reasoning out, or when a trained
        turn has no end token. Plain text is rendered as it is, with the token that ends texts; its first token has
        nothing to be predicted from, so it is not trained.
        """
        place = row.place or row.id
        tokens, mask = self._text(row.text) if row.text else self._turns(row, place)
        if not any(mask):
            raise DataError(
                "no token of the row is trained", file=place, remedy="Give it an answer to learn, or drop the row"
            )
        if len(tokens) > max_length:
            raise too_long(place, len(tokens), max_length)
        return Row(tokens=tuple(tokens), mask=tuple(mask), atom=row.id)

    def pair(self, row: Preference, max_length: int) -> tuple[Row, Row]:
        """The trainer's rows of the better and the worse answer, of which all assistant turns are masked in; what both
        begin with is computed once.

        Raises DataError as `labelled`, and where both answers are the same tokens.
        """
        chosen, rejected = (self.labelled(row.answered(answer), max_length) for answer in (row.chosen, row.rejected))
        return branches(row, chosen, rejected)

    def _text(self, text: str) -> tuple[list[int], list[bool]]:
        tokens = self._controls.text(text)
        end = self.tokenizer.eos_token_id
        if end is not None and tokens[-1:] != [end]:
            tokens.append(end)
        return tokens, [False] + [True] * (len(tokens) - 1)

    def _turns(self, row: Labelled, place: str) -> tuple[list[int], list[bool]]:
        require_text(row.messages, place)
        require_all_shown(partial(self._template, ask=False), row.messages, row.tools, row.trained, place)
        messages, tools, marks = self._controls.hide(row.messages, row.tools)
        tokens: list[int] = []
        mask: list[bool] = []
        rendered = ""
        for index in row.trained:
            opening = self._template(messages[:index], tools, ask=True)
            closing = self._template(messages[: index + 1], tools, ask=False)
            if not (opening.startswith(rendered) and closing.startswith(opening)):
                raise self._no_rendering(opening[len(rendered) :], place, index)
            before = self._encode(opening[len(rendered) :], marks)
            turn = self._encode(closing[len(opening) :], marks)
            tokens += [*before, *turn]
            mask += [False] * len(before) + self._turn_mask(place, index, turn)
            rendered = closing
        last = max((i for i, trained in enumerate(mask) if trained), default=-1)
        return tokens[: last + 1], mask[: last + 1]

    def sample(self, segment: Segment) -> Sample:
        """What a grader sees of a completion: its answer, without the token that ended it, and its thoughts."""
        made = self.parted(segment)
        stopped = any(segment.mask) and segment.tokens[-1] in self.stop
        return Sample(made.answer, "stop" if stopped else "length", reasoning=made.reasoning)

    def parted(self, segment: Segment) -> Parted:
        """A completion's thoughts and answer: all after the prompt, without the token that ended it."""
        begin = segment.mask.index(True) if any(segment.mask) else len(segment.tokens)
        made = segment.tokens[begin:]
        stopped = bool(made) and made[-1] in self.stop
        text = self.tokenizer.decode(made[:-1] if stopped else made, skip_special_tokens=False)
        opened = self.thinking is not None and self.ends_in(segment.tokens[:begin], self.thinking.begins)
        return part(str(text), self.thinking, opened)

    def control(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that stands for the template: its marks are control tokens."""
        return self._encode(text, {})

    def ends_in(self, prompt: tuple[int, ...], mark: str) -> bool:
        """Whether a prompt ends in this mark and white space: it has opened the thoughts, or closed them."""
        tail = self.tokenizer.decode(prompt[-2 * len(mark) :], skip_special_tokens=False)
        return str(tail).rstrip().endswith(mark)

    def _no_rendering(self, opening: str, place: str, index: int) -> DataError:
        """The error of a turn that does not continue what the template has written before it."""
        fact = "rewrites earlier turns, so this conversation has no single rendering"
        remedy = "Split the conversation into one row per trained turn (prompt and completion)"
        if self.thinking and opening.rstrip().endswith(self.thinking.ends):
            fact = "has closed the thoughts before the answer, and this answer has some"
            remedy = "Take them out of the row, or let the model think (chat_template_kwargs: {enable_thinking: true})"
        elif self.thinking and opening.rstrip().endswith(self.thinking.begins):
            fact = f"asks for an answer that begins after {self.thinking.begins}, and writes answers without thoughts"
            remedy = "Use a template that writes `reasoning_content`, as Qwen3's does: put it into chat_template.jinja"
        return DataError(f"the model's chat template {fact}", file=place, field=f"messages[{index}]", remedy=remedy)

    def _turn_mask(self, place: str, index: int, turn: tuple[int, ...]) -> list[bool]:
        ends = [place for place, token in enumerate(turn) if token in self.stop]
        if not ends:
            raise DataError(
                "the chat template ends the assistant's turn without an end token, so the model cannot learn to stop",
                file=place,
                field=f"messages[{index}]",
                remedy="Use a model whose chat template closes each turn",
            )
        return [place <= ends[-1] for place in range(len(turn))]

    def _template(self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, ask: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, add_generation_prompt=ask, tokenize=False, **self._kwargs
            )
            return str(text)
        except Exception as error:  # a foreign boundary: templates are programs of the model's folder
            roles = [message["role"] for message in messages]
            order = "Give the turns in the order and with the roles that the model knows"
            raise DataError(
                f"the model's chat template refuses the conversation: {error}",
                value=roles,
                remedy=f"{order} (env.reply_role: user, where it knows no tool turns)" if "tool" in roles else order,
            ) from error

    def _encode(self, text: str, marks: Marks) -> tuple[int, ...]:
        return self._controls.encode(text, marks)


def _template_text(tokenizer: Any) -> str:
    """The chat template, or all of them where there are several."""
    template = getattr(tokenizer, "chat_template", None) or ""
    return "".join(template.values()) if isinstance(template, dict) else str(template)


def _added(tokenizer: Any) -> set[str]:
    return {entry.content for entry in getattr(tokenizer, "added_tokens_decoder", {}).values()}


def too_long(file: str, length: int, max_length: int) -> DataError:
    """The error of a row of `length` tokens."""
    return DataError(
        f"the row is longer than max_length = {max_length} tokens",
        file=file,
        value=length,
        remedy="Raise max_length, or shorten or drop the row",
    )


def branches(row: Preference, chosen: Row, rejected: Row) -> tuple[Row, Row]:
    """The trainer's rows of a pair's answers as one atom, with what both begin with.

    Raises DataError where both are the same tokens.
    """
    if chosen.tokens == rejected.tokens:
        raise DataError(
            "chosen and rejected are the same once the chat template has written them",
            file=row.place or row.id,
            remedy="Remove the row: it teaches nothing",
        )
    longest = min(len(chosen.tokens), len(rejected.tokens)) - 1
    shared = next((i for i in range(longest) if chosen.tokens[i] != rejected.tokens[i]), longest)
    atom = f"{row.place} {row.id}"  # neither is unique alone: files of one name, several pairs of one group
    return replace(chosen, shared=shared, atom=atom), replace(rejected, shared=shared, atom=atom)
