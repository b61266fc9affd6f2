"""The sampler in C++ (native/), through ctypes: no dependence on Python's or PyTorch's binary interface."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from metaspeech.errors import UserError
from metaspeech.models.wavenet.sampling.build import BuildError, library_path
from metaspeech.models.wavenet.sampling.engine import Doubles
from metaspeech.models.wavenet.sampling.weights import OUTPUTS, Floats, SamplerWeights

ISAS = ("portable", "avx2", "avx512")
LIBRARY = "METASPEECH_WAVENET_LIBRARY"  # environment: another library than the one of these sources
_ARRAYS = ("inputs", "gates", "mixes", "mix_biases", "head1", "head1_bias", "head2", "head2_bias")
_ROOM = 512
_FLOAT = ctypes.POINTER(ctypes.c_float)


class Sizes(ctypes.Structure):
    """``wavenet_sizes`` of native/wavenet.h."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in ("layers", "taps", "residual", "gate", "skip", "head", "outputs", "output", "hold")
    ]


class Array(ctypes.Structure):
    """``wavenet_array``"""

    _fields_ = [("data", ctypes.c_void_p), ("floats", ctypes.c_int64)]


class Job(ctypes.Structure):
    """``wavenet_job``"""

    _fields_ = [
        ("stream", ctypes.c_int64),
        ("conditioning", Array),
        ("uniforms", ctypes.c_void_p),
        ("uniforms_length", ctypes.c_int64),
        ("forced", Array),
        ("samples", ctypes.c_void_p),
        ("samples_length", ctypes.c_int64),
        ("outputs", ctypes.c_void_p),
        ("outputs_length", ctypes.c_int64),
    ]


@cache
def load() -> ctypes.CDLL:
    """The library, which ``make setup`` has built. Raises UserError where it has not."""
    try:
        path = Path(os.environ[LIBRARY]) if os.environ.get(LIBRARY) else library_path()
    except BuildError as error:
        raise UserError(f"WaveNet sampler: {error}") from error
    if not path.exists():
        raise UserError(f"WaveNet sampler: {path.name} is not built: run make setup (it needs a C++ compiler)")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UserError(f"WaveNet sampler: {path} cannot be loaded: {error}") from error
    handle, message, room = ctypes.POINTER(ctypes.c_int64), ctypes.c_char_p, ctypes.c_int64
    isa, count, samples = ctypes.c_int32, ctypes.c_int32, ctypes.c_int64
    signatures = {
        "isas": [],
        "create": [
            ctypes.POINTER(Sizes), ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(Array), isa, handle, message, room
        ],
        "destroy": [ctypes.c_int64],
        "open": [ctypes.c_int64, handle, message, room],
        "close": [ctypes.c_int64],
        "run": [ctypes.c_int64, ctypes.POINTER(Job), count, samples, ctypes.c_double, message, room],
        "products": [ctypes.c_int64, count, samples, message, room],
    }  # fmt: skip
    for name, arguments in signatures.items():
        function = getattr(library, f"wavenet_{name}")
        function.argtypes, function.restype = arguments, ctypes.c_int32
    return library


def isas() -> tuple[str, ...]:
    """Instruction sets that the library and this processor have, slowest first. Raises UserError."""
    mask = load().wavenet_isas()
    return tuple(name for bit, name in enumerate(ISAS) if mask >> bit & 1)


class NativeEngine:
    """Weights packed for an instruction set, the fastest here unless one is named."""

    width, chunk, parallel = 8, 2048, True

    def __init__(self, weights: SamplerWeights, isa: str = "auto") -> None:
        if isa not in ("auto", *ISAS):
            raise UserError(f"WaveNet sampler: instruction set {isa!r}, expected auto, {', '.join(ISAS)}")
        available = isas()
        self.settings, self.isa = weights, available[-1] if isa == "auto" else isa
        if self.isa not in available:
            raise UserError(
                f"WaveNet sampler: this processor lacks {self.isa}; it has {', '.join(available)} (or take auto)"
            )
        sizes = Sizes(
            weights.layers,
            weights.kernel,
            weights.residual,
            weights.gate,
            weights.skip,
            weights.head,
            weights.outputs,
            OUTPUTS.index(weights.output),
            weights.hold,
        )
        dilations = (ctypes.c_int32 * weights.layers)(*weights.dilations)
        arrays = (Array * len(_ARRAYS))(*(_array(getattr(weights, name)) for name in _ARRAYS))
        net = ctypes.c_int64()
        _call("create", ctypes.byref(sizes), dilations, arrays, ISAS.index(self.isa), ctypes.byref(net))
        self.net = net.value
        weakref.finalize(self, load().wavenet_destroy, self.net)

    def open(self, conditionings: Sequence[Floats]) -> NativeStreams:
        return NativeStreams(self, conditionings)

    def products(self, streams: int, samples: int) -> None:
        """The matrix products of so many steps and nothing else, for benchmarks."""
        _call("products", self.net, streams, samples)


class NativeStreams:
    """Handles of streams in the library."""

    def __init__(self, engine: NativeEngine, conditionings: Sequence[Floats]) -> None:
        self.engine, self.conditionings = engine, list(conditionings)
        self.handles: list[int] = []
        weakref.finalize(self, _close, self.handles)
        for _ in conditionings:
            stream = ctypes.c_int64()
            _call("open", engine.net, ctypes.byref(stream))
            self.handles.append(stream.value)

    def run(
        self, uniforms: Doubles, temperature: float, forced: Floats | None = None, outputs: Floats | None = None
    ) -> Floats:
        samples = np.empty(uniforms.shape[:2], np.float32)
        jobs = (Job * len(self.handles))()
        for number, (handle, conditioning) in enumerate(zip(self.handles, self.conditionings, strict=True)):
            jobs[number] = Job(
                handle,
                _array(conditioning),
                uniforms[number].ctypes.data,
                uniforms[number].size,
                Array() if forced is None else _array(forced[number]),
                samples[number].ctypes.data,
                samples[number].size,
                None if outputs is None else outputs[number].ctypes.data,
                0 if outputs is None else outputs[number].size,
            )
        _call("run", self.engine.net, jobs, len(jobs), uniforms.shape[1], temperature)
        return samples

    def keep(self, which: Sequence[int]) -> None:
        dropped = [handle for number, handle in enumerate(self.handles) if number not in which]
        self.conditionings = [self.conditionings[number] for number in which]
        self.handles[:] = [self.handles[number] for number in which]
        _close(dropped)

    def close(self) -> None:
        _close(self.handles)


def _array(array: Floats) -> Array:
    assert array.dtype == np.float32, array.dtype
    assert array.flags.c_contiguous
    return Array(array.ctypes.data, array.size)


def _call(name: str, *arguments: object) -> None:
    """Raises UserError with the library's message."""
    message = ctypes.create_string_buffer(_ROOM)
    if getattr(load(), f"wavenet_{name}")(*arguments, message, _ROOM):
        raise UserError(f"WaveNet sampler: {message.value.decode(errors='replace')}")


def _close(handles: list[int]) -> None:
    while handles:
        load().wavenet_close(handles.pop())
