"""A program: ``python -IS forked_python.py ADDRESS WORDS`` is ``python WORDS``, forked by the server at an address.

For those who start Python in their own way, as SLURM does. It hands on signals, and ends as what it stands for ends;
where it is killed, that is killed.
"""

import json
import os
import select
import signal
import socket
import struct
import sys

_SIZE = struct.Struct("!I")
_HANDED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_LONGEST_S = 0.5
"""How late a signal may be handed on that comes just before a wait, which it does not end."""


def main() -> None:
    """Have it forked, and wait for its end."""
    address, *words = sys.argv[1:]
    umask = os.umask(0o022)
    program = {
        "words": [word for word in words if word != "-u"],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "new_session": False,
        "umask": umask,
        "ignored": [],
        "unbuffered": "-u" in words,
        "waits": True,
    }
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        encoded = json.dumps(program).encode()
        socket.send_fds(server, [_SIZE.pack(len(encoded))], [0, 1, 2])
        server.sendall(encoded)
        process = answer(server)
        for number in _HANDED_ON:
            signal.signal(number, lambda number, _: os.kill(process, number))
        while not select.select([server], [], [], _LONGEST_S)[0]:
            pass
        status = answer(server)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def answer(server: socket.socket) -> int:
    """A number from the server."""
    size = server.recv(_SIZE.size, socket.MSG_WAITALL)
    if len(size) < _SIZE.size:
        sys.exit("the server of forks has ended")
    return int(server.recv(_SIZE.unpack(size)[0], socket.MSG_WAITALL))


if __name__ == "__main__":
    main()
