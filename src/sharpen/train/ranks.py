"""Processes that torchrun started together.

Rank 0 leads: it alone reads, grades, decides, updates and writes, in the very code that runs alone. The others hold
a copy of the model and lend their compute: they sample and take gradients on the share of rows they are told, until
they are told to end. So checkpoints, journal and resuming know nothing of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sharpen.data.pack import atoms, cost
from sharpen.errors import RunError
from sharpen.types import Sequence as Row

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""So long the others wait for an order: the leader may grade, save or evaluate meanwhile."""


def _with_all(function: Callable[P, T]) -> Callable[P, T]:
    """Say what it means when the others do not answer."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            raise RunError(
                "another rank has died or cannot be reached",
                value=" ".join(str(error).split())[:200],
                remedy="See what it printed; then resume the run",
            ) from error

    return call


class Ranks:
    """`size` processes, of which this is number `rank`; alone, every exchange is with itself."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @_with_all
    def tell(self, order: str, parts: Sequence[Any]) -> Any:
        """Rank 0 gives each rank an order and its part; returns rank 0's own part."""
        if self.size > 1:
            dist.scatter_object_list([None], [(order, part) for part in parts])
        return parts[0]

    @_with_all
    def hear(self) -> tuple[str, Any]:
        """The order and part that rank 0 has told this one."""
        heard: list[Any] = [None]
        dist.scatter_object_list(heard)
        order, part = heard[0]
        return order, part

    @_with_all
    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank; on other ranks than 0 an empty list."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.gather_object(value, found if self.rank == 0 else None)
        return [] if self.rank else found

    @_with_all
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add every rank's tensors up in those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.reduce(tensor, 0)

    @_with_all
    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give every rank the numbers of rank 0's tensors."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach().view(torch.uint8), 0)  # gloo knows no bfloat16


def follows() -> bool:
    """Whether torchrun started this process as another rank than 0."""
    return int(os.environ.get("RANK", "0")) > 0


def beside() -> int:
    """How many ranks share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started, or this process alone; when rank 0 leaves, it tells the others to end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    ranks = Ranks(dist.get_rank(), size)
    try:
        yield ranks
    finally:
        if ranks.rank == 0:
            _dismiss(ranks)
        dist.destroy_process_group()


def _dismiss(ranks: Ranks) -> None:
    try:
        ranks.tell("end", [None] * ranks.size)
    except RunError:
        pass  # it is the others that ended first, which is already being told


def shares(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """The rows in `size` shares of about as many tokens; no atom is parted, and each share keeps their order."""
    found = atoms(rows)
    loads = [0] * size
    chosen = [0] * len(found)
    for place in sorted(range(len(found)), key=lambda place: -cost(found[place])):
        chosen[place] = loads.index(min(loads))
        loads[chosen[place]] += cost(found[place])
    return [[row for atom, by in zip(found, chosen, strict=True) if by == rank for row in atom] for rank in range(size)]
