"""Runs untrusted Python and says whether it passes its tests.

What is covered, where bubblewrap or nsjail works ("isolated"):
- The verdict. Tests run in a process of their own; the code's process never sees them
  and only returns data. Exit codes, prints, patched builtins, frame walking, tracing
  and always-equal objects cannot make a test pass.
- Files: only a read-only /usr and empty, size-capped /tmp and /dev/shm; no home, no
  environment. Of /usr the sources and all installed packages look empty, and so does
  /usr/local where Python is elsewhere. Nothing written outlives the program.
- The network, other processes, signals, new programs and new processes: refused by a
  seccomp filter, and invisible behind namespaces.
- CPU time, memory, file sizes, open files, threads, the size of results: limited.
- Programs from each other: one fresh process each, all leftovers killed and removed.

What is not covered:
- Bugs of the kernel, of bubblewrap and of nsjail; side channels such as timing.
- A program that computes the right answers by looking at its caller's habits: with few
  tests, a table of answers passes them. It is the tests that must be good.
- Names that the tests take from the code although the code should not decide them,
  e.g. a helper function of the prompt that the tests call. Put those into the tests.
- `in_process` programs: code shares a process with its tests and can forge a pass. The
  verdict is flagged.
- Code that needs more than the standard library and the packages that are given.
- The level "rlimits": Landlock leaves /usr and Python readable, installed packages
  included, and shows names, sizes and times of all files. Programs cannot set modes,
  owners and times, not even of their own files. Where the kernel lacks Landlock or
  seccomp, files that the sandbox's uid may write can be changed (an ordinary user is
  refused unless this level is named); without Landlock all that it may read is in
  reach, without seccomp the network and other processes of the same uid.
  `require_isolation` refuses this level.
- Benchmarks that lie elsewhere below /usr, e.g. in /usr/share, can be read.
- A worker that something else kills may leave one zombie to the container's init.
- One kernel tracks the size of /tmp, not the number of files in it; the CPU limit
  bounds those.

Differences from running code and tests in one process: constants of the code have the
value they had when it was loaded; instances of the code's classes have no operators in
the tests, only attributes, calls, truth, length and items, or what the built-in type
that they extend has, unless they override it; a test sees exceptions as their nearest
built-in class; a generator that a test asked for 64 items is read ahead, and cannot be
sent to; a test cannot seed the code's random numbers. Sets iterate as in one process,
and where that cannot be had, or a test asks for the identity of equal texts or numbers,
the verdict is not a pass and says so. Not noticed: a set that lost elements on one side
and gets new ones on the other may put those elsewhere; `ChainMap`, `UserDict` and
mapping proxies lose their type; `pop()` of a set after earlier pops begins at the first
element again; views of dictionaries are copies; an array of numpy that the code returns
shares its memory with no argument and with nothing that the code keeps. Where the code
changes an array of the tests that shares its memory with another one, or changes its
shape or type, the verdict is not a pass and says so. A random test also found, not yet
understood, a list of one instance of a subclass of `str` that the tests keep, shorten
and read again.
"""
