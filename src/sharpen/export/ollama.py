"""A chat template as Ollama's TEMPLATE: its pieces are read off what it writes, and the two must then write the same.

A chat template is a program in Jinja, a TEMPLATE one in Go's language, and no translation is right for all. But nearly
all templates only put marks around messages. Those marks are found by rendering conversations of words that stand
nowhere else; what is built from them is compared with the chat template on other conversations, by the evaluator of
`gotemplate`. Where they differ there is no TEMPLATE. What Ollama hands its templates: template/template.go of
ollama/ollama.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple

from sharpen.errors import ModelError
from sharpen.export import gotemplate
from sharpen.types import Message

Render = Callable[[Sequence[Message], bool], str]
"""The chat template: messages, and whether the beginning of an answer is written after them."""

_SYSTEM, _USER, _ANSWER, _NEXT, _LATER, _THOUGHT = (
    f"word{name}of{name}probe" for name in ("sys", "usr", "ans", "nxt", "ltr", "tht")
)


class Turn(NamedTuple):
    """What stands before and after a message's content."""

    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.before}{{{{ .Content }}}}{self.after}"


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a chat template writes around messages."""

    user: Turn
    assistant: Turn
    answer: str
    """The beginning of an answer."""

    opening: str
    """What a conversation without a system message begins with, such as a default one."""

    system: Turn | None = None
    """Around a first system message that has a turn of its own."""

    later: Turn | None = None
    """Around one that comes later."""

    folded: Turn | None = None
    """Around a system message inside a user's turn; `last` says of which."""

    last: bool = False
    """A folded system message stands in the last user's turn, not in the first's."""

    thinks: bool = False
    """Thoughts in earlier answers are left out."""


def template(render: Render) -> str:
    """The TEMPLATE that writes what the chat template does. Raises ModelError where none was found that does."""
    difference = "no marks around the messages could be found"
    for pieces in _candidates(render):
        made = build(pieces)
        found = compare(made, render)
        if found is None:
            return made
        difference = found
    raise ModelError(
        "no TEMPLATE for Ollama is known to write what this model's chat template writes",
        value=difference,
        remedy="Export with --to gguf: llama.cpp reads the chat template itself (llama-server --jinja)",
    )


def build(pieces: Pieces) -> str:
    """The TEMPLATE of these pieces."""
    for text in _texts(pieces):
        if "{{" in text or "}}" in text:
            raise ModelError("the chat template writes {{ or }}, which a TEMPLATE cannot", value=text)
    first = '(eq (index $.Messages 0).Role "system")'
    turns = []
    if pieces.system:
        only = "" if pieces.later == pieces.system else "(eq $i 0) "
        test = f'and {only}(eq .Role "system")' if only else 'eq .Role "system"'
        turns.append((test, str(pieces.system)))
    if pieces.later and pieces.later != pieces.system:
        turns.append(('and (gt $i 0) (eq .Role "system")', str(pieces.later)))
    fold = ""
    if pieces.folded:
        place = "(eq (len (slice $.Messages $i)) 1)" if pieces.last else "(eq $i 1)"
        before, after = pieces.folded
        fold = f"{{{{ if and {place} {first} }}}}{before}{{{{ (index $.Messages 0).Content }}}}{after}{{{{ end }}}}"
    turns.append(('eq .Role "user"', f"{pieces.user.before}{fold}{{{{ .Content }}}}{pieces.user.after}"))
    thought = ""
    if pieces.thinks:  # only the answer under way still has its thoughts; Ollama finds the marks in this clause
        thought = "{{ if and .Thinking (gt $i $asked) }}<think>\n{{ .Thinking }}\n</think>\n\n{{ end }}"
    turns.append(
        ('eq .Role "assistant"', f"{pieces.assistant.before}{thought}{{{{ .Content }}}}{pieces.assistant.after}")
    )
    body = "{{ else ".join(f"{'' if place else '{{ '}if {test} }}}}{text}" for place, (test, text) in enumerate(turns))
    opening = f'{{{{ if and (eq $i 0) (ne .Role "system") }}}}{pieces.opening}{{{{ end }}}}' if pieces.opening else ""
    if pieces.folded and pieces.opening:
        opening = f"{{{{ if eq $i 0 }}}}{pieces.opening}{{{{ end }}}}"
    asked = ""
    if pieces.thinks:
        last = '{{ if eq .Role "user" }}{{ $asked = $i }}{{ end }}'
        asked = f"{{{{ $asked := -1 }}}}{{{{ range $i, $_ := .Messages }}}}{last}{{{{ end }}}}"
    return f"{asked}{{{{ range $i, $_ := .Messages }}}}{opening}{body}{{{{ end }}}}{{{{ end }}}}{pieces.answer}"


def compare(made: str, render: Render) -> str | None:
    """The first conversation that the TEMPLATE and the chat template write differently; None where there is none."""
    for messages in conversations():
        wanted = rendered(render, messages)
        if wanted is None:
            continue
        try:
            written = gotemplate.render(made, values(messages))
        except ValueError as error:
            return str(error)
        if written != wanted:
            roles = ", ".join(message["role"] for message in messages)
            return f"for {roles} the chat template writes {wanted!r}, the TEMPLATE {written!r}"
    return None


def values(messages: Sequence[Message]) -> dict[str, Any]:
    """What Ollama hands a TEMPLATE that reads `.Messages`."""
    listed = [{"Role": m["role"], "Content": m["content"], "Thinking": m.get("thinking", "")} for m in messages]
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    return {"Messages": listed, "System": system, "Response": "", "Tools": (), "Think": False, "IsThinkSet": False}


def conversations() -> Iterator[list[Message]]:
    """Conversations of one to seven turns, with a system message and without, of several lines, signs and scripts."""
    texts = (
        "Who is it?",
        "One.\n\nTwo: `a < b`",
        "Grüße, 你好 🙂",
        '{"a": [1, "}"]}',
        "{% if x %} $5 </s> #",
        "Yes",
        "2 + 2 = ?",
    )
    turns = [_say("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(texts)]
    for system in ("", "Answer briefly.", "You are a poet.\nRhyme."):
        for length in (1, 3, 5, 7):
            yield [*([_say("system", system)] if system else []), *turns[:length]]
    yield [*turns[:2], _say("system", "Now in French."), turns[2]]
    yield [_say("system", "Be kind."), *turns[:2], _say("system", "Now in French."), turns[2]]


def rendered(render: Render, messages: Sequence[Message]) -> str | None:
    """What the chat template writes, with the beginning of an answer.

    None where it refuses the conversation, or leaves a system message out.
    """
    try:
        text = render(messages, True)
    except Exception:  # a foreign boundary: templates are programs, and refuse with exceptions of their own
        return None
    said = all(message["content"] in text for message in messages if message["role"] == "system")
    return text if said else None


def trims(render: Render) -> bool:
    """Whether the chat template takes away the spaces around messages, which no TEMPLATE can."""
    return f" {_USER} " not in render([_say("user", f" {_USER} ")], True)


def takes_system(render: Render) -> bool:
    """Whether the chat template takes a system message."""
    return rendered(render, [_say("system", _SYSTEM), _say("user", _USER)]) is not None


def _candidates(render: Render) -> Iterator[Pieces]:
    """The pieces that the chat template may consist of."""
    plain = _plain(render)
    if plain is None:
        return
    plain = replace(plain, thinks=_drops_thoughts(render))
    messages = [_say("system", _SYSTEM), _say("user", _USER)]
    text = rendered(render, messages)
    if text is None:
        yield plain
        return
    head, _, rest = text.partition(_SYSTEM)
    between = rest.partition(_USER)[0]
    if between.endswith(plain.user.before):
        system = Turn(head, between.removesuffix(plain.user.before))
        yield replace(plain, system=system, later=_later(render, plain))
    start = plain.opening + plain.user.before
    if head.startswith(start):
        folded = replace(plain, folded=Turn(head.removeprefix(start), between))
        yield folded
        yield replace(folded, last=True)


def _plain(render: Render) -> Pieces | None:
    """The pieces around users' and assistants' messages; None where they are not the same at every turn."""
    user, answer, after = _say("user", _USER), _say("assistant", _ANSWER), _say("user", _NEXT)
    whole = rendered(render, [user, answer, after])
    one = rendered(render, [user])
    if whole is None or one is None:
        return None
    head, _, rest = whole.partition(_USER)
    to_answer, _, rest = rest.partition(_ANSWER)
    to_user, _, tail = rest.partition(_NEXT)
    closed = _shared(render([user], False).partition(_USER)[2], tail, to_answer)  # what ends a user's turn
    ended = _shared(_ended(render, [user, answer]).partition(_ANSWER)[2], to_user)
    begin = to_user.removeprefix(ended)
    if not head.endswith(begin):  # what stands between two turns only, such as another bos, belongs to the one before
        begin = _shared(head[::-1], to_user[::-1])[::-1]
        ended = to_user.removesuffix(begin)
    if not begin:
        return None
    return Pieces(
        user=Turn(begin, closed),
        assistant=Turn(to_answer.removeprefix(closed), ended),
        answer=tail.removeprefix(closed),
        opening=head.removesuffix(begin),
    )


def _later(render: Render, plain: Pieces) -> Turn | None:
    """What stands around a system message after an answer; None where the chat template takes none there."""
    messages = [_say("user", _USER), _say("assistant", _ANSWER), _say("system", _LATER), _say("user", _NEXT)]
    text = rendered(render, messages)
    if text is None:
        return None
    before, _, rest = text.partition(_ANSWER)[2].partition(_LATER)
    return Turn(before.removeprefix(plain.assistant.after), rest.partition(_NEXT)[0].removesuffix(plain.user.before))


def _drops_thoughts(render: Render) -> bool:
    said = _say("assistant", f"<think>\n{_THOUGHT}\n</think>\n\n{_ANSWER}")
    text = render([_say("user", _USER), said, _say("user", _NEXT)], True)
    return _ANSWER in text and _THOUGHT not in text


def _ended(render: Render, messages: Sequence[Message]) -> str:
    try:
        return render(messages, False)
    except Exception:  # as in `rendered`
        return ""


def _shared(*texts: str) -> str:
    """The beginning that all have, up to the end of a mark: `<|end|>` and `<|user|>` do not share `<|`."""
    same = takewhile(lambda signs: len(set(signs)) == 1, zip(*texts, strict=False))
    text = "".join(signs[0] for signs in same)
    if text in texts:
        return text
    return text[: 1 + max(text.rfind(sign) for sign in ">]\n ")]


def _texts(pieces: Pieces) -> Iterator[str]:
    for turn in (pieces.user, pieces.assistant, pieces.system, pieces.later, pieces.folded):
        yield from turn or ()
    yield from (pieces.answer, pieces.opening)


def _say(role: str, content: str) -> Message:
    return {"role": role, "content": content}
