"""What a worker process gives up before it sees a stranger's bytes.

Everywhere: no core file, no growing file, few descriptors. On Linux (x86-64, ARM64), without root, also every
system call but some fifty that decoding needs: no socket, no opening of a file, no new process or program, no
signal to another process, no way back. What the kernel does not offer is left out: the limits of memory and
time hold without it.
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

ALLOWED = {
    "x86_64": (
        *(0, 1, 19, 20, 44, 45, 46, 47),  # read, write, readv, writev, sendto, recvfrom, sendmsg, recvmsg
        *(3, 5, 8, 32),  # close, fstat, lseek, dup
        *(9, 10, 11, 12, 25, 28),  # mmap, mprotect, munmap, brk, mremap, madvise
        *(13, 14, 15, 131),  # rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack
        *(24, 35, 38, 202, 230, 273, 334),  # sched_yield, nanosleep, setitimer, futex, clock_nanosleep …
        *(39, 98, 99, 100, 186, 204, 228, 318),  # getpid, getrusage, sysinfo, times, gettid, getrandom …
        *(60, 231),  # exit, exit_group
    ),
    "aarch64": (
        *(63, 64, 65, 66, 206, 207, 211, 212),
        *(57, 80, 62, 23),
        *(222, 226, 215, 214, 216, 233),
        *(134, 135, 139, 132),
        *(124, 101, 103, 98, 115, 99, 293),
        *(172, 165, 179, 153, 178, 123, 113, 278),
        *(93, 94),
    ),
}
"""Numbers of the system calls that a worker may use, by machine; all others fail with EPERM.

The kernel's unistd.h has their names.
"""

CONDITIONAL: dict[str, tuple[tuple[int, int, tuple[int, ...]], ...]] = {
    "x86_64": ((72, 1, (1, 2, 3, 1030)), (262, 3, (0x1000,))),
    "aarch64": ((25, 1, (1, 2, 3, 1030)), (79, 3, (0x1000,))),
}
"""Calls that are allowed where an argument has one of some values: number, which argument, values.

fcntl, to look at a descriptor and to copy it; newfstatat, with AT_EMPTY_PATH, of an open file alone.
"""

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
    if machine not in ALLOWED:
        return b""
    deny, allow = SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, deny),
        (JUMP_IF_EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | ENOSYS),
        (JUMP_IF_EQUAL, 0, 4, CLONE[machine]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_SET, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, allow),
        (RETURN, 0, 0, deny),
    ]
    conditions = [*CONDITIONAL[machine], *((number, 0, (pid, 0)) for number in ON_ITSELF[machine])]
    for number, argument, values in conditions:
        code += [(JUMP_IF_EQUAL, 0, 2 + 2 * len(values), number), (LOAD, 0, 0, FIRST_ARGUMENT + 8 * argument)]
        for value in values:
            code += [(JUMP_IF_EQUAL, 0, 1, value), (RETURN, 0, 0, allow)]
        code.append((RETURN, 0, 0, deny))
    for number in ALLOWED[machine]:
        code += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, allow)]
    code.append((RETURN, 0, 0, deny))
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
