"""The kernel's surface: calls that a program has no need of, made harmlessly. One that the kernel looks at has won."""

from __future__ import annotations

from typing import Any

from tests.sandbox.attacks.base import Attack, Seen, accomplished, attack, looked_at, more_than


def _call(name: str, words: str, won: Any = looked_at, **options: Any) -> Attack:
    return attack(name, f"return call({words})", won, **options)


def _done(seen: Seen) -> bool:
    return seen.outcome.kind == "value" and seen.outcome.value == 0


LACKING = "not every kernel is built with it: this project's machines were not"

SPACES = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "time": 0x80,
}

KERNEL = [
    _call("unshare_the_user_namespace", "272, 0x10000000", accomplished),
    *(
        _call(f"unshare_the_{kind}_namespace", f"272, {flag}", accomplished, privileged=True)
        for kind, flag in SPACES.items()
    ),
    _call("unshare_the_table_of_descriptors", "272, 0x400", accomplished),
    _call("enter_a_namespace", "308, -1, 0"),
    _call("mount", "165, b'x', b'.', b'nothing', 0, None", privileged=True),
    _call("unmount", "166, b'nothing', 0", privileged=True),
    _call("pivot_root", "155, b'nothing', b'nothing'", privileged=True),
    _call("chroot", "161, b'nothing'"),
    _call("open_tree", "428, -100, b'nothing', 0"),
    _call("move_mount", "429, -100, b'nothing', -100, b'nothing', 0", privileged=True),
    _call("open_a_filesystem", "430, b'nothing', 0", privileged=True),
    _call("change_a_mount", "442, -100, b'nothing', 0, (ctypes.c_uint64 * 4)(1), 32", privileged=True),
    _call("list_mounts", "458, (ctypes.c_uint64 * 4)(32, 0xFFFFFFFFFFFFFFFF), (ctypes.c_uint64 * 8)(), 8, 0"),
    _call("load_a_bpf_program", "321, 5, None, 0", privileged=True),
    _call("open_a_performance_counter", "298, None, 0, -1, -1, 0"),
    _call("find_a_keyring", "250, 0, -3, 0"),
    _call("add_a_key", "248, b'user', b'mark', b'x', 1, -2"),
    _call("request_a_key", "249, b'user', b'mark', None, 0"),
    _call("handle_page_faults", "323, 1"),
    _call("set_an_io_ring_up", "425, 1, ctypes.create_string_buffer(120)"),
    _call("load_a_kernel", "246, 0, 1 << 20, None, 1 << 15", no_control="it would put another kernel in place"),
    _call("load_a_module", "175, None, 0, b''", no_control=LACKING),
    _call("load_a_module_from_a_file", "313, -1, b'', 0", no_control=LACKING),
    _call("ask_the_log_of_the_kernel", "103, 10, None, 0", privileged=True),
    _call("reboot", "169, 0, 0, 0, None", privileged=True),
    _call("swap_on", "167, b'nothing', 0", privileged=True),
    _call("swap_off", "168, b'nothing'", privileged=True),
    _call("set_quotas", "179, 0x80000700, None, 0, None"),
    _call("account_processes", "163, b'nothing'", privileged=True),
    _call("change_the_personality", "135, 0x0040000", accomplished),
    _call("read_the_local_descriptors", "154, 0, ctypes.create_string_buffer(64), 64", accomplished),
    _call("reach_ports", "172, 3", accomplished, no_control=LACKING),
    _call("reach_a_port", "173, 0x80, 1, 1", accomplished, no_control=LACKING),
    _call("make_memory_without_a_place", "319, b'x', 0", accomplished),
    _call("make_secret_memory", "447, 0"),
    _call("lock_memory", "149, ctypes.create_string_buffer(10), 10", accomplished),
    _call("make_more_rules_of_landlock", "444, None, 0, 1", accomplished),
    _call("ask_the_filter", "317, 2, 0, (ctypes.c_uint32 * 1)(0x7FFF0000)", accomplished),
    _call("set_another_filter", "157, 22, 2, None", looked_at),
    _call("lose_the_dump", "157, 4, 0, 0, 0, 0", accomplished),
    _call("take_a_name", "157, 15, b'mark'", accomplished),
    _call("set_the_base_of_threads", "158, 0x1003, (ctypes.c_uint64 * 1)()", accomplished),
    _call("set_users", "105, os.getuid()", accomplished),
    _call("set_groups", "106, os.getgid()", accomplished),
    _call("set_all_users", "117, -1, -1, -1", accomplished),
    _call("set_the_user_of_files", "122, os.getuid()", accomplished),
    _call("set_more_groups", "116, 0, None", accomplished, privileged=True),
    _call("set_capabilities", "126, (ctypes.c_uint32 * 2)(0x20080522, 0), ctypes.create_string_buffer(24)", _done),
    _call("set_the_clock", "227, 0, (ctypes.c_int64 * 2)(-1, -1)"),
    _call("set_the_time_of_day", "164, (ctypes.c_int64 * 2)(-1, -1), None"),
    _call("adjust_the_clock", "159, None"),
    _call("name_the_host", "170, b'x', -1", privileged=True),
    _call("name_the_domain", "171, b'x', -1", privileged=True),
    _call("make_a_pipe_file_here", "133, b'pipe', 0o10600, 0", accomplished),
    _call("make_a_device", "133, b'device', 0o20600, 0x103", accomplished, privileged=True),
    _call("share_memory_by_number", "29, 0, 4096, 0o600"),
    _call("change_semaphores", "65, -1, None, 0"),
    _call("receive_from_a_queue", "70, -1, None, 0, 0, 0"),
    _call("delete_a_queue_of_messages", "241, b'nothing'"),
    _call("watch_files", "294, 0", accomplished),
    _call("watch_the_machine", "300, 0, 0", accomplished, privileged=True),
    _call("take_signals_as_a_file", "289, -1, (ctypes.c_uint64 * 1)(), 8, 0", accomplished),
    _call("give_advice_to_a_process", "440, -1, None, 0, 0, 0"),
    _call("move_pages", "279, 0, 0, None, None, None, 0", accomplished),
    _call("bind_memory", "237, None, 0, 0, None, 0, 0", accomplished),
    _call("take_a_key_of_protection", "330, 0, 4"),
    _call("list_modules_of_security", "461, None, None, 0"),
    attack(
        "stop_a_terminal",
        "return machine('bf00000000 be12540000 31d2 b810000000 0f05 c3')()",
        lambda seen: seen.outcome.kind == "value" and seen.outcome.value not in (-1, -38, -13, -25),
        no_control="the control has no terminal, which is as it should be",
    ),
    attack(
        "ask_for_signals_by_ioctl",
        """
        import fcntl
        reader, writer = os.pipe()
        return fcntl.ioctl(reader, 0x5452, b"\\1\\0\\0\\0") == b"\\1\\0\\0\\0"
        """,
        accomplished,
    ),
    attack("own_a_file", "import fcntl\nreturn fcntl.fcntl(os.pipe()[0], 8, 0)", accomplished),
    attack("own_a_file_in_the_newer_way", "import fcntl\nfcntl.fcntl(os.pipe()[0], 15, bytes(8))", accomplished),
    attack("make_a_pipe_larger", "import fcntl\nreturn fcntl.fcntl(os.pipe()[1], 1031, 1 << 19)", accomplished),
    attack("lease_a_file", "import fcntl\nf = open('f', 'w')\nreturn fcntl.fcntl(f, 1024, 1)", accomplished),
    attack("be_told_of_a_folder", "import fcntl\nreturn fcntl.fcntl(os.open('.', 0), 1026, 2)", accomplished),
    attack("give_an_own_file_away", "open('f', 'w').close()\nos.chown('f', os.getuid(), -1)", accomplished),
    attack("set_an_attribute_of_an_own_file", "open('f', 'w').close()\nos.setxattr('f', 'user.x', b'x')", accomplished),
    attack(
        "map_memory_into_a_pipe",
        """
        buffer = ctypes.create_string_buffer(10)
        vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 10)
        return call(278, os.pipe()[1], vector, 1, 0)
        """,
        accomplished,
    ),
    attack(
        "splice",
        """
        reader, writer = os.pipe()
        os.write(writer, b"x")
        return os.splice(reader, os.pipe()[1], 1)
        """,
        accomplished,
    ),
    attack(
        "tee",
        """
        reader, writer = os.pipe()
        os.write(writer, b"x")
        return call(276, reader, os.pipe()[1], 1, 0)
        """,
        accomplished,
    ),
    attack(
        "call_as_32_bit",  # int 0x80: getpid is 20
        "return machine('b814000000 cd80 c3')()",
        lambda seen: seen.outcome.kind == "value" and seen.outcome.value > 0,
    ),
    attack(
        "open_as_32_bit",  # the path below 4 GB; open is 5
        """
        libc.mmap.restype = ctypes.c_void_p
        place = libc.mmap(ctypes.c_void_p(0x10000000), 4096, 3, 0x32, -1, ctypes.c_long(0))
        ctypes.memmove(place, bait["secret"].encode() + b"\\0", len(bait["secret"]) + 1)
        return machine("53 bb00000010 31c9 31d2 b805000000 cd80 5b 4863c0 c3")()
        """,
        lambda seen: seen.outcome.kind == "value" and seen.outcome.value >= 0,
    ),
    attack(
        "call_as_x32",
        "return call(0x40000000 + 39)",
        lambda seen: seen.outcome.kind == "value" and seen.outcome.value > 0,
        no_control=LACKING,
    ),
    attack(
        "raise_the_limit_of_descriptors",
        """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return len([os.dup(0) for _ in range(400)])
        """,
        more_than(64),
    ),
    attack(
        "raise_the_limit_of_memory",
        """
        import resource
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, hard))
        return len(bytearray(300 << 20))
        """,
        more_than(256 << 20),
    ),
]
