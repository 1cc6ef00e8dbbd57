"""Experiment trackers, each imported only where a recipe names it in `report_to`."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from sharpen.errors import ConfigError

PROJECT = "sharpen"

Numbers = Mapping[str, float]


class Tracker(Protocol):
    """A place that shows numbers. All calls come from one thread; whatever they raise ends the tracker, not the run."""

    def start(self, run: Path, config: Mapping[str, Any], identity: str) -> str:
        """Begin, or go on with what `identity` names (empty at first); returns the identity to go on with.

        `config` is the recipe; nested.
        """

    def log(self, series: str, step: int, values: Numbers) -> None:
        """Numbers of one step of a series: a stage, or `eval`."""

    def finish(self, status: str, summary: Numbers) -> None:
        """The run has ended as summary.json says."""


class TensorBoard:
    """Event files in the run directory's `tensorboard/`."""

    def start(self, run: Path, config: Mapping[str, Any], identity: str) -> str:
        """A new event file beside earlier ones."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run / "tensorboard"))
        if not identity:
            lines = (f"    {name}: {value}" for name, value in flat(config).items())
            self._writer.add_text("recipe", "\n".join(lines))
        return "tensorboard"

    def log(self, series: str, step: int, values: Numbers) -> None:
        """A point of each curve, on disk at once."""
        for name, value in values.items():
            self._writer.add_scalar(f"{series}/{name}", value, step)
        self._writer.flush()

    def finish(self, status: str, summary: Numbers) -> None:
        """The summary as text."""
        lines = (f"    {name}: {value:g}" for name, value in summary.items())
        self._writer.add_text("summary", "\n".join((f"    status: {status}", *lines)))
        self._writer.close()


class WandB:
    """A Weights & Biases run; WANDB_PROJECT, WANDB_NAME, WANDB_MODE and the rest of its variables hold."""

    def start(self, run: Path, config: Mapping[str, Any], identity: str) -> str:
        """Its files stand in the run directory's `wandb/`."""
        import wandb

        identity = identity or secrets.token_hex(4)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME") or run.resolve().name,
            dir=str(run),
            config=dict(config),
            id=identity,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._series: set[str] = set()
        return identity

    def log(self, series: str, step: int, values: Numbers) -> None:
        """Each series has its own steps."""
        if series not in self._series:
            self._series.add(series)
            self._run.define_metric(f"{series}/*", step_metric=f"{series}/step")
        self._run.log({f"{series}/step": step, **{f"{series}/{name}": value for name, value in values.items()}})

    def finish(self, status: str, summary: Numbers) -> None:
        """Waits for the upload."""
        self._run.summary.update({"status": status, **summary})
        self._run.finish(exit_code=0 if status == "finished" else 1)


class MLflow:
    """An MLflow run; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold."""

    STATUS: ClassVar = {"finished": "FINISHED", "interrupted": "KILLED", "paused": "KILLED"}
    PARAMS: ClassVar = 100
    """The most that MLflow takes in one call, and below the length it takes of each."""

    def start(self, run: Path, config: Mapping[str, Any], identity: str) -> str:
        """The client is used directly: the `mlflow.log_...` functions speak of a thread's own run."""
        import mlflow
        from mlflow.entities import Param

        self._client: Any = mlflow.MlflowClient()
        if identity:
            self._client.update_run(identity, status="RUNNING")
            self._id = identity
            return identity
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._id = str(self._client.create_run(place, run_name=run.resolve().name).info.run_id)
        params = [Param(_key(name), str(value)[:500]) for name, value in flat(config).items()]
        for first in range(0, len(params), self.PARAMS):
            self._client.log_batch(self._id, params=params[first : first + self.PARAMS])
        return self._id

    def log(self, series: str, step: int, values: Numbers) -> None:
        """All numbers of a step in one call."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_key(f"{series}/{name}"), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def finish(self, status: str, summary: Numbers) -> None:
        """The summary's numbers become metrics of their own."""
        self.log("summary", 0, summary)
        self._client.set_terminated(self._id, status=self.STATUS.get(status, "FAILED"))


class Trackio:
    """A trackio run; TRACKIO_PROJECT, TRACKIO_DIR and TRACKIO_SPACE_ID hold."""

    def start(self, run: Path, config: Mapping[str, Any], identity: str) -> str:
        """A run is known by its name, so the name is made unique."""
        import trackio

        identity = identity or f"{run.resolve().name}-{secrets.token_hex(3)}"
        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=identity,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return identity

    def log(self, series: str, step: int, values: Numbers) -> None:
        """The run itself is told: `trackio.log` speaks of a context's own run."""
        self._run.log({f"{series}/{name}": value for name, value in values.items()}, step=step)

    def finish(self, status: str, summary: Numbers) -> None:
        """The summary's numbers become metrics of their own."""
        self.log("summary", 0, summary)
        self._run.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def check_installed(names: Iterable[str]) -> None:
    """Raise ConfigError for a tracker whose package is missing, with the command that installs it."""
    for name in names:
        if find_spec(name) is None:
            package = "mlflow-skinny" if name == "mlflow" else name
            raise ConfigError(
                f"the package of the tracker {name} is not installed",
                path="report_to",
                remedy=f"pip install {package}, or leave {name} out",
            )


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one, the names joined by `/`: `stages/0/optim/lr`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple):
            value = {str(index): inner for index, inner in enumerate(value)}
        if isinstance(value, Mapping):
            found.update(flat(value, f"{above}{name}/"))
        else:
            found[f"{above}{name}"] = value
    return found


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What of nested values is a number."""
    return {
        name: float(value)
        for name, value in flat(values).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _key(name: str) -> str:
    """A name as MLflow takes it: letters, digits and `_-./ :`."""
    return "".join(sign if sign.isalnum() or sign in "_-./ :" else "_" for sign in name)[:250]
