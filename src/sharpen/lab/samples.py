"""What is graded: texts from a file, drawn from a model, or the rows' own reference answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.config.recipe import Eval
from sharpen.data import files
from sharpen.data.read import Record, Where
from sharpen.errors import DataError
from sharpen.graders.template import InvalidVariable, render
from sharpen.lab.trial import Text
from sharpen.runs.observer import Observer
from sharpen.types import Example, Finish, Sample

TEXTS = ("output_text", "text", "completion")
"""Fields that hold a line's text; the first of them that is there counts."""

IDS = ("id", "example")
"""Fields that name a line's row; the second is that of a run's rollouts."""

GOLD = "{{ item.answer }}"


class Given(NamedTuple):
    """The texts of a file, and how many of its lines belong to no row."""

    texts: list[Text]
    unmatched: int


class Rows:
    """Examples by their id, and by their prompt where several share one."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self._places: dict[str, list[int]] = {}
        for place, example in enumerate(examples):
            self._places.setdefault(example.id, []).append(place)

    def find(self, name: str, prompt: Any = None) -> int | None:
        """The place of the example that a line is about; None where there is none, or no single one."""
        places = self._places.get(name, [])
        if len(places) > 1:
            places = [place for place in places if list(self.examples[place].messages) == prompt]
        return places[0] if len(places) == 1 else None


def read(path: Path, examples: Sequence[Example]) -> Given:
    """The texts of a file: a line names its row by `id`, or else stands in the rows' order.

    A run's own rollouts and evals are such files; the drawn answers in the latter are read too. Raises DataError.
    """
    lines = list(files.rows(path))
    named = any(name in record for _, record in lines for name in IDS)
    rows = Rows(examples)
    texts: list[Text] = []
    counts: dict[int, int] = {}
    unmatched = 0
    for number, (where, record) in enumerate(lines):
        row = rows.find(_id(record, where), record.get("prompt")) if named else number
        if row is None or row >= len(examples):
            unmatched += 1
            continue
        for sample in _samples(record, where):
            texts.append(Text(examples[row], sample, row, counts.get(row, 0), record))
            counts[row] = counts.get(row, 0) + 1
    if not texts:
        raise DataError(
            "none of its lines belongs to a row of the data",
            file=str(path),
            value=_id(lines[0][1], lines[0][0]) if named else None,
            remedy=f"The rows are called {examples[0].id}, ...; write that as `id`",
        )
    return Given(texts, unmatched)


def sample_of(record: Mapping[str, Any], text: str) -> Sample:
    """What a grader sees of a recorded attempt, its turns in an environment among it."""
    finish: Finish = "length" if record.get("finish") == "length" else "stop"
    return Sample(text, finish, tuple(record.get("messages") or ()), record.get("env_state"), _thoughts(record))


def _thoughts(record: Mapping[str, Any]) -> str:
    reasoning = record.get("reasoning")
    return reasoning if isinstance(reasoning, str) else ""


def gold(example: Example, template: str = GOLD) -> str | None:
    """The row's reference answer, or None where it has none, or a blank one."""
    try:
        text = render(template, example, Sample(""))
    except InvalidVariable:
        return None
    return text if text.strip() else None


def as_template(field: str) -> str:
    """A field's name as a template; a template as it is."""
    return field if "{{" in field else f"{{{{ item.{field} }}}}"


def gold_texts(examples: Iterable[Example], template: str) -> list[Text]:
    """The reference answers of the rows that have one."""
    answers = ((row, example, gold(example, template)) for row, example in enumerate(examples))
    return [Text(example, Sample(text), row) for row, example, text in answers if text is not None]


async def draw(model: str, config: Eval, examples: Sequence[Example], seed: int, observer: Observer) -> list[Text]:
    """`config.samples` answers of a model to each example, drawn at `config.temperature`. Raises ModelError."""
    from sharpen.models.load import compute_dtype, load  # imports torch, as does what follows
    from sharpen.stages.evaluate import answers
    from sharpen.stages.following import SharedSampler
    from sharpen.train.ranks import Ranks

    loaded = load(model, compute_dtype("auto"))
    if loaded.notice:
        observer.event({"event": "alert", "kind": "slow_path", "message": loaded.notice})
    rollouts = await answers(
        config,
        examples,
        loaded,
        SharedSampler(loaded, Ranks()),
        config.temperature,
        [(seed, config.name, place) for place in range(config.samples)],
        None,
        lambda done, total: observer.progress("sampling", done, total),
    )
    texts = []
    for number, rollout in enumerate(rollouts):
        row, place = divmod(number, config.samples)
        texts.append(Text(examples[row], rollout.sample, row, place))
    return texts


def _id(record: Record, where: Where) -> str:
    for name in IDS:
        if isinstance(record.get(name), str | int):
            return str(record[name])
    raise where.error("other lines name their row, this one does not", remedy="Give it an `id`")


def _samples(record: Record, where: Where) -> Iterator[Sample]:
    name = next((name for name in TEXTS if name in record), None)
    if name is None or not isinstance(record[name], str):
        fact = "has no text" if name is None else "is no text"
        remedy = f"Write it under {', '.join(f'`{known}`' for known in TEXTS)}"
        raise where.error(fact, field=name or "", value=sorted(record) if name is None else record[name], remedy=remedy)
    yield sample_of(record, record[name])
    drawn = record.get("samples")
    for other in drawn if isinstance(drawn, list) else ():
        if isinstance(other, dict) and isinstance(other.get("text"), str):
            yield Sample(other["text"], reasoning=_thoughts(other))
