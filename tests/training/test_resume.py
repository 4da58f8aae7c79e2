import pytest
from omegaconf import OmegaConf

from depthnet.core.types import InputError
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
