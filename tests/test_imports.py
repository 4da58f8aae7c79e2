"""The shape of the package: floors of folders, and each heavy library where it belongs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "core": 0,
    "data": 1,
    "models": 1,
    "run": 1,
    "evaluation": 2,
    "training": 3,
    "inference": 3,
    "export": 3,
    "cli": 4,
    "__main__": 5,
}
"""Folders of depthnet/; one imports from lower floors only, and folders of one floor do not know each other."""

HOMES = {
    "timm": ("models.", "training.sync_norm"),
    "albumentations": ("data.transforms",),
    "lightning": ("data.datamodule", "training.", "train"),
    "wandb": ("training.",),
    "hydra": ("run.", "training.sweep", "train"),
}
"""The modules and folders that may import a library."""


def sources():
    for path in [*ROOT.glob("depthnet/**/*.py"), ROOT / "train.py", ROOT / "predict.py"]:
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


MODULES = dict(sources())


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield full if full in MODULES else str(node.module)


def folder(name):
    """The folder of a module, such as "data"; empty for the package itself and the scripts."""
    parts = name.split(".")
    return parts[1] if parts[0] == "depthnet" and len(parts) > 1 else ""


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_to_lower_floors(name):
    for target in imported(MODULES[name]):
        here, there = folder(name), folder(target)
        if here and there and here != there:
            assert FLOORS[there] < FLOORS[here], f"{name} imports {target}, which is not on a lower floor"
        homes = HOMES.get(target.split(".")[0], ())
        own = name.removeprefix("depthnet.")
        at_home = any(own == home or (home.endswith(".") and own.startswith(home)) for home in homes)
        assert at_home or not homes, f"{name} imports {target}, which belongs in {homes}"


def test_no_module_imports_itself_in_a_circle():
    edges = {name: {target for target in imported(path) if target in MODULES} for name, path in MODULES.items()}
    while free := [name for name, targets in edges.items() if not targets & edges.keys()]:
        for name in free:
            del edges[name]
    assert not edges, f"in a circle, or above one: {sorted(edges)}"


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("depthnet.inference.predict", {"lightning", "hydra", "albumentations", "wandb"}),
        ("depthnet.evaluation.compare", {"torch", "lightning", "hydra", "timm", "PIL"}),
        ("depthnet.evaluation.report.write", {"lightning", "hydra", "albumentations", "wandb", "torch"}),
        ("depthnet.evaluation.report.page", {"lightning", "hydra", "albumentations", "wandb"}),
        ("depthnet.training.sweep", {"torch", "lightning", "hydra", "timm", "PIL"}),
        ("depthnet.evaluation.predictions", {"lightning", "hydra", "albumentations", "wandb"}),
        ("depthnet.models.depth_net", {"lightning", "hydra", "albumentations", "wandb"}),
        ("predict", {"lightning", "hydra", "albumentations", "wandb", "torch", "timm"}),
        ("train", {"lightning", "torch", "timm", "albumentations", "wandb"}),
        ("depthnet", {"torch", "numpy"}),
        ("depthnet.data", {"torch", "numpy"}),
        ("depthnet.models", {"torch", "numpy"}),
    ],
)
def test_an_import_stays_light(module, banned):
    program = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}} & {banned!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_no_file_has_an_empty_name():
    for path in MODULES.values():
        assert path.stem not in {"utils", "common", "helpers", "components", "base", "manager"}
