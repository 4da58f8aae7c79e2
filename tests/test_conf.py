"""Every option of every group is composed, checked against the allow list, and built."""

import contextlib
import importlib.util
from pathlib import Path

import pytest
from drawing import millimetres, picture
from gpus import show_gpus
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from PIL import Image

import train  # noqa: F401  registers the resolvers that conf/ calls
from depthnet.core.types import InputError
from depthnet.run.config import check_choices
from depthnet.run.provenance import RESOLVED_ONCE
from depthnet.run.targets import build, check_groups

CONF = Path(__file__).resolve().parent.parent / "conf"
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))


STATED = ["data.unit=mm", "data.depth_range={min: 0.1, max: 20}"]


def make_folder(where):
    for scene, number in (("attic", 1), ("cellar", 2)):
        for folder, what in (("images", picture), ("depths", millimetres)):
            (where / "own" / folder / scene).mkdir(parents=True, exist_ok=True)
            Image.fromarray(what(number, (48, 64))).save(where / "own" / folder / scene / "1.png")
    return where / "own"


def composed(tmp_path, *overrides):
    base = [f"directory={tmp_path}", "data.num_workers=0"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides, *base], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)  # logger/wandb.yaml reads the choices made
    with open_dict(cfg):
        cfg.pop("hydra")
    check_choices(cfg)
    check_groups(cfg, RESOLVED_ONCE)
    return cfg


def built(cfg, *parts):
    for part in parts:
        yield build(cfg[part], part)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["/".join(option) for option in OPTIONS])
def test_every_option_is_composed_and_built(tmp_path, monkeypatch, make_lists, group, option):
    monkeypatch.chdir(tmp_path)
    small = ["data=rooms", "model=tiny", "data.image_size=[96,128]", "trainer=cpu", "logger=none"]
    if group in ("experiment", "debug"):
        overrides = [f"+{group}={option}" if group not in ("experiment", "debug") else f"{group}={option}"]
        overrides += ["model.pretrained=false", "data.image_size=[96,128]", "trainer.accelerator=cpu"]
        overrides += ["trainer.precision=32-true"]
    else:
        overrides = [entry for entry in small if not entry.startswith(f"{group}=")] + [f"{group}={option}"]
    overrides += {
        ("data", "nyu"): [f"data.root={make_lists()}"],
        ("data", "folder"): [f"data.root={make_folder(tmp_path)}", *STATED],
        ("experiment", "own"): [f"data.root={make_folder(tmp_path)}", *STATED],
        ("model", "unet_attn"): ["model.encoder=test_resnet"],
        ("trainer", "gpu"): ["trainer.accelerator=cpu"],
        ("trainer", "ddp"): ["trainer.accelerator=cpu"],
        ("experiment", "nyu"): [f"data.root={tmp_path / 'nyu'}"],
        ("experiment", "nyu_small"): [f"data.root={tmp_path / 'nyu'}"],
        ("experiment", "keras"): [f"data.root={tmp_path / 'nyu'}"],
    }.get((group, option), [])
    if group == "model" and option != "tiny":
        overrides += ["++model.pretrained=false"] if option != "basic" else []
    if group == "experiment":
        make_root = tmp_path / "nyu"
        if not make_root.exists():
            make_lists()
    cfg = composed(tmp_path, *overrides)
    data, network, loss, optimizer, scheduler, _trainer = built(
        cfg, "data", "model", "loss", "optimizer", "scheduler", "trainer"
    )
    list(built(cfg, "callbacks"))
    if cfg.logger:
        missing = option == "tensorboard" and importlib.util.find_spec("tensorboard") is None
        with pytest.raises(Exception, match="pip install") if missing else contextlib.nullcontext():
            build(cfg.logger, "logger")
    schedule = scheduler(optimizer(network), 10)
    assert schedule.get_last_lr()
    assert data.layout.count("train")
    assert loss is not None


def test_an_experiment_changes_what_stands_in_train_yaml_too(tmp_path, make_lists):
    cfg = composed(tmp_path, "experiment=nyu_small", f"data.root={make_lists()}")
    assert (cfg.ckpt, cfg.trainer.max_epochs, cfg.data.extra_rooms) == ("rooms_small", 20, 700)
    assert composed(tmp_path, "experiment=nyu_small", "ckpt=mine", "debug=fast").ckpt == "mine"


def test_the_defaults_follow_the_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "rooms" in composed(tmp_path).data._target_
    (tmp_path / "data" / "nyu").mkdir(parents=True)
    assert composed(tmp_path).data.root == "data/nyu"
    monkeypatch.setenv("NYU_ROOT", "/there")
    assert composed(tmp_path).data.root == "/there"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["++loss._partial_=true"], "loss._partial_=true: leave it as conf/loss has it"),
        (["optimizer._partial_=false"], "optimizer._partial_=false: leave it as conf/optimizer has it"),
        (["~loss._target_"], ": has no _target_, so nothing is built of it; choose one of conf/loss"),
        (
            ["model._target_=depthnet.training.losses.DepthLoss"],
            "model._target_=depthnet.training.losses.DepthLoss: it is no model",
        ),
        (["+logger.x=1", "logger=none"], "logger.x=1: has no _target_"),
        (["+callbacks.x=1"], "callbacks.x=1: has no _target_, so nothing is built of it"),
        (["+trainer.default_root_dir=x"], "trainer.default_root_dir=x: the run sets it itself"),
        (["model=unet_attn"], "model.encoder: has no value; add model.encoder=VALUE"),
        (["data.depth_range=5"], "data.depth_range=5: it is {min: METERS, max: METERS}"),
        (["data.batch_size=two"], "data.batch_size=two: it is a whole number"),
        (["augment.transforms=5"], "augment.transforms=5: it is ["),  # not data.augment, which is the same node
        (["logger=wandb", "+logger.projct=x"], "takes no projct; did you mean project?"),
    ],
)
def test_a_group_that_cannot_be_built_is_refused_before_anything_is(tmp_path, words, line):
    base = ["data=rooms", *(["model=tiny"] if words != ["model=unet_attn"] else [])]
    with pytest.raises(InputError) as told:
        composed(tmp_path, *base, *words)
    assert line in str(told.value)


def test_what_a_group_may_be(tmp_path):
    composed(tmp_path, "data=rooms", "data.batch_size=auto", "callbacks.last=null", "logger.name=5", "~callbacks.best")


def test_the_depth_range_stands_once(tmp_path):
    cfg = composed(tmp_path, "data=rooms", "data.depth_range.max=8")
    assert cfg.model.depth_range.max == cfg.loss.depth_range.max == 8


@pytest.mark.parametrize("recipe", ["keras", "nyu", "own", "rooms"])
def test_a_recipe_depends_on_no_environment(tmp_path, monkeypatch, recipe):
    text = (CONF / "experiment" / f"{recipe}.yaml").read_text()
    assert "override /data:" in text
    assert "pretrained:" in text


def test_keras_is_what_was_published(tmp_path):
    cfg = composed(tmp_path, "experiment=keras")
    assert cfg.model.encoder == "inception_resnet_v2"
    assert list(cfg.data.image_size) == [240, 320]
    assert (cfg.data.batch_size, cfg.trainer.max_epochs) == (16, 15)
    assert (cfg.optimizer.algorithm, cfg.optimizer.amsgrad, cfg.optimizer.lr) == ("Adam", True, 1e-4)
    assert cfg.scheduler._target_ == "depthnet.training.schedules.linear"
    assert cfg.loss.terms == {"ssim": 1.0, "gradient": 1.0, "l1": 0.3}
    assert [entry["_target_"] for entry in cfg.augment.transforms] == ["albumentations.HorizontalFlip"]


def test_ddp_on_gpus_normalises_over_all_processes(tmp_path, monkeypatch):
    show_gpus(monkeypatch, "NVIDIA H200", capability=(9, 0))
    trainer = composed(tmp_path, "data=rooms", "model=tiny", "trainer=ddp").trainer
    assert (trainer.strategy, trainer.accelerator, trainer.sync_batchnorm) == ("ddp", "gpu", True)
    show_gpus(monkeypatch)
    trainer = composed(tmp_path, "data=rooms", "model=tiny", "trainer=ddp").trainer
    assert (trainer.strategy, trainer.accelerator, trainer.sync_batchnorm) == ("ddp", "cpu", False)


@pytest.mark.parametrize("option", ["auto", "gpu", "ddp"])
@pytest.mark.parametrize(("capability", "precision"), [((9, 0), "bf16-mixed"), ((7, 5), "16-mixed")])
def test_a_gpu_without_units_for_bf16_trains_in_float16(tmp_path, monkeypatch, option, capability, precision):
    show_gpus(monkeypatch, "some GPU", capability=capability)
    trainer = composed(tmp_path, "data=rooms", "model=tiny", f"trainer={option}").trainer
    assert (trainer.accelerator, trainer.precision, trainer.benchmark) == ("gpu", precision, True)
