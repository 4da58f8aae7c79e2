"""A word of a command line that its mode would ignore is refused by its name."""

import pytest

from depthnet.core.types import InputError
from depthnet.run.overrides import check_words

FIT = {"mode": "fit", "split": "val", "resume": None}
TEST = FIT | {"mode": "test", "split": "test"}


@pytest.mark.parametrize(
    "word",
    ["model=tiny", "model.encoder=resnet18", "+model.x=1", "~model.context", "++model.context=true"],
)
def test_a_test_evaluates_the_checkpoints_own_network(word):
    with pytest.raises(InputError) as told:
        check_words(["data=nyu", word], TEST)
    assert str(told.value) == f"{word}: mode=test evaluates the checkpoint's own network; leave it out"


@pytest.mark.parametrize(
    "word",
    [
        *("loss=l1", "+loss.terms.l1=1", "optimizer.lr=1", "scheduler=cosine", "augment=none", "callbacks=ema"),
        *("callbacks.average.decay=0.9", "~callbacks.last", "data.batch_size=4", "data.extra_rooms=9"),
        *("trainer.max_epochs=2", "trainer.accumulate_grad_batches=2"),
    ],
)
def test_a_test_trains_nothing(word):
    check_words([word], FIT)
    with pytest.raises(InputError) as told:
        check_words([word], TEST)
    assert str(told.value) == f"{word}: mode=test trains nothing; leave it out"


def test_a_test_uses_its_data_protocols_and_device():
    words = [
        "data=nyu",
        "data.root=x",
        "data.image_size=[48,64]",
        "data.eval_batch_size=2",
        "trainer=cpu",
        "report=true",
    ]
    words += ["experiment=nyu", "protocols=all", "split=test", "ckpt=x", "logger=none", "~callbacks.progress"]
    words += ["trainer.precision=32-true", "+trainer.limit_test_batches=2", "compile=true", "seed=1", "debug=fast"]
    check_words(words, TEST)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (FIT, "resume_allow=[data]"),
        (FIT, "directory=x"),
        (FIT, "model.image_size=[32,48]"),
        (TEST, "watch=val/rmse"),
    ],
)
def test_a_word_of_another_mode_is_refused(config, word):
    with pytest.raises(InputError) as told:
        check_words([word], config)
    assert str(told.value).startswith(f"{word}: ")


def test_words_count_where_they_are_used():
    check_words(["resume_allow=[data]"], FIT | {"resume": "auto"})
    check_words(["watch=val/rmse"], TEST, sweeps=True)  # ranks the jobs


@pytest.mark.parametrize("split", ["test", "keras_frames"])
def test_another_split_than_val_is_for_mode_test(split):
    with pytest.raises(InputError, match=f"split={split}: .*mode=test"):
        check_words([], FIT | {"split": split})
    check_words([f"split={split}"], TEST | {"split": split})
