"""Measurements on a real GPU. Each gives rows of (what, value, unit), and runs in a process of its own."""

Row = tuple[str, float | int | str, str]


class NotRun(Exception):
    """This cannot be measured here; says why."""


class Failed(Exception):
    """What was measured failed; ``rows`` is what was found up to there."""

    def __init__(self, why: str, rows: list[Row]) -> None:
        super().__init__(why)
        self.rows = rows
