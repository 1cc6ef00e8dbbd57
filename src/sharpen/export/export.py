"""`sharpen export`: a model is written in another form, loaded again from there, compared, and only then published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharpen.errors import ModelError
from sharpen.export import files, gguf, gotemplate, modelfile, ollama, proof, push, reading
from sharpen.export.card import card
from sharpen.export.order import Order
from sharpen.export.proof import Check
from sharpen.export.source import Source, base_of_adapter, four_bits, kept_here
from sharpen.export.vocabulary import begins, vocabulary
from sharpen.models.adapter_files import ADAPTER
from sharpen.models.load import load_tokenizer
from sharpen.models.scorer import is_scorer
from sharpen.models.template import variables
from sharpen.runs import lineage
from sharpen.runs.manifest import publish

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Done:
    """What came out."""

    folder: Path
    checks: tuple[Check, ...]
    gguf: Path | None
    notes: tuple[str, ...]
    address: str
    """Where it stands on the hub; empty: it does not."""


def export(source: Source, order: Order, say: Say) -> Done:
    """Write, prove and publish an export.

    Raises ModelError where the model cannot be had in this form, and where the export does not compute what the model
    does: then nothing is published. RunError where the folder cannot be written or holds something already.
    """
    work = _Work(source, order, say)
    with publish(order.out, {"export": order.target}) as aside:
        proven = work.make(aside)
    address = push.push(order.out, order.push, order.public, say) if order.push else ""
    file = order.out / work.file.name if work.file else None
    return Done(order.out, tuple(proven), file, tuple(work.notes), address)


class _Work:
    """One export under way. All that can be refused is refused when it is made."""

    def __init__(self, source: Source, order: Order, say: Say) -> None:
        self.source, self.order, self.say = source, order, say
        self.notes: list[str] = []
        self.file: Path | None = None
        self.template = ""
        if order.push:
            push.check(order.push)
        if source.scores and order.target != "hf":
            raise ModelError(
                "this is a reward model, which can be exported with --to hf alone",
                value=f"--to {order.target}",
                remedy="It gives scores in the place of text, and what reads the other forms expects text",
            )
        order.check_place(source.weigh())
        self.words: Any
        self.stop: frozenset[int] = frozenset()
        if source.scores:
            self.words = reading.tokenizer(source.folder)
        else:
            self.words, self.stop = load_tokenizer(str(source.folder), say)
        self.base: tuple[Path, str, str | None] | None = None
        has_adapter = (source.folder / ADAPTER / "adapter_config.json").is_file()
        if order.target == "peft" or (order.target == "hf" and has_adapter and not source.scores):
            self.base = self._find_base()
        if order.target == "merged" and not has_adapter:
            self.notes.append(
                "The model had no adapter to merge: all its weights were trained. This is what --to hf writes"
            )
        if order.packs:
            gguf.check(source.config)
            vocabulary(self.words, source.config["vocab_size"])
        if order.target == "ollama":
            self.template = ollama.template(self._render)
            self._note_template()

    def _find_base(self) -> tuple[Path, str, str | None] | None:
        """What the adapter lies on. Raises ModelError where it is not found and an adapter is what is asked for."""
        try:
            return base_of_adapter(self.source, self.say)
        except ModelError as error:
            if self.order.target == "peft":
                raise
            self.notes.append(f"The adapter is left out: {error.fact}")
            return None

    def make(self, folder: Path) -> list[Check]:
        """Fill the folder, and say what was proven. Raises ModelError where the proof failed."""
        self.say(f"Writing {self.source.name} as {self._called}")
        self._write(folder)
        self.say("Proof: loading the original and the export anew, and comparing them")
        facts = {"model": self.source.name, "target": self.order.target, "how": self._how}
        if self.order.packs:
            facts["quantize"] = self.order.kind
        checks = self._compare(folder)
        if missed := [check for check in checks if not check.passed]:
            raise _failed(missed)
        found = proof.record(checks, folder, facts)
        (folder / "proof.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
        if self.source.lineage:
            shutil.copyfile(self.source.folder / lineage.NAME, folder / lineage.NAME)
        file = self.file.name if self.file else ""
        text = card(self.source, self.order.target, checks, self._how, file, self.order.push)
        (folder / "README.md").write_text(text, "utf-8")
        return checks

    def _write(self, folder: Path) -> None:
        if self.order.packs:
            self.file = files.packed(self.source, self.words, self.stop, folder, self.order.kind, self.say)
            if self.order.target == "ollama":
                files.for_ollama(self.source, self.words, self.stop, self.file, self.template)
        elif self.order.target == "peft":
            assert self.base
            files.adapter(self.source, folder, self.base[1], self.base[2])
            files.language(self.source, folder)
        else:
            files.whole(self.source, folder)
            if self.base:
                files.adapter(self.source, folder / ADAPTER, self.base[1], self.base[2])
        if self.base:
            self._note_base()

    def _compare(self, folder: Path) -> list[Check]:
        """What the export is compared with its original in; one model is in memory at a time."""
        if self.source.scores:
            return self._compare_scores(folder)
        original = proof.reference(reading.causal(self.source.folder), self.words, self.stop)
        if self.order.packs:
            assert self.file
            model, words = reading.packed(self.file)
            checks = proof.alike(original, proof.logits(model, original.texts), proof.LIMITS[self.order.kind])
        else:
            model, words = self._plain(folder), reading.tokenizer(folder)
            checks = proof.same_choices(original, proof.logits(model, original.texts))
        checks += proof.same_language(self.words, words)
        if self.order.target == "ollama":
            checks.append(self._compare_template(folder, words))
        return checks

    def _plain(self, folder: Path) -> Any:
        if self.order.target != "peft":
            return reading.causal(folder)
        assert self.base
        dtype = getattr(torch, str(self.source.config.get("dtype", "float32")))
        return reading.adapted(self.base[0], folder, dtype, four_bits(self.source.lineage))

    def _compare_scores(self, folder: Path) -> list[Check]:
        texts = [self.words.encode(text) for text in (*proof.PROMPTS, *proof.TEXTS)]
        scores = []
        for place in (self.source.folder, folder):
            model = reading.scorer(place)
            assert is_scorer(model), type(model)
            with torch.no_grad():
                scores.append(torch.cat([model(torch.tensor([tokens])).logits for tokens in texts]))
        return [*proof.same_scores(*scores), *proof.same_language(self.words, reading.tokenizer(folder))]

    def _compare_template(self, folder: Path, words: Any) -> Check:
        """Whether the Modelfile's TEMPLATE and the GGUF's bos are the tokens that the chat template makes."""
        made = modelfile.read((folder / "Modelfile").read_text("utf-8"))["template"]
        starts, differing, count = [words.bos_token_id] if begins(self.words) else [], 0, 0
        for messages in ollama.conversations():
            wanted = ollama.rendered(self._render, messages)
            if wanted is None:
                continue
            count += 1
            text = gotemplate.render(made, ollama.values(messages))
            told = getattr(self.words, "chat_template_kwargs", {})
            tokens = self.words.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False, **told
            )
            differing += [*starts, *words.encode(text, add_special_tokens=False)] != list(tokens)
        return Check("conversations that the TEMPLATE makes other tokens of", differing, "at most", 0, count)

    def _render(self, messages: Any, answer: bool) -> str:
        """The chat template without the bos that readers of a GGUF put before it."""
        told = getattr(self.words, "chat_template_kwargs", {})
        text: str = self.words.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer, **told)
        return text.removeprefix(self.words.bos_token) if begins(self.words) else text

    def _note_template(self) -> None:
        if ollama.trims(self._render):
            self.notes.append(
                "The chat template takes away spaces around messages; Ollama's TEMPLATE cannot, and keeps them"
            )
        if "strftime_now" in variables(self.words.chat_template):
            self.notes.append("The chat template writes the day's date; Ollama's TEMPLATE keeps that of this export")
        if not ollama.takes_system(self._render):
            self.notes.append("The chat template takes no system message, so Ollama leaves one out")

    def _note_base(self) -> None:
        assert self.base
        folder, name, _ = self.base
        if kept_here(folder) or name.startswith("/"):
            self.notes.append(f"The adapter names its base by the folder {name}: others need that folder too")

    @property
    def _called(self) -> str:
        names = {"hf": "a transformers folder", "merged": "a merged transformers folder", "peft": "a PEFT adapter"}
        return names.get(self.order.target) or f"GGUF {self.order.kind.upper()}"

    @property
    def _how(self) -> str:
        if self.source.scores:
            return "scores of the same texts, both loaded by transformers, in float32"
        if self.order.packs:
            return "distributions at all positions of the same texts, the GGUF unpacked by transformers, in float32"
        if self.order.target == "peft":
            bits = " rounded to 4 bits as in training" if four_bits(self.source.lineage) else ""
            return f"greedy answers, the adapter merged by peft into its base{bits}, in float32"
        return "greedy answers, both loaded by transformers, in float32"


def _failed(checks: Sequence[Check]) -> ModelError:
    said = "; ".join(f"{check.name} {check.found}, must be {check.wanted}" for check in checks)
    return ModelError(
        f"the export does not compute what the model does, so it was removed: {said}",
        remedy="This should not be: please report it, with the model's config.json",
    )
