"""Fitted systems as models of inspect_ai: inspect eval TASK --model moco/RUN."""
