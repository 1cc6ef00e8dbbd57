"""Changing the host's files."""

from __future__ import annotations

from tests.sandbox.attacks.base import attack, changed

WRITING = [
    attack("write_a_new_file", "open(bait['folder'] + '/mark', 'w').close()", changed),
    attack("overwrite_the_file", "open(bait['secret'], 'w').write('x')", changed),
    attack("append_to_the_file", "os.write(os.open(bait['secret'], os.O_WRONLY | os.O_APPEND), b'x')", changed),
    attack("delete_the_file", "os.unlink(bait['secret'])", changed),
    attack("truncate_the_file", "os.truncate(bait['secret'], 1)", changed),
    attack("open_it_with_truncation", "os.open(bait['secret'], os.O_RDONLY | os.O_TRUNC)", changed),
    attack("change_its_mode", "os.chmod(bait['secret'], 0o600)", changed),
    attack(
        "change_the_mode_of_a_path_descriptor",
        "return call(452, os.open(bait['secret'], os.O_PATH), b'', 0o600, 0x1000)",
        changed,
    ),
    attack("change_its_time", "os.utime(bait['secret'], (1, 1))", changed),
    attack("change_its_owner", "os.chown(bait['secret'], 12345, 12345)", changed, privileged=True),
    attack("change_its_attributes", "os.setxattr(bait['secret'], 'user.mark', b'x')", changed),
    attack("rename_the_file", "os.rename(bait['secret'], bait['folder'] + '/other')", changed),
    attack("make_a_folder", "os.mkdir(bait['folder'] + '/mark')", changed),
    attack("remove_a_folder", "os.rmdir(bait['folder'] + '/empty')", changed),
    attack("make_a_symbolic_link", "os.symlink('/', bait['folder'] + '/mark')", changed),
    attack("make_a_hard_link", "os.link(bait['secret'], bait['folder'] + '/mark')", changed),
    attack("make_a_pipe_file", "os.mkfifo(bait['folder'] + '/mark')", changed),
    attack(
        "make_a_socket_file",
        """
        import socket
        socket.socket(socket.AF_UNIX).bind(bait["folder"] + "/mark")
        """,
        changed,
    ),
    attack(
        "write_below_the_root_of_another_process",
        "open(f\"/proc/{bait['victim']}/root{bait['folder']}/mark\", 'w').close()",
        changed,
    ),
    attack(
        "write_below_an_inherited_folder",
        """
        for descriptor in range(3, 1024):
            try:
                os.close(os.open("mark", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
            except OSError:
                continue
        """,
        changed,
    ),
    attack(
        "write_through_a_shared_mapping",
        """
        file = os.open(bait["secret"], os.O_RDWR)
        memory = mmap.mmap(file, 0)
        memory[0:1] = b"x"
        memory.flush()
        """,
        changed,
    ),
    attack(
        "write_through_a_nameless_file",
        """
        file = os.open(bait["folder"], os.O_TMPFILE | os.O_WRONLY)
        call(265, -100, f"/proc/self/fd/{file}".encode(), -100, bait["folder"].encode() + b"/mark", 0x400)
        """,
        changed,
    ),
]
