"""The threads of all jobs and model workers together, which are never more than the operator allows."""

from __future__ import annotations


class Cores:
    """A budget; an owner has all that it took, or nothing."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken: dict[str, int] = {}

    @property
    def free(self) -> int:
        """How many nobody has."""
        return self.total - sum(self._taken.values())

    def take(self, owner: str, n: int) -> bool:
        """Whether `owner` has `n` now; False: nothing is taken. What it has already counts."""
        if n > self.free + self._taken.get(owner, 0):
            return False
        self._taken[owner] = n
        return True

    def give(self, owner: str) -> None:
        """Back what the owner has."""
        self._taken.pop(owner, None)
