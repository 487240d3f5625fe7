"""Runs a program in a terminal of its own, and tells as JSON what came of it.

terminal.py ROWS COLUMNS WAIT_FOR ENDING PROGRAM [ARGUMENT ...]

Waits until the program has written WAIT_FOR, makes the terminal one column narrower, waits until that is written once more, and ends
it by ENDING: a signal's name, or keys in hexadecimal. The answer: how it ended, whether the terminal is set as before, whether its
raw mode was seen, and all that was written.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

PATIENCE = 120


def size(terminal, rows, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(terminal, written, is_enough):
    end = time.monotonic() + PATIENCE
    while not is_enough():
        if time.monotonic() > end:
            sys.exit(f"no more came: {bytes(written)!r}")
        ready, _, _ = select.select([terminal], [], [], 0.1)
        if ready:
            written += os.read(terminal, 65536)


def main():
    rows, columns = int(sys.argv[1]), int(sys.argv[2])
    wanted, ending, command = sys.argv[3].encode(), sys.argv[4], sys.argv[5:]
    near, far = pty.openpty()
    size(far, rows, columns)
    before = termios.tcgetattr(far)
    claim = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    child = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, start_new_session=True, preexec_fn=claim)
    written = bytearray()
    read_until(near, written, lambda: wanted in written)
    is_raw = not termios.tcgetattr(far)[3] & (termios.ICANON | termios.ECHO)
    seen = len(written)
    size(far, rows, columns - 1)
    read_until(near, written, lambda: wanted in written[seen:])
    if hasattr(signal, ending):
        child.send_signal(getattr(signal, ending))
    else:
        os.write(near, bytes.fromhex(ending))
    read_until(near, written, lambda: child.poll() is not None)
    while select.select([near], [], [], 0)[0]:
        written += os.read(near, 65536)
    after = termios.tcgetattr(far)
    print(json.dumps({
        "code": child.returncode,
        "is_raw": is_raw,
        "is_restored": before == after,
        "written": written.decode(errors="replace"),
    }))


main()
