"""``python -m pipeline`` is ``framewarden``."""

from pipeline.cli import main

main()
