"""Serve a fitted system behind an OpenAI-compatible endpoint."""
