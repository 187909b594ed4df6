"""Values that make no sense, in recordings and in calls: one clear error each, and nothing is done."""

import io
import json

import pytest
from recorded_calls import DATA

import hgmcore as hgm
from hgmcore import cli
from hgmcore.importers import kernel_recording, qemu
from hgmcore.trace import TraceError

K, M = 1 << 10, 1 << 20


def test_a_qemu_time_stamp_beyond_any_clock_is_left_out():
    log = (DATA / "qemu-postcopy_4k.qemutrace").read_bytes() + b"7@9999999999.388010:some_event x\n"
    trace, report = qemu.read(io.BytesIO(log), "log")
    assert report.skipped["a time stamp or thread that is larger than any can be"] == 1 and len(trace)


def test_an_option_of_no_size(tmp_path, capsys):
    (tmp_path / "log").write_bytes(b"7@1.000001:postcopy_place_page_zero host=0x7f0000000000\n")
    assert cli.run(["import", "qemu", str(tmp_path / "log"), "--page-size", "0", "-o", str(tmp_path / "t.hgm")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "page of 0" in error


@pytest.mark.parametrize("fields", [{"size": -1}, {"size": 0}, {"page": 0}, {"page": -4096}, {"size": 1 << 60},
                                    {"cached": [[-1, 1]]}, {"cached": [[0, -1]]}, {"cached": 7}, {"page": 1 << 70}])
def test_a_kernel_recording_with_a_file_that_cannot_be(fields):
    file = {"t": "file", "file": "f", "kind": "shmem", "size": 2 * M, "page": 4 * K, "cached": [], **fields}
    lines = [{"t": "scenario", "name": "x", "kernel": "6.18"}, file]
    stream = io.BytesIO("\n".join(map(json.dumps, lines)).encode())
    with pytest.raises(TraceError, match="log:2: file"):
        kernel_recording.read(stream, "log")


@pytest.fixture
def machine():
    return hgm.Machine("mm_id", reserve="64M")


@pytest.mark.parametrize("call", [
    lambda m, f: m.file("G", "2M", 1.5), lambda m, f: m.file("G", "2M", "2"), lambda m, f: f.pin(0.5),
    lambda m, f: f.pin(0, 0.5), lambda m, f: f.unpin(0, 1.5), lambda m, f: f.populate(0.5), lambda m, f: m.fail(0.5)])
def test_counts_are_whole_numbers(machine, call):
    file = machine.file("F", "2M", 2)
    with pytest.raises(TypeError, match="no whole number"):
        call(machine, file)
    assert len(machine.header.files) == 1 and machine.operations == 0


@pytest.mark.parametrize("name", ["a b", "1", "a\n", 3, "ä"])
def test_mappings_have_names_that_traces_can_write(machine, name):
    file, process = machine.file("F", "2M", 2), machine.process("A")
    with pytest.raises(ValueError, match="is no name"):
        process.mmap(file, name=name)
    mapping = process.mmap(file, name="v")
    with pytest.raises(ValueError, match="is no name"):
        mapping.mremap("2M", to=name)


@pytest.mark.parametrize("length", [2**64 - 4096, 2**63, 2**48, 2**47])
def test_a_mapping_grows_no_further_than_its_address_space(machine, length):
    process = machine.process("A")
    first, last = (process.mmap(anon="2M", length="4M", name=name) for name in "vw")
    first.touch(0, write=True)
    last.touch(0, write=True)
    with pytest.raises(hgm.OperationError, match="ENOMEM"):
        last.mremap(length)
    assert last.length == 4 * M and [row["rss"] for row in machine.observe()["mappings"]] == [2 * M, 2 * M]


def test_info_and_convert_refuse_what_replay_refuses(tmp_path, capsys):
    path = tmp_path / "t.hgm"
    path.write_text("hgmcore-trace 1\nfile F 4K 5000000000 shmem\n")
    for command in (["info"], ["convert", "-o", str(tmp_path / "t.parquet")], ["replay", "--scheme", "mm_id"]):
        assert cli.run([command[0], str(path), *command[1:]]) == 2
        assert "t.hgm:2: file: file 'F': more than 2**32 base pages of shmem" in capsys.readouterr().err


def test_a_small_log_does_not_fill_the_disk():
    """Two lines that describe 512G, all of it mapped at first, would be 134,217,728 operations."""
    log = (b"7@1.000001:postcopy_nhp_range ram: 0x7f0000000000 offset=0x0 length=0x8000000000\n"
           b"7@1.000001:ram_block_discard_range ram@0x7f0000000000 + 0x1000: madvise: 1 fallocate: 1 ret: 0\n"
           b"7@1.000002:virtio_balloon_handle_output section name: ram gpa: 0x1000\n")
    with pytest.raises(TraceError, match="too many for a log of 3 lines|pieces of 4K"):
        qemu.read(io.BytesIO(log), "log", start="mapped")
