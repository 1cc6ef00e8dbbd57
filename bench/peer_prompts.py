"""The prompts of the samplers' peers as token ids, the same as in `bench.sampler`'s steady work.

python -m bench.peer_prompts > prompts.jsonl
"""

from __future__ import annotations

import argparse
import json

from bench.common import prompts
from sharpen.data.render import Renderer
from sharpen.models.load import load_tokenizer


def main() -> None:
    """Print a row {"tokens": [...]} for each prompt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    renderer = Renderer(*load_tokenizer(options.model))
    for row in prompts(options.rows):
        print(json.dumps({"tokens": renderer.prompt(row["messages"])}))


if __name__ == "__main__":
    main()
