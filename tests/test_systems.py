"""Acoustic models, vocoders and chains in summaries: tables with known effects, and what is said about them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from metaspeech import config, registry
from metaspeech.evaluation import bench
from metaspeech.evaluation.breakdown import breakdowns
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.summary import Summary, compact_metrics, summarise
from metaspeech.evaluation.systems import System
from metaspeech.report.findings import best_algorithm, findings
from metaspeech.report.markdown import build_markdown
from metaspeech.report.tables import breakdown_metrics, breakdown_rows, comparison_rows, result_columns, result_rows

CHAIN = "tacotron+wavenet"
SYSTEMS = [
    System("tacotron", "wavenet", (0, 5, 20), 5),
    System("tacotron", None, (0, 1, 5, 20), 5, "Query loss", "Of training."),
    System(None, "wavenet", (0, 5, 20), 5, "Bits per sample", "In bits."),
]
COLUMNS = [
    Column("similarity", "Similarity", "higher", "Cosine."),
    Column("phoneme_error", "Phoneme error", "lower", "Rate."),
    Column("mcd", "MCD (dB)", "lower", "Distortion."),
]
ALGORITHMS = ["transfer", "maml"]
SIMILARITY = {"": 0.9, "tacotron": 0.6, "wavenet": 0.85, CHAIN: 0.55}
PHONEME_ERROR = {"": 0.4, "tacotron": 0.7, "wavenet": 0.45, CHAIN: 0.75}
MCD = {"": 3.0, "tacotron": 7.0, "wavenet": 2.5, CHAIN: 7.2}


def tables(effect=0.05, bits=0.05, speakers=12, seed=0):
    """Utterances and curves. Vocoders render the first of two queries; the second is harder.

    Args:
        effect: what MAML adds to similarity, and takes from losses, after adaptation.
        bits: what adaptation takes from the vocoder's bits per sample.
    """
    rng = np.random.default_rng(seed)
    rows, curves = [], []

    def add(model, algorithm, step, speaker, query, **values):
        shots = 5 if model else 0
        owner = {"model": model, "algorithm": algorithm, "shots": shots, "step": step, "speaker": speaker}
        fixed = {
            "seed": 1,
            "episode_id": f"{speaker}-0",
            "utt_id": f"{speaker}-{query}",
            "stopped": True,
            "finite": True,
        }
        rows.append({**owner, **fixed, **{name: value + 0.004 * rng.normal() for name, value in values.items()}})

    for number in range(speakers):
        speaker = f"s{number:02d}"
        for query in range(2):
            for name, mcd in (("real", 0.0), ("copy", 3.0)):
                add("", name, 0, speaker, query, similarity=0.9, phoneme_error=0.4 + 0.2 * query, mcd=mcd)
        for algorithm in ALGORITHMS:
            gained = effect if algorithm == "maml" else 0.0
            for system in SYSTEMS:
                for step in system.steps:
                    for query in range(1 if system.vocoder else 2):
                        known = {
                            "similarity": SIMILARITY[system.name] + gained * bool(step),
                            "phoneme_error": PHONEME_ERROR[system.name] + 0.2 * query,
                            "mcd": MCD[system.name],
                        }
                        add(system.name, algorithm, step, speaker, query, **known)
            for step in (0, 1, 5, 20):
                owner = {"algorithm": algorithm, "shots": 5, "step": step, "speaker": speaker, "seed": 1}
                noise = 0.004 * rng.normal()
                curves.append({"model": "tacotron", **owner, "loss": 1 - gained * bool(step) + noise})
                curves.append({"model": "wavenet", **owner, "loss": 4.3 - (bits + gained) * bool(step) + noise})
    return pd.DataFrame(rows), pd.DataFrame(curves)


def summary_of(utterances, curves, judged=COLUMNS, systems=SYSTEMS):
    known = {"algorithms": ALGORITHMS, "shots": 5, "queries": 2, "vocoder_queries": 1}
    return summarise(utterances, curves, judged, systems, known, bootstrap=200, seed=0)[0]


@pytest.fixture(scope="module")
def summary():
    return summary_of(*tables())


def comparison(summary, model, against, metric, algorithm="maml", step=5):
    table = summary.comparisons
    (row,) = table[
        (table["model"] == model)
        & (table["against"] == against)
        & (table["metric"] == metric)
        & (table["algorithm"] == algorithm)
        & (table["step"] == step)
    ].to_dict(orient="records")
    return row


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["tacotron"], [("tacotron", "acoustic")]),
        (["wavenet"], [("wavenet", "vocoder")]),
        (["wavenet", "tacotron"], [("tacotron", "acoustic"), (CHAIN, "chain"), ("wavenet", "vocoder")]),
    ],
)
def test_systems_of_models(models, expected):
    params = config.from_mapping({"models": models})
    found = bench.systems({name: registry.resolve(registry.MODELS, name) for name in models}, params)
    assert [(system.name, system.role) for system in found] == expected
    assert all(system.steps == ((0, 5, 20) if system.vocoder else (0, 1, 5, 10, 20)) for system in found)
    assert all(bool(system.loss_label) == (system.role != "chain") for system in found)


def test_several_models_of_a_role_are_all_combined():
    kinds = {role: type(role, (), {"role": role, "loss_label": "L", "loss_explanation": "E"}) for role in ROLES}
    models = {"a": kinds["acoustic"], "v": kinds["vocoder"], "b": kinds["acoustic"], "w": kinds["vocoder"]}
    found = bench.systems(models, config.Params())
    assert [system.name for system in found] == ["a", "b", "a+v", "a+w", "b+v", "b+w", "v", "w"]


ROLES = ("acoustic", "vocoder")


def test_griffin_lim_is_compared_on_the_same_queries(summary):
    """Over all queries its phoneme error would be 0.1 higher: the second text is harder, and no vocoder had it."""
    row = comparison(summary, "wavenet", "griffin-lim", "phoneme_error")
    assert row["difference"] == pytest.approx(0.05, abs=0.005)
    assert row["p"] == pytest.approx(2 / 2**12)
    row = comparison(summary, CHAIN, "griffin-lim", "phoneme_error")
    assert row["difference"] == pytest.approx(0.05, abs=0.005)
    references = {name: summary.references(summary.system(name)) for name in ("tacotron", "wavenet")}
    errors = {
        name: table.set_index(["metric", "algorithm"])["mean"]["phoneme_error", "real"]
        for name, table in references.items()
    }
    assert errors["wavenet"] == pytest.approx(0.4, abs=0.005)
    assert errors["tacotron"] == pytest.approx(0.5, abs=0.005)


def test_bits_per_sample_are_compared_with_the_start_and_the_baseline(summary):
    assert comparison(summary, "wavenet", "step 0", "loss")["difference"] == pytest.approx(-0.1, abs=0.005)
    assert comparison(summary, "wavenet", "step 0", "loss", "transfer")["difference"] == pytest.approx(-0.05, abs=0.005)
    assert comparison(summary, "wavenet", "transfer", "loss")["difference"] == pytest.approx(-0.05, abs=0.005)
    assert not len(summary.comparisons.query("model == @CHAIN and metric == 'loss'"))


def test_what_is_said_of_a_vocoder(summary):
    found = findings(summary, "wavenet")
    assert found.headline == (
        "After 5 adaptation steps, a vocoder from MAML predicts unseen speakers better than one from transfer."
    )
    told = "\n".join(found.details)
    assert "Bits per sample: MAML 4.20, transfer 4.25; difference −0.0" in told
    assert "Adapting MAML on 5 recordings in 5 steps improves bits per sample: −0.1" in told
    assert "before adaptation and after 5 adaptation steps: Transfer 4.30 and 4.25 (p < 0.001)" in told
    assert "wavenet from MAML in the place of Griffin-Lim, on the recordings' mels: mel-cepstral distortion 2.5" in told
    assert "(better, p < 0.001); phoneme error 0.4" in told
    assert "(worse, p < 0.001)" in told
    assert "did not stop" not in told
    assert "Query loss" not in told


def test_what_is_said_of_a_chain(summary):
    found = findings(summary, CHAIN)
    assert found.headline == (
        "After 5 adaptation steps, a voice from MAML is closer to unseen speakers than one from transfer."
    )
    told = "\n".join(found.details)
    assert "on mels of tacotron" in told
    assert "where copy synthesis by wavenet has 0.4" in told
    assert "of the way from the voice before adaptation to copy synthesis by wavenet" in told
    assert "loss" not in told


def test_a_chain_is_told_by_what_was_measured():
    utterances, curves = tables()
    only = utterances.drop(columns=["similarity", "phoneme_error"])
    summary = summary_of(only, curves, judged=COLUMNS[2:])
    assert "mel-cepstral distortion" in findings(summary, CHAIN).headline
    nothing = summary_of(only.drop(columns="mcd"), curves, judged=[])
    assert "evaluate.judges gives none of speaker similarity" in findings(nothing, CHAIN).headline
    assert best_algorithm(nothing, CHAIN) is None
    assert "bits per sample" in findings(nothing, "wavenet").details[0].lower()
    assert breakdown_metrics(nothing) == []
    build_markdown(nothing, "title")


def test_what_was_lost_of_a_vocoder_is_counted():
    utterances, curves = tables()
    lost = (utterances["model"] == "wavenet") & (utterances["speaker"] == "s03") & (utterances["step"] == 5)
    utterances.loc[lost, ["similarity", "phoneme_error", "mcd"]] = np.nan
    utterances.loc[lost, "finite"] = False
    summary = summary_of(utterances, curves)
    assert any("Of 72 syntheses 2 had no finite values" in one for one in findings(summary, "wavenet").details)
    assert comparison(summary, "wavenet", "griffin-lim", "mcd")["speakers"] == 11


def test_the_breakdown_adds_up(summary):
    (one,) = breakdowns(summary)
    assert [place.label for place in one.places] == [
        "Real recording",
        "recorded mel + Griffin-Lim",
        "recorded mel + wavenet",
        "tacotron + Griffin-Lim",
        "tacotron + wavenet",
    ]
    means = [one.measured(place, "similarity").get(place.reference or "maml")[0] for place in one.places]
    assert means == pytest.approx([0.9, 0.9, 0.9, 0.65, 0.6], abs=0.005)
    text = one.sentence("phoneme_error", "phoneme error", "maml")
    told = [float(one) for one in re.findall(r"\d\.\d+", text)]  # real, vocoder alone, chain, two shares
    assert told == pytest.approx([0.4, 0.45, 0.75, 0.05, 0.3], abs=0.005)
    assert "MAML" in text
    rows = breakdown_rows(summary, one, "maml")
    assert [name for name, _ in rows] == [place.label for place in one.places]
    assert all(len(cells) == 3 for _, cells in rows)


def test_a_vocoder_alone_has_a_breakdown_of_three():
    utterances, curves = tables()
    summary = summary_of(
        utterances[utterances["model"].isin(["", "wavenet"])], curves[curves["model"] == "wavenet"], systems=SYSTEMS[2:]
    )
    (one,) = breakdowns(summary)
    assert [place.model for place in one.places] == ["", "", "wavenet"]
    assert one.sentence("phoneme_error", "phoneme error", "maml") is None


def test_without_a_vocoder_there_is_none():
    utterances, curves = tables()
    summary = summary_of(
        utterances[utterances["model"].isin(["", "tacotron"])],
        curves[curves["model"] == "tacotron"],
        systems=SYSTEMS[1:2],
    )
    assert summary.shared.empty
    assert breakdowns(summary) == []


def test_tables_have_the_columns_of_their_system(summary, tmp_path):
    assert result_columns(summary, CHAIN) == ["similarity", "phoneme_error", "mcd"]
    assert result_columns(summary, "wavenet") == ["loss", "similarity", "phoneme_error", "mcd"]
    rows = result_rows(summary, "wavenet")
    assert [(row.algorithm, row.step) for row in rows[2:6]] == [("transfer", one) for one in ("0", "1", "5", "20")]
    assert [cell.text for cell in rows[3].cells[1:]] == ["–"] * 3, "at step 1 only the loss is known"
    assert all(len(row.cells) == 4 for row in rows), "no column for syntheses that did not stop"
    assert all(len(row.cells) == 4 for row in result_rows(summary, CHAIN))
    assert {row.algorithm for row in comparison_rows(summary, "wavenet", "step 0")} == set(ALGORITHMS)
    summary.write(tmp_path / "summary.json")
    again = Summary.read(tmp_path / "summary.json")
    assert again.systems == SYSTEMS
    assert result_rows(again, CHAIN) == result_rows(summary, CHAIN)
    text = build_markdown(again, "title")
    assert text.count("\n## ") == 3
    assert re.search(r"\| start +\| step +\| Bits per sample ↓ +\|", text)


def test_a_system_whose_steps_lack_the_tuned_one_is_told_at_another():
    utterances, curves = tables()
    systems = [
        System("tacotron", "wavenet", (0, 20), 20),
        SYSTEMS[1],
        System(None, "wavenet", (0, 20), 20, "Bits", "B."),
    ]
    slow = (utterances["model"].isin([CHAIN, "wavenet"])) & (utterances["step"] == 5)
    summary = summary_of(utterances[~slow], curves, systems=systems)
    assert findings(summary, CHAIN).headline.startswith("After 20 adaptation steps")
    assert findings(summary, "tacotron").headline.startswith("After 5 adaptation steps")
    metrics = compact_metrics(summary)
    assert {"similarity_20", "stop_failures"} <= set(metrics["tacotron-wavenet-maml"])
    assert "loss_20" in metrics["wavenet-maml"]
