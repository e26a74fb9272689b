"""Ask runs in SQL."""
