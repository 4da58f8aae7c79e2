"""What is built is what was checked; tests/faults has the whole from outside."""

import importlib
import inspect
import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import train as script
from depthnet.core.types import InputError
from depthnet.run.targets import ALLOWED, build, check_groups, check_targets

HOSTILE = [
    "os.system",
    "torch.load",
    "builtins.eval",
    "depthnet.models.depth_net.os.system",
    "depthnet.training.callbacks.results.os.system",
    "depthnet.training.callbacks.results.socket.create_connection",
    "depthnet.training.losses.DepthLossX",
    "lightning.Trainer.fit",
    "lightning.pytorch.callbacks.model_checkpoint.os.remove",
    "hydra.utils.instantiate",
    "albumentations.core.os.system",
    "depthnet.data.datamodule.DepthDataModule.__init__.__globals__",
    "depthnet..types",
    "depthnet.training.callbacks.history.write_text",
    "depthnet.training.callbacks.results.Path",
    "depthnet.data.datamodule.DepthDataModule.load_from_checkpoint",
    "depthnet.training.losses.DepthLoss\n",
    "albumentations.load",
    "albumentations.Compose.from_dict",
    "albumentations.",
    "lightning.pytorch.callbacks.model_checkpoint",
    "lightning.pytorch.loggers.MLFlowLogger",
    "",
    None,
    5,
    ["os.system"],
]
NAMES = sorted(name for name in ALLOWED if not name.endswith("."))
PACKAGES = sorted(name for name in ALLOWED if name.endswith("."))


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"a": {"b": t}}, lambda t: {"a": [1, [t]]}, lambda t: {"a": (t,)}]
)
def test_anything_outside_the_list_is_refused_wherever_it_stands(target, wrap):
    with pytest.raises(InputError, match="not on the list"):
        check_targets(wrap({"_target_": target}))


def test_what_conf_names_is_allowed():
    named = {
        name for path in script.CONF.rglob("*.yaml") for name in re.findall(r"_target_: *([\w.]+)", path.read_text())
    }
    assert len(named) > 20
    for target in named - {"depthnet.run.command_line.SweepStart"}:
        check_targets({"a": [{"_target_": target}]})


@pytest.mark.parametrize("name", NAMES)
def test_a_name_on_the_list_is_where_it_says(name):
    parts, found = name.split("."), None
    for count in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        break
    assert callable(found)
    if name.startswith("depthnet."):
        assert found.__module__ == ".".join(parts[:count]), "a module of ours only imports it"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_capitalised_names_of_an_allowed_package_are_classes(package):
    module = importlib.import_module(package.rstrip("."))
    names = [name for name in dir(module) if name[0].isupper()]
    assert len(names) > 20
    assert all(inspect.isclass(getattr(module, name)) for name in names)


def test_every_network_and_transform_may_be_built():
    for name in ("data.transforms", "models.basic", "models.depth_net", "models.keras"):
        module = importlib.import_module(f"depthnet.{name}")
        own = [part for part, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        built = {f"depthnet.{name}.{part}" for part in own if part[0].isupper()}
        assert built
        assert built <= set(ALLOWED)


def test_text_that_would_be_resolved_once_more_is_refused():
    with pytest.raises(InputError, match=r"a\.b\[0\].*second time"):
        check_targets({"a": {"b": ["${oc.decode:x}"]}})


def test_build_checks_what_it_builds():
    node = {
        "_target_": "depthnet.training.losses.DepthLoss",
        "terms": {"l1": 1.0},
        "depth_range": {"min": 0.1, "max": 10.0},
    }
    root = OmegaConf.create({"range": node["depth_range"], "loss": {**node, "depth_range": "${range}"}})
    assert type(build(root.loss, "loss")).__name__ == "DepthLoss"
    assert build(None, "logger") is None
    root.loss.terms = {"_target_": "depthnet.core.atomic_io.write_text"}
    with pytest.raises(InputError, match=r"loss\.terms: _target_ depthnet\.core\.atomic_io\.write_text"):
        build(root.loss, "loss")


def test_what_resolves_to_a_target_only_the_second_time_is_refused(tmp_path):
    evil = {"_target_": "depthnet.core.atomic_io.write_text", "path": str(tmp_path / "acted"), "text": "x"}
    timer = {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "\\${evil}"}
    root = OmegaConf.create({"evil": evil, "timer": timer})
    with pytest.raises(InputError, match="second time"):
        build(root.timer, "timer")
    assert not (tmp_path / "acted").exists()


def test_only_named_variables_of_the_environment_are_read(monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    monkeypatch.setenv("NYU_ROOT", "there")
    config = OmegaConf.create({"a": "${oc.env:NYU_ROOT,x}", "b": "${oc.env:SECRET}", "c": "${oc.env:SECRET,x}"})
    assert config.a == "there"
    for key in ("b", "c"):
        with pytest.raises(Exception, match="may not read the environment variable SECRET") as told:
            _ = config[key]
        assert "hidden" not in str(told.value)
    monkeypatch.delenv("NYU_ROOT")
    assert OmegaConf.create({"a": "${oc.env:NYU_ROOT,x}"}).a == "x"


def test_a_callback_may_be_completed_or_left_out():
    base = ["logger=none", "data=rooms", "model=tiny", "directory=here"]
    with initialize_config_dir(str(script.CONF), version_base="1.3"):
        for words in (["+callbacks.x.decay=0.9", "~callbacks.x"], ["callbacks=ema", "callbacks.average.decay=0.9"]):
            check_groups(compose("train", base + words))
