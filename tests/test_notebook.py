"""docs/quickstart.ipynb runs from its first cell to its last, and is stored without outputs."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
PATH = Path(__file__).resolve().parent.parent / "docs/quickstart.ipynb"


def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(PATH, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [kind for cell in code for output in cell.outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 4  # rooms, panel, photograph, prediction
    text = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "delta1 0." in text
    assert "room_depth.npy" in text
