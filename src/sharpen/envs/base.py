"""What an environment is: it opens an episode for an example, and answers the model turn by turn.

Environments run in worker processes, so one that hangs or crashes costs its episodes and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, Protocol

from sharpen.config.envs import PluginEnv
from sharpen.plugins import load
from sharpen.types import Example, Message

REPLY_ROLES = ("system", "user", "tool")
"""Who an environment may speak as, once the model has spoken."""


class Step(NamedTuple):
    """What an environment says to a turn of the model.

    `messages` are the turns that follow, before the model speaks again; none where `done`. `reward` counts towards
    the episode's (their sum). `state` is what graders see as `sample.env_state`; it has to be JSON.
    """

    messages: Sequence[Message] = ()
    done: bool = False
    reward: float | None = None
    state: Any = None


class Episode(Protocol):
    """One conversation in progress."""

    @property
    def messages(self) -> Sequence[Message]:
        """What the model sees first: as a rule the example's messages."""
        ...

    async def step(self, message: Message) -> Step:
        """Answer the model's turn, `{"role": "assistant", "content": ...}`."""
        ...

    async def close(self) -> None:
        """The episode is over, by its own word or because the model has no more turns or tokens."""
        ...


class Env(Protocol):
    """Opens episodes. One object serves all episodes of a worker process, one step at a time."""

    async def open(self, example: Example) -> Episode:
        """A new episode for an example; each attempt at the example has its own."""
        ...


class ToolError(Exception):
    """A tool cannot do what the model asked of it: the model is told why, and the episode goes on.

    Any other exception in a tool is a fault of the environment.
    """


class InvalidStep(Exception):
    """An environment returned what is no step."""


def plugin(config: PluginEnv) -> Env:
    """The operator's own environment."""
    made: Env = load(config.use)(**config.args)
    return made


def checked(step: Any) -> Step:
    """The step, plain enough to be sent, journaled and rendered. Raises InvalidStep with the fact."""
    if not isinstance(step, tuple) or len(step) != len(Step._fields):
        raise InvalidStep(f"a step must be sharpen.envs.base.Step(messages, done, reward, state), not {step!r:.200}")
    messages, done, reward, state = step
    if reward is not None and not (isinstance(reward, Real) and math.isfinite(reward)):
        raise InvalidStep(f"a step's reward must be a finite number or None, not {reward!r:.200}")
    try:
        state = json.loads(json.dumps(state, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidStep(f"a step's state must be JSON: {error}") from error
    turns = spoken(messages, REPLY_ROLES)
    if not done and not turns:
        raise InvalidStep("a step that is not done must have messages for the model to answer")
    return Step(turns, bool(done), None if reward is None else float(reward), state)


def spoken(messages: Any, roles: Sequence[str] = (*REPLY_ROLES, "assistant")) -> tuple[Message, ...]:
    """Messages of an environment, checked. Raises InvalidStep for one that cannot be rendered."""
    if not isinstance(messages, list | tuple):
        raise InvalidStep(f"an environment's messages must be a list, not {messages!r:.200}")
    for message in messages:
        valid = isinstance(message, dict) and isinstance(message.get("content"), str) and message.get("role") in roles
        if not valid:
            raise InvalidStep(
                f"a message must be {{'role': ..., 'content': text}}, the role one of {roles}, not {message!r:.200}"
            )
    return tuple(dict(message) for message in messages)
