"""What `moco doctor` says about devices."""

import pytest

from moco_toolkit_checkpoints import doctor


@pytest.mark.parametrize(
    ("found", "finding"),
    [
        (["cpu"], ("note", "devices", "no GPU; models run on the CPU")),
        (["cuda:0", "cuda:1"], ("ok", "devices", "cuda:0, cuda:1")),
    ],
)
def test_devices_are_named(monkeypatch: pytest.MonkeyPatch, found: list[str], finding: tuple[str, str, str]) -> None:
    monkeypatch.setattr(doctor, "devices", lambda: found)
    assert list(doctor.findings()) == [finding]


def test_a_broken_torch_is_a_problem_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise ImportError("libcudart.so.13 is missing")

    monkeypatch.setattr(doctor, "devices", broken)
    ((state, what, detail),) = doctor.findings()
    assert (state, what) == ("problem", "devices")
    assert detail == "torch cannot tell: ImportError: libcudart.so.13 is missing; reinstall torch"
