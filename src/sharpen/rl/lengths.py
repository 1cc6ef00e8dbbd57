"""Rewards that depend on length."""

from __future__ import annotations


def overlong_penalty(length: int, max_tokens: int, buffer: float) -> float:
    """DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13), between -1 and 0.

    `buffer` is the share of `max_tokens` over which the penalty grows: 0 up to
    (1 − buffer)·max_tokens, then linear, -1 at max_tokens. A buffer of 0 switches it off.
    """
    if buffer == 0:
        return 0.0
    free = (1 - buffer) * max_tokens
    return -max(0.0, min(1.0, (length - free) / (buffer * max_tokens)))
