"""An export to the hub: what can be known before is asked before, and only what is proven goes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sharpen.errors import ConfigError, ModelError


def check(repo: str) -> None:
    """Raise ConfigError for a name the hub could not have, ModelError where nothing can be sent."""
    from huggingface_hub.constants import is_offline_mode

    from sharpen.models.hub import token_seen

    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
        raise ConfigError("not a name the hub could have", path="--push", value=repo, remedy="Write org/name")
    if is_offline_mode():
        raise ModelError(
            "HF_HUB_OFFLINE is set, so nothing is sent", value=repo, remedy="Set HF_HUB_OFFLINE=0, or leave out --push"
        )
    if not token_seen():
        raise ModelError(
            "the hub wants a token to write with, and there is none",
            value=repo,
            remedy="Set HF_TOKEN to one that may write, or run `hf auth login`",
        )


def push(folder: Path, repo: str, public: bool, report: Callable[[str], None]) -> str:
    """Put the files of a folder into a repository of the hub, made private where it is new; returns its address.

    Raises ModelError with the reason; the folder stays as it is. A token is never quoted.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from sharpen.models.quiet import quiet

    transport: type[Exception] = HfHubHTTPError.__bases__[0]  # HTTPError, of the httpx that the hub's library has
    api = HfApi()
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        report(f"Sending {folder} to {made}")
        with quiet():
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Exported with sharpen")
    except (transport, HFValidationError, OSError) as error:
        raise _refused(repo, folder, error) from error
    return str(made)


def _refused(repo: str, folder: Path, error: Exception) -> ModelError:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    again = f"The export itself is whole: {folder}"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        fact = f"the hub refused: {said}"
        remedy = f"Look at your token and what it may write at {constants.ENDPOINT}/settings/tokens. {again}"
    elif isinstance(error, HfHubHTTPError):
        fact, remedy = f"the hub answered {error.response.status_code}: {said}", f"Try again later. {again}"
    else:
        fact = f"the hub cannot be reached at {constants.ENDPOINT}: {said}"
        remedy = f"Check the network and, behind a proxy, HTTPS_PROXY. {again}"
    return ModelError(fact, value=repo, remedy=remedy)
