import pytest

from depthnet.allowed import check_targets
from depthnet.types import InputError

HOSTILE = [
    "os.system",
    "torch.load",
    "builtins.eval",
    "depthnet.models.depth_net.os.system",
    "depthnet.callbacks.os.system",
    "depthnet.callbacks.socket.create_connection",
    "depthnet.losses.DepthLossX",
    "lightning.Trainer.fit",
    "lightning.pytorch.callbacks.model_checkpoint.os.remove",
    "hydra.utils.instantiate",
    "albumentations.core.os.system",
    "depthnet.data.datamodule.DepthDataModule.__init__.__globals__",
    "depthnet..types",
    "",
    None,
    5,
    ["os.system"],
]


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"a": {"b": t}}, lambda t: {"a": [1, [t]]}, lambda t: {"a": (t,)}]
)
def test_anything_outside_the_list_is_refused_wherever_it_stands(target, wrap):
    with pytest.raises(InputError, match="not on the list"):
        check_targets(wrap({"_target_": target}))


def test_what_conf_names_is_allowed():
    for target in ("depthnet.losses.DepthLoss", "albumentations.HorizontalFlip", "lightning.Trainer"):
        check_targets({"a": [{"_target_": target}]})
