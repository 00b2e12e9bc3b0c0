"""The system calls that untrusted code may not make, as a seccomp filter.

The filter is a classic BPF program, assembled here by hand: libseccomp is not
everywhere, and its absence must not weaken the sandbox. A refused call fails with
EPERM, so that code sees an ordinary PermissionError; calls newer than this list, and
clone3, whose flags a filter cannot read, do not exist (ENOSYS); a foreign architecture
or an x32 number kills the process. See linux/seccomp.h and linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_LOAD, _AND, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_FIRST_UNKNOWN = 450  # both tables are the same from 424 on; this list ends at 449
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, NO_NEW_PRIVS = 1, 22, 38

# Names as in unistd.h, with the x86_64 and the aarch64 number (None: no such call).
_REFUSED = {
  # Signals and other processes: T and S run under the same uid.
  "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
  "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
  "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
  "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
  "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
  "setpriority": (141, 140), "ioprio_set": (251, 30), "migrate_pages": (256, 238),
  "move_pages": (279, 239), "sched_setparam": (142, 118),
  "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122),
  "sched_setattr": (314, 274),
  # New processes and programs.
  "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
  "personality": (135, 92), "setsid": (112, 157), "setpgid": (109, 154),
  # The network, and what outlives a process.
  "socket": (41, 198), "connect": (42, 203),
  "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
  "setsockopt": (54, 208), "sendmsg": (46, 211), "sendmmsg": (307, 269),
  "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
  "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
  "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
  "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_notify": (244, 184),
  # What stays on a folder when its files are gone.
  "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
  "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
  # Mounts and namespaces.
  "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
  "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
  "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
  "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
  "mount_setattr": (442, 442), "name_to_handle_at": (303, 264),
  "open_by_handle_at": (304, 265),
  # Large kernel surfaces that no benchmark needs.
  "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
  "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
  "io_uring_register": (427, 427), "io_setup": (206, 0), "io_submit": (209, 2),
  "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
  "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "quotactl": (179, 60),
  "quotactl_fd": (443, 443), "modify_ldt": (154, None), "iopl": (172, None),
  "ioperm": (173, None), "acct": (163, 89), "syslog": (103, 116),
  "init_module": (175, 105), "delete_module": (176, 106), "finit_module": (313, 273),
  "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
  "swapon": (167, 224), "swapoff": (168, 225), "settimeofday": (164, 170),
  "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
  "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58),
  "mbind": (237, 235), "set_mempolicy": (238, 237), "lookup_dcookie": (212, 18),
}  # fmt: skip
# Of files that no mount hides: what Landlock leaves open, always or before version 3.
# openat2's flags a filter cannot read.
_REFUSED_WITHOUT_MOUNTS = {
  "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
  "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
  "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
  "utimensat": (280, 88), "openat2": (437, 437),
}  # fmt: skip
# open and openat: before version 3 O_TRUNC needs no right unless a file is opened for
# writing, which is one of the two bits of O_ACCMODE.
_OPENS = ((2, None, 1), (257, 56, 2))
_ACCESS, _TRUNCATE = 3, 0o1000
# Calls that one argument decides: (x86_64, aarch64, which argument).
_CLONE, _CLONE3 = (56, 220, 0), (435, 435, 0)
_PRLIMIT, _PRCTL = (302, 261, 0), (157, 167, 0)
_FCNTL, _IOCTL = (72, 25, 1), (16, 29, 1)
# asyncio wakes itself through a pair of sockets; no other is in reach of these two.
_SOCKETPAIR, _SENDTO = (53, 199, 0), (44, 206, 5)
_AF_UNIX = 1
_FCNTL_OWNERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to anyone
_IOCTL_ALLOWED = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)  # isatty, FIONREAD, FIO*

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
  return struct.pack("=HBBI", code, if_true, if_false, value)


def program(machine: str | None = None, *, mounts: bool = True) -> bytes:
  """Return the filter of a machine (default: this one); KeyError if it is unknown.

  Args:
    machine: as `platform.machine` has it.
    mounts: whether they hide the files of others.
  """
  column, architecture = _MACHINES[machine or platform.machine()]
  refuse = _instruction(_RETURN, _ERRNO | errno.EPERM)
  unknown = _instruction(_RETURN, _ERRNO | errno.ENOSYS)
  allow = _instruction(_RETURN, _ALLOW)
  kill = _instruction(_RETURN, _KILL)
  out = [
    _instruction(_LOAD, _ARCHITECTURE),
    _instruction(_JEQ, architecture, 1, 0) + kill,
    _instruction(_LOAD, _NUMBER),
  ]
  if column == 0:
    out.append(_instruction(_JGE, _X32, 0, 1) + kill)
  out.append(_instruction(_JGE, _FIRST_UNKNOWN, 0, 1) + unknown)
  out.append(_instruction(_JEQ, _CLONE3[column], 0, 1) + unknown)
  for numbers in (_REFUSED if mounts else _REFUSED | _REFUSED_WITHOUT_MOUNTS).values():
    if numbers[column] is not None:
      out.append(_instruction(_JEQ, numbers[column], 0, 1) + refuse)

  def decide(call, tests: bytes) -> None:
    """Add tests of the low half of an argument of a call; they end in a return."""
    body = _instruction(_LOAD, _ARGUMENTS + 8 * call[2]) + tests
    out.append(_instruction(_JEQ, call[column], 0, len(body) // 8) + body)

  if not mounts:
    opening = _instruction(_AND, _TRUNCATE | _ACCESS)
    for flags in (_TRUNCATE, _TRUNCATE | _ACCESS):  # neither bit of them, or both
      opening += _instruction(_JEQ, flags, 0, 1) + refuse
    for call in _OPENS:
      if call[column] is not None:
        decide(call, opening + allow)
  decide(_CLONE, _instruction(_JSET, _CLONE_THREAD, 0, 1) + allow + refuse)
  decide(_PRLIMIT, _instruction(_JEQ, 0, 0, 1) + allow + refuse)
  decide(_SOCKETPAIR, _instruction(_JEQ, _AF_UNIX, 0, 1) + allow + refuse)
  decide(_SENDTO, _instruction(_JEQ, 0, 0, 1) + allow + refuse)  # length of an address
  decide(_PRCTL, _instruction(_JEQ, _PR_SET_PDEATHSIG, 0, 1) + refuse + allow)
  decide(
    _FCNTL,
    b"".join(_instruction(_JEQ, n, 0, 1) + refuse for n in _FCNTL_OWNERS) + allow,
  )
  decide(
    _IOCTL,
    b"".join(_instruction(_JEQ, n, 0, 1) + allow for n in _IOCTL_ALLOWED) + refuse,
  )
  return b"".join(out) + allow


libc = ctypes.CDLL(None, use_errno=True)  # once: loading it costs a fork 0.4 ms


def prctl(option: int, *arguments) -> None:
  """Call Linux's prctl; OSError when it fails."""
  padded = [*arguments, 0, 0, 0, 0][:4]
  if libc.prctl(option, *(ctypes.c_ulong(x) for x in padded)):
    number = ctypes.get_errno()
    raise OSError(number, f"prctl({option}): {os.strerror(number)}")


class Filter:
  """The filter, laid out in memory once so that a fork only has to install it.

  Args:
    mounts: see `program`.
  """

  def __init__(self, *, mounts: bool = True):
    data = program(mounts=mounts)
    self._code = ctypes.create_string_buffer(data, len(data))
    header = struct.pack("@HP", len(data) // 8, ctypes.addressof(self._code))
    self._header = ctypes.create_string_buffer(header, len(header))

  def install(self) -> None:
    """Apply the filter to this process for ever; OSError if the kernel refuses."""
    prctl(NO_NEW_PRIVS, 1)
    prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(self._header))


def missing() -> str | None:
  """Return why seccomp does not work here (tried in a child); None if it works."""
  if sys.platform != "linux":
    return f"{sys.platform} has none"
  if platform.machine() not in _MACHINES:
    return f"no filter for {platform.machine()}"
  child = os.fork()
  if not child:
    try:
      Filter().install()
      os.kill(os.getpid(), 0)
    except PermissionError as error:
      os._exit(0 if error.errno == errno.EPERM and "prctl" not in str(error) else 1)
    finally:
      os._exit(1)
  return "the kernel refuses a filter" if os.waitpid(child, 0)[1] else None
