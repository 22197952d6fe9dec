"""The process that runs cases: a line ``TARGET SEED`` in, a line of JSON out. It may die of any of them."""

import faulthandler
import json
import random
import resource
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from pipeline.errors import FramewardenError

ADDRESS_SPACE = 8 << 30


def main() -> None:
    """Until stdin ends."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    from tests.fuzz.planted import PLANTED
    from tests.fuzz.targets import TARGETS

    folder, keep, threads = Path(sys.argv[1]), sys.stdout, _threads()
    sys.stdout = sys.stderr  # what a library prints is no answer
    print("{}", file=keep, flush=True)
    for line in sys.stdin:
        name, seed = line.split()
        rng = random.Random(f"{name}:{seed}")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        began, found = time.monotonic(), ""
        with tempfile.TemporaryDirectory(dir=folder) as own:
            case = Path(own)
            (case / "corpus").symlink_to(folder / "corpus")
            try:
                outcome = (TARGETS | PLANTED)[name](rng, case)
            except FramewardenError as error:
                outcome = type(error).__name__
                if "\n" in str(error) and name not in ("config", "manifest"):
                    found = f"the error has more than one line: {str(error)[:200]!r}"
            except BaseException as error:  # noqa: BLE001 whatever it is, it is a finding
                outcome = "finding"
                found = "".join(traceback.format_exception(error))[-1500:]
        left = _threads() - threads
        if left:
            found = found or f"threads left behind: {sorted(thread.name for thread in left)}"
        answer = {
            "outcome": outcome,
            "finding": found,
            "seconds": time.monotonic() - began,
            "megabytes": _peak(),
        }
        print(json.dumps(answer), file=keep, flush=True)


def _threads() -> set[threading.Thread]:
    """Threads of ours; a decoder's own that once wrote a log line are known to Python as dummies."""
    return {thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}


def _peak() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
