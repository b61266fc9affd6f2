"""The service against its own description, by schemathesis: what it answers is what openapi.json says."""

from __future__ import annotations

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from voices_made import CONSENT, REPO, write_meta_model, write_recordings

from benchmarks.servers import VoiceServer
from metaspeech.voices import adapt
from metaspeech.voices.adaptation import Settings

schemathesis = pytest.importorskip("schemathesis", reason="no schemathesis: openapi.json was not held against answers")

EXAMPLES = 12  # of each operation
# which texts can be spoken, and which names are taken, no schema can say
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 404, 409, 422, 429]
[checks.negative_data_rejection]
expected-statuses = ["4xx"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "assets").symlink_to(REPO / "assets")
    meta = write_meta_model(folder / "models/meta_train/tacotron-maml-1")
    recordings = write_recordings(tmp_path_factory.mktemp("recordings"), 2)
    adapt(recordings, "anna", folder / "voices", meta, consent=CONSENT, settings=Settings(steps=1))
    server = VoiceServer(folder, "--text", "40", "--workers", "1").start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def api(server):
    config = schemathesis.Config.from_str(CONFIG)
    return schemathesis.openapi.from_url(f"{server.address}/openapi.json", config=config)


@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
def test_every_answer_is_as_described(api, mode):
    tried, spoke = [], 0
    positive = mode is schemathesis.GenerationMode.POSITIVE
    for found in api.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case):
            nonlocal spoke
            tried.append(case.operation.label)
            if positive and case.path.endswith(("/speech", "/spoken")):  # names that are drawn are of no voice
                case.path_parameters["name"] = "anna"
            spoke += case.call_and_validate(timeout=60).status_code == 200

        try:
            answers()
        except Unsatisfiable:  # an operation without parameters takes nothing that is wrong
            assert not positive
    assert len(set(tried)) >= (11 if positive else 3), set(tried)
    assert len(tried) >= 3 * EXAMPLES
    assert spoke > 4 if positive else not spoke


def test_what_is_described_is_what_there_is(server):
    described = requests.get(f"{server.address}/openapi.json", timeout=30).json()
    assert set(described["paths"]) == {
        "/api/voices",
        "/api/voices/{name}",
        "/api/voices/{name}/speech",
        "/api/voices/{name}/spoken",
        "/api/adaptations",
        "/api/adaptations/{id}",
        "/api/about",
        "/health",
        "/ready",
    }
    for path in described["paths"].values():
        for operation in path.values():
            assert {"403", "421", "429"} <= set(operation["responses"])
    text = described["components"]["schemas"]["Speech"]["properties"]["text"]
    assert (text["minLength"], text["maxLength"]) == (1, 40)
