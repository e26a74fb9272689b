"""Show one run, or who said what for one of its questions."""
