"""Sends a file of MQTT packets as fast as a broker takes them: `python -m benchmarks.flood HOST PORT FILE MESSAGES`.

It ends when the broker has acknowledged CONNECT and every message. A process of its own, so that it takes nothing from
the program under measurement but its share of the machine.
"""

import socket
import sys
import threading
from pathlib import Path

_ACK = 4
"""Bytes of CONNACK and of PUBACK in MQTT 3.1.1."""


def main() -> None:
    """Send and wait."""
    host, port, path, messages = sys.argv[1:]
    data = Path(path).read_bytes()
    with socket.create_connection((host, int(port))) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        left = _ACK * (int(messages) + 1)
        while left:
            received = len(connection.recv(65_536))
            if not received:
                sys.exit("the broker closed the publisher's connection")
            left -= received
        sender.join()


if __name__ == "__main__":
    main()
