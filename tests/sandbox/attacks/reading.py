"""Reading the host's files."""

from __future__ import annotations

from tests.sandbox.attacks.base import accomplished, attack, says, told

VISIBLE = "Landlock does not hide what a file is called, nor its size: metadata are visible in the reduced tier"

READING = [
    attack("read_with_open", "return open(bait['secret']).read()", told),
    attack("read_with_os_open", "return os.read(os.open(bait['secret'], os.O_RDONLY), 100)", told),
    attack(
        "read_through_a_mapping",
        """
        file = open(bait["secret"], "rb")
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:]
        """,
        told,
    ),
    attack(
        "read_with_c_stdio",
        """
        libc.fopen.restype = ctypes.c_void_p
        file = libc.fopen(bait["secret"].encode(), b"r")
        buffer = ctypes.create_string_buffer(100)
        if file:
            libc.fread(buffer, 1, 99, ctypes.c_void_p(file))
        return buffer.value
        """,
        told,
    ),
    attack(
        "read_with_openat2",
        """
        how = (ctypes.c_uint64 * 3)()
        file = call(437, -100, bait["secret"].encode(), how, 24)
        return os.read(file, 100)
        """,
        told,
    ),
    attack("read_below_proc_self_root", "return open('/proc/self/root' + bait['secret']).read()", told),
    attack(
        "read_below_the_root_of_another_process",
        "return open(f\"/proc/{bait['victim']}/root{bait['secret']}\").read()",
        told,
    ),
    attack(
        "read_a_descriptor_of_another_process",
        "return open(f\"/proc/{bait['victim']}/fd/{bait['held']}\").read()",
        told,
    ),
    attack(
        "read_below_the_working_folder_of_another_process",
        "return open(f\"/proc/{bait['victim']}/cwd/secret\").read()",
        told,
    ),
    attack("read_by_climbing_up", "return open('../' * 40 + bait['secret'].lstrip('/')).read()", told),
    attack("read_through_a_symbolic_link", "os.symlink(bait['secret'], 'way')\nreturn open('way').read()", told),
    attack("read_through_a_hard_link", "os.link(bait['secret'], 'way')\nreturn open('way').read()", told),
    attack("read_after_moving_it_here", "os.rename(bait['secret'], 'mine')\nreturn open('mine').read()", told),
    attack(
        "read_after_exchanging_it",
        """
        open("mine", "w").close()
        call(316, -100, b"mine", -100, bait["secret"].encode(), 2)
        return open("mine").read()
        """,
        told,
    ),
    attack(
        "read_with_sendfile",
        """
        reader, writer = os.pipe()
        os.sendfile(writer, os.open(bait["secret"], os.O_RDONLY), 0, 100)
        return os.read(reader, 100)
        """,
        told,
    ),
    attack(
        "read_with_copy_file_range",
        """
        target = os.open("copy", os.O_CREAT | os.O_RDWR)
        os.copy_file_range(os.open(bait["secret"], os.O_RDONLY), target, 100)
        return os.pread(target, 100, 0)
        """,
        told,
    ),
    attack(
        "read_relative_to_a_folder",
        """
        folder = os.open(bait["folder"], os.O_PATH | os.O_DIRECTORY)
        return os.read(os.open("secret", os.O_RDONLY, dir_fd=folder), 100)
        """,
        told,
    ),
    attack("read_after_going_there", "os.chdir(bait['folder'])\nreturn open('secret').read()", told),
    attack(
        "read_by_opening_a_path_descriptor_again",
        """
        path = os.open(bait["secret"], os.O_PATH)
        return open(f"/proc/self/fd/{path}").read()
        """,
        told,
    ),
    attack(
        "read_by_file_handle",
        """
        handle = ctypes.create_string_buffer(b"\\x80\\0\\0\\0", 136)
        number = ctypes.c_int()
        call(303, -100, bait["secret"].encode(), handle, ctypes.byref(number), 0)
        folder = os.open(bait["folder"], os.O_RDONLY)
        return os.read(call(304, folder, handle, os.O_RDONLY), 100)
        """,
        told,
        privileged=True,
    ),
    attack(
        "read_every_inherited_descriptor",
        """
        found = b""
        for descriptor in range(3, 1024):
            try:
                os.set_blocking(descriptor, False)
                found += os.pread(descriptor, 100, 0)
            except OSError:
                continue
        return found
        """,
        told,
    ),
    attack(
        "read_below_an_inherited_folder",
        """
        for descriptor in range(3, 1024):
            try:
                return os.read(os.open("secret", os.O_RDONLY, dir_fd=descriptor), 100)
            except OSError:
                continue
        """,
        told,
    ),
    attack(
        "read_as_a_line_of_source",
        "import linecache\nreturn linecache.getlines(bait['secret'])",
        told,
    ),
    attack(
        "read_through_a_traceback",
        """
        import traceback
        try:
            exec(compile("1 / 0", bait["secret"], "exec"))
        except ZeroDivisionError:
            return traceback.format_exc()
        """,
        told,
    ),
    attack(
        "read_through_an_import_error",
        """
        import importlib.machinery
        loader = importlib.machinery.SourceFileLoader("secret", bait["secret"])
        return loader.get_data(bait["secret"])
        """,
        told,
    ),
    attack("list_the_folder", "return os.listdir(bait['folder'])", told),
    attack(
        "list_with_getdents",
        """
        folder = os.open(bait["folder"], os.O_RDONLY | os.O_DIRECTORY)
        buffer = ctypes.create_string_buffer(4096)
        length = call(217, folder, buffer, 4096)
        return buffer.raw[:length]
        """,
        told,
    ),
    attack("read_a_symbolic_link", "return os.readlink(bait['folder'] + '/link')", told, reduced=VISIBLE),
    attack("learn_that_a_file_is_there", "return os.stat(bait['secret']).st_size", accomplished, reduced=VISIBLE),
    attack("read_the_users_of_the_host", "return open('/etc/passwd').read()", says("root:")),
    attack(
        "read_the_memory_of_the_kernel",
        "return os.read(os.open('/proc/kcore', os.O_RDONLY), 4)",
        accomplished,
        no_control="not every kernel shows it: this project's machines do not",
    ),
    attack(
        "open_a_device",
        """
        for name in ("loop0", "loop-control", "vda", "sda", "nvme0n1", "kvm", "fuse", "console"):
            try:
                return os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
        return -1
        """,
        accomplished,
        privileged=True,
    ),
    attack("read_the_log_of_the_kernel", "return os.open('/dev/kmsg', os.O_RDONLY)", accomplished, privileged=True),
    attack(
        "list_the_processes_of_the_host",
        "return [name for name in os.listdir('/proc') if name.isdigit()]",
        accomplished,
    ),
    attack("list_devices", "return os.listdir('/sys/class')", accomplished),
]
