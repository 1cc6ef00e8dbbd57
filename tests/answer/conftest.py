"""The fixtures of `small`."""

from tests.answer.small import model, plainly

__all__ = ["model", "plainly"]
