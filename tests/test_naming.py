"""What a run is called in W&B, from the config that Hydra composes."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

import train  # noqa: F401  registers the resolvers that conf/ calls
from depthnet.guard import GROUPS, check_targets
from depthnet.naming import run_group, run_name, run_tags
from depthnet.run import best_direction, check_choices

CONF = Path(__file__).resolve().parent.parent / "conf"


@pytest.fixture
def composed():
    """Compose a config as train.py does, with Hydra's own part, which logger/wandb.yaml reads."""

    def of(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [*overrides, "directory=here"], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            cfg.pop("hydra")
        return cfg

    yield of
    HydraConfig.instance().cfg = None


def test_name_and_tags_follow_from_the_choices_and_give_way_to_the_command_line(composed):
    choices = ["data=rooms", "model=unet_attn", "model.encoder=resnet18", "loss=l1", "augment=flip", "seed=3"]
    logger = composed(*choices, "optimizer.lr=0.01", "data.num_workers=0").logger
    assert logger.name == "rooms resnet18 l1 flip seed=3 lr=0.01"
    assert {"data=rooms", "encoder=resnet18", "loss=l1", "augment=flip", "seed=3"} <= set(logger.tags)
    assert (logger.group, logger.job_type) == (None, "fit")
    OmegaConf.resolve(logger)  # as --cfg job --resolve does
    own = composed(*choices, "logger.name=mine", "logger.tags=[a,b]", "logger.group=g", "logger.job_type=try").logger
    assert (own.name, own.tags, own.group, own.job_type) == ("mine", ["a", "b"], "g", "try")


def test_a_recipe_is_named_and_a_judgement_names_no_network_of_ours(composed):
    assert composed("experiment=rooms").logger.name == "rooms rooms irv2_attn silog_l1 flip seed=0"
    judged = composed("mode=test", "split=test", "data=rooms", "ckpt=a/best.ckpt").logger
    assert judged.name == "rooms split=test ckpt=a/best.ckpt"
    assert (judged.job_type, judged.tags) == ("test", ["data=rooms", "split=test"])


def test_a_group_is_the_sweep():
    assert run_group("RUN", "multirun/a") is None
    assert run_group("MULTIRUN", "multirun/lr/2026-01-31") == "2026-01-31"


def test_names_and_tags_keep_to_the_limits_of_wandb():
    choices = {"data": "rooms", "model": "unet_attn"}
    long = f"data.lists={'x' * 500}", f"model.mean={'y' * 200}"
    name = run_name("fit", choices, None, 7, [*long, "optimizer.lr=0.1"])
    assert len(name) == 128
    assert name.startswith("rooms unet_attn seed=7 lr=0.1 mean=yy")
    assert max(map(len, run_tags("fit", choices, "e" * 90, 0, "val"))) == 64


def test_what_a_sampler_drew_stands_before_what_all_jobs_share():
    words = ["optimizer.lr=0.000727295966282297", "a.x=1", "b.x=2", "optimizer.weight_decay=0.006431172050131994"]
    name = run_name("fit", {"data": "nyu", "model": "unet_attn"}, "resnet18", 0, [*words, "model.encoder=resnet18"])
    assert name == "nyu resnet18 seed=0 lr=0.000727 weight_decay=0.00643 a.x=1 b.x=2"


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
        check_choices(cfg, GROUPS)
        assert cfg.optimizer.lr == args["optimizer.lr"]["value"]
