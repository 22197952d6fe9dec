"""Whether every requirement of a lock file is one version, pinned by hashes, from nowhere else.

    python .ci/check_lock.py requirements.lock

Needs nothing but Python: it runs before anything is installed."""

import re
import sys
from pathlib import Path

PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._,-]+\])?==[A-Za-z0-9.+!_-]+(\s*;.*)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def problems(text: str) -> list[str]:
    """One line for each requirement that is not as it should be."""
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        wanted, _, rest = line.partition("--hash")
        hashes = f"--hash{rest}".split() if rest else []
        if line.startswith("-") or "://" in wanted or " @ " in wanted:
            found.append(f"{line[:80]}: only NAME==VERSION with hashes may stand here")
        elif not PINNED.fullmatch(wanted.strip()):
            found.append(f"{wanted.strip()[:80]}: is not pinned to one version")
        elif not hashes or not all(HASH.fullmatch(item) for item in hashes):
            found.append(f"{wanted.strip()[:80]}: has no sha256 hashes, or something else among them")
    return found


def main() -> int:
    """1 when something is wrong."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "requirements.lock")
    text = path.read_text()
    wrong = problems(text)
    for line in wrong:
        sys.stderr.write(f"{path}: {line}\n")
    count = len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE))
    sys.stderr.write(f"{path}: {count} requirements, {len(wrong)} not pinned by hash\n")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
