"""Recordings of running kernels against the simulator: all shipped ones are equal, and a changed one is found."""

import json
import lzma
import subprocess
import sys

import pytest

import hgmcore
from hgmcore import importers
from hgmcore.kernel.simulated import KINDS, Difference, Simulated, options_of
from hgmcore.kernel.validate import SHIPPED, recordings, validate, validate_recording
from hgmcore.report.validate import validate_text
from hgmcore.seen import Seen
from hgmcore.trace import TraceError

NAMES = [path.name for path in recordings(SHIPPED)]
K, M = 1 << 10, 1 << 20


def load(name):
    """The records of a recording that ships."""
    path = next(SHIPPED.glob(f"{name}*"))
    return [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()]


def save(directory, records, name="r.jsonl"):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (directory / name).write_text("\n".join(lines) + "\n")
    return directory / name


def of_step(records, kind, step):
    return next(record for record in records if record["t"] == kind and record["i"] == step)


@pytest.fixture(scope="module")
def whole():
    return validate()


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_that_ships_is_equal(whole, name):
    result = whole["recordings"][NAMES.index(name)]
    assert result["differences"] == []
    assert result["equal"] == result["observations"] > 0


def test_the_whole_is_of_two_kernels_and_little_is_out_of_scope(whole):
    assert {r["kernel"].partition("-")[0] for r in whole["recordings"]} == {"6.18.44", "6.12.95+deb12"}
    assert (len(whole["recordings"]), whole["equal"], whole["observations"]) == (18, 851, 851)
    assert 0 < whole["out_of_scope"] < 0.03 * whole["steps"]
    assert all(counts["equal"] == counts["compared"] >= counts["not_zero"] > 0 for counts in whole["values"].values())
    assert list(whole["values"]) == [kind for kind in KINDS if kind != "references"]  # no file shows these
    text = validate_text(whole)
    assert all(len(line) <= 80 and line.isascii() for line in text.splitlines())
    assert text.endswith("851 of 851 observations equal\n")
    assert json.loads(json.dumps(whole)) == whole


def test_a_shipped_recording_says_where_it_comes_from():
    for name in NAMES:
        scenario = load(name)[0]
        assert {"kernel", "machine", "recorded", "licence", "reduced_from_sha256"} <= set(scenario)


def changed_region(key, value, region="m0"):
    def change(obs):
        obs["procs"]["A"]["regions"][region][key] = value
    return change


def changed_smaps(**fields):
    return lambda obs: obs["procs"]["A"]["regions"]["m0"]["smaps"].update(fields)


# What a02 shows after step 11: A maps 9 pages by PTEs, B the whole by a PMD.
CHANGES = {
    "map count of a file": ("map count", lambda obs: obs["files"]["f0"].update(mapcount=[[0, 512, 1]])),
    "map count of a mapping": ("map count",
                               changed_region("mapcount", [[0, 2, 2], [7, 2, 2], [12, 4, 3], [511, 1, 2]])),
    "leaf": ("leaf", changed_region("map", [[0, 1, "HUGE"], [1, 1, "PTE"], [7, 2, "PTE"], [12, 4, "PTE"],
                                            [511, 1, "PTE"]])),
    "a leaf behind the end": ("leaf", changed_region("map", [[0, 2, "PTE"], [7, 2, "PTE"], [12, 4, "PTE"],
                                                             [511, 2, "PTE"]])),
    "exclusive": ("exclusive bit", changed_region("excl", [[0, 1, True]])),
    "rss": ("Rss", changed_smaps(Rss=40)),
    "pss": ("Pss", changed_smaps(Pss=19)),
    "shared": ("shared", changed_smaps(Shared_Clean=4)),
    "private": ("private", changed_smaps(Private_Clean=4)),
    "mapped by PMD": ("mapped by PMD", changed_smaps(ShmemPmdMapped=2048)),
    "tables": ("page-table pages", lambda obs: obs["procs"]["A"]["status_delta"].update(VmPTE=16)),
}


@pytest.mark.parametrize("kind, change", CHANGES.values(), ids=CHANGES)
def test_a_changed_state_is_found_at_its_step(tmp_path, kind, change):
    records = load("a02")
    change(of_step(records, "obs", 11))
    result = validate_recording(save(tmp_path, records))
    assert [line.partition(" of ")[0] for line in result["differences"]] == [f"step 11, uffd_continue: {kind}"]
    assert result["observations"] - result["equal"] == 1
    others = [counts for name, counts in result["values"].items() if name != kind]
    assert all(counts["equal"] == counts["compared"] for counts in others)


ANSWERS = {
    "an error that the simulator has not": ("a02", 11, {"errno": "EFAULT"},
                                            "error: the kernel has EFAULT, the simulator none"),
    "an error that the kernel has not": ("a02", 15, {"errno": ""}, "error: the kernel has none, the simulator EEXIST"),
    "another error": ("b01", 9, {"errno": "ENOMEM"}, "error: the kernel has ENOMEM, the simulator EINVAL"),
    "bytes of CONTINUE": ("a02", 14, {"mapped": 24576}, "bytes done: the kernel has 24576, the simulator 20480"),
    "a page that moved": ("d01", 6, {"status": [[0, 1]]}, "bytes done: the kernel has 2097152, the simulator 0"),
    "the address of an event": ("a11", 7, {"addr_off": 155648}, "event: the kernel has 155648, the simulator 151552"),
    "a signal": ("a11", 19, {"si_code": 4}, "error: the kernel has EHWPOISON, the simulator EFAULT"),
}


@pytest.mark.parametrize("name, step, fields, line", ANSWERS.values(), ids=ANSWERS)
def test_a_changed_answer_is_found_at_its_step(tmp_path, name, step, fields, line):
    records = load(name)
    op = of_step(records, "op", step)
    op.update(fields)
    result = validate_recording(save(tmp_path, records))
    assert result["differences"] == [f"step {step}, {op['op']}: {line}"]


def test_a_step_that_is_left_out_is_missed(tmp_path):
    records = load("a02")
    records.remove(of_step(records, "op", 11))
    result = validate_recording(save(tmp_path, records))
    assert "step 10, madvise: leaf of A m0, page 8: the kernel has PTE, the simulator none" in result["differences"]


def test_what_traces_cannot_say_is_listed_and_its_state_is_compared(tmp_path):
    records = load("b01")
    op = {"t": "op", "i": 99, "proc": "A", "op": "mincore", "region": "m0", "off": 0, "len": 4096, "errno": ""}
    at = records.index(of_step(records, "obs", 4))
    records[at + 1:at + 1] = [op, {**records[at], "i": 99}]
    result = validate_recording(save(tmp_path, records))
    assert {"step": 99, "op": "mincore A m0 0 4096", "reason": "mincore: traces have no statement for it"} in (
        result["out_of_scope"])
    assert result["differences"] == []
    records[at + 2]["files"] = {"f0": {"mapcount": []}}
    result = validate_recording(save(tmp_path, records))
    assert [line.partition(":")[0] for line in result["differences"]] == ["step 99, mincore"]


def test_a_count_that_was_not_recorded_is_not_compared(tmp_path):
    records = load("a02")
    before = validate_recording(save(tmp_path, records))["values"]["map count"]
    of_step(records, "obs", 11)["files"]["f0"]["mapcount"] = [[0, 512, None]]
    result = validate_recording(save(tmp_path, records))
    assert (result["differences"], result["values"]["map count"]["compared"]) == ([], before["compared"] - 512)


# -- one step after another, as they come

def simulated(scheme="mm_id", kernel="6.18.44", page=2 * M, size=4 * M, cached=((0, 1024),)):
    s = Simulated(kernel, scheme)
    s.file({"t": "file", "file": "f", "kind": "hugetlb" if scheme == "hugetlb" else "shmem", "page": page, "size": size,
            "cached": cached})
    s.step(step("mmap", file="f", fileoff=0, len=size, prot=3, flags="SHARED"))
    return s


def step(op, **fields):
    return {"i": 1, "proc": "A", "op": op, "region": "m", "off": 0, "len": 4096, "errno": "", **fields}


def errors(differences):
    return [(d.kind, d.simulator) for d in differences if d.kind in ("error", "bytes done")]


def test_populating_stops_at_the_first_page_that_fails():
    s = simulated()
    s.step(step("munmap", off=M, len=M))
    found = s.step(step("madvise", off=M - 8192, len=2 * M, advice="POPULATE_READ"))
    assert errors(found) == [("error", "ENOMEM")]
    assert s.machine.observe()["mappings"][0]["rss"] < 2 * M
    s.step(step("mprotect", off=3 * M, len=M, prot=1))
    assert errors(s.step(step("madvise", off=3 * M, len=8192, advice="POPULATE_WRITE"))) == [("error", "EINVAL")]
    s.step(step("ftruncate", region="f", proc="driver", len=3 * M))
    assert errors(s.step(step("madvise", off=3 * M, len=8192, advice="POPULATE_READ"))) == [("error", "EFAULT")]
    assert not s.writer.trace("t").operations["op"].size - s.machine.operations


def test_an_access_by_the_kernel_does_not_wait_for_userfaultfd():
    s = simulated()
    s.step(step("uffd_open", asked=["MINOR_SHMEM"]))
    assert s.reason is None
    s.step(step("uffd_register", len=4 * M, mode="MINOR"))
    assert s.reason is None
    assert errors(s.step(step("madvise", advice="POPULATE_READ"))) == [("error", "EFAULT")]
    assert s.step(step("read", errno="EFAULT", accessed=0)) == []


@pytest.mark.parametrize("op, answer", [
    (step("uffd_continue", mode=0, mapped=0), "EBADF"), (step("madvise", advice="FREE"), "EINVAL"),
    (step("madvise", advice="FREE", off=3 * M, len=2 * M), "EINVAL"),
    (step("madvise", advice="HUGEPAGE", len=4 * M), None),
    (step("uffd_register", mode="MINOR", off=100), "EINVAL"), (step("uffd_poison", len=100), "EINVAL"),
])
def test_an_answer_that_needs_no_statement_is_compared(op, answer):
    s = simulated()
    assert s.step({**op, "errno": answer or ""}) == [] and s.reason is None
    assert errors(s.step({**op, "errno": "EIO"})) == [("error", answer)]


@pytest.mark.parametrize("op", [
    step("uffd_open", asked=[]), step("mbind", mode="DEFAULT", flags="", len=4 * M), step("munlock", len=4 * M)])
def test_what_succeeds_and_changes_nothing_is_in_scope(op):
    s = simulated()
    assert s.step(op) == [] and s.reason is None and not s.ran
    s.step({**op, "errno": "EIO"})
    assert s.reason is not None


def test_advice_tells_of_a_hole():
    s = simulated()
    s.step(step("munmap", off=M, len=M))
    for off, length, advice, answer in ((M, M, "FREE", "ENOMEM"), (0, 2 * M, "FREE", "EINVAL"),
                                        (0, 4 * M, "HUGEPAGE", "ENOMEM")):
        assert errors(s.step(step("madvise", off=off, len=length, advice=advice, errno="EIO"))) == [("error", answer)]


def test_locked_memory_is_there_and_stays():
    s = simulated()
    assert s.step(step("mlock", len=4 * M)) == []
    assert s.machine.observe()["mappings"][0]["rss"] == 4 * M
    for advice in ("DONTNEED", "COLD", "PAGEOUT"):
        assert s.step(step("madvise", advice=advice, errno="EINVAL")) == []
    assert s.machine.observe()["mappings"][0]["rss"] == 4 * M
    s.step(step("madvise", advice="DONTNEED_LOCKED", len=2 * M))
    assert s.machine.observe()["mappings"][0]["rss"] == 2 * M
    assert s.step(step("munlock", len=4 * M)) == []
    assert s.step(step("madvise", advice="DONTNEED", len=4 * M)) == []
    assert s.machine.observe()["mappings"][0]["rss"] == 0


def test_what_is_locked_in_part_is_out_of_scope():
    s = simulated()
    s.step(step("mlock", len=4 * M))
    s.step(step("munmap", off=M, len=M))
    s.step(step("madvise", advice="DONTNEED", len=4 * M, errno="EINVAL"))
    assert s.reason == "memory of which a part is locked: traces have no locks"
    assert errors(s.step(step("madvise", advice="DONTNEED", off=M, len=M))) == [("error", "ENOMEM")]


def test_mlock_stops_where_the_file_ends():
    s = simulated()
    s.step(step("ftruncate", region="f", proc="driver", len=4096))
    assert s.step(step("mlock", len=4 * M, errno="ENOMEM")) == []
    assert s.machine.observe()["mappings"][0]["rss"] == 4096


@pytest.mark.parametrize("kernel, pages", [("6.18.44", 64), ("6.12.95+deb13-amd64", 16)])
def test_the_kernel_decides_how_far_a_fault_reaches(kernel, pages):
    s = simulated(kernel=kernel)
    s.step(step("fallocate", region="f", proc="driver", mode="PUNCH_HOLE", off=400 * K))
    s.step(step("read", off=200 * K, accessed=1))
    assert s.machine.observe()["mappings"][0]["rss"] == pages * 4096


def test_options_of_a_kernel():
    assert options_of("6.18.44-fc") == {"era": "6.15", "cache_refs": "folio", "fault_around": "folio"}
    assert options_of("6.12.95+deb13-amd64") == {"era": "6.3", "cache_refs": "folio", "fault_around": "16"}
    assert options_of("6.2") == {"era": "6.2", "cache_refs": "1", "fault_around": "16"}
    with pytest.raises(ValueError, match="'six' is no release of Linux"):
        options_of("six")


def test_pss_rounds_as_smaps_does():
    """Three processes share pages: 4 kB less what each share lost is 3; users see the same sum unrounded."""
    machine = hgmcore.Machine("mm_id")
    file = machine.file("f", "4K", 3, populate=True, kind="shmem")
    mapped = [machine.process(name).mmap(file) for name in "ABC"]
    for each in mapped:
        each.touch(0)
        each.touch("4K")
        each.touch("8K")
    seen = Seen(machine.core, machine.engine, machine.geometry, machine.options, machine.header)
    assert machine.observe()["mappings"][0]["pss"] == pytest.approx(4096) and seen.pss_kb(0) == 3
    mapped[1].munmap()
    mapped[2].munmap(0, "8K")
    seen = Seen(machine.core, machine.engine, machine.geometry, machine.options, machine.header)
    assert machine.observe()["mappings"][0]["pss"] == 10 * 1024 and seen.pss_kb(0) == 10
    assert seen.pss_kb(1) == 0 and seen.pss_kb(2) == 2


def test_a_difference_is_one_line():
    assert str(Difference(3, "munmap", "leaf", "A m0", 7, "PTE", "none", 5)) == (
        "step 3, munmap: leaf of A m0, page 7: the kernel has PTE, the simulator none (and 4 more)")
    assert str(Difference(3, "munmap", "error", "", None, None, "EINVAL")) == (
        "step 3, munmap: error: the kernel has none, the simulator EINVAL")


# -- input that cannot be used

HEAD = {"t": "scenario", "name": "x", "kernel": "6.18.44"}
FILE = {"t": "file", "file": "f", "kind": "hugetlb", "size": 2 * M, "page": 2 * M}
MMAP = {"t": "op", **step("mmap", file="f", fileoff=0, len=2 * M, prot=3, flags="SHARED")}
OBS = {"t": "obs", "i": 1, "procs": {}, "files": {}}
BAD = {
    "empty": ([], 1, "not a kernel recording"),
    "no JSON": (["{"], 1, "not JSON"),
    "no object": ([[1]], 1, 'its "t" is none of scenario, file, proc, op, obs'),
    "another type": ([HEAD, {"t": "opp"}], 2, 'its "t" is none of'),
    "no scenario": ([FILE], 1, "its first line is no"),
    "no kernel": ([{"t": "scenario", "name": "x"}], 1, "scenario: no 'kernel'"),
    "no release": ([{**HEAD, "kernel": "Linux"}], 1, "op|scenario: kernel: 'Linux' is no release of Linux"),
    "a file of no kind": ([HEAD, {**FILE, "kind": "ext4"}], 2, "file: unknown kind of file 'ext4'"),
    "a size that is none": ([HEAD, {**FILE, "page": 0}], 2, "file: no file has 2097152 bytes in pages of 0"),
    "no number": ([HEAD, FILE, {key: value for key, value in MMAP.items() if key != "i"}], 3, "op: no 'i'"),
    "an unknown file": ([HEAD, MMAP], 2, "mmap: no 'f'"),
    "a negative offset": ([HEAD, FILE, {**MMAP, "fileoff": -4096}], 3, "mmap: "),
    "an unknown region": ([HEAD, FILE, MMAP, {"t": "op", **step("read", region="q")}], 4, "read: no 'q'"),
    "too long an access": ([HEAD, FILE, MMAP, {"t": "op", **step("read", region="m", off=0, len=1 << 60)}], 4,
                           "read: an access to 1152921504606846976 bytes, more than"),
    "an argument lacks": ([HEAD, FILE, MMAP, {"t": "op", "i": 2, "proc": "A", "op": "munmap", "region": "m"}], 4,
                          "munmap: no 'off'"),
    "an unknown region seen": ([HEAD, FILE, MMAP, {**OBS, "procs": {"A": {"regions": {"q": {}}}}}], 4, "obs: no 'q'"),
    "runs that are none": ([HEAD, FILE, MMAP, {**OBS, "files": {"f": {"phys": [], "mapcount": [[-3, 2, 1]]}}}], 4,
                           "obs: .* are no runs"),
}


@pytest.mark.parametrize("records, line, reason", BAD.values(), ids=BAD)
def test_a_bad_recording_is_one_error_with_its_line(tmp_path, records, line, reason):
    path = tmp_path / "r.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    with pytest.raises(TraceError, match=reason) as error:
        validate_recording(path)
    assert (error.value.name, error.value.line) == (str(path), line)


def test_a_directory_without_recordings(tmp_path):
    (tmp_path / "notes.txt").write_text("no recording")
    with pytest.raises(TraceError, match="holds no kernel recording"):
        recordings(tmp_path)
    with pytest.raises(TraceError, match="No such file"):
        recordings(tmp_path / "nowhere")


# -- the command line, and the importer

def command(*arguments):
    return subprocess.run([sys.executable, "-m", "hgmcore", *map(str, arguments)], capture_output=True, text=True,
                          timeout=600)


def test_exit_status_tells_equal_from_different_from_unusable(tmp_path):
    good, different, bad = (tmp_path / name for name in ("good", "different", "bad"))
    for directory in (good, different, bad):
        directory.mkdir()
    records = load("a16")
    save(good, records)
    of_step(records, "obs", 6)["files"]["f0"]["mapcount"] = [[0, 512, 1]]
    save(different, records)
    save(bad, ["{}"])
    done = command("validate", good)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("8 of 8 observations equal\n")
    done = command("validate", different, "--json", tmp_path / "out.json")
    assert (done.returncode, done.stderr) == (1, "")
    assert "step 6, uffd_continue: map count of f0, page 0: the kernel has 1, the simulator 2 (and 2 more)" in (
        " ".join(done.stdout.split()))
    out = json.loads((tmp_path / "out.json").read_text())
    assert (out["format"], out["observations"], out["equal"]) == ("hgmcore-validate 1", 8, 7)
    done = command("validate", bad)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "r.jsonl:1: not a line of a kernel recording" in done.stderr
    assert command("validate", tmp_path / "nowhere").returncode == 2


def test_a_recording_becomes_a_trace():
    trace, _ = importers.read("kernel-recording", next(SHIPPED.glob("c02*")))
    text = trace.to_text()
    assert text[text.index("mmap"):].split("\n") == [
        "mmap A m0 anon:2M 0 2M private", "observe", "touch A m0 0 write", "observe", "mprotect A m0 0 16K r",
        "observe", "fork A B", "observe", "touch B m0 32K write", "touch B m0 36K write", "observe",
        "touch A m0 32K write",
        "observe", "touch A m0 80K write", "observe", "dontneed B m0 400K 400K", "observe", "mprotect A m0 0 16K rw",
        "observe", "collapse A m0 0 2M", "observe", "exit B", "observe", "collapse A m0 0 2M", "observe", "exit A",
        "observe", ""]


@pytest.mark.parametrize("name, expected", [
    ("a08", "file f0 2M 2 shmem\npopulate f0 0 2\nmmap A m0 f0 0 4M shared\nobserve\nmmap B m0 f0 0 4M shared\n"),
    ("b01", "observe\nmremap A m0 0 4K mX\nobserve\nmremap A m0 2M 2M m1\nobserve\nobserve\npunch f0 2064K 16K\n"),
    ("c02", "\ntouch B m0 32K write\ntouch B m0 36K write\nobserve\n"),
    ("a11", "\ntouch A m0 151557\nobserve\nobserve\ncontinue A m0 148K 4K\nobserve\ntouch A m0 151557\n"),
    ("f01", "\nmmap A x0 anon:4K 0 2M private\nregister A x0 minor\n"),
    ("f01", "\nregister A t0 minor\ncontinue A t0 0 2M\nunregister A t0\n"),
    ("f01", "\nmprotect A ro 0 32K rw\ntouch A ro 0\ntouch A ro 4K\n"),
    ("d01", "\nmigrate A m0 0 2M\nobserve\nmigrate A m0 0 2M all\n"),
])
def test_what_a_step_is_in_statements(name, expected):
    trace, _ = importers.read("kernel-recording", next(SHIPPED.glob(f"{name}*")))
    assert expected in trace.to_text()


def test_what_the_importer_leaves_out_is_counted():
    trace, report = importers.read("kernel-recording", next(SHIPPED.glob("b03*")))
    assert trace.header.provenance["kernel"] == "6.18.44-fc-v669"
    assert report.used == {"files": 1, "steps": 23, "observations": 25}
    assert report.skipped.total() == 3


# -- steps out of scope that change what is mapped

def foreign(i, op, **fields):
    return {"t": "op", "i": i, "proc": "A", "op": op, "region": "m0", "off": 0, "len": 4096, "errno": "", **fields}


@pytest.mark.parametrize("op", [
    foreign(99, "madvise", advice="HWPOISON"), foreign(99, "madvise", advice="COLD"), foreign(99, "swapoff"),
    foreign(99, "split_folios", proc="driver", region="f0"), foreign(99, "compact_memory", proc="driver", region=None)])
def test_what_a_step_out_of_scope_changed_is_no_difference(tmp_path, op):
    """The comparison of what it touched ends, and says so; that of other memory goes on."""
    records = load("a02")
    at = records.index(of_step(records, "obs", 11))
    records.insert(at + 1, op)
    for obs in records[at + 2:]:
        if obs["t"] == "obs":
            obs["files"]["f0"]["mapcount"] = [[0, 512, 7]]
    result = validate_recording(save(tmp_path, records))
    assert result["differences"] == []
    assert [step["step"] for step in result["out_of_scope"] if step["step"] == 99] == [99]
    assert sum(count for what, count in result["not_compared"].items() if "step 99" in what) > 512
    del records[at + 1]
    assert validate_recording(save(tmp_path, records))["differences"]


@pytest.mark.parametrize("op", [foreign(99, "madvise", advice="COLD", errno="EINVAL"), foreign(99, "mincore")])
def test_what_changes_nothing_ends_no_comparison(tmp_path, op):
    records = load("a02")
    at = records.index(of_step(records, "obs", 11))
    records.insert(at + 1, op)
    of_step(records, "obs", 12)["files"]["f0"]["mapcount"] = [[0, 512, 7]]
    assert validate_recording(save(tmp_path, records))["differences"]


def test_a_mapping_that_traces_have_not_is_out_of_scope_with_all_that_is_done_to_it(tmp_path):
    """A shared mapping of no file; and one that nobody made."""
    records = load("a02")
    at = records.index(of_step(records, "obs", 11))
    seen = json.loads(json.dumps(records[at]["procs"]["A"]["regions"]["m0"]))
    records[at + 1:at + 1] = [
        foreign(90, "mmap", region="p", fileoff=0, prot=3, flags="SHARED"),
        foreign(91, "write", region="p"), foreign(92, "read", region="q")]
    of_step(records, "obs", 12)["procs"]["A"]["regions"].update(p=seen, q=seen)
    result = validate_recording(save(tmp_path, records))
    assert result["differences"] == []
    assert {step["reason"] for step in result["out_of_scope"] if 90 <= step["step"] < 93} == {
        "a shared mapping of no file: traces have none", "a mapping that no step in scope made"}


def test_a_mapping_of_huge_pages_without_a_file_has_a_file_of_its_own():
    s = Simulated("6.18.44", "hugetlb")
    s.step(step("mmap", fileoff=0, len=4 * M, prot=3, flags="PRIVATE|HUGETLB"))
    assert s.step(step("write", len=4 * M, accessed=1024)) == []
    row = s.machine.observe()["mappings"][0]
    assert row["levels"]["pmd"] == 4 * M


def test_vmflags_tell_of_huge_pages(tmp_path):
    """An mmap that does not say MAP_HUGETLB, as `ht` of what is seen behind it does."""
    ops = [foreign(1, "mmap", len=4 * M, fileoff=0, prot=3, flags="PRIVATE"), foreign(2, "write", accessed=1)]
    region = {"map": [[0, 512, "HUGE"]], "mapcount": [[0, 512, 1]], "smaps": {"Private_Hugetlb": 2048},
              "vmas": [[0, 4 * M, "rw-p", "rd wr mr mw me de ht"]]}
    obs = {"t": "obs", "i": 2, "procs": {"A": {"regions": {"m0": region}}}, "files": {}}
    path = save(tmp_path, [{"t": "scenario", "name": "ht", "kernel": "6.18.44"}, {"t": "proc", "proc": "A"}, *ops, obs])
    result = validate_recording(path)
    assert (result["scheme"], result["differences"], result["out_of_scope"]) == ("hugetlb", [], [])
    trace, _ = importers.read("kernel-recording", path)
    assert [file.kind for file in trace.header.files] == ["hugetlb"]


def test_pins_are_references_on_the_folios_of_a_file():
    s = simulated()
    s.step(step("pin", off=2 * M - 8192, len=16384))
    assert s.reason is None
    assert [folio["pins"] for folio in s.machine.observe()["folios"]] == [2, 2]
    s.step(step("unpin", off=2 * M - 8192, len=16384))
    assert [folio["pins"] for folio in s.machine.observe()["folios"]] == [0, 0]


def test_remove_punches_the_file():
    s = simulated()
    s.step(step("read", len=4096, accessed=1))
    assert s.step(step("madvise", off=2 * M, len=M, advice="REMOVE")) == [] and s.reason is None
    assert sum(f["pages"] for f in s.machine.observe()["folios"]) == 768


def test_a_mapping_that_was_shrunk_is_unregistered_as_a_whole():
    s = simulated()
    s.step(step("uffd_open", asked=["MINOR_SHMEM"]))
    s.step(step("uffd_register", len=4 * M, mode="MINOR"))
    s.step(step("mremap", len=4 * M, newlen=2 * M, flags=0))
    s.step(step("uffd_unregister", len=2 * M))
    assert s.reason is None
    assert s.step(step("read", accessed=1)) == []


def placed(s):
    """Name -> (address modulo 2M, bytes that PTEs map, bytes that PMDs map) of each mapping."""
    levels = {row["mapping"]: row["levels"] for row in s.machine.observe()["mappings"]}
    rows = zip(s.machine.header.mappings, s.machine.core.mappings())
    none = {"pte": 0, "pmd": 0}
    return {m.name: (int(row[2]) % (2 * M), *(levels.get(m.name, none)[level] for level in none)) for m, row in rows}


def test_addresses_are_kept_modulo_2m():
    s = simulated()
    s.step(step("mmap", region="w", file="f", fileoff=0, len=2 * M, prot=3, flags="SHARED", addr_mod_2M=M))
    s.step(step("read", region="w", accessed=1))
    s.step(step("mremap", region="w", len=2 * M, newlen=4 * M, flags=7, to="x", errno="EINVAL"))
    assert s.reason is not None
    s.step(step("mremap", region="w", len=2 * M, newlen=4 * M, flags=3, to="x"))
    s.step(step("mremap", region="m", len=2 * M, newlen=2 * M, flags="MAYMOVE|FIXED|DONTUNMAP", to="y", to_mod_2M=4096))
    s.step(step("mremap", region="x", len=4 * M, newlen=M, flags=1))
    s.step(step("mremap", region="m", off=2 * M, len=M, newlen=4096, flags=0))
    assert s.reason is None and s._run()[0] is None
    assert placed(s) == {"m": (0, 0, 0), "w": (M, 0, 0), "x": (M, 64 * K, 0), "y": (4096, 0, 0)}
    assert s.machine.core.vmas(0) == [(0, 2 * M + 4096, 161), (3 * M, 4 * M, 161)]


def test_private_mappings_and_folios_of_other_sizes():
    s = simulated()
    s.step(step("mmap", region="p", file="f", fileoff=0, len=2 * M, prot=3, flags="PRIVATE"))
    s.step(step("write", region="p", accessed=1))
    s.step(step("mmap", region="a", fileoff=0, len=M, prot=3, flags="PRIVATE", page=65536))
    s.step(step("madvise", region="a", len=M, advice="HUGEPAGE"))
    s.step(step("write", region="a", accessed=1))
    assert placed(s) == {"m": (0, 0, 0), "p": (0, 4096, 0), "a": (0, 65536, 0)}


def test_huge_pages_of_a_gigabyte():
    s = Simulated("6.18.44", "hugetlb")
    s.step(step("mmap", fileoff=0, len=1 << 30, prot=3, flags="PRIVATE|HUGETLB|HUGE_1GB"))
    assert s.step(step("write", accessed=1)) == []
    assert s.machine.observe()["mappings"][0]["levels"]["pud"] == 1 << 30


def test_page_flags_tell_of_folios():
    assert importers.kernel_recording.largest_folio([[0, 1, "MMAP|ANON|HEAD|THP"], [1, 15, "MMAP|ANON|TAIL|THP"],
                                                     [16, 1, "MMAP|ANON"]]) == 16
    assert importers.kernel_recording.largest_folio([[0, 1, "MMAP|HEAD|THP"], [1, 511, "MMAP|TAIL|THP"]]) == 1


@pytest.mark.parametrize("copied, different", [(False, 0), (True, 1)])
def test_a_page_that_should_have_been_copied_is_found(copied, different):
    """A child's page of the same count and rights as the kernel shows it, but of another frame."""
    s = simulated()
    place = {"map": [[0, 1, "PTE"]], "mapcount": [[0, 1, 2]], "smaps": {}, "phys": [[0, 1, "B0", 0]]}
    other = {**place, "phys": [[0, 1, "S", 0]]} if copied else place
    s.step(step("mmap", region="w", file="f", fileoff=0, len=4096, prot=3, flags="SHARED", addr_mod_2M=0))
    s.step(step("mmap", region="v", file="f", fileoff=0, len=4096, prot=3, flags="SHARED", addr_mod_2M=0))
    for region in "wv":
        s.step(step("read", region=region, accessed=1))
    found = s.differences({"procs": {"A": {"regions": {"w": place, "v": other}}}, "files": {}})
    assert sum(difference.kind == "frame" for difference in found) == different


def test_references_are_compared_where_they_were_recorded():
    s = simulated()
    file = {"mapcount": [], "phys": [[0, 512, "B0", 0], [512, 512, "B1", 0]]}
    for refs, different in (([[0, 1, 512], [512, 1, 512]], []), ([[0, 1, 513]], ["references"])):
        found = s.differences({"procs": {}, "files": {"f": {**file, "refs": refs}}})
        assert [difference.kind for difference in found] == different
