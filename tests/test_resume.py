import pytest
from omegaconf import OmegaConf

from depthnet.resume import settle
from depthnet.types import InputError


def test_settle_decides_pretrained_once(tmp_path):
    def config(**changes):
        model = {"pretrained": "auto", "encoder": "test_resnet"}
        return OmegaConf.create({"mode": "fit", "ckpt": None, "seed": 1, "model": model} | changes)

    cfg = config()
    settle(cfg, tmp_path, [])
    assert cfg.model.pretrained is False  # no network in tests, so scratch
    kept = config()
    (tmp_path / "config.yaml").write_text("")  # a run that goes on
    settle(kept, tmp_path, [])
    assert kept.model.pretrained == "auto"
    with pytest.raises(InputError, match=r"model\.pretrained=true"):
        settle(config(model={"pretrained": True, "encoder": "test_resnet"}), tmp_path / "other", [])
