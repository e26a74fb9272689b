"""Evaluate a fitted system with lm-evaluation-harness: lm-eval's own command, with the model moco."""
