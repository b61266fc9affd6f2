"""Sampling from WaveNet: all backends draw the same, as the parallel forward would have it, whatever is beside them."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from metaspeech.config import Wavenet
from metaspeech.errors import UserError
from metaspeech.models.base import FeatureSpec
from metaspeech.models.wavenet.model import WaveNetModel
from metaspeech.models.wavenet.sampling import SamplerWeights, backends, build, generate, native, sampler
from metaspeech.models.wavenet.sampling.sampler import NAMES, open_engine
from metaspeech.models.wavenet.sampling.weights import decode
from metaspeech.models.wavenet.vocoding import hoisted_conditioning, sampler_weights

TOLERANCE = 1e-5  # of outputs, relative to those above 1
CHANNELS = {"mulaw": 256, "logistics": 12, "gaussian": 2}


@pytest.fixture(scope="session", autouse=True)
def library() -> None:
    """As ``make setup`` does; tests of the native backends say so where there is no compiler."""
    try:
        build.build()
    except build.BuildError as error:
        print(error)


def backend(name: str) -> str:
    reason = backends()[name]
    if reason:
        pytest.skip(f"{name}: {reason}")
    return name


def network(
    output: str = "mulaw",
    dilations: tuple[int, ...] = (1, 2, 4, 1),
    kernel: int = 2,
    residual: int = 12,
    gate: int = 20,
    skip: int = 9,
    head: int = 17,
    hold: int = 5,
    seed: int = 0,
) -> SamplerWeights:
    """Random, scaled so that activations stay of size 1."""
    noise = np.random.default_rng(seed)

    def array(*shape: int, fan: int) -> np.ndarray:
        return (noise.standard_normal(shape) / fan**0.5).astype(np.float32)

    layers, outputs = len(dilations), CHANNELS[output]
    return SamplerWeights(
        output=output,
        dilations=dilations,
        hold=hold,
        inputs=array(256 if output == "mulaw" else 2, residual, fan=1),
        gates=array(layers, kernel, residual, gate, fan=kernel * residual),
        mixes=array(layers, gate // 2, residual + skip, fan=gate * layers),
        mix_biases=array(layers, residual + skip, fan=10),
        head1=array(skip, head, fan=skip),
        head1_bias=array(head, fan=10),
        head2=array(head, outputs, fan=head),
        head2_bias=array(outputs, fan=1),
    )


def conditioning(weights: SamplerWeights, samples: int, seed: int = 0) -> np.ndarray:
    shape = (-(-samples // weights.hold), weights.layers, weights.gate)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / 2


def some_samples(weights: SamplerWeights, streams: int, samples: int, seed: int = 0) -> np.ndarray:
    """As they are fed back."""
    noise = np.random.default_rng(seed)
    if weights.output == "mulaw":
        return noise.integers(0, 256, (streams, samples)).astype(np.float32)
    return noise.uniform(-1, 1, (streams, samples)).astype(np.float32)


def parallel(weights: SamplerWeights, blocks: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Outputs (samples, O) of the network that sees all samples at once, by convolutions."""
    previous = torch.from_numpy(np.concatenate([[weights.silence], samples[:-1]]).astype(np.float32))
    inputs = torch.from_numpy(weights.inputs)
    h = inputs[previous.long()] if weights.output == "mulaw" else previous[:, None] * inputs[0] + inputs[1]
    h = h.T[None]  # (1, R, samples)
    rows = torch.from_numpy(blocks).repeat_interleave(weights.hold, dim=0)[: len(samples)]
    skip = torch.zeros(1, weights.skip, len(samples))
    for layer, dilation in enumerate(weights.dilations):
        kernel = torch.from_numpy(weights.gates[layer]).permute(2, 1, 0)  # (G, R, k)
        padded = torch.nn.functional.pad(h, ((weights.kernel - 1) * dilation, 0))
        z = torch.conv1d(padded, kernel, dilation=dilation) + rows[:, layer].T[None]
        gated = torch.tanh(z[:, : weights.gate // 2]) * torch.sigmoid(z[:, weights.gate // 2 :])
        out = torch.conv1d(gated, torch.from_numpy(weights.mixes[layer]).T[..., None])
        out = out + torch.from_numpy(weights.mix_biases[layer])[:, None]
        h, skip = h + out[:, : weights.residual], skip + out[:, weights.residual :]
    hidden = torch.relu(torch.relu(skip)[0].T @ torch.from_numpy(weights.head1) + torch.from_numpy(weights.head1_bias))
    return (hidden @ torch.from_numpy(weights.head2) + torch.from_numpy(weights.head2_bias)).numpy()


def forced(
    name: str, weights: SamplerWeights, blocks: list[np.ndarray], given: np.ndarray, temperature: float, chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (streams, samples, O) and draws (streams, samples) along given samples."""
    uniforms = np.random.default_rng(1).random((*given.shape, 2))
    outputs = np.zeros((*given.shape, weights.outputs), np.float32)
    streams, drawn = open_engine(weights, name).open(blocks), []
    for first in range(0, given.shape[1], chunk):
        part = slice(first, first + chunk)
        fed, into = np.ascontiguousarray(given[:, part]), np.ascontiguousarray(outputs[:, part])
        drawn.append(streams.run(np.ascontiguousarray(uniforms[:, part]), temperature, fed, into))
        outputs[:, part] = into
    streams.close()
    return outputs, np.concatenate(drawn, axis=1)


@st.composite
def networks(draw: st.DrawFn) -> SamplerWeights:
    width = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 24, 32, 33, 48])
    return network(
        output=draw(st.sampled_from(["mulaw", "logistics", "gaussian"])),
        dilations=tuple(draw(st.lists(st.integers(1, 17), min_size=1, max_size=5))),
        kernel=draw(st.integers(1, 4)),
        residual=draw(width),
        gate=2 * draw(width),
        skip=draw(width),
        head=draw(width),
        hold=draw(st.sampled_from([1, 2, 3, 4, 5, 8, 16])),
        seed=draw(st.integers(0, 99)),
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(
    weights=networks(),
    streams=st.integers(1, 9),
    samples=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    chunk=st.integers(1, 40),
)
def test_outputs_are_those_of_the_parallel_forward(name, weights, streams, samples, temperature, chunk):
    blocks = [conditioning(weights, samples, seed) for seed in range(streams)]
    given = some_samples(weights, streams, samples)
    outputs, drawn = forced(backend(name), weights, blocks, given, temperature, chunk)
    expected = np.stack([parallel(weights, *pair) for pair in zip(blocks, given, strict=True)])
    assert_allclose(
        outputs / np.maximum(1, np.abs(expected)), expected / np.maximum(1, np.abs(expected)), atol=TOLERANCE
    )
    reference = forced("reference", weights, blocks, given, temperature, chunk)[1]
    if weights.output == "mulaw":
        assert (drawn != reference).mean() < 0.01  # where a uniform falls on the border of two classes
    else:
        assert_allclose(drawn, reference, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("output", CHANNELS)
def test_backends_draw_the_same_waveform_from_a_seed(name, output):
    weights = network(output)
    lengths = [60, 1, 23]
    blocks = [conditioning(weights, length, seed) for seed, length in enumerate(lengths)]
    drawn = generate(weights, blocks, lengths, [5, 6, 7], 0.8, backend(name))
    expected = generate(weights, blocks, lengths, [5, 6, 7], 0.8, "reference")
    assert [one.shape for one in drawn] == [(60,), (1,), (23,)]
    assert all(one.dtype == np.float32 and np.abs(one).max() <= 1 for one in drawn)
    for one, other in zip(drawn, expected, strict=True):
        assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5)
@given(lengths=st.lists(st.integers(1, 50), min_size=2, max_size=11), chunk=st.integers(1, 60), data=st.data())
def test_an_utterance_does_not_depend_on_neighbours_chunks_or_threads(name, lengths, chunk, data):
    weights = network(dilations=(1, 8, 2, 4, 16), hold=8)  # a stream by itself computes past taps ahead
    blocks = [conditioning(weights, 50, seed) for seed in range(len(lengths))]
    threads = data.draw(st.integers(1, 3))
    engine = type(open_engine(weights, backend(name)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "chunk", chunk)
        together = generate(weights, blocks, lengths, list(range(len(lengths))), backend=name, threads=threads)
    one = data.draw(st.integers(0, len(lengths) - 1))
    alone = generate(weights, blocks[one : one + 1], [lengths[one]], [one], backend=name)
    if name == "reference":  # PyTorch's sums depend on the size of the batch
        assert (together[one] != alone[0]).mean() < 0.1
    else:
        assert_array_equal(together[one], alone[0])


@pytest.mark.parametrize("output", CHANNELS)
def test_the_models_own_forward_has_the_same_outputs(output):
    torch.manual_seed(0)
    model = WaveNetModel(
        Wavenet(preset="tiny", output=output), FeatureSpec(symbols=1, n_mels=5, hop=48, sample_rate=16000)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    mel = torch.randn(3, 5)
    waveform = torch.rand(1, 3 * 48) * 2 - 1
    with torch.no_grad():
        frames = model.conditioning(mel[None])
        steered = model.conditioning.upsampled(torch.cat([frames, frames[:, -1:]], dim=1)) + model._voice(None)
        expected = model.describe(waveform, steered)[0].numpy()
    given = model.output.encode(waveform).float().numpy()
    for name in NAMES:
        found, _ = forced(backend(name), sampler_weights(model), [hoisted_conditioning(model, mel)], given, 1.0, 50)
        scale = np.maximum(1, np.abs(expected))
        assert_allclose(found[0] / scale, expected / scale, atol=TOLERANCE)


def test_draws_follow_the_distribution():
    weights = network("mulaw", dilations=(1,), residual=2, gate=2, skip=2, head=2)
    bias = np.full(256, -50, np.float32)
    bias[[3, 200]] = np.log([0.25, 0.75])
    weights = replace(weights, head2=np.zeros_like(weights.head2), head2_bias=bias)
    levels = decode(np.array([3, 200], np.float32), "mulaw")
    for name in NAMES:
        drawn = generate(weights, [conditioning(weights, 4000)], [4000], [0], backend=backend(name))[0]
        assert set(drawn) == set(levels)
        assert 0.72 < (drawn == levels[1]).mean() < 0.78
        cold = generate(weights, [conditioning(weights, 4000)], [200], [0], 0.0, backend=name)[0]
        assert set(cold) == {levels[1]}


def test_logistic_and_gaussian_draws_have_their_scale():
    for output, deviation in (("logistics", np.pi / 3**0.5), ("gaussian", 1.0)):
        weights = network(output, dilations=(1,), residual=2, gate=2, skip=2, head=2)
        bias = np.zeros(CHANNELS[output], np.float32)
        third = len(bias) // 3 if output == "logistics" else 1
        bias[third if output == "logistics" else 0 :][:third] = 0.1  # means
        bias[-third:] = np.log(0.05)
        weights = replace(weights, head2=np.zeros_like(weights.head2), head2_bias=bias)
        for name in NAMES:
            drawn = generate(weights, [conditioning(weights, 4000)], [4000], [0], 0.5, backend=backend(name))[0]
            assert drawn.mean() == pytest.approx(0.1, abs=0.005)
            assert drawn.std() == pytest.approx(0.05 * 0.5 * deviation, rel=0.1)
            cold = generate(weights, [conditioning(weights, 9)], [9], [0], 0.0, backend=name)[0]
            assert_allclose(cold, 0.1, atol=1e-6)


def test_mulaw_is_decoded_by_the_standard_formula():
    """ITU-T G.711 with mu = 255: a class is a companded amplitude from -1 to 1."""
    expected = [math.copysign((256 ** abs(a) - 1) / 255, a) for a in (2 * c / 255 - 1 for c in range(256))]
    assert_allclose(decode(np.arange(256, dtype=np.float32), "mulaw"), expected, atol=1e-6)


def test_the_callback_gets_every_chunk_in_order_and_this_thread():
    weights, lengths = network(), [3000, 700]
    blocks = [conditioning(weights, length) for length in lengths]
    heard: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def listen(number: int, first: int, chunk: np.ndarray) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert first == sum(map(len, heard[number]))
        heard[number].append(chunk)

    drawn = generate(weights, blocks, lengths, [1, 2], callback=listen)
    for number, one in enumerate(drawn):
        assert_array_equal(np.concatenate(heard[number]), one)
    assert len(heard[0]) > 1


def test_an_interrupted_request_stops_after_a_chunk():
    weights = network("gaussian", hold=65536)
    samples, chunks = 2_000_000, []

    def interrupt(number: int, first: int, chunk: np.ndarray) -> None:
        chunks.append(len(chunk))
        signal.raise_signal(signal.SIGINT)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        generate(weights, [conditioning(weights, samples)], [samples], [0], callback=interrupt)
    assert sum(chunks) < samples / 10
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head1": np.full((9, 17), np.nan, np.float32)}, "head1 has values that are not finite"),
        ({"gates": np.zeros((4, 2, 12, 21), np.float32)}, "21 gate channels, expected an even number"),
        ({"gates": np.zeros((4, 2, 12), np.float32)}, "gates has 3 axes, expected 4"),
        ({"mixes": np.zeros((4, 10, 20), np.float32)}, r"mixes has the shape \(4, 10, 20\), expected \(4, 10, 21\)"),
        ({"head2_bias": np.zeros(255, np.float32)}, "head2_bias has the shape"),
        ({"inputs": np.zeros((2, 12), np.float32)}, "inputs has the shape"),
        ({"output": "uniform"}, "output is 'uniform', expected one of mulaw"),
        ({"output": "gaussian"}, "256 gaussian output channels, expected 2"),
        ({"dilations": ()}, "0 layers, expected 1 to"),
        ({"dilations": (1, 2, 4)}, "gates has the shape"),
        ({"dilations": (1, 2, 4, 0)}, "expected whole numbers from 1"),
        ({"dilations": (1, 2, 4, 2**23)}, "at most"),
        ({"hold": 0}, "hold is 0 samples"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message):
    with pytest.raises(UserError, match=message):
        replace(network(), **change)


def test_requests_that_do_not_fit_are_named():
    weights = network()
    one = [conditioning(weights, 20)]
    for arguments, message in [
        (([], [], []), "no utterance"),
        ((one, [20], []), "1 conditionings, 1 lengths and 0 seeds"),
        ((one, [0], [0]), "utterance 0 has 0 samples"),
        ((one, [2**40], [0]), "expected 1 to"),
        ((one, [20], [-1]), "seed -1"),
        ((one, [21], [0]), "covers 20 samples, 21 are asked for"),
        (([one[0][:0]], [20], [0]), "conditioning of utterance 0 is empty"),
        (([one[0][:, :3]], [20], [0]), r"expected \(blocks, 4, 20\)"),
        (([one[0] * np.inf], [20], [0]), "not finite"),
        ((one, [20], [0], -1.0), "temperature is -1.0"),
        ((one, [20], [0], float("nan")), "temperature is nan"),
        ((one, [20], [0], 1.0, "fortran"), "backend 'fortran', expected auto, native"),
    ]:
        with pytest.raises(UserError, match=message):
            generate(weights, *arguments)
    many = [conditioning(weights, 5)] * 9
    with pytest.raises(UserError, match="at most 268435456"):
        generate(replace(weights, hold=65536), many, [2**25] * 9, [0] * 9)


def test_outputs_that_overflow_are_an_error_of_every_backend():
    weights = network()
    weights = replace(weights, head2=np.full_like(weights.head2, 3e38), head1_bias=np.full_like(weights.head1_bias, 9))
    for name in NAMES:
        with pytest.raises(UserError, match="not finite"):
            generate(weights, [conditioning(weights, 9)], [9], [0], backend=backend(name))


def test_a_missing_instruction_set_is_refused(monkeypatch):
    backend("native")
    with pytest.raises(UserError, match="instruction set 'sse'"):
        native.NativeEngine(network(), "sse")
    monkeypatch.setattr(native, "isas", lambda: ("portable",))
    with pytest.raises(UserError, match="this processor lacks avx512"):
        native.NativeEngine(network(), "avx512")
    with pytest.raises(UserError, match="native-avx2 is not available: this processor lacks avx2"):
        open_engine(network(), "native-avx2")


def test_the_environment_chooses_what_auto_is(monkeypatch):
    assert type(open_engine(network())).__name__ == ("NumbaEngine" if backends()["native"] else "NativeEngine")
    monkeypatch.setenv(sampler.BACKEND, "reference")
    assert type(open_engine(network())).__name__ == "ReferenceEngine"
    monkeypatch.setenv(sampler.BACKEND, "abacus")
    with pytest.raises(UserError, match="'abacus'"):
        open_engine(network())


def test_without_a_library_numba_takes_over(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv(native.LIBRARY, str(tmp_path / "absent.so"))
    monkeypatch.setattr(native, "load", cache(native.load.__wrapped__))
    assert "run make setup" in backends()["native"]
    assert type(open_engine(network())).__name__ == "NumbaEngine"
    assert "run make setup" in caplog.text
    with pytest.raises(UserError, match="native is not available"):
        open_engine(network(), "native")


def test_a_changed_source_has_another_library(monkeypatch, tmp_path):
    before = build.library_path()
    for file in build.SOURCES.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    assert build.library_path() == before
    (tmp_path / "kernel.cpp").write_text("// changed")
    assert build.library_path() != before
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(build.BuildError, match="no C\\+\\+ sources"):
        build.library_path()


def test_setup_goes_on_without_a_compiler(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["build.py"])
    monkeypatch.setenv("CXX", f"{sys.executable} -c 'import sys; sys.exit(\"error: no such thing\")'")
    build.main()
    assert "Numba takes over" in capsys.readouterr().out
    assert "no such thing" in build_error()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler" in build_error()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def build_error() -> str:
    with pytest.raises(build.BuildError) as raised:
        build.build()
    return str(raised.value)


def test_the_sampler_is_found_from_another_folder(tmp_path):
    backend("native")
    code = "from metaspeech.models.wavenet.sampling import backends; print(backends()['native'] or 'found')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(build.SOURCES.parent / "src")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "found", done.stderr
