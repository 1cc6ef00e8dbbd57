"""A reward model: of two answers to a prompt the better is to have the higher score.

It reads what the grader of that name reads: the whole conversation in the chat template. The score stands at the
conversation's last token, as transformers' classifiers have it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.config.stages import RewardModeling
from sharpen.data.formats.messages import require_text
from sharpen.data.render import branches, too_long
from sharpen.data.shown import require_all_shown
from sharpen.errors import DataError
from sharpen.graders.reward_model import control_texts, conversation, shown_turns
from sharpen.models import scorer
from sharpen.stages import epochs
from sharpen.stages.work import Work
from sharpen.train.bradley_terry import BradleyTerry
from sharpen.types import Labelled, Message, Preference, Tool
from sharpen.types import Sequence as Row


async def run(stage: RewardModeling, work: Work) -> None:
    """Train on the stage's rows; publishes the model."""
    await epochs.run(stage, work, Comparisons(stage, work))


class Comparisons(epochs.Lesson):
    """Two answers to each prompt, of which the first is to be scored higher than the second."""

    def __init__(self, stage: RewardModeling, work: Work) -> None:
        """Raises DataError for a bad validation row."""
        super().__init__(stage, work)
        self._stage = stage
        self._loss = BradleyTerry(stage.center_rewards_coefficient or 0.0)
        self._tokenizer, self._pad = work.loaded.tokenizer, scorer.pad_token(work.loaded)
        self._special = control_texts(self._tokenizer)
        self._watched = self.held_out()

    def at(self, step: int) -> epochs.Learned:
        """The pairs of a step, better and worse in turn."""
        return self.rendered(epochs.chosen(self._stage, self._work, step)), self._loss

    def watched(self) -> epochs.Learned | None:
        """The validation pairs."""
        return (self._watched, self._loss) if self._watched else None

    def render(self, row: Labelled | Preference) -> tuple[Row, Row]:
        """The trainer's rows of the better and the worse answer; what both begin with is computed once.

        A row ends in a token that stands for the score: it is what the last one read is asked for. Raises DataError.
        """
        assert isinstance(row, Preference)
        place = row.place or row.id
        read = (self._read(row, answer, place) for answer in (row.chosen, row.rejected))
        chosen, rejected = (Row((*tokens, self._pad), (*[False] * len(tokens), True), row.id) for tokens in read)
        return branches(row, chosen, rejected)

    def _read(self, row: Preference, answer: Sequence[Message], place: str) -> tuple[int, ...]:
        """The tokens of a conversation, up to the one that is scored."""
        messages = [*row.messages, *shown_turns(answer, self._special)]
        require_text(messages, place)
        require_all_shown(self._written, messages, row.tools, (), place)
        text = self._written(messages, row.tools)
        tokens = scorer.read(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], self._pad)
        if not tokens:
            raise DataError("there is nothing to read", file=place, remedy="Give the row messages with text")
        if len(tokens) > self._stage.max_length:
            raise too_long(place, len(tokens), self._stage.max_length)
        return tokens

    def _written(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        try:
            return conversation(self._tokenizer, messages, tools)
        except ValueError as error:
            raise DataError(
                str(error),
                value=[message["role"] for message in messages],
                remedy="Give the turns in the order and with the roles that the model knows",
            ) from error
