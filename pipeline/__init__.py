"""framewarden: many video streams in, flagged segments out."""
