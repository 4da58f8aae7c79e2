"""What is built is what was checked; a wrong command line is one line. tests/faults has the whole from outside."""

import importlib
import inspect
import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import train as script
from depthnet.core.types import InputError
from depthnet.run.targets import ALLOWED, build, check_command, check_groups, check_targets

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
    for target in named - {"depthnet.run.targets.SweepStart"}:
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


SCHEDULERS = "constant, cosine, linear, one_cycle"


@pytest.mark.parametrize("end", ["=null", "=3", "=1.5", "=true", "="])
@pytest.mark.parametrize("start", ["", "++"])
def test_a_group_is_chosen_by_a_name(end, start):
    with pytest.raises(InputError) as told:
        check_command([f"{start}scheduler{end}"], script.CONF)
    assert str(told.value) == f"{start}scheduler{end}: scheduler is one of {SCHEDULERS}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["~scheduler"], f"~scheduler: scheduler is one of {SCHEDULERS}"),
        (["scheduler=linaer"], "scheduler=linaer: did you mean linear?"),
        (["-m", "scheduler=linear,3"], f"scheduler=3: scheduler is one of {SCHEDULERS}"),
        (["-m", "scheduler=choice(linear,cosin)"], "scheduler=cosin: did you mean cosine?"),
        (["-m", "sweep=lr,losses"], "sweep=lr,losses: one at a time; a sweep of your own is a file of conf/sweep"),
        (["sweep=lr"], "sweep=lr is for many runs: add -m"),
    ],
)
def test_a_choice_that_cannot_be_is_a_line(words, line):
    with pytest.raises(InputError) as told:
        check_command(["model=tiny", *words], script.CONF)
    assert str(told.value) == line


def test_an_ordinary_command_passes():
    check_command([], script.CONF)
    check_command(
        ["-m", "model=tiny,basic", "loss='l1'", "optimizer.lr=-1", "~callbacks.last", "sweep=lr"], script.CONF
    )
    check_command(["--cfg", "job", "-p", "model", "experiment=nyu", "loss=[l1]", "+x=null"], script.CONF)
    check_command(["--config-dir", "mine", "experiment=mine"], script.CONF)
    check_command(["hydra.searchpath=[file:///mine]", "experiment=mine"], script.CONF)
    check_command(["-m", "loss=glob(s*)", "data.batch_size=range(1,3)"], script.CONF)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["loss.trems=2"], "loss.trems=2: there is no such key; did you mean terms?"),
        (["data.unit=mm"], "data.unit=mm: this data has no unit; add data=folder, which has"),
        (["trainer.max_steps=2"], "trainer.max_steps=2: conf/ does not set it; to add it write +trainer.max_steps=2"),
        (["lsos.unit=2"], "lsos.unit=2: there is no such key; did you mean loss?"),
        (["watch.x=2"], "watch.x=2: there is no such key"),
        (["-m", "loss.trems=2,3"], "loss.trems=2,3: there is no such key; did you mean terms?"),
        (["data.image_size.x=1"], "invalid literal for int() with base 10: 'x'"),
        (["-m", "--cfg=job"], "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified"),
        (["--resolve"], "The --resolve flag can only be used in conjunction with --cfg or --help"),
        (["+callbacks.average.decay=0.9"], "callbacks.average: has decay but no _target_, so nothing is built of it; "
         "add callbacks=ema, which has it, or ~callbacks.average"),
    ],
)  # fmt: skip
def test_what_hydra_refuses_is_a_line_with_advice(train, tmp_path, words, line):
    done = train("data=rooms", "model=tiny", "logger=none", "hydra.sweep.dir=sweep", *words)
    assert (done.code, done.err) == (2, f"error: {line}\n")
    assert not list(tmp_path.iterdir())


def test_a_callback_may_be_completed_or_left_out():
    base = ["logger=none", "data=rooms", "model=tiny", "directory=here"]
    with initialize_config_dir(str(script.CONF), version_base="1.3"):
        for words in (["+callbacks.x.decay=0.9", "~callbacks.x"], ["callbacks=ema", "callbacks.average.decay=0.9"]):
            check_groups(compose("train", base + words))


def test_a_sweep_without_its_plugin_is_a_line(train, monkeypatch):
    options = ConfigStore.instance().repo["hydra"]
    for group, name in (("sweeper", "optuna.yaml"), ("launcher", "joblib.yaml")):
        monkeypatch.delitem(options[group], name, raising=False)
    for word in ("sweep=lr", "hydra/launcher=joblib"):
        done = train("-m", "data=rooms", "model=tiny", word)
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
        assert "pip install 'depthnet[sweep]'" in done.err


def test_a_directory_of_further_configs_is_read(train, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/short.yaml").write_text("# @package _global_\nseed: 7\n")
    shown = train("--config-dir", "mine", "experiment=short", "data=rooms", "--cfg", "job", "-p", "seed")
    assert (shown.code, shown.out.split()[-1]) == (0, "7"), shown
    done = train("--config-dir", "mine", "experiment=shrot")
    assert (done.code, len(done.err.splitlines()), "short" in done.err) == (2, 1, True)
