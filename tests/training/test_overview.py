import functools

import pytest
from lightning import Callback, Trainer
from omegaconf import OmegaConf

from depthnet.core.types import DepthRange
from depthnet.data.datamodule import DepthDataModule
from depthnet.evaluation.protocols import PROTOCOLS
from depthnet.models.basic import BasicNet
from depthnet.models.encoder_weights import choose_weights
from depthnet.training import overview
from depthnet.training.checkpoint_io import DurableCheckpointIO
from depthnet.training.losses import DepthLoss
from depthnet.training.module import DepthModule
from depthnet.training.optimizers import build_optimizer
from depthnet.training.overview import TimeEstimate, resolve_weights
from depthnet.training.schedules import constant

RANGE = DepthRange(1e-3, 10.0)
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Clock:
    """A clock that advances by a second for each training step and by eight for a validation."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def fit(tmp_path, make_lists, monkeypatch, capsys):
    """Fit 24 frames, a step each, with a clock of our own; return the trainer and what was printed."""
    root, clock = make_lists(train=24, val=3), Clock()
    monkeypatch.setattr(overview, "time", clock)

    class Ticking(DepthModule):
        def training_step(self, batch, batch_idx):
            clock.now += 1.0
            return super().training_step(batch, batch_idx)

        def on_validation_epoch_start(self):
            clock.now += 8.0
            super().on_validation_epoch_start()

    class Saving(Callback):
        def on_train_batch_end(self, trainer, *rest):
            if trainer.global_step == 30:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    def run(ckpt=None, **options):
        data = DepthDataModule.from_root(root, image_size=[16, 24], batch_size=1, eval_batch_size=3, num_workers=0)
        network, protocol = BasicNet(RANGE, (16, 24), widths=(4,)), PROTOCOLS["uncropped"].within(RANGE)
        optimizer = functools.partial(build_optimizer, lr=1e-3)
        module = Ticking(network, DepthLoss({"l1": 1.0}, RANGE), optimizer, constant, [protocol])
        settings = {"accelerator": "cpu", "use_distributed_sampler": False, "default_root_dir": tmp_path} | QUIET
        trainer = Trainer(callbacks=[TimeEstimate(), Saving()], plugins=[DurableCheckpointIO()], **settings | options)
        capsys.readouterr()
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
        return trainer, capsys.readouterr().out.splitlines()

    return run


@pytest.mark.filterwarnings("ignore")
def test_the_time_of_the_rest_is_estimated_after_ten_steps(fit):
    # 37 steps of a second are left; the validation of 3 images after 24 steps counts as one step
    assert fit(max_epochs=2)[1] == [
        "fit:  2 epochs of 24 steps, 1 images each",
        "time: about 0:00:39 left (1 steps/s)",
    ]


@pytest.mark.filterwarnings("ignore")
def test_slow_steps_are_not_waited_for_and_a_fit_of_few_has_no_estimate(fit, monkeypatch):
    assert fit(max_steps=6)[1] == ["fit:  0.25 epochs of 24 steps, 1 images each"]
    monkeypatch.setattr(overview, "_SECONDS", 3.0)
    assert fit(max_steps=6)[1][1] == "time: about 0:00:02 left (1 steps/s)"


@pytest.mark.filterwarnings("ignore")
def test_a_validation_between_the_first_steps_makes_none_of_them_slower(fit):
    assert fit(max_epochs=3, limit_train_batches=6)[1] == [
        "fit:  3 epochs of 6 steps, 1 images each",
        "time: about 0:00:09 left (1 steps/s)",
    ]


@pytest.mark.filterwarnings("ignore")
def test_gathered_gradients_make_fewer_steps(fit):
    assert fit(max_epochs=2, accumulate_grad_batches=2)[1] == [
        "fit:  2 epochs of 12 steps, 2 images each",
        "time: about 0:00:40 left (0.5 steps/s)",
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("saved", "done", "left"), [("end.ckpt", 24, 39), ("middle.ckpt", 30, 33)])
def test_a_resumed_run_reports_what_is_done_and_what_is_left(fit, tmp_path, saved, done, left):
    trainer, _ = fit(max_epochs=1 if saved == "end.ckpt" else 2)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    lines = fit(max_epochs=3, ckpt=tmp_path / saved)[1]
    assert lines == [
        f"fit:  3 epochs of 24 steps, 1 images each; {done} steps are done",
        f"time: about 0:00:{left:02} left (1 steps/s)",
    ]


def config(**changes):
    model = {"pretrained": "auto", "encoder": "test_resnet"}
    return OmegaConf.create({"mode": "fit", "ckpt": None, "model": model} | changes)


def test_the_weights_are_reported_with_the_reason(tmp_path):
    cfg = config()
    scratch = "encoder: test_resnet, from scratch: no cached weights, and HF_HUB_OFFLINE forbids the hub"
    assert resolve_weights(cfg, tmp_path) == scratch
    assert cfg.model.pretrained is False
    asked = config(model={"pretrained": False, "encoder": "test_resnet"})
    assert resolve_weights(asked, tmp_path) == "encoder: test_resnet, from scratch: model.pretrained=false"
    none = config(model={"pretrained": "auto", "encoder": "mobilenetv2_035"})
    assert resolve_weights(none, tmp_path) == "encoder: mobilenetv2_035, from scratch: timm has no weights for it"
    assert resolve_weights(config(model={}), tmp_path) == "weights: from scratch"


def test_a_checkpoints_weights_are_reported_as_such(tmp_path):
    own = config(ckpt="nyu_small", model={"pretrained": False, "encoder": "test_resnet"})
    assert resolve_weights(own, tmp_path) == "weights: from checkpoint nyu_small"
    assert resolve_weights(config(ckpt="a.ckpt", mode="test"), tmp_path) == "weights: from checkpoint a.ckpt"
    (tmp_path / "config.yaml").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    line = f"weights: from this run's last checkpoint, in {tmp_path / 'checkpoints'}"
    assert resolve_weights(config(ckpt="nyu_small"), tmp_path) == line


def test_a_run_that_has_no_checkpoint_yet_keeps_what_was_decided(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").touch()
    cfg = config(model={"pretrained": False, "encoder": "test_resnet"})
    assert "from scratch" in resolve_weights(cfg, tmp_path)
    assert cfg.model.pretrained is False


def test_where_pretrained_weights_come_from_is_said(monkeypatch):
    repository = "timm/test_resnet.r160_in1k"
    monkeypatch.setattr("depthnet.models.encoder_weights.cached_weights", lambda given: "file")
    assert choose_weights("test_resnet", "auto") == (True, f"pretrained weights {repository} from the local cache")
    monkeypatch.setattr("depthnet.models.encoder_weights.cached_weights", lambda given: None)
    monkeypatch.setattr("depthnet.models.encoder_weights._hub_answers", lambda given: True)
    assert choose_weights("test_resnet", True) == (True, f"pretrained weights {repository} from the hub")
    monkeypatch.setattr("depthnet.models.encoder_weights._hub_answers", lambda given: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    words = "from scratch: no cached weights, and the hub does not answer"
    assert choose_weights("test_resnet", "auto") == (False, words)
