"""One error tree. Every error says the fact, the value seen, and the remedy.

    SharpenError
    ├── ConfigError        a recipe or an option is wrong; names the path in the recipe
    ├── DataError          a row is wrong; names file, line and field
    │   └── OverlapError   held-out prompts occur in training data
    ├── ModelError         a model cannot be found, fetched, trusted or loaded
    ├── GraderError        graders fail too often, or cannot be built
    ├── ProbeError         a stage's trial found nothing that it could learn from
    ├── RunError           the run directory is missing, busy, taken or full
    │   └── CheckpointError  a checkpoint does not match its manifest
    ├── DivergedError      loss or gradients are not finite, three steps running
    └── Interrupted        asked to stop; the work so far is checkpointed

`SharpenError`s reach the command line as one paragraph and exit code 2, never as a traceback.
"""

from __future__ import annotations


class SharpenError(Exception):
    """Something the user can mend.

    `fact` says what is wrong, `value` what was seen, `remedy` what to do about it.
    """

    exit_code = 2

    def __init__(self, fact: str, *, value: object = None, remedy: str = "") -> None:
        self.fact = fact
        self.value = value
        self.remedy = remedy
        super().__init__(self.describe())

    def where(self) -> str:
        """The place of the fault ("file:line: field"), or an empty string."""
        return ""

    @property
    def seen(self) -> str | None:
        """The value as Python writes it, shortened."""
        return None if self.value is None else _short(self.value)

    def describe(self) -> str:
        """One paragraph: where, fact, value, remedy."""
        where = self.where()
        text = f"{where}: {self.fact}" if where else self.fact
        if self.seen is not None:
            text += f" (got {self.seen})"
        if self.remedy:
            text += f". {self.remedy}"
        return text


class ConfigError(SharpenError):
    """A recipe or option is wrong; `path` is its place, such as `stages.1.steps`."""

    def __init__(self, fact: str, *, path: str = "", value: object = None, remedy: str = "") -> None:
        self.path = path
        super().__init__(fact, value=value, remedy=remedy)

    def where(self) -> str:
        return self.path


class DataError(SharpenError):
    """A row of data is wrong; `file`, `line` (from 1) and `field` say where."""

    def __init__(
        self,
        fact: str,
        *,
        file: str = "",
        line: int | None = None,
        field: str = "",
        value: object = None,
        remedy: str = "",
    ) -> None:
        self.file = file
        self.line = line
        self.field = field
        super().__init__(fact, value=value, remedy=remedy)

    def where(self) -> str:
        return ":".join(part for part in (self.file, str(self.line or ""), self.field) if part)


class OverlapError(DataError):
    """Held-out prompts occur in training data, so their score would measure memory."""


class ModelError(SharpenError):
    """A model cannot be found, fetched, trusted or loaded."""


class GraderError(SharpenError):
    """A grader cannot be built, or fails too often to go on."""


class ProbeError(SharpenError):
    """The trial before an RFT stage found nothing that its model could learn from."""


class RunError(SharpenError):
    """The run directory is missing, busy, already taken, or cannot be written."""


class CheckpointError(RunError):
    """A checkpoint on disk does not match its manifest."""


class DivergedError(SharpenError):
    """Loss or gradients were not finite for three steps running."""


class Interrupted(SharpenError):
    """The run was asked to stop, and stopped after a checkpoint."""

    exit_code = 130


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
