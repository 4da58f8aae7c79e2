import pytest

from depthnet import run
from depthnet.run import best_direction, check_choices, default_data, error_line, resumable, run_directory
from depthnet.types import InputError

CHOICES = {
    "mode": "fit",
    "split": "val",
    "seed": 0,
    "ckpt": None,
    "resume": None,
    "watch": "val/delta1",
    "resume_allow": [],
}


def test_the_default_data_follows_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_data() == "rooms"
    (tmp_path / "data" / "nyu").mkdir(parents=True)
    assert default_data() == "nyu"
    (tmp_path / "data" / "nyu").rmdir()
    monkeypatch.setenv("NYU_ROOT", "/somewhere")
    assert default_data() == "nyu"


def test_directions():
    assert best_direction("val/delta2") == "max"
    assert best_direction("val/rmse") == "min"
    for watch in ("delta1", "val/loss", "test/delta1", 5):
        with pytest.raises(InputError, match="val/delta1"):
            best_direction(watch)


def test_a_run_is_named_after_data_and_encoder_and_never_shares_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.time, "strftime", lambda form: "now")
    assert run_directory("nyu", "irv2_attn", "inception_resnet_v2", "fit", None) == "runs/nyu_irv2_attn/now"
    assert run_directory("nyu", "unet_attn", "resnet50", "fit", "auto") == "runs/nyu_resnet50/now"
    assert run_directory("rooms", "basic", None, "test", None) == "runs/rooms_test/now"
    (tmp_path / "runs/nyu_irv2_attn/now").mkdir(parents=True)
    assert run_directory("nyu", "irv2_attn", None, "fit", None) == "runs/nyu_irv2_attn/now_2"


def test_only_a_run_can_be_resumed(tmp_path):
    with pytest.raises(InputError, match="no run there"):
        resumable(tmp_path)
    (tmp_path / "config.yaml").touch()
    assert run_directory("nyu", "basic", None, "fit", str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "train"),
        ("split", "train"),
        ("seed", -1),
        ("seed", "x"),
        ("seed", True),
        ("seed", 1.0),
        ("watch", "delta1"),
    ],
)
def test_impossible_choices_are_refused_by_name(key, value):
    check_choices(CHOICES)
    with pytest.raises(InputError, match=f"{key}="):
        check_choices(CHOICES | {key: value})


def test_mode_test_needs_a_checkpoint():
    with pytest.raises(InputError, match="ckpt=PATH"):
        check_choices(CHOICES | {"mode": "test"})


def test_an_error_line_is_found_under_what_libraries_wrap_around_it():
    wrapped = RuntimeError("Error in call to target\nfull_key: x")
    wrapped.__cause__ = InputError("what is wrong")
    assert error_line(wrapped) == "what is wrong"


def test_an_error_line_is_found_in_a_workers_message():
    text = "Caught InputError in worker 0.\nTraceback:\n  File\ndepthnet.types.InputError: a.png is torn\n"
    assert error_line(InputError(text)) == "a.png is torn"


def test_other_errors_are_ours_unless_named():
    assert error_line(KeyError("x")) is None
    assert error_line(ValueError("two\n lines"), also=(ValueError,)) == "two lines"
