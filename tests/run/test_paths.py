import pytest

from depthnet.core.types import InputError
from depthnet.run import paths
from depthnet.run.paths import link_latest, remove_start, run_directory


def test_a_run_is_named_after_data_and_encoder_and_never_shares_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths.time, "strftime", lambda form: "now")
    assert run_directory("nyu", "irv2_attn", "inception_resnet_v2", "fit", None) == "runs/nyu_irv2_attn/now"
    assert run_directory("nyu", "unet_attn", "resnet50", "fit", None) == "runs/nyu_resnet50/now"
    with pytest.raises(InputError, match=r"add hydra\.run\.dir=DIR"):
        run_directory("nyu", "unet_attn", "resnet50", "fit", "auto")
    assert run_directory("rooms", "basic", None, "test", None) == "runs/rooms_test/now"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")  # srun's
    with pytest.raises(InputError, match=r"4 processes were started, .* add hydra\.run\.dir=DIR"):
        run_directory("nyu", "irv2_attn", None, "fit", None)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    (tmp_path / "runs/nyu_irv2_attn/now").mkdir(parents=True)
    assert run_directory("nyu", "irv2_attn", None, "fit", None) == "runs/nyu_irv2_attn/now_2"


def test_only_a_run_can_be_resumed(tmp_path):
    with pytest.raises(InputError, match="no run there"):
        run_directory("nyu", "basic", None, "fit", str(tmp_path))
    (tmp_path / "config.yaml").touch()
    assert run_directory("nyu", "basic", None, "fit", str(tmp_path)) == str(tmp_path)


def test_latest_points_to_the_newest_run_of_a_name(tmp_path):  # outside the working directory
    for time in ("2026-01-01_00-00-00", "2026-01-02_00-00-00"):
        directory = tmp_path / "runs/rooms_tiny" / time
        directory.mkdir(parents=True)
        link_latest(directory)
    link = tmp_path / "runs/rooms_tiny/latest"
    assert link.resolve() == directory
    remove_start(directory)
    assert not link.is_symlink()
    link_latest(tmp_path)  # a directory that the user has named gets none
    assert not (tmp_path.parent / "latest").exists()
