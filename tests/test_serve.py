"""The service: what it answers, refuses and survives. In real processes, over real connections."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
import soundfile
from voices_made import CONSENT, REPO, TEXTS, write_meta_model, write_recordings

from benchmarks.servers import VoiceServer
from metaspeech import config
from metaspeech.text.frontend import Frontend
from metaspeech.voices import adapt, load, wav
from metaspeech.voices.adaptation import Settings
from metaspeech.voices.store import VoiceStore

LIMITS = ("--text", "300", "--recordings", "6", "--recording-seconds", "8", "--upload", "2", "--adaptations", "2")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def project(tmp_path_factory, recordings) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "assets").symlink_to(REPO / "assets")
    meta = write_meta_model(folder / "models/meta_train/tacotron-maml-1")
    for name in ("anna", "bea"):
        settings = Settings(steps=1, notable=0.0, rate=0.1 if name == "anna" else 1.0)
        adapt(recordings, name, folder / "voices", meta, consent=CONSENT, settings=settings)
    return folder


@pytest.fixture(scope="module")
def server(project):
    server = VoiceServer(project, *LIMITS).start()
    yield server
    assert server.stop() == 0
    said = server.log.read_text()
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "ended"


def say(server, text, voice="anna", path="speech", **more):
    return requests.post(f"{server.address}/api/voices/{voice}/{path}", json={"text": text, **more}, timeout=90)


def send(server, files=(), texts=(), **fields):
    form = {"name": "carla", "consent": CONSENT, "check_texts": "false", **fields, "texts": list(texts)}
    parts = [("recordings", ("x.wav", content, "audio/wav")) for content in files]
    return requests.post(f"{server.address}/api/adaptations", data=form, files=parts or None, timeout=60)


def contents(recordings, count=4):
    return [(recordings / f"{number}.wav").read_bytes() for number in range(count)]


def ended(server, job, seconds=90):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        job = requests.get(f"{server.address}/api/adaptations/{job['id']}", timeout=30).json()
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.1)
    raise AssertionError(job)


def left(server):
    """Recordings that still lie there."""
    return list(server.temporary.glob("metaspeech-serve-*/*"))


def refused(answer, status, words=""):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert words in problem["detail"], problem
    assert "Traceback" not in answer.text
    return problem["detail"]


def test_it_speaks_as_the_voice_does(server, project):
    answer = say(server, "boy made bath", seed=3, speed=0.8)
    assert answer.headers["content-type"] == "audio/wav"
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    voice = load("anna", project / "voices")
    expected, _ = voice.say("boy made bath", seed=3, speed=0.8)
    assert rate == voice.rate
    np.testing.assert_allclose(samples, expected, atol=2 / 32768)
    assert wav.note_of(io.BytesIO(answer.content)) == voice.note("boy made bath", seed=3, speed=0.8)
    assert hashlib.sha256(b"boy made bath").hexdigest()[:16] in voice.note("boy made bath")


def test_what_is_seen_belongs_to_what_is_heard(server):
    spoken = say(server, "Boy made bath. King pushed house 😀", path="spoken").json()
    first, second = spoken["sentences"]
    assert (first["text"], second["text"]) == ("boy made bath.", "king pushed house")
    assert second["start"] == pytest.approx(first["seconds"])
    assert spoken["seconds"] == pytest.approx(first["seconds"] + second["seconds"])
    frontend = Frontend(config.Prepare().text)
    read = [frontend.symbols[token] for token in frontend.encode("boy made bath.")]
    assert first["symbols"] == read
    assert first["alignment"]["rows"] == len(read)
    assert first["mel"]["times"] * spoken["frame_seconds"] == pytest.approx(first["seconds"] - 0.3, abs=0.05)
    assert "GRINNING FACE" in spoken["left_out"][0]


def test_fifty_at_once_are_neither_lost_nor_mixed_up(server, project):
    texts = [f"{TEXTS[number % 4]} {number}" for number in range(50)]
    voices = ["anna" if number % 3 else "bea" for number in range(50)]
    with ThreadPoolExecutor(50) as threads:
        answers = list(
            threads.map(
                lambda one: say(server, one[0], one[1], seed=one[2]), zip(texts, voices, range(50), strict=True)
            )
        )
    assert [answer.status_code for answer in answers] == [200] * 50
    loaded = {name: load(name, project / "voices") for name in ("anna", "bea")}
    for number, answer in enumerate(answers):
        sound = io.BytesIO(answer.content)
        assert wav.note_of(sound) == loaded[voices[number]].note(texts[number], seed=number)
        if number % 10 == 0:
            sound.seek(0)
            expected = loaded[voices[number]].say(texts[number], seed=number)[0]
            np.testing.assert_allclose(soundfile.read(sound, dtype="float32")[0], expected, atol=2 / 32768)


@pytest.mark.parametrize("text", ["привет", "你好", "😀🙏", "\u202e\u0000", " \n ", "¡…", "\ud83d", "1" * 301, ""])
def test_texts_that_cannot_be_spoken(server, text):
    refused(say(server, text), 422)


@pytest.mark.parametrize("values", [{"speed": 3}, {"seed": -1}, {"seed": 2**31}, {"vocoder": "../x"}, {"extra": 1}])
def test_values_out_of_range(server, values):
    refused(say(server, "boy made bath", **values), 422)


def test_what_is_no_json(server):
    address = f"{server.address}/api/voices/anna/speech"
    json_type = {"Content-Type": "application/json"}
    for body in (b'{"text": "\xff"}', b"[" * 5000):
        refused(requests.post(address, data=body, headers=json_type, timeout=30), 400)
    for body in (b"{", b"[]", b'{"text": NaN}', b'{"speed": 1e999, "text": "a"}'):
        refused(requests.post(address, data=body, headers=json_type, timeout=30), 422)


@pytest.mark.parametrize(
    "name",
    ["nobody", "%2e%2e", "..%2f..%2fetc", ".models", "%00", "a%0ab", "%ff%fe", "anna%00", "x" * 300, "😀", "ANNA"],
)
def test_names_of_no_voice(server, name):
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/speech"), ("POST", "/spoken")):
        answer = requests.request(method, f"{server.address}/api/voices/{name}{path}", json={"text": "boy"}, timeout=30)
        refused(answer, 404)


def test_a_request_that_is_too_large(server):
    refused(requests.post(f"{server.address}/api/voices/anna/speech", data=b"x" * 10_000, timeout=30), 413)
    refused(requests.post(f"{server.address}/api/voices/anna/speech", data=iter([b"x" * 5000] * 3), timeout=30), 413)
    refused(send(server, [b"\0" * (3 << 20)], ["x"]), 413, "2 MiB")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
    ],
)
def test_other_sites_and_other_hosts(server, headers, status):
    for path in ("/", "/api/voices", "/openapi.json"):
        refused(requests.get(f"{server.address}{path}", headers=headers, timeout=30), status)
    refused(requests.delete(f"{server.address}/api/voices/anna", headers=headers, timeout=30), status)


def test_its_own_page_may_ask_and_nobody_else_is_allowed_to(server):
    own = {"Origin": server.address, "Sec-Fetch-Site": "same-origin"}
    answer = requests.get(f"{server.address}/api/voices", headers=own, timeout=30)
    assert [one["name"] for one in answer.json()["voices"]][:2] == ["anna", "bea"]
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    page = requests.get(
        server.address, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, timeout=9
    )
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_an_adaptation_from_the_queue_to_the_voice(server, project, recordings):
    answer = send(server, contents(recordings), TEXTS)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/adaptations/{answer.json()['id']}"
    refused(send(server, contents(recordings), TEXTS), 409, "being made")
    job = ended(server, answer.json())
    assert job["state"] == "done", job
    assert [one["state"] for one in job["checks"]] == ["good"] * 4
    assert job["model"].startswith("models/meta_train/tacotron-maml-1 (maml")
    assert VoiceStore(project / "voices").card("carla").consent == CONSENT
    assert say(server, "boy made bath", "carla").status_code == 200
    refused(send(server, contents(recordings), TEXTS), 409, "already")
    assert not left(server)
    details = requests.get(f"{server.address}/api/voices/carla", timeout=30).json()
    assert details["card"]["consent"] == CONSENT
    assert requests.delete(f"{server.address}/api/voices/carla", timeout=30).status_code == 204
    refused(say(server, "boy made bath", "carla"), 404)
    assert say(server, "boy made bath", "anna").status_code == 200, "the meta-model is still there"


def test_adaptations_that_cannot_begin(server, recordings):
    good = contents(recordings, 2)
    refused(send(server, good, TEXTS[:2], consent="yes"), 422, "consent")
    refused(send(server, good, TEXTS[:2], consent=" " * 20), 422, "consent")
    refused(send(server, good, TEXTS[:1]), 422, "2 recordings and 1 texts")
    refused(send(server, good[:1] * 7, ["x"] * 7), 422, "expected 1 to 6")
    refused(send(server), 422)
    refused(send(server, good, TEXTS[:2], name="../anna"), 422, "voice")
    refused(send(server, good, TEXTS[:2], name="anna"), 409)
    refused(send(server, good[:1], ["x" * 501]), 422)
    address = f"{server.address}/api/adaptations"
    refused(requests.post(address, data=b"x", headers={"Content-Type": "multipart/form-data"}, timeout=30), 400)
    refused(requests.get(f"{address}/nothing", timeout=30), 404)


def hours(seconds=100_000) -> bytes:
    """A wav of a few bytes that says it holds hours."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(8), 8000, format="WAV", subtype="PCM_16")
    content = bytearray(buffer.getvalue())
    content[40:44] = struct.pack("<I", 16_000 * seconds)
    return bytes(content)


def test_recordings_that_are_none_are_each_explained(server, recordings):
    long = io.BytesIO()
    soundfile.write(long, np.tile(soundfile.read(recordings / "0.wav")[0], 20), 22050, format="FLAC")
    sent = [
        b"",
        b"RIFF",
        b"<script>alert(1)</script>",
        long.getvalue(),
        hours(),
        (recordings / "0.wav").read_bytes()[:60],
    ]
    job = ended(server, send(server, sent, ["boy"] * 6, name="nobody").json())
    assert job["state"] == "failed"
    assert "none of the recordings can be used" in job["message"]
    assert [one["state"] for one in job["checks"]] == ["refused"] * 6
    assert "too long" in job["checks"][3]["reason"]
    assert all(one["reason"] and one["advice"] for one in job["checks"]), job["checks"]


def test_an_adaptation_is_cancelled_and_leaves_nothing(server, project, recordings):
    first = send(server, contents(recordings), TEXTS, name="dora", check_texts="true").json()
    queued = send(server, contents(recordings), TEXTS, name="emil").json()
    answer = send(server, contents(recordings), TEXTS, name="finn")
    refused(answer, 429, "adaptations are waiting")
    assert int(answer.headers["retry-after"]) > 0
    for job in (queued, first):
        done = requests.delete(f"{server.address}/api/adaptations/{job['id']}", timeout=30).json()
        assert done["state"] == "cancelled"
    assert not {"dora", "emil"} & set(VoiceStore(project / "voices").names())
    assert not left(server)
    assert say(server, "boy made bath").status_code == 200


def test_a_voice_that_is_made_anew_speaks_anew(server, project, recordings):
    before = say(server, "boy made bath", "bea").content
    meta = project / "models/meta_train/tacotron-maml-1"
    settings = Settings(steps=1, notable=0.0, rate=3.0)
    adapt(recordings, "bea", project / "voices", meta, consent=CONSENT, overwrite=True, settings=settings)
    after = say(server, "boy made bath", "bea").content
    assert after != before
    expected = load("bea", project / "voices").say("boy made bath")[0]
    np.testing.assert_allclose(soundfile.read(io.BytesIO(after), dtype="float32")[0], expected, atol=2 / 32768)


def test_a_damaged_voice_is_said(server, project):
    folder = project / "voices" / "kaputt"
    folder.mkdir()
    (folder / "voice.json").write_text("{")
    try:
        assert requests.get(f"{server.address}/api/voices", timeout=30).json()["damaged"] == ["kaputt"]
        refused(say(server, "boy", "kaputt"), 409, "damaged")
        assert requests.delete(f"{server.address}/api/voices/kaputt", timeout=30).status_code == 204
    finally:
        assert not folder.exists()


def test_health(server):
    assert requests.get(f"{server.address}/health", timeout=30).json() == {"status": "ok"}
    ready = requests.get(f"{server.address}/ready", timeout=30).json()
    assert ready["status"] == "ready"
    assert ready["workers"] >= 1


@pytest.fixture(scope="module")
def small(project):
    """One worker, a queue of one, little time."""
    server = VoiceServer(
        project, "--workers", "1", "--queue", "1", "--time", "300", "--text", "20000", "--requests", "6",
        "--receive", "2", "--grace", "2",
    ).start()  # fmt: skip
    yield server  # the last test ends it
    server.stop()


LONG = "boy made bath and king pushed house. " * 500  # more than a minute of work


def test_a_full_queue_and_a_client_that_goes(small):
    assert say(small, "boy made bath").status_code == 200
    connection = http.client.HTTPConnection("127.0.0.1", small.port)
    body = json.dumps({"text": LONG})
    connection.request("POST", "/api/voices/anna/speech", body, {"Content-Type": "application/json"})
    _until(small, working=1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(say, small, "king pushed house")
        _until(small, waiting=1)
        answer = say(small, "goat found house")
        refused(answer, 429, "waiting")
        assert int(answer.headers["retry-after"]) >= 1
        connection.close()  # what it asked for is given up at once
        assert waiting.result().status_code == 200
    _until(small, working=0)


def test_slow_and_many_connections(small):
    port = small.port
    head = b"POST /api/voices/anna/speech HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    for one in slow:
        one.sendall(head)
    time.sleep(0.3)
    refused(requests.get(f"{small.address}/health", timeout=30), 429, "6 requests are open")
    for one in slow:
        one.settimeout(10)
        assert b" 408 " in one.recv(4096)
        one.close()
    assert requests.get(f"{small.address}/health", timeout=30).status_code == 200


def test_a_worker_that_dies_is_replaced(small):
    (worker,) = [
        child
        for child in psutil.Process(small.process.pid).children()
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    worker.kill()
    answers = [say(small, "boy made bath") for _ in range(2)]
    assert answers[-1].status_code in (200, 503)
    _until(small, working=0)
    assert say(small, "boy made bath").status_code == 200


def test_sigterm_ends_it_cleanly(small):
    children = psutil.Process(small.process.pid).children(recursive=True)
    with ThreadPoolExecutor(3) as threads:
        running = threads.submit(say, small, LONG)
        _until(small, working=1)
        waiting = threads.submit(say, small, "king pushed house")
        _until(small, waiting=1)
        assert small.stop(20) == 0
        assert running.result().status_code in (200, 503)
        refused(waiting.result(), 503, "ending")
    assert not list(small.temporary.glob("metaspeech-serve-*"))
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert "Traceback" not in small.log.read_text()
    assert small.log.read_text().endswith("ended\n")


def _until(server, seconds=30.0, **values):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = requests.get(f"{server.address}/ready", timeout=30).json()
        if all(found.get(name) == value for name, value in values.items()):
            return
        time.sleep(0.02)
    raise AssertionError((values, found))


def command(*arguments):
    line = [sys.executable, "-m", "metaspeech.cli", "serve", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_addresses_that_are_not_taken(tmp_path):
    assert "loopback alone" in command("--host", "0.0.0.0").stderr
    assert "no address" in command("--host", "example.com").stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = command("--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_its_packages_it_says_what_to_install():
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv[1:] = ['serve']; from metaspeech.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'metaspeech[serve]'" in done.stderr
