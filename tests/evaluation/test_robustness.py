import json

import numpy as np
import pytest
from small_run import ROOMS, write_run

from depthnet.evaluation.bootstrap import bootstrap
from depthnet.evaluation.corruptions import CORRUPTIONS
from depthnet.evaluation.frames import FrameEvaluator, open_data
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.robustness import evaluate, main, summarize
from depthnet.run.files import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("robust") / "run"
    return write_run(directory, ROOMS, open_data(ROOMS))


def test_clean_figures_are_the_runs_own_and_differences_are_paired(run):
    steps = []
    evaluator = FrameEvaluator(read_run(run))
    found = summarize(
        evaluator, evaluate(evaluator, ["dark", "noise"], lambda done, total: steps.append((done, total)))
    )
    assert list(found) == ["clean", "dark", "noise"]
    assert steps == [(n, 15) for n in range(1, 16)]
    stored = json.loads((run / "metrics.json").read_text())["protocols"][evaluator.protocol.name]
    paired = {}
    for name in ("dark", "noise"):
        pairs = [
            (evaluator.evaluate(f, CORRUPTIONS[name]).metrics, evaluator.evaluate(f).metrics, evaluator.rows[f][1])
            for f in evaluator.frames
        ]
        ends = bootstrap(
            np.array([one for one, _, _ in pairs]) - [other for _, other, _ in pairs], [s for *_, s in pairs]
        )
        paired |= {(name, metric): list(end) for metric, end in zip(METRIC_NAMES, ends, strict=True)}
    for metric in METRIC_NAMES:
        assert found["clean"][metric]["mean"] == pytest.approx(stored[metric], rel=1e-6)
        for name in ("dark", "noise"):
            figure = found[name][metric]
            assert figure["difference"] == pytest.approx(figure["mean"] - found["clean"][metric]["mean"], abs=1e-9)
            assert figure["interval"] == pytest.approx(paired[name, metric], abs=1e-12)
    assert any(abs(found["dark"][metric]["difference"]) > 1e-4 for metric in METRIC_NAMES)


def test_the_photograph_is_corrupted_and_the_ground_truth_is_not(run):
    evaluator = FrameEvaluator(read_run(run), limit=2)
    clean = evaluator.evaluate(0)
    black = evaluator.evaluate(0, lambda image, _: np.zeros_like(image))
    assert black.image.max() == 0
    assert (black.depth == clean.depth).all()
    assert (black.pred != clean.pred).any()


def test_the_command_line(run, capsys, tmp_path):
    assert main([str(run), "--corrupt", "blur,jpeg", "--limit", "3", "--output", str(tmp_path / "r.json")]) == 0
    out = capsys.readouterr().out
    for word in ("clean", "blur", "jpeg", "delta1", "JPEG of quality 10", "3 of 5 images"):
        assert word in out
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["images"] == 3
    assert list(record["figures"]) == ["clean", "blur", "jpeg"]
    assert record["protocol"] == "uncropped"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corrupt", "fog"], "--corrupt fog"),
        (["--limit", "0"], "--limit 0"),
        (["--ckpt", "nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_a_mistake_is_one_line(run, capsys, words, message):
    assert main([str(run), *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert main(["nowhere"]) == 2
