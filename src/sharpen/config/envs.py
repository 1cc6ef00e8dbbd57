"""The environments a recipe can name: what answers the model, turn by turn."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sharpen.config.base import Buildable

TOOLSETS = {"calculator": "sharpen.envs.calculator:TOOLS"}
"""Our own toolsets, by name."""


class EnvConfig(Buildable):
    """What every environment has."""

    max_turns: Annotated[int, Field(ge=1)] = 2
    """The most turns the model has in one episode. All of them together share `max_tokens`."""

    time_limit: Annotated[float, Field(gt=0)] = 10.0
    """Seconds one step of the environment may take before its worker is killed."""

    @property
    def rewards(self) -> bool:
        """Whether it can give rewards of its own, so that a grader may be left out."""
        return True

    @property
    def repeatable(self) -> bool:
        """Whether it surely answers the same way again; if not, its answers are journaled."""
        return False


class Tools(EnvConfig):
    """The model may call tools, as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`; a turn without a call
    ends the episode."""

    type: Literal["tools"] = "tools"
    runtime: ClassVar[str] = "sharpen.envs.tools:ToolEnv"

    use: str = "calculator"
    """`calculator`, or `package.module:name` of your own function or list of functions. They are trusted code."""

    announce: bool = True
    """Describe the tools in the system message; switch it off where your prompts do."""

    reply_role: Literal["tool", "user"] = "tool"
    """Whose turn a tool's answer is; `user` for chat templates that know no tool turns."""

    max_reply: Annotated[int, Field(ge=1)] = 1000
    """The most characters of a tool's answer that the model sees; the rest is cut, and the cut is told."""

    @property
    def rewards(self) -> bool:
        """Tools give answers, no rewards."""
        return False

    @property
    def repeatable(self) -> bool:
        """Our own toolsets are plain functions."""
        return self.use in TOOLSETS


class PluginEnv(EnvConfig):
    """The operator's own environment, `env.open(example) -> episode` (docs/envs.md)."""

    type: Literal["plugin"] = "plugin"
    runtime: ClassVar[str] = "sharpen.envs.base:plugin"

    use: str
    """`package.module:Name` of a class or function that makes the environment. It is trusted code."""

    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for it."""


Env = Annotated[Tools | PluginEnv, Field(discriminator="type")]
"""Any environment."""


def check_reward(grader: object | None, env: EnvConfig | None) -> None:
    """Something must give the reward. Raises ValueError, for a config's validator."""
    if grader is None and env is None:
        raise ValueError("a grader is missing: it scores the completions. Only an environment may do without")
    if grader is None and env is not None and not env.rewards:
        raise ValueError("a grader is missing: this environment gives no rewards, so a grader must score the answers")
