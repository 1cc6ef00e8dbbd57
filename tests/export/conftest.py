"""Proofs of tiny models need few tokens."""

from __future__ import annotations

import pytest

from sharpen.export import proof


@pytest.fixture(autouse=True)
def few_tokens(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("long"):
        monkeypatch.setattr(proof, "NEW_TOKENS", 12)
