import pytest
from faults.loggers import FAULTS

pytest.importorskip("wandb")

QUICK = {
    "its server dies midway": "Timed out finishing run",
    "its process is killed midway": "log_metrics failed",
    "its disk is full": "No space left on device",
}


@pytest.mark.parametrize("fault", QUICK)
def test_training_continues(tmp_path, fault):
    try:
        survived, said = FAULTS[fault](tmp_path / "run")
    except PermissionError as error:
        pytest.skip(str(error))
    assert survived, said
    assert QUICK[fault] in said
    assert said.count("W&B: ") == 1
    assert "wandb sync " in said
    assert "Traceback" not in said
