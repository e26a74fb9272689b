"""List the runs in a folder."""
