import pytest

from depthnet.core.types import InputError
from depthnet.training.callbacks.resume_checkpoint import ResumeCheckpoint


@pytest.mark.parametrize("every", [{"every_n_steps": 0}, {"every_n_steps": 2.5}, {"every_minutes": 0}])
def test_intervals_are_positive(tmp_path, every):
    with pytest.raises(InputError, match=rf"callbacks\.last\.{next(iter(every))}="):
        ResumeCheckpoint(tmp_path, **every)
