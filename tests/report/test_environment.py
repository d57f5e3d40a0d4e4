"""Tests of the table of capabilities."""

import pytest

from eztorch_sce.report.environment import environment, print_environment


def test_remarks_are_printed_with_their_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    print_environment()
    printed = capsys.readouterr().out
    for capability in environment():
        assert capability.name in printed
        assert capability.remark in printed  # such as pip install 'eztorch-sce[torchcodec]'
