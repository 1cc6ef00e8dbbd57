"""A short clinical note is given a code of three levels: system, condition, severity, as in lungs.asthma.severe.

Notes and codes are invented; they are no ICD codes and no medicine. Which wording stands for which code is never told
in the prompt: it is learned from the labelled notes. The last two wordings of each condition are held out.
"""

from __future__ import annotations

import random
from typing import Any

COUNTS = {"sft": 96, "rft": 120, "validation": 16, "test": 150}

CONDITIONS: dict[str, tuple[str, ...]] = {
    "lungs.cough": ("dry cough", "cough at night", "coughing fits", "a hacking cough", "a cough that does not stop"),
    "lungs.asthma": (
        "wheezing",
        "asthma attack",
        "wheezing with short breath",
        "wheezing and asthma",
        "short breath with wheezing",
    ),
    "lungs.pneumonia": (
        "pneumonia",
        "pneumonia of the left lung",
        "lung infection",
        "infection of both lungs",
        "an infection of the lungs",
    ),
    "gut.cramps": (
        "stomach pain",
        "pain in the stomach",
        "stomach cramps",
        "an aching stomach",
        "a cramp in the stomach",
    ),
    "gut.vomiting": (
        "vomiting",
        "nausea and vomiting",
        "vomiting after meals",
        "nausea after meals",
        "vomiting all night",
    ),
    "gut.reflux": (
        "heartburn",
        "acid reflux",
        "heartburn after coffee",
        "acid and heartburn",
        "acid rising after supper",
    ),
    "skin.rash": ("itchy rash", "rash on both arms", "red rash", "a rash on the neck", "a red and itchy neck"),
    "skin.burn": (
        "burn of the hand",
        "scald from hot oil",
        "burn from an iron",
        "a burn of the arm",
        "a burn from steam",
    ),
    "skin.cut": ("deep cut", "cut in the finger", "cut by glass", "a cut on the leg", "a cut of the thumb"),
    "joints.knee": (
        "knee pain",
        "swollen knee",
        "pain in the right knee",
        "a stiff knee",
        "a swelling of the left knee",
    ),
    "joints.back": ("back pain", "stiff lower back", "pain in the back", "an aching back", "a sore back"),
    "joints.ankle": (
        "ankle sprain",
        "twisted ankle",
        "sprained ankle",
        "an ankle sprained at sports",
        "a twisted and swollen ankle",
    ),
}
"""Condition: three trained and two held-out wordings."""

SEVERITIES = {"mild": ("mild", "slight"), "moderate": ("moderate", "medium"), "severe": ("severe", "very bad")}
TRAINED_JOBS = ("bus driver", "teacher", "nurse", "cook", "farmer", "clerk", "painter", "student", "baker", "pilot")
HELD_OUT_JOBS = ("librarian", "plumber", "waiter", "dancer", "carpenter")
SINCE = ("since yesterday", "for three days", "for a week", "since Monday", "for two weeks", "since this morning")
FORMS = (
    "{who}, {age}, {job}. {Wording} {since}, {severity}.",
    "{Wording}, {severity}, {since}. {who} of {age}, {job}.",
    "{who} ({age}, {job}) reports {severity} {wording} {since}.",
)


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """One note; jobs and wordings of held-out notes occur in no trained one."""
    condition = draw.choice(tuple(CONDITIONS))
    wordings = CONDITIONS[condition]
    wording = draw.choice(wordings[3:] if held_out else wordings[:3])
    severity = draw.choice(tuple(SEVERITIES))
    note = draw.choice(FORMS).format(
        who=draw.choice(("Man", "Woman")),
        age=draw.randint(18, 89),
        job=draw.choice(HELD_OUT_JOBS if held_out else TRAINED_JOBS),
        Wording=wording[0].upper() + wording[1:],
        wording=wording,
        since=draw.choice(SINCE),
        severity=draw.choice(SEVERITIES[severity]),
    )
    code = f"{condition}.{severity}"
    return {
        "prompt": f"Give the code of this note.\n{note}",
        "completion": code,
        "answer": code,
        "system": condition.partition(".")[0],
        "condition": condition,
    }
