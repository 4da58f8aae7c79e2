import pytest
from omegaconf import OmegaConf

from depthnet.core.types import InputError
from depthnet.run.config import best_direction, check_choices, default_data, plain_config, stored_config

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
        check_choices(CHOICES | {key: value})


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


def test_a_stored_config_can_be_moved_and_names_only_its_own_directory(tmp_path):
    place = tmp_path / "a run: it's long enough for its lines to be folded if its name were text # and more words"
    given = {"dirpath": f"{place}/checkpoints", "root": f"{place}_data", "list": [str(place)], "resume": "auto"}
    stored = OmegaConf.create(plain_config(OmegaConf.create(given), place))
    assert stored.root == f"{place}_data"
    assert stored.resume is None
    stored.directory = "/elsewhere"
    assert stored.dirpath == "/elsewhere/checkpoints"
    assert stored.list == ["/elsewhere"]


@pytest.mark.parametrize("allow", [None, "config", ["config", "nonsense"]])
def test_what_may_change_is_a_list_of_kinds(allow):
    with pytest.raises(InputError, match=r"resume_allow=.*: it is \[.data. or .code. or .config., \.\.\.\]"):
        check_choices(CHOICES | {"resume_allow": allow})


@pytest.mark.parametrize("text", ["a: &b [1]\nc: *b\n", "a: [", "a: ${", "- 1", "x: " + "y" * 1_000_001])
def test_a_stored_config_that_is_none_is_a_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml: cannot be read, torn"):
        stored_config(tmp_path)
