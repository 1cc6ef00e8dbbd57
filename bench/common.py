"""What the benches share: the work, a process for each side, the machine, and one JSON document a bench.

At import this needs the standard library alone, so that the peer's environment can use it too.

A *measurement* is what one side did under one setting: `seconds` and `tokens` of each measured step, `median`
(seconds), `tokens_per_second`, `peak_memory_bytes`, `load_average`, `others_cores`, `versions`, and what else a bench
adds. One that did not come about is `{"failed": why}`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.memory import Watch

ROOT = Path(__file__).resolve().parent.parent
BUSY = 0.5
"""A load average above this at the start disturbs the timing on two cores."""
SHARED = 0.1
"""So many cores' worth of other processes' work, while measuring, is too much."""
NO_MATRIX_UNITS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
TOPICS = ("rain", "bread", "the sea", "old maps", "trains", "snow", "a garden", "the moon", "paper", "salt", "rivers",
          "bells", "wool", "glass", "honey", "stairs")  # fmt: skip

Measurement = dict[str, Any]
Measurements = dict[str, Measurement]
Ratio = Callable[[Measurements, Measurements], dict[str, Any]]


def prompts(count: int) -> list[dict[str, Any]]:
    """Chat rows of about 45 tokens with the model's system turn, no two equal."""
    texts = [
        f"Tell a friend briefly what you like about {TOPICS[place % len(TOPICS)]} ({place})." for place in range(count)
    ]
    return [{"messages": [{"role": "user", "content": text}]} for text in texts]


class Gauge:
    """Times the steps inside its block, and looks at memory and at what else the machine does meanwhile."""

    def __init__(self, warmup: int = 0) -> None:
        """The first `warmup` steps are timed too, and left out of the measurement; its peak memory has them."""
        self.warmup = warmup
        self.seconds: list[float] = []
        self.core_seconds: list[float] = []
        self.tokens: list[int] = []
        self._step_began = 0.0
        self._watch = Watch()

    def __enter__(self) -> Gauge:
        self._load = os.getloadavg()[0]
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.stop()
        wall = time.monotonic() - self._began
        busy = _busy_seconds()
        self._others: float | None = None
        if busy is not None and self._busy is not None:
            self._others = max(0.0, (busy - self._busy - _own_seconds() + self._own) / wall)
            if self._others > SHARED:
                print(f"warning: others had {self._others:.1f} cores: these times mean little", file=sys.stderr)

    @contextmanager
    def step(self) -> Iterator[list[int]]:
        """One step: the block appends to the list the tokens that it made."""
        tokens: list[int] = []
        self._step_began, cores = time.monotonic(), time.process_time()
        yield tokens
        self.seconds.append(self.lap())
        self.core_seconds.append(time.process_time() - cores)
        self.tokens.append(sum(tokens))
        print(f"step {len(self.seconds)}: {self.seconds[-1]:.2f} s, {self.tokens[-1]} tokens", file=sys.stderr)

    def lap(self) -> float:
        """Seconds since the present step began."""
        return time.monotonic() - self._step_began

    def measurement(self, versions: Mapping[str, str], **more: Any) -> Measurement:
        """All that was seen, after the block."""
        kept = slice(self.warmup, None)
        return {
            "seconds": self.seconds[kept],
            "core_seconds": self.core_seconds[kept],
            "tokens": self.tokens[kept],
            **_figures(self.seconds[kept], self.tokens[kept]),
            "peak_memory_bytes": self._watch.peaks(),
            "load_average": {"before": self._load, "after": os.getloadavg()[0]},
            "others_cores": self._others,
            "versions": {"python": sys.version.split()[0], **versions},
            **more,
        }


def joined(rounds: Sequence[Measurement]) -> Measurement:
    """Rounds of the same work as one measurement: their steps one after the other, the highest peaks.

    One failed, all failed.
    """
    if failed := [one for one in rounds if "failed" in one]:
        return failed[0]
    lists = ("seconds", "core_seconds", "tokens")
    seconds, cores, tokens = ([step for one in rounds for step in one[name]] for name in lists)
    peaks = [one["peak_memory_bytes"] for one in rounds]
    others = [one["others_cores"] for one in rounds if one["others_cores"] is not None]
    return {
        **rounds[-1],
        "seconds": seconds,
        "core_seconds": cores,
        "tokens": tokens,
        **_figures(seconds, tokens),
        "peak_memory_bytes": {name: max(peak[name] for peak in peaks) for name in peaks[0]},
        "load_average": {"before": rounds[0]["load_average"]["before"], "after": rounds[-1]["load_average"]["after"]},
        "others_cores": max(others, default=None),
    }


def _figures(seconds: Sequence[float], tokens: Sequence[int]) -> dict[str, float]:
    rates = [made / spent for made, spent in zip(tokens, seconds, strict=True)]
    return {"median": statistics.median(seconds), "tokens_per_second": statistics.median(rates)}


def whole(measurements: Measurements) -> Measurements:
    """Those that came about."""
    return {name: one for name, one in measurements.items() if "failed" not in one}


def peak(measurement: Measurement) -> int:
    """Bytes of the whole process tree."""
    return int(measurement["peak_memory_bytes"]["proportional_tree"])


class Record:
    """One bench's document. With `--out`, what the file has is kept, and each measurement is written as it comes."""

    def __init__(self, options: argparse.Namespace, ratio: Ratio) -> None:
        """Ends the program when the file was measured on another machine."""
        self.path: Path | None = options.out
        self.ratio = ratio
        self.machine = machine(options.no_matrix_units)
        self.commands: list[str] = []
        self.sides: dict[str, Measurements] = {"ours": {}, "peer": {}}
        self.failed = False
        if self.path and self.path.exists():
            old = json.loads(self.path.read_text())
            if old["machine"] != self.machine:
                sys.exit(f"{self.path} was measured on another machine: {old['machine']}, this is {self.machine}")
            self.commands, self.sides = old["command"], {side: old[side] for side in self.sides}
        command = shlex.join(["python", "-m", f"bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
        self.commands += [command] * (command not in self.commands)
        load = os.getloadavg()[0]
        if load > BUSY:
            print(f"warning: the machine is busy (load {load:.2f}): these times mean little", file=sys.stderr)

    def add(self, side: str, name: str, measurement: Measurement) -> None:
        """Take a measurement in, in place of an earlier one of that name."""
        self.sides[side][name] = measurement
        self.failed |= "failed" in measurement
        if self.path:
            self.path.write_text(json.dumps(self.document(), indent=1) + "\n")

    def document(self) -> dict[str, Any]:
        """What is printed; everything under the two sides is repeated or derived from them."""
        sides = {side: whole(measured) for side, measured in self.sides.items()}

        def each(read: Callable[[Measurement], Any]) -> dict[str, dict[str, Any]]:
            return {side: {name: read(one) for name, one in measured.items()} for side, measured in sides.items()}

        return {
            "command": self.commands,
            "machine": self.machine,
            **self.sides,
            "ratio": self.ratio(sides["ours"], sides["peer"]),
            "peak_memory": each(peak),
            "tokens": each(lambda one: one["tokens"]),
            "load_average": each(lambda one: one["load_average"]),
            "versions": each(lambda one: one["versions"]),
        }

    def finish(self) -> None:
        """Print the document; the exit code is 1 when a measurement of this call failed."""
        print(json.dumps(self.document(), indent=1))
        sys.exit(self.failed)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The options that every bench has."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="ours computes in it")
    parser.add_argument("--out", type=Path, help="JSON file that the measurements are merged into, each as it comes")
    parser.add_argument(
        "--no-matrix-units", action="store_true", help=" ".join("=".join(pair) for pair in NO_MATRIX_UNITS.items())
    )
    return parser


def prepared(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; the environment of all child processes, which is that of both sides, is set by them."""
    from sharpen.cli.machine import cores

    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    if options.no_matrix_units:
        os.environ.update(NO_MATRIX_UNITS)
    return options


def picked(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """These options by name, as settings of a function."""
    return {name: getattr(options, name) for name in names}


def machine(no_matrix_units: bool = False) -> dict[str, Any]:
    """What the figures hold for: processor, cores, bytes of memory, the bfloat16 unit in use, threads."""
    from sharpen.cli import machine as facts

    memory = facts.memory()
    names = {"amx_bf16": "amx", "avx512_bf16": "avx512_bf16"}
    units = [] if no_matrix_units else [names[unit] for unit in facts.matrix_units() if unit in names]
    return {
        "cpu": _cpu(),
        "cores": facts.cores(),
        "memory_bytes": memory.total if memory else None,
        "bf16": units[0] if units else "none",
        "threads": int(os.environ.get("OMP_NUM_THREADS", facts.cores())),
    }


def apart(function: str, **settings: Any) -> Measurement:
    """Call `module:name` of ours in a process of its own, so that the memory of neither side counts for the other."""
    return answer([sys.executable, "-m", "bench.common", function, json.dumps(settings, default=str)])


def answer(command: list[str]) -> Measurement:
    """The JSON that the command prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    if done.returncode:
        return {"failed": f"it ended with {done.returncode}" + " (killed: out of memory?)" * (done.returncode == -9)}
    measurement: Measurement = json.loads(done.stdout)
    return measurement


def print_json(measure: Callable[[], Mapping[str, Any]]) -> None:
    """Print what `measure` returns; whatever libraries print meanwhile goes where stderr goes."""
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(measure()), file=stdout, flush=True)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _busy_seconds() -> float | None:
    """Core-seconds that this machine's cores were not idle since it started, where the system says so."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, *_ = map(int, line.split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    print_json(lambda: getattr(import_module(module), name)(**json.loads(sys.argv[2])))
