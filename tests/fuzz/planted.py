"""Faults planted on purpose, to show that each kind of finding is found."""

import os
import random
import signal
import threading
from pathlib import Path

from pipeline.errors import SourceCorrupt


def crash(rng: random.Random, folder: Path) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "alive"


def hang(rng: random.Random, folder: Path) -> str:
    threading.Event().wait(600)
    return "awake"


def untyped(rng: random.Random, folder: Path) -> str:
    raise ZeroDivisionError("planted")


def hungry(rng: random.Random, folder: Path) -> str:
    return str(len(bytearray(os.urandom(1)) * (1100 << 20)) > 0)


def leak(rng: random.Random, folder: Path) -> str:
    threading.Thread(target=threading.Event().wait, args=(600,), name="planted", daemon=True).start()
    return "left"


def typed(rng: random.Random, folder: Path) -> str:
    raise SourceCorrupt("planted")


PLANTED = {f"planted-{kind.__name__}": kind for kind in (crash, hang, untyped, hungry, leak, typed)}
