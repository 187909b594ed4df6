"""A sequence from a file: what it asks of a kernel, checked before anything runs; and what the kernel showed."""

from hgmcore import importers
from hgmcore.importers.kernel_recording import read_records
from hgmcore.kernel.live import kernel
from hgmcore.kernel.live.files import GIANT, KINDS
from hgmcore.kernel.live.kernel import HUGE, PAGE

LARGEST = 1 << 30  # bytes of a file or a mapping: they lie a GiB apart

_RANGE = ("region", "off", "len")
_NEEDED = {"mmap": (*_RANGE, "prot", "flags", "addr_mod_2M", "fileoff"), "munmap": _RANGE,
           "mprotect": (*_RANGE, "prot"), "madvise": (*_RANGE, "advice"),
           "mlock": _RANGE, "munlock": _RANGE,
           "mremap": (*_RANGE, "newlen", "flags"), "read": _RANGE, "write": _RANGE, "fork": ("child",), "exit": (),
           "uffd_open": ("asked", "flags"), "uffd_register": (*_RANGE, "mode"), "uffd_unregister": _RANGE,
           "uffd_continue": (*_RANGE, "mode"), "pin": (*_RANGE, "pin"), "unpin": (*_RANGE, "pin")}
_OF_FILES = {"fallocate": (*_RANGE, "mode"), "ftruncate": ("region", "len")}
_WORDS = {"advice": kernel.ADVICE, "mode": (*kernel.UFFD_MODES, *kernel.FALLOCATE, 0, 1, 2), "flags": kernel.MAP_FLAGS}


def given(path):
    """The statements of a kernel recording without results, for Session.record. ValueError: what cannot be run."""
    with importers.open_input(path) as (stream, name, _):
        records = list(read_records(stream, name))
    statements = [record for record in records if record["t"] in ("file", "proc", "op")]
    for number, statement in enumerate(records, start=1):
        reason = _wrong(statement)
        if reason:
            raise ValueError(f"{path}: line {number}: {reason}")
    if not any(statement["t"] == "op" for statement in statements):
        raise ValueError(f"{path}: no operations")
    return statements


def _wrong(statement):
    """Why a statement cannot be done here, or None."""
    if statement["t"] == "file":
        if statement["kind"] not in KINDS:
            return f"a file of {statement['kind']!r}: there are {', '.join(KINDS)}"
        size, page = statement["size"], statement["page"]
        if not (type(size) is int and 0 < size <= LARGEST and size % PAGE == 0 and page in (PAGE, HUGE, GIANT)):
            return f"a file of {size} bytes in folios of {page}: at most 1G, in folios of 4K, 2M or 1G"
    if statement["t"] != "op":
        return None
    known, op = _OF_FILES if statement["proc"] == "driver" else _NEEDED, statement["op"]
    if op not in known:
        return f"{op}: a sequence has no such operation (known: {', '.join(known)})"
    for key in known[op]:
        if key not in statement:
            return f"{op}: no {key!r}"
        if key in ("off", "len", "prot", "newlen", "fileoff", "addr_mod_2M", "to_mod_2M"):
            value = statement[key]
            if not (type(value) is int and 0 <= value <= LARGEST):
                return f"{op}: {key} is {value!r}, not a number up to 1G"
    for key in ("advice", *(("mode",) if op != "mremap" else ()), *(("flags",) if op == "mmap" else ())):
        value = statement.get(key)
        words = value.split("|") if isinstance(value, str) else [value]
        if key in known[op] and not all(word in _WORDS[key] for word in words):
            return f"{op}: unknown {key} {value!r}"
    if op == "uffd_open" and not all(word in kernel.UFFD_FEATURES for word in statement["asked"]):
        return f"uffd_open: unknown features in {statement['asked']!r}"
    return None


def shown(recording):
    """A line for each step of a recording: what was asked, the answer, and the map counts of each file behind it."""
    line = None
    for step in recording:
        if step["t"] == "op":
            if line:
                yield line
            line = f"{_asked(step)}: {step['errno'] or 'ok'}"
        elif step["t"] == "obs":
            for name, file in step["files"].items():
                counts = ", ".join(f"{first}..{first + count - 1}: {value}" if count > 1 else f"{first}: {value}"
                                   for first, count, value in file["mapcount"] if value)
                line += f"; {name} {counts or 'not mapped'}"
    if line:
        yield line


def _asked(step):
    words = [step["proc"], step["op"], step.get("advice"), step.get("region"), step.get("child")]
    if "off" in step:
        words += [f"{step['off'] // 1024}K", f"{step['len'] // 1024}K"]
    return " ".join(word for word in words if word)
