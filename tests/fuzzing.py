"""What the fuzzers share: for each way in, a function that makes one input out of a source of chance and feeds it.

An input may be refused, by the errors that callers are told to expect. Anything else is a fault: another exception, a
crash, a run without end, and silent nonsense, which `sound` looks for in a machine that took it.
"""

import contextlib
import io
import json
import lzma
import os
import tempfile
from pathlib import Path

import numpy as np

import hgmcore as hgm
from hgmcore import importers
from hgmcore.kernel.validate import SHIPPED, validate_recording
from hgmcore.trace import Trace, TraceError

DATA = Path(__file__).parent / "data"
K, M, G = 1 << 10, 1 << 20, 1 << 30
SCHEMES = tuple(os.environ.get("HGMCORE_FUZZ_SCHEME", "mm_id,head_per_leaf,logical_counter,subtree").split(","))
NUMBERS = ("0", "1", "4K", "8K", "2M", "1G", "2044K", "4097", "7", "3", "16", "0x1000", "512T", "9223372036854775807",
           "18446744073709551615", "18446744073709547520", "-1", "1.5", "4X", "")
EDGES = (0, 1, -1, 4095, 4096, 4097, 2 * M, 2 * M - 4096, G, 1 << 47, 1 << 52, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096,
         (1 << 64) - 1, 1 << 64, 0.5, "4K", "2M", "x", "", None, True)
MOST = 60  # statements

TEXTS = [
    "file F 2M 3\npopulate F 0 2\nmmap A v F 0 6M shared minor hgm\ncontinue A v 0 4K\ncontinue A v 8K 2M\nfork A B\n"
    "touch B v 4M\ndontneed A v 0 4K\ncollapse A v 0 2M\npin F 0 2\nmigrate A v 0 2M all\nhwpoison A v 20K\n"
    "punch F 0 2M\nfail 1\ntouch A v 0 write\nmremap A v 0 2M w\nexit A\ntruncate F 0\nobserve\n",
    "file S 2M 2 shmem\npopulate S 0 1\nmmap A s S 4K 3M shared minor wp\ntouch A s 0\nmmap A a anon:2M 0 4M private\n"
    "touch A a 0 write\nfork A B\nmprotect B a 4K 8K r\ntouch B a 64K write\nmunmap A a 1M 4K\ncollapse A a 0 2M\n"
    "register A s minor\ncontinue A s 0 64K\npunch S 8K 4K\nmremap A a 6M\nunregister A s\nphase end\nobserve\n",
    "geometry arm64-16k\nfile F 32M 2\nmmap A v F 0 64M private\ntouch A v 0\ntouch A v 16K write\nsplit A v 0 32M\n"
    "@3:17 touch A v 32M\n@4 unpin F 0\nobserve\n",
]
VERBS = ("file", "populate", "mmap", "register", "unregister", "split", "continue", "touch", "dontneed", "collapse",
         "munmap", "mprotect", "mremap", "fork", "exit", "punch", "truncate", "migrate", "hwpoison", "pin", "unpin",
         "fail", "observe", "phase", "geometry", "hgmcore-trace")
EXPECTED = {"pagemap": "postgres.pagemapsnap", "qemu": "qemu-postcopy_4k.qemutrace", "strace": "uffd-minor.strace",
            "bpftrace": "uffd-minor.bt", "perf": "postgres_hugepages.perfscript", "lackey": "python.lackeywin"}


def sound(machine):
    """The recount stands by what the machine says of itself; a trace that was taken can be seen."""
    seen = machine.observe()
    for folio in seen["folios"]:
        runs = folio["truth"]["page_mapcount"]
        assert all(0 <= first < last for first, last, _ in runs)
        assert folio["truth"]["pages_mapped"] <= (runs[-1][1] if len(runs) else 0)
    for row in seen["mappings"]:
        assert row["rss"] >= 0 and row["levels"]["pte"] + row["levels"]["pmd"] + row["levels"]["pud"] == row["rss"]
    assert len({(row["process"], row["mapping"]) for row in seen["mappings"]}) == len(seen["mappings"])


def run(trace, chance):
    """A trace that was taken runs on a small machine, or is refused there by name."""
    with contextlib.suppress(MemoryError):
        machine = hgm.Machine(chance.choice(SCHEMES), trace.header.geometry, reserve="64M",
                              fault_around=chance.choice(("none", "16", "folio")))
        machine.declare(trace.header)
        machine.run(trace.operations[:MOST])
        sound(machine)


def changed_text(chance):
    lines = chance.choice(TEXTS).splitlines()
    for _ in range(chance.randint(0, 6)):
        at = chance.randrange(len(lines))
        words = lines[at].split(" ")
        word = chance.randrange(len(words))
        how = chance.randrange(7)
        if how == 0:
            words[word] = chance.choice(NUMBERS)
        elif how == 1:
            words[word] = chance.choice(VERBS)
        elif how == 2:
            words[word] = chance.choice("FSABCvwsa") + chance.choice(("", "", "\x00", "é", "#"))
        elif how == 3:
            del words[word]
        elif how == 4:
            words.insert(word, chance.choice(NUMBERS))
        elif how == 5:
            lines.insert(at, lines[chance.randrange(len(lines))])
            continue
        else:
            words[word] = chance.choice(("shared", "private", "minor", "wp", "hgm", "shmem", "anon:4K", "all", "write"))
        lines[at] = " ".join(words)
    return "hgmcore-trace 1\n" + "\n".join(lines) + "\n"


def text(chance):
    """The text form: what is taken is written and read again as the same."""
    with contextlib.suppress(TraceError):
        trace = Trace.parse(changed_text(chance))
        again = Trace.parse(trace.to_text())
        assert (again.operations == trace.operations).all() and again.header.files == trace.header.files
        run(trace, chance)


def changed_bytes(data, chance):
    data = bytearray(data)
    for _ in range(chance.randint(0, 8)):
        if not data:
            break
        at, how = chance.randrange(len(data)), chance.randrange(4)
        if how == 0:
            data[at] = chance.randrange(256)
        elif how == 1:
            del data[at:at + chance.randint(1, 64)]
        elif how == 2:
            data[at:at] = data[chance.randrange(len(data)):][:chance.randint(1, 64)]
        else:
            data[at:at + 8] = chance.choice((b"\xff" * 8, bytes(8), b"99999999", b"-1", b"\n"))
    return bytes(data)


def binary(chance):
    """The binary form, its bytes changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        Trace.parse("hgmcore-trace 1\n" + chance.choice(TEXTS)).save(str(path))
        path.write_bytes(changed_bytes(path.read_bytes(), chance))
        with contextlib.suppress(TraceError):
            run(Trace.load(str(path)), chance)


def importer(name, chance):
    """A recording, cut, its lines changed; what comes out is a trace that can be written."""
    data = (DATA / EXPECTED[name]).read_bytes().splitlines(keepends=True)
    first = chance.randrange(max(1, len(data) - 40))
    part = data[:8] + data[first:first + chance.randint(1, 60)]
    log = changed_bytes(b"".join(part), chance)
    with contextlib.suppress(TraceError):
        trace, report = importers.load(name).read(io.BytesIO(log), "log")
        assert len(trace) and report.lines
        Trace.parse(trace.to_text())


def changed_json(value, chance):
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        if chance.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed_json(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], changed_json(value[at], chance), *value[at + 1:]]
    return chance.choice((0, 1, -1, 4096, 2 * M, 1 << 40, 1 << 64, 1.5, "", "x", None, [], {}, True, "PRIVATE", "COLD"))


def kernel_recording(chance):
    """A recording of a kernel, its records changed: imported, and done again by the simulator."""
    path = chance.choice(sorted(SHIPPED.glob("[abcf]0[1-4]*.xz")))
    records = [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()][:MOST]
    for _ in range(chance.randint(0, 4)):
        at = chance.randrange(len(records))
        if chance.random() < 0.2:
            del records[at]
        else:
            records[at] = changed_json(records[at], chance)
        if not records:
            return
    data = "\n".join(map(json.dumps, records)).encode()
    with contextlib.suppress(TraceError):
        importers.load("kernel-recording").read(io.BytesIO(data), "log")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "r.jsonl").write_bytes(data)
        with contextlib.suppress(TraceError):
            validate_recording(Path(folder) / "r.jsonl")


REFUSALS = (hgm.OperationError, ValueError, TypeError, OverflowError, KeyError, MemoryError)


def api(chance):
    """Calls of the API with whatever comes: each is done or refused by an error that tells so."""
    machine = hgm.Machine(chance.choice(SCHEMES), reserve="64M")
    files = [machine.file("F", "2M", 2, populate=True), machine.file("S", "2M", 2, kind="shmem")]
    process = machine.process("A")
    mappings = [process.mmap(files[0], minor=True, hgm=True), process.mmap(files[1]),
                process.mmap(anon="2M", length="4M")]

    def value():
        return chance.choice(EDGES) if chance.random() < 0.4 else chance.randrange(0, 1025) * 4096

    for _ in range(chance.randint(1, 25)):
        mapping, file = chance.choice(mappings), chance.choice(files)
        call = chance.choice((
            lambda: mapping.touch(value(), write=chance.random() < 0.5), lambda: mapping.dontneed(value(), value()),
            lambda: mapping.uffd_continue(value(), value()), lambda: mapping.collapse(value(), value()),
            lambda: mapping.munmap(value(), value()), lambda: mapping.mremap(value()),
            lambda: mapping.mprotect(value(), value(), chance.choice(("r", "rw", "none", "x"))),
            lambda: mapping.migrate(value(), value(), everything=True), lambda: mapping.hwpoison(value()),
            lambda: mappings.append(mapping.mremap(value(), value(), to=f"m{len(mappings)}")),
            lambda: mapping.split(value(), value()), lambda: mapping.register(minor=True), mapping.unregister,
            lambda: file.punch(value(), value()), lambda: file.truncate(value()), lambda: file.pin(value(), value()),
            lambda: file.unpin(value(), value()), lambda: file.populate(value(), value()),
            lambda: machine.fail(chance.choice((1, 2, 0, -1, 0.5))), lambda: process.fork(f"P{machine.operations}"),
            lambda: process.mmap(file, offset=value(), length=value(), minor=True),
            lambda: mapping.uffd_continue(np.array([chance.randrange(1024) * 4096 for _ in range(3)]))))
        with contextlib.suppress(*REFUSALS):
            call()
    sound(machine)


TARGETS = {"text": text, "binary": binary, "kernel-recording": kernel_recording, "api": api,
           **{name: (lambda chance, name=name: importer(name, chance)) for name in EXPECTED}}
"""name -> function of a random.Random that makes one input and feeds it."""
