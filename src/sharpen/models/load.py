"""From a folder to a model that computes on our attention, with its tokenizer and the tokens that stop it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch

from sharpen.errors import ModelError
from sharpen.models.attention import NAME, register
from sharpen.models.fallback import fall_back
from sharpen.models.folder import peculiar, resolve
from sharpen.models.precision import widen_stream
from sharpen.models.proof import Unknown, brief, prove, quicken
from sharpen.models.quiet import quiet
from sharpen.models.save import save
from sharpen.models.template import tell

__all__ = ["Loaded", "compute_dtype", "load", "load_tokenizer", "resolve", "save", "stop_tokens"]

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
"""oneDNN keeps the code it made for so many shapes. Few come again, and the 1,024 it would keep are 0.3 GB and more."""

_ANSWER = "sharpen-looks-for-this"


@dataclass
class Loaded:
    """A model ready to sample and to train."""

    model: Any
    """A transformers causal LM in eval mode, on our attention (call it inside a `layout`) unless there is a notice."""

    tokenizer: Any
    """With `chat_template_kwargs`: what its chat template is told at every rendering."""

    path: Path
    stop: frozenset[int]
    """Tokens that end a completion."""

    dtype: torch.dtype
    """What it computes in."""

    notice: str = ""
    """Why it is on the slow path (`models.plain`), transformers' own attention and cache; empty: it is not."""


def compute_dtype(setting: Literal["auto", "float32", "bfloat16"], device: str = "cpu") -> torch.dtype:
    """The type to compute in; auto is bfloat16 where the device multiplies it in hardware."""
    if setting == "float32":
        return torch.float32
    if setting == "bfloat16":
        return torch.bfloat16
    kind = torch.device(device).type
    has_units = (kind == "cpu" and _cpu_has_bfloat16()) or (kind == "cuda" and torch.cuda.is_bf16_supported())
    return torch.bfloat16 if has_units else torch.float32


def _cpu_has_bfloat16() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False  # nor where ONEDNN_MAX_CPU_ISA forbids what the processor could
    if platform.machine() in ("x86_64", "AMD64"):
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return True


def load(name_or_path: str | Path, dtype: torch.dtype, chat_template_kwargs: Mapping[str, Any] | None = None) -> Loaded:
    """The model of that alias, folder or hub id.

    Its chat template is told what it was in the model's training, and over that `chat_template_kwargs`. Where the model
    computes in a way that our attention and head do not, which is tried out before anything trains, it is on the slow
    path, and there is a notice. Raises ModelError when it cannot be found, trusted or read, has no chat template, or
    cannot be run on transformers' own attention either; ConfigError for what its template does not read.
    """
    path = resolve(str(name_or_path))
    with quiet():
        tokenizer = _tokenizer(path, chat_template_kwargs)
        why = notice = ""
        try:
            model = _on_our_attention(path, dtype)
        except Unknown as error:
            why = error.why  # the error holds the first model: it must be gone before there is a second
        if why:
            model, notice = _on_its_own(path, dtype, why)
        _check_vocabulary(model, tokenizer)
        stop = stop_tokens(model, tokenizer)
        _keep_token_ids_only(model, stop)
    return Loaded(model, tokenizer, path, stop, dtype, notice)


def _on_our_attention(path: Path, dtype: torch.dtype) -> Any:
    """Raises Unknown where it computes in a way of its own."""
    if why := peculiar(path):
        raise Unknown(why, str(path))
    try:
        model = _model(path, dtype, register())
    except KeyError as error:
        raise Unknown("does not let its attention be replaced", str(path)) from error
    if dtype == torch.bfloat16:
        widen_stream(model)
    prove(model, dtype)
    quicken(model, dtype)
    return model


def _on_its_own(path: Path, dtype: torch.dtype, why: str) -> tuple[Any, str]:
    """On transformers' attention, with the notice; `why` not on ours. Raises Unknown where that does not do either."""
    model = _model(path, dtype, "eager")
    try:
        words = fall_back(model, dtype)
    except Unknown as error:
        raise Unknown(f"{why}, and on transformers' own attention {error.why}", str(path)) from error
    kind = model.config.get_text_config().model_type
    return model, (
        f"the fast path does not know this model ({kind}): it {why}. "
        f"It runs on transformers' own attention and cache, which is slower: {words}"
    )


def load_tokenizer(
    name_or_path: str,
    report: Callable[[str], None] = print,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Any, frozenset[int]]:
    """A model's tokenizer and the tokens that end a completion, without its weights. Raises what `load` does."""
    path = resolve(name_or_path, report)
    with quiet():
        tokenizer = _tokenizer(path, chat_template_kwargs)
        return tokenizer, stop_tokens(SimpleNamespace(generation_config=_generation_config(path)), tokenizer)


def _generation_config(path: Path) -> Any:
    """What the loaded model's would be: its file's, or what config.json says."""
    from transformers import AutoConfig, GenerationConfig

    if (path / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(path)
    return GenerationConfig.from_model_config(AutoConfig.from_pretrained(path, trust_remote_code=False))


def _tokenizer(path: Path, chat_template_kwargs: Mapping[str, Any] | None) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # a foreign boundary: tokenizers raises bare Exception
        raise ModelError(
            f"the tokenizer cannot be read: {brief(error)}", value=str(path), remedy="Fetch the model again"
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template, so messages cannot become tokens",
            value=str(path),
            remedy="Use the model's Instruct or Chat variant, or put a chat_template.jinja into its folder",
        )
    tell(tokenizer, path, chat_template_kwargs or {})
    return tokenizer


def _model(path: Path, dtype: torch.dtype, attention: str) -> Any:
    """Raises KeyError where the architecture does not let its attention be replaced by ours."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM  # its annotations leave out `output_loading_info`
    try:
        model, info = loader.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # a foreign boundary: safetensors, JSON, shapes, unknown architectures
        if error.args == (NAME,):
            raise
        raise ModelError(
            f"the model cannot be loaded: {brief(error)}",
            value=str(path),
            remedy="If files are damaged, fetch it again; if the architecture is unknown, transformers may be too old",
        ) from error
    if info["missing_keys"]:
        raise ModelError(
            "weights are missing from the model's files",
            value=sorted(info["missing_keys"])[:3],
            remedy="Fetch the model again",
        )
    for parameter in model.parameters():  # out of the mapped file, which would stay in memory beside joined weights
        parameter.data = parameter.data.clone()
    return model.eval()


def _check_vocabulary(model: Any, tokenizer: Any) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            "the tokenizer has more tokens than the model has embeddings",
            value=f"{len(tokenizer)} tokens, {rows} embeddings",
            remedy="Use the tokenizer that belongs to the model, or resize its embeddings",
        )


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The model's and the tokenizer's end tokens, and the one that ends a turn in the chat template."""
    named = model.generation_config.eos_token_id
    ends = set(named) if isinstance(named, list) else {named}
    ends |= {tokenizer.eos_token_id, _turn_end(tokenizer)}
    stop = frozenset(int(token) for token in ends if token is not None)
    if not stop:
        raise ModelError(
            "nothing says which token ends an answer",
            value="eos_token",
            remedy="Set eos_token in the model's tokenizer_config.json",
        )
    return stop


def _turn_end(tokenizer: Any) -> int | None:
    """The first special token after an assistant's message."""
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _ANSWER}]
    try:
        told = getattr(tokenizer, "chat_template_kwargs", {})
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, **told)
    except Exception as error:  # a foreign boundary: templates are programs
        raise ModelError(
            f"the chat template fails on a question and an answer: {brief(error)}", remedy="Mend chat_template.jinja"
        ) from error
    after = tokenizer.encode(text.rpartition(_ANSWER)[2], add_special_tokens=False)
    special = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    return next((token for token in after if token in special), None)


def _keep_token_ids_only(model: Any, stop: frozenset[int]) -> None:
    """Forget sampling defaults (temperature, repetition penalty): they are not what a model is trained under."""
    from transformers import GenerationConfig

    old = model.generation_config
    pad = old.pad_token_id if old.pad_token_id is not None else min(stop)
    kept = GenerationConfig(bos_token_id=old.bos_token_id, eos_token_id=sorted(stop), pad_token_id=pad)
    model.generation_config = kept
