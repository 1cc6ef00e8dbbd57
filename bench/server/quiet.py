"""`sharpen serve`, whose trainers wait instead of training: `python -m bench.server.quiet serve …`.

They end when the data folder does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from sharpen.server.supervisor.place import Place

WAITS = "import os, sys, time\nwhile os.path.isdir(sys.argv[1]):\n    time.sleep(0.5)\n"


def waits(place: Place, resume: bool) -> Sequence[str]:
    """What is started for a job, as `supervisor.process.command` says it."""
    return [sys.executable, "-I", "-S", "-c", WAITS, str(place.data)]


def main() -> int:
    """The exit code of `sharpen`."""
    from sharpen.cli.main import main as sharpen
    from sharpen.server import app
    from sharpen.server.supervisor.supervisor import Supervisor

    vars(app)["Supervisor"] = partial(Supervisor, command=waits)
    return sharpen(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
