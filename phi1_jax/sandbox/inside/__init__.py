"""What runs inside the sandbox; its sources are sent in, so it imports only itself.

Three processes, each forked from the one before it in this list:
  server.py     S, the worker: forks the other two, watches their clocks, cleans up.
  code_side.py  U, untrusted: executes the code and answers calls.
  test_side.py  T, trusted: executes the tests; the code's names are stand-ins there.
asserts.py runs tests and says what failed; differential.py compares a function with
a reference on many inputs; wire.py carries values between U and T; confine.py,
seccomp.py and landlock.py take rights away from U. Python 3.9 or newer must be able to
run these files.
"""

SOURCES = (  # in the order in which they import each other
  "sets",
  "wire",
  "seccomp",
  "landlock",
  "confine",
  "differential",
  "asserts",
  "code_side",
  "test_side",
  "server",
)
