"""What graders that ask a server have in common."""

from __future__ import annotations

from collections.abc import Mapping

from sharpen.client.http import Service
from sharpen.config.graders.remote import Remote


class Asking:
    """Has the service that its config describes. Nothing is asked beforehand: the first question may cost money."""

    def __init__(self, config: Remote, url: str, headers: Mapping[str, str]) -> None:
        """Raises ConfigError where a header cannot be sent."""
        self._service = Service(
            url,
            headers=headers,
            remote=config.leaves,
            max_retries=config.max_retries,
            time_limit=config.time_limit,
            rate_limit=config.rate_limit,
            max_concurrent=config.max_concurrent,
        )

    async def start(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """No connection outlives a call."""
