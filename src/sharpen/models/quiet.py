"""transformers and bitsandbytes without progress bars and advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger


@contextmanager
def quiet() -> Iterator[None]:
    """Inside this block both report errors only; their settings return afterwards."""
    from transformers.utils import logging  # takes seconds to import

    other = getLogger("bitsandbytes")
    before = other.level
    other.setLevel(ERROR)
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        other.setLevel(before)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
