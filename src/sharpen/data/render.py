"""Messages to tokens and back: the only user of chat templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharpen.data.plain import Marks, Plain
from sharpen.errors import DataError
from sharpen.types import Example, Labelled, Message, Sample, Segment
from sharpen.types import Sequence as Row


class Renderer:
    """Renders conversations with a model's own tokenizer and chat template.

    The text of a control token inside a message stays plain text (`data.plain`).
    """

    def __init__(self, tokenizer: Any, stop: frozenset[int]) -> None:
        """`stop` are the tokens that end an assistant's turn."""
        self.tokenizer = tokenizer
        self.stop = stop
        self._controls = Plain(tokenizer)

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens after which the assistant speaks."""
        hidden, marks = self._controls.hide(messages)
        return self._encode(self._template(hidden, ask=True), marks)

    def example(self, example: Example) -> tuple[int, ...]:
        """The prompt tokens of an example."""
        return self.prompt(example.messages)

    def labelled(self, row: Labelled, max_length: int) -> Row:
        """A trainer's row: the trained turns and the token that ends each are masked in, all else out.

        The text is rendered piece by piece, so that a turn's tokens are those the model would make after
        its prompt. Raises DataError when the row is longer than `max_length` tokens, when no token of it is
        trained, when the template rewrites earlier turns, or when a trained turn has no end token.
        """
        messages, marks = self._controls.hide(row.messages)
        tokens: list[int] = []
        mask: list[bool] = []
        rendered = ""
        for index in row.trained:
            opening = self._template(messages[:index], ask=True)
            closing = self._template(messages[: index + 1], ask=False)
            if not (opening.startswith(rendered) and closing.startswith(opening)):
                raise DataError(
                    "the model's chat template rewrites earlier turns, so this conversation has no single rendering",
                    file=row.id,
                    field=f"messages[{index}]",
                    remedy="Split the conversation into one row per trained turn (prompt and completion)",
                )
            before = self._encode(opening[len(rendered) :], marks)
            turn = self._encode(closing[len(opening) :], marks)
            tokens += [*before, *turn]
            mask += [False] * len(before) + self._turn_mask(row, index, turn)
            rendered = closing
        last = max((i for i, trained in enumerate(mask) if trained), default=-1)
        if last < 0:
            raise DataError(
                "no token of the row is trained", file=row.id, remedy="Give it an answer to learn, or drop the row"
            )
        tokens, mask = tokens[: last + 1], mask[: last + 1]
        if len(tokens) > max_length:
            raise too_long(row.id, len(tokens), max_length)
        return Row(tokens=tuple(tokens), mask=tuple(mask), atom=row.id)

    def sample(self, segment: Segment) -> Sample:
        """What a grader sees of a completion: its text, without the token that ended it."""
        made = [token for token, sampled in zip(segment.tokens, segment.mask, strict=True) if sampled]
        stopped = bool(made) and made[-1] in self.stop
        text = self.tokenizer.decode(made[:-1] if stopped else made, skip_special_tokens=False)
        return Sample(str(text), "stop" if stopped else "length")

    def _turn_mask(self, row: Labelled, index: int, turn: tuple[int, ...]) -> list[bool]:
        ends = [place for place, token in enumerate(turn) if token in self.stop]
        if not ends:
            raise DataError(
                "the chat template ends the assistant's turn without an end token, so the model cannot learn to stop",
                file=row.id,
                field=f"messages[{index}]",
                remedy="Use a model whose chat template closes each turn",
            )
        return [place <= ends[-1] for place in range(len(turn))]

    def _template(self, messages: Sequence[Message], *, ask: bool) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=ask, tokenize=False))
        except Exception as error:  # a foreign boundary: templates are programs of the model's folder
            roles = [message["role"] for message in messages]
            raise DataError(
                f"the model's chat template refuses the conversation: {error}",
                value=roles,
                remedy="Give the turns in the order and with the roles that the model knows",
            ) from error

    def _encode(self, text: str, marks: Marks) -> tuple[int, ...]:
        return self._controls.encode(text, marks)


def too_long(file: str, length: int, max_length: int) -> DataError:
    """The error of a row of `length` tokens."""
    return DataError(
        f"the row is longer than max_length = {max_length} tokens",
        file=file,
        value=length,
        remedy="Raise max_length, or shorten or drop the row",
    )
