"""Files, configs and command lines that try to run something: each that acts writes ``acted`` or tells a secret.

``KINDS`` makes the attacks, :func:`run_all` runs each in a process of its own, :func:`run_shared` several in one.
Everything lies below one folder, which is given a copy of train.py, predict.py and conf/.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image

from depthnet.models.basic import BasicNet
from depthnet.models.checkpoint import RECORD_KEY, make_record

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SECRET = "correct-horse-battery-staple"
FORCE = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
DATA = ["data=rooms", "data.frames={train: 2, val: 1, test: 1}", "data.image_size=[48,64]", "data.cache=none"]
SMALL = [*DATA, "model=tiny", "trainer=cpu", "logger=none", "data.batch_size=2", "data.num_workers=0", "debug=fast"]
STORED = {"mode": "fit", "split": "val", "seed": 0, "ckpt": None, "resume": None, "watch": "val/delta1"}


class Attack(NamedTuple):
    """What a user is made to type, and the environment it is typed in."""

    program: str
    arguments: list[str]
    environment: Mapping[str, str] = MappingProxyType({})


class Outcome(NamedTuple):
    """What became of an attack: ``line`` is the last that was printed, ``code`` the exit code."""

    kind: str
    acted: bool
    line: str
    code: int
    output: str


class _Writes:
    """Unpickled, it opens a file for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def payload(folder: Path) -> dict[str, str]:
    """Return a config node that writes the marker where it is built; Hydra's own list of bad names does not know it."""
    return {"_target_": "depthnet.core.atomic_io.write_text", "path": str(folder / "acted"), "text": "acted"}


def checkpoint(path: Path, record: dict[str, Any] | None = None, **extra: Any) -> Path:
    """Write a sound checkpoint of a small network, with changes to its record and with further keys."""
    torch.manual_seed(0)
    network = BasicNet(depth_range=(1e-3, 10.0), image_size=(48, 64))
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    whole, record = make_record(network, {}), record or {}
    whole = {**whole, **record, "config": {**whole["config"], **record.get("config", {})}}
    torch.save({"state_dict": state, RECORD_KEY: whole, **extra}, path)
    return path


def _predict(folder: Path, ckpt: Path, **environment: str) -> Attack:
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "photo.png")
    arguments = [str(folder / "photo.png"), "--ckpt", str(ckpt), "--output", str(folder / "out"), "--device", "cpu"]
    return Attack("predict", arguments, environment)


def _train(folder: Path, *overrides: str, **environment: str) -> Attack:
    return Attack("train", [*SMALL, f"hydra.run.dir={folder}/run", *overrides], environment)


def _test(folder: Path, ckpt: str) -> Attack:
    return Attack("train", [*DATA, "trainer=cpu", "logger=none", f"hydra.run.dir={folder}/run", "mode=test", ckpt])


def _saved(folder: Path, name: str, **options: Any) -> Path:
    torch.save({"state_dict": _Writes(folder / "acted")}, folder / name, **options)
    return folder / name


def _pickled(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(pickle.dumps(_Writes(folder / "acted"), protocol=2))
    return folder / name


def _npy(folder: Path, name: str) -> Path:
    np.save(folder / name, np.array([_Writes(folder / "acted")], object), allow_pickle=True)
    return folder / name


def _npy_as_depth(folder: Path) -> Attack:
    for split in ("train", "val"):
        for part in ("images", "depths"):
            (folder / "own" / part / split).mkdir(parents=True)
        Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / f"own/images/{split}/0.png")
        _npy(folder, f"own/depths/{split}/0.npy")
    own = ["data=folder", f"data.root={folder}/own", "data.unit=m", "data.depth_range={min: 0.1, max: 9}"]
    return Attack("train", [*own, "model=tiny", "trainer=cpu", "logger=none", f"hydra.run.dir={folder}/run"])


def _experiment(folder: Path, content: Any) -> Attack:
    """An experiment file, of plain data or as text, and the command line that chooses it."""
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder.parent / f"conf/experiment/{folder.name}.yaml").write_text(f"# @package _global_\n{text}")
    return _train(folder, f"experiment={folder.name}")


def _stored(folder: Path, content: dict[str, Any]) -> Attack:
    (folder / "run").mkdir()
    (folder / "run/config.yaml").write_text(yaml.safe_dump({**STORED, **content}))
    return Attack("train", [f"resume={folder}/run"])


def _yaml(folder: Path) -> str:
    return yaml.safe_dump(payload(folder), default_flow_style=True, width=10**6).strip()


def _flow(node: Any) -> str:
    """A node as an override states it."""
    if isinstance(node, dict):
        return "{" + ", ".join(f"{key}: {_flow(value)}" for key, value in node.items()) + "}"
    return f"'{node}'"


def _resumed_checkpoint(folder: Path) -> Attack:
    """A run that is sound but for its last checkpoint; its config is composed as train.py does."""
    (folder / "run/checkpoints").mkdir(parents=True)
    command = [sys.executable, "train.py", *SMALL, "--cfg", "job"]
    environment = _environment(folder, {})
    done = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True, check=True)
    config = yaml.safe_load(done.stdout) | {"directory": "x"}
    (folder / "run/config.yaml").write_text(yaml.safe_dump(config))
    for name in ("last.ckpt", "last.previous.ckpt", "best.ckpt"):
        torch.save({"state_dict": _Writes(folder / "acted")}, folder / "run/checkpoints" / name)
    return Attack("train", [f"resume={folder}/run"], FORCE)


KINDS: dict[str, Callable[[Path], Attack]] = {
    # Checkpoints
    "a pickle in a .ckpt": lambda f: _predict(f, _saved(f, "evil.ckpt")),
    "a pickle in a .ckpt, with torch told to load everything": lambda f: _predict(f, _saved(f, "evil.ckpt"), **FORCE),
    "a pickle in an old .pth": lambda f: _predict(
        f, _saved(f, "evil.pth", _use_new_zipfile_serialization=False), **FORCE
    ),
    "a bare pickle as checkpoint": lambda f: _predict(f, _pickled(f, "evil.ckpt"), **FORCE),
    "a pickle in an .npy as checkpoint": lambda f: _predict(f, _npy(f, "evil.npy"), **FORCE),
    "a pickle in an .npy as depth": _npy_as_depth,
    "_instantiator in a checkpoint's hyper_parameters": lambda f: _predict(
        f,
        checkpoint(
            f / "evil.ckpt",
            hyper_parameters={"_instantiator": "depthnet.core.atomic_io.write_text", **payload(f)},
            datamodule_hyper_parameters=payload(f),
        ),
    ),
    "a target for a network's name": lambda f: _predict(
        f, checkpoint(f / "evil.ckpt", {"network": payload(f)["_target_"]})
    ),
    "a target in a checkpoint's network config": lambda f: _predict(
        f, checkpoint(f / "evil.ckpt", {"config": {"depth_range": payload(f)}})
    ),
    "a target in a checkpoint's run config": lambda f: _predict(
        f, checkpoint(f / "evil.ckpt", {"run": {"data": payload(f)}})
    ),
    "a target in a checkpoint that is evaluated": lambda f: _test(
        f, f"ckpt={checkpoint(f / 'evil.ckpt', {'config': {'image_size': payload(f)}})}"
    ),
    "an environment variable in a checkpoint that is evaluated": lambda f: _test(
        f, f"ckpt={checkpoint(f / 'evil.ckpt', {'config': {'image_size': '${oc.env:SECRET}'}})}"
    ),
    "a pickle to fine-tune from": lambda f: _train(f, f"ckpt={_saved(f, 'evil.ckpt')}", **FORCE),
    "a pickle of pretrained weights": lambda f: _train(f, f"model.pretrained={_saved(f, 'evil.pth')}", **FORCE),
    "a pickle of pretrained weights, called safetensors": lambda f: _train(
        f, f"model.pretrained={_saved(f, 'evil.safetensors')}", **FORCE
    ),
    "a pickle in a run that is resumed": _resumed_checkpoint,
    # What a config may build
    "a target in an experiment": lambda f: _experiment(f, {"callbacks": {"x": payload(f)}}),
    "a target nested in lists": lambda f: _experiment(f, {"augment": {"transforms": [{"x": [[payload(f)]]}]}}),
    "a target behind a YAML anchor": lambda f: _experiment(f, f"x: &x {_yaml(f)}\ncallbacks: {{x: {{<<: *x}}}}"),
    "a target by interpolation": lambda f: _experiment(
        f, {"x": "text", "callbacks": {"x": {**payload(f), "_target_": "depthnet.core.atomic_io.write_${x}"}}}
    ),
    "a target from oc.decode": lambda f: _experiment(f, {"callbacks": {"x": f"${{oc.decode:{json.dumps(_yaml(f))}}}"}}),
    "a target by a second interpolation": lambda f: _experiment(
        f,
        {"x": payload(f), "callbacks": {"x": {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "\\${x}"}}},
    ),
    "a target by override": lambda f: _train(f, f"+callbacks.x={_flow(payload(f))}"),
    "a target of a module that ours import": lambda f: _experiment(
        f, {"callbacks": {"x": {**payload(f), "_target_": "depthnet.training.callbacks.history.write_text"}}}
    ),
    "a method of ours that loads pickles": lambda f: _experiment(
        f,
        {
            "callbacks": {
                "x": {
                    "_target_": "depthnet.data.datamodule.DepthDataModule.load_from_checkpoint",
                    "checkpoint_path": str(_saved(f, "evil.ckpt")),
                    "weights_only": False,
                }
            }
        },
    ),
    "a function of an allowed package": lambda f: _experiment(
        f,
        {
            "callbacks": {
                "x": {
                    "_target_": "albumentations.save",
                    "transform": {"_target_": "albumentations.HorizontalFlip"},
                    "filepath_or_buffer": str(f / "acted"),
                }
            }
        },
    ),
    "a target with _args_": lambda f: _experiment(
        f, {"callbacks": {"x": {"_target_": "builtins.open", "_args_": [str(f / "acted"), "w"], "_partial_": False}}}
    ),
    "a target in a stored config": lambda f: _stored(f, {"data": payload(f)}),
    # Resolvers that read the environment
    "an environment variable in an experiment": lambda f: _experiment(f, {"loss": {"unit": "${oc.env:SECRET}"}}),
    "an environment variable by a composed name": lambda f: _experiment(
        f, {"x": "env", "loss": {"unit": "${oc.${x}:SECRET}"}}
    ),
    "an environment variable by override": lambda f: _train(f, "protocols=${oc.env:SECRET}"),
    "an environment variable as directory": lambda f: Attack(
        "train", [*SMALL, f"hydra.run.dir={f}/run_${{oc.env:SECRET}}", "seed=-1"]
    ),
    "an environment variable shown": lambda f: Attack(
        "train", [*SMALL, "ckpt=${oc.env:SECRET}", "--cfg=job", "--resolve"]
    ),
    "an environment variable in a stored config": lambda f: _stored(f, {"watch": "${oc.env:SECRET}"}),
}


def prepare(folder: Path) -> None:
    """Give a folder the two programs and the configs."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(REPOSITORY / "conf", folder / "conf")
    for name in ("train.py", "predict.py"):
        shutil.copy(REPOSITORY / name, folder / name)


def run_one(kind: str, folder: Path) -> Outcome:
    """Run one attack in a process of its own, in a folder that :func:`prepare` made."""
    case, attack = _make(kind, folder)
    command = [sys.executable, f"{attack.program}.py", *attack.arguments]
    environment = _environment(folder, attack.environment)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return _evaluate(kind, case, done.returncode, done.stdout + done.stderr)


def run_all(folder: Path) -> list[tuple[str, bool, str]]:
    """Run every attack, each in its own process; returns (kind, whether it acted, the last line printed)."""
    prepare(folder)
    return [run_one(kind, folder)[:3] for kind in KINDS]


def run_shared(kinds: Iterable[str], folder: Path) -> list[Outcome]:
    """Run several attacks one after the other in a single process, which imports everything once."""
    prepare(folder)
    cases = [(kind, *_make(kind, folder)) for kind in kinds]
    jobs = json.dumps([[attack.program, attack.arguments, dict(attack.environment)] for _, _, attack in cases])
    environment = _environment(folder, {})
    command = [sys.executable, __file__]
    done = subprocess.run(command, input=jobs, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    results = re.split(r"^== (-?\d+)\n", done.stdout, flags=re.MULTILINE)
    assert len(results) == 2 * len(cases) + 1, done.stdout[-2000:] + done.stderr[-2000:]
    return [
        _evaluate(kind, case, int(code), output)
        for (kind, case, _), output, code in zip(cases, results[::2], results[1::2], strict=False)
    ]


def _make(kind: str, folder: Path) -> tuple[Path, Attack]:
    case = folder / re.sub(r"\W+", "_", kind.strip("_"))
    case.mkdir()
    return case, KINDS[kind](case)


def _evaluate(kind: str, case: Path, code: int, output: str) -> Outcome:
    lines = [line for line in output.splitlines() if line.strip()] or [""]
    told = SECRET in output or any(
        SECRET in path.name or (path.is_file() and SECRET.encode() in path.read_bytes()) for path in case.rglob("*")
    )
    return Outcome(kind, told or (case / "acted").exists(), lines[-1], code, output)


def _environment(folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    settings = {
        "PYTHONPATH": str(REPOSITORY),
        "SECRET": SECRET,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "WANDB_MODE": "offline",
        "DEPTHNET_CACHE": str(folder / "cache"),
    }
    return {**os.environ, **settings, **extra}


def _serve() -> None:
    """Run the jobs given on stdin, and part their outputs by lines with their exit codes."""
    sys.path.insert(0, str(Path.cwd()))
    import predict
    import train

    sys.stderr = sys.stdout
    before = dict(os.environ)
    for program, arguments, environment in json.load(sys.stdin):
        os.environ.clear()
        os.environ.update(before | environment)
        sys.argv = [f"{program}.py", *arguments]
        code: Any = 0
        try:
            code = {"train": train.main, "predict": predict.main}[program]()
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            print(f"Traceback: {error!r}")
            code = 1
        print(f"\n== {int(code or 0)}", flush=True)


if __name__ == "__main__":
    _serve()
