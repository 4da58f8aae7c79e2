import dataclasses
import re

import pytest
import yaml
from small_run import ROOMS, from_root, write_run

from depthnet.core.types import DepthRange
from depthnet.data.layouts.registry import open_root
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.export.card import Export, model_card
from depthnet.export.portable import portable
from depthnet.export.terms import NYU_LICENSE, Origin, find_origin
from depthnet.models.depth_net import load_network
from depthnet.run.files import read_run

RANGE = DepthRange(1e-3, 10.0)
EXPORT = Export(
    name="small",
    command="python train.py experiment=nyu_small data.root=/work/nyu",
    origin=Origin(frozenset({"rooms"})),
    terms="mit",
    notes=["It saw no street."],
    size=1234567,
    digest="d1935t",
    changes=(1.23e-4, 4.56e-3),
)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    layout = RoomsLayout(ROOMS["frames"], (48, 64), 3, RANGE)
    return read_run(write_run(tmp_path_factory.mktemp("run"), ROOMS, layout, protocols=["uncropped", "median_scaled"]))


def card(run, export=EXPORT, **config):
    run = dataclasses.replace(run, config=run.config | config)
    return model_card(run, load_network(run.directory / "checkpoints/best.ckpt"), export)


def head(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_it_states_what_the_run_knows(rooms):
    text = card(rooms, model={"pretrained": "/srv/w/net.safetensors"})
    said = head(text)
    (model,) = said.pop("model-index")
    assert said == {"license": "mit", "library_name": "depthnet", "pipeline_tag": "depth-estimation"}
    (result,) = model["results"]
    assert (model["name"], result["task"]["type"]) == ("small", "depth-estimation")
    dataset = {"type": "rooms", "name": "built-in rooms, scene seed 3", "config": "uncropped", "split": "val"}
    assert result["dataset"] == dataset
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == rooms.metrics["protocols"]["uncropped"]
    for words in (
        "# small\n",
        "`DepthNet` with the encoder test_resnet",
        "It predicts depths of\n0.001 to 10 m, and sees a photograph at 48x64",
        "1,234,567 bytes",
        "SHA-256: `d1935t`",
        "--ckpt small",
        'depthnet.load("small")',
        "- Data: built-in rooms, scene seed 3; 5 val, 2 test; filled ground truth; images 48x64\n",
        "- First weights: those of PATH/net.safetensors for the encoder\n",
        "- Seed: 0\n",
        "- Command: `python train.py experiment=nyu_small data.root=PATH`\n",
        "- Commit: c0ffee\n",
        "- Versions: torch 2\n",
        "Evaluated on val, 5 images, before the weights were rounded. The weights were chosen by `val/delta1` on these",
        "95%",
        "- It saw no street.\n- Nothing beyond 10 m",
        "Rounding to float16 changes depth by 1.2e-04 of itself on average and 4.6e-03 at most, on built-in rooms.",
        "## License\n\n- Weights: mit\n- Data: The built-in rooms are made by depthnet itself and carry no "
        "third-party rights.\n",
    ):
        assert words in text, words
    assert portable(text) == text


def test_its_figures_are_the_runs_with_their_intervals(rooms):
    text = card(rooms)
    for protocol, figures in rooms.metrics["protocols"].items():
        section = text.split(f"### {protocol}\n\n{rooms.metrics['definitions'][protocol]}\n")[1].split("###")[0]
        rows = re.findall(r"^\| (\w+)(?: \[m\])? \| (\S+) \| (\S+) to (\S+) \| (\S+) \|$", section, re.MULTILINE)
        assert len(rows) == len(figures) == 9
        for name, value, low, high, constant in rows:
            ends = rooms.metrics["intervals"][protocol][name]
            found = [float(number) for number in (value, low, high, constant)]
            assert found == pytest.approx([figures[name], *ends, figures[name]], abs=6e-4)


def test_terms_that_are_no_licence_of_the_list_stand_as_they_are(rooms):
    text = card(rooms, dataclasses.replace(EXPORT, terms='Research "only": see \\ note'))
    assert (head(text)["license"], head(text)["license_name"]) == ("other", 'Research "only": see \\ note')
    assert head(card(rooms, dataclasses.replace(EXPORT, terms="apache-2.0")))["license"] == "apache-2.0"


def test_a_part_of_the_split_is_called_one(rooms):
    assert "Evaluated on val, 5 of 96 images, before" in card(
        dataclasses.replace(rooms, metrics=rooms.metrics | {"expected": 96})
    )


def test_extra_rooms_are_named(rooms):
    assert "beside" not in card(rooms).split("## Figures")[0]
    data = rooms.metrics["data"] | {"extra_rooms": 30}
    text = card(dataclasses.replace(rooms, metrics=rooms.metrics | {"data": data}))
    assert "5 val, 2 test; 30 built-in rooms beside the training frames; filled ground truth" in text


def test_where_the_weights_began(rooms):
    assert "- First weights: random\n" in card(rooms)
    assert "- First weights: those of rooms_small\n" in card(rooms, ckpt="rooms_small")
    assert "- First weights: timm's pretrained ones for the encoder\n" in card(rooms, model={"pretrained": True})


def test_nyu_is_named_and_where_it_lay_is_not(make_lists, tmp_path):
    root = make_lists(train=2, val=2)
    layout = open_root(root, depth_range=RANGE)
    run = read_run(write_run(tmp_path / "run", from_root(root), layout, protocols="uncropped"))
    text = card(run, dataclasses.replace(EXPORT, origin=find_origin(run.config, "lists")))
    assert head(text)["datasets"] == ["nyu_depth_v2"]
    assert "- Data: NYU, lists layout; 2 train, 2 val;" in text
    assert "Silberman" in text
    assert "none, one scene" in text
    assert str(tmp_path) not in text


def test_terms_are_those_of_all_that_the_weights_saw(rooms):
    origin = Origin(frozenset({"nyu", "rooms"}), frozenset({"mobilenetv2_100, from /w/net.safetensors"}))
    text = card(rooms, dataclasses.replace(EXPORT, origin=origin, terms=NYU_LICENSE))  # evaluated on rooms
    assert head(text)["datasets"] == ["nyu_depth_v2"]
    assert (head(text)["license"], head(text)["license_name"]) == ("other", NYU_LICENSE)
    license = text.split("## License\n\n")[1].splitlines()
    assert license[0] == f"- Weights: {NYU_LICENSE}"
    assert [line.split(":")[0] for line in license] == ["- Weights", "- Data", "- Data", "- Encoder"]
    assert license[3].endswith("weights (mobilenetv2_100, from PATH/net.safetensors), whose terms hold too.")
