"""depthnet.fit: a run in a process of its own, resumed by the same call."""

import pytest

import depthnet
from depthnet.core.types import InputError

WORDS = [
    "model=tiny",
    "data=rooms",
    "data.frames={train: 4, val: 2}",
    "data.image_size=[48,64]",
    "data.batch_size=2",
    "data.num_workers=0",
    "data.cache=none",
    "trainer=cpu",
    "trainer.max_steps=3",
    "logger=none",
]


def test_it_fits_and_the_same_call_returns_the_same_metrics(tmp_path, capfd):
    first = depthnet.fit(WORDS, tmp_path / "a run")
    assert first.directory == tmp_path / "a run"
    assert (first.directory / "checkpoints/best.ckpt").exists()
    assert 0 <= first.metrics["protocols"]["uncropped"]["delta1"] <= 1
    assert "evaluated: 2 frames" in capfd.readouterr().out
    assert (tmp_path / "a run/steps.csv").exists()
    assert depthnet.fit(WORDS, tmp_path / "a run").metrics == first.metrics


def test_a_mistake_is_the_line_of_the_run(tmp_path):
    with pytest.raises(InputError, match=r"^model=nothing: there are basic, "):
        depthnet.fit(["model=nothing"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
