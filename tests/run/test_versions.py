from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from depthnet.run import provenance as module
from depthnet.run.provenance import commit, versions


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "package/evaluation.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    monkeypatch.setattr(module, "__file__", str(source))
    assert commit() is None, "no repository"
    git(tmp_path, "init", "-q")
    (tmp_path / "other").write_text("1")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-qm", "one")
    assert commit() is None, "the source is not in this repository"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "two")
    git(tmp_path, "tag", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert len(head) == 40
    assert commit() == head
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert commit() == head, "a hook's environment does not mislead it"
    (tmp_path / "other").write_text("2")
    assert commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None, "no git"


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    names = {
        "python",
        "torch",
        "torchvision",
        "lightning",
        "timm",
        "numpy",
        "albumentations",
        "torchmetrics",
        "depthnet",
    }
    assert names <= found.keys()

    def missing(name: str) -> str:
        raise module.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "version", missing)
    assert versions()["timm"] is None
