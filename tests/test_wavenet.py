"""WaveNet: distributions, causality, windows, and that the sampler draws from what training describes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from metaspeech.config import Wavenet
from metaspeech.data.batch import collate, concatenate
from metaspeech.errors import UserError
from metaspeech.meta.inner import InnerLoop, on
from metaspeech.models.base import FeatureSpec, Vocoder, loss_function, parameters_of
from metaspeech.models.wavenet.conditioning import hold_of
from metaspeech.models.wavenet.distributions import HALF_STEP, OUTPUTS, companded
from metaspeech.models.wavenet.model import WaveNetModel
from metaspeech.models.wavenet.sampling.weights import decode
from metaspeech.models.wavenet.sizes import PRESETS

FEATURES = FeatureSpec(symbols=9, n_mels=6, hop=16, sample_rate=16000)
TINY = PRESETS["tiny"]


def model(output="mulaw", preset="tiny", window=64, features=FEATURES, trained=True, **settings):
    """``trained``: with weights where training begins with zeros."""
    torch.manual_seed(0)
    net = WaveNetModel(Wavenet(preset=preset, output=output, window=window, **settings), features)
    if trained:
        torch.nn.init.normal_(net.stack.last.weight, std=0.05)
        torch.nn.init.normal_(net.voice)
    return net.eval()


def batch(lengths=(100, 64, 83), features=FEATURES, seed=0):
    """Lengths in samples."""
    generator = torch.Generator().manual_seed(seed)
    items = [
        (
            [1, 2, 3],
            torch.randn(n // features.hop + 1, features.n_mels, generator=generator).numpy(),
            (0.2 * torch.randn(n, generator=generator)).clamp(-1, 1).numpy(),
        )
        for n in lengths
    ]
    return collate(items)


def conditioning(net, mels):
    encoded = net.conditioning(mels)
    return net.conditioning.upsampled(torch.cat([encoded, encoded[:, -1:]], dim=1)) + net._voice(None)


# Distributions ----------------------------------------------------------------------------------------------------


def test_mu_law_of_known_values():
    """ITU-T G.711 with mu = 255: 0 is in the middle, full scale at the ends, 1/255 of it at ln 2 / ln 256 = 1/8."""
    assert companded(torch.tensor([0.0, 1.0, -1.0, 1 / 255, -1 / 255])).tolist() == [128, 255, 0, 143, 112]


def test_mu_law_goes_back_and_forth():
    classes = np.arange(256, dtype=np.float32)
    assert np.array_equal(companded(torch.from_numpy(decode(classes, "mulaw"))).numpy(), classes)


@pytest.mark.parametrize("name", OUTPUTS)
def test_probabilities_sum_to_one(name):
    """Over all classes, or over all steps of 16 bits (a Gaussian's tails beyond full scale are not counted)."""
    torch.manual_seed(1)
    output = OUTPUTS[name]()
    if name == "mulaw":
        samples, description = torch.arange(256), torch.randn(256)
    else:
        samples = torch.arange(-1, 1 + HALF_STEP, 2 * HALF_STEP, dtype=torch.float64)
        description = output.start().double() + 0.3 * torch.randn(output.channels, dtype=torch.float64)
        assert len(samples) == 65536
    bits = output.bits(description.expand(len(samples), -1), samples)
    assert float(torch.exp2(-bits).sum()) == pytest.approx(1, abs=1e-5)


def test_a_gaussian_costs_what_the_textbook_says():
    """-log2 of density times step: at the mean of a deviation of e^-3, log2(e^-3 sqrt(2 pi) 65535 / 2)."""
    bits = OUTPUTS["gaussian"]().bits(torch.tensor([[0.1, -3.0]]), torch.tensor([0.1]))
    assert float(bits) == pytest.approx(math.log2(math.exp(-3) * math.sqrt(2 * math.pi) * 65535 / 2), rel=1e-6)


def test_logistics_survive_samples_far_from_every_mean():
    description = torch.cat([torch.zeros(10), torch.full((10,), -0.9), torch.full((10,), -9.0)])
    description.requires_grad_()
    bits = OUTPUTS["logistics"]().bits(description[None], torch.tensor([0.9]))
    bits.sum().backward()
    assert torch.isfinite(bits).all()
    assert torch.isfinite(description.grad).all()


# The network ------------------------------------------------------------------------------------------------------


def test_follows_the_protocol():
    assert isinstance(model(), Vocoder)


def test_sizes():
    counts = {p: sum(v.numel() for v in model(preset=p).parameters()) for p in ("tiny", "small", "paper")}
    assert counts["tiny"] < 1e4
    assert 2e5 < counts["small"] < 5e5
    assert counts["paper"] > 2e7
    assert PRESETS["paper"].receptive_field == 3 * 1023 + 1


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_sample_depends_on_its_receptive_field_and_on_nothing_later(name):
    net = model(name)
    torch.manual_seed(2)
    waveform, mels = 0.2 * torch.randn(1, 64), torch.randn(1, 4, 6)
    waveform.requires_grad_()
    first = net.input(net.output.encode(waveform)) if name != "mulaw" else None
    if first is None:  # classes have no gradient: follow the embedded samples instead
        first = net.input(net.output.encode(waveform)).detach().requires_grad_()
        described, source = net.stack(first, conditioning(net, mels)), first
    else:
        described, source = net.stack(first, conditioning(net, mels)), waveform
    (gradient,) = torch.autograd.grad(described[0, 40].sum(), source)
    touched = gradient.reshape(64, -1).abs().sum(-1).nonzero().squeeze()
    assert touched.max() == 40  # the input is delayed by one before it comes here
    assert touched.min() == 40 - (TINY.receptive_field - 1)


def test_a_sample_is_not_told_itself():
    net = model("gaussian")
    waveform, mels = 0.2 * torch.randn(1, 64), torch.randn(1, 4, 6)
    waveform.requires_grad_()
    (gradient,) = torch.autograd.grad(net.describe(waveform, conditioning(net, mels))[0, 40].sum(), waveform)
    assert gradient[0].nonzero().max() == 39


def test_before_training_every_class_is_as_likely():
    loss, _ = model(trained=False)(batch())
    assert loss.item() == pytest.approx(8)


def test_padding_does_not_matter():
    """The mean over an utterance's samples, each weighted by how many it has."""
    net, lengths = model(window=112), (100, 64, 83)
    alone = [collate_one(batch(lengths), row) for row in range(3)]
    with torch.no_grad():
        losses = [float(net(one)[0]) for one in alone]
        together = float(net(concatenate(alone))[0])
    assert together == pytest.approx(sum(n * x for n, x in zip(lengths, losses, strict=True)) / sum(lengths), rel=1e-5)


def collate_one(many, row):
    frames, samples = many.mel_lengths[row], many.audio_lengths[row]
    return collate([([1, 2, 3], many.mels[row, :frames].numpy(), many.audio[row, :samples].numpy())])


def test_windows_cost_what_their_part_of_the_whole_costs():
    """Windows of all starts, put together, have the loss of each counted sample in the whole utterance."""
    whole = batch((160,))
    net = model(window=160)
    with torch.no_grad():
        samples = whole.audio - net.config.preemphasis * torch.nn.functional.pad(whole.audio, (1, 0))[:, :-1]
        # one frame more than samples need
        described = net.describe(samples, conditioning(net, whole.mels)[:, :10])
        each = net.output.bits(described, net.output.encode(samples))[0]
    short = replace(net.config, window=64)
    net.config, net.window = short, 4
    context = TINY.receptive_field - 1
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        start = int(net._starts(whole.audio_lengths)) * 16
        seen.add(start)
        torch.manual_seed(seed)
        with torch.no_grad():
            loss = float(net(whole)[0])
        assert loss == pytest.approx(float(each[start + (context if start else 0) : start + 64].mean()), rel=1e-4)
    assert seen == set(range(0, 112, 16))


def test_offsets_of_voices_steer_each_utterance():
    net = model(window=112)
    one = batch((100, 100))
    offset = torch.stack([torch.zeros(32), torch.ones(32)])
    with torch.no_grad():
        moved = net.voice.clone()
        base = float(net(collate_one(one, 0))[0]) + 0.0
        mixed = float(net(one, offset)[0])
        net.voice.copy_(moved + 1)
        shifted = float(net(collate_one(one, 1))[0])
    assert mixed == pytest.approx((base + shifted) / 2, rel=1e-5)


@pytest.mark.parametrize("hop", [1, 7, 16, 200, 256, 300])
def test_blocks_of_conditioning_fill_a_frame(hop):
    assert hop % hold_of(hop) == 0
    net = model(features=replace(FEATURES, hop=hop))
    assert conditioning(net, torch.randn(1, 3, 6)).shape == (1, 3 * hop // hold_of(hop), TINY.conditioning)


@pytest.mark.parametrize("name", OUTPUTS)
def test_inner_steps_from_a_fresh_start_are_stable(name):
    """Clipped gradient descent lowers the loss of what it is given, and never breaks."""
    net = model(name, window=112, trained=False)
    inner, loss_fn = InnerLoop(steps=1, rate=0.1, clip=1.0), loss_function(net)
    position = inner.begin(parameters_of(net), seed=1)
    losses = []
    for _ in range(20):
        position, loss = inner.step(on(loss_fn, batch()), position)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(math.isfinite(loss) for loss in losses)


# Drawing ----------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(sorted(OUTPUTS)),
    frames=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    temperature=st.sampled_from([0.5, 1.0]),
)
def test_draws_come_from_what_the_parallel_forward_describes(name, frames, seed, temperature):
    net = model(name, temperature=temperature, preemphasis=0.0)
    generator = torch.Generator().manual_seed(seed)
    mel = torch.randn(frames, 6, generator=generator)
    (drawn,) = net.vocode([mel], seeds=[seed])
    assert drawn.shape == (frames * 16,)
    with torch.no_grad():
        described = net.describe(drawn[None], conditioning(net, mel[None]))[0].double().numpy()
    uniforms = np.random.Generator(np.random.PCG64(seed)).random((len(drawn), 2))
    expected = EXPECTED[name](described, uniforms, temperature)
    if name == "mulaw":
        assert (expected == companded(drawn).numpy()).mean() > 0.98  # a draw may lie on the edge of two classes
    else:
        np.testing.assert_allclose(drawn.numpy(), expected.clip(-1, 1), atol=2e-5)


def _softmax_draw(logits, uniforms):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    cumulated = np.cumsum(weights / weights.sum(-1, keepdims=True), axis=-1)
    return (cumulated < uniforms[:, None]).sum(-1).clip(max=logits.shape[-1] - 1)


def _mulaw(described, uniforms, temperature):
    return _softmax_draw(described / temperature, uniforms[:, 0])


def _logistics(described, uniforms, temperature):
    logits, means, log_scales = np.split(described, 3, axis=-1)
    rows, chosen = np.arange(len(described)), _softmax_draw(logits, uniforms[:, 0])
    u = uniforms[:, 1].clip(1e-5, 1 - 1e-5)
    scale = np.exp(log_scales[rows, chosen].clip(min=-9))
    return means[rows, chosen] + temperature * scale * (np.log(u) - np.log1p(-u))


def _gaussian(described, uniforms, temperature):
    normal = np.sqrt(-2 * np.log(uniforms[:, 0].clip(min=1e-7))) * np.cos(2 * np.pi * uniforms[:, 1])
    return described[:, 0] + temperature * np.exp(described[:, 1].clip(min=-9)) * normal


EXPECTED = {"mulaw": _mulaw, "logistics": _logistics, "gaussian": _gaussian}


def test_preemphasis_is_undone():
    """What comes out, pre-emphasised again, is what was drawn."""
    mel = torch.randn(5, 6)
    plain = model("gaussian", preemphasis=0.0, temperature=0.3).vocode([mel], seeds=[1])[0].numpy()
    emphasised = model("gaussian", preemphasis=0.85, temperature=0.3).vocode([mel], seeds=[1])[0].numpy()
    assert abs(emphasised).max() < 1
    np.testing.assert_allclose(lfilter([1.0, -0.85], [1.0], emphasised), plain, atol=1e-5)


def test_an_utterance_does_not_depend_on_those_beside_it():
    net, mels = model(), [torch.randn(n, 6) for n in (3, 7, 5)]
    together = net.vocode(mels, seeds=[1, 2, 3])
    for row in range(3):
        assert torch.equal(net.vocode([mels[row]], seeds=[row + 1])[0], together[row])
    assert not torch.equal(net.vocode([mels[0]], seeds=[9])[0], together[0])


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (torch.zeros(4, 5), r"mel 0 has the shape \(4, 5\).*\(frames, 6\)"),
        (torch.zeros(4), "shape"),
        (torch.zeros(0, 6), "0 frames"),
        (torch.zeros(1, 6).expand(3_000_000, 6), "3000000 frames"),
        (torch.full((4, 6), float("nan")), "not finite"),
    ],
)
def test_a_mel_that_does_not_fit_is_refused(mel, message):
    with pytest.raises(UserError, match=message):
        model().vocode([mel], seeds=[1])


def test_weights_that_are_not_finite_are_refused():
    net = model()
    net.stack.head.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="head1 has values that are not finite"):
        net.vocode([torch.zeros(3, 6)], seeds=[1])
