"""Exhaustion: memory, processor, disk, descriptors, output; and what the kernel holds on a program's behalf."""

from __future__ import annotations

from dataclasses import replace

from tests.sandbox.attacks.base import HASTY, SMALL, attack, flooded, hung, more_than

MEMORY = more_than(SMALL.memory)
DISK = more_than(SMALL.disk)
FILES = more_than(SMALL.files)
KERNEL = more_than(64 << 20)
"""Bytes that the kernel holds for a program, beside its memory and its disk."""

EXHAUSTION = [
    attack("memory_in_one_piece", "return len(bytearray(300 << 20))", MEMORY),
    attack("memory_by_mapping", "return len(mmap.mmap(-1, 300 << 20))", MEMORY),
    attack(
        "memory_from_the_c_library",
        """
        libc.malloc.restype = ctypes.c_void_p
        return 300 << 20 if libc.malloc(300 << 20) else 0
        """,
        MEMORY,
    ),
    attack(
        "memory_by_moving_the_break",
        "import resource\nreturn machine(BREAK)()",
        MEMORY,
        setup=(
            # brk(0), then brk(that + 300 MB); returns how far it came
            "BREAK = '31ff b80c000000 0f05 4989c4 488db8 0000c012 b80c000000 0f05 4c29e0 c3'"
        ),
    ),
    attack("memory_by_many_pieces", "return sum(map(len, [bytes(1 << 20) for _ in range(300)]))", MEMORY),
    attack("memory_as_text", "return len('x' * (300 << 20))", MEMORY),
    attack("memory_as_a_number", "return (1 << (2500 << 20)).bit_length() // 8", MEMORY),
    attack(
        "memory_by_unpacking",
        """
        import zlib
        packer = zlib.compressobj(wbits=-15)
        packed = (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * 300 + packer.flush()
        return len(zlib.decompress(packed, wbits=-15))
        """,
        MEMORY,
    ),
    attack("memory_by_formatting", "return len(f'{1:>{300 << 20}}')", MEMORY),
    attack(
        "memory_by_many_threads",
        """
        threading.stack_size(64 << 20)
        for number in range(6):
            threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start()
        return 6 * (64 << 20)
        """,
        MEMORY,
    ),
    attack(
        "memory_shared_with_nobody",
        """
        file = os.open("shared", os.O_CREAT | os.O_RDWR)
        os.ftruncate(file, 300 << 20)
        memory = mmap.mmap(file, 300 << 20)
        for place in range(0, 300 << 20, 4 << 20):
            memory[place] = 1
        return len(memory)
        """,
        MEMORY,
    ),
    attack(
        "threads",
        """
        threading.stack_size(64 << 10)
        started = 0
        for _ in range(100):
            threading.Thread(target=time.sleep, args=(0.5,), daemon=True).start()
            started += 1
        return started
        """,
        more_than(SMALL.threads),
    ),
    attack(
        "recursion",
        """
        sys.setrecursionlimit(10**8)
        def deeper(): return deeper()
        deeper()
        """,
        hung,
        limits=HASTY,
        no_control="it harms only itself: what counts is that the jail goes on",
    ),
    attack(
        "recursion_in_c",
        """
        sys.setrecursionlimit(10**8)
        inner = ()
        for _ in range(10**6):
            inner = (inner,)
        return hash(inner)
        """,
        hung,
        no_control="it harms only itself: what counts is that the jail goes on",
    ),
    attack("disk_with_one_file", "return open('f', 'wb', buffering=0).write(bytes(2 << 20))", DISK),
    attack(
        "disk_with_many_files",
        """
        for number in range(40):
            with open(f"f{number}", "wb") as file:
                file.write(bytes(64 << 10))
        return 40 * (64 << 10)
        """,
        DISK,
    ),
    attack("disk_with_a_hole", "os.truncate(os.open('f', 65), 1 << 40)\nreturn os.stat('f').st_size", DISK),
    attack("disk_by_reserving", "f = os.open('f', 65)\nos.posix_fallocate(f, 0, 2 << 20)\nreturn 2 << 20", DISK),
    attack(
        "disk_by_reserving_beyond_the_end",
        """
        file = os.open("f", os.O_CREAT | os.O_RDWR)
        libc.fallocate(file, 1, ctypes.c_long(0), ctypes.c_long(2 << 20))
        return os.fstat(file).st_blocks * 512
        """,
        DISK,
    ),
    attack(
        "disk_of_the_host_through_standard_input",
        "return os.pwrite(0, b'x', 0)",
        more_than(0),
    ),
    attack(
        "disk_of_the_host_by_reserving_through_standard_input",
        """
        libc.fallocate(0, 1, ctypes.c_long(0), ctypes.c_long(3 << 20))
        return os.fstat(0).st_blocks * 512
        """,
        DISK,
    ),
    attack(
        "disk_of_the_host_through_a_mapping_of_standard_input",
        "memory = mmap.mmap(0, 1)\nmemory[0:1] = b'x'\nreturn 1",
        more_than(0),
    ),
    attack(
        "disk_with_names",
        """
        for number in range(120_000):
            os.close(os.open(f"{number}", os.O_CREAT | os.O_WRONLY))
        return number
        """,
        more_than(100_001),
        no_control="it would litter the host's disk",
    ),
    attack(
        "disk_with_deep_folders",
        "for _ in range(120_000):\n    os.mkdir('d')\n    os.chdir('d')\nreturn 120_000",
        more_than(100_001),
        no_control="it would litter the host's disk",
        limits=HASTY,
    ),
    attack(
        "disk_where_there_is_none",  # to tmpfs a size of 0 is no limit, and a link's target is no file's content
        """
        for number in range(1000):
            os.symlink("x" * 4000, f"{number}")
        return 1000 * 4000
        """,
        DISK,
        limits=replace(SMALL, disk=0),
    ),
    attack("descriptors_by_copying", "return len([os.dup(0) for _ in range(200)])", FILES),
    attack("descriptors_by_pipes", "return 2 * len([os.pipe() for _ in range(100)])", FILES),
    attack("descriptors_by_number", "return os.dup2(0, 900)", FILES),
    attack(
        "descriptors_in_a_table_for_each_thread",
        """
        threading.stack_size(256 << 10)
        opened, finish = [], threading.Event()
        def work():
            call(436, 65000, 65001, 2)
            try:
                for _ in range(50):
                    opened.append(os.open(os.__file__, os.O_RDONLY))
            finally:
                finish.wait(2)
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
        finish.set()
        return len(opened)
        """,
        FILES,
    ),
    attack(
        "descriptors_in_a_thread_that_shares_none",  # clone: memory, signal handlers and thread, but not files
        """
        tid = machine("bf00090100 be00000000 31d2 4d31d2 4d31c0 b838000000 0f05"
                      "85c0 7509 31ff b83c000000 0f05 c3")()
        return 1 << 20 if tid > 0 else 0
        """,
        FILES,
    ),
    attack(
        "memory_of_the_kernel_in_sockets",
        """
        import socket
        threading.stack_size(256 << 10)
        held, finish = [], threading.Event()
        def work():
            call(436, 65000, 65001, 2)
            try:
                for _ in range(28):
                    pair = socket.socketpair()
                    for end in pair:
                        end.setblocking(False)
                        try:
                            while True:
                                held.append(end.send(bytes(32 << 10)))
                        except BlockingIOError:
                            end.detach()
            except OSError:
                pass
            finish.wait(4)
        workers = [threading.Thread(target=work, daemon=True) for _ in range(12)]
        for worker in workers:
            worker.start()
        last = -1
        while last != len(held):
            last = len(held)
            time.sleep(0.1)
        finish.set()
        return sum(held)
        """,
        KERNEL,
    ),
    attack(
        "memory_of_the_kernel_in_pipes",
        """
        import fcntl
        held = 0
        for _ in range(28):
            reader, writer = os.pipe()
            try:
                fcntl.fcntl(writer, 1031, 1 << 20)
            except OSError:
                pass
            os.set_blocking(writer, False)
            try:
                while True:
                    held += os.write(writer, bytes(64 << 10))
            except BlockingIOError:
                continue
        return held
        """,
        more_than(4 << 20),
    ),
    attack(
        "memory_of_the_kernel_in_locks",
        """
        import fcntl
        held = 0
        for name in sorted(os.listdir(os.path.dirname(os.__file__)))[:200]:
            path = os.path.join(os.path.dirname(os.__file__), name)
            if held > 40_000 or not name.endswith(".py"):
                continue
            file = os.open(path, os.O_RDONLY)
            for place in range(2000):
                fcntl.lockf(file, fcntl.LOCK_SH, 1, 2 * place)
                held += 1
        return held
        """,
        more_than(40_000),
    ),
    attack(
        "timers",
        """
        event = (ctypes.c_int * 16)(0, 0, 0, 1)
        made, number = 0, ctypes.c_int()
        while made < 60_000 and call(222, 1, event, ctypes.byref(number)) == 0:
            made += 1
        return made
        """,
        more_than(50_000),
        no_control="how many timers a user may have is the machine's own setting",
    ),
    attack("loop", "while True:\n    pass", hung, limits=HASTY),
    attack(
        "loop_in_c_with_the_interpreter_locked",
        "import collections, itertools\ncollections.deque(itertools.repeat(0), maxlen=0)",
        hung,
        limits=HASTY,
    ),
    attack("loop_in_machine_code", "machine('ebfe')()", hung, limits=HASTY),
    attack("sleep", "time.sleep(1000)", hung, limits=HASTY),
    attack("a_regular_expression", "import re\nre.match('(a*)*b', 'a' * 40)", hung, limits=HASTY),
    attack("a_power", "return 7 ** 9 ** 9 % 2", hung, limits=HASTY),
    attack("a_number_as_text", "sys.set_int_max_str_digits(0)\nreturn len(str(1 << 60_000_000))", hung, limits=HASTY),
    attack("wait_for_itself", "lock = threading.Lock()\nwhile lock.acquire():\n    pass", hung, limits=HASTY),
    attack(
        "ignore_every_signal",
        """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        while True:
            time.sleep(1)
        """,
        hung,
        limits=HASTY,
    ),
    attack("stop_itself", "os.kill(os.getpid(), 19)\nwhile True:\n    time.sleep(1)", hung, limits=HASTY),
    attack("flood_standard_output", "for _ in range(100):\n    print('x' * 10_000)", flooded),
    attack("flood_standard_error", "for _ in range(100):\n    print('x' * 10_000, file=sys.stderr)", flooded),
    attack(
        "flood_both",
        "for _ in range(60):\n    print('o' * 10_000)\n    print('e' * 10_000, file=sys.stderr)",
        flooded,
    ),
    attack("flood_with_bytes", "for _ in range(20):\n    os.write(1, b'x' * 50_000)", flooded),
    attack(
        "flood_from_the_c_library", "for _ in range(2000):\n    libc.printf(b'%0100d', 0)\nlibc.fflush(None)", flooded
    ),
    attack("flood_little_by_little", "for _ in range(100_000):\n    os.write(1, b'x')", flooded),
    attack(
        "flood_without_end",
        "for _ in range(4):\n    threading.Thread(target=work, daemon=True).start()\nwork()",
        hung,
        setup="def work():\n    while True:\n        os.write(1, b'x' * 100)",
        limits=HASTY,
    ),
    attack("answer_a_hundred_megabytes", "return 'x' * (100 << 20)", flooded),
    attack("answer_a_megabyte", "return list(range(200_000))", flooded),
]
