"""A process under control: it does one operation at a time, as told on a socket, and answers with the result.

Run as a script by `processes.py` in a bare interpreter (no NumPy: a small process forks fast). The first one is the
nursery; it and every process it forks serve their own socket. All of them end when their socket is closed, when told
to, or when the process that runs the whole has died, whatever killed it.
"""

import gc
import json
import os
import signal
import socket
import sys
import time

import kernel  # a neighbour of this script

clock = time.perf_counter_ns


class Worker:
    """The operations of recordings, on this process's own memory. Each takes the operation and gives its results."""

    def __init__(self):
        self.uffd = -1
        self.own = _own_memory()
        self.zero = os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC)
        self.pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.pins = {}

    def mmap(self, op, fd):
        flags = sum(kernel.MAP_FLAGS[word] for word in op["flags"].split("|"))
        flags |= kernel.MAP_FLAGS["ANONYMOUS"] if fd == -1 else 0
        return _call(kernel.mmap, op["address"], op["len"], op["prot"], flags, fd, op.get("fileoff", 0))

    def munmap(self, op, fd):
        return _call(kernel.munmap, op["address"], op["len"])

    def mprotect(self, op, fd):
        return _call(kernel.mprotect, op["address"], op["len"], op["prot"])

    def madvise(self, op, fd):
        return _call(kernel.madvise, op["address"], op["len"], kernel.ADVICE[op["advice"]])

    def mlock(self, op, fd):
        return _call(kernel.mlock, op["address"], op["len"])

    def munlock(self, op, fd):
        return _call(kernel.munlock, op["address"], op["len"])

    def mremap(self, op, fd):
        result = _call(kernel.mremap, op["address"], op["len"], op["newlen"], op["flags"], op.get("to_address", 0))
        return {**result, "ret": min(result["ret"], 0)}

    def read(self, op, fd):
        """One byte of every page, read by the kernel for us: where a load would be a signal this is EFAULT."""
        return self._access(op, kernel.write, self.pipe[1])

    def write(self, op, fd):
        return self._access(op, kernel.read, self.zero)

    def _access(self, op, transfer, descriptor):
        done, total = 0, 0
        for address in range(op["address"], op["address"] + op["len"], kernel.PAGE):
            result = _call(transfer, descriptor, address, 1)
            total += result["ns"]
            if result["ret"] != 1:
                break
            done += 1
        if transfer is kernel.write and done:
            os.read(self.pipe[0], done)
        return {"errno": result["errno"], "ns": total, "accessed": done}

    def pin(self, op, fd):
        """Let a pipe hold a reference on each page of the range, as many as it has room for."""
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        result = _call(kernel.vmsplice, pipe[1], op["address"], op["len"])
        self.pins[op["pin"]] = pipe
        return {"errno": result["errno"], "ns": result["ns"], "accessed": max(result["ret"], 0) // kernel.PAGE}

    def unpin(self, op, fd):
        self._end(self.pins.pop(op["pin"], ()))
        return {"ret": 0, "errno": "", "ns": 0}

    def _end(self, pipe):
        for end in pipe:
            os.close(end)

    def uffd_open(self, op, fd):
        if self.uffd != -1:
            os.close(self.uffd)
        self.uffd, has = kernel.userfaultfd(op["asked"])
        failed = self.uffd == -1
        return {"ret": -1 if failed else 0, "errno": kernel.error() if failed else "", "features": "|".join(has)}

    def uffd_register(self, op, fd):
        mode = sum(kernel.UFFD_MODES[name] for name in op["mode"].split("|"))
        return _call(kernel.uffd_register, self.uffd, op["address"], op["len"], mode)

    def uffd_unregister(self, op, fd):
        return _call(kernel.uffd_unregister, self.uffd, op["address"], op["len"])

    def uffd_continue(self, op, fd):
        argument = kernel.continue_argument(op["address"], op["len"], op["mode"])
        return {**_call(kernel.uffd_continue, self.uffd, argument), "mapped": kernel.mapped(argument)}

    def nothing(self, op, fd):
        """A system call that does nothing; its time is the overhead of measuring."""
        return _call(kernel.munmap, 1, 0)

    def settle(self, op, fd):
        """Have a page table wherever this program itself has memory, so that what it does later adds none."""
        for address in self.own:
            kernel.madvise(address, kernel.PAGE, kernel.ADVICE["POPULATE_READ"])
        return {}

    def forget(self):
        """In a child: its parent's userfaultfd is of its parent's memory; and pins are their process's alone."""
        for pipe in self.pins.values():
            self._end(pipe)
        self.pins = {}
        if self.uffd != -1:
            os.close(self.uffd)
        self.uffd = -1


def _own_memory():
    """An address for each page table that this process's memory needs."""
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
    return [address for start, end in ranges
            for address in (start, *range(start + kernel.HUGE & -kernel.HUGE, end, kernel.HUGE))]


def _call(function, *arguments):
    start = clock()
    result = function(*arguments)
    ns = clock() - start
    return {"ret": result, "errno": kernel.error() if result == -1 else "", "ns": ns}


def _fork(worker, sock, nursery):
    """Fork. The parent passes the controlling end of its child's socket on; the child returns its own end."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    result = _call(kernel.fork, 0 if os.getpid() == nursery else kernel.CLONE_PARENT)
    if result["ret"] == 0:
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != nursery:
            os._exit(1)
        sock.close()
        theirs.close()
        worker.forget()
        return ours
    ours.close()
    with theirs:
        socket.send_fds(sock, [json.dumps(result).encode()], [theirs.fileno()])
    return sock


def serve(sock, nursery):
    """Do what comes on `sock` until it is closed; `nursery` is the pid of the parent of all others."""
    worker = Worker()
    while True:
        message, descriptors, _, _ = socket.recv_fds(sock, 1 << 16, 1)
        op = json.loads(message or '{"op": "exit"}')
        if op["op"] == "exit":
            os._exit(0)
        elif op["op"] == "fork":
            sock = _fork(worker, sock, nursery)
        else:
            result = getattr(worker, op["op"])(op, descriptors[0] if descriptors else -1)
            sock.send(json.dumps(result).encode())
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    kernel.die_with_parent(signal.SIGKILL)
    gc.disable()
    serve(socket.socket(fileno=int(sys.argv[1])), os.getpid())
