import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedkd.errors import StorageError
from fedkd.files import make_folder, storing, write_atomically

HERE = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@HERE
@given(old=st.binary(max_size=50), new=st.one_of(st.binary(max_size=50), st.text(max_size=50)))
def test_what_is_written_is_read_and_nothing_else_is_left(
    tmp_path: Path, old: bytes, new: bytes | str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, old)
    assert path.read_bytes() == old
    write_atomically(path, new)
    assert path.read_bytes() == (new if isinstance(new, bytes) else new.encode())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    seen: list[str] = []

    def full(*_: object) -> None:
        seen.append(path.read_text())
        raise OSError(28, "No space left on device")

    target = os if step == "fsync" else Path
    monkeypatch.setattr(target, step, full)
    with pytest.raises(StorageError, match=r"file': No space left on device; make room on its"):
        write_atomically(path, "new")
    assert seen == ["old"]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_is_complete_on_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushing(descriptor: int) -> None:
        at = os.fstat(descriptor)
        what = "a folder" if stat.S_ISDIR(at.st_mode) else f"{at.st_size} bytes"
        order.append(f"fsync of {what}")
        fsync(descriptor)

    def renaming(source: Path, target: Path) -> Path:
        order.append("replace")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(Path, "replace", renaming)
    write_atomically(path, "x" * 10)
    write_atomically(path, "y" * 5, durable=False)
    assert order == ["fsync of 10 bytes", "replace", "fsync of a folder", "replace"]
    assert path.read_text() == "y" * 5


def test_what_a_killed_writer_left_is_no_file_and_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", lambda *_: None)
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        write_atomically(path, "half of it")
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "see to its permissions, or name a place on a disk that can be written"),
        (errno.EROFS, "see to its permissions, or name a place on a disk that can be written"),
        (errno.ENOENT, "it must be there"),
        (errno.ENOTDIR, "must be a folder"),
        (errno.EIO, "see to its disk"),
    ],
)
def test_the_remedy_is_that_of_the_reason_and_nobody_is_sent_to_an_option(
    number: int, remedy: str
) -> None:
    with pytest.raises(StorageError) as refused, storing(Path("a/file")):
        raise OSError(number, os.strerror(number))
    said = str(refused.value)
    assert said.startswith(f"'a/file': {os.strerror(number)}; ")
    assert remedy in said
    assert "--resume" not in said
    assert ("permissions" in said) == (number in (errno.EACCES, errno.EROFS))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_the_names_of_all_folders_that_are_made_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def flushing(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushing)
    make_folder(tmp_path / "a" / "b" / "c")
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    synced.clear()
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced == []
