"""Pairs from conversations to gradients: the tokens, what they share, and what plain transformers makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM

from sharpen.config.optim import Optim
from sharpen.config.preferences import CPO, IPO, ORPO, PreferenceLoss, Sigmoid, SimPO
from sharpen.data.pack import pack
from sharpen.data.render import Renderer
from sharpen.errors import DataError
from sharpen.models.load import Loaded, load
from sharpen.stages.dpo import mismatched
from sharpen.train.engine import Engine
from sharpen.train.preferences import PairLoss
from sharpen.train.ranks import shares
from sharpen.types import Message, Preference
from sharpen.types import Sequence as Row
from tests.core.test_render import CALL, END, TOOL, TOOL_TEMPLATE, chat, trained_text
from tests.tiny import tiny_model, tiny_tokenizer

KEEP = Optim(lr=1e-9, schedule="constant", warmup_ratio=0.0, max_grad_norm=1e9)


class Watched(Engine):
    """Keeps the gradients the optimiser was given, and steps no further."""

    def _update(self, lr: float) -> None:
        self.gradients = [master.grad.clone() for master in self.masters if master.grad is not None]


def answers(*texts: str) -> tuple[Message, ...]:
    """Assistant turns, the user's between them."""
    return tuple(
        turn for text in texts for turn in ({"role": "user", "content": "And?"}, {"role": "assistant", "content": text})
    )[1:]


PAIRS = [
    Preference("one", chat("1+1?", system="Be brief"), answers("2"), answers("It may be three")),
    Preference("two", chat("Who?"), answers("We", "You", "All of us"), answers("We were")),
    Preference("three", chat("a", "b", "c"), answers("longest of all the answers here"), answers("long", "er")),
    Preference("four", chat("Say it"), answers("<|im_end|>\n<|im_start|>user\nNo"), answers("<|im_end|>")),
    Preference("five", chat("Say"), answers("now"), answers("now and then")),
    Preference("six", chat("Say so"), answers("xyz"), answers("abc")),
]
"""Of one turn and several, of answers that begin alike, that say marks of the template, and that share nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder, torch.float32)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return model.eval()


@pytest.fixture(scope="module")
def rows(loaded: Loaded) -> list[Row]:
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    return [row for pair in PAIRS for row in renderer.pair(pair, 1000)]


def by_transformers(model: Any, row: Row) -> Tensor:
    """log π (n,) of the row's trained tokens, the row alone in one pass."""
    logprobs = model(torch.tensor([row.tokens])).logits[0].log_softmax(-1)
    places = [place for place, trained in enumerate(row.mask) if trained]
    found: Tensor = logprobs[[place - 1 for place in places], [row.tokens[place] for place in places]]
    return found


def of_answer(row: Row) -> list[float]:
    return [value for value, trained in zip(row.old_logprobs, row.mask, strict=True) if trained]


def test_all_the_assistants_turns_of_an_answer_are_trained_and_no_other(rows: list[Row], loaded: Loaded) -> None:
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    texts = [trained_text(renderer, row) for row in rows]
    assert len({row.atom for row in rows}) == len(PAIRS)
    assert texts[:6] == [
        "2<|im_end|>",
        "It may be three<|im_end|>",
        "We<|im_end|>You<|im_end|>All of us<|im_end|>",
        "We were<|im_end|>",
        "longest of all the answers here<|im_end|>",
        "long<|im_end|>er<|im_end|>",
    ], "the answer `b` of the third prompt is not trained"
    for pair, (chosen, rejected) in zip(PAIRS, zip(rows[::2], rows[1::2], strict=True), strict=True):
        assert chosen.atom == rejected.atom
        prompt = renderer.prompt(pair.messages)
        for row, answer in ((chosen, pair.chosen), (rejected, pair.rejected)):
            assert row.tokens[: len(prompt)] == prompt and row.mask.index(True) == len(prompt)
            whole = loaded.tokenizer.apply_chat_template([*pair.messages, *answer], tokenize=False)
            assert loaded.tokenizer.decode(row.tokens) == whole.rstrip("\n")


def test_what_both_answers_begin_with_is_shared_and_nothing_more(rows: list[Row]) -> None:
    for chosen, rejected in zip(rows[::2], rows[1::2], strict=True):
        shared = chosen.shared
        assert shared == rejected.shared >= chosen.mask.index(True)
        assert chosen.tokens[:shared] == rejected.tokens[:shared]
        assert chosen.tokens[shared] != rejected.tokens[shared]
    assert rows[8].shared == rows[8].mask.index(True) + 3, "`now` is trained in both answers, and computed once"


@pytest.mark.parametrize("budget", [1, 64, 10_000])
def test_answers_have_the_logprobs_that_they_have_alone_and_in_transformers(
    loaded: Loaded, plain: Any, rows: list[Row], budget: int
) -> None:
    engine = Engine(loaded.model, KEEP, 1, budget)
    together = engine.score(rows, whole=True)
    alone = engine.score([replace(row, shared=0, atom=str(place)) for place, row in enumerate(rows)])
    for shared, single, row in zip(together, alone, rows, strict=True):
        with torch.no_grad():
            wanted = by_transformers(plain, row).tolist()
        assert of_answer(shared) == pytest.approx(wanted, abs=1e-4)
        assert of_answer(single) == pytest.approx(wanted, abs=1e-4)


def formula(of: PreferenceLoss, chosen: Sequence[Tensor], rejected: Sequence[Tensor], start: Sequence[float]) -> Tensor:
    """The mean over pairs, by the papers' formulas, of log π (n,) of the answers and log π_ref of each in turn."""
    pairs = list(zip(chosen, rejected, strict=True))
    away = [(one.sum() - start[2 * n], two.sum() - start[2 * n + 1]) for n, (one, two) in enumerate(pairs)]
    match of:
        case Sigmoid():
            losses = [-F.logsigmoid(of.beta * (one - two)) for one, two in away]
        case IPO():
            means = [(r[0] / len(one), r[1] / len(two)) for r, (one, two) in zip(away, pairs, strict=True)]
            losses = [(one - two - 1 / (2 * of.beta)) ** 2 for one, two in means]
        case SimPO():
            losses = [-F.logsigmoid(of.beta * (one.mean() - two.mean()) - of.simpo_gamma) for one, two in pairs]
        case CPO():
            nll = -torch.cat(list(chosen)).mean()
            losses = [-F.logsigmoid(of.beta * (one.sum() - two.sum())) + of.cpo_alpha * nll for one, two in pairs]
        case ORPO():
            nll = -torch.cat(list(chosen)).mean()
            odds = [[p / (1 - p) for p in (one.mean().exp(), two.mean().exp())] for one, two in pairs]
            losses = [nll - of.beta * F.logsigmoid(one.log() - two.log()) for one, two in odds]
        case _:
            raise AssertionError(of)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("of", [Sigmoid(), IPO(), SimPO(), ORPO(), CPO()], ids=str)
def test_a_steps_gradient_is_that_of_the_formula_in_transformers_at_any_budget(
    loaded: Loaded, plain: Any, rows: list[Row], of: PreferenceLoss
) -> None:
    model = plain.double()
    noise = torch.randn(len(rows), 60, generator=torch.Generator().manual_seed(1))
    told = [by_transformers(model, row) for row in rows]
    start = [one.detach() + by[: len(one)] for one, by in zip(told, noise, strict=True)]
    value = formula(of, told[::2], told[1::2], [float(one.sum()) for one in start])
    wanted = dict(
        zip(
            [name for name, _ in model.named_parameters()],
            torch.autograd.grad(value, list(model.parameters())),
            strict=True,
        )
    )
    given = []
    for row, one in zip(rows, start, strict=True):
        values = iter(one.tolist())
        given.append(replace(row, ref_logprobs=tuple(next(values) if trained else 0.0 for trained in row.mask)))
    for budget in (16, 64, 10_000):
        engine = Watched(loaded.model, KEEP, 1, budget)
        result = engine.step(given, PairLoss.of_step(of, given))
        assert result.loss == pytest.approx(float(value.detach()), rel=1e-4)
        of_chosen = float(torch.cat(told[::2]).detach().sum()) / len(PAIRS)
        assert result.metrics["logps/chosen"] == pytest.approx(of_chosen, rel=1e-4)
        names = [name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad]
        for name, gradient in zip(names, engine.gradients, strict=True):
            near = 1e-4 * float(wanted[name].abs().max())
            torch.testing.assert_close(gradient.double(), wanted[name], atol=near, rtol=1e-3, msg=f"{name} at {budget}")
    plain.float()


@pytest.mark.parametrize("budget", [1, 16, 64, 100, 10_000])
def test_a_pair_is_never_parted(rows: list[Row], budget: int) -> None:
    for part in (rows, *shares(rows, 2), *shares(rows, 5)):
        batches = list(pack(part, budget, whole=True))
        assert all(batch.rows % 2 == 0 for batch in batches)
        assert sum(batch.rows for batch in batches) == len(part)
        assert [row.atom for row in part[::2]] == [row.atom for row in part[1::2]]


def test_two_pairs_of_one_name_beside_each_other_stay_two(loaded: Loaded, plain: Any) -> None:
    """Rows may bear any `id`, pairs of one group stand in one place, and a short file's rows come twice in a step."""
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    named = [
        replace(pair, id=name, place=f"f:{line}") for pair, name, line in zip(PAIRS[:3], "aab", (1, 2, 2), strict=True)
    ]
    rows = [row for pair in (*named, named[2]) for row in renderer.pair(pair, 1000)]
    for row in Engine(loaded.model, KEEP, 1, 64).score(rows, whole=True):
        with torch.no_grad():
            assert of_answer(row) == pytest.approx(by_transformers(plain, row).tolist(), abs=1e-4)


def test_tools_and_calls_are_in_both_answers() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TOOL_TEMPLATE
    renderer = Renderer(tokenizer, frozenset({END}))
    looked = (CALL, {"role": "tool", "content": "31"}, {"role": "assistant", "content": "Yes"})
    pair = Preference("a", chat("Warm?"), looked, answers("I guess so"), tools=(TOOL,))
    chosen, rejected = renderer.pair(pair, 1000)
    call = '{"name": "weather", "arguments": {"c": "Rome"}}'
    assert trained_text(renderer, chosen) == f"{call}<|im_end|>Yes<|im_end|>"
    assert trained_text(renderer, rejected) == "I guess so<|im_end|>"
    for row in (chosen, rejected):
        assert tokenizer.decode(row.tokens).startswith('<|im_start|>system\n[{"type": "function"')


@pytest.mark.parametrize(
    ("changes", "max_length", "words"),
    [
        ({"rejected": answers("2")}, 1000, r"^f\.jsonl:3: chosen and rejected are the same"),
        (
            {"rejected": answers("It may be three")},
            50,
            r"^f\.jsonl:3: the row is longer than max_length = 50 .*got 57",
        ),
        ({"chosen": ()}, 1000, r"^f\.jsonl:3: no token of the row is trained"),
        ({"tools": (TOOL,)}, 1000, r"^f\.jsonl:3:tools: the chat template has no tool support"),
        (
            {"chosen": ({"role": "assistant", "content": [{"type": "image_url"}]},)},
            1000,
            r"^f\.jsonl:3:messages\[2\]\.content: .*no vision model",
        ),
    ],
)
def test_a_pair_that_cannot_be_used_is_named_with_its_place(
    loaded: Loaded, changes: dict[str, Any], max_length: int, words: str
) -> None:
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    with pytest.raises(DataError, match=words):
        renderer.pair(replace(PAIRS[0], place="f.jsonl:3", **changes), max_length)


def test_mismatched_rows_are_each_prompt_with_the_answer_to_another(rows: list[Row]) -> None:
    given = [replace(row, shared=0, atom=str(place)) for place, row in enumerate(rows[::2])]
    found = mismatched(given)
    prompts = [row.tokens[: row.mask.index(True)] for row in given]
    said = [row.tokens[row.mask.index(True) :] for row in given]
    for place, row in enumerate(found):
        begin = row.mask.index(True)
        assert row.tokens[:begin] == prompts[place]
        other = said.index(row.tokens[begin:])
        assert other != place and row.mask[begin:] == given[other].mask[-len(said[other]) :]
    assert sorted(row.tokens[row.mask.index(True) :] for row in found) == sorted(said), "each answer once"
