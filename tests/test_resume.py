from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from depthnet.checkpoint import RECORD_KEY, make_record, save_plain
from depthnet.models.basic import BasicNet
from depthnet.models.depth_net import DepthNet
from depthnet.resume import _why_no_best, fine_tune, settle
from depthnet.types import DepthRange, InputError

RANGE = DepthRange(1e-3, 10.0)


def save(path, network):
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_plain(path, {"state_dict": state, RECORD_KEY: make_record(network)})


def test_settle_decides_pretrained_once(tmp_path):
    def config(**changes):
        model = {"pretrained": "auto", "encoder": "test_resnet"}
        return OmegaConf.create({"mode": "fit", "ckpt": None, "seed": 1, "model": model} | changes)

    cfg = config()
    settle(cfg, tmp_path)
    assert cfg.model.pretrained is False  # no network in tests, so scratch
    kept = config()
    (tmp_path / "config.yaml").write_text("")  # a run that goes on
    settle(kept, tmp_path)
    assert kept.model.pretrained == "auto"
    with pytest.raises(InputError, match=r"model\.pretrained=true"):
        settle(config(model={"pretrained": True, "encoder": "test_resnet"}), tmp_path / "other")


def test_settle_takes_the_image_size_of_the_checkpoint_that_is_judged(tmp_path):
    save(tmp_path / "a.ckpt", BasicNet(RANGE, (32, 48), widths=(4, 8)))
    cfg = OmegaConf.create(
        {"mode": "test", "ckpt": str(tmp_path / "a.ckpt"), "seed": 1, "model": {}, "data": {"image_size": [9, 9]}}
    )
    settle(cfg, tmp_path)
    assert cfg.data.image_size == [32, 48]


def test_fine_tuning_takes_what_fits_and_refuses_another_network(tmp_path, caplog):
    tiny = DepthNet("test_resnet", depth_range=RANGE, image_size=(48, 64), decoder_widths=(16, 16, 16, 16, 16))
    save(tmp_path / "tiny.ckpt", tiny)
    other = DepthNet("test_resnet", depth_range=RANGE, image_size=(48, 64), decoder_widths=(16, 16, 16, 16, 8))
    with caplog.at_level("INFO", "depthnet"):
        fine_tune(other, tmp_path / "tiny.ckpt", tmp_path)
    assert torch.equal(next(other.encoder.parameters()), next(tiny.encoder.parameters()))
    assert any("in the checkpoint" in message for message in caplog.messages)
    with pytest.raises(InputError, match="tensors fit this network"):
        fine_tune(BasicNet(RANGE, (32, 48)), tmp_path / "tiny.ckpt", tmp_path)


def test_weights_start_only_with_the_normalisation_that_they_learned_with(tmp_path):
    options = {"depth_range": RANGE, "image_size": (48, 64), "decoder_widths": (16,) * 5}
    save(tmp_path / "half.ckpt", DepthNet("test_resnet", **options, mean=(0.5, 0.5, 0.25)))
    with pytest.raises(InputError, match=r"of mean \[0\.5, 0\.5, 0\.25\], .*add model\.mean=\[0\.5, 0\.5, 0\.25\]"):
        fine_tune(DepthNet("test_resnet", **options), tmp_path / "half.ckpt", tmp_path)
    fine_tune(DepthNet("test_resnet", **options, mean=(0.5, 0.5, 0.25)), tmp_path / "half.ckpt", tmp_path)


@pytest.mark.parametrize(
    ("changes", "validated", "reason"),
    [
        ({"fast_dev_run": 1, "limit_val_batches": 1}, 1, "trainer.fast_dev_run keeps no best checkpoint"),
        ({"limit_val_batches": 0}, 0, "with trainer.limit_val_batches=0 nothing was validated"),
        ({"checkpoint_callbacks": []}, 3, "no callback keeps a best checkpoint"),
        ({}, 0, "no validation took place before the last step"),  # as with trainer.check_val_every_n_epoch=5
        ({}, 3, "no validation gave a finite figure to choose by"),
    ],
)
def test_why_a_run_has_no_best_checkpoint(changes, validated, reason):
    progress = SimpleNamespace(total=SimpleNamespace(completed=validated))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(val_loop=SimpleNamespace(batch_progress=progress)))
    trainer = {"fast_dev_run": 0, "limit_val_batches": 1.0, "checkpoint_callbacks": [ModelCheckpoint()]}
    assert _why_no_best(SimpleNamespace(fit_loop=loop, **trainer | changes)) == reason
