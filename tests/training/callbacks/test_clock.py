import json
import time
from types import SimpleNamespace

import torch

from depthnet.training.callbacks.clock import Clock


def test_the_clock_counts_what_led_to_a_save_over_all_starts(tmp_path, monkeypatch):
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.value)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(is_global_zero=True, strategy=strategy, world_size=1)

    def passes(seconds):
        now.value += seconds

    killed = Clock(tmp_path)
    killed.on_fit_start(trainer, None)
    passes(10.0)
    killed.on_save_checkpoint(trainer, None, {})
    passes(5.0)  # and is killed: these steps are taken again
    resumed = Clock(tmp_path)
    resumed.on_fit_start(trainer, None)
    passes(7.0)
    resumed.on_save_checkpoint(trainer, None, {})
    passes(1.0)
    resumed.on_train_end(trainer, None)
    ((hardware, seconds),) = json.loads((tmp_path / "run.json").read_text())["seconds"].items()
    assert seconds == 18.0
    assert "torch on 1" in hardware
    (tmp_path / "run.json").write_text("torn")
    resumed.on_train_end(trainer, None)  # a clock stops no run
    other = Clock(tmp_path / "other")
    other.on_fit_start(trainer, None)
    other.on_train_end(SimpleNamespace(is_global_zero=False), None)
    assert not (tmp_path / "other").exists()
