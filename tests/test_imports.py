"""The shape of the package: imports point strictly down, and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    {"types"},
    {
        "durable",
        "arguments",
        "words",
        "command",
        "progress",
        "intervals",
        "signals",
        "shipped",
        "weights_kind",
        "data.official",
    },
    {"image", "changes", "guard", "per_image", "device"},
    {"naming", "camera"},
    {
        "data.layout",
        "data.scenes",
        "data.findings",
        "data.transforms",
        "data.sampling",
        "data.raycast",
        "data.textures",
        "models.encoder",
        "models.attention",
        "models.network",
        "losses",
        "metrics",
        "protocol",
        "visualize",
        "sharpness",
        "corruptions",
        "checkpoint",
        "run",
        "optim",
    },
    {
        "data.files",
        "data.manifest",
        "data.cache",
        "data.furniture",
        "data.dataset",
        "report.atlas",
        "report.charts",
        "models.decoder",
        "models.basic",
        "models.published",
        "terms",
        "overview",
        "sync_norm",
    },
    {"data.labelled", "data.lists", "data.kaggle", "data.folder", "data.check", "data.rooms"},
    {"data.roots", "data.prepare", "data.download"},
    {"data.datamodule", "models.depth_net", "evaluation", "loggers", "ema"},
    {"module", "callbacks", "dashboard", "saving", "finite", "fine_tune", "prediction", "report.judge"},
    {"report.page", "card", "batch_size", "sweep"},
    {"report.write"},
    {"resume"},
    {"train", "predict", "score", "compare", "robustness", "export", "average", "data.__main__", "report.__main__"},
]
HOMES = {
    "timm": {"models.encoder", "sync_norm"},
    "albumentations": {"data.transforms"},
    "lightning": {
        *("data.datamodule", "module", "callbacks", "saving", "finite", "loggers", "batch_size", "resume"),
        *("dashboard", "sync_norm", "ema", "overview"),
        "train",
    },
    "wandb": {"loggers"},
    "hydra": {"train", "guard"},
}
APART = ("data", "models", "losses", "metrics", "protocol")


def sources():
    files = [*ROOT.glob("depthnet/**/*.py"), ROOT / "train.py", ROOT / "predict.py"]
    for path in files:
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("depthnet."), path


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            package = node.module in ("depthnet", "depthnet.data", "depthnet.models", "depthnet.report")
            yield from (f"{node.module}.{name.name}" for name in node.names) if package else [node.module]


def layer(name):
    found = [number for number, names in enumerate(LAYERS) if name in names]
    assert found, f"{name} has no layer: give it one in {__file__}"
    return found[0]


@pytest.mark.parametrize(("name", "path"), list(sources()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_strictly_down(name, path):
    for target in imported(path):
        if target.startswith("depthnet."):
            other = target.removeprefix("depthnet.")
            assert layer(other) < layer(name), f"{name} imports {other}, which is not below it"
            parts = {part for part in APART if name.split(".")[0] == part or other.split(".")[0] == part}
            assert len(parts) < 2 or name.split(".")[0] not in APART, f"{name} imports {other}; they never meet there"
        root = target.split(".")[0]
        assert name in HOMES.get(root, {name}), f"{name} imports {root}, which belongs in {HOMES[root]}"


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("depthnet.prediction", {"lightning", "hydra", "albumentations", "wandb"}),
        ("depthnet.compare", {"torch", "lightning", "hydra", "timm", "PIL"}),
        ("depthnet.report.write", {"lightning", "hydra", "albumentations", "wandb", "torch"}),
        ("depthnet.report.page", {"lightning", "hydra", "albumentations", "wandb"}),
        ("depthnet.sweep", {"torch", "lightning", "hydra", "timm", "PIL"}),
        ("depthnet.score", {"lightning", "hydra", "albumentations", "wandb"}),
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
    for _, path in sources():
        assert path.stem not in {"utils", "common", "helpers", "components", "base", "manager"}
