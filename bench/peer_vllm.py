"""Tokens per second of vLLM's CPU build, a peer of `sharpen`'s sampler.

It runs in bfloat16 in its best setting found on few cores: what its documentation asks for (tcmalloc and Intel's
OpenMP before all other libraries), zentorch on AMD's processors, a thread bound to every core and none reserved for
its front end, compiled graphs. It stands alone: it needs the environment of requirements-vllm.txt and nothing of
sharpen. Exactly one JSON object goes to stdout, all else to stderr; the run ends with exit code 2 when a completion
is not as long as asked for.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import peer_common as peer  # this folder is the script's own import path
from memory import Watch

LIBRARIES = (Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"), Path(sys.prefix) / "lib" / "libiomp5.so")

BLOCK = 128  # tokens; vLLM's own size on a CPU

# Read when vllm is imported and by the worker it starts, so they are set before that.
DEFAULTS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",  # lets `look` run in the worker
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "LD_PRELOAD": ":".join(str(library) for library in LIBRARIES if library.exists()),
}
os.environ |= {key: value for key, value in DEFAULTS.items() if key not in os.environ}


def arguments() -> argparse.Namespace:
    return peer.parser(__doc__).parse_args()


def look(worker: Any) -> dict[str, Any]:
    """What is in force in the process that computes."""
    import torch

    mapped = Path("/proc/self/maps").read_text()
    preloaded = ("libtcmalloc", "libiomp5", "libgomp", "zentorch")
    return {
        "threads": torch.get_num_threads(),
        "cores": sorted(os.sched_getaffinity(0)),  # of this thread: each is bound to its own
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "libraries": [name for name in preloaded if name in mapped],
        "weights": sorted({str(parameter.dtype) for parameter in worker.get_model().parameters()}),
        "kv_cache": sorted({str(cache.dtype) for cache in worker.model_runner.kv_caches}),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    load = peer.load_average()
    prompts = peer.read_prompts(args.prompts)
    longest = max(map(len, prompts)) + args.max_new_tokens
    memory = Watch()
    memory.start()
    llm = LLM(
        str(args.model),
        dtype="bfloat16",
        max_model_len=-(-longest // BLOCK) * BLOCK,
        max_num_seqs=len(prompts),
        enable_prefix_caching=False,  # rounds repeat their prompts
        seed=0,
    )

    def sample(rows: peer.Prompts, limit: int) -> list[int]:
        params = SamplingParams(temperature=1.0, max_tokens=limit, ignore_eos=True, detokenize=False)
        made = llm.generate([{"prompt_token_ids": row} for row in rows], params, use_tqdm=False)
        return [len(request.outputs[0].token_ids) for request in made]

    times = peer.clock(sample, prompts, args.max_new_tokens, args.rounds)
    memory.stop()
    config = llm.llm_engine.vllm_config
    return {
        "peer": "vllm-cpu",
        **times,
        "peak_memory_bytes": memory.peaks(),
        "versions": {"python": sys.version.split()[0], **versions("vllm-cpu", "torch", "transformers", "zentorch")},
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "settings": {
            "model": str(args.model),
            "dtype": str(config.model_config.dtype),
            "worker": llm.collective_rpc(look)[0],
            "max_model_len": config.model_config.max_model_len,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "block_size": config.cache_config.block_size,
            "prefix_caching": config.cache_config.enable_prefix_caching,
            "compilation": [str(config.compilation_config.mode), config.compilation_config.backend],
            "environment": {
                key: value for key, value in os.environ.items() if key.startswith(("VLLM_", "OMP_", "LD_PRELOAD"))
            },
            "cpu": peer.cpu(),
        },
    }


def versions(*names: str) -> dict[str, str | None]:
    """Of what is installed; None for what is not."""

    def of(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {name: of(name) for name in names}


if __name__ == "__main__":
    args = arguments()
    peer.answer(functools.partial(measure, args))
