"""Processes under control: the nursery, those forked from it, and that none of them is left behind."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path


class Process:
    """A worker: `ask` has it do one operation; `end` waits until its memory is gone."""

    def __init__(self, pid, sock):
        self.pid, self.sock = pid, sock
        self.pidfd = os.pidfd_open(pid)
        self.pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
        self.smaps = os.open(f"/proc/{pid}/smaps", os.O_RDONLY)
        self.status = os.open(f"/proc/{pid}/status", os.O_RDONLY)

    def ask(self, op, fd=None):
        """The results of `op` as a dict; a fork's has the child, a Process, as `process`."""
        socket.send_fds(self.sock, [json.dumps(op).encode()], [] if fd is None else [fd])
        message, descriptors, _, _ = socket.recv_fds(self.sock, 1 << 16, 1)
        if not message:
            raise RuntimeError(f"worker {self.pid} ended in {op}")
        result = json.loads(message)
        if descriptors:
            result["process"] = Process(result["ret"], socket.socket(fileno=descriptors[0]))
        return result

    def end(self):
        """End it and return when its page tables are gone."""
        self.sock.close()
        if not select.select([self.pidfd], [], [], 10)[0]:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            select.select([self.pidfd], [], [])
        for fd in (self.pidfd, self.pagemap, self.smaps, self.status):
            os.close(fd)


class Nursery:
    """A bare interpreter that forks the workers; at the end of the `with` it and all of them are gone."""

    def __enter__(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = Path(__file__).with_name("worker.py")
        with theirs:
            # A session of its own: Ctrl-C is for us, and the group is ours to kill.
            self._process = subprocess.Popen([sys.executable, "-E", "-S", "-B", script, str(theirs.fileno())],
                                             pass_fds=[theirs.fileno()], start_new_session=True)
        self._worker = Process(self._process.pid, ours)
        self._alive = set()
        return self

    def fork(self, parent=None):
        """(the results of a fork of `parent`, the child); without a parent a process with no memory of its own."""
        result = (parent or self._worker).ask({"op": "fork"})
        child = result.pop("process")
        child.ask({"op": "settle"})
        self._alive.add(child)
        return result, child

    def end(self, process):
        self._alive.discard(process)
        process.end()

    def end_all(self):
        while self._alive:
            self._alive.pop().end()

    def __exit__(self, *exception):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.end_all()
        self._worker.end()
