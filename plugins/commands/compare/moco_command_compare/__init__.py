"""Compare two runs question by question."""
