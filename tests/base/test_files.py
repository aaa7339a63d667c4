import fcntl
import os
import pathlib
import pickle
import stat
import subprocess

import pytest
import torch

from ptune.base import files
from ptune.errors import StoreError


def test_tensors_and_note_come_back(tmp_path):
    shared = torch.arange(6.0)
    files.write_tensors(
        tmp_path / "x.safetensors",
        {"a": shared, "b": shared[:3], "c": torch.tensor([1], dtype=torch.uint8)},
        {"step": 3},
    )
    tensors, note = files.read_noted(tmp_path / "x.safetensors")
    assert (
        note == {"step": 3}
        and torch.equal(tensors["a"], shared)
        and torch.equal(tensors["b"], shared[:3])
        and tensors["c"].dtype == torch.uint8
    )
    assert os.stat(tmp_path / "x.safetensors").st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_written_is_on_the_disk_and_changes_nothing_for_other_threads(
    tmp_path, monkeypatch
):
    """The content is synced before the file gets its name, and the folder behind it; the umask of
    the process stays as it is."""
    seen, real_sync, real_replace = [], os.fsync, os.replace

    def syncing(handle):
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        may_write = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        seen.append("folder" if is_folder else "file" if may_write else "file for reading")
        real_sync(handle)

    def replacing(*paths):
        seen.append("replace")
        real_replace(*paths)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("it is that of all threads"))
    files.write_text(tmp_path / "x", "1")
    assert seen == ["file", "replace", "folder"]
    seen.clear()
    files.write_folder(tmp_path / "out", lambda folder: pathlib.Path(folder, "a").touch())
    assert seen == ["file", "folder", "replace", "folder"]


def test_file_cut_short(tmp_path):
    path = tmp_path / "x.safetensors"
    files.write_tensors(path, {"a": torch.arange(100.0)})
    whole = path.read_bytes()
    for size in (0, 5, 50, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match="x.safetensors is damaged"):
            files.read_tensors(path)


def test_pickle_is_never_loaded(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (pathlib.Path(tmp_path / "ran").touch, ())

    (tmp_path / "x.safetensors").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(StoreError):
        files.read_tensors(tmp_path / "x.safetensors")
    assert not (tmp_path / "ran").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})

    def fails(temporary):
        pathlib.Path(temporary).write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        StoreError,
        match="could not be written: No space left on device. What stood there before is unchanged",
    ):
        files.write(path, fails)
    assert files.read_json(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError):
        files.write_json(path, float("nan"))
    assert files.read_json(path) == {"a": 1}


def test_a_folder_is_whole_or_absent(tmp_path):
    def fill(folder):
        pathlib.Path(folder, "a").write_text("1")
        pathlib.Path(folder, "b").write_text("2")

    def fails(folder):
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="could not be written: No space left"):
        files.write_folder(tmp_path / "out", fails)
    assert not list(tmp_path.iterdir())
    files.write_folder(tmp_path / "out", fill)
    (tmp_path / "out" / "own").write_text("3")
    (tmp_path / "out" / "a").write_text("old")
    files.write_folder(tmp_path / "out", fill)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "a": "1",
        "b": "2",
        "own": "3",
    }
    assert (
        os.stat(tmp_path / "out" / "a").st_mode & 0o777 == 0o666 & ~_umask()
        and os.stat(tmp_path / "out").st_mode & 0o777 == 0o777 & ~_umask()
    )


def test_a_folder_is_whole_when_the_first_of_what_it_replaces_is_there(tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    for name in ("a", "b/old", "kept"):
        (tmp_path / name).write_text("old")
    seen, place = [], files.place

    def noted(whole, path):
        seen.append((path.name, sorted(file.name for file in tmp_path.glob("[!.]*"))))
        place(whole, path)

    def fill(folder):
        for name in ("a", "c"):
            pathlib.Path(folder, name).write_text("new")

    monkeypatch.setattr(files, "place", noted)
    files.write_folder(tmp_path, fill, ["a", "b", "absent"])
    assert seen == [("c", ["kept"]), ("a", ["c", "kept"])]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new",
        "c": "new",
        "kept": "old",
    }


def test_what_a_kill_left_is_removed(tmp_path):
    (tmp_path / "deep" / f"{files.TEMPORARY}x").mkdir(parents=True)
    (tmp_path / "deep" / f"{files.TEMPORARY}y").touch()
    (tmp_path / "deep" / "kept").touch()
    files.remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["kept"]


def test_no_folder_gives_way_to_a_file(tmp_path):
    (tmp_path / "x" / "kept").mkdir(parents=True)
    with pytest.raises(StoreError):
        files.write_text(tmp_path / "x", "y")
    assert (tmp_path / "x" / "kept").exists()


def test_full_disk(tmp_path):
    """A real one: a small file system in memory, where this user may mount it."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], capture_output=True
    ).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        files.write_json(mount / "prompt.json", {"a": 1})
        for write in (
            lambda: files.write_tensors(mount / "x.safetensors", {"a": torch.zeros(100_000)}),
            lambda: files.write_text(mount / "prompt.json", "x" * 200_000),
        ):
            with pytest.raises(StoreError, match="could not be written: .*(space|Error)"):
                write()
        assert files.read_json(mount / "prompt.json") == {"a": 1} and [
            p.name for p in mount.iterdir()
        ] == ["prompt.json"]
    finally:
        subprocess.run(["umount", mount], check=True)


def test_missing_and_broken_json(tmp_path):
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "x.json").write_text('{"a": 1')
    with pytest.raises(StoreError, match="not valid JSON"):
        files.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_optimiser_goes_on_as_if_it_had_not_stopped(kind):
    def run(stop):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(4))
        optimiser = kind([weight], lr=0.1)
        for step in range(6):
            if step == stop:
                tensors = {k: v.clone() for k, v in files.optimiser_tensors(optimiser).items()}
                optimiser = kind([weight], lr=0.1)
                files.restore_optimiser(optimiser, tensors)
            (weight**2 * (step + 1)).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        return weight.detach()

    assert torch.equal(run(None), run(3))
