"""Runs in a child process on the fake driver: one scenario, its findings as JSON on stdout."""

import json
import sys
from importlib import import_module

from tests.gpu.fake_driver.harness import SCENARIOS


def main() -> None:
    for module in ("scenarios", "trouble"):
        import_module(f"tests.gpu.fake_driver.{module}")
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    sys.stdout.write(json.dumps(SCENARIOS[name](**arguments)) + "\n")


if __name__ == "__main__":
    main()
