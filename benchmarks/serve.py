"""The service under load: ``python -m benchmarks.serve``; ends in one JSON line.

``metaspeech serve`` is started with three voices, adapted by one step from the start that ships. In each round
``--requests`` clients ask at the same moment, each for another text. ``lost`` counts requests without a wav,
``mixed_up`` those whose wav names another voice, text or seed in its provenance, or sounds otherwise than the same
request in the first round. Latencies are seconds until the whole wav has come, waiting in the queue included; memory
is that of the service and its workers (proportional set size where the system tells, else resident), after the first
round and after the last. Latencies need an idle machine.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import requests

from benchmarks.servers import VoiceServer
from metaspeech.corpora.espeak import say
from metaspeech.voices import adapt, load, wav
from metaspeech.voices.adaptation import Settings
from metaspeech.voices.voice import Voice

ROOT = Path(__file__).resolve().parents[1]
START = ROOT / "assets" / "starts" / "tacotron"
SAID = ("boy watched now", "king pushed house", "goat found house")
SPEAKERS = {"anna": "f1", "bob": "m3", "carla": "f2"}


def make_voices(folder: Path) -> dict[str, Voice]:
    import soundfile

    for name, variant in SPEAKERS.items():
        recordings = folder / "recordings" / name
        recordings.mkdir(parents=True)
        waveforms, rate = say(variant, 160, 40, list(SAID))
        for number, (samples, text) in enumerate(zip(waveforms, SAID, strict=True)):
            soundfile.write(recordings / f"{number}.wav", samples, rate)
            (recordings / f"{number}.txt").write_text(text, encoding="utf-8")
        consent = "A machine's voice; it has nothing against it."
        adapt(recordings, name, folder / "voices", START, consent=consent, settings=Settings(steps=1, notable=0.0),
              keep_doubtful=True)  # fmt: skip
    return {name: load(name, folder / "voices") for name in SPEAKERS}


class Client:
    """Asks, and keeps what it heard the first time."""

    def __init__(self, address: str, voice: Voice, number: int) -> None:
        self.voice, self.seed = voice, number
        self.text = f"{SAID[number % len(SAID)]} {number}"
        self._address = f"{address}/api/voices/{voice.card.name}/speech"
        self._heard = ""

    def ask(self) -> tuple[str, float]:
        """ "right", "lost" or "mixed up", and seconds."""
        began = time.perf_counter()
        try:
            answer = requests.post(self._address, json={"text": self.text, "seed": self.seed}, timeout=300)
        except requests.RequestException:
            return "lost", time.perf_counter() - began
        seconds = time.perf_counter() - began
        if answer.status_code != 200:
            return "lost", seconds
        heard = hashlib.sha256(answer.content).hexdigest()
        self._heard = self._heard or heard
        right = wav.note_of(io.BytesIO(answer.content)) == self.voice.note(self.text, seed=self.seed)
        return "right" if right and heard == self._heard else "mixed up", seconds


def memory(pid: int) -> float:
    """MiB of a process and all that it started."""
    service = psutil.Process(pid)
    total = 0
    for process in (service, *service.children(recursive=True)):
        used = process.memory_full_info()
        total += getattr(used, "pss", used.rss)
    return total / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50, help="at the same time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="of the service; 0: one a core")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        voices = list(make_voices(folder).values())
        server = VoiceServer(folder, "--workers", str(arguments.workers), "--wait", "300")
        server.start()
        clients = [Client(server.address, voices[number % len(voices)], number) for number in range(arguments.requests)]
        outcomes: list[str] = []
        seconds: list[float] = []
        used: list[float] = []
        with ThreadPoolExecutor(len(clients)) as threads:
            for number in range(arguments.rounds):
                answers = list(threads.map(Client.ask, clients))
                outcomes += [outcome for outcome, _ in answers]
                seconds += [time for _, time in answers]
                used.append(memory(server.process.pid))
                print(
                    f"round {number + 1}: {sum(outcome == 'right' for outcome, _ in answers)} of {len(answers)} right, "
                    f"slowest {max(time for _, time in answers):.1f} s, {used[-1]:.0f} MiB",
                    flush=True,
                )
        status = server.stop(60)
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
    result = {
        "requests": len(outcomes),
        "at_once": arguments.requests,
        "lost": outcomes.count("lost"),
        "mixed_up": outcomes.count("mixed up"),
        "latency_p50_s": round(p50, 3),
        "latency_p95_s": round(p95, 3),
        "latency_p99_s": round(p99, 3),
        "latency_max_s": round(max(seconds), 3),
        "memory_first_mib": round(used[0]),
        "memory_last_mib": round(used[-1]),
        "exit_status": status,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
