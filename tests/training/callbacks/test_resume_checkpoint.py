import pytest

from depthnet.core.types import InputError
from depthnet.run.targets import build


@pytest.mark.parametrize("every", [{"every_n_steps": 0}, {"every_n_steps": 2.5}, {"every_minutes": 0}])
def test_intervals_are_positive(tmp_path, every):
    target = "depthnet.training.callbacks.resume_checkpoint.ResumeCheckpoint"
    with pytest.raises(InputError, match=rf"callbacks\.last\.{next(iter(every))}=.*: it is a .*or null"):
        build({"last": {"_target_": target, "directory": str(tmp_path), **every}}, "callbacks")
