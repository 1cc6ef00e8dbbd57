"""Models of the Hugging Face hub: what is here, what a download takes, and why the hub gave none. Imports no torch."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.errors import ModelError
from sharpen.models.bases import BASES

_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_FILES: dict[str, Any] = {
    "allow_patterns": ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model"],
    "ignore_patterns": ["*/*", "consolidated*"],  # subfolders hold other formats, `consolidated` a second copy
}
"""Safetensors, configs and tokenizer files; never pickles or code."""


class HubId(NamedTuple):
    """`org/name[@revision]`; a revision is a branch, a tag or a commit, None the main branch."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def parse(name: str) -> HubId | None:
    """The model of the hub that a name means, an alias of `bases` or `org/name`; None where it means none."""
    alias, _, revision = name.partition("@")
    if alias in BASES:
        return HubId(BASES[alias].hub, revision or None)
    match = _ID.fullmatch(name)
    return HubId(match["repo"], match["revision"]) if match else None


def here(name: HubId) -> Path | None:
    """Its folder in the hub's cache, where all its files are there; no network is asked."""
    from huggingface_hub import snapshot_download  # takes a second, and only hub models need it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name.repo, revision=name.revision, local_files_only=True, **_FILES))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    whole = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return folder if whole else None


def fetch(name: HubId, report: Callable[[str], None]) -> Path:
    """Its folder in the hub's cache. What is missing is downloaded; files that an interrupted download brought stay.

    `report` gets size and licence before a download. Raises ModelError with the reason and the remedy.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import is_offline_mode

    try:
        if not is_offline_mode() and here(name) is None:
            _announce(name, report)
        return Path(snapshot_download(name.repo, revision=name.revision, **_FILES))
    except _failures() as error:
        raise refused(name, error) from error


def config(name: HubId) -> Path:
    """Its config.json alone, from the cache or the hub. Raises ModelError."""
    from huggingface_hub import HfApi, hf_hub_download

    if folder := here(name):
        return folder / "config.json"
    try:
        HfApi().model_info(name.repo, revision=name.revision)  # fails at once, where a download tries for a while
        return Path(hf_hub_download(name.repo, "config.json", revision=name.revision))
    except _failures() as error:
        raise refused(name, error) from error


def token_seen() -> bool:
    """Whether there is a token to show the hub: HF_TOKEN, or that of `hf auth login`."""
    from huggingface_hub import get_token

    try:
        return bool(get_token())
    except Exception:  # a foreign boundary: it may ask a service for one
        return False


def refused(name: HubId, error: Exception) -> ModelError:
    """Why the hub did not give the model, and what to do about it; a token is never quoted."""
    from huggingface_hub import constants, errors

    # Without network the hub's library looks into its cache, and hides behind its miss what happened before.
    hidden = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    cause = hidden or error
    page = f"{constants.ENDPOINT}/{name.repo}"
    token = "a token was seen" if token_seen() else "no token was seen"
    login = f"set HF_TOKEN or run `hf auth login` ({token})"
    match cause:
        case errors.GatedRepoError() if token_seen():
            fact = "the model is gated, and the account of your token has no access to it"
            remedy = f"Accept its licence at {page}, and wait for an answer where the page says so"
        case errors.GatedRepoError():
            fact = "the model is gated: the hub gives it to those who have accepted its licence"
            remedy = f"Accept it at {page}, then {login}"
        case errors.RevisionNotFoundError():
            fact = "the model has no such revision"
            remedy = f"Name a branch, a tag or a commit of {page}/commits/main"
        case errors.RepositoryNotFoundError():
            fact = "the hub has no model of this name, or it is private"
            remedy = f"Check the spelling; for a private model {login}"
        case errors.HFValidationError():
            fact, remedy = f"not a name the hub could have: {_first_line(cause)}", "Write org/name"
        case _ if constants.is_offline_mode():
            fact = f"{_missing(error)}, and HF_HUB_OFFLINE is set, so it is not asked for"
            remedy = f"Fetch it once with HF_HUB_OFFLINE=0 (`sharpen models pull {name}`), or name a folder that has it"
        case errors.HfHubHTTPError() if cause.response.status_code in (401, 403):
            fact = f"the hub refused: {_first_line(cause)}"
            remedy = f"Look at your token and what it may read at {constants.ENDPOINT}/settings/tokens; {token}"
        case errors.HfHubHTTPError():
            fact, remedy = f"the hub answered {cause.response.status_code}: {_first_line(cause)}", "Try again later"
        case OSError(errno=errno.ENOSPC):
            fact = f"the disk is full: {constants.HF_HUB_CACHE}"
            remedy = "Free some space, or set HF_HOME to a folder on another disk; whole files are kept"
        case OSError() if not isinstance(cause, ConnectionError | errors.LocalEntryNotFoundError):
            fact = f"the hub's cache cannot be used: {_first_line(cause)}"
            remedy = f"Make {constants.HF_HUB_CACHE} writable, or set HF_HOME to another folder"
        case _:
            fact = f"the hub cannot be reached at {constants.ENDPOINT}: {_first_line(cause)}"
            remedy = (
                "Check the network and, behind a proxy, HTTPS_PROXY; a mirror can be named in HF_ENDPOINT. "
                "Files that are here whole are kept"
            )
    return ModelError(fact, value=str(name), remedy=remedy)


def _announce(name: HubId, report: Callable[[str], None]) -> None:
    """Say what is going to be downloaded. Raises ModelError where the disk has no room for it."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    info = HfApi().model_info(name.repo, revision=name.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    missing = [
        path
        for path in sizes
        if _wanted(path) and not isinstance(try_to_load_from_cache(name.repo, path, revision=info.sha), str)
    ]
    wanted, cache = sum(sizes[path] for path in missing), Path(constants.HF_HUB_CACHE)
    commit = (info.sha or "")[:12]
    report(f"Downloading {name.repo} at commit {commit}: {_size(wanted)}, licence {_licence(info)}")
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < wanted:
        raise ModelError(
            f"too little disk space to fetch {name}: {_size(wanted)} are needed",
            value=f"{_size(free)} free in {cache}",
            remedy="Free some space, or set HF_HOME to a folder on another disk",
        )


def _wanted(path: str) -> bool:
    """Whether a file of the hub is among those that are fetched."""
    allowed, ignored = (any(fnmatch(path, pattern) for pattern in patterns) for patterns in _FILES.values())
    return allowed and not ignored


def _licence(info: Any) -> str:
    card = info.card_data or {}
    named = card.get("license") if card.get("license") != "other" else card.get("license_name")
    gate = f", gated: its terms are at {info.id}'s page" if info.gated else ""
    return f"{', '.join(named) if isinstance(named, list) else named or 'not stated'}{gate}"


def _missing(error: Exception) -> str:
    """What an offline machine lacks, as the hub's library says."""
    found = re.search(r"(\d+) file\(s\) are missing \((.*?)\)\. ", str(error))
    return f"{found[1]} of the model's files are not here ({found[2]})" if found else "the model is not here"


def _size(count: float) -> str:
    unit, name = next(((10**e, n) for e, n in ((9, "GB"), (6, "MB"), (3, "kB")) if count >= 10**e), (1, "bytes"))
    return f"{count / unit:.1f} GB" if name == "GB" else f"{count / unit:.0f} {name}"


def _failures() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    transport = HfHubHTTPError.__bases__[0]  # HTTPError, of the httpx that the hub's library has
    return (transport, HFValidationError, OSError)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
