"""A system-call filter: no new processes, no memory that belongs to no process (System V's, memfd,
message queues), and no calls that reach the kernel's machinery.

The filter is classic BPF, as seccomp(2) takes it, for bubblewrap's `--seccomp`. Threads stay
allowed. Every other way to make a process fails with EPERM, so that the limits of one process are
the limits of a sample. A limit on the number of processes (RLIMIT_NPROC) would not do, since the
kernel does not apply it to root. `clone3` fails as if it were missing (ENOSYS), since its flags lie
in memory, where a filter cannot read them. The C library then uses `clone`.

A program is a list of instructions (operation, jump if true, jump if false, operand). A jump counts
instructions from the next one: 0 continues, 1 skips one. The kernel runs the program at each system
call, over a struct with the call's number at byte 0, the architecture at 4 and the first argument
at 16.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000  # set in the numbers of x86's other table, which would go around this one
_CLONE3 = 435  # one number on every architecture since Linux 5.3

_OF_ALL = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "pidfd_open": 434, "pidfd_getfd": 438, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip
"""Numbers that are the same on every architecture."""
_TABLES: dict[str, tuple[int, int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        56,
        {
            "ptrace": 101, "fork": 57, "vfork": 58, "mount": 165, "umount2": 166, "unshare": 272,
            "setns": 308, "pivot_root": 155, "chroot": 161, "bpf": 321, "perf_event_open": 298,
            "keyctl": 250, "add_key": 248, "request_key": 249, "userfaultfd": 323,
            "process_vm_readv": 310, "process_vm_writev": 311, "kexec_load": 246,
            "init_module": 175, "finit_module": 313, "open_by_handle_at": 304,
            "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
            "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "msgget": 68,
            "mq_open": 240, "memfd_create": 319, "fanotify_init": 300, "kcmp": 312,
            **_OF_ALL,
        },
    ),
    "aarch64": (
        0xC00000B7,
        220,
        {
            "ptrace": 117, "mount": 40, "umount2": 39, "unshare": 97, "setns": 268,
            "pivot_root": 41, "chroot": 51, "bpf": 280, "perf_event_open": 241, "keyctl": 219,
            "add_key": 217, "request_key": 218, "userfaultfd": 282, "process_vm_readv": 270,
            "process_vm_writev": 271, "kexec_load": 104, "init_module": 105,
            "finit_module": 273, "open_by_handle_at": 265, "io_uring_setup": 425,
            "io_uring_enter": 426, "io_uring_register": 427,
            "shmget": 194, "shmat": 196, "shmctl": 195, "semget": 190, "msgget": 186,
            "mq_open": 180, "memfd_create": 279, "fanotify_init": 262, "kcmp": 272,
            **_OF_ALL,
        },
    ),
}  # fmt: skip
"""Machine -> (AUDIT_ARCH, number of clone, numbers of the forbidden calls). Source: the kernel's
tables."""


def filter_program(machine: str | None = None) -> bytes | None:
    """Return the filter for a machine (this one by default); None without a table for it."""
    found = _TABLES.get(machine or platform.machine())
    if found is None:
        return None
    architecture, clone, forbidden = found
    deny = _ERRNO | errno.EPERM
    code = [
        # numbers mean other calls on another architecture, such as 32-bit x86: kill
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQ, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_GE, 0, 1, _X32),
        (_RETURN, 0, 0, deny),
        (_JUMP_EQ, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in forbidden.values():
        code += [(_JUMP_EQ, 0, 1, number), (_RETURN, 0, 0, deny)]
    code += [
        # clone makes a thread if this flag is set, else a process
        (_JUMP_EQ, 0, 3, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, deny),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
