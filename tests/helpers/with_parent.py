"""Run a Python program that ends with the process that started it, however that ends: ``with_parent.py -m http.server``."""

import ctypes
import os
import signal
import sys

if __name__ == "__main__":
    started_by = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, which an exec leaves as it is
    if os.getppid() == started_by:  # it may have ended before
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
