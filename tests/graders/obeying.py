"""A grader that does what the sample says; the workers of `test_pool.py` import it."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any, ClassVar

from sharpen.config.graders import SingleGrader
from sharpen.types import Example, Grade, Sample


def obey(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """The number in the sample, unless it orders something else."""
    text = sample["output_text"]
    if text == "hang":
        time.sleep(60)
    if text == "hang in C":
        ctypes.PyDLL(None).sleep(60)
    if text == "exit":
        os._exit(1)
    if text == "segfault":
        ctypes.string_at(0)
    if text == "raise":
        raise ValueError("no")
    return float(text)


class ObeyingGrader:
    """`obey`, as though it were one of ours."""

    def __init__(self, config: SingleGrader) -> None:
        """Nothing to configure."""

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Do what the sample says."""
        return Grade(obey({"output_text": sample.text}, {}))


class Trusted(SingleGrader):
    """The config of `ObeyingGrader`."""

    runtime: ClassVar[str] = "obeying:ObeyingGrader"
