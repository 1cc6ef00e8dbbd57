"""The public Python API: recipes from Python values, and a handle on what came out (docs/python.md)."""

from __future__ import annotations

from sharpen.api.pictures import Curves
from sharpen.api.recipes import DPO, RFT, SFT, Eval, Recipe
from sharpen.api.runs import Run, open_run, resume, run
from sharpen.api.trying import evaluate, grade
from sharpen.runs.observer import Observer

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
