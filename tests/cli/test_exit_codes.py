"""Exit codes of ``screen``, in their order of precedence."""

import itertools

import pytest

from pipeline.cli.screen import exit_code


@pytest.mark.parametrize(
    ("interrupted", "failed", "flagged"), list(itertools.product([False, True], repeat=3))
)
def test_interrupted_goes_before_failed_before_flagged(
    interrupted: bool, failed: bool, flagged: bool
) -> None:
    wanted = 130 if interrupted else 1 if failed else 3 if flagged else 0
    assert exit_code(interrupted, failed, flagged) == wanted
