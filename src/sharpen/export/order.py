"""What is asked for: a form, a place, and where else it goes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sharpen.errors import ConfigError, RunError


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for."""

    target: str
    out: Path
    kind: str = "f16"
    """How a GGUF's matrices are held."""

    push: str = ""
    """The repository of the hub to send the export to; empty: none."""

    public: bool = False

    @property
    def packs(self) -> bool:
        """Whether it is a GGUF."""
        return self.target in ("gguf", "ollama")

    def check_place(self, weights: int) -> None:
        """Raise RunError where an export of so many bytes of weights could not be put."""
        out = self.out
        if out.resolve() == Path.cwd():
            raise RunError(
                "an export takes its folder's place, and you are in that folder",
                value=str(out),
                remedy="Name one inside it with --out",
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(
                "there is something in the export's place", value=str(out), remedy="Name another folder with --out"
            )
        probe = out.with_name(f".{out.name}.writing")
        try:
            probe.mkdir(parents=True, exist_ok=True)
            (probe / "probe").write_text("")
            free = shutil.disk_usage(probe).free
        except OSError as error:
            raise RunError(
                f"the export's folder cannot be written: {error.strerror}",
                value=str(out),
                remedy="Name another one with --out",
            ) from error
        finally:
            shutil.rmtree(probe, ignore_errors=True)
        wanted = int(1.1 * weights)
        if free < wanted:
            raise RunError(
                f"too little disk space: about {wanted / 1e6:.0f} MB are needed",
                value=f"{free / 1e6:.0f} MB free at {out}",
                remedy="Free some space, or name a folder on another disk with --out",
            )


def check_kind(target: str, kind: str | None) -> str:
    """How matrices are held. Raises ConfigError where the target has no such choice."""
    if kind and target not in ("gguf", "ollama"):
        raise ConfigError(
            "only gguf and ollama are quantised", path="--quantize", value=kind, remedy="Leave it out, or use --to gguf"
        )
    return kind or "f16"
