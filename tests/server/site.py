"""A whole `sharpen serve` with keys for two projects, and programs that are clients of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.server.process import Process
from sharpen.server.keys import create_key

EXAMPLES = Path(__file__).parent.parent.parent / "examples/openai"
OTHER = "other"
"""The second project."""


class Site:
    """A server that trains and answers."""

    def __init__(self, folder: Path, model: str, judge: str | dict[str, str], **settings: Any) -> None:
        self.server = Process(folder, model, trains=True, judges={"gpt-4.1": judge}, cores=2, **settings)
        database = self.server.database()
        try:
            self.other = database.change(
                lambda connection: create_key(connection, OTHER, "other", ("read", "write", "chat"), None)
            )
        finally:
            database.close()

    def run(self, command: Sequence[str | Path], seconds: float = 300.0, **environment: str) -> str:
        """What a client prints. Raises AssertionError where it fails."""
        told = {
            "OPENAI_BASE_URL": self.server.url,
            "OPENAI_API_KEY": self.server.key,
            "OPENAI_OTHER_KEY": self.other,
            "OPENAI_OTHER_PROJECT": OTHER,
            **environment,
        }
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **told},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.server.log()[-3000:]}"
        return done.stdout

    def script(self, name: str, seconds: float = 300.0, **environment: str) -> str:
        """What a script of `examples/openai` prints with the SDK."""
        return self.run([sys.executable, EXAMPLES / name], seconds, **environment)
