"""benchmarks/gpu.py, small and on the CPU: that it runs, so that where there is a GPU one command tries it."""

import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import gpu


@pytest.fixture(autouse=True)
def _as_it_was():
    yield
    torch.use_deterministic_algorithms(False)


def test_every_part_prints_its_table(monkeypatch, capsys):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network, **options: None)  # ten seconds
    gpu.main(["--tiny"])
    out = capsys.readouterr().out
    assert out.startswith("CPU (")
    for _, title, heads in gpu.PARTS.values():
        assert f"\n{title}\n\n| {' | '.join(heads)} |" in out
    assert "failed" not in out
    assert out.count("the same, to the bit") == 4  # run again, resumed; without and with an average
    for precision in gpu.PRECISIONS:
        assert out.count(f"| {precision} | ") == 2
    assert "| waiting for data | " in out


def test_a_part_that_fails_is_a_row_and_the_others_go_on(monkeypatch, capsys):
    def broken(settings, table):
        table.add("first", 1.5)
        with table.row("second"):
            raise RuntimeError("CUDA out of memory.\nTried to allocate")
        raise ValueError("no such thing")

    def slow(settings, table):
        table.add("one")
        time.sleep(5)

    parts = {"a": (broken, "A", ("name", "value")), "b": (slow, "B", ("name",)), "c": (slow, "C", ("name",))}
    monkeypatch.setattr(gpu, "PARTS", parts)
    gpu.run(None, list(parts), seconds=0.3)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")] == [
        *("| name | value |", "| --- | --- |", "| first | 1.5 |"),
        "| second | failed: RuntimeError: CUDA out of memory. Tried to allocate |",
        "| a | failed: ValueError: no such thing |",
        *("| name |", "| --- |", "| one |", "| b | stopped: the time is up |"),
        *("| name |", "| --- |", "| c | left out: the time is up |"),
    ]


def test_without_a_gpu_the_measurement_is_refused_in_a_line(capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--tiny runs on a CPU" in capsys.readouterr().err
