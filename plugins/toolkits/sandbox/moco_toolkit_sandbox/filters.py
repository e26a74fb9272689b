"""The system calls that no program needs: a seccomp filter, as the bytes that the kernel takes."""

from __future__ import annotations

import errno
import platform
import struct

__all__ = ["KEYCTL", "system_calls"]

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_X32 = 0x40000000

# x86_64, aarch64; numbers above 400 are those of every architecture
_FORBIDDEN = {
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
}  # fmt: skip
_NO_MEMORY = {"memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194)}
"""Memory that no limit of a process counts: as if there were none."""
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_NEW_NAMESPACE = 0x7E020000
_FAMILIES = (1, 2, 10, 16)
"""Unix, IPv4, IPv6, netlink: those that a network namespace holds."""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7), "arm64": (1, 0xC00000B7)}

KEYCTL = {machine: _FORBIDDEN["keyctl"][column] for machine, (column, _) in _MACHINES.items()}
"""The number of the call that joins a new session keyring."""


def system_calls(machine: str = "") -> bytes:
    """Return the filter for a machine (default: this one); empty if it is of another kind than x86_64 or ARM.

    Forbidden are new namespaces and mounts, keyrings, tracing of other processes, sockets that a network namespace does
    not hold (AF_VSOCK), and memory that is no process's (memfd, System V): that last fails as if there were none.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        return b""
    column, architecture = _MACHINES[machine]
    out = [_op(_LOAD, _ARCHITECTURE), _op(_EQUAL, architecture, 1, 0), _fail(errno.EPERM), _op(_LOAD, _NUMBER)]
    if machine == "x86_64":  # the same calls under other numbers
        out += [_op(_AT_LEAST, _X32, 0, 1), _fail(errno.EPERM)]
    for names, number in ((_FORBIDDEN, errno.EPERM), (_NO_MEMORY, errno.ENOMEM)):
        for calls in names.values():
            out += [_op(_EQUAL, calls[column], 0, 1), _fail(number)]
    # its flags lie in memory, where no filter looks: the library falls back on clone
    out += [_op(_EQUAL, _CLONE3[column], 0, 1), _fail(errno.ENOSYS)]
    out += [_op(_EQUAL, _CLONE[column], 0, 4), _op(_LOAD, _FIRST_ARGUMENT), _op(_ANY_BIT, _NEW_NAMESPACE, 0, 1)]
    out += [_fail(errno.EPERM), _op(_RETURN, _ALLOW)]
    out += [_op(_EQUAL, _SOCKET[column], 0, len(_FAMILIES) + 2), _op(_LOAD, _FIRST_ARGUMENT)]
    out += [_op(_EQUAL, family, len(_FAMILIES) - place, 0) for place, family in enumerate(_FAMILIES)]
    out += [_fail(errno.EAFNOSUPPORT), _op(_RETURN, _ALLOW)]
    return b"".join(out)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _fail(number: int) -> bytes:
    return _op(_RETURN, _ERRNO | number)
