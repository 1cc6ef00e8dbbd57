"""Processes: starting some, living on, and reaching those of the host."""

from __future__ import annotations

from tests.sandbox.attacks.base import Attack, accomplished, attack, disturbed, left, says

MARKED = """
def linger(seconds=5):
    time.sleep(seconds)
    os._exit(0)
"""


def _cloned(name: str, flags: int, privileged: bool = False) -> Attack:
    code = "bf" + flags.to_bytes(4, "little").hex() + "be00000000 31d2 4d31d2 4d31c0 b838000000 0f05"
    child = "85c0 7509 31ff b83c000000 0f05 c3"  # jnz over what only the child does
    return attack(name, f"return machine('{code} {child}')()", accomplished, privileged=privileged)


PROCESSES = [
    attack(
        "fork",
        """
        pid = os.fork()
        if not pid:
            os._exit(0)
        return pid
        """,
        accomplished,
    ),
    attack("vfork", "return machine('b83a000000 0f05 85c0 7509 31ff b83c000000 0f05 c3')()", accomplished),
    _cloned("clone_a_process", 17),
    _cloned("clone_in_the_same_memory", 0x4000 | 0x100 | 17),
    _cloned("clone_a_brother", 0x8000 | 17),
    _cloned("clone_into_a_user_namespace", 0x10000000 | 17),
    _cloned("clone_into_a_network", 0x40000000 | 17, privileged=True),
    _cloned("clone_a_thread_into_a_network", 0x40000000 | 0x10000 | 0x800 | 0x100, privileged=True),
    attack(
        "clone3_a_process",
        """
        arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)
        pid = call(435, arguments, 88)
        if not pid:
            os._exit(0)
        return pid
        """,
        accomplished,
    ),
    attack("spawn", "return os.posix_spawn('/bin/true', ['true'], {})", accomplished),
    attack("execute", "os.execv('/bin/echo', ['echo', 'executed'])", says("executed")),
    attack(
        "execute_a_descriptor",
        """
        file = os.open("/bin/echo", os.O_RDONLY)
        words = (ctypes.c_char_p * 3)(b"echo", b"executed", None)
        return call(322, file, b"", words, None, 0x1000)
        """,
        says("executed"),
    ),
    attack(
        "execute_the_interpreter",
        "os.execv(sys.executable, [sys.executable, '-c', 'print(\"exe\" + \"cuted\")'])",
        says("executed"),
    ),
    attack(
        "run_a_subprocess",
        "import subprocess\nreturn subprocess.run(['/bin/echo', 'executed'], capture_output=True).stdout",
        says("executed"),
    ),
    attack("run_a_shell", "return libc.system(b'echo executed')", says("executed")),
    attack("open_a_pipe_to_a_shell", "return os.popen('echo executed').read()", says("executed")),
    attack(
        "use_multiprocessing",
        """
        import multiprocessing
        process = multiprocessing.get_context("fork").Process(target=os.getpid)
        process.start()
        process.join()
        return process.exitcode
        """,
        accomplished,
    ),
    attack(
        "fork_with_a_terminal",
        """
        pid, terminal = os.forkpty()
        if not pid:
            os._exit(0)
        return pid
        """,
        accomplished,
    ),
    attack(
        "outlive_the_run",
        """
        if not os.fork():
            for descriptor in range(4):
                os.close(descriptor)
            linger()
        return True
        """,
        left,
        MARKED,
    ),
    attack(
        "become_a_daemon",
        """
        if not os.fork():
            os.setsid()
            if not os.fork():
                os.closerange(0, 4)
                linger()
            os._exit(0)
        os.wait()
        """,
        left,
        MARKED,
    ),
    attack("signal_the_parent", "import signal\nos.kill(os.getppid(), signal.SIGUSR1)", disturbed),
    attack("signal_the_launcher", "import signal\nos.kill(bait['tester'], signal.SIGUSR1)", disturbed),
    attack("kill_another_process", "os.kill(bait['victim'], 9)", disturbed),
    attack("kill_another_thread", "return call(200, bait['victim'], 9)", disturbed),
    attack("kill_another_group_and_thread", "return call(234, bait['victim'], bait['victim'], 9)", disturbed),
    attack(
        "queue_a_signal",
        """
        information = ctypes.create_string_buffer(128)
        ctypes.c_int.from_buffer(information, 0).value = 9
        ctypes.c_int.from_buffer(information, 8).value = -1
        return call(129, bait["victim"], 9, information)
        """,
        disturbed,
    ),
    attack(
        "signal_through_a_pidfd",
        "return call(424, call(434, bait['victim'], 0), 9, None, 0)",
        disturbed,
    ),
    attack(
        "signal_as_the_owner_of_a_file",
        """
        import fcntl
        reader, writer = os.pipe()
        fcntl.fcntl(reader, 10, 15)
        fcntl.fcntl(reader, 8, bait["victim"])
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)
        os.write(writer, b"x")
        """,
        disturbed,
    ),
    attack("reach_every_process", "os.kill(-1, 0)", accomplished),
    attack("reach_the_own_group", "os.kill(0, 0)", accomplished),
    attack("reach_the_group_of_the_launcher", "os.killpg(bait['group'], 0)", accomplished),
    attack("trace_another_process", "return call(101, 0x4206, bait['victim'], 0, 0)", accomplished),
    attack("let_the_parent_trace", "return call(101, 0, 0, 0, 0)", accomplished),
    attack(
        "write_into_another_process",
        """
        buffer = ctypes.create_string_buffer(b"x", 1)
        ours = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 1)
        theirs = (ctypes.c_uint64 * 2)(bait["address"], 1)
        return call(311, bait["victim"], ours, 1, theirs, 1, 0)
        """,
        accomplished,
    ),
    attack("open_another_process", "return call(434, bait['victim'], 0)", accomplished),
    attack("compare_with_another_process", "return call(312, os.getpid(), bait['victim'], 1, 0, 0)", accomplished),
    attack("slow_another_process_down", "os.setpriority(os.PRIO_PROCESS, bait['victim'], 19)", accomplished),
    attack(
        "schedule_another_process",
        "os.sched_setscheduler(bait['victim'], os.SCHED_BATCH, os.sched_param(0))",
        disturbed,
    ),
    attack("pin_another_process", "os.sched_setaffinity(bait['victim'], {0})", disturbed),
    attack(
        "change_the_limits_of_another_process",
        "import resource\nreturn resource.prlimit(bait['victim'], resource.RLIMIT_CORE, (0, 0))",
        disturbed,
    ),
    attack("change_the_own_priority", "return os.nice(1)", accomplished),
    attack("change_the_own_processors", "os.sched_setaffinity(0, {0})", accomplished),
    attack("change_the_own_scheduler", "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))", accomplished),
    attack("change_the_priority_of_input_and_output", "return call(251, 1, 0, 7 | 2 << 13)", accomplished),
    attack("adopt_orphans", "return libc.prctl(36, 1, 0, 0, 0)", lambda seen: seen.outcome.value == 0),
    attack("live_on_without_the_parent", "return libc.prctl(1, 0, 0, 0, 0)", lambda seen: seen.outcome.value == 0),
]
