"""What a worker process gives up before it sees a stranger's bytes.

Everywhere: no core file, no growing file, few descriptors. On Linux (x86-64, ARM64), without root, also: no
socket, no opening of a file, no new process or program, no signal to another process, no way back. What the
kernel does not offer is left out: the limits of memory and time hold without it.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from contextlib import suppress

OPEN_FILES = 16
"""Descriptors that a worker may have: its socket, the file at hand, the standard ones, and some to spare."""

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38

DENIED = {
    "x86_64": (
        *(2, 85, 257, 437, 304),  # open, creat, openat, openat2, open_by_handle_at
        *(41, 42, 43, 49, 50, 53, 288),  # socket, connect, accept, bind, listen, socketpair, accept4
        *(57, 58, 59, 322),  # fork, vfork, execve, execveat
        *(62, 200, 129, 297, 424, 434, 438),  # kill, tkill, rt_(tg)sigqueueinfo, pidfd_…
        *(101, 310, 311, 312),  # ptrace, process_vm_readv, process_vm_writev, kcmp
        *(
            82,
            264,
            316,
            83,
            258,
            84,
            86,
            265,
            87,
            263,
            88,
            266,
        ),  # rename, mkdir, link, unlink …
        *(
            76,
            90,
            91,
            268,
            92,
            93,
            94,
            260,
            133,
            259,
            132,
            235,
            261,
            280,
        ),  # truncate, chmod, chown …
        *(155, 161, 165, 166, 272, 308, 428, 429, 430, 431, 432, 442),  # mounts and namespaces
        *(248, 249, 250, 298, 321, 323, 425, 426, 427),  # keys, perf, bpf, userfaultfd, io_uring
        *(141, 144, 203, 314),  # setpriority, sched_setscheduler, sched_setaffinity, sched_setattr
        *(175, 176, 313, 246, 320, 169, 167, 168, 170, 171),  # modules, kexec, reboot, swap, host name
    ),
    "aarch64": (
        *(56, 437, 265),
        *(198, 199, 200, 201, 202, 203, 242),
        *(221, 281),
        *(129, 130, 138, 240, 424, 434, 438),
        *(117, 270, 271, 272),
        *(38, 276, 34, 37, 35, 36),
        *(45, 52, 53, 54, 55, 33, 88),
        *(39, 40, 41, 51, 97, 268, 428, 429, 430, 431, 432, 442),
        *(217, 218, 219, 241, 280, 282, 425, 426, 427),
        *(140, 119, 122, 274),
        *(105, 106, 273, 104, 294, 142, 224, 225, 161, 162),
    ),
}
"""Numbers of the system calls that fail with EPERM, by machine; the kernel's unistd.h has their names."""

CLONE = {"x86_64": 56, "aarch64": 220}
CLONE_THREAD = 0x00010000
"""Allowed with this flag, for a new thread; libjpeg's decoding has one."""

CLONE3 = 435
"""Its flags are out of sight: it is said not to exist, so that the C library uses clone."""

ON_ITSELF = {"x86_64": (234, 302), "aarch64": (131, 261)}
"""tgkill, which `abort` needs, and prlimit64: allowed with the process itself, or 0, as first argument."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000
"""Numbers from here on are another set of the same calls."""


def give_up_privileges() -> None:
    """Drop what a decoder does not need; called in a worker, once, and not to be undone.

    A process of one thread is assumed: the filter holds for the calling thread and what it starts.
    """
    for name, limit in (("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_NOFILE", OPEN_FILES)):
        with suppress(ValueError, OSError):  # a limit that is lower already
            resource.setrlimit(getattr(resource, name), (limit, limit))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        program = _filter(platform.machine(), os.getpid())
        if program:
            libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(_Program.of(program)), 0, 0)


class _Program(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    @staticmethod
    def of(instructions: bytes) -> "_Program":
        return _Program(len(instructions) // 8, instructions)


LOAD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, JUMP_IF_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
"""Offsets within the kernel's `struct seccomp_data`."""


def _filter(machine: str, pid: int) -> bytes:
    """Return the filter as BPF instructions; nothing for a machine whose numbers are not known."""
    if machine not in DENIED:
        return b""
    deny, allow = SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, deny),
    ]
    for number in DENIED[machine]:
        code += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, deny)]
    code += [
        (JUMP_IF_EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | ENOSYS),
        (JUMP_IF_EQUAL, 0, 4, CLONE[machine]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_SET, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, allow),
        (RETURN, 0, 0, deny),
    ]
    for number in ON_ITSELF[machine]:
        code += [
            (JUMP_IF_EQUAL, 0, 5, number),
            (LOAD, 0, 0, FIRST_ARGUMENT),
            (JUMP_IF_EQUAL, 1, 0, pid),
            (JUMP_IF_EQUAL, 0, 1, 0),
            (RETURN, 0, 0, allow),
            (RETURN, 0, 0, deny),
        ]
    code.append((RETURN, 0, 0, allow))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def limit_memory_and_time(memory: int, seconds: float) -> None:
    """Let the system end this process where it goes beyond a limit; for one image, then called again.

    Args:
        memory: Bytes of address space.
        seconds: Of the processor, from now on. The clock on the wall gets six times as many.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime + seconds) + 1
    for name, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, until)):
        _, hard = resource.getrlimit(name)
        with suppress(ValueError, OSError):  # some systems have no such limit
            resource.setrlimit(name, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def address_space() -> int:
    """Return the bytes of address space that this process has; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 -- the workers have no use for pathlib
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
