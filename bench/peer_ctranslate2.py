"""Tokens per second of CTranslate2, a peer of `sharpen`'s sampler.

The folder is first converted with ct2-transformers-converter, once for each compute type, and what the processor's
backend refuses is reported with its words. It stands alone: it needs the environment of requirements-ctranslate2.txt
and nothing of sharpen. Exactly one JSON object goes to stdout, all else to stderr; the run ends with exit code 2
when a completion is not as long as asked for.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ctranslate2
import peer_common as peer  # this folder is the script's own import path
from memory import Watch


def arguments() -> argparse.Namespace:
    parser = peer.parser(__doc__)
    parser.add_argument("--compute-types", nargs="+", default=["int8", "bfloat16"])
    parser.add_argument("--replicas", nargs="+", type=int, default=[2, 1], help="so many share the batch and --threads")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def convert(model: Path, compute_type: str, folder: Path) -> None:
    """Write CTranslate2's format, in a process of its own: its memory is not the sampler's."""
    converter = Path(sys.executable).parent / "ct2-transformers-converter"
    command = [converter, "--model", model, "--output_dir", folder, "--quantization", compute_type]
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def backend(folder: Path, compute_type: str) -> dict[str, str]:
    """The library's own word on what it runs on: instruction set and the libraries that multiply matrices."""
    program = f"import ctranslate2; ctranslate2.Generator({str(folder)!r}, compute_type={compute_type!r})"
    environment = os.environ | {"CT2_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", program], check=True, env=environment, stderr=subprocess.PIPE)
    return dict(re.findall(r"\[info\]\s+- ([^:]+): (.+)", done.stderr.decode()))


def sample(
    generator: ctranslate2.Generator, vocabulary: list[str], rows: int, prompts: peer.Prompts, limit: int
) -> list[int]:
    """The lengths of completions at temperature 1 over the whole vocabulary, `rows` at a time to a replica."""
    results = generator.generate_batch(
        [[vocabulary[token] for token in prompt] for prompt in prompts],
        max_batch_size=rows,
        min_length=limit,  # no end token before this
        max_length=limit,
        sampling_topk=0,
        sampling_temperature=1.0,
        include_prompt_in_result=False,
    )
    return [len(result.sequences_ids[0]) for result in results]


def runs(args: argparse.Namespace, compute_type: str, prompts: peer.Prompts) -> list[dict[str, Any]]:
    """One compute type, with each number of replicas."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / compute_type
        convert(args.model, compute_type, folder)
        return [run(args, folder, compute_type, replicas, prompts) for replicas in args.replicas]


def run(
    args: argparse.Namespace, folder: Path, compute_type: str, replicas: int, prompts: peer.Prompts
) -> dict[str, Any]:
    """The times of one setting, or the library's reason why not."""
    setting = {"asked_for": compute_type, "replicas": replicas, "threads_per_replica": args.threads // replicas}
    memory = Watch()
    memory.start()
    try:
        generator = ctranslate2.Generator(
            str(folder),
            compute_type=compute_type,
            inter_threads=replicas,
            intra_threads=args.threads // replicas,
        )
        vocabulary = json.loads((folder / "vocabulary.json").read_text())
        rows = -(-len(prompts) // replicas)
        generate = functools.partial(sample, generator, vocabulary, rows)
        times = peer.clock(generate, prompts, args.max_new_tokens, args.rounds)
    except ValueError as error:
        return {**setting, "refused": str(error)}
    finally:
        memory.stop()
    return {
        **setting,
        **times,
        "compute_type": generator.compute_type,
        "rows_at_a_time": rows,
        "backend": backend(folder, compute_type),
        "peak_memory_bytes": memory.peaks(),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    load = peer.load_average()
    prompts = peer.read_prompts(args.prompts)
    ctranslate2.set_random_seed(0)
    return {
        "peer": "ctranslate2",
        "runs": [one for compute_type in args.compute_types for one in runs(args, compute_type, prompts)],
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("ctranslate2", "transformers", "torch")},
        },
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "settings": {
            "model": str(args.model),
            "temperature": 1.0,
            "threads": args.threads,
            "supported_compute_types": sorted(ctranslate2.get_supported_compute_types("cpu")),
            "environment": {key: value for key, value in os.environ.items() if key.startswith(("CT2_", "OMP_"))},
            "cpu": peer.cpu(),
        },
    }


if __name__ == "__main__":
    args = arguments()
    peer.answer(functools.partial(measure, args))
