"""Attacks on the sandbox, by what they are after."""

from __future__ import annotations

from tests.sandbox.attacks.base import Attack
from tests.sandbox.attacks.exhaustion import EXHAUSTION
from tests.sandbox.attacks.harness import HARNESS
from tests.sandbox.attacks.kernel import KERNEL
from tests.sandbox.attacks.network import NETWORK
from tests.sandbox.attacks.processes import PROCESSES
from tests.sandbox.attacks.reading import READING
from tests.sandbox.attacks.secrets import SECRETS
from tests.sandbox.attacks.writing import WRITING

CATEGORIES: dict[str, list[Attack]] = {
    "reading": READING,
    "writing": WRITING,
    "secrets": SECRETS,
    "processes": PROCESSES,
    "network": NETWORK,
    "kernel": KERNEL,
    "exhaustion": EXHAUSTION,
    "harness": HARNESS,
}
ATTACKS = [attack for attacks in CATEGORIES.values() for attack in attacks]
