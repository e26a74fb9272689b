"""Write a fitted system to a folder of its own: a checkpoint or adapter, or a system to open, with its card."""
