"""An average of weights is one network, and only of networks that are alike."""

import pytest
import torch

from depthnet.core.atomic_io import file_digest
from depthnet.export.average import average, main
from depthnet.models.checkpoint import RECORD_KEY, make_record, read_checkpoint, save_plain
from depthnet.models.depth_net import DepthNet, load_network


def save(path, seed, **options):
    torch.manual_seed(seed)
    options = {"depth_range": (1e-3, 10.0), "image_size": (48, 64), "decoder_widths": (8,) * 5} | options
    network = DepthNet("test_resnet", **options)
    network(torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8))  # statistics of its own
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_plain(path, {"state_dict": state, RECORD_KEY: make_record(network, {"seed": seed})})
    return path


def test_every_weight_and_statistic_is_the_mean(tmp_path, capsys):
    files = [
        save(tmp_path / "run/checkpoints/best.ckpt", 0),
        save(tmp_path / "b.ckpt", 1),
        save(tmp_path / "c.ckpt", 2),
    ]
    assert main([str(tmp_path / "run"), *map(str, files[1:]), "--output", str(tmp_path / "soup.ckpt")]) == 0
    assert "the average of 3 checkpoints" in capsys.readouterr().out
    found, parts = read_checkpoint(tmp_path / "soup.ckpt"), [read_checkpoint(file).state for file in files]
    for name, value in found.state.items():
        if value.is_floating_point():
            assert torch.allclose(value, (parts[0][name] + parts[1][name] + parts[2][name]) / 3, atol=1e-6), name
    assert any(name.endswith("running_mean") and value.any() for name, value in found.state.items())
    assert found.record["run"] == {
        "averaged": [file_digest(file) for file in files],
        "runs": [{"seed": seed} for seed in range(3)],
    }
    assert load_network(tmp_path / "soup.ckpt").image_size == (48, 64)


def test_one_network_averaged_with_itself_is_itself(tmp_path):
    file = save(tmp_path / "a.ckpt", 0)
    state = read_checkpoint(file).state
    assert all(torch.equal(value, state[name]) for name, value in average([file, file]).state.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"attention": False}, "its attention differs"), ({"mean": [0.1, 0.2, 0.3]}, "its mean differs")],
)
def test_other_networks_are_refused_in_one_line(tmp_path, capsys, options, words):
    one, other = save(tmp_path / "a.ckpt", 0), save(tmp_path / "b.ckpt", 0, **options)
    for names, said in (([one, other], f"b.ckpt: not the network of {one}: {words}"), ([one], "two checkpoints")):
        assert main([*map(str, names), "--output", str(tmp_path / "soup.ckpt")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "soup.ckpt").exists()
