"""A worker as the server sees it, without a model: it says what the last message tells it to."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def answer(asked: dict[str, Any], cancelled: set[str]) -> None:
    id, text = asked["ask"], asked["messages"][-1]["content"]
    say(started=id, prompt_tokens=3)
    count = 0
    while count < (asked["max_tokens"] or 4):
        if id in cancelled:
            return
        for choice in range(asked["n"]):
            say(said=[[id, choice, {"content": f"{count} "}, None, None]])
        count += 1
        time.sleep(0.02 if text == "slowly" else 0)
    for choice in range(asked["n"]):
        say(said=[[id, choice, {}, None, "length"]])
    say(done=id, usage={"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count})


def main() -> None:
    model = sys.argv[sys.argv.index("--model") + 1]
    if "unable" in model:
        say(unable="the model cannot be read")
        return
    say(ready={"context": 64, "notice": ""})
    cancelled: set[str] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        print("heard", line, file=sys.stderr, flush=True)
        if "cancel" in asked:
            cancelled.add(asked["cancel"])
        elif asked["messages"][-1]["content"] == "die":
            say(started=asked["ask"], prompt_tokens=3)
            say(said=[[asked["ask"], 0, {"content": "I "}, None, None]])
            sys.exit(9)
        elif asked["messages"][-1]["content"] == "cancelled?":
            say(started=asked["ask"], prompt_tokens=3)
            say(said=[[asked["ask"], 0, {"content": ",".join(sorted(cancelled))}, None, "stop"]])
            say(done=asked["ask"], usage={"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4})
        else:
            threading.Thread(target=answer, args=(asked, cancelled), daemon=True).start()


if __name__ == "__main__":
    main()
