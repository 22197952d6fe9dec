"""``make gpu-check``: what has run on which GPU, and how fast; the standard library is all it needs itself.

Each part runs in a process of its own: a missing package, a crash or a hang costs that part and no other."""

import platform
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - any interpreter may be named, and this is the first to run
    sys.exit("gpu-check needs Python 3.11 or newer; this is " + platform.python_version())
