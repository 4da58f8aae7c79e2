"""Hydra composes nothing that acts; what is built is what was checked. tests/faults has the whole from outside."""

import pytest
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf

from depthnet.guard import GuardedLoader, build, forbid_environment, install
from depthnet.types import InputError


@pytest.fixture
def compose(tmp_path):
    """Compose a config from files as Hydra does, through the guarded loader."""

    def run(files, *overrides, mode=RunMode.RUN):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        setup_globals()
        loader = GuardedLoader(create_config_search_path(str(tmp_path)))
        return loader.load_configuration("main", list(overrides), mode)

    return run


def test_an_ordinary_config_is_composed_as_ever(compose):
    config = compose({"main.yaml": "a: 1\nhydra: {run: {dir: out}}\n"}, "a=2")
    assert (config.a, config.hydra.run.dir) == (2, "out")


@pytest.mark.parametrize("mode", [RunMode.RUN, RunMode.MULTIRUN])
def test_a_job_of_a_sweep_is_guarded_too(compose, mode):
    files = {
        "main.yaml": "defaults: [{kind: good}]\n",
        "kind/good.yaml": "a: 1\n",
        "kind/evil.yaml": "# @package hydra.job.env_set\nLD_PRELOAD: evil.so\n",
    }
    compose(files, mode=mode)
    with pytest.raises(InputError, match=r"hydra\.job\.env_set"):
        compose(files, "kind=evil", mode=mode)


def test_a_package_on_the_search_path_is_not_imported(compose, tmp_path, monkeypatch):
    (tmp_path / "evil_package").mkdir()
    (tmp_path / "evil_package/__init__.py").write_text(f"open({str(tmp_path / 'acted')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    for files, overrides in (
        ({"main.yaml": "a: 1\n"}, ["hydra.searchpath=[pkg://evil_package]"]),
        ({"main.yaml": "hydra: {searchpath: ['pkg://evil_package']}\n"}, []),
    ):
        with pytest.raises(InputError, match=r"hydra\.searchpath"):
            compose(files, *overrides)
    assert not (tmp_path / "acted").exists()


GROUPS = {
    "main.yaml": "defaults: [{kind: good}, {callbacks: default}, _self_]\nn: 1\n",
    "kind/good.yaml": "_target_: depthnet.losses.DepthLoss\nterms: {}\n",
    "kind/base.yaml": "other: 1\n",
    "kind/derived.yaml": "defaults: [base]\n",
    "callbacks/default.yaml": "{}\n",
    "callbacks/ema.yaml": "average: {_target_: lightning.pytorch.callbacks.EMAWeightAveraging}\n",
}


@pytest.mark.parametrize("word", ["kind=null", "kind=3", "kind=1.5", "kind=true", "~kind", "++kind=null"])
def test_a_group_is_chosen_by_a_name(compose, word):
    with pytest.raises(InputError) as told:
        compose(GROUPS, word)
    assert str(told.value) == f"{word}: kind is one of base, derived, good"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("kind.unit=fraction", "kind.unit=fraction: conf/ does not set it; to add it write +kind.unit=fraction"),
        ("kind.other=2", "kind.other=2: this kind has no other; add kind=base or kind=derived, which has"),
        ("kind.trems=2", "kind.trems=2: there is no such key; did you mean terms?"),
        ("knid.x=2", "knid.x=2: there is no such key"),
        ("m=2", "m=2: there is no such key; there are kind, callbacks, n"),
    ],
)
def test_a_key_that_is_not_there_is_refused_with_advice(compose, word, line):
    for mode in (RunMode.RUN, RunMode.MULTIRUN):
        with pytest.raises(InputError) as told:
            compose(GROUPS, word, mode=mode)
        assert str(told.value) == line


def test_a_callback_without_its_class_is_refused_with_the_file_that_has_it(compose):
    with pytest.raises(InputError, match=r"callbacks\.average: has decay but .* add callbacks=ema, which has it, or ~"):
        compose(GROUPS, "+callbacks.average.decay=0.9")
    compose(GROUPS, "+callbacks.average.decay=0.9", "~callbacks.average")
    compose(GROUPS, "callbacks=ema", "+callbacks.average.decay=0.9")
    with pytest.raises(InputError, match=r"callbacks\.x: has patience .* add \+callbacks\.x\._target_="):
        compose(GROUPS, "+callbacks.x.patience=3")


def test_install_puts_the_guard_where_hydra_looks(monkeypatch):
    import hydra._internal.hydra as inside

    monkeypatch.setattr(inside, "ConfigLoaderImpl", inside.ConfigLoaderImpl)
    install(["-m", "seed=1"])
    try:
        made = inside.Hydra.create_main_hydra2("name", create_config_search_path(None))
        assert isinstance(made.config_loader, GuardedLoader)
    finally:
        GlobalHydra.instance().clear()
    with pytest.raises(InputError, match="no option"):
        install(["--experimental-rerun=x"])


def test_only_named_variables_of_the_environment_are_read(monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    monkeypatch.setenv("NYU_ROOT", "there")
    forbid_environment()
    config = OmegaConf.create({"a": "${oc.env:NYU_ROOT,x}", "b": "${oc.env:SECRET}", "c": "${oc.env:SECRET,x}"})
    assert config.a == "there"
    for key in ("b", "c"):
        with pytest.raises(Exception, match="may not read the environment variable SECRET") as told:
            _ = config[key]
        assert "hidden" not in str(told.value)
    monkeypatch.delenv("NYU_ROOT")
    assert OmegaConf.create({"a": "${oc.env:NYU_ROOT,x}"}).a == "x"


def test_build_checks_what_it_builds():
    node = {"_target_": "depthnet.losses.DepthLoss", "terms": {"l1": 1.0}, "depth_range": {"min": 0.1, "max": 10.0}}
    root = OmegaConf.create({"range": node["depth_range"], "loss": {**node, "depth_range": "${range}"}})
    assert type(build(root.loss, "loss")).__name__ == "DepthLoss"
    assert build(None, "logger") is None
    root.loss.terms = {"_target_": "depthnet.durable.write_text"}
    with pytest.raises(InputError, match=r"loss\.terms: _target_ depthnet\.durable\.write_text"):
        build(root.loss, "loss")


def test_what_resolves_to_a_target_only_the_second_time_is_refused(tmp_path):
    evil = {"_target_": "depthnet.durable.write_text", "path": str(tmp_path / "acted"), "text": "x"}
    timer = {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "\\${evil}"}
    root = OmegaConf.create({"evil": evil, "timer": timer})
    with pytest.raises(InputError, match="second time"):
        build(root.timer, "timer")
    assert not (tmp_path / "acted").exists()
