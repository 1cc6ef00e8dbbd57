"""Every attack on the sandbox wins where there are no walls, and fails in each tier: as this user, as another user, and
in what a container engine leaves of a machine. Then an honest program must run in the same jail."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.sandbox import plan
from sharpen.sandbox.confine import Isolation
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits
from tests.sandbox.attacks import ATTACKS, CATEGORIES
from tests.sandbox.attacks.base import Attack
from tests.sandbox.attacks.host import Host, host
from tests.sandbox.unprivileged import REPOSITORY, USER, report

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the attacks use the numbers of Linux's system calls on x86-64",
)
as_root = pytest.mark.skipif(sys.platform == "linux" and os.geteuid() != 0, reason="only root can become another user")

IN_A_CONTAINER = (
    "read_with_open read_below_proc_self_root write_a_new_file delete_the_file read_the_environment fork execute "
    "kill_another_process connect connect_to_a_socket_file connect_to_an_abstract_socket use_multiprocessing vfork "
    "chroot clone_a_process call_as_32_bit memory_in_one_piece flood_standard_output loop"
).split()

ON_A_NEIGHBOUR = (
    "kill_another_process kill_another_thread kill_another_group_and_thread queue_a_signal signal_through_a_pidfd "
    "signal_as_the_owner_of_a_file read_another_process_by_process_vm_readv read_another_process_by_ptrace "
    "read_the_memory_of_another_process write_into_another_process take_a_descriptor_of_another_process "
    "read_the_environment_of_another_process change_the_limits_of_another_process slow_another_process_down"
).split()

BESIDE = """
import ctypes, os
def keep(token):
    global text
    text = ctypes.create_string_buffer(token.encode(), 100)
    return os.getpid(), ctypes.addressof(text)
def kept():
    return [text.value.decode(), os.getpriority(os.PRIO_PROCESS, 0) - START]
START = os.getpriority(os.PRIO_PROCESS, 0)
"""

DEAF = """
import collections, itertools, threading
def attack(*question):
    threading.Timer(0.1, collections.deque, (itertools.repeat(0), 0)).start()
"""

LAUNCHER = """
from sharpen.sandbox import plan
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits
with Jail(plan.blueprint({tier!r})) as jail, jail.run("import time\\ndef attack():\\n    while True: time.sleep(0.1)",
                                                   Limits(seconds=20)) as run:
    run.loaded()
    print(jail._process.pid, run._pid, flush=True)
    run.call("attack")
"""


@pytest.fixture(scope="module")
def bait() -> Iterator[Host]:
    with host() as found:
        yield found


def each(attacks: list[Attack]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("attack", attacks, ids=[attack.name for attack in attacks])


@pytest.fixture(scope="module")
def tiers() -> list[Isolation]:
    """Those that can be built here; at least one can."""
    found: list[Isolation] = ["full", "reduced"]
    return found if plan.isolation() == "full" else ["reduced"]


def test_there_are_a_hundred_and_twenty_attacks_and_no_two_are_equal() -> None:
    assert len(ATTACKS) >= 120
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert len({attack.source for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack.no_control.strip() == attack.no_control for attack in ATTACKS)
    assert all(len(attacks) >= 10 for attacks in CATEGORIES.values())


@each([attack for attack in ATTACKS if not attack.no_control])
def test_an_attack_wins_where_there_are_no_walls(attack: Attack, bait: Host) -> None:
    if attack.privileged and os.geteuid():
        pytest.skip("it needs root to win")
    seen = bait.control(attack)
    assert attack.won(seen), seen


@each(ATTACKS)
def test_an_attack_fails_in_the_full_tier(attack: Attack, bait: Host, tiers: list[Isolation]) -> None:
    if "full" not in tiers:
        pytest.skip("this machine has no namespaces for us")
    assert not bait.assault(attack, "full")


@each(ATTACKS)
def test_an_attack_fails_in_the_reduced_tier(attack: Attack, bait: Host) -> None:
    assert not bait.assault(attack, "reduced")
    if attack.reduced:
        pytest.skip(f"it may win in this tier: {attack.reduced}")


@as_root
def test_all_attacks_fail_for_another_user_too() -> None:
    found = report(user=USER)
    assert (found["user"], found["isolation"], found["attacks"]) == (USER, "full", len(ATTACKS))
    assert not found["wrong"], _lines(found["wrong"])


def test_a_container_has_the_reduced_tier_and_the_attacks_fail_there() -> None:
    found = report("--container", "--tiers", "reduced", "--attacks", ",".join(IN_A_CONTAINER))
    assert (found["isolation"], found["attacks"]) == ("reduced", len(IN_A_CONTAINER))
    assert not found["wrong"], _lines(found["wrong"])


@pytest.mark.parametrize("tier", ["full", "reduced"])
def test_a_run_cannot_reach_a_run_beside_it(tier: Isolation, tiers: list[Isolation]) -> None:
    if tier not in tiers:
        pytest.skip("this machine has no namespaces for us")
    limits = Limits(seconds=20, memory=256 << 20, disk=1 << 20)
    with Jail(plan.blueprint(tier)) as jail, jail.run(BESIDE, limits) as neighbour:
        neighbour.loaded()
        victim, address = neighbour.call("keep", "token:beside").value
        for pid in {victim, neighbour._pid}:
            bait = {"victim": pid, "address": address, "held": 0}
            for attack in (attack for attack in ATTACKS if attack.name in ON_A_NEIGHBOUR):
                with jail.run(attack.source, limits) as run:
                    run.loaded()
                    assert "token:beside" not in repr(run.call("attack", bait)), attack.name
                assert neighbour.call("kept").value == ["token:beside", 0], attack.name


def test_a_call_whose_question_is_not_even_read_takes_no_longer_than_its_limit() -> None:
    with Jail(plan.blueprint(plan.isolation())) as jail, jail.run(DEAF, Limits(seconds=1)) as run:
        assert run.loaded(20).kind == run.call("attack").kind == "value"
        time.sleep(0.3)
        start = time.monotonic()
        assert run.call("attack", bytes(4 << 20)).kind == "timeout"
        assert time.monotonic() - start < 1.7


@pytest.mark.parametrize("tier", ["full", "reduced"])
def test_a_run_ends_when_its_launcher_is_killed(tier: Isolation, tiers: list[Isolation]) -> None:
    if tier not in tiers:
        pytest.skip("this machine has no namespaces for us")
    command = [sys.executable, "-c", LAUNCHER.format(tier=tier)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert launcher.stdout is not None
    zygote = int(launcher.stdout.readline().split()[0])
    family = _family(zygote)
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + 3
    while (living := {pid for pid in family if _lives(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in living:
        os.kill(pid, 9)
    assert len(family) >= 2
    assert not living


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _family(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid}.union(*(_family(int(child)) for child in children))


def _lines(wrong: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {words}" for name, words in wrong.items())
