"""The images of attention that training leaves behind."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from metaspeech.tracking import images
from metaspeech.training.alignments import AlignmentImages, attention, first_utterance
from metaspeech.training.trainer import fit, make_trainer


def trained(folder, logged=None, devices=1):
    values = tiny.params()
    learner, data = tiny.learner("tacotron", "fomaml", values), tiny.module(values)

    def log(pixels: np.ndarray, name: str, step: int) -> None:
        (folder / f"{name}-{step}").write_bytes(pixels.tobytes())

    extra = [] if logged is None else [AlignmentImages(data.validation[0].query, log)]
    trainer = make_trainer(
        values, data.epochs, lambda *_: None, folder / "partial-x", devices, further=extra, log_every_n_steps=1
    )
    fit(trainer, learner, data, folder / "partial-x")
    if logged is not None:
        logged += sorted(path.name for path in folder.glob("alignment-*"))
    return {name: value.clone() for name, value in learner.model.state_dict().items()}


@pytest.mark.parametrize("devices", [1, 2])
def test_an_image_a_validation_and_the_same_training(tmp_path, devices):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    logged: list[str] = []
    with_images = trained(tmp_path / "a", logged, devices)
    without = trained(tmp_path / "b", None, devices)
    assert [name for name in with_images if not torch.equal(with_images[name], without[name])] == []
    steps = [int(name.split("-")[1]) for name in logged]
    assert sorted(steps) == [2, 4][: len(steps)]
    assert steps, "one after each validation"


def test_attention_is_a_distribution_over_the_characters_of_one_utterance():
    learner = tiny.learner("tacotron", "fomaml", tiny.params())
    one = first_utterance(tiny.batch(1, characters=7))
    image = attention(learner.model, one)
    assert image.shape == (7, 7)  # two frames a character, two frames a decoder step
    np.testing.assert_allclose(image.sum(axis=0), 1.0, atol=1e-5)
    np.testing.assert_array_equal(image, attention(learner.model, one))
    assert learner.model.training


def test_what_mlflow_shows_over_steps_are_two_files_with_key_and_step_in_their_names(tmp_path):
    made = dict(images.files(np.linspace(0, 1, 6).reshape(2, 3), "alignment/of one", 20))
    for name, write in made.items():
        write(tmp_path / name)
        assert name.startswith("alignment~of one+step+20+timestamp+")
    large, small = sorted(tmp_path.iterdir(), key=lambda path: path.suffix)
    assert (large.suffix, small.name) == (".png", f"{large.stem}+compressed.webp")
    with Image.open(large) as image:
        assert image.size == (360, 240)
        assert (image.getpixel((0, 0)), image.getpixel((359, 239))) == (0, 255)
