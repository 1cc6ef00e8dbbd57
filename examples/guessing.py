"""An environment of your own: guess a number in two turns. `docs/envs.md` explains it line by line.

    python examples/guessing.py --model smollm2-135m-instruct --steps 20

The model guesses, hears "higher" or "lower", and guesses again. Each guess earns up to a half, by how near it came;
the right number at once earns all.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import sharpen as sh
from sharpen.envs.base import Step
from sharpen.types import Example, Message


class Guessing:
    """Opens a game for each attempt. `highest` comes from the recipe's `args`."""

    def __init__(self, highest: int = 9) -> None:
        self.highest = highest

    async def open(self, example: Example) -> Game:
        return Game(example, self.highest)


class Game:
    """One game: the example's row holds the secret number."""

    def __init__(self, example: Example, highest: int) -> None:
        self.messages = example.messages  # what the model sees first
        self.secret: int = example.item["secret"]
        self.highest = highest
        self.guesses: list[int | None] = []

    async def step(self, message: Message) -> Step:
        """Answer the model's turn. A bad guess is data, not an error: it is told, and earns nothing."""
        found = re.search(r"\d+", message["content"])
        guess = min(int(found[0][:6]), self.highest) if found else None
        self.guesses.append(guess)
        done = guess == self.secret or len(self.guesses) == 2
        return Step(
            messages=() if done else ({"role": "user", "content": self.hint(guess)},),
            done=done,
            reward=self.score(guess) / 2 + (guess == self.secret) * (2 - len(self.guesses)) / 2,
            state={"guesses": self.guesses},
        )

    async def close(self) -> None:
        """Nothing to give back."""

    def hint(self, guess: int | None) -> str:
        if guess is None:
            return "That is no number. Guess again."
        return f"{'Higher' if guess < self.secret else 'Lower'} than {guess}. Guess again."

    def score(self, guess: int | None) -> float:
        """1 for the number itself, less the further away; 0 for no number."""
        return 0.0 if guess is None else 1 - abs(guess - self.secret) / self.highest


def rows(count: int) -> list[dict[str, Any]]:
    """Prompts; `secret` is for the environment alone."""
    ask = "Guess my number, from 0 to 9. Answer with a digit only. Game {}."
    return [{"prompt": ask.format(game), "secret": 3 + game % 4} for game in range(count)]


def play(model: str, steps: int, out: Path, threads: int | None = None, **settings: Any) -> sh.Run:
    """Train in the environment; no grader is needed, since the environment gives the reward."""
    stage = sh.RFT(
        rows(16),
        env={"type": "plugin", "use": "guessing:Guessing", "args": {"highest": 9}, "max_turns": 2},
        steps=steps,
        **{"prompts_per_step": 4, "group_size": 8, "sampling": {"max_tokens": 24}, **settings},
    )
    return sh.run(sh.Recipe(model=model, stages=[stage], threads=threads), out=out)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="alias, folder or hub id")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/guessing"))
    options = parser.parse_args()
    for line in play(options.model, options.steps, options.out).metrics:
        print(f"step {line['step']:3d}  reward {line['reward']['mean']:.3f}")


if __name__ == "__main__":
    main()
