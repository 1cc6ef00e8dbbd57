"""Find out how a model may be called that does not compute on our attention, or refuse it: never a wrong result.

The measure is each sequence alone, without a cache. What is faster (sequences padded to one length, a cache, rows
that decode together) is used only where it gives the same on a few tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from sharpen.errors import ModelError
from sharpen.models import plain
from sharpen.models.attention import Span
from sharpen.models.plain import Plain
from sharpen.models.proof import LARGE, Unknown, brief, check_finite, close, enlarged, name_of
from sharpen.models.rows import Rows

_LENGTHS = (7, 9, 4)  # of three sequences
_GIVEN = (3, 5, 2)  # so many tokens of each are its prompt

_WORDS: dict[Literal["batch", "row", "none"], str] = {
    "batch": "rows decode together",
    "row": "rows decode one by one",
    "none": "each new token computes its whole row anew",
}


@torch.no_grad()
def fall_back(model: Any, dtype: torch.dtype) -> str:
    """Note on the model how it is to be called (`plain.how`), and say so in words.

    Raises Unknown where transformers itself cannot run or train it, where a prediction depends on later tokens, or
    where its logits are no linear map, scaled or softly capped. Raises ModelError for numbers that are not finite.
    """
    kind = model.config.get_text_config().model_type
    before = _fingerprint(model)
    try:
        trial = _Trial(model, dtype)
    except ModelError:
        raise
    except Exception as error:  # a foreign boundary: any architecture's code
        raise Unknown(f"fails in {name_of(dtype)}: {brief(error)}", kind) from error
    padded = _holds(trial.pads)
    cache = next((cache for cache in _WORDS if _holds(partial(trial.decodes, cache))), None)
    if not torch.equal(before, _fingerprint(model)):
        raise Unknown("changes its own weights when it computes", kind)
    if cache is None:
        raise Unknown("does not predict a token from those before it alone", kind)
    trial.differentiate()
    plain.note(model, replace(trial.plain, padded=padded, cache=cache))
    return f"sequences are computed {'side by side' if padded else 'one by one'}, and {_WORDS[cache]}"


class _Trial:
    """Three short sequences, and what the model says of each of them alone."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        text = model.config.get_text_config()
        self.model = model
        self.dtype = dtype
        self.tokens = torch.arange(sum(_LENGTHS)) % text.vocab_size
        self.spans = [Span(sum(_LENGTHS[:place]), length) for place, length in enumerate(_LENGTHS)]
        self.plain = Plain(padded=False, cache="none")
        self.hidden = plain.hidden_states(model, self.plain, self.tokens, self.spans)
        check_finite(self.hidden, model)
        self.plain = self._with_head(text)
        self.logits = plain.head(model, self.plain)(self.hidden).split(_LENGTHS)

    def _with_head(self, text: Any) -> Plain:
        """The scale and the cap in the model's configuration, where its own logits have them too."""
        first = self.spans[0].length
        theirs = enlarged(self.model, input_ids=self.tokens[None, :first], use_cache=False)
        for scale, cap in product((_scale(text), 1.0), (_cap(text), None)):
            found = replace(self.plain, scale=scale, cap=cap)
            if close(plain.head(self.model, found)(self.hidden[:first] * LARGE), theirs, self.dtype):
                return found
        raise Unknown("makes logits in another way than a linear head, scaled or softly capped", text.model_type)

    def differentiate(self) -> None:
        """Raise Unknown unless gradients come through all layers; none is kept."""
        hooks = [weight.register_post_accumulate_grad_hook(_forget) for weight in self.model.parameters()]
        try:
            with torch.enable_grad():
                hidden = plain.hidden_states(self.model, self.plain, self.tokens, self.spans)
                hidden.float().square().sum().backward()
        except Exception as error:  # a foreign boundary: any architecture's code
            raise Unknown(f"cannot be trained: {brief(error)}", self.model.config.model_type) from error
        finally:
            for hook in hooks:
                hook.remove()

    def pads(self) -> bool:
        """Whether a sequence is the same beside longer ones."""
        padded = plain.hidden_states(self.model, replace(self.plain, padded=True), self.tokens, self.spans)
        return close(padded, self.hidden, self.dtype)

    def decodes(self, cache: Literal["batch", "row", "none"]) -> bool:
        """Whether rows that end at different times predict what whole sequences do; the second is there twice."""
        texts = self.tokens.split(_LENGTHS)
        of, at = torch.tensor([0, 1, 1, 2]), torch.tensor(_GIVEN)[[0, 1, 1, 2]]  # each row's sequence and length
        prompts = [tuple(texts[number][:length].tolist()) for number, length in zip(of, at, strict=True)]
        rows = Rows(self.model, replace(self.plain, cache=cache), prompts)
        found = rows.scores
        while True:
            expected = [self.logits[number][length - 1] for number, length in zip(of, at, strict=True)]
            if not close(found, torch.stack(expected), self.dtype):
                return False
            kept = (at < torch.tensor(_LENGTHS)[of]).nonzero()[:, 0]
            if not len(kept):
                return True
            rows.keep(kept)
            of, at = of[kept], at[kept]
            found = rows.decode(torch.stack([texts[number][length] for number, length in zip(of, at, strict=True)]))
            at = at + 1


def _holds(shows: Callable[[], bool]) -> bool:
    """False also where the model's code does not take what is tried."""
    try:
        return shows()
    except Exception:  # a foreign boundary: any architecture's code
        return False


def _forget(weight: Tensor) -> None:
    weight.grad = None


def _scale(text: Any) -> float:
    """What the configuration says logits are multiplied by."""
    factor = getattr(text, "logit_scale", None) or getattr(text, "lm_head_multiplier", None) or 1.0
    return float(factor) / float(getattr(text, "logits_scaling", None) or 1.0)


def _cap(text: Any) -> float | None:
    """What the configuration says logits stay below."""
    names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return next((float(cap) for cap in (getattr(text, name, None) for name in names) if cap), None)


def _fingerprint(model: Any) -> Tensor:
    """Changes with any weight."""
    return torch.stack([weight.float().norm() for weight in model.parameters()])
