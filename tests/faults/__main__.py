"""``python -m tests.faults``: every fault against every invariant, as a table. 1 when a cell is red."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.matrix import FILES, asserted_by


class Recorder:
    """A plugin of pytest: writes down what became of each cell."""

    def __init__(self) -> None:
        self.table = report.Table()
        self._planned: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A cell is green when all its tests passed; one that was skipped or broke has no measure."""
        self.table.tests += report.when == "call"
        for key, value in report.user_properties:
            if report.when == "call" and isinstance(value, tuple | list):
                (self.table.passed if key == "cell" else self.table.failed)(*value)
        for fault, invariant in asserted_by(report.nodeid):
            if report.when == "call" and report.passed:
                self.table.passed(fault, invariant, "")
            elif not report.passed:
                self.table.failed(fault, invariant, report.nodeid)
        if report.failed:
            self.table.broken.append((report.nodeid, str(report.longrepr)[-1500:]))


def main(args: Sequence[str] | None = None) -> int:
    """Run the tests of the matrix, write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    parser.add_argument(
        "--quick", action="store_true", help="as in make test: 12 streams lost together, for 7 s"
    )
    asked = parser.parse_args(args)
    if not asked.quick:
        os.environ["FAULTS_FULL"] = "1"
    recorder, began = Recorder(), time.monotonic()
    # The matrix has been imported already: its own assertions are words enough.
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*quiet, *FILES], plugins=[recorder])
    table = recorder.table
    table.seconds, table.quick = time.monotonic() - began, asked.quick
    text = report.render(table)
    if asked.report:
        asked.report.parent.mkdir(parents=True, exist_ok=True)
        asked.report.write_text(text)
    red = table.red()
    sys.stderr.write("".join(f"red: {fault}: {invariant}: {why}\n" for fault, invariant, why in red))
    sys.stderr.write(f"{len(red)} red cells\n")
    return 1 if red or code else 0


if __name__ == "__main__":
    sys.exit(main())
