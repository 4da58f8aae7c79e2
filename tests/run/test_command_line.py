"""A wrong command line is one line."""

import pytest
from hydra.core.config_store import ConfigStore

import train as script
from depthnet.core.types import InputError
from depthnet.run.command_line import check_command


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-m", "scheduler=linear,3"], "scheduler=3: there are constant, cosine, linear, one_cycle"),
        (["-m", "scheduler=choice(linear,cosin)"], "scheduler=cosin: did you mean cosine?"),
        (["-m", "sweep=lr,losses"], "sweep=lr,losses: one at a time; a sweep of your own is a file of conf/sweep"),
        (["sweep=lr"], "sweep=lr is for many runs: add -m"),
        (
            ["-m", "hydra.sweeper.direction=minimize"],
            "hydra.sweeper.direction=minimize: which way is better follows from watch=; leave it out",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_a_line(words, line):
    with pytest.raises(InputError) as told:
        check_command(["model=tiny", *words], script.CONF)
    assert str(told.value) == line


def test_an_ordinary_command_passes():
    check_command([], script.CONF)
    check_command(
        ["-m", "model=tiny,basic", "loss='l1'", "optimizer.lr=-1", "~callbacks.last", "sweep=lr"], script.CONF
    )
    check_command(["--cfg", "job", "-p", "model", "experiment=nyu", "loss=[l1]", "+x=null"], script.CONF)
    check_command(["--config-dir", "mine", "experiment=mine"], script.CONF)
    check_command(["hydra.searchpath=[file:///mine]", "experiment=mine"], script.CONF)
    check_command(["-m", "loss=glob(s*)", "data.batch_size=range(1,3)"], script.CONF)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tiny"], "tiny: write KEY=VALUE; did you mean model=tiny?"),
        (["-m", "seed"], "seed: write KEY=VALUE"),
        (["scheduler=linaer"], "scheduler=linaer: did you mean linear?"),
        (["~scheduler"], "scheduler=null: choose one of conf/scheduler, such as scheduler=NAME"),
        (["scheduler=null"], "scheduler=null: scheduler is one of constant, cosine, linear, one_cycle"),
        (["scheduler=3"], "scheduler=3: scheduler is one of constant, cosine, linear, one_cycle"),
        (["scheduler="], "scheduler=: scheduler is one of constant, cosine, linear, one_cycle"),
        (["loss.trems=2"], "loss.trems=2: there is no such key; did you mean terms?"),
        (["trainer.min_steps=2"], "trainer.min_steps=2: conf/ does not set it; to add it write +trainer.min_steps=2"),
        (["lsos.unit=2"], "lsos.unit=2: there is no such key; did you mean loss?"),
        (["watch.x=2"], "watch.x=2: there is no such key"),
        (["-m", "loss.trems=2,3"], "loss.trems=2,3: there is no such key; did you mean terms?"),
        (["data.image_size.x=1"], "invalid literal for int() with base 10: 'x'"),
        (["-m", "--cfg=job"], "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified"),
        (["--resolve"], "The --resolve flag can only be used in conjunction with --cfg or --help"),
        (["+callbacks.average.decay=0.9"], "callbacks.average={decay:0.9}: has no _target_, so nothing is built of "
         "it; choose one of conf/callbacks, such as callbacks=NAME, or leave it out: ~callbacks.average"),
    ],
)  # fmt: skip
def test_what_hydra_refuses_is_a_line_with_advice(train, tmp_path, words, line):
    done = train("data=rooms", "model=tiny", "logger=none", "hydra.sweep.dir=sweep", *words)
    assert (done.code, done.err) == (2, f"error: {line}\n")
    assert not list(tmp_path.iterdir())


def test_a_sweep_without_its_plugin_is_a_line(train, monkeypatch):
    options = ConfigStore.instance().repo["hydra"]
    for group, name in (("sweeper", "optuna.yaml"), ("launcher", "joblib.yaml")):
        monkeypatch.delitem(options[group], name, raising=False)
    for word in ("sweep=lr", "hydra/launcher=joblib"):
        done = train("-m", "data=rooms", "model=tiny", word)
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
        assert "pip install '.[sweep]'" in done.err


def test_a_directory_of_further_configs_is_read(train, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/short.yaml").write_text("# @package _global_\nseed: 7\n")
    shown = train("--config-dir", "mine", "experiment=short", "data=rooms", "--cfg", "job", "-p", "seed")
    assert (shown.code, shown.out.split()[-1]) == (0, "7"), shown
    done = train("--config-dir", "mine", "experiment=shrot")
    assert (done.code, len(done.err.splitlines()), "short" in done.err) == (2, 1, True)
