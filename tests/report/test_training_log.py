"""Tests of reading a metrics.csv that is resumed, rewritten, half written, odd or missing."""

from pathlib import Path

import numpy as np

from eztorch_sce.report.training_log import LogReader, read_log


def test_steps_that_a_resumed_run_repeats_replace_those_before(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss,epoch\n0,5,0\n1,4,0\n2,9,1\n3,9,1\n2,3,1\n3,2,1\n")
    log = read_log(tmp_path / "metrics.csv")
    assert log.curves["loss"].steps.tolist() == [0, 1, 2, 3]
    assert log.curves["loss"].values.tolist() == [5, 4, 3, 2]
    assert log.resumed_at == [2]
    assert log.steps_per_epoch() == 2
    assert (log.num_steps, log.epoch) == (4, 1)


def test_rows_of_one_step_are_merged_and_odd_values_are_kept_or_left_out(tmp_path: Path) -> None:
    text = "step,loss,online\n0,nan,\n1,inf,\n1,,0.5\n,7,\nx,7,\n2,words,\n3,1,0.6,extra\n"
    (tmp_path / "metrics.csv").write_text(text)
    curves = read_log(tmp_path / "metrics.csv").curves
    assert curves["loss"].steps.tolist() == [0, 1, 3]
    assert np.isnan(curves["loss"].values[0])
    assert curves["loss"].finite.tolist() == [1]
    assert curves["online"].values.tolist() == [0.5, 0.6]


def test_a_file_is_followed_as_it_appears_grows_and_gains_a_column(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    reader = LogReader(file)
    assert reader.read().curves == {}
    file.write_text("step,loss\n0,5\n1,4")
    assert reader.read().curves["loss"].values.tolist() == [5]  # the last line may be half of a number
    with file.open("a") as stream:
        stream.write(".5\n2,3\n")
    assert reader.read().curves["loss"].values.tolist() == [5, 4.5, 3]
    (tmp_path / "new").write_text("step,loss,lr\n0,5,\n1,4.5,\n2,3,\n3,2,0.1\n")
    (tmp_path / "new").replace(file)
    log = reader.read()
    assert log.curves["loss"].values.tolist() == [5, 4.5, 3, 2]
    assert log.curves["lr"].steps.tolist() == [3]
