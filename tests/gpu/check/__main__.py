"""python -m tests.gpu.check [--out docs/reports] [--only PART,…] [--onto REPORT.json] [--allow-no-gpu]

Runs all parts that can be run here, with this interpreter and what it can import: nothing is installed or
downloaded. Exit code 0: a GPU was there, something ran, nothing failed; or, with --allow-no-gpu, there was
none. Else 1. A report is written in any case; a part that did not run stands in it with the reason."""

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.gpu.check import facts as looking
from tests.gpu.check.facts import Facts
from tests.gpu.check.parts import PARTS, ROOT, Part, run
from tests.gpu.check.report import Outcome, Report, earlier, verdict


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _options(arguments)
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    _say("looking at the GPU and the packages")
    facts = looking.gather()
    try:
        before = earlier(options.onto, facts) if options.onto else {}
    except ValueError as error:
        _say(f"--onto: {error}")
        return 2
    found = before | run_all(parts, facts, before)
    outcomes = [found[part.name] for part in PARTS if part.name in found]
    report = Report(
        _now(),
        " ".join(["python -m tests.gpu.check", *(sys.argv[1:] if arguments is None else arguments)]),
        machine(),
        facts,
        tuple(outcomes),
    )
    place = options.out or ROOT / ("docs/reports" if facts.gpu else "bench-out")
    for path in report.write(place):
        _say(f"wrote {path}")
    return exit_code(facts, outcomes, allow_no_gpu=options.allow_no_gpu)


def run_all(parts: Sequence[Part], facts: Facts, before: dict[str, Outcome]) -> dict[str, Outcome]:
    """One part after another: they would measure each other otherwise. ``before`` has parts that ran already
    and are not to be run."""
    found: dict[str, Outcome] = {}
    for part in parts:
        if not facts.lacks(part.needs):
            _say(f"{part.title}: running")
        found[part.name] = replace(run(part, facts, before | found), date=_now())
        _say(f"{part.title}: {verdict(found[part.name])}")
    return found


def exit_code(facts: Facts, outcomes: Sequence[Outcome], *, allow_no_gpu: bool) -> int:
    """0 is never given for nothing: without a GPU only when that was allowed."""
    if any(one.status == "failed" for one in outcomes):
        return 1
    if facts.gpu is None:
        return 0 if allow_no_gpu else 1
    return 0 if any(one.ran for one in outcomes) else 1


def machine() -> dict[str, object]:
    """The host, without its name."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "load before": round(os.getloadavg()[0], 2),
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.gpu.check", description="Check framewarden on a GPU.")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the report goes: docs/reports, or bench-out without a GPU",
    )
    parser.add_argument("--only", type=_names, metavar="PART,…", help="only these parts")
    parser.add_argument(
        "--onto",
        type=Path,
        metavar="REPORT.json",
        help="an earlier report of this GPU and driver, from which the parts are taken that are not run now",
    )
    parser.add_argument(
        "--allow-no-gpu", action="store_true", help="exit with 0 when there is no GPU and nothing ran"
    )
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names, known = text.split(","), [part.name for part in PARTS]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _say(text: str) -> None:
    sys.stderr.write(f"gpu-check: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
