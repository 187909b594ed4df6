"""Invalid traces: every refusal names file, line and reason."""

import io
import re

import pytest
from test_trace import parse, refusal

from hgmcore.trace import File, Header, Mapping, Trace, TraceError

NO_VAX = "unknown geometry 'vax' (known: x86-64, x86-64-5level, arm64-4k, arm64-16k, arm64-64k)"

# A line, and below it why it is refused.
BAD_LINES = r"""
continue A w 0 4K
    continue: no mapping 'w' in process 'A' (declared: v)
continue Q v 0 4K
    continue: no process 'Q' (declared: A)
contine A v 0 4K
    unknown statement 'contine' (did you mean 'continue'?)
zzz
    unknown statement 'zzz'
Observe
    unknown statement 'Observe' (did you mean 'observe'?)
continue A v 0
    continue: LENGTH is missing (expected: continue PROCESS MAPPING OFFSET LENGTH [urgent])
continue
    continue: PROCESS MAPPING is missing (expected: continue PROCESS MAPPING OFFSET LENGTH [urgent])
continue A v 0 4K soon
    continue: unexpected 'soon' (expected: continue PROCESS MAPPING OFFSET LENGTH [urgent])
continue A v 0 4K urgent urgent
    continue: 'urgent' stands twice
continue A v -4K 4K
    continue: OFFSET '-4K' is negative (expected decimal or 0x, then K, M, G or T)
continue A v 0 4Q
    continue: LENGTH '4Q' has an unknown unit 'Q' (expected K, M, G or T)
continue A v 0 4k
    continue: LENGTH '4k' has an unknown unit 'k' (expected K, M, G or T)
continue A v 1.5M 4K
    continue: OFFSET '1.5M' is not a number (expected decimal or 0x, then K, M, G or T)
continue A v 1_0 4K
    continue: OFFSET '1_0' is not a number (expected decimal or 0x, then K, M, G or T)
touch A v 9223372036854775808
    touch: OFFSET '9223372036854775808' is too large (numbers are below 2**63)
touch A v 0x8000000000000000
    touch: OFFSET '0x8000000000000000' is too large (numbers are below 2**63)
touch A v 8388608T
    touch: OFFSET '8388608T' is too large (numbers are below 2**63)
touch A v 0 read
    touch: unexpected 'read' (expected: touch PROCESS MAPPING OFFSET [write])
register A v
    register: minor|wp.. is missing (expected: register PROCESS MAPPING minor|wp..)
mprotect A v 0 4K x
    mprotect: expected r|rw|none, found 'x'
mremap A v
    mremap: OFFSET is missing (expected: mremap PROCESS MAPPING LENGTH [move], or: mremap PROCESS
      MAPPING OFFSET LENGTH NEW_MAPPING [NEW_LENGTH] [at ADDRESS] [keep])
mremap A v 0 4K 9
    mremap: '9' cannot name a mapping (a letter or _, then letters, digits, _ . -)
file F 2M 1
    file: file 'F' is declared already
file G 3M 1
    file: x86-64 has no hugetlb pages of 3M (it has 2M, 1G)
file G 4K 1
    file: x86-64 has no hugetlb pages of 4K (it has 2M, 1G)
file G 8K 1 shmem
    file: x86-64 has no shmem pages of 8K (it has 4K, 16K, 32K, 64K, 128K, 256K, 512K, 1M, 2M)
file G 2M
    file: FILE PAGE_SIZE PAGES [hugetlb|shmem] is missing (expected: file FILE PAGE_SIZE PAGES
      [hugetlb|shmem])
file G 2M 1 tmpfs
    file: unknown kind of file 'tmpfs' (known: hugetlb, shmem)
file G 1G 4194305
    file: 4194305 pages of 1G are more than 4096T
file 9 2M 1
    file: '9' cannot name a file (a letter or _, then letters, digits, _ . -)
populate F 0 5
    populate: huge pages [0, 5) reach beyond file 'F' of 4
populate F 5 0
    populate: huge pages [5, 5) reach beyond file 'F' of 4
populate F 1 9223372036854775807
    populate: huge pages [1, 9223372036854775808) reach beyond file 'F' of 4
populate G 0 1
    populate: no file 'G' (declared: F)
pin F 4
    pin: huge page 4 lies beyond file 'F' of 4
unpin F 4 1
    unpin: huge page 4 lies beyond file 'F' of 4
punch F 6M 4M
    punch: bytes [6291456, 10485760) reach beyond file 'F' of 4 pages
mmap A v G 0 2M shared
    mmap: no file 'G' (declared: F)
mmap A v F 0 2M
    mmap: shared|private is missing (expected: mmap PROCESS MAPPING FILE|anon:SIZE OFFSET LENGTH
      shared|private [minor] [wp] [hgm] [at ADDRESS])
mmap A v F 0 2M shared hgm minor hgm
    mmap: 'hgm' stands twice
mmap 9 w F 0 2M shared
    mmap: '9' cannot name a process (a letter or _, then letters, digits, _ . -)
mmap A v anon:3M 0 2M private
    mmap: x86-64 has no anon pages of 3M (it has 4K, 16K, 32K, 64K, 128K, 256K, 512K, 1M, 2M)
mmap A v anon:2M 0 2M shared
    mmap: anonymous memory is private (shared memory is a file of kind shmem)
mmap A v anon:2M 4K 2M private
    mmap: anonymous memory has no file offset (expected 0, found 4096)
fork A A
    fork: process 'A' exists already
fork Z B
    fork: no process 'Z' (declared: A)
exit B
    exit: no process 'B' (declared: A)
fail 0
    fail: N 0 is less than 1
fail
    fail: N is missing (expected: fail N)
observe now
    observe: unexpected 'now' (expected: observe)
geometry x86-64
    geometry: must stand once, before the first statement
@x observe
    prefix '@x' is not @THREAD or @THREAD:NANOSECONDS
@ observe
    prefix '@' is not @THREAD or @THREAD:NANOSECONDS
@1: observe
    prefix '@1:' is not @THREAD or @THREAD:NANOSECONDS
@1:2:3 observe
    prefix '@1:2:3' is not @THREAD or @THREAD:NANOSECONDS
@4294967296 observe
    prefix '@4294967296' is not @THREAD or @THREAD:NANOSECONDS
@1:9223372036854775808 observe
    prefix '@1:9223372036854775808' is not @THREAD or @THREAD:NANOSECONDS
@5
    a prefix without a statement
hgmcore-trace 1
    unknown statement 'hgmcore-trace'
"""


def bad_lines():
    """[(line, reason)] of the table; a reason may run over several lines."""
    entries = [entry.split("\n") for entry in re.split(r"\n(?=\S)", BAD_LINES.strip("\n"))]
    return [(line, " ".join(part.strip() for part in reason)) for line, *reason in entries]


@pytest.mark.parametrize("line, reason", bad_lines())
def test_a_bad_line(line, reason):
    assert refusal(parse, f"observe\n{line}\nobserve\n") == f"guest.hgm:5: {reason}"


def test_numbers_that_only_look_like_numbers():
    for digits, reason in (("\u0663", "'\u0663' is not a number (expected decimal or 0x, then K, M, G or T)"),
                           (5000 * "9", f"'{37 * '9'}...' is too large (numbers are below 2**63)"),
                           ("0x" + 5000 * "f", f"'0x{35 * 'f'}...' is too large (numbers are below 2**63)")):
        assert refusal(parse, f"touch A v {digits}") == f"guest.hgm:4: touch: OFFSET {reason}"


@pytest.mark.parametrize("body, line, reason", [
    ("geometry vax", 2, f"geometry: {NO_VAX}"),
    ("geometry", 2, "geometry: expected 'geometry NAME'"),
    ("@1 geometry x86-64", 2, "geometry: a prefix belongs to an operation"),
    ("geometry x86-64\ngeometry x86-64", 3, "geometry: must stand once, before the first statement"),
    ("geometry arm64-64k\nfile F 1G 1", 3,
     "file: arm64-64k has no hugetlb pages of 1G (it has 2M, 512M, 16G)"),
    ("touch A v 0", 2, "touch: no process 'A' (declared: none)"),
])
def test_a_bad_head(body, line, reason):
    assert refusal(parse, body, "hgmcore-trace 1\n") == f"guest.hgm:{line}: {reason}"


@pytest.mark.parametrize("content, line, reason", [
    (b"", 1, "not a trace: the first line must be 'hgmcore-trace 1', found an empty file"),
    (b"\n", 1, "not a trace: the first line must be 'hgmcore-trace 1', found ''"),
    (b"file F 2M 1\n", 1, "not a trace: the first line must be 'hgmcore-trace 1', found 'file F 2M 1'"),
    (b"\x7fELF\x02\x01\0\0", 1, "not a trace: the first line must be 'hgmcore-trace 1', found "
                                r"'\x7fELF\x02\x01\x00\x00'"),
    (b"PAR2....", 1, "not a trace: the first line must be 'hgmcore-trace 1', found 'PAR2....'"),
    (b"hgmcore-trace\n", 1, "unknown version '' of the trace format (known: 1)"),
    (b"hgmcore-trace 2\n", 1, "unknown version '2' of the trace format (known: 1)"),
    (b"hgmcore-trace 1\nobserve\nobs\0erve\n", 3, "a NUL byte (not a text file?)"),
    (b"hgmcore-trace 1\nobserve # caf\xe9\nobserve\n", 2, "byte 0xe9 is not UTF-8"),
    (b"hgmcore-trace 1\nobserve\n# cut off: \xe2\x82", 3, "byte 0xe2 is not UTF-8"),
    (b"hgmcore-trace 1\nobserve\n" + b"#" * 3_000_000, 3, "a line of more than 1048576 bytes"),
])
def test_a_file_that_is_no_text_trace(tmp_path, content, line, reason):
    path = tmp_path / "guest.hgm"
    path.write_bytes(content)
    assert refusal(Trace.load, path) == f"{path}:{line}: {reason}"


def test_a_bad_line_far_down():
    body = b"hgmcore-trace 1\n" + b"observe\n" * 400_000 + b"obs\xff\n"
    assert refusal(Trace.load, io.BytesIO(body)) == "<file>:400002: byte 0xff is not UTF-8"


def test_a_name_among_many():
    body = "".join(f"mmap A m{i} F 0 2M shared\n" for i in range(3000))
    message = refusal(parse, body + "touch A m77x 0")
    assert "no mapping 'm77x' in process 'A' (declared: m77, " in message and message.endswith(", ...)")
    assert len(message) < 200


def test_no_file_and_a_directory(tmp_path):
    assert refusal(Trace.load, tmp_path / "none") == f"{tmp_path / 'none'}: No such file or directory"
    assert refusal(Trace.load, str(tmp_path)) == f"{tmp_path}: Is a directory"
    of_text = io.StringIO("hgmcore-trace 1")
    assert refusal(Trace.load, of_text) == "<file>: open for text, expected a file of bytes"
    target = tmp_path / "none" / "t.hgm"
    assert refusal(parse("observe").save, target) == f"{target}: No such file or directory"


# Traces that programs build


def test_columns_of_another_length():
    trace = parse("continue A v 0 4K urgent\nobserve\n")
    for column in ("thread", "time"):
        with pytest.raises(TraceError, match=f"column '{column}' has 1 entries for 4 statements"):
            Trace(trace.header, trace.operations, **{column: [1]})


def test_an_edited_trace_is_checked_again():
    trace = parse("continue A v 0 4K urgent\nobserve\n")
    trace.operations["flags"][2] = 255
    assert refusal(trace.check) == "guest.hgm:4: continue: flags 255 hold a bit that it does not have"


def test_undeclared_names():
    header = Header("x86-64", [File("F", 2 << 20, 1)], ["A"], [Mapping(0, "v")])
    operations = parse("observe", "hgmcore-trace 1\n").operations
    assert refusal(Trace, header, operations) == (
        "<trace>: the header's file table is not what the statements declare, in their order")
