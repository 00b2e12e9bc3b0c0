"""Runs the filter in an interpreter of its own, for both architectures."""

import struct

import pytest

from phi1_jax.sandbox.inside import seccomp

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(machine, number: int, *arguments: int, architecture=None, mounts=True) -> int:
  data = struct.pack(
    "<IIQ6Q",
    number,
    architecture or ARCHITECTURES[machine],
    0,
    *[*arguments, 0, 0, 0, 0, 0, 0][:6],
  )
  code = seccomp.program(machine, mounts=mounts)
  assert len(code) // 8 < 4096  # BPF_MAXINSNS
  at, accumulator = 0, 0
  while True:
    operation, if_true, if_false, value = struct.unpack_from("=HBBI", code, 8 * at)
    at += 1
    if operation == 0x20:
      (accumulator,) = struct.unpack_from("<I", data, value)
    elif operation == 0x06:
      return value
    elif operation == 0x54:
      accumulator &= value
    else:
      holds = {
        0x15: accumulator == value,
        0x35: accumulator >= value,
        0x45: bool(accumulator & value),
      }[operation]
      at += if_true if holds else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_refused_calls(machine):
  column = list(ARCHITECTURES).index(machine)
  for name, numbers in seccomp._REFUSED.items():
    if numbers[column] is not None:
      assert run(machine, numbers[column]) == EPERM, name


@pytest.mark.parametrize(
  ("machine", "opens", "calls"),
  [
    (
      "x86_64",
      ((2, 0), (257, 1)),
      (76, 90, 91, 92, 93, 94, 132, 235, 260, 261, 268, 280),
    ),
    ("aarch64", ((56, 1),), (45, 52, 53, 54, 55, 88)),
  ],
)
def test_what_changes_files_needs_mounts(machine, opens, calls):
  assert [run(machine, n) for n in calls] == [ALLOW] * len(calls)
  assert [run(machine, n, mounts=False) for n in calls] == [EPERM] * len(calls)
  for number, ahead in opens:
    for flags in (0, 1, 2, 3):
      for more, allowed in ((0, True), (0o1000, flags in (1, 2))):
        given = [0] * ahead + [0, 0o2000000 | flags | more]
        verdict = ALLOW if allowed else EPERM
        assert run(machine, number, *given, mounts=False) == verdict
        assert run(machine, number, *given) == ALLOW


@pytest.mark.parametrize(
  ("machine", "read", "clone", "fcntl", "ioctl", "prlimit"),
  [("x86_64", 0, 56, 72, 16, 302), ("aarch64", 63, 220, 25, 29, 261)],
)
def test_arguments_decide(machine, read, clone, fcntl, ioctl, prlimit):
  assert run(machine, read) == ALLOW
  assert run(machine, clone, 0x3D0F00) == ALLOW  # a thread, as glibc makes it
  assert run(machine, clone, 17) == EPERM  # SIGCHLD: a process
  assert run(machine, 435) == ENOSYS  # clone3
  assert run(machine, 460) == ENOSYS
  assert run(machine, fcntl, 3, 1) == ALLOW  # F_GETFD
  assert run(machine, fcntl, 3, 8) == EPERM  # F_SETOWN
  assert run(machine, ioctl, 0, 0x5401) == ALLOW  # TCGETS
  assert run(machine, ioctl, 0, 0x5412) == EPERM  # TIOCSTI
  assert run(machine, prlimit, 0) == ALLOW
  assert run(machine, prlimit, 1) == EPERM


@pytest.mark.parametrize(
  ("machine", "pair", "send", "xattr"),
  [("x86_64", 53, 44, (188, 189, 190)), ("aarch64", 199, 206, (5, 6, 7))],
)
def test_sockets_reach_only_their_pair(machine, pair, send, xattr):
  assert run(machine, pair, 1) == ALLOW  # AF_UNIX
  assert run(machine, pair, 2) == EPERM
  assert run(machine, send, 3, 0, 1, 0, 0, 0) == ALLOW
  assert run(machine, send, 3, 0, 1, 0, 0x7F00, 16) == EPERM  # to an address
  assert [run(machine, number) for number in xattr] == [EPERM] * 3


def test_foreign_numbers_kill():
  assert run("x86_64", 0x40000000 + 62) == KILL  # x32
  assert run("x86_64", 3, architecture=0x40000003) == KILL  # i386
  assert run("aarch64", 3, architecture=0x40000028) == KILL  # arm
