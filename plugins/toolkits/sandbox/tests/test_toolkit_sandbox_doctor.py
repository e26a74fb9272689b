"""What `moco doctor` says about sandboxes."""

import shutil

import pytest

from moco_toolkit_sandbox.doctor import findings


def test_without_bubblewrap_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    ((state, what, detail),) = findings()
    assert (state, what) == ("note", "sandbox") and "apt-get install bubblewrap" in detail


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_with_bubblewrap_a_program_is_tried() -> None:
    ((state, what, detail),) = findings()
    assert what == "sandbox" and (state == "ok") == (detail == "bubblewrap isolates programs")
