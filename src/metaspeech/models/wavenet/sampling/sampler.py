"""The one entrance: utterances of any lengths through any backend, in chunks."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from metaspeech.errors import UserError
from metaspeech.models.wavenet.sampling.engine import Doubles, Engine
from metaspeech.models.wavenet.sampling.weights import Floats, SamplerWeights, decode
from metaspeech.parallel import worker_count

NAMES = ("native", "native-avx512", "native-avx2", "native-portable", "numba", "reference")
BACKEND = "METASPEECH_WAVENET_BACKEND"  # environment: what "auto" stands for
MAX_SAMPLES = 2**25  # of an utterance: 35 minutes at 16 kHz
MAX_TOTAL = 2**28  # of a request
MAX_TEMPERATURE = 100.0

_log = logging.getLogger(__name__)

Callback = Callable[[int, int, Floats], None]


def generate(
    weights: SamplerWeights,
    conditionings: Sequence[Floats],
    samples: Sequence[int],
    seeds: Sequence[int],
    temperature: float = 1.0,
    backend: str = "auto",
    threads: int = 0,
    callback: Callback | None = None,
    progress: bool = False,
    device: str = "cpu",
) -> list[Floats]:
    """Draws waveforms. An utterance depends on its own conditioning and seed, not on those beside it.

    Args:
        weights: of the network.
        conditionings: (blocks, L, G) an utterance, as many blocks as its samples need.
        samples: to draw, an utterance.
        seeds: of each utterance's draws.
        temperature: 1 draws from the model's distributions, 0 takes the most probable class or the mean.
        backend: auto (the fastest here) or one of ``NAMES``.
        threads: 0 is one a core.
        callback: called in this thread as chunks are made: number of the utterance, first sample, waveform.
        progress: shows a bar.
        device: of the reference; the other backends run on the CPU, and are faster than its small operations on a GPU.

    Returns:
        Waveforms (samples,) in [-1, 1], mu-law decoded.

    Raises:
        UserError: a request, weights or backend that does not fit. KeyboardInterrupt and what ``callback`` raises
            come through after the chunks that are under way.
    """
    requests = _requests(weights, conditionings, samples, seeds, temperature)
    engine = open_engine(weights, backend, device)
    threads = max(1, worker_count(threads)) if engine.parallel else 1
    groups = _groups(requests, engine.width, threads)
    run = _Run(engine, weights.output, temperature)
    with (
        ThreadPoolExecutor(min(threads, len(groups)), thread_name_prefix="wavenet") as pool,
        tqdm(total=sum(samples), unit="sample", unit_scale=True, disable=not progress) as bar,
    ):
        for group in groups:
            pool.submit(run.group, group)
        try:
            for number, first, chunk in run.chunks(len(groups)):
                bar.update(len(chunk))
                if callback is not None:
                    callback(number, first, chunk)
        finally:
            run.stopped.set()
    return [np.concatenate(request.chunks) for request in requests]


def backends() -> dict[str, str]:
    """Every backend, and why it is not available here; an empty reason where it is."""
    return {name: _reason(name) for name in NAMES}


def open_engine(weights: SamplerWeights, backend: str = "auto", device: str = "cpu") -> Engine:
    """Raises UserError where the backend is unknown or not available."""
    if backend == "auto":
        backend = os.environ.get(BACKEND) or "auto"
    if backend == "auto":
        backend = next(name for name in ("native", "numba", "reference") if not _reason(name))
        if backend != "native":
            _log.warning("WaveNet samples by %s, not by native code: %s", backend, _reason("native"))
    if backend not in NAMES:
        raise UserError(f"WaveNet sampler: backend {backend!r}, expected auto, {', '.join(NAMES)}")
    reason = _reason(backend)
    if reason:
        raise UserError(f"WaveNet sampler: backend {backend} is not available: {reason}")
    if backend == "reference":
        from metaspeech.models.wavenet.sampling.reference import ReferenceEngine

        return ReferenceEngine(weights, device)
    if backend == "numba":
        from metaspeech.models.wavenet.sampling.numba_kernel import NumbaEngine

        return NumbaEngine(weights)
    from metaspeech.models.wavenet.sampling.native import NativeEngine

    return NativeEngine(weights, backend.partition("-")[2] or "auto")


def _reason(name: str) -> str:
    if name == "reference":
        return ""
    if name == "numba":
        try:
            import metaspeech.models.wavenet.sampling.numba_kernel  # noqa: F401
        except ImportError as error:
            return str(error)
        return ""
    from metaspeech.models.wavenet.sampling import native

    try:
        available = native.isas()
    except UserError as error:
        return str(error).removeprefix("WaveNet sampler: ")
    isa = name.partition("-")[2]
    return f"this processor lacks {isa}" if isa and isa not in available else ""


@dataclass
class _Request:
    number: int
    conditioning: Floats
    samples: int
    generator: np.random.Generator
    chunks: list[Floats] = field(default_factory=list)


def _requests(
    weights: SamplerWeights,
    conditionings: Sequence[Floats],
    samples: Sequence[int],
    seeds: Sequence[int],
    temperature: float,
) -> list[_Request]:
    """Checked. Raises UserError."""
    if not 0 <= temperature <= MAX_TEMPERATURE:
        raise UserError(f"WaveNet sampler: temperature is {temperature}, expected 0 to {MAX_TEMPERATURE:g}")
    if not len(conditionings) == len(samples) == len(seeds):
        raise UserError(
            f"WaveNet sampler: {len(conditionings)} conditionings, {len(samples)} lengths and {len(seeds)} seeds, "
            "expected as many of each"
        )
    if not len(samples):
        raise UserError("WaveNet sampler: no utterance is asked for")
    for number, length in enumerate(samples):
        if not 1 <= length <= MAX_SAMPLES:
            raise UserError(f"WaveNet sampler: utterance {number} has {length} samples, expected 1 to {MAX_SAMPLES}")
        if seeds[number] < 0:
            raise UserError(f"WaveNet sampler: seed {seeds[number]} of utterance {number} is negative")
    if sum(samples) > MAX_TOTAL:
        raise UserError(f"WaveNet sampler: {sum(samples)} samples at once, at most {MAX_TOTAL} are possible")
    return [
        _Request(
            number,
            weights.check_conditioning(conditioning, length, f"utterance {number}"),
            length,
            np.random.Generator(np.random.PCG64(seed)),
        )
        for number, (conditioning, length, seed) in enumerate(zip(conditionings, samples, seeds, strict=True))
    ]


def _groups(requests: list[_Request], width: int, threads: int) -> list[list[_Request]]:
    """Utterances of similar lengths together, the longest first; enough groups for all threads."""
    ordered = sorted(requests, key=lambda request: -request.samples)
    size = min(width, -(-len(ordered) // threads))
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]


class _Run:
    """Groups in worker threads; their chunks come together in the thread that asked."""

    def __init__(self, engine: Engine, output: str, temperature: float) -> None:
        self.engine, self.output, self.temperature = engine, output, temperature
        self.stopped = threading.Event()
        self.made: queue.SimpleQueue[tuple[_Request, int, Floats] | BaseException | None] = queue.SimpleQueue()

    def group(self, requests: list[_Request]) -> None:
        """Puts chunks, then None, or an error, into ``made``."""
        try:
            self._group(requests)
        except BaseException as error:
            self.made.put(error)
        else:
            self.made.put(None)

    def chunks(self, groups: int) -> Iterator[tuple[int, int, Floats]]:
        """Number of the utterance, first sample, waveform; until all groups are done."""
        while groups:
            item = self.made.get()
            if item is None:
                groups -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                request, first, chunk = item
                request.chunks.append(chunk)
                yield request.number, first, chunk

    def _group(self, active: list[_Request]) -> None:
        if self.stopped.is_set():
            return
        streams, done = self.engine.open([request.conditioning for request in active]), 0
        try:
            while active and not self.stopped.is_set():
                length = min(self.engine.chunk, min(request.samples for request in active) - done)
                uniforms: Doubles = np.stack([request.generator.random((length, 2)) for request in active])
                drawn = decode(streams.run(uniforms, self.temperature), self.output)
                for request, chunk in zip(active, drawn, strict=True):
                    self.made.put((request, done, chunk))
                done += length
                going_on = [number for number, request in enumerate(active) if request.samples > done]
                if 0 < len(going_on) < len(active):
                    streams.keep(going_on)
                active = [active[number] for number in going_on]
        finally:
            streams.close()
