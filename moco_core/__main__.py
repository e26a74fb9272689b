"""``python -m moco_core``: the command line, whoever else installed a script called ``moco``."""

from moco_core.cli import main

if __name__ == "__main__":
    main()
