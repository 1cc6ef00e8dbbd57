"""sharpen: post-training for language models. A recipe goes in, a run directory comes out.

import sharpen as sh

run = sh.run(sh.Recipe(model="smollm2-135m-instruct", stages=[sh.SFT(rows), sh.RFT(rows, grader=fn)]))
run.summary, run.metrics, run.generate(["2 + 2 ="])
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "DPO",
    "RFT",
    "SFT",
    "Curves",
    "Eval",
    "Observer",
    "Recipe",
    "Run",
    "evaluate",
    "grade",
    "open_run",
    "resume",
    "run",
]

if TYPE_CHECKING:
    from sharpen.api import DPO, RFT, SFT, Curves, Eval, Observer, Recipe, Run, evaluate, grade, open_run, resume, run

# The Hugging Face libraries' progress bars ask every notebook for widgets, which nothing here needs.
warnings.filterwarnings("ignore", message="IProgress not found")


def __getattr__(name: str) -> Any:
    """Import on first use: `sharpen --help` must not wait for torch or pydantic."""
    if name not in __all__:
        raise AttributeError(f"module 'sharpen' has no attribute {name!r}")
    from sharpen import api

    return getattr(api, name)
