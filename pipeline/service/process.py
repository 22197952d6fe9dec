"""The entry of a worker process: signals, memory, and an end with its supervisor."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.backends.cuda_driver import see_only
from pipeline.errors import FramewardenError
from pipeline.log import CrashReport, configure
from pipeline.service.orders import WorkerPlan

PR_SET_PDEATHSIG = 1  # sys/prctl.h
ORPHANED = 3
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(plan: WorkerPlan, pipe: Connection) -> None:
    """Run a worker until its supervisor says stop; it dies with its supervisor, even with kill -9."""
    die_with_parent()
    report_crashes(plan.crash)
    configure(plan.config.log.format, plan.config.log.level)  # to stderr, and masked
    for number in ENDING:  # a terminal or a service manager sends them to all; the supervisor decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    if plan.gpu:
        see_only(plan.gpu)
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            pipe.send(message)

    from pipeline.service.worker import Worker  # the libraries: seconds in which the parent may die

    try:
        worker = Worker(plan, send)
    except FramewardenError as error:
        send(("refused", str(error)))
        return
    with CrashReport():
        worker.run(pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is recorded and closed; to take the libraries apart took 0.2 s more


def report_crashes(path: Path) -> None:
    """A fatal signal writes the stacks of all threads to ``path``: files and lines, no values."""
    with contextlib.suppress(OSError):  # without the report, every stream that was in decoding is suspected
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        faulthandler.enable(handle, all_threads=True)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the process that started this one ends. A supervisor's successor closes
    what a worker left open.

    Where the kernel cannot do that, the end of the supervisor's pipe ends the worker."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it was gone before the kernel was asked
        os._exit(ORPHANED)
