import functools

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision

from depthnet.core.types import DepthRange, InputError, Sample
from depthnet.data.datamodule import DepthDataModule
from depthnet.evaluation.protocols import PROTOCOLS, find_protocols
from depthnet.models.basic import BasicNet
from depthnet.models.checkpoint import RECORD_KEY, read_checkpoint
from depthnet.models.depth_net import DepthNet
from depthnet.training.callbacks.finite import FiniteSteps
from depthnet.training.checkpoint_io import DurableCheckpointIO
from depthnet.training.losses import DepthLoss
from depthnet.training.module import DepthModule
from depthnet.training.optimizers import build_optimizer
from depthnet.training.schedules import constant

RANGE = DepthRange(1e-3, 10.0)


def network():
    torch.manual_seed(0)
    return BasicNet(depth_range=RANGE, image_size=(32, 48), widths=(4, 8))


def module(net=None, **options):
    return DepthModule(
        net or network(),
        DepthLoss({"silog": 1.0, "l1": 0.5}, RANGE),
        functools.partial(build_optimizer, lr=1e-3),
        constant,
        [PROTOCOLS["uncropped"].within(RANGE)],
        **options,
    )


def trainer(tmp_path, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    settings = {"accelerator": "cpu", "use_distributed_sampler": False, "enable_checkpointing": False} | quiet
    settings["plugins"] = [DurableCheckpointIO()]
    return Trainer(default_root_dir=tmp_path, **settings | options)


@pytest.fixture
def data(make_lists):
    return DepthDataModule.from_root(make_lists(), image_size=[32, 48], batch_size=2, num_workers=0)


@pytest.mark.filterwarnings("ignore")
def test_a_fit_logs_the_terms_and_the_first_protocols_figures(tmp_path, data):
    learner = module()
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(learner, data)
    logged = fit.callback_metrics
    assert {"train/loss", "train/silog", "train/l1", "train/delta1", "val/delta1", "val/abs_rel"} <= set(logged)
    assert logged["train/loss"].item() == pytest.approx(logged["train/silog"].item() + 0.5 * logged["train/l1"].item())


@pytest.mark.filterwarnings("ignore")
def test_validation_is_one_row_an_image_whatever_the_batch(tmp_path, make_lists):
    root = make_lists(val=5)
    figures = []
    for batch in (1, 2, 5):
        data = DepthDataModule.from_root(root, image_size=[32, 48], eval_batch_size=batch, num_workers=0)
        learner = module()
        trainer(tmp_path).validate(learner, data, verbose=False)
        assert learner.evaluation.rows("uncropped")[0] == [0, 1, 2, 3, 4]
        figures.append(learner.evaluation.figures()["uncropped"]["rmse"])
    assert figures == pytest.approx([figures[0]] * 3, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_gives_the_network_back_to_the_last_bit(tmp_path, data):
    learner = module(run={"seed": 0})
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(learner, data)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    saved = read_checkpoint(tmp_path / "a.ckpt")
    assert saved.record["run"] == {"seed": 0}
    from depthnet.models.depth_net import load_network

    image = torch.randint(0, 256, (2, 3, 33, 47), dtype=torch.uint8)
    again = load_network(tmp_path / "a.ckpt")
    with torch.no_grad():
        assert torch.equal(again(image), learner.network.eval()(image))
    raw = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert raw[RECORD_KEY]["network"] == "BasicNet"


@pytest.mark.filterwarnings("ignore")
def test_dropout_is_a_function_of_seed_epoch_and_batch():
    learner = module(seed=5)
    draws = []
    for epoch, number in ((3, 1), (4, 1), (3, 2), (3, 1)):
        learner._trainer = type("T", (), {"current_epoch": epoch, "global_rank": 0})()
        learner.on_train_batch_start(None, number)
        draws.append(torch.rand(1).item())
    assert draws[0] == draws[3]
    assert len(set(draws)) == 3


def test_the_averages_of_an_epoch_are_of_its_images_and_outlive_a_checkpoint():
    learner, other = module(), module()
    for count, loss in ((3, 1.0), (1, 5.0), (2, float("nan"))):
        learner._add({"loss": torch.tensor(loss), "delta1": torch.tensor(0.5), "l1": torch.tensor(loss)}, count)
    checkpoint = {"callbacks": {}}
    learner.on_save_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    logged = {}
    other.log_dict = lambda values, **options: logged.update(values)
    other.on_train_epoch_end()
    assert {name: value.item() for name, value in logged.items()} == {
        "train/loss": 2.0,
        "train/delta1": 0.5,
        "train/l1": 2.0,
    }
    other.on_train_epoch_start()
    assert not other._sums


class Slanted(torch.nn.Module):
    """Sees more depth to the right, whatever the image."""

    def forward(self, image):
        return image[:, :1].float() / 64 + torch.linspace(1, 3, image.shape[-1])


@pytest.mark.parametrize("names", [["uncropped"], ["uncropped", "uncropped_flip"]])
def test_the_mirrored_image_is_seen_only_when_a_protocol_averages_it(names):
    protocols = [found.within(RANGE) for found in find_protocols(names, "raw", (4, 6))]
    network = Slanted()
    seen = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    learner = DepthModule(network, DepthLoss({"l1": 1.0}, RANGE), None, None, protocols)
    image = torch.randint(0, 256, (2, 3, 4, 6), dtype=torch.uint8, generator=torch.manual_seed(0))
    depth = image[:, :1].float() / 64 + 2  # what the mean of both sides is
    learner.on_validation_epoch_start()
    learner.validation_step(Sample(image, depth, depth > 0, torch.arange(2)), 0)
    assert len(seen) == len(names)
    figures = learner.evaluation.figures()
    assert figures["uncropped"]["rmse"] > 0.5
    if len(names) == 2:
        assert torch.equal(seen[1], image.flip(-1))
        assert figures["uncropped_flip"]["rmse"] == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_schedule_without_an_end_is_refused(tmp_path, data):
    with pytest.raises(InputError, match="schedule needs an end"):
        trainer(tmp_path, max_epochs=-1).fit(module(), data)


@pytest.mark.filterwarnings("ignore")
def test_a_fused_optimiser_clips_like_any_other_in_mixed_precision(tmp_path, data):
    """SGD of rate 1, so that the step is the gradient; its norm is clipped far below what it is."""
    moved = {}
    for fused in (False, True, "by value"):
        learner = module()
        learner._optimizer = functools.partial(
            build_optimizer, algorithm="SGD", lr=1.0, weight_decay=0.0, fused=bool(fused) or None
        )
        before = torch.cat([p.detach().flatten().clone() for p in learner.parameters()])
        by = {"gradient_clip_algorithm": "value"} if fused == "by value" else {}
        clipped = {"max_steps": 1, "precision": "bf16-mixed", "gradient_clip_val": 1e-3, "limit_val_batches": 0}
        trainer(tmp_path, **clipped, **by).fit(learner, data)
        moved[fused] = torch.cat([p.detach().flatten() for p in learner.parameters()]) - before
    assert moved[True].norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert torch.allclose(moved[True], moved[False], atol=1e-6)
    assert moved["by value"].abs().max().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", ["SGD", "AdamW"])
@pytest.mark.parametrize("clip", [1e-3, None])
def test_float16_steps_with_a_fused_optimiser_as_with_any_other(tmp_path, data, algorithm, clip):
    """On the CPU, with a GPU's loss scale: a step is that of float32, its gradient clipped after unscaling."""
    moved, seen = {}, {}
    for fused, precision in ((False, "32-true"), (False, "16-mixed"), (True, "16-mixed")):
        learner = module()
        rate = 1.0 if algorithm == "SGD" else 1e-3
        learner._optimizer = functools.partial(
            build_optimizer, algorithm=algorithm, lr=rate, weight_decay=0.0, fused=fused or None
        )
        before = torch.cat([p.detach().flatten().clone() for p in learner.parameters()])
        norms = []

        class Looks(Callback):
            def on_before_optimizer_step(self, trainer, pl_module, optimizer, norms=norms):
                norms.append(torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()]).item())

        plugins = [DurableCheckpointIO()]
        if precision == "16-mixed":
            plugins.append(MixedPrecision(precision, "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0)))
        options = {"max_steps": 1, "gradient_clip_val": clip, "limit_val_batches": 0, "plugins": plugins}
        trainer(tmp_path, callbacks=[Looks(), FiniteSteps(tmp_path)], **options).fit(learner, data)
        moved[fused, precision] = torch.cat([p.detach().flatten() for p in learner.parameters()]) - before
        seen[fused, precision] = norms[0]
    full, half = moved[False, "32-true"], moved[True, "16-mixed"]
    assert torch.allclose(half, moved[False, "16-mixed"], atol=1e-6)
    assert torch.cosine_similarity(half, full, 0) > 0.95  # AdamW's first step is the sign of the gradient
    assert seen[True, "16-mixed"] == pytest.approx(seen[False, "32-true"], rel=0.05)
    if clip and algorithm == "SGD":
        assert half.norm().item() == pytest.approx(clip, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_a_float16_gradient_that_overflows_lowers_the_scale_and_takes_no_step(tmp_path, data):
    learner, scaler = module(), torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-32)
    learner._optimizer = functools.partial(build_optimizer, fused=True)
    before = [p.detach().clone() for p in learner.parameters()]
    plugins = [DurableCheckpointIO(), MixedPrecision("16-mixed", "cpu", scaler)]
    options = {"gradient_clip_val": 1.0, "limit_val_batches": 0, "plugins": plugins}
    finite = FiniteSteps(tmp_path, limit=1)  # an overflow is the scale's to answer, and no corrupted step
    trainer(tmp_path, max_steps=1, callbacks=[finite], **options).fit(learner, data)
    assert all(torch.equal(p, was) for p, was in zip(learner.parameters(), before, strict=True))
    assert scaler.get_scale() == 256.0
    trainer(tmp_path, max_steps=1, callbacks=[finite], **options).fit(learner, data)
    assert not any(torch.equal(p, was) for p, was in zip(learner.parameters(), before, strict=True))


def test_a_checkpoints_sums_are_gathered_on_the_device_of_the_weights(monkeypatch):
    learner = module().to("meta")  # stands for a GPU, whose collectives take no tensor of the CPU
    learner._sums = {"": torch.tensor(4.0), "loss": torch.tensor(2.0)}
    places = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather", lambda found, own: places.append(own.device.type))
    assert {name: total.shape for name, total in learner._all_sums().items()} == {"": (2,), "loss": (2,)}
    assert places == ["meta"]


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (functools.partial(BasicNet, widths=(4, 8, 8)), (4, 4)),
        (functools.partial(DepthNet, "test_resnet", decoder_widths=(8, 8, 8, 8, 8)), (32, 32)),
        (functools.partial(DepthNet, "test_resnet", decoder_widths=(8, 8, 8, 8, 8), context=True), (32, 32)),
        (functools.partial(DepthNet, "test_resnet", decoder_widths=(8,) * 5, frozen_norm=True), (32, 32)),
    ],
)
def test_a_batch_of_one_that_leaves_nothing_to_normalise_is_refused_by_name(net, size):
    learner = module(net(depth_range=RANGE, image_size=size))
    learner.log_dict = lambda *values, **options: None

    def step(images):
        depth = torch.ones(images, 1, *size)
        image = torch.zeros(images, 3, *size, dtype=torch.uint8)
        return learner.training_step(Sample(image, depth, depth > 0, torch.arange(images)), 0)

    words = rf"batches of 1 image of {size[0]}x{size[1]} .*larger data\.batch_size .*larger data\.image_size"
    with pytest.raises(InputError, match=words):
        step(1)
    assert step(2).isfinite()
