"""The command lines that isolate a program: bubblewrap, a container runtime, or limits alone."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import attrs

from moco_toolkit_sandbox.outcome import Limits

__all__ = ["ENVIRONMENT", "Command", "bubblewrap", "container", "limits_only", "rlimits", "stub"]

ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "TMPDIR": "/tmp",
    "TZ": "UTC",
}
"""All that a program sees of an environment; the hash seed is fixed so that sets have one order."""

_FLAGS = ("-s", "-P", "-B", "-X", "utf8", "-W", "ignore")


@attrs.frozen(kw_only=True)
class Command:
    """How to start the stub: arguments, environment, and the user id it must change to (0 keeps the one it has)."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    uid: int = 0


def stub() -> str:
    """Return the source of the first code inside the sandbox."""
    return files("moco_toolkit_sandbox").joinpath("stub.py").read_text(encoding="utf-8")


def rlimits(limits: Limits) -> dict[str, int]:
    """Return the limits that the kernel keeps for every single process."""
    return {
        "RLIMIT_AS": limits.memory,
        "RLIMIT_CPU": math.ceil(limits.seconds) + 1,
        "RLIMIT_FSIZE": limits.file_size,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
        "RLIMIT_STACK": 64 << 20,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }


def _libraries() -> list[str]:
    """Mount the shared libraries of the system, and nothing else of it: no shell, no programs, no configuration."""
    out: list[str] = []
    for name in ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/lib", "/lib32", "/lib64", "/libx32"):
        path = Path(name)
        if path.is_symlink():
            out += ["--symlink", os.readlink(path), name]
        elif path.is_dir():
            out += ["--ro-bind", name, name]
    out += ["--ro-bind-try", "/nix/store", "/nix/store"]
    out += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    out += ["--ro-bind-try", "/usr/share/zoneinfo", "/usr/share/zoneinfo"]
    return out


def _open_folders(*names: str) -> list[str]:
    """Make folders that every user id may enter: bubblewrap makes the parents of a mount for its own user alone."""
    return [word for name in names for word in ("--perms", "0755", "--dir", name)]


def _interpreter() -> tuple[str, list[str]]:
    """Return the interpreter's path inside the sandbox and the mounts it needs.

    One that lives outside the system folders (in a home, say) is mounted under ``/python``: neither the name nor the
    neighbours of its folder are visible.
    """
    prefix, program = Path(sys.base_prefix).resolve(), Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if prefix == Path("/usr"):
        return str(program), ["--ro-bind", str(program), str(program)]
    mounts = _open_folders("/python", "/python/bin", "/python/lib", "/python/lib64")
    mounts += ["--ro-bind", str(program), f"/python/bin/{program.name}"]
    mounts += ["--ro-bind", str(prefix / "lib" / version), f"/python/lib/{version}"]
    mounts += ["--ro-bind-try", f"{prefix}/lib64/{version}", f"/python/lib64/{version}"]
    for library in sorted((prefix / "lib").glob("libpython*")):
        mounts += ["--ro-bind", str(library), f"/python/lib/{library.name}"]
    return f"/python/bin/{program.name}", mounts


def bubblewrap(
    program: str, limits: Limits, *, privileged: bool, nested: bool, proc: bool, packages: Sequence[str] = ()
) -> Command:
    """Isolate with bubblewrap: own process, network, IPC, host-name and mount namespaces over an empty root.

    ``privileged`` starts as the superuser, without a user namespace, and the stub changes to a user id that exists
    nowhere, so that the kernel counts its processes; otherwise bubblewrap makes a user namespace. ``nested`` leaves out
    the ban on further user namespaces, for bubblewrap before 0.8. ``proc`` mounts /proc, which some containers forbid.
    """
    python, mounts = _interpreter()
    arguments = [program, "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    arguments += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if privileged:
        arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
        arguments += [] if nested else ["--disable-userns"]
    arguments += [*_open_folders("/usr", "/usr/share", "/etc", "/packages"), *_libraries(), *mounts]
    for number, folder in enumerate(packages):
        arguments += ["--ro-bind", os.path.abspath(folder), f"/packages/{number}"]
    arguments += ["--proc", "/proc"] if proc else ["--dir", "/proc"]
    # every writable place is bounded: /dev and / would be memory without a limit
    arguments += ["--dev", "/dev", "--perms", "1777", "--size", str(limits.disk), "--tmpfs", "/dev/shm"]
    arguments += ["--remount-ro", "/dev", "--perms", "1777", "--size", str(limits.disk), "--tmpfs", "/tmp"]
    arguments += ["--remount-ro", "/", "--chdir", "/tmp"]
    environment = dict(ENVIRONMENT)
    if packages:
        environment["PYTHONPATH"] = ":".join(f"/packages/{i}" for i in range(len(packages)))
    if python.startswith("/python/"):
        environment["LD_LIBRARY_PATH"] = "/python/lib"
    for name, value in sorted(environment.items()):
        arguments += ["--setenv", name, value]
    arguments += ["--", python, *_FLAGS, "-c", stub()]
    # 1e9 and above: ids that no account has; one per program, so that programs do not share a count of processes
    uid = 1_000_000_000 + int.from_bytes(os.urandom(4), "big") % 1_000_000_000 if privileged else 0
    return Command(arguments=tuple(arguments), environment={"PATH": "/usr/bin:/bin"}, uid=uid)


def container(runtime: str, image: str, name: str, limits: Limits) -> Command:
    """Isolate with a container runtime (docker, podman): no network, read-only root, no capabilities."""
    arguments = [runtime, "run", "--rm", "--interactive", "--name", name, "--network", "none", "--read-only"]
    arguments += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65534:65534"]
    arguments += ["--memory", str(limits.memory), "--memory-swap", str(limits.memory)]
    arguments += ["--pids-limit", str(limits.processes), "--ipc", "private", "--hostname", "sandbox"]
    arguments += ["--tmpfs", f"/tmp:rw,size={limits.disk},mode=1777", "--workdir", "/tmp", "--log-driver", "none"]
    for key, value in sorted(ENVIRONMENT.items()):
        if key != "PATH":  # the image knows where its interpreter is
            arguments += ["--env", f"{key}={value}"]
    arguments += ["--entrypoint", "python3", image, *_FLAGS, "-c", stub()]
    # the client needs to find its server: these four are what docker and podman look at
    passed = ("PATH", "HOME", "DOCKER_HOST", "XDG_RUNTIME_DIR")
    return Command(arguments=tuple(arguments), environment={k: os.environ[k] for k in passed if k in os.environ})


def limits_only(folder: str) -> Command:
    """No isolation: a clean environment and a temporary folder; the stub sets the kernel's limits."""
    environment = {**ENVIRONMENT, "HOME": folder, "TMPDIR": folder}
    return Command(arguments=(sys.executable, *_FLAGS, "-c", stub()), environment=environment)
