"""The network, and sockets of the host."""

from __future__ import annotations

from typing import Any

from tests.sandbox.attacks.base import Attack, accomplished, attack, contacted

SOCKET = "import socket"


def _socket(name: str, family: int, kind: int, protocol: int = 0, **options: Any) -> Attack:
    return attack(name, f"return call(41, {family}, {kind}, {protocol})", accomplished, **options)


NETWORK = [
    attack("connect", "socket.create_connection(('127.0.0.1', bait['port']), 1).send(b'x')", contacted, SOCKET),
    attack(
        "connect_by_the_newer_protocol",
        "socket.socket(socket.AF_INET6).connect(('::1', bait['port6']))",
        contacted,
        SOCKET,
    ),
    attack(
        "send_a_datagram",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', bait['udp']))",
        contacted,
        SOCKET,
    ),
    attack(
        "ask_a_name_server",
        """
        name = b"".join(bytes([len(part)]) + part for part in (b"secret", b"example", b"org")) + b"\\0"
        query = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + name + b"\\0\\1\\0\\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.connect(("127.0.0.1", bait["udp"]))
            connection.send(query)
        """,
        contacted,
        SOCKET,
    ),
    attack("connect_to_a_socket_file", "socket.socket(socket.AF_UNIX).connect(bait['unix'])", contacted, SOCKET),
    attack(
        "connect_to_an_abstract_socket",
        "socket.socket(socket.AF_UNIX).connect('\\0' + bait['abstract'])",
        contacted,
        SOCKET,
    ),
    attack(
        "send_to_a_socket_file_from_a_pair",
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.sendto(b"x", bait["datagrams"])
        """,
        contacted,
        SOCKET,
    ),
    attack(
        "connect_a_pair_to_a_socket_file",
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.connect(bait["datagrams"])
        ours.send(b"x")
        """,
        contacted,
        SOCKET,
    ),
    attack(
        "send_messages_to_a_socket_file_from_a_pair",
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.sendmsg([b"x"], [], 0, bait["datagrams"])
        """,
        contacted,
        SOCKET,
    ),
    attack(
        "connect_with_asyncio",
        """
        import asyncio
        asyncio.run(asyncio.open_connection("127.0.0.1", bait["port"]))
        """,
        contacted,
    ),
    attack(
        "fetch_a_page",
        """
        import http.client
        http.client.HTTPConnection("127.0.0.1", bait["port"], timeout=0.2).request("GET", "/")
        """,
        contacted,
    ),
    attack(
        "open_a_connection_while_sending",
        """
        fast = socket.socket(socket.AF_INET)
        fast.sendto(b"x", 0x20000000, ("127.0.0.1", bait["port"]))
        """,
        contacted,
        SOCKET,
    ),
    attack(
        "listen_to_the_network",
        """
        listener = socket.socket(socket.AF_INET)
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        """,
        accomplished,
        SOCKET,
    ),
    attack(
        "listen_to_an_abstract_name",
        """
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("\\0" + bait["abstract"] + "mine")
        listener.listen()
        """,
        accomplished,
        SOCKET,
    ),
    attack(
        "pass_a_descriptor",
        """
        ours, theirs = socket.socketpair()
        return socket.send_fds(ours, [b"x"], [0])
        """,
        accomplished,
        SOCKET,
    ),
    attack(
        "receive_a_message",
        """
        ours, theirs = socket.socketpair()
        ours.send(b"x")
        return theirs.recvmsg(1, 100)[0]
        """,
        accomplished,
        SOCKET,
    ),
    attack(
        "change_a_socket",
        """
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        """,
        accomplished,
        SOCKET,
    ),
    attack("look_the_machine_up", "return socket.getaddrinfo('localhost', 80)", accomplished, SOCKET),
    attack(
        "list_the_interfaces",
        "return socket.if_nameindex()",
        accomplished,
        SOCKET,
    ),
    _socket("open_a_netlink_socket", 16, 3),
    _socket("open_a_packet_socket", 17, 3, privileged=True),
    _socket("open_a_raw_socket", 2, 3, 1, privileged=True),
    _socket("open_a_socket_to_the_hypervisor", 40, 1),
    _socket("open_a_cipher_socket", 38, 5, no_control="not every kernel is built with it"),
    _socket("open_a_multipath_socket", 2, 1, 262),
]
