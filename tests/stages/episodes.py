"""A small world of turns: environments that tests of whole runs play in, and graders that read their turns."""

from __future__ import annotations

import os
from typing import Any

from sharpen.envs.base import Step
from sharpen.types import Example, Message


class Count:
    """Two turns: the environment says how many letters it heard; its reward is the share of lower-case ones.

    `fails` names first characters at which it raises, as long as the file `mended` does not exist.
    """

    def __init__(self, opening: str = "", reward: bool = True, fails: str = "", mended: str = "") -> None:
        self.opening = opening
        self.reward = reward
        self.fails = fails
        self.mended = mended

    async def open(self, example: Example) -> CountEpisode:
        return CountEpisode(self, example)


class CountEpisode:
    def __init__(self, env: Count, example: Example) -> None:
        system = {"role": "system", "content": env.opening}
        self.messages: list[Message] = [*([system] if env.opening else []), *example.messages]
        self._env = env
        self._heard: list[str] = []

    async def step(self, message: Message) -> Step:
        text: str = message["content"]
        self._heard.append(text)
        if text and text[0] in self._env.fails and not _exists(self._env.mended):
            raise RuntimeError(f"out of order: {text!r}")
        reward = sum(character.islower() for character in text) / max(1, len(text))
        return Step(
            [{"role": "user", "content": f"{len(text)} letters"}],
            done=len(self._heard) == 2,
            reward=reward / 2 if self._env.reward else None,
            state={"lengths": [len(heard) for heard in self._heard]},
        )

    async def close(self) -> None:
        """Nothing to close."""


def _exists(path: str) -> bool:
    return bool(path) and os.path.exists(path)


def talkative(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """A grader that reads the state of the environment and the turns."""
    said: list[str] = [message["content"] for message in sample["messages"] if message["role"] == "assistant"]
    assert said[-1] == sample["output_text"] and sample["env_state"]["lengths"] == [len(text) for text in said]
    return sum(character.islower() for text in said for character in text) / max(1, sum(map(len, said)))
