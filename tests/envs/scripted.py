"""Environments and tools of an operator, which worker processes import."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

from sharpen.envs.base import Step, ToolError
from sharpen.types import Example, Message

STEPS = itertools.count()


class Obey:
    """An environment that does what the model says: it sleeps, dies, raises or returns nonsense."""

    def __init__(self, greeting: str = "") -> None:
        self.greeting = greeting

    async def open(self, example: Example) -> ObeyEpisode:
        return ObeyEpisode(example, self.greeting)


class ObeyEpisode:
    def __init__(self, example: Example, greeting: str) -> None:
        self.messages = (*example.messages, *([{"role": "user", "content": greeting}] if greeting else []))
        self.heard = 0

    async def step(self, message: Message) -> Step:
        self.heard += 1
        match message["content"]:
            case "sleep":
                time.sleep(60)
            case "die":
                os._exit(3)
            case "raise":
                raise KeyError("no such thing")
            case "nonsense":
                return Step(({"role": "assistant", "content": "I speak for you"},))
            case "nan":
                return Step(done=True, reward=float("nan"))
            case "silence":
                return Step()
            case "dice":
                return Step(({"role": "user", "content": f"{os.getpid()} {time.monotonic_ns()}"},))
        letters = sum(character.islower() for character in message["content"])
        return Step(
            ({"role": "user", "content": f"heard {self.heard}"},),
            done=self.heard == 2,
            reward=letters / max(1, len(message["content"])),
            state={"heard": self.heard},
        )

    async def close(self) -> None:
        """Nothing to close."""


def look_up(key: str, times: int = 1) -> dict[str, Any]:
    """Find what is written under a key."""
    if key == "secret":
        raise ToolError("that is secret")
    return {"found": {"a": "1"}[key] * times}


async def later(text: str | None = None) -> str:
    """Say it again."""
    return f"{text}!"


TOOLS = [look_up, later]
NO_TOOLS = [3]
