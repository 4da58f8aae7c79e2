"""What runs and jobs are called, from the config that Hydra composes."""

import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

import train  # noqa: F401  registers the resolvers that conf/ calls
from depthnet.run.config import best_direction, check_choices
from depthnet.run.naming import job_name, name_run
from depthnet.run.targets import check_targets

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def composed():
    """Compose a config and name its run as train.py does."""

    def of(*overrides, sweep=None):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [*overrides, "directory=here"], return_hydra_config=True)
        choices = cfg.hydra.runtime.choices
        with open_dict(cfg):
            cfg.pop("hydra")
        if cfg.logger:
            name_run(cfg, choices, overrides, sweep)
        return cfg

    return of


def test_name_and_tags_follow_from_the_choices_and_give_way_to_the_command_line(composed):
    choices = ["data=rooms", "model=unet_attn", "model.encoder=resnet18", "loss=l1", "augment=flip", "seed=3"]
    logger = composed(*choices, "optimizer.lr=0.01", "data.num_workers=0").logger
    assert logger.name == "rooms unet_attn l1 flip seed=3 lr=0.01 encoder=resnet18"
    assert {"data=rooms", "encoder=resnet18", "loss=l1", "augment=flip", "seed=3"} <= set(logger.tags)
    assert (logger.group, logger.job_type) == (None, "fit")
    own = composed(*choices, "logger.name=mine", "logger.tags=[a,b]", "logger.group=g", "logger.job_type=try").logger
    assert (own.name, own.tags, own.group, own.job_type) == ("mine", ["a", "b"], "g", "try")


def test_a_recipe_is_named_and_an_evaluation_names_no_network_of_ours(composed):
    assert composed("experiment=rooms").logger.name == "rooms rooms irv2_attn silog_l1 flip seed=0"
    evaluated = composed("mode=test", "split=test", "data=rooms", "ckpt=a/best.ckpt").logger
    assert evaluated.name == "rooms split=test ckpt=a/best.ckpt"
    assert (evaluated.job_type, evaluated.tags) == ("test", ["data=rooms", "split=test"])


def test_a_run_from_a_checkpoint_is_named_after_it(composed):
    start = "ckpt=runs/nyu_tiny/2026-01-31/checkpoints/best.ckpt"
    assert composed("data=rooms", start, "loss=l1").logger.name.startswith("rooms from_2026-01-31 l1 ")
    assert composed("data=rooms", start, "model=tiny").logger.name.startswith("rooms tiny ")


def test_a_group_is_the_sweep(composed):
    assert composed(sweep="multirun/lr/2026-01-31").logger.group == "2026-01-31"
    assert "group" not in composed("logger=tensorboard", sweep="a").logger


def test_names_and_tags_keep_to_the_limits_of_wandb(composed):
    words = [
        "data=rooms",
        "model=unet_attn",
        f"model.encoder={'e' * 70}",
        f"+data.x={'x' * 500}",
        f"+model.y={'y' * 90}",
    ]
    logger = composed(*words, "optimizer.lr=0.000727295966282297").logger
    assert len(logger.name) == 128
    assert " seed=0 lr=0.000727 encoder=e" in logger.name
    assert max(map(len, logger.tags)) == 64


def test_a_job_is_named_by_what_sets_it_apart():
    name = job_name(["model=tiny", "seed=1"])
    assert name == "model=tiny,seed=1"
    assert name == job_name(["seed=1", "resume=auto", "+logger.project=x", "report=true", "sweep=lr", "model=tiny"])
    assert len({name, job_name(["model=tiny", "seed=2"]), job_name(["model=tiny"]), job_name(["seed=1"])}) == 4


def test_what_a_path_cannot_hold_is_a_digest():
    names = [
        job_name(["seed=1", "optimizer.lr=3e-4", word]) for word in ("data.root=/a", "data.root=/b", "+x=é", "x=[1]")
    ]
    names += [
        job_name(["seed=1", "optimizer.lr=3e-4", *(f"a.b{number}={'c' * 30}" for number in range(n))]) for n in (8, 9)
    ]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"(b\d=c{30},)*lr=3e-4,seed=1,[0-9a-f]{8}", name)
        assert len(name) < 100
    assert job_name(["data.root=/a", "optimizer.lr=3e-4", "seed=1"]) == names[0]
    assert job_name(["optimizer.lr=1", "a.lr=2"]) == "a.lr=2,optimizer.lr=1"


def test_the_jobs_of_the_wandb_sweep_are_configs_of_ours(composed):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    sweep = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
    assert (CONF.parent / sweep["program"]).is_file()
    assert sweep["metric"]["goal"] == {"max": "maximize", "min": "minimize"}[best_direction(sweep["metric"]["name"])]
    spaces = {
        name: space.get("values") or [space[key] for key in ("value", "min", "max") if key in space]
        for name, space in sweep["parameters"].items()
    }
    for number in range(max(map(len, spaces.values()))):
        args = {name: {"value": values[number % len(values)]} for name, values in spaces.items()}
        command = utils.create_sweep_command(sweep["command"])
        macros = utils.create_sweep_command_args({"args": args}) | {"program": [sweep["program"]]}
        told = [word for part in command for word in macros.get(part.strip("${}"), [part])]
        program, words = told.index("train.py"), told[told.index("train.py") + 1 :]
        assert program == 2  # after env and the interpreter
        cfg = composed(*words, "logger=none")
        check_targets(OmegaConf.to_container(cfg, resolve=True))
        check_choices(cfg)
        assert cfg.optimizer.lr == args["optimizer.lr"]["value"]
