from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from depthnet.core.types import InputError
from depthnet.training.fit import _why_no_best
from depthnet.training.overview import resolve_weights


def test_pretrained_is_decided_once(tmp_path):
    def config(**changes):
        model = {"pretrained": "auto", "encoder": "test_resnet"}
        return OmegaConf.create({"mode": "fit", "ckpt": None, "seed": 1, "model": model} | changes)

    cfg = config()
    resolve_weights(cfg, tmp_path)
    assert cfg.model.pretrained is False  # no network in tests, so scratch
    resolve_weights(cfg, tmp_path)  # as the run has stored it
    assert cfg.model.pretrained is False
    with pytest.raises(InputError, match=r"model\.pretrained=true"):
        resolve_weights(config(model={"pretrained": True, "encoder": "test_resnet"}), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "validated", "reason"),
    [
        ({"fast_dev_run": 1, "limit_val_batches": 1}, 1, "trainer.fast_dev_run keeps no best checkpoint"),
        ({"limit_val_batches": 0}, 0, "with trainer.limit_val_batches=0 nothing was validated"),
        ({"checkpoint_callbacks": []}, 3, "no callback keeps a best checkpoint"),
        ({}, 0, "no validation took place before the last step"),  # as with trainer.check_val_every_n_epoch=5
        ({}, 3, "no validation gave a finite metric to choose by"),
    ],
)
def test_why_a_run_has_no_best_checkpoint(changes, validated, reason):
    progress = SimpleNamespace(total=SimpleNamespace(completed=validated))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(val_loop=SimpleNamespace(batch_progress=progress)))
    trainer = {"fast_dev_run": 0, "limit_val_batches": 1.0, "checkpoint_callbacks": [ModelCheckpoint()]}
    assert _why_no_best(SimpleNamespace(fit_loop=loop, **trainer | changes)) == reason
