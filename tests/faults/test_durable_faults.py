import pytest
from faults.writes import run_all

FAULTS = {
    "kill between calls": 30,
    "kill during saves, TMPDIR elsewhere": 20,
    "file size limit during a save": 4,
    "full disk during a save": 0,  # only where this user can mount one
    "flipped bit in a checkpoint": 200,
    "kill during predict.py": 4,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return {fault: counts for fault, *counts in run_all(tmp_path_factory.mktemp("writes"), quick=True)}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost(rows, fault):
    tries, landed, survived, lost = rows[fault]
    assert tries >= landed >= FAULTS[fault]
    assert (survived, lost) == (landed, 0)


@pytest.mark.slow
def test_every_fault_is_looked_at(rows):
    assert rows.keys() == FAULTS.keys()
