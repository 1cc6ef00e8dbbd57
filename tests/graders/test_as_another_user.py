"""The forgeries and the honest programs once more, as a user without any rights."""

from __future__ import annotations

import os
import sys

import pytest

from tests.sandbox.unprivileged import USER, run


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_forgeries_and_honest_programs_are_judged_the_same_for_another_user() -> None:
    suites = ["tests/graders/test_forging.py", "tests/graders/test_honest.py"]
    found = run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *suites], USER)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    assert " passed" in found.stdout and " failed" not in found.stdout
