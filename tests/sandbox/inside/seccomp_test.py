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
  assert run(machine, 435) == run(machine, 460) == ENOSYS  # clone3, and a newer one


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
  ("call", "x86_64", "aarch64", "allowed", "refused"),
  [
    ("read", 0, 63, (), None),
    ("clone", 56, 220, (0x3D0F00,), (17,)),  # a thread, as glibc makes it; a process
    ("fcntl", 72, 25, (3, 1), (3, 8)),  # F_GETFD, F_SETOWN
    ("ioctl", 16, 29, (0, 0x5401), (0, 0x5412)),  # TCGETS, TIOCSTI
    ("prlimit", 302, 261, (0,), (1,)),
    ("socketpair", 53, 199, (1,), (2,)),  # AF_UNIX
    ("sendto", 44, 206, (3, 0, 1), (3, 0, 1, 0, 0x7F00, 16)),  # to an address
    ("setxattr", 188, 5, None, ()),
    ("lsetxattr", 189, 6, None, ()),
    ("fsetxattr", 190, 7, None, ()),
  ],
)
def test_arguments_decide(call, x86_64, aarch64, allowed, refused):
  for machine, number in (("x86_64", x86_64), ("aarch64", aarch64)):
    assert allowed is None or run(machine, number, *allowed) == ALLOW
    assert refused is None or run(machine, number, *refused) == EPERM


def test_foreign_numbers_kill():
  assert run("x86_64", 0x40000000 + 62) == KILL  # x32
  assert run("x86_64", 3, architecture=0x40000003) == KILL  # i386
  assert run("aarch64", 3, architecture=0x40000028) == KILL  # arm
