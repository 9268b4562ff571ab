"""Projects on disk: whole or not at all, the user's files kept, the same bytes everywhere."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import projects
import pytest

from tinygen import boards, emit, project
from tinygen.errors import InputError, TinyGenError
from tinygen.project import Written


def again(folder: Path, board: str = "qemu_m4", **changes: Any) -> Written:
    """Write the test project once more."""
    return project.write(folder, boards.load(board), projects.contents(**changes))


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if path != folder]


def test_a_new_project_has_its_parts(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "deep" / "p", "nano33ble")
    for path in (
        "platformio.ini",
        "src/main.cpp",
        "README.md",
        "include/tinygen_board.h",
        "lib/chain/library.json",
        "lib/chain/src/chain.h",
        "lib/tinygen/src/tinygen_dut.c",
        "platforms/tinygen/platform.json",
        "platforms/tinygen/builder/main.py",
        "platforms/tinygen/boards/nano33ble.json",
        "platforms/tinygen/boards/host.json",
        "platforms/tinygen/arduino/Arduino.h",
        "platforms/tinygen/port/cortex_m.ld",
        "platforms/tinygen/port/nrf52840",
        "platforms/tinygen/port/host/port.c",
    ):
        assert (folder / path).exists(), path
    assert not (folder / "platforms/tinygen/port/mps2").exists()
    assert (folder / "model/chain.tflite").read_bytes() == b"model file 0"
    assert leftovers(folder) == []


def test_manifest(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "nano33ble")
    manifest = project.load(folder)
    files = projects.snapshot(folder)
    assert set(manifest.files) == set(files) - {project.MANIFEST}
    assert (manifest.name, manifest.board, manifest.engine) == ("chain", "nano33ble", "aot")
    assert manifest.layers[0]["op"] == "FULLY_CONNECTED"
    assert json.loads(files[project.MANIFEST])["model"] == "model/chain.tflite"


def test_nothing_depends_on_the_place(tmp_path: Path) -> None:
    one = projects.snapshot(projects.write(tmp_path / "one", "esp32"))
    other = projects.snapshot(projects.write(tmp_path / "o ther" / "zwei", "esp32"))
    assert one == other
    assert not any(str(tmp_path).encode() in data for data in one.values())


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    before = projects.snapshot(folder)
    assert again(folder).kept == ()
    assert projects.snapshot(folder) == before
    assert leftovers(folder) == []


def test_the_users_files_stay(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    (folder / "src/main.cpp").write_text("mine")
    (folder / "src/sensor.cpp").write_text("also mine")
    (folder / "lib/filter").mkdir()
    (folder / "lib/filter/filter.h").write_text("my library")
    (folder / "notes").symlink_to("README.md")
    (folder / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    (folder / ".pio").mkdir()
    (folder / ".pio/cache").write_text("built")
    written = again(folder, seed=1)
    assert written.kept == ("src/main.cpp",)
    assert (folder / "src/main.cpp").read_text() == "mine"
    assert (folder / "src/sensor.cpp").read_text() == "also mine"
    assert (folder / "lib/filter/filter.h").read_text() == "my library"
    assert (folder / "notes").readlink() == Path("README.md")
    assert (folder / "elsewhere").readlink() == tmp_path
    assert (folder / ".pio/cache").read_text() == "built"
    assert (folder / "model/chain.tflite").read_bytes() == b"model file 1"


def test_an_edited_ini_stays_and_the_new_one_lies_beside(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    ini = folder / "platformio.ini"
    ini.write_text(ini.read_text() + "build_flags = -DMINE\n")
    edited = ini.read_text()
    assert again(folder).kept == ("platformio.ini",)
    assert not (folder / "platformio.ini.new").exists()
    assert again(folder, "qemu_m7").kept == ("platformio.ini",)
    assert ini.read_text() == edited
    assert "qemu_m7_sim" in (folder / "platformio.ini.new").read_text()
    assert again(folder, "qemu_m7").kept == ("platformio.ini",)
    assert not (folder / "platformio.ini.new").exists()


def test_untouched_files_follow_the_model_and_the_board(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    assert again(folder, "nano33ble", name="other").kept == ()
    assert "<other.h>" in (folder / "src/main.cpp").read_text()
    assert "[env:nano33ble]" in (folder / "platformio.ini").read_text()
    assert not (folder / "lib/chain").exists()
    assert not (folder / "platforms/tinygen/port/mps2").exists()


def test_a_deleted_main_does_not_come_back(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    (folder / "src/main.cpp").rename(folder / "src/app.cpp")
    again(folder)
    assert [path.name for path in (folder / "src").iterdir()] == ["app.cpp"]


def test_an_edited_generated_file_is_set_aside(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    source = folder / "lib/chain/src/chain.c"
    generated = source.read_text()
    for edit in ("first edit", "second edit"):
        source.write_text(edit)
        again(folder)
        assert source.read_text() == generated
        assert source.with_name("chain.c.orig").read_text() == edit


def test_a_users_file_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    (folder / "lib/other/src").mkdir(parents=True)
    (folder / "lib/other/src/other.h").write_text("mine")
    before = projects.snapshot(folder)
    with pytest.raises(InputError, match=r"lib/other/src/other\.h: exists"):
        again(folder, name="other")
    assert projects.snapshot(folder) == before
    assert leftovers(folder) == []


@pytest.mark.parametrize("what", ["a file in it", "a file"])
def test_other_folders_are_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "p"
    if what == "a file":
        folder.write_text("precious")
    else:
        folder.mkdir()
        (folder / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"/p: (exists|is a file)") as caught:
        again(folder)
    assert "-o" in caught.value.hint
    assert projects.snapshot(tmp_path) in ({"p": b"precious"}, {"p/thesis.txt": b"precious"})


def test_an_empty_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    again(tmp_path / "p")
    assert (tmp_path / "p/tinygen.json").is_file()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tinygen": 3}', "\0"])
def test_a_damaged_manifest_is_said(tmp_path: Path, text: str) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    (folder / project.MANIFEST).write_text(text)
    for attempt in (project.load, again):
        with pytest.raises(InputError, match=r"tinygen\.json: damaged"):
            attempt(folder)


def test_load_wants_a_project(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a TinyGen project"):
        project.load(tmp_path)


def test_record_changes_fields_and_nothing_else(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    before = projects.snapshot(folder)
    project.record(folder, flashable=True, artifacts={"elf": "firmware/firmware.elf"})
    after = projects.snapshot(folder)
    assert {path for path in after if after[path] != before.get(path)} == {project.MANIFEST}
    assert project.load(folder).flashable
    assert project.load(folder).layers[0]["name"] == "out0"


def test_a_full_disk_leaves_the_old_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    before = projects.snapshot(folder)
    written = 0

    def write_some(self: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        with self.open("wb") as file:
            return file.write(data)

    monkeypatch.setattr(Path, "write_bytes", write_some)
    with pytest.raises(TinyGenError, match="No space left on device") as caught:
        again(folder, seed=1)
    assert caught.value.message.startswith(str(folder))
    assert written == 11
    assert projects.snapshot(folder) == before
    assert leftovers(folder) == []


def killed_after(steps: int, folder: Path, exchange: bool) -> bool:
    """Write the new project in a child that kills itself at its n-th step that changes a folder.

    False when it got through before that.
    """
    left = steps

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in ("os.rename", "os.mkdir", "os.link", "os.rmdir", "ctypes.dlsym"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    process = os.fork()
    if process == 0:
        try:
            if not exchange:
                project._exchange = lambda one, other: False  # type: ignore[assignment]
            sys.addaudithook(count)
            again(folder, seed=1)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    status = os.waitpid(process, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


@pytest.mark.parametrize("exchange", [True, False])
def test_a_killed_run_leaves_one_whole_project(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills it at every step of the way, and looks at what is there."""
    paths = ("platformio.ini", "src/main.cpp", "lib/chain/src/chain.h", "lib/chain/src/chain.c")
    monkeypatch.setattr(project, "tree", lambda _, made: dict.fromkeys(paths, made.model))
    folder = projects.write(tmp_path / "p", "qemu_m4")
    old = projects.snapshot(folder)
    new = projects.snapshot(projects.write(tmp_path / "new", "qemu_m4", seed=1))
    steps = 1
    seen = []
    while killed_after(steps, folder, exchange):
        if not folder.exists():
            assert not exchange
            project._recover(folder)
        found = projects.snapshot(folder)
        assert found in (old, new)
        seen.append(found == new)
        again(folder)
        assert projects.snapshot(folder) == old
        steps += 1
    assert seen == sorted(seen)
    assert set(seen) == {False, True}
    assert projects.snapshot(folder) == new
    assert leftovers(folder) == ["new"]


def test_a_running_processes_stage_is_left_alone(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "qemu_m4")
    mine = tmp_path / f".p.tinygen-{os.getppid()}"
    dead = tmp_path / f".p.tinygen-{2**22 + 1}"
    mine.mkdir()
    dead.mkdir()
    again(folder)
    assert mine.is_dir()
    assert not dead.exists()


@pytest.mark.parametrize(
    ("board", "weight_bytes", "expected"),
    [
        ("esp32", 900_000, ""),
        ("esp32", 1_000_000, "huge_app.csv"),
        ("esp32c3", 1_000_000, "huge_app.csv"),
        ("esp32s3", 3_000_000, ""),
        ("nano33ble", 1_000_000, ""),
        ("qemu_m4", 1_000_000, ""),
    ],
)
def test_partition_table(board: str, weight_bytes: int, expected: str) -> None:
    assert project.partitions_for(boards.load(board), weight_bytes) == expected


@pytest.mark.parametrize("file", ["math", "string", "stdint", "Arduino", "time"])
def test_a_models_header_hides_no_other(file: str) -> None:
    """Its library is on the include path of all sources, before the C library's."""
    assert emit.c_identifier(file) == f"model_{file.lower()}"
