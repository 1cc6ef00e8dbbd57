"""`python -m sharpen.server.worker --model NAME --threads N --parent PID`, spoken to over stdin and stdout."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import threading
from typing import Any

_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38  # prctl's


def main() -> None:
    """Load the model, say so, and answer until stdin ends."""
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--parent", type=int, required=True)
    given = options.parse_args()
    _limit(given.parent)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")
    os.dup2(2, 1)  # what libraries print is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process itself

    def send(line: dict[str, Any]) -> None:
        channel.write(json.dumps(line, separators=(",", ":")) + "\n")
        channel.flush()

    import torch  # takes seconds, and what comes before must not wait for it

    from sharpen.errors import SharpenError
    from sharpen.server.worker.loading import loaded_of
    from sharpen.server.worker.serve import Worker

    torch.set_num_threads(given.threads)
    try:
        worker = Worker(loaded_of(given.model), send)
    except SharpenError as error:
        send({"unable": str(error)})
        return
    with contextlib.suppress(BrokenPipeError):  # the server is gone
        worker.serve(sys.stdin.buffer)


def _limit(parent: int) -> None:
    """Die with the server, gain no rights, leave no dump."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    if threading.active_count() > 1:
        os._exit(0)  # the reader waits for a line that nobody will send
