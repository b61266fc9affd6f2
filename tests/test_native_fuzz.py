"""The C boundary of the native sampler with hostile input: every call returns, with an error where one is due.

``make fuzz`` runs this file with a library that is compiled with AddressSanitizer and UndefinedBehaviorSanitizer; there
each buffer has exactly the size that is claimed for it, so that a read or write beyond it ends the run.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from metaspeech.errors import UserError
from metaspeech.models.wavenet.sampling import build, native

SANITIZED = bool(os.environ.get(native.LIBRARY))
LONGEST = 12  # samples of a call
EXAMPLES = 1500 if SANITIZED else 60
QUICK = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def library() -> ctypes.CDLL:
    try:
        build.build()
        return native.load()
    except (build.BuildError, UserError) as error:
        pytest.skip(f"no native sampler: {error}")


def array(values: np.ndarray | None) -> native.Array:
    return native.Array() if values is None else native.Array(values.ctypes.data, values.size)


def lengths(s: native.Sizes) -> list[int]:
    rows = 256 if s.output == 0 else 2
    L, half, mixed = s.layers, s.gate // 2, s.residual + s.skip
    return [
        rows * s.residual,
        L * s.taps * s.residual * s.gate,
        L * half * mixed,
        L * mixed,
        s.skip * s.head,
        s.head,
        s.head * s.outputs,
        s.outputs,
    ]


EDGES = st.sampled_from([-(2**31), -1, 0, 1, 2, 4096, 4097, 2**22, 2**31 - 1])
WIDTH = st.integers(1, 40)


@st.composite
def sizes(draw: st.DrawFn) -> native.Sizes:
    """Ones that fit, of which a tenth are then spoilt in one place."""
    output = draw(st.integers(0, 2))
    outputs = {0: 256, 1: 3 * draw(st.integers(1, 12)), 2: 2}[output]
    made = native.Sizes(
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
        draw(WIDTH),
        2 * draw(WIDTH),
        draw(WIDTH),
        draw(WIDTH),
        outputs,
        output,
        draw(st.integers(1, 5)),
    )
    if draw(st.integers(0, 9)) == 9:
        setattr(made, draw(st.sampled_from([name for name, _ in native.Sizes._fields_])), draw(EDGES))
    return made


def message() -> Any:
    return ctypes.create_string_buffer(64)


class Net:
    """Whatever comes of creating a network; ``handle`` is 0 where it was refused."""

    def __init__(self, data: st.DataObject) -> None:
        self.sizes = data.draw(sizes())
        expected = [min(max(length, 0), 2**16) for length in lengths(self.sizes)]
        if one_in(data, 20):
            wrong = data.draw(st.integers(0, 7))
            expected[wrong] = max(0, expected[wrong] + data.draw(st.integers(-2, 2)))
        noise = np.random.default_rng(0)
        self.arrays = [noise.standard_normal(length).astype(np.float32) for length in expected]
        if one_in(data, 20):
            spoilt = self.arrays[data.draw(st.integers(0, 7))]
            spoilt[: data.draw(st.integers(0, 2))] = data.draw(st.sampled_from([np.nan, np.inf, 3e38]))
        count = min(max(self.sizes.layers, 0), 300)
        steps = st.one_of(st.integers(1, 9), EDGES) if one_in(data, 20) else st.integers(1, 9)
        dilations = (ctypes.c_int32 * max(count, 1))(*(data.draw(steps) for _ in range(count)))
        isa = data.draw(st.sampled_from([-1, 3, 2**31 - 1]) if one_in(data, 20) else st.integers(0, 2))
        handle, text = ctypes.c_int64(), message()
        arrays = (native.Array * 8)(*map(array, self.arrays))
        status = native.load().wavenet_create(
            ctypes.byref(self.sizes),
            dilations,
            arrays,
            isa,
            ctypes.byref(handle),
            text,
            data.draw(st.sampled_from([0, 1, 64])),
        )
        assert status in (0, 1)
        assert (status == 0) == (handle.value != 0)
        self.handle = handle.value

    def outputs(self) -> int:
        return self.sizes.outputs if self.handle else 3


def one_in(data: st.DataObject, chances: int) -> bool:
    return data.draw(st.integers(0, chances - 1)) == chances - 1


def a_job(data: st.DataObject, net: Net, stream: int, samples: int) -> tuple[native.Job, list[np.ndarray]]:
    """Buffers as long as the job says, which is not always as long as they should be."""

    def length(right: int) -> int:
        return max(0, right + data.draw(st.sampled_from([-1, 1, 7, -right]))) if one_in(data, 60) else right

    def floats(right: int) -> np.ndarray:
        return np.random.default_rng(right).standard_normal(length(right)).astype(np.float32)

    row = net.sizes.layers * net.sizes.gate if net.handle else 6
    blocks = -(-3 * LONGEST // net.sizes.hold) if net.handle else 1
    conditioning = floats(row * (data.draw(st.integers(1, 12)) if one_in(data, 20) else blocks))
    if one_in(data, 40):
        conditioning[:1] = np.nan
    uniforms = np.random.default_rng(0).random(length(2 * samples))
    if one_in(data, 20):
        uniforms[:1] = data.draw(st.sampled_from([0.0, 1.0 - 2**-53, 1.0, -0.1, np.nan]))
    forced = floats(samples) if data.draw(st.booleans()) else None
    if forced is not None and net.sizes.output == 0:
        forced = np.abs(np.round(forced * 100)).clip(0, 255)
    if forced is not None and one_in(data, 20):
        forced[:1] = data.draw(st.sampled_from([0, 255, 256, 0.5, -1, 3e38, np.nan]))
    drawn = np.zeros(length(samples), np.float32)
    outputs = np.zeros(length(samples * net.outputs()), np.float32) if data.draw(st.booleans()) else None
    job = native.Job(
        data.draw(st.sampled_from([0, -1, 2**62])) if one_in(data, 60) else stream,
        array(conditioning),
        uniforms.ctypes.data,
        uniforms.size,
        array(forced),
        drawn.ctypes.data,
        drawn.size,
        None if outputs is None else outputs.ctypes.data,
        0 if outputs is None else outputs.size,
    )
    return job, [conditioning, uniforms, drawn] + [one for one in (forced, outputs) if one is not None]


def a_run(data: st.DataObject, net: Net, streams: list[int]) -> None:
    samples = data.draw(st.integers(1, LONGEST))
    named = streams[: data.draw(st.integers(1, len(streams)))] if streams else [0]
    if one_in(data, 10):
        named = [*named, named[0]]
    made = [a_job(data, net, stream, samples) for stream in named]
    jobs = (native.Job * len(made))(*(job for job, _ in made))
    count = data.draw(st.sampled_from([0, -1, -(2**31)])) if one_in(data, 20) else len(made)
    asked = data.draw(st.sampled_from([0, -1, 2**62, samples + 1])) if one_in(data, 20) else samples
    usual = st.sampled_from([0.0, 1e-300, 1e-9, 0.7, 1.0, 1e3])
    temperature = data.draw(st.sampled_from([-1.0, 1e9, np.nan]) if one_in(data, 20) else usual)
    status = native.load().wavenet_run(net.handle, jobs, count, asked, temperature, message(), 64)
    assert status in (0, 1)
    event("ran" if status == 0 else "refused")
    if status == 0 and net.sizes.output == 0:
        assert all(0 <= one <= 255 and one == int(one) for _, buffers in made for one in buffers[2])


@QUICK
@given(data=st.data())
def test_hostile_input_is_refused_and_the_rest_runs(data):
    library, net = native.load(), Net(data)
    streams = []
    for _ in range(data.draw(st.integers(0, 9))):
        stream = ctypes.c_int64()
        assert library.wavenet_open(net.handle, ctypes.byref(stream), message(), 64) == (0 if net.handle else 1)
        if stream.value:
            streams.append(stream.value)
    closed = []
    for _ in range(data.draw(st.integers(1, 3))):
        a_run(data, net, streams)
        if streams and one_in(data, 5):
            closed.append(data.draw(st.sampled_from(streams)))
            library.wavenet_close(closed[-1])
    if data.draw(st.booleans()):  # streams keep their network
        library.wavenet_destroy(net.handle)
    for stream in streams:
        assert library.wavenet_close(stream) == (1 if stream in closed else 0)
        assert library.wavenet_close(stream) == 1
    library.wavenet_destroy(net.handle)
    assert library.wavenet_destroy(net.handle) == 1
    assert library.wavenet_products(net.handle, 1, 1, message(), 64) == 1


def test_null_arguments_are_refused():
    library, text = native.load(), message()
    assert library.wavenet_create(None, None, None, 0, None, text, 64) == 1
    assert text.value == b"an argument is null"
    assert library.wavenet_create(None, None, None, 0, None, None, 0) == 1
    assert library.wavenet_open(1, None, text, 64) == 1
    assert library.wavenet_run(1, None, 1, 1, 1.0, text, 64) == 1
