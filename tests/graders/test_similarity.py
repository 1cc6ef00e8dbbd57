"""`text_similarity`: its fields, its faults, METEOR by hand, and `cosine` with an encoder made here.

That each metric is its library's is tested in test_golden.py.
"""

from __future__ import annotations

import asyncio
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.config.graders import Multi, TextSimilarity
from sharpen.config.load import parse
from sharpen.errors import ConfigError, GraderError
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample

METRICS = ("fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l")


def similarity(metric: str = "rouge_1", **fields: Any) -> TextSimilarity:
    return TextSimilarity.model_validate({"evaluation_metric": metric, **fields})


def graded(config: TextSimilarity | Multi, *texts: str, **item: Any) -> list[Grade]:
    with GraderPool(config, workers=1) as pool:
        return asyncio.run(pool.grade_many([(Example("e", (), item), Sample(text)) for text in texts]))


def alone(config: TextSimilarity, text: str, **item: Any) -> Grade:
    made: Grade = asyncio.run(config.build().grade(Example("e", (), item), Sample(text)))
    return made


def kind(given: Grade) -> str:
    return given.fault.kind if given.fault else ""


def refused(grader: dict[str, Any]) -> str:
    recipe = {"model": "m", "stages": [{"type": "rft", "data": {"path": "a"}, "grader": grader}]}
    with pytest.raises(ConfigError) as caught:
        parse(recipe)
    return str(caught.value)


def test_the_metric_is_named_and_the_texts_stand_where_they_are_said_to_be() -> None:
    assert "evaluation_metric: is missing" in refused({"type": "text_similarity"})
    assert "'rouge_l'" in refused({"type": "text_similarity", "evaluation_metric": "rouge_9"})
    assert alone(similarity(), "a b", answer="a c").score == 0.5


@pytest.mark.parametrize(("threshold", "metrics"), [(None, {}), (0.5, {"passed": 1.0}), (0.7, {"passed": 0.0})])
def test_a_threshold_is_told_and_changes_no_score(threshold: float | None, metrics: dict[str, float]) -> None:
    """Of three words two are right: precision and recall are 2/3."""
    config = similarity("rouge_1", pass_threshold=threshold)
    given = alone(config, "the red dog", answer="the red cat")
    assert given.score == pytest.approx(2 / 3) and given.metrics == metrics
    assert alone(similarity(reference="{{ item.gold }}"), "a b", answer="a c", gold="a b").score == 1
    assert alone(similarity(input="{{ sample.output_json.said }}"), '{"said": "a c"}', answer="a c").score == 1
    assert alone(similarity("rouge_2"), "a b", answer="a c").score == 0


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        # Fmean = P·R / (0.9·P + 0.1·R), times 1 - 0.5·(chunks / matches)³: Lavie and Agarwal 2007
        ("the cat sat", "the cat sat", 1 - 0.5 * (1 / 3) ** 3),
        ("sat the cat", "the cat sat", 1 - 0.5 * (2 / 3) ** 3),
        ("the cats", "the cat", 1 - 0.5 * (1 / 2) ** 3),  # one stem
        ("the cat", "the cat sat down", (1 * 0.5) / (0.9 * 1 + 0.1 * 0.5) * (1 - 0.5 * (1 / 2) ** 3)),
        ("a big house", "a large house", (2 / 3) * (1 - 0.5 * (2 / 2) ** 3)),  # no synonyms
        ("nothing here", "the cat", 0.0),
    ],
)
def test_meteor_is_its_papers_formula_without_synonyms(text: str, reference: str, score: float) -> None:
    given = alone(similarity("meteor"), text, answer=reference)
    assert given.score == pytest.approx(score)
    assert "without synonyms" in given.explanation


@pytest.mark.parametrize("metric", METRICS)
def test_a_reference_without_a_word_that_the_metric_reads_is_the_items_fault(metric: str) -> None:
    for reference in ("", " \n", "日本語" if metric.startswith("rouge") else "\t"):
        given = alone(similarity(metric), "日本語", answer=reference)
        assert (given.score, kind(given)) == (None, "invalid_variable_error"), reference
    assert alone(similarity(metric), "", answer="one two three four five").score == 0
    assert kind(alone(similarity(metric), "text")) == "invalid_variable_error"


@pytest.mark.parametrize("metric", METRICS)
def test_the_score_lies_between_none_and_whole_and_grows_with_likeness(metric: str) -> None:
    reference = "one two three four five six seven eight"
    texts = ("nine ten", "one two three four five six nine ten", reference)
    far, near, same = (alone(similarity(metric), text, answer=reference).score for text in texts)
    assert far is not None and near is not None and same is not None
    assert 0 <= far < near < same <= 1
    assert same == (pytest.approx(1 - 0.5 / 8**3) if metric == "meteor" else 1)


def test_a_jail_grades_by_every_library_and_the_same_grade_comes_again() -> None:
    parts = {metric: {"type": "text_similarity", "evaluation_metric": metric} for metric in METRICS}
    config = Multi.model_validate({"graders": parts, "calculate_output": " + ".join(METRICS)})
    item = {"answer": "The cat sat on the mat and slept."}
    with GraderPool(config, workers=1) as pool:
        pairs = [(Example("e", (), item), Sample("A cat sat on the mat."))] * 2
        first, again = asyncio.run(pool.grade_many(pairs))
        assert first == again and pool.repeatable(first)
    for metric, score in first.metrics.items():
        assert score == alone(similarity(metric), "A cat sat on the mat.", **item).score


# cosine


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights that reads letters, digits and spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase, *string.digits]
    inner = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=34, initializer_range=0.5,
    )  # fmt: skip
    BertModel(shape).save_pretrained(folder)
    return folder


def vector(folder: Path, text: str) -> Any:
    """The mean of the last hidden states, by transformers and numpy alone."""
    from transformers import AutoTokenizer, BertModel

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        states = BertModel.from_pretrained(folder)(**tokens).last_hidden_state[0].numpy()
    return states.mean(axis=0)


def test_cosine_is_that_of_the_encoders_mean_states(encoder: Path) -> None:
    config = similarity("cosine", embedding_model=str(encoder))
    texts = ("the cat sat", "a dog ran", "the cat sat", "zzz")
    given = graded(config, *texts, answer="the cat sat")
    right = vector(encoder, "the cat sat")
    for text, grade in zip(texts, given, strict=True):
        left = vector(encoder, text)
        wanted = float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
        assert grade.score == pytest.approx(max(wanted, 0.0), abs=1e-5)
    assert given[0] == given[2] and given[0].score == pytest.approx(1.0)
    assert len({grade.score for grade in given}) == 3


def test_cosine_says_when_it_has_read_only_the_beginning(encoder: Path) -> None:
    config = similarity("cosine", embedding_model=str(encoder))
    short, cut, cut_alike = graded(config, "a" * 30, "a" * 31, "a" * 30 + "zzzzz", answer="a" * 30)
    assert (short.metrics, cut.metrics) == ({"cut": 0.0}, {"cut": 1.0})
    assert cut.score == cut_alike.score == pytest.approx(1.0)
    assert "only the first 32 tokens" in cut.explanation


def test_cosine_knows_whose_fault_an_empty_text_is(encoder: Path) -> None:
    config = similarity("cosine", embedding_model=str(encoder))
    with GraderPool(config) as pool:
        items: list[dict[str, Any]] = [{"answer": ""}, {}, {"answer": "a"}]
        given = asyncio.run(pool.grade_many([(Example("e", (), item), Sample("a")) for item in items]))
        assert not pool.repeatable(given[2]), "another machine may round in another way"
    assert [kind(grade) for grade in given] == ["invalid_variable_error", "invalid_variable_error", ""]
    assert given[2].score == pytest.approx(1.0)


def test_only_cosine_has_an_encoder_and_it_must_have_one() -> None:
    assert "cosine needs an `embedding_model`" in refused({"type": "text_similarity", "evaluation_metric": "cosine"})
    words = refused({"type": "text_similarity", "evaluation_metric": "bleu", "embedding_model": "m"})
    assert "only cosine takes an `embedding_model`" in words


def test_an_encoder_that_may_not_be_loaded_is_refused_with_the_reason(encoder: Path, tmp_path: Path) -> None:
    def start(name: str) -> str:
        with GraderPool(similarity("cosine", embedding_model=name)) as pool, pytest.raises(GraderError) as caught:
            asyncio.run(pool.start())
        return str(caught.value)

    def copy(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path in encoder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    assert "embedding_model: no such model" in start("no-such-encoder")
    own_code = copy("own code")
    config = json.loads((own_code / "config.json").read_text())
    (own_code / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    assert "its own Python code" in start(str(own_code))
    pickled = copy("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "only safetensors are read" in start(str(pickled))
    damaged = copy("damaged")
    (damaged / "model.safetensors").write_bytes(b"no tensors")
    assert "cannot be loaded or used" in start(str(damaged))
    lacking = copy("lacking")
    (lacking / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert "weights are missing" in start(str(lacking))
