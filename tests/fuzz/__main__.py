"""``python -m tests.fuzz``: many cases, and a report."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import corpus, report
from tests.fuzz.parent import Child, Tally
from tests.fuzz.screened import screen
from tests.fuzz.targets import TARGETS

GROUP = 100
SHARES = {"film": 1.0, "http": 0.1, "rtsp": 0.1, "config": 0.25, "event": 0.5, "manifest": 0.1, "onnx": 0.2}
"""Cases of each target for one of ``--cases``, all of which also go through ``screen``."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the cases; 1 when there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="damaged films through screen")
    parser.add_argument("--seed", type=int, default=1, help="of the first case; the others follow")
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    parser.add_argument("--only", choices=["screen", *TARGETS], help="one target")
    parser.add_argument("--one", nargs=2, metavar=("TARGET", "SEED"), help="run one case again")
    asked = parser.parse_args(args)
    began, tally = time.monotonic(), Tally()
    with tempfile.TemporaryDirectory(prefix="framewarden-fuzz-") as name:
        folder = Path(name)
        if asked.one:
            _run(folder, [(asked.one[0], int(asked.one[1]))], tally)
        else:
            _run_all(folder, asked, tally)
    for finding in tally.findings:
        _say(f"{finding.target} {finding.seed}: {finding.kind}: {finding.text}")
    _say(f"{tally.cases} cases, {len(tally.findings)} findings")
    if asked.report:
        seconds = time.monotonic() - began
        report.write(asked.report, tally, seed=asked.seed, cases=asked.cases, seconds=seconds)
    return 1 if tally.findings else 0


def _run_all(folder: Path, asked: argparse.Namespace, tally: Tally) -> None:
    for target, share in SHARES.items():
        if asked.only in (None, target):
            seeds = range(asked.seed, asked.seed + max(1, round(asked.cases * share)))
            _say(f"{target}: {len(seeds)} cases")
            _run(folder, [(target, seed) for seed in seeds], tally)
    if asked.only in (None, "screen"):
        films = folder / "corpus"
        corpus.make(films)
        for first in range(asked.seed, asked.seed + asked.cases, GROUP):
            seeds = range(first, min(first + GROUP, asked.seed + asked.cases))
            _say(f"screen: cases {seeds[0]} to {seeds[-1]}")
            screen(folder, films, seeds, tally)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _run(folder: Path, cases: list[tuple[str, int]], tally: Tally) -> None:
    with Child(folder) as child:
        child.run(cases, tally)


if __name__ == "__main__":
    sys.exit(main())
