"""Every escape that was tried: files, network, other processes, privileges."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from sandboxed_programs import isolated, run

from moco_toolkit_sandbox.filters import system_calls

ARM = os.uname().machine in ("aarch64", "arm64")


@isolated
def test_home_and_other_files_cannot_be_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("token")
    secret.chmod(0o644)
    for path in (
        secret,
        Path.home(),
        Path(__file__),
        Path("/etc/passwd"),
        Path("/etc/shadow"),
        Path("/root"),
        Path("/home"),
    ):
        assert "FileNotFoundError" in run(f"import os; os.stat({str(path)!r})").detail, path


@isolated
def test_nothing_outside_the_temporary_folder_can_be_written() -> None:
    for path in ("/x", "/usr/lib/x", "/proc/sys/kernel/hostname", "/dev/x", "/etc/x"):
        outcome = run(f"open({path!r}, 'w').write('x')")
        assert outcome.status == "failed", path
        assert "Error" in outcome.detail
    assert run("open('/tmp/x', 'w').write('x'); assert open('/tmp/x').read() == 'x'").passed


@isolated
def test_every_program_starts_in_an_empty_folder() -> None:
    program = "import os; assert os.listdir('/tmp') == os.listdir('.') == []; open('left', 'w').close()"
    assert run(program).passed
    assert run(program).passed


@isolated
def test_there_is_no_network() -> None:
    assert "OSError" in run("import socket; socket.create_connection(('1.1.1.1', 53), 2)").detail
    here = subprocess.run(["true"], check=False)
    assert here.returncode == 0
    program = "import socket; raise SystemExit(','.join(n for _, n in socket.if_nameindex()))"
    assert run(program).detail.startswith(("SystemExit: lo ", "SystemExit:  ", "SystemExit (", "SystemExit: (line"))


@isolated
def test_local_services_cannot_be_reached() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert outcome.status == "failed"


@isolated
def test_parent_and_other_processes_are_out_of_reach() -> None:
    program = """
import os, signal
for pid in (os.getppid(), 1, -1, {parent}):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
"""
    run(program.replace("{parent}", str(os.getpid())))
    assert run("pass").passed  # this process is alive, and so is the next sandbox
    seen = run("import os; raise SystemExit(str(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())))").detail
    assert str(os.getpid()) not in seen.split("(line")[0].replace("[", " ").replace("]", " ").replace(",", " ").split()


@isolated
def test_environment_holds_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCO_TEST_SECRET", "hunter2")
    program = "import os; raise SystemExit(repr(dict(os.environ)) + open('/proc/self/environ').read())"
    assert "hunter2" not in run(program).detail
    assert "hunter2" not in run("raise SystemExit(open('/proc/1/environ').read())").detail


@isolated
def test_symbolic_links_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("token")
    outcome = run(f"import os; os.symlink({str(secret)!r}, 'link'); open('link').read()")
    assert "FileNotFoundError" in outcome.detail
    home = "'/'.join(['/proc/1', 'root', 'root'])"  # the first process's view of the superuser's home
    outcome = run(f"import os; os.symlink({home}, 'link'); raise SystemExit(os.listdir('link'))")
    assert outcome.status == "failed"
    assert "SystemExit: [" not in outcome.detail or "SystemExit: []" in outcome.detail


@isolated
def test_privileges_are_gone() -> None:
    status = run("raise SystemExit(open('/proc/self/status').read().split('CapEff:')[1].split()[0])").detail
    assert "0000000000000000" in status
    assert run("import os; assert os.getuid() != 0 and os.geteuid() != 0; os.setuid(0)").status == "failed"
    assert run("import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1").passed


@isolated
def test_there_is_no_shell_and_no_other_program() -> None:
    assert "FileNotFoundError" in run("import subprocess; subprocess.run(['sh', '-c', 'true'])").detail


@isolated
def test_keys_of_the_caller_cannot_be_read() -> None:
    program = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfor call in (248, 249, 250):\n"
    program += "    assert libc.syscall(call, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 1"
    assert run(program.replace("(248, 249, 250)", "(217, 218, 219)") if ARM else program).passed
    # a session keyring of its own, even for what might find another way in
    names = "raise SystemExit(open('/proc/keys').read() if __import__('os').path.exists('/proc/keys') else '')"
    assert "moco-secret" not in run(names).detail


@isolated
def test_memory_that_belongs_to_no_process_cannot_be_had() -> None:
    held = "import os\nfor _ in range(200):\n    os.write(os.memfd_create('x'), b'x' * (15 << 20))"
    assert run(held).status == "memory"
    shared = "import ctypes\nassert ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) == -1"
    assert run(shared).passed


@isolated
def test_no_namespace_and_no_mount_can_be_made() -> None:
    program = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    assert run(program + "assert libc.unshare(0x10000000 | 0x20000) == -1 and ctypes.get_errno() == 1").passed
    assert run(program + "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1").passed
    clone = f"assert libc.syscall({220 if ARM else 56}, 0x10000000 | 17, 0, 0, 0, 0) == -1"
    assert run(program + clone).passed


@isolated
def test_sockets_that_no_network_namespace_holds_cannot_be_made() -> None:
    for family in ("AF_VSOCK", "AF_ALG", "AF_PACKET"):
        program = f"import socket\nsocket.socket(getattr(socket, {family!r}), socket.SOCK_STREAM)"
        assert "Error" in run(program).detail, family
    assert run("import socket\nsocket.socketpair(); socket.socket(socket.AF_INET, socket.SOCK_DGRAM)").passed


def test_the_filter_is_made_for_the_machines_it_knows() -> None:
    for name in ("x86_64", "aarch64"):
        assert len(system_calls(name)) % 8 == 0 and len(system_calls(name)) > 300
    assert system_calls("riscv64") == b""
