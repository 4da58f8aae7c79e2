"""Every encoder keeps one contract, and weights are what their file says or an error."""

import itertools
import math
import os
import re
import socket
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants as hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from depthnet.core.types import InputError
from depthnet.export.weights import pack_weights
from depthnet.models.checkpoint import RECORD_KEY, make_record, save_plain
from depthnet.models.depth_net import DepthNet
from depthnet.models.encoder import Encoder
from depthnet.models.encoder_weights import choose_weights

NAMES = [
    "resnet50",
    "convnext_tiny",
    "mobilenetv2_100",
    "swinv2_tiny_window8_256",
    "inception_resnet_v2",
    "test_resnet",
    "lambda_resnet26t",  # takes multiples of 32 only
    "darknet17",  # has a level at the input's own size
]
DATA = Path(os.environ.get("DEPTHNET_TEST_DATA", Path(__file__).resolve().parents[3] / "shared"))
REAL = DATA / "weights/mobilenetv2_100.imagenet.safetensors"
needs_real = pytest.mark.skipif(not REAL.is_file(), reason="no real encoder weights here")


def sizes(features):
    return [tuple(feature.shape[-2:]) for feature in features]


def ceil_halved(size, reductions):
    return [tuple(math.ceil(side / reduction) for side in size) for reduction in reductions]


@torch.no_grad()
def run(encoder, size):
    torch.manual_seed(0)
    return encoder.eval()(torch.randn(1, 3, *size))


@pytest.fixture
def weights(tmp_path):
    """Write the weights of a small network to a file, after changing its tensors and its header."""

    def write(change=None, name="test_resnet", **header):
        torch.manual_seed(1)
        tensors = dict(timm.create_model(name).state_dict())
        if change:
            change(tensors)
        path = tmp_path / "weights.safetensors"
        save_file(tensors, path, metadata=header or None)
        return str(path)

    return write


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    encoder = Encoder(name)
    features = run(encoder, (97, 131))
    assert tuple(feature.shape[1] for feature in features) == encoder.channels
    for fine, coarse in itertools.pairwise(sizes(features)):
        assert fine[0] > coarse[0]
        assert fine[1] > coarse[1]
    assert 2 <= encoder.reductions[0] < encoder.reductions[-1]
    assert len(encoder.reductions) == len(features) in (4, 5)
    if name != "inception_resnet_v2":
        for size, halved in zip(sizes(features), ceil_halved((97, 131), encoder.reductions), strict=True):
            assert max(abs(size[0] - halved[0]), abs(size[1] - halved[1])) <= 1


def test_inception_resnet_v2_has_valid_convolutions_and_its_own_normalization():
    encoder = Encoder("inception_resnet_v2")
    assert encoder.channels == (64, 192, 320, 1088, 1536)
    assert sizes(run(encoder, (240, 320))) == [(117, 157), (56, 76), (27, 37), (13, 18), (6, 8)]
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)
    assert Encoder("resnet50").mean == pytest.approx((0.485, 0.456, 0.406))


def test_channels_come_second_also_where_the_network_has_them_last():
    assert Encoder("swinv2_tiny_window8_256").net.output_fmt == "NHWC"
    assert Encoder("swinv2_tiny_window8_256").channels == (96, 192, 384, 768)


def test_same_padding_halves_exactly():
    encoder = Encoder("inception_resnet_v2", pad="same")
    assert sizes(run(encoder, (240, 320))) == [(120, 160), (60, 80), (30, 40), (15, 20), (8, 10)]
    assert encoder.state_dict().keys() == Encoder("inception_resnet_v2").state_dict().keys()


@pytest.mark.parametrize("name", ["mobilenetv2_100", "convnext_tiny", "resnet50", "inception_v4", "legacy_xception"])
def test_same_padding_rounds_odd_sizes_up(name):
    encoder = Encoder(name, pad="same")
    assert sizes(run(encoder, (97, 131))) == ceil_halved((97, 131), encoder.reductions)


def test_same_padding_uses_the_networks_own_option_where_it_has_one():
    ours, timms = (
        Encoder("mobilenetv2_100", pad="same"),
        timm.create_model("mobilenetv2_100", features_only=True, pad_type="same"),
    )
    timms.load_state_dict(ours.net.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        pairs = zip(ours.eval()(image), timms.eval()(image), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_input_is_padded_to_what_the_network_takes_and_features_are_cropped():
    encoder = Encoder("lambda_resnet26t").eval()
    image = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        features = encoder(image)
        whole = encoder(torch.nn.functional.pad(image, (0, 6, 0, 26), mode="replicate"))
    assert sizes(features) == ceil_halved((70, 90), encoder.reductions)
    for part, full in zip(features, whole, strict=True):
        assert torch.equal(part, full[..., : part.shape[2], : part.shape[3]])


def test_network_of_one_size_is_refused():
    with pytest.raises(InputError, match="encoder=test_coatnet does not take images of any size"):
        Encoder("test_coatnet")


def test_the_smallest_images_are_known():
    assert not Encoder("test_resnet").takes((30, 320))
    encoder = Encoder("inception_resnet_v2")
    assert [encoder.takes(size) for size in ((60, 60), (75, 75), (74, 75))] == [False, True, False]
    assert sizes(run(encoder, (75, 75)))[-1] == (1, 1)


def test_building_does_not_leave_evaluation_mode_or_empty_tensors():
    encoder = Encoder("test_resnet")
    assert all(module.training for module in encoder.modules())
    assert {tensor.device.type for tensor in encoder.state_dict().values()} == {"cpu"}
    sum(feature.mean() for feature in encoder(torch.randn(1, 3, 64, 64))).backward()


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"resnt50.*no such network or weights; near: resnet50"):
        Encoder("resnt50")
    with pytest.raises(InputError, match="no such network or weights; near: mobilenetv2_100"):
        Encoder("mobilenetv2_100.none")
    with pytest.raises(InputError, match="no such network"):
        Encoder("hf-hub:somebody/something")
    with pytest.raises(InputError, match="encoder_pad=valid"):
        Encoder("test_resnet", pad="valid")


def test_network_without_a_pyramid_is_refused_with_near_ones_that_have_one():
    with pytest.raises(InputError, match=r"vit_tiny_patch16_224 gives no feature pyramid \(strides") as error:
        Encoder("vit_tiny_patch16_224")
    near = re.findall(r"\w+", str(error.value).partition("such as ")[2].replace(" or ", " "))
    assert len(near) == 3
    with torch.device("meta"):
        for name in near:
            assert len(set(timm.create_model(name, features_only=True).feature_info.reduction())) >= 3


@needs_real
def test_real_weights_give_the_features_of_the_call_in_their_readme(caplog):
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    stated = timm.create_model(
        "mobilenetv2_100",
        pretrained=True,
        pad_type="same",
        features_only=True,
        pretrained_cfg_overlay={"file": str(REAL), **half},
    ).eval()
    caplog.clear()
    encoder = Encoder("mobilenetv2_100", str(REAL)).eval()
    assert not caplog.records, "the notice about the classifier's keys is not for the user"
    assert encoder.channels == (16, 24, 32, 96, 320)

    image = torch.rand(1, 3, 120, 160, generator=torch.Generator().manual_seed(0))

    def normalized(mean, std):
        return (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    with torch.no_grad():
        ours = encoder(normalized(encoder.mean, encoder.std))
        right = stated(normalized(**half))
        assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True))

        imagenet = timm.get_pretrained_cfg("mobilenetv2_100")
        naive = timm.create_model(
            "mobilenetv2_100", pretrained=True, features_only=True, pretrained_cfg_overlay={"file": str(REAL)}
        ).eval()
        for wrong in (
            naive(normalized(**half)),
            stated(normalized(imagenet.mean, imagenet.std)),
            naive(normalized(imagenet.mean, imagenet.std)),
        ):
            assert not torch.allclose(wrong[-1], ours[-1], atol=0.1)

        again = Encoder("mobilenetv2_100", pad=encoder.pad).eval()  # a checkpoint has no file, and still pads so
        assert (encoder.pad, encoder.mean, encoder.std) == ("same", *half.values())
        again.load_state_dict(encoder.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(again(normalized(**half)), right, strict=True))


@needs_real
def test_symmetric_padding_in_a_header_is_the_default():
    encoder = Encoder("mobilenetv2_100", str(REAL.with_name("mobilenetv2_100.imagenet.sympad.safetensors")), pad="same")
    assert encoder.pad == "default"


def test_header_is_obeyed(weights):
    path = weights(architecture="test_resnet.tag", mean="0.1,0.2,0.3", std="0.4, 0.5, 0.6", pad_type="same")
    encoder = Encoder("test_resnet", path)
    assert encoder.mean == (0.1, 0.2, 0.3)
    assert encoder.std == (0.4, 0.5, 0.6)
    assert encoder.pad == "same"
    held = load_file(path)
    assert torch.equal(encoder.state_dict()["net.conv1.0.weight"], held["conv1.0.weight"])
    assert Encoder("test_resnet", path, mean=(0.0, 0.0, 0.0)).mean == (0.0, 0.0, 0.0), "an argument overrides"


def test_file_without_a_header_or_classifier_is_taken_with_timms_normalization(weights):
    def headless(tensors):
        del tensors["fc.weight"], tensors["fc.bias"]

    assert Encoder("test_resnet", weights(headless)).mean == timm.get_pretrained_cfg("test_resnet").mean


def drop(tensors):
    del tensors["layer1.0.conv1.weight"]


def add(tensors):
    tensors["another.weight"] = torch.zeros(1)


def reshape(tensors):
    tensors["layer1.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)


@pytest.mark.parametrize(
    ("change", "header", "message"),
    [
        (None, {"architecture": "resnet50"}, "holds resnet50, but model.encoder is test_resnet"),
        (None, {"mean": "half"}, "mean, std or pad_type is not understood"),
        (None, {"pad_type": "valid"}, "mean, std or pad_type is not understood"),
        (drop, {}, "1 keys are missing, foreign or of another shape, the first is layer1.0.conv1.weight"),
        (add, {}, "1 keys are missing, foreign or of another shape, the first is another.weight"),
        (reshape, {}, "1 keys are missing, foreign or of another shape, the first is layer1.0.conv1.weight"),
    ],
)
def test_file_that_does_not_fit_is_refused(weights, change, header, message):
    path = weights(change, **header)
    for refuse in (choose_weights, Encoder):
        with pytest.raises(InputError, match=message) as error:
            refuse("test_resnet", path)
        assert "\n" not in str(error.value)


def test_a_sound_file_of_another_name_is_refused_because_timm_would_unpickle_it(weights):
    path = Path(weights())
    other = path.rename(path.with_suffix(".pth"))
    with pytest.raises(InputError, match=r"not a \.safetensors file"):
        choose_weights("test_resnet", str(other))
    with pytest.raises(InputError, match=r"not a \.safetensors file"):
        Encoder("test_resnet", str(other))


def test_torn_foreign_and_missing_files_are_refused(weights, tmp_path):
    path = Path(weights())
    path.write_bytes(path.read_bytes()[:-1000])
    other = tmp_path / "weights.pth"
    torch.save({}, other)
    refused = {
        path: r"cannot be read \(.*\); it may be torn",
        other: r"weights\.pth: not a \.safetensors file .*; convert a PyTorch file of the encoder's weights: import",
        tmp_path: "not a .safetensors file .*nor auto, true or false",
    }
    (tmp_path / "page.safetensors").write_text("<html>404</html>")
    refused[tmp_path / "page.safetensors"] = r"not a \.safetensors file"
    for file, message in refused.items():
        with pytest.raises(InputError, match=message) as caught:
            Encoder("test_resnet", str(file))
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"model.pretrained={file}: ")
    with pytest.raises(InputError, match=r"not a \.safetensors file"):
        Encoder("test_resnet", str(tmp_path / "none.safetensors"))


def test_the_conversion_that_is_advised_works(weights, tmp_path, monkeypatch):
    tensors = load_file(weights())
    monkeypatch.chdir(tmp_path)
    for name, zipped in (("a.pth", True), ("b.bin", False)):
        torch.save(tensors, name, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError) as caught:
            choose_weights("test_resnet", name)
        exec(str(caught.value).partition("encoder's weights: ")[2])
        choose_weights("test_resnet", f"{name[0]}.safetensors")


def test_a_whole_network_is_named_with_ckpt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = DepthNet("test_resnet", depth_range=(1e-3, 10.0), image_size=(48, 64))
    record = make_record(net)
    state = {f"network.{name}": value for name, value in net.state_dict().items()}
    save_plain("run/checkpoints/best.ckpt", {"state_dict": state, RECORD_KEY: record})
    Path("net.safetensors").write_bytes(pack_weights(net.state_dict(), record))
    for name in ("run/checkpoints/best.ckpt", "run", "net.safetensors", "nyu_small"):
        with pytest.raises(InputError, match=rf"start from a network of depthnet with ckpt={name};"):
            choose_weights("test_resnet", name)


def test_offline_auto_starts_from_scratch_and_true_is_an_error_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    assert choose_weights("test_resnet", False)[0] is False
    assert choose_weights("test_resnet", "auto")[0] is False
    start = time.monotonic()
    with pytest.raises(InputError, match="not in the cache, and HF_HUB_OFFLINE forbids the hub"):
        Encoder("test_resnet", pretrained=True)
    assert time.monotonic() - start < 1
    assert choose_weights("mobilenetv2_035", "auto")[0] is False
    with pytest.raises(InputError, match="the weights of mobilenetv2_035 do not exist"):
        choose_weights("mobilenetv2_035", True)


def test_weights_in_the_cache_are_taken_without_asking_the_hub(monkeypatch, tmp_path, weights):
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    path = weights()
    Path(path).rename(snapshot / "model.safetensors")
    assert choose_weights("test_resnet", "auto")[0] is True
    encoder = Encoder("test_resnet", pretrained=True)
    held = load_file(snapshot / "model.safetensors")
    assert torch.equal(encoder.state_dict()["net.conv1.0.weight"], held["conv1.0.weight"])


class _Answers(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", "abc")
        self.send_header("Content-Length", "10")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_auto_asks_the_hub_and_does_not_wait_for_one_that_is_silent(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)

    def at(port):
        url = f"http://127.0.0.1:{port}/{{repo_id}}/{{revision}}/{{filename}}"
        monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", url)

    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        at(server.server_port)
        assert choose_weights("test_resnet", "auto")[0] is True
        server.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at(silent.getsockname()[1])
        start = time.monotonic()
        assert choose_weights("test_resnet", "auto")[0] is False
        assert time.monotonic() - start < 4
