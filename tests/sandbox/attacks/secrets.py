"""What the launcher and earlier runs know."""

from __future__ import annotations

from tests.sandbox.attacks.base import Seen, accomplished, attack, told


def _named(seen: Seen) -> bool:
    return bool(seen.outcome.value == seen.host)


SECRETS = [
    attack("read_the_environment", "return dict(os.environ)", told),
    attack(
        "read_the_environment_of_the_process",
        """
        table = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
        found, index = [], 0
        while table[index]:
            found.append(table[index])
            index += 1
        return found
        """,
        told,
    ),
    attack("read_proc_self_environ", "return open('/proc/self/environ').read()", told),
    attack(
        "read_the_environment_of_another_process",
        "return open(f\"/proc/{bait['victim']}/environ\").read()",
        told,
    ),
    attack("read_the_arguments_of_another_process", "return open(f\"/proc/{bait['victim']}/cmdline\").read()", told),
    attack("read_the_arguments_of_the_launcher", "return sys.orig_argv + sys.argv", told),
    attack(
        "search_all_objects",
        "import gc\nreturn excerpts(repr(thing) for thing in gc.get_objects() if type(thing) in (dict, list, tuple))",
        told,
    ),
    attack(
        "search_the_frames",
        """
        frame, found = sys._getframe(), []
        while frame:
            found.append(repr(frame.f_locals))
            frame = frame.f_back
        return excerpts(found)
        """,
        told,
    ),
    attack(
        "search_the_frames_of_all_threads",
        "return excerpts(repr(frame.f_back.f_locals) for frame in sys._current_frames().values() if frame.f_back)",
        told,
    ),
    attack(
        "search_the_modules",
        "return excerpts(repr(vars(module)) for name, module in sys.modules.items())",
        told,
    ),
    attack(
        "search_the_memory_through_a_pipe",
        """
        reader, writer = os.pipe()
        found = []
        for start in {(id(thing) >> 23) << 23 for thing in (object(), bait, sys, found, "text" * 100)}:
            for page in range(start - (4 << 20), start + (12 << 20), 4096):
                if libc.write(writer, ctypes.c_void_p(page), 4096) == 4096:
                    text = os.read(reader, 4096)
                    place = text.find(b"token:")
                    while place >= 0:
                        found.append(text[place : place + 40])
                        place = text.find(b"token:", place + 1)
        return found
        """,
        told,
    ),
    attack("find_files_of_an_earlier_run", "return [open(name).read() for name in os.listdir('.')]", told),
    attack(
        "find_files_in_the_temporary_folder",
        """
        found = []
        for folder, _, names in os.walk(os.path.dirname(bait["folder"])):
            found += [open(os.path.join(folder, name)).read() for name in names if name == "secret"]
        return found
        """,
        told,
    ),
    attack(
        "read_the_memory_of_another_process",
        """
        memory = os.open(f"/proc/{bait['victim']}/mem", os.O_RDONLY)
        return os.pread(memory, 100, bait["address"])
        """,
        told,
    ),
    attack(
        "read_another_process_by_process_vm_readv",
        """
        buffer = ctypes.create_string_buffer(100)
        ours = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 100)
        theirs = (ctypes.c_uint64 * 2)(bait["address"], 100)
        call(310, bait["victim"], ours, 1, theirs, 1, 0)
        return buffer.raw
        """,
        told,
    ),
    attack(
        "read_another_process_by_ptrace",
        """
        call(101, 16, bait["victim"], 0, 0)
        time.sleep(0.1)
        word, found = ctypes.c_uint64(), b""
        for offset in range(0, 80, 8):
            call(101, 1, bait["victim"], bait["address"] + offset, ctypes.byref(word))
            found += bytes(word)
        call(101, 17, bait["victim"], 0, 0)
        return found
        """,
        told,
    ),
    attack(
        "take_a_descriptor_of_another_process",
        """
        process = call(434, bait["victim"], 0)
        return os.pread(call(438, process, bait["held"], 0), 100, 0)
        """,
        told,
    ),
    attack("learn_the_name_of_the_host", "return os.uname().nodename", _named, reduced="a name is no secret"),
    attack(
        "count_the_processes_of_the_host",
        """
        found = 0
        for pid in bait["processes"]:
            try:
                found += os.getsid(pid) >= 0  # 0: its session began outside of this pid namespace
            except OSError:
                continue
        return found - 1
        """,
        lambda seen: accomplished(seen) and seen.outcome.value > 3,
        reduced="without a pid namespace the numbers of processes, no more, can be tried out",
    ),
    attack(
        "get_hold_of_the_launcher",
        """
        import socket
        try:
            channel = socket.socket(fileno=os.dup(3))
        except OSError:  # outside a jail
            channel = socket.socketpair()[0]
        return channel.getsockopt(socket.SOL_SOCKET, 77)
        """,
        accomplished,
    ),
]
