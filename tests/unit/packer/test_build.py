"""What stops a build early, what a person sees, and that dist/ never holds anything half made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from packer import build, preflight
from packer.accelerator import emulation, kvm_refusal, parse_qemu_version
from packer.backports import apt_options, sources
from packer.errors import BuildError
from packer.machine import user_data
from packer.mirrors import Mirrors
from packer.progress import Progress, last_lines, run_logged, spoken
from packer.wheels import platforms

REPOSITORY = Path(__file__).parents[3]


def test_publish_replaces_the_release_before(tmp_path: Path) -> None:
    dist, made = tmp_path / "dist", tmp_path / "made"
    dist.mkdir()
    made.mkdir()
    for name in ("pacs-appliance-0.9.ova", "pacs-appliance-0.9.qcow2", "SHA256SUMS", "notes.txt"):
        (dist / name).write_text("old")
    files = [made / "pacs-appliance-1.0.ova", made / "SHA256SUMS"]
    for path in files:
        path.write_text("new")
    build.publish(files, dist)
    found = {path.name: path.read_text() for path in dist.iterdir()}
    assert found == {"pacs-appliance-1.0.ova": "new", "SHA256SUMS": "new", "notes.txt": "old"}


def test_publish_that_fails_leaves_the_release_before(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "pacs-appliance-0.9.ova").write_text("old")
    first = tmp_path / "pacs-appliance-1.0.ova"
    first.write_text("new")
    with pytest.raises(FileNotFoundError):
        build.publish([first, tmp_path / "SHA256SUMS"], dist)
    assert [path.name for path in dist.iterdir()] == ["pacs-appliance-0.9.ova"]


def test_two_builds_in_one_folder(tmp_path: Path) -> None:
    with build._alone(tmp_path), pytest.raises(BuildError, match="Another build"), build._alone(tmp_path):
        pass


def test_a_build_that_can_not_start_says_what_to_do(tmp_path: Path) -> None:
    """Without Packer on the PATH: stops in its first stage, leaves nothing in dist/."""
    tools = tmp_path / "bin"
    tools.mkdir()
    preflight.check_tools()
    for tool in (*preflight.TOOLS, "git", "fakeroot"):
        if where := shutil.which(tool):
            (tools / tool).symlink_to(where)
    # Not through main(): check_tools adds /usr/sbin, where no system keeps Packer.
    answer = subprocess.run(
        [sys.executable, "-m", "packer.build", "--build", tmp_path / "build", "--dist", tmp_path / "dist"],
        cwd=REPOSITORY, env={"PATH": str(tools), "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 1
    assert "Packer is not there." in answer.stderr
    assert "Install Packer 1.6.6 or newer" in answer.stderr
    assert not (tmp_path / "dist").exists()


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "TOOLS", ("sh", "no-such-tool"))
    with pytest.raises(BuildError, match=r"no-such-tool.*ensure-debian"):
        preflight.check_tools()


@pytest.mark.parametrize(
    ("says", "remedy"),
    [("Packer v1.6.5", "too old"), ("packer 2.9.6 (cracklib)", "not HashiCorp's")],
)
def test_another_packer(says: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "packer"
    fake.write_text(f"#!/bin/sh\necho '{says}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BuildError, match=remedy):
        preflight.packer_version()


def test_a_new_packer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "packer"
    fake.write_text("#!/bin/sh\necho 'Packer v1.11.2'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert preflight.packer_version() >= preflight.FIRST_PACKER_WITH_PLUGINS


def test_room_is_counted_by_file_system(tmp_path: Path) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    preflight.check_space({tmp_path / "a": free_bytes // 3, tmp_path / "b" / "c": free_bytes // 3})
    with pytest.raises(BuildError, match="Not enough room"):
        preflight.check_space({tmp_path / "a": free_bytes * 2 // 3, tmp_path / "b" / "c": free_bytes * 2 // 3})


def test_version_and_date() -> None:
    assert build.read_version()
    assert build.source_date_epoch() > 1_700_000_000


def test_the_date_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234")
    assert build.source_date_epoch() == 1234


def test_a_failed_command_shows_its_last_words_and_what_to_do(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(BuildError) as caught:
        run_logged(["sh", "-c", "echo first; echo the reason >&2; exit 3"], log, remedy="Do this.")
    assert "the reason" in caught.value.what
    assert str(log) in caught.value.what
    assert caught.value.remedy == "Do this."


def test_an_interrupted_command_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"

    def interrupt(_seconds: float) -> None:
        if pid_file.exists() and pid_file.read_text().strip():
            raise KeyboardInterrupt

    monkeypatch.setattr("packer.progress.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_logged(["sh", "-c", f"sleep 60 & echo $! >{pid_file}; wait"], tmp_path / "log", remedy="")
    monkeypatch.undo()
    child = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_heartbeat_says_what_is_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("packer.progress.HEARTBEAT_S", 0.1)
    line = "2026-11-22T00:12:59Z:     qemu.appliance: TASK [base : Install packages] ********"
    run_logged(["sh", "-c", f"echo '{line}'; sleep 1"], tmp_path / "log", remedy="")
    assert "s: TASK [base : Install packages]\n" in capsys.readouterr().out


def test_a_terminated_build_ends_what_it_started(tmp_path: Path) -> None:
    """Stopped in its first minute, as CI stops a job: the child goes too, and the exit code says so."""
    child = tmp_path / "child"
    code = f"""
import pathlib, packer.build as build, packer.progress as progress
command = ["sh", "-c", "echo $$ >{child}; exec sleep 60"]
build._build = lambda *_: progress.run_logged(command, pathlib.Path("{tmp_path}/log"), remedy="")
raise SystemExit(build.main(["--build", "{tmp_path}/build"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not (child.exists() and child.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Interrupted." in stderr
    deadline = time.monotonic() + 20
    while _lives(int(child.read_text())) and time.monotonic() < deadline:  # a busy machine takes its time to bury it
        time.sleep(0.05)
    assert not _lives(int(child.read_text()))


def test_stages_are_counted_and_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(2, tmp_path)
    for name in ("one", "two"):
        with progress.stage(name):
            pass
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["[1/2] one …", "[1/2] one … 0 s", "[2/2] two …", "[2/2] two … 0 s"]


def test_durations_as_spoken() -> None:
    assert [spoken(seconds) for seconds in (0.2, 41.4, 60, 185)] == ["0 s", "41 s", "1 min 00 s", "3 min 05 s"]


def test_last_lines_are_free_of_terminal_codes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n\x1b[1;32mtwo\x1b[0m\n\n  three\rfour\n")
    assert last_lines(log, 3) == ["two", "three", "four"]


def test_qemu_versions() -> None:
    assert parse_qemu_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)") == (7, 2, 22)
    assert emulation((7, 2, 22), "x").accel == "tcg,thread=single"
    assert emulation((8, 0, 0), "x").accel == "tcg,thread=multi"
    assert emulation((10, 0, 2), "x").accel == "tcg,thread=multi"


def test_kvm_without_a_device(tmp_path: Path) -> None:
    assert kvm_refusal(tmp_path / "vmlinuz", tmp_path / "kvm") == f"no {tmp_path / 'kvm'}"


def test_kvm_is_not_believed_in_for_its_device_alone(tmp_path: Path) -> None:
    """A device that opens, and a kernel that says nothing: no KVM."""
    device, kernel = tmp_path / "kvm", tmp_path / "vmlinuz"
    device.touch()
    kernel.write_bytes(bytes(4096))
    started = time.monotonic()
    assert kvm_refusal(kernel, device, limit_s=3) is not None
    assert time.monotonic() - started < 20


def test_backports_leave_the_hosts_apt_alone(tmp_path: Path) -> None:
    lines = sources(Mirrors("http://a/debian", "http://a/security")).splitlines()
    assert lines[-1].endswith("http://a/debian bookworm-backports main")
    assert all(line.startswith("deb [signed-by=/usr/share/keyrings/") for line in lines)
    settings = dict(option.split("=", 1) for option in apt_options(tmp_path))
    assert settings["Dir::Etc::sourceparts"] == "-"
    assert all(settings[key].startswith(str(tmp_path)) for key in ("Dir::Etc::sourcelist", "Dir::State::lists"))


def test_the_seed_begins_as_cloud_init_wants_it() -> None:
    text = user_data("ssh-ed25519 AAAA builder\n")
    assert text.startswith("#cloud-config\n")
    assert '"ssh-ed25519 AAAA builder"' in text


def test_wheels_for_every_older_glibc() -> None:
    names = platforms()
    assert {"manylinux_2_41_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64"} <= set(names)
    assert "manylinux_2_42_x86_64" not in names


def test_nothing_here_needs_the_service() -> None:
    """The build must not drag the service's packages in. It shares the pure modules that know an upgrade file, and the
    machine's settings, which are the OVF's properties."""
    shared = {
        "pacs", "pacs.errors", "pacs.machine", "pacs.machine.firewall_policy", "pacs.machine.firewall_values",
        "pacs.machine.machine_settings", "pacs.machine.setting_values", "pacs.machine.update_sources",
        "pacs.model", "pacs.model.addresses", "pacs.model.update_window", "pacs.model.upgrade",
    }  # fmt: skip
    code = (
        "import sys, packer.build; "
        f"sys.exit(any(name.split('.')[0] == 'pacs' and name not in {shared} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ}, check=False).returncode == 0
