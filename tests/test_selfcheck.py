"""Judges that hear and judges that are deaf, told apart by recordings, wrong texts and noise."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from speech import syllables

from metaspeech.evaluation import bench
from metaspeech.evaluation.judges.base import Query
from metaspeech.evaluation.selfcheck import probe, verdicts, white_noise, wrong_text
from metaspeech.evaluation.summary import CHECKS

SPEAKERS = "abcdef"
NAMES = ["mcd", "f0", "prosody", "similarity", "phonemes", "sentences", "mos", "attention"]
GOOD = {  # what judges that hear say: of the recording, of its copy, of noise, of a wrong text
    "mcd": (0.0, 2.0, 11.0, None),
    "voicing_error": (0.0, 0.1, 0.5, None),
    "f0_error": (0.0, 10.0, math.nan, None),
    "energy_error": (0.0, 2.0, 9.0, None),
    "duration_error": (0.0, 0.1, 0.2, None),
    "similarity": (0.9, 0.85, 0.5, None),
    "phoneme_error": (0.2, 0.3, 1.0, 1.0),
    "sentence_accuracy": (1.0, 0.9, 0.0, 0.0),
    "mos": (4.0, 3.5, 2.3, None),
}


def checked(impostors=0.6, **changes):
    """The verdicts where six speakers with two texts each get GOOD scores, but for ``changes``."""
    said = {**GOOD, **changes}
    references, probes = [], []
    for number, speaker in enumerate(SPEAKERS):
        scores = [{name: values[kind] for name, values in said.items()} for kind in range(4)]
        others = {"impostor_scores": [impostors] * (len(SPEAKERS) - 1)}
        for text in ("one", "two"):
            base = {"speaker": speaker, "text": f"{text} {number}", **others}
            references += [{**base, "algorithm": "real", **scores[0]}, {**base, "algorithm": "copy", **scores[1]}]
        probes.append({"speaker": speaker, "probe": "noise", **scores[2]})
        heard = {name: value for name, value in scores[3].items() if value is not None}
        probes.append({"speaker": speaker, "probe": "wrong text", **heard})
    return verdicts(NAMES, pd.DataFrame(references), probes, resamples=100, seed=0)


def test_judges_that_hear_pass():
    table = checked()
    assert list(table.columns) == CHECKS
    assert table["passed"].all(), table[~table["passed"]]
    assert set(table["judge"]) == {*NAMES} - {"attention"}
    assert bench.doubted(table) == set()
    shuffled = table[table["check"] == "EER with shuffled speakers"].iloc[0]
    assert shuffled["value"] == pytest.approx(0.5, abs=0.05)
    assert shuffled["low"] < 0.45 < 0.55 < shuffled["high"]


@pytest.mark.parametrize(
    ("judge", "check", "changes"),
    [
        ("mcd", "recordings against themselves", {"mcd": (0.1, 2.0, 11.0, None)}),
        ("prosody", "recordings against themselves", {"duration_error": (0.01, 0.1, 0.2, None)}),
        ("prosody", "noise", {"energy_error": (0.0, 2.0, 1.0, None)}),
        ("f0", "noise", {"voicing_error": (0.0, 0.1, 0.1, None)}),
        ("similarity", "EER of recordings", {"impostors": 0.95}),
        ("similarity", "noise", {"similarity": (0.9, 0.85, 0.95, None)}),
        ("phonemes", "recordings", {"phoneme_error": (0.7, 0.8, 1.0, 1.0)}),
        ("phonemes", "wrong text", {"phoneme_error": (0.6, 0.6, 1.0, 0.75)}),
        ("phonemes", "noise", {"phoneme_error": (0.2, 0.3, 0.4, 1.0)}),
        ("sentences", "recordings", {"sentence_accuracy": (0.5, 0.9, 0.0, 0.0)}),
        ("sentences", "wrong text", {"sentence_accuracy": (1.0, 0.9, 0.0, 0.5)}),
        ("mos", "noise", {"mos": (2.7, 2.4, 2.3, None)}),
    ],
)
def test_a_judge_that_does_not_hear_is_told(judge, check, changes):
    table = checked(**changes)
    failed = table[~table["passed"]]
    assert [tuple(row) for row in failed[["judge", "check"]].to_numpy()] == [(judge, check)]
    assert bench.doubted(table) >= {column.name for column in bench.columns([judge])}
    assert ("eer" in bench.doubted(table)) == (judge == "similarity")


def test_what_could_not_be_measured_is_not_passed():
    table = checked(**dict.fromkeys(GOOD, (math.nan,) * 4))
    assert not table["passed"].any()
    assert set(
        verdicts(NAMES, pd.DataFrame(columns=["algorithm", "speaker", "text", *GOOD]), [], resamples=100, seed=0)[
            "passed"
        ]
    ) == {False}


def test_the_wrong_text_shares_as_few_words_as_can_be():
    texts = ["good dog took", "Good dog found", "bird saved boy", "bird saved dog", "42"]
    assert wrong_text("good dog took", texts) == "bird saved boy"
    assert wrong_text("Bird saved boy!", texts) == "Good dog found"
    assert wrong_text("good dog took", ["Good dog took!"]) is None


def test_noise_is_as_long_and_as_loud_and_the_same_again():
    audio = syllables(0.5)
    query = Query("u", "a", "good dog", audio)
    noise = white_noise(query, seed=1)
    assert noise.shape == audio.shape
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(np.sqrt(np.mean(audio**2)), rel=1e-3)
    assert np.array_equal(noise, white_noise(query, seed=1))
    assert not np.array_equal(noise, white_noise(query, seed=2))
    assert not white_noise(Query("u", "a", "", np.zeros(10, np.float32)), 1).any()


def test_probes_ask_judges_of_content_for_the_wrong_text_and_all_for_noise():
    asked = []

    def judge(name):
        def listen(query, candidates):
            asked.append((name, query.text, bool(np.array_equal(candidates[0].audio, query.audio))))
            return [{name: 1.0}]

        return listen

    query = Query("u", "a", "good dog", syllables(0.3))
    rows = probe({name: judge(name) for name in ("mcd", "phonemes")}, query, ["good dog", "bird saved"], 1)
    assert asked == [("mcd", "good dog", False), ("phonemes", "good dog", False), ("phonemes", "bird saved", True)]
    assert [row["probe"] for row in rows] == ["noise", "wrong text"]
    assert json.dumps(rows)
