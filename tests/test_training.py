"""Training through Lightning: learns, resumes to the same bits, adapts, and says what is wrong with a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tiny
import torch

from metaspeech.config import Params, for_model, from_mapping
from metaspeech.data.batch import Episode, collate
from metaspeech.data.module import StepModule
from metaspeech.errors import UserError
from metaspeech.meta.inner import InnerLoop
from metaspeech.meta.maml import Fomaml, Maml
from metaspeech.models.base import FeatureSpec, loss_function, parameters_of
from metaspeech.registry import ALGORITHMS, MODELS, resolve
from metaspeech.seeds import mixed_seed
from metaspeech.training import deltas
from metaspeech.training.adaptation import adaptation_curve
from metaspeech.training.checkpoint import build_model, file_digest, load_model, save_learned, save_model
from metaspeech.training.compute import set_up_torch
from metaspeech.training.joint_learner import JointLearner
from metaspeech.training.meta_learner import MetaLearner
from metaspeech.training.trainer import finish, fit, make_trainer

FEATURES = FeatureSpec(symbols=9, n_mels=6, hop=16, sample_rate=16000)


@pytest.fixture
def params() -> Params:
    return from_mapping(
        {
            "device": "cpu",
            "threads": 1,
            "tacotron": {"preset": "tiny", "reduction_factor": 2},
            "pretrain": {"steps": 6, "checkpoint_every": 2, "warmup": 2},
            "meta_train": {"gradient_evaluations": 36, "meta_batch": 2, "checkpoint_every": 2, "rate": 1e-3},
        }
    )


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    items = [
        (
            torch.randint(1, 9, (n,), generator=generator).tolist(),
            torch.randn(2 * n, 6, generator=generator).numpy(),
            0.1 * torch.randn((2 * n - 1) * FEATURES.hop, generator=generator).numpy(),
        )
        for n in (5, 4)
    ]
    return collate(items)


def episode(index):
    vector = torch.randn(256, generator=torch.Generator().manual_seed(index)) / 16
    return Episode(
        f"speaker-{index}", batch(index), batch(1000 + index), mixed_seed(1, index), vector, batch(2000 + index)
    )


class Stop(Exception):
    """What a killed process looks like from inside."""


def learner_and_module(kind, params):
    set_up_torch(params)
    model = build_model("tacotron", params, FEATURES)
    if kind == "joint":
        settings = params.pretrain

        def joint(step):
            return batch(step), torch.tensor([step % 3, (step + 1) % 3])

        return JointLearner(model, 3, settings, params.seed), StepModule(joint, settings.steps, 2, [batch(99)])
    params.inner.steps, params.inner.rate = 2, 0.1
    algorithm = resolve(ALGORITHMS, kind).from_params(params)
    params.meta_train.gradient_evaluations = algorithm.gradient_evaluations(6, 2)
    steps = algorithm.outer_steps(params.meta_train)
    module = StepModule(lambda step: [episode(2 * step), episode(2 * step + 1)], steps, 2, [episode(99)])
    return MetaLearner(model, algorithm, params.meta_train, steps), module


def train(kind, params, folder, stop_at=None):
    """Trains to the end and returns the digest of the weights; with ``stop_at`` fails as that step is loaded."""
    learner, module = learner_and_module(kind, params)
    if stop_at is not None:
        make = module.make

        def failing(step):
            if step == stop_at:
                raise Stop
            return make(step)

        module.make = failing
    partial = folder / "partial-abc"
    logged = []
    trainer = make_trainer(params, module.epochs, lambda values, step: logged.append((step, values)), partial)
    fit(trainer, learner, module, partial)
    learned = learner.learned if kind != "joint" else {}
    save_learned(folder, learned)
    save_model(folder, learner.model, "tacotron", params, FEATURES)
    finish(partial)
    digests = [file_digest(folder / name) for name in ("model.safetensors", "algorithm.safetensors")]
    return digests, logged


@pytest.mark.parametrize("kind", ["joint", *(name for name in ALGORITHMS if name not in tiny.NOT_META_TRAINED)])
def test_interrupted_training_ends_in_the_same_bits(kind, params, tmp_path):
    undisturbed, logged = train(kind, params, tmp_path / "whole")
    assert logged
    with pytest.raises(Stop):
        train(kind, params, tmp_path / "killed", stop_at=5)
    assert list((tmp_path / "killed").glob("partial-*/last.ckpt"))
    resumed, _ = train(kind, params, tmp_path / "killed")
    assert resumed == undisturbed
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        "algorithm.safetensors", "model.json", "model.safetensors"
    ]  # fmt: skip
    start = build_model_digest(params, tmp_path / "start")
    assert start != undisturbed[0]


def build_model_digest(params, folder):
    set_up_torch(params)
    save_model(folder, build_model("tacotron", params, FEATURES), "tacotron", params, FEATURES)
    return file_digest(folder / "model.safetensors")


def test_a_partial_checkpoint_of_another_configuration_is_not_resumed(params, tmp_path, capsys):
    stale = tmp_path / "partial-other"
    stale.mkdir(parents=True)
    (stale / "last.ckpt").write_bytes(b"anything")
    train("joint", params, tmp_path)
    assert not stale.exists()
    assert "another configuration" in capsys.readouterr().out


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_trains_every_model_for_a_step(model, algorithm, params):
    set_up_torch(params)
    network = build_model(model, params, FEATURES)
    steps = resolve(ALGORITHMS, algorithm).from_params(for_model(params, model))
    loss_fn, start = loss_function(network), parameters_of(network)
    start = start | steps.learned(loss_fn, start)
    gradients, metrics = steps.outer_gradient(loss_fn, start, [episode(1)])
    assert metrics["tasks"] == 1
    assert sum(float(g.abs().sum()) for g in gradients.values()) > 0
    assert gradients.keys() == start.keys()


@pytest.mark.parametrize("kind", ["fomaml", "maml", "meta_sgd"])
def test_two_processes_train_what_one_does(kind, params, tmp_path):
    """Real processes over gloo: tasks are shared, gradients reduced once, metrics reach this process."""
    results = []
    for devices in (1, 2):
        learner, module = learner_and_module(kind, params)
        logged = []
        trainer = make_trainer(
            params, module.epochs, lambda values, step, to=logged: to.append((step, values)), tmp_path / "partial-x",
            devices, log_every_n_steps=1,
        )  # fmt: skip
        fit(trainer, learner, module, tmp_path / "partial-x")
        finish(tmp_path / "partial-x")
        results.append(({n: v.detach() for n, v in learner.meta_parameters.items()}, logged, int(learner.tasks_seen)))
    (one, logged_one, seen_one), (two, logged_two, seen_two) = results
    assert seen_one == seen_two == 12
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-6, atol=1e-6), name
    losses = [
        [values["loss_after"] for _, values in logged if "loss_after" in values] for logged in (logged_one, logged_two)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(losses[0]) == 6


def test_an_error_in_one_of_two_processes_is_told(params, tmp_path):
    params.meta_train.gradient_evaluations = 120
    learner, module = learner_and_module("fomaml", params)
    learner.algorithm = Fomaml(InnerLoop(steps=2, rate=1e30))
    module.total_steps = 6
    trainer = make_trainer(params, module.epochs, lambda *_: None, tmp_path / "partial-x", 2)
    with pytest.raises(UserError, match=r"^meta_train: .*tasks had an infinite or NaN loss.*Lower inner\.rate"):
        fit(trainer, learner, module, tmp_path / "partial-x")


def test_too_many_skipped_tasks_stop_training_with_a_message(params, tmp_path):
    params.meta_train.gradient_evaluations = 120
    learner, module = learner_and_module("fomaml", params)
    learner.algorithm = Fomaml(InnerLoop(steps=2, rate=1e30))
    trainer = make_trainer(params, module.epochs, lambda *_: None, tmp_path / "partial-x")
    with pytest.raises(UserError, match=r"tasks had an infinite or NaN loss.*Lower inner\.rate"):
        fit(trainer, learner, module, tmp_path / "partial-x")


# Adaptation -------------------------------------------------------------------------------------------------------


def start(params):
    set_up_torch(params)
    return build_model("tacotron", params, FEATURES).eval()


def test_curve_at_a_step_does_not_depend_on_which_others_are_asked_for(params):
    model, algorithm = start(params), Maml(InnerLoop(steps=1, rate=0.1))
    losses = [
        {step: row["loss"] for step, row, _ in adaptation_curve(
            loss_function(model), algorithm, parameters_of(model), episode(1), steps, 0.1
        )}
        for steps in ([0, 1, 5], [5], [0, 2, 3, 5])
    ]  # fmt: skip
    assert losses[0][5] == losses[1][5] == losses[2][5] != losses[0][0]


def test_a_diverging_curve_is_infinite_not_silent(params):
    model, algorithm = start(params), Maml(InnerLoop(steps=1, rate=0.1))
    rows = adaptation_curve(loss_function(model), algorithm, parameters_of(model), episode(1), [0, 20], 1e20)
    assert [row["loss"] == float("inf") for _, row, _ in rows] == [False, True]


def test_delta_errors_name_the_file_and_what_to_do(params, tmp_path):
    base = {"w": torch.ones(3)}
    path = tmp_path / "t.safetensors"
    deltas.write(path, base, {1: {"w": torch.zeros(3)}})
    with pytest.raises(UserError, match=r"t\.safetensors: holds steps 1, not 7"):
        deltas.read(path, base, 7)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=r"t\.safetensors: cannot be read.*dvc repro"):
        deltas.read(path, base, 1)


# Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(params, tmp_path) -> Path:
    save_model(tmp_path / "m", start(params), "tacotron", params, FEATURES)
    return tmp_path / "m"


def test_a_saved_model_comes_back(saved, params):
    loaded = load_model(saved, params, FEATURES)
    assert all(torch.equal(v, parameters_of(loaded)[n]) for n, v in parameters_of(start(params)).items())
    assert not loaded.training


def test_a_checkpoint_of_another_configuration_is_refused(saved, params):
    other = dataclasses.replace(params, tacotron=dataclasses.replace(params.tacotron, preset="small"))
    with pytest.raises(UserError, match=r"model\.json: made with tacotron\.preset = 'tiny', but now.*'small'"):
        load_model(saved, other, FEATURES)
    with pytest.raises(UserError, match=r"features\.n_mels = 6, but now features\.n_mels = 80"):
        load_model(saved, params, FeatureSpec(symbols=9, n_mels=80, hop=16, sample_rate=16000))


def test_a_damaged_or_missing_checkpoint_is_named(saved, params):
    with pytest.raises(UserError, match=r"nowhere.*holds no finished model. Run: dvc repro"):
        load_model(saved / "nowhere", params, FEATURES)
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        load_model(saved, params, FEATURES)
    for content in (b"{", b"\x00\xff garbage", b"[]"):
        (saved / "model.json").write_bytes(content)
        with pytest.raises(UserError, match=r"model\.json: damaged"):
            load_model(saved, params, FEATURES)


def test_no_pickle_is_opened(saved, params):
    """Weights that are a pickle in disguise are refused, not run."""
    torch.save({"evil": torch.ones(1)}, saved / "model.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_model(saved, params, FEATURES)


def test_the_card_says_what_the_model_was_made_from(saved):
    card = json.loads((saved / "model.json").read_text())
    assert card["model"] == "tacotron"
    assert card["features"] == {"symbols": 9, "n_mels": 6, "hop": 16, "sample_rate": 16000}
    assert card["sha256"] == file_digest(saved / "model.safetensors")


def test_cuda_that_is_not_there_is_refused(params):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UserError, match="device: 'cuda' asked for"):
        set_up_torch(dataclasses.replace(params, device="cuda"))
