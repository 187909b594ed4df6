"""Output files are whole or absent, keep what they were, and are made where nobody else's file is."""

import os
import stat

import pytest

from hgmcore.files import write_file, writing


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_an_existing_file_keeps_its_mode_and_owner(tmp_path):
    path = tmp_path / "out"
    path.write_text("before")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    write_file(str(path), b"after")
    after = path.stat()
    assert path.read_bytes() == b"after"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_new_file_has_the_mode_that_umask_gives(tmp_path):
    mask = os.umask(0o027)
    try:
        write_file(str(tmp_path / "out"), b"x")
    finally:
        os.umask(mask)
    assert mode(tmp_path / "out") == 0o640


def test_nothing_is_written_through_a_link_that_waits(tmp_path, monkeypatch):
    """Whoever guesses the temporary file's name gets an error, not the bytes."""
    monkeypatch.setattr("hgmcore.files.secrets.token_hex", lambda n: "guess")
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "out.guess.part").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError) as error:
        write_file(str(tmp_path / "out"), b"x")
    assert error.value.filename == str(tmp_path / "out")
    assert (tmp_path / "victim").read_text() == "kept" and not (tmp_path / "out").exists()


def test_what_raises_leaves_nothing(tmp_path):
    path = tmp_path / "out"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), writing(str(path)) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["out"]


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_file(str(tmp_path / "link"), b"after")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "after"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(str(tmp_path / "pipe"), b"through")
    assert os.read(reader, 100) == b"through" and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    os.close(reader)


def test_markdown_shows_no_control_characters(tmp_path, capsys):
    from hgmcore import cli

    path = tmp_path / "a\x1b[31m\n# b.hgm"
    path.write_text("hgmcore-trace 1\nfile F 2M 1\nmmap A v F 0 2M shared\ntouch A v 0\n")
    assert cli.run(["compare", str(path), "--markdown", "--repeat", "0", "--schemes", "mm_id"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\n# b" not in shown and "\\x1b[31m" in shown
