import pytest
from omegaconf import OmegaConf

from depthnet.core.types import InputError
from depthnet.run import config as run
from depthnet.run.config import best_direction, check_choices, default_data, error_line, resumable, run_directory

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
        ("ckpt", 3),
        ("ckpt", True),
        ("compile", "ture"),
        ("report", "flase"),
        ("protocols", 3),
        ("resume", True),
        ("foo", 1),
        ("watch", "delta1"),
        ("mode", "profile"),
    ],
)
def test_impossible_choices_are_refused_by_name(key, value):
    check_choices(CHOICES)
    with pytest.raises(InputError, match=f"{key}="):
        check_choices(CHOICES | {key: value}, groups=())


@pytest.mark.parametrize("precision", [None, 32, "32-true", "bf16-mixed", "bf16", 16, "16-mixed", 64, "64-true"])
def test_precisions_that_learn_are_taken(precision):
    check_choices(CHOICES | {"trainer": {"precision": precision}})


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "transformer-engine", "transformer-engine-float16", 8])
def test_precisions_of_half_weights_are_refused_with_what_to_take(precision):
    with pytest.raises(InputError, match=rf"trainer\.precision={precision}: .*32-true.*take bf16-mixed"):
        check_choices(CHOICES | {"trainer": {"precision": precision}})


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


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),  # torchrun's second machine
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"SLURM_PROCID": "1"}, False),  # srun's second task
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # Lightning's child in a SLURM job
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
    ],
)
def test_one_process_of_a_run_is_the_first(monkeypatch, told, first):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert run.first_process() is first


def test_a_stored_config_can_be_moved_and_names_only_its_own_directory(tmp_path):
    place = tmp_path / "a run: it's long enough for its lines to be folded if its name were text # and more words"
    given = {"dirpath": f"{place}/checkpoints", "root": f"{place}_data", "list": [str(place)], "resume": "auto"}
    text = run.stored_text(OmegaConf.create(given), place)
    stored = OmegaConf.create(text)
    assert stored.root == f"{place}_data"
    assert stored.resume is None
    stored.directory = "/elsewhere"
    assert stored.dirpath == "/elsewhere/checkpoints"
    assert stored.list == ["/elsewhere"]


@pytest.mark.parametrize("allow", [None, "config", ["config", "nonsense"]])
def test_what_may_change_is_a_list_of_kinds(tmp_path, allow):
    with pytest.raises(InputError, match=r"resume_allow=.*: write a list of data, code, config"):
        run.config_of(OmegaConf.create({"resume": None, "resume_allow": allow}), tmp_path, [])


@pytest.mark.parametrize("text", ["a: &b [1]\nc: *b\n", "a: [", "a: ${", "- 1", "x: " + "y" * 1_000_001])
def test_a_stored_config_that_is_none_is_a_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    given = OmegaConf.create({"resume": str(tmp_path), "resume_allow": [], "mode": "fit"})
    with pytest.raises(InputError, match=r"config\.yaml: cannot be read as a run's config"):
        run.config_of(given, tmp_path, [])
