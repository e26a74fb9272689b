"""What tests see of work that was meant to be killed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from moco_toolkit_authoring.killing import killed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_work_that_is_killed_is_all_right(tmp_path):
    def work():
        (tmp_path / "begun").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    killed(work)
    assert (tmp_path / "begun").exists()


@pytest.mark.parametrize("work", [lambda: None, lambda: os.kill(os.getpid(), signal.SIGTERM), lambda: os._exit(0)])
def test_work_that_ends_in_another_way_is_told(work):
    with pytest.raises(AssertionError, match="was not killed"):
        killed(work)


def test_work_that_takes_too_long_is_ended_and_told(tmp_path):
    def work():
        (tmp_path / "process").write_text(str(os.getpid()))
        time.sleep(60)

    with pytest.raises(AssertionError, match=r"longer than 0\.2 s"):
        killed(work, seconds=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "process").read_text()), 0)
