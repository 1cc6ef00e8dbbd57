"""Datasets of the Hugging Face hub: the data files of one split, at one commit; never its code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.data.files import SUFFIXES
from sharpen.errors import DataError

_ID = re.compile(
    r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w.-]+))?(:(?P<config>[\w.-]+))?(/(?P<split>[\w.-]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPLITS = {"train", "test", "validation", "valid", "dev"}


class HubId(NamedTuple):
    """`org/name[@revision][:config][/split]`."""

    repo: str
    revision: str
    config: str
    split: str

    def __str__(self) -> str:
        marks = zip(("", "@", ":", "/"), self, strict=True)
        return "".join(mark + part for mark, part in marks if part)


def parse(path: str, base: Path) -> HubId | None:
    """The dataset that a path names, or None where it names a file."""
    if Path(path).suffix.lower() in SUFFIXES or (base / Path(path).expanduser()).exists():
        return None
    match = _ID.fullmatch(path)
    return HubId(*(match[name] or "" for name in HubId._fields)) if match else None


def pin(name: HubId) -> HubId:
    """The same dataset at the commit that its revision means now."""
    return name if _COMMIT.fullmatch(name.revision) else name._replace(revision=_info(name).sha)


def fetch(name: HubId) -> list[Path]:
    """The files of the split (`train` when none is named), in the order of their names; fetched once.

    Raises DataError when the hub does not give them, or when the split cannot be told.
    """
    from huggingface_hub import snapshot_download  # takes a second, and only hub datasets need it

    name = pin(name)
    try:
        info = _info(name)
    except DataError:
        return _cached(name)
    wanted = choose(name, [file.rfilename for file in info.siblings or []], _configs(info.card_data))
    try:
        folder = snapshot_download(
            name.repo, repo_type="dataset", revision=name.revision, allow_patterns=[*wanted, "README.md"]
        )
    except _failures() as error:
        raise _unreachable(name, error) from error
    return [Path(folder) / file for file in wanted]


def choose(name: HubId, files: Sequence[str], configs: Sequence[dict[str, Any]]) -> list[str]:
    """The data files of a config's split: as the dataset's card says, else by the names of folders and files."""
    split = name.split or "train"
    data = sorted(file for file in files if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."))
    if configs:
        patterns = _patterns(name, configs, split)
        found = [file for file in data if any(fnmatch(file, pattern) for pattern in patterns)]
    else:
        mine = [file for file in data if not name.config or name.config in Path(file).parts[:-1] + _words(file)]
        found = [file for file in mine if split in (_label(file), *Path(file).parts[:-1])]
        found = found or [file for file in mine if split in _words(file)]
        if not found and not name.split and not any({*_words(file), *Path(file).parts} & _SPLITS for file in mine):
            found = mine  # a dataset without splits
        _refuse_mixture(name, found)
    if not found:
        raise DataError(
            f"the dataset has no data files of the split {split!r}",
            file=str(name),
            value=data or list(files),
            remedy=f"Name a config and a split it has: {name.repo}:CONFIG/SPLIT; only"
            f" {', '.join(SUFFIXES)} are read, and no code of a dataset is run",
        )
    suffixes = {Path(file).suffix for file in found}
    return found if len(suffixes) == 1 else [file for file in found if file.endswith(".parquet")] or found


def _patterns(name: HubId, configs: Sequence[dict[str, Any]], split: str) -> list[str]:
    """The file patterns of a split in the card's `configs`."""
    names = [str(config.get("config_name", "default")) for config in configs]
    marked = [str(config.get("config_name", "default")) for config in configs if config.get("default")]
    chosen = name.config or (marked[0] if marked else "default" if "default" in names else names[0])
    if chosen not in names or (not name.config and len(names) > 1 and not marked and "default" not in names):
        raise DataError(
            "the dataset has several configs" if not name.config else "the dataset has no such config",
            file=str(name),
            value=names,
            remedy=f"Name one: {name.repo}:{names[0]}/{split}",
        )
    files = next(config for config in configs if str(config.get("config_name", "default")) == chosen).get("data_files")
    entries = files if isinstance(files, list) else [files]
    found: list[str] = []
    for entry in entries:
        if isinstance(entry, dict) and entry.get("split") == split:
            paths = entry.get("path", [])
            found += paths if isinstance(paths, list) else [paths]
        elif isinstance(entry, str) and split == "train":
            found.append(entry)
    return found


def _refuse_mixture(name: HubId, found: Sequence[str]) -> None:
    """Several folders that each hold the split are several configs."""
    folders = sorted({str(Path(file).parent) for file in found})
    if len(folders) > 1 and not name.config:
        raise DataError(
            "the dataset has several configs",
            file=str(name),
            value=folders,
            remedy=f"Name one: {name.repo}:{Path(folders[0]).name}/{name.split or 'train'}",
        )


def _label(file: str) -> str:
    """The name of a file without its suffix and its number among shards: `train` of `train-00000-of-00002.parquet`."""
    return re.sub(r"-\d+-of-\d+.*$", "", Path(file).stem)


def _words(file: str) -> tuple[str, ...]:
    return tuple(re.split(r"[-._]", _label(file)))


@lru_cache(maxsize=64)
def _info(name: HubId) -> Any:
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name.repo, revision=name.revision or None)
    except _failures() as error:
        raise _unreachable(name, error) from error


def _cached(name: HubId) -> list[Path]:
    """The files of an earlier fetch of this commit, for a machine without network."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name.repo, repo_type="dataset", revision=name.revision, local_files_only=True))
    except _failures() as error:
        raise _unreachable(name, error) from error
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [folder / file for file in choose(name, files, _card(folder))]


def _card(folder: Path) -> list[dict[str, Any]]:
    """The `configs` of the card at the head of README.md."""
    import yaml

    readme = folder / "README.md"
    head = re.match(r"---\n(.*?)\n---", readme.read_text("utf-8"), re.DOTALL) if readme.is_file() else None
    return _configs(yaml.safe_load(head[1])) if head else []


def _configs(card: Any) -> list[dict[str, Any]]:
    listed = card.get("configs") if card is not None else None
    if not isinstance(listed, list):
        return []
    return [config for config in listed if isinstance(config, dict) and config.get("data_files")]


def _failures() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return (HfHubHTTPError, HFValidationError, OSError)


def _unreachable(name: HubId, error: Exception) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(
        f"no file of this name, and the hub did not give the dataset: {reason}",
        file=str(name),
        remedy="Check the spelling, the network and, for gated datasets, `hf auth login`; or name a local file",
    )
