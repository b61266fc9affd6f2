"""From utterances to claims: tables with a known effect, and what is said about them."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaspeech.errors import UserError
from metaspeech.evaluation.judges.base import Column
from metaspeech.evaluation.summary import Summary, compact_metrics, curve_table, summarise
from metaspeech.evaluation.systems import System, headline_step
from metaspeech.report.findings import findings
from metaspeech.report.markdown import build_markdown
from metaspeech.report.overview import overview
from metaspeech.report.speakers import seed_rows, speaker_rows
from metaspeech.report.speed import speed_rows
from metaspeech.report.tables import comparison_rows, result_rows
from metaspeech.report.trust import doubt_sentence

COLUMNS = [
    Column("similarity", "Similarity", "higher", "Cosine."),
    Column("phoneme_error", "Phoneme error", "lower", "Rate."),
]
STEPS = (0, 5, 20)
GAIN = {0: 0.0, 5: 0.05, 20: 0.1}  # of similarity by adaptation


def tables(effects, speakers=12, noise=0.01, seed=0, phoneme_error=0.4):
    """Utterances and curves. ``effects``: algorithm -> what it adds to similarity from step 5 on."""
    rng = np.random.default_rng(seed)
    rows, curves = [], []
    for number in range(speakers):
        voice = 0.6 + 0.05 * rng.normal()
        for algorithm, effect in effects.items():
            for step in STEPS:
                owner = {"model": "tacotron", "algorithm": algorithm, "shots": 5, "step": step}
                owner |= {"episode_id": f"s{number}-0", "speaker": f"s{number}", "seed": 1}
                curves.append({**owner, "loss": 1 - GAIN[step] - (effect if step else 0) + noise * rng.normal()})
                for utterance in range(2):
                    rows.append(
                        {
                            **owner,
                            "utt_id": f"{number}-{utterance}",
                            "text": "a text",
                            "stopped": True,
                            "finite": True,
                            "seconds": 1.0,
                            "similarity": voice + GAIN[step] + (effect if step else 0) + noise * rng.normal(),
                            "phoneme_error": phoneme_error + noise * rng.normal(),
                        }
                    )
        for reference in ("real", "copy"):
            rows.append({**rows[-1], "model": "", "algorithm": reference, "shots": 0, "step": 0, "similarity": 0.9})
    return pd.DataFrame(rows), pd.DataFrame(curves)


def summary_of(utterances, curves, steps=STEPS, headline=5):
    algorithms = [name for name in utterances["algorithm"].unique() if name not in ("real", "copy")]
    system = System("tacotron", None, tuple(steps), headline, "Query loss", "Of training.")
    settings = {"algorithms": algorithms, "shots": 5}
    summary, _ = summarise(utterances, curves, COLUMNS, [system], settings, bootstrap=300, seed=0)
    return summary


def comparison(summary, algorithm, metric, step=5, against="transfer"):
    table = summary.comparisons
    keys = (table["algorithm"] == algorithm) & (table["metric"] == metric) & (table["step"] == step)
    (row,) = table[keys & (table["against"] == against)].to_dict(orient="records")
    return row


def test_a_planted_effect_is_found_with_its_size():
    row = comparison(summary_of(*tables({"transfer": 0.0, "maml": 0.08})), "maml", "similarity")
    assert row["difference"] == pytest.approx(0.08, abs=0.01)
    assert row["low"] < 0.08 < row["high"]
    assert row["p"] == pytest.approx(2 / 2**12)
    assert row["speakers"] == 12


def test_comparisons_are_paired_by_speaker():
    """Speakers differ by far more than the effect: unpaired, it would drown."""
    utterances, curves = tables({"transfer": 0.0, "maml": 0.02}, noise=0.002)
    row = comparison(summary_of(utterances, curves), "maml", "similarity")
    assert row["high"] - row["low"] < 0.01
    shuffled = utterances.sample(frac=1, random_state=0)
    again = comparison(summary_of(shuffled, curves), "maml", "similarity")
    assert again["difference"] == pytest.approx(row["difference"])


def test_the_baseline_is_not_compared_with_itself_and_step_0_not_with_step_0():
    table = summary_of(*tables({"transfer": 0.0, "maml": 0.0})).comparisons
    against = table[table["against"] == "transfer"]
    assert set(against["algorithm"]) == {"maml"}
    assert set(against["step"]) == set(STEPS)
    start = table[table["against"] == "step 0"]
    assert set(start["algorithm"]) == {"transfer", "maml"}
    assert set(start["step"]) == {5, 20}


def test_p_is_adjusted_for_the_number_of_algorithms():
    summary = summary_of(*tables({"transfer": 0.0, "maml": 0.08, "fomaml": 0.08, "reptile": 0.0}))
    row = comparison(summary, "maml", "similarity")
    assert row["p_holm"] == pytest.approx(3 * row["p"])


def test_what_transfer_lost_is_not_credited_to_meta_training():
    """MAML is ahead of transfer, the start as it is just as far: meta-training has added nothing."""
    summary = summary_of(*tables({"transfer": 0.0, "pretrained": 0.08, "maml": 0.08}, noise=0.002))
    row = comparison(summary, "maml", "similarity", against="pretrained")
    assert row["low"] < 0 < row["high"]
    assert comparison(summary, "transfer", "similarity", against="pretrained")["difference"] == pytest.approx(
        -0.08, abs=0.01
    )
    said = [detail for detail in findings(summary, "tacotron").details if "common start as it is" in detail]
    assert said == [
        "After 5 adaptation steps, against the common start as it is: "
        "no measurable difference in query loss, speaker similarity, phoneme error."
    ]


def test_what_meta_training_adds_to_the_start_is_said():
    found = findings(summary_of(*tables({"transfer": 0.0, "pretrained": 0.0, "maml": 0.08})), "tacotron")
    (said,) = [detail for detail in found.details if "common start as it is" in detail]
    assert re.search(r"speaker similarity of MAML better by 0\.0[78]\d \(p < 0\.001\)", said), said
    assert "no measurable difference in phoneme error" in said


def test_without_the_start_as_it_is_nothing_is_said_of_it():
    found = findings(summary_of(*tables({"transfer": 0.0, "maml": 0.08})), "tacotron")
    assert not any("as it is" in detail for detail in found.details)


def test_means_weigh_speakers_not_utterances():
    utterances, curves = tables({"transfer": 0.0}, speakers=2)
    extra = utterances[utterances["speaker"] == "s0"].assign(similarity=9.0)
    summary = summary_of(pd.concat([utterances, extra, extra]), curves)
    means = summary.conditions
    row = means[(means["metric"] == "similarity") & (means["step"] == 5) & (means["algorithm"] == "transfer")].iloc[0]
    first = (utterances[(utterances["speaker"] == "s0") & (utterances["step"] == 5)]["similarity"].sum() + 4 * 9) / 6
    second = utterances[(utterances["speaker"] == "s1") & (utterances["step"] == 5)]["similarity"].mean()
    assert row["mean"] == pytest.approx((first + second) / 2)


def test_what_could_not_be_measured_is_left_out_and_counted():
    utterances, curves = tables({"transfer": 0.0, "maml": 0.05})
    lost = (utterances["speaker"] == "s3") & (utterances["algorithm"] == "maml") & (utterances["step"] == 5)
    utterances.loc[lost, ["similarity", "phoneme_error"]] = np.nan
    utterances.loc[lost, "finite"] = False
    curves.loc[(curves["speaker"] == "s3") & (curves["algorithm"] == "maml") & (curves["step"] == 5), "loss"] = np.inf
    summary = summary_of(utterances, curves)
    assert comparison(summary, "maml", "similarity")["speakers"] == 11
    assert comparison(summary, "maml", "loss")["speakers"] == 11
    counts = summary.counts.set_index(["algorithm", "step"])["not_finite"]
    assert counts["maml", 5] == 2
    assert counts.sum() == 2
    assert any("could not be judged" in detail for detail in findings(summary, "tacotron").details)
    row = next(row for row in result_rows(summary, "tacotron") if (row.algorithm, row.step) == ("maml", "5"))
    assert any("11 of 12 speakers" in note for cell in row.cells for note in cell.notes)


def test_a_summary_survives_the_disk(tmp_path):
    summary = summary_of(*tables({"transfer": 0.0, "maml": 0.05}, speakers=3))
    summary.write(tmp_path / "summary.json")
    again = Summary.read(tmp_path / "summary.json")
    assert again.settings == summary.settings
    for name in ("columns", "conditions", "shared", "counts", "comparisons"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(summary, name).reset_index(drop=True))
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(UserError, match="dvc repro"):
        Summary.read(tmp_path / "summary.json")
    with pytest.raises(UserError, match="dvc repro evaluate"):
        Summary.read(tmp_path / "absent.json")


def test_curves_have_every_shot_and_blanks_for_what_was_not_synthesised():
    utterances, curves = tables({"transfer": 0.0, "maml": 0.05}, speakers=4)
    summary = summary_of(utterances, pd.concat([curves, curves.assign(shots=1)]))
    table = curve_table(summary)
    assert len(table) == 2 * 2 * len(STEPS)
    assert table["loss"].notna().all()
    assert table[table["shots"] == 1]["similarity"].isna().all()
    assert (table["loss_low"] <= table["loss"]).all()


def test_compact_metrics_name_the_headline_and_the_last_step():
    utterances, curves = tables({"transfer": 0.0, "maml": 0.05})
    utterances.loc[(utterances["algorithm"] == "maml").to_numpy().nonzero()[0][:3], "stopped"] = False
    metrics = compact_metrics(summary_of(utterances, curves))
    assert set(metrics) == {"real", "copy", "tacotron-transfer", "tacotron-maml"}
    assert {"loss_5", "similarity_5", "phoneme_error_5", "loss_20", "stop_failures"} <= set(metrics["tacotron-maml"])
    assert metrics["tacotron-maml"]["stop_failures"] == pytest.approx(3 / 72)
    assert metrics["copy"]["similarity"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("steps", "tuned", "expected"), [([0, 1, 5], 5, 5), ([0, 3, 10], 5, 3), ([0], 5, 0), ([10, 0, 5], 10, 10)]
)
def test_headline_step(steps, tuned, expected):
    assert headline_step(steps, tuned) == expected


def test_an_effect_is_claimed_with_numbers():
    found = findings(summary_of(*tables({"transfer": 0.0, "maml": 0.08, "reptile": 0.0})), "tacotron")
    assert (
        found.headline
        == "After 5 adaptation steps, a voice from MAML is closer to unseen speakers than one from transfer."
    )
    assert "difference +0.0" in found.details[0]
    assert "12 speakers" in found.details[0]
    assert any("Transfer does not come to the speaker similarity" in detail for detail in found.details)
    assert any("of the way" in detail for detail in found.details)


def test_the_baseline_is_told_how_many_steps_it_needs():
    found = findings(summary_of(*tables({"transfer": 0.0, "maml": 0.03}, noise=0.002)), "tacotron")
    assert any(
        "Transfer needs 20 steps for the speaker similarity that MAML has after 5" in one for one in found.details
    )


@pytest.mark.parametrize("seed", range(6))
def test_no_effect_no_claim(seed):
    """Nothing planted: whatever the noise, the headline agrees with the adjusted p."""
    summary = summary_of(*tables({"transfer": 0.0, "maml": 0.0, "fomaml": 0.0}, noise=0.05, seed=seed))
    certain = [comparison(summary, name, "similarity")["p_holm"] < 0.05 for name in ("maml", "fomaml")]
    claims = "is closer" in findings(summary, "tacotron").headline
    assert claims == any(
        sure and comparison(summary, name, "similarity")["difference"] > 0
        for name, sure in zip(("maml", "fomaml"), certain, strict=True)
    )


def test_equal_voices_are_not_told_apart():
    utterances, curves = tables({"transfer": 0.0, "maml": 0.0}, noise=0.0)
    found = findings(summary_of(utterances, curves), "tacotron")
    assert "no other start is measurably ahead" in found.headline
    assert "chance alone" in found.details[0]


def test_being_behind_is_said_too():
    found = findings(summary_of(*tables({"transfer": 0.0, "maml": -0.08})), "tacotron")
    assert found.headline == "After 5 adaptation steps, transfer is ahead of every other start in speaker similarity."


def test_a_gain_that_costs_intelligibility_is_not_a_plain_success():
    utterances, curves = tables({"transfer": 0.0, "maml": 0.08})
    dear = (utterances["algorithm"] == "maml") & (utterances["step"] == 5)
    utterances.loc[dear, "phoneme_error"] += 0.3
    found = findings(summary_of(utterances, curves), "tacotron")
    assert found.headline.endswith("than one from transfer, but less intelligible.")
    assert any("Adaptation raised the phoneme error of MAML" in detail for detail in found.details)


def test_unintelligible_speech_is_called_so():
    details = findings(summary_of(*tables({"transfer": 0.0, "maml": 0.08}, phoneme_error=0.97)), "tacotron").details
    assert any("not intelligible" in detail for detail in details)


def test_few_speakers_cannot_show_anything_and_the_page_says_so():
    found = findings(summary_of(*tables({"transfer": 0.0, "maml": 0.3}, speakers=4, noise=0.0)), "tacotron")
    assert "no other start is measurably ahead" in found.headline
    assert any("no difference can reach" in detail for detail in found.details)


def test_one_algorithm_alone_is_compared_with_its_own_start():
    summary = summary_of(*tables({"maml": 0.08}))
    found = findings(summary, "tacotron")
    assert found.headline.startswith("Adapting MAML on 5 recordings in 5 steps improves speaker similarity")
    assert comparison_rows(summary, "tacotron") == []


def test_no_adaptation_at_all_still_has_a_summary():
    utterances, curves = tables({"transfer": 0.0})
    only = summary_of(utterances[utterances["step"] == 0], curves[curves["step"] == 0], steps=[0], headline=0)
    assert only.comparisons.empty
    assert "could not be compared" in findings(only, "tacotron").headline
    assert not math.isnan(compact_metrics(only)["tacotron-transfer"]["similarity_0"])


def test_significant_differences_are_marked_in_the_table():
    rows = comparison_rows(summary_of(*tables({"transfer": 0.0, "maml": 0.08, "reptile": -0.08})), "tacotron")
    css = {(row.algorithm, row.step): row.cells[1].css for row in rows}
    assert css["maml", "5"] == "ahead"
    assert css["reptile", "5"] == "behind"
    assert css["maml", "0"] == ""


def test_the_speed_up_is_told_with_its_interval():
    found = findings(summary_of(*tables({"transfer": 0.0, "maml": 0.08}, noise=0.002)), "tacotron")
    assert found.speed.startswith("MAML needs 5 steps for the speaker similarity that transfer has after 20 steps (")
    assert "4 times fewer (95 % interval: 5)." in found.speed
    assert "exclude" not in found.speed


def test_an_uncertain_speed_up_is_said_to_be_one():
    found = findings(summary_of(*tables({"transfer": 0.0, "maml": 0.05}, noise=0.06, speakers=6, seed=3)), "tacotron")
    assert "do not exclude" in found.speed


def test_where_nobody_is_faster_none_is_named():
    found = findings(summary_of(*tables({"transfer": 0.0, "maml": -0.3}, noise=0.002)), "tacotron")
    assert found.speed.startswith("No other start comes to the speaker similarity")
    assert findings(summary_of(*tables({"maml": 0.08})), "tacotron").speed is None


def test_speed_rows_mark_only_what_beats_the_baseline_itself():
    summary = summary_of(*tables({"transfer": 0.0, "maml": 0.08}, noise=0.002))
    rows = {row.algorithm: row.cells[0] for row in speed_rows(summary, "tacotron", ["similarity"])}
    assert (rows["transfer"].text, rows["transfer"].css) == ("20", "")
    assert (rows["maml"].text, rows["maml"].css) == ("5 (4× fewer)", "ahead")
    assert rows["maml"].value == 5
    many = replace(summary, speed=summary.speed.assign(times_fewer=100.0))
    assert speed_rows(many, "tacotron", ["similarity"])[1].cells[0].text == "5 (100× fewer)"
    assert "100 times fewer" in findings(many, "tacotron").speed


def test_a_doubted_metric_is_quoted_nowhere():
    summary = summary_of(*tables({"transfer": 0.0, "maml": 0.08}))
    trusted = summary.columns["name"] != "similarity"
    doubtful = replace(summary, columns=summary.columns.assign(trusted=trusted))
    found = findings(doubtful, "tacotron")
    assert "phoneme error" in found.headline
    quoted = [one for one in [found.headline, found.speed, *found.details] if "imilarity" in one]
    assert quoted == [doubt_sentence(doubtful)]
    assert "Similarity is struck through" in quoted[0]


def test_speakers_and_seeds_are_told_apart():
    utterances, curves = tables({"transfer": 0.0, "maml": 0.08}, speakers=3)
    both = [table.assign(seed=seed) for seed in (1, 2) for table in (utterances, curves)]
    both[2].loc[both[2]["model"] != "", "similarity"] += 0.02
    system = System("tacotron", None, STEPS, 5, "Query loss", "Of training.")
    settings = {"algorithms": ["transfer", "maml"], "shots": 5}
    summary, speakers = summarise(
        pd.concat(both[::2]), pd.concat(both[1::2]), COLUMNS, [system], settings, bootstrap=100, seed=0
    )
    columns, rows = speaker_rows(summary, speakers, "tacotron", "similarity")
    assert columns == ["real", "copy", "transfer", "maml"]
    assert [row.name for row in rows] == ["s0", "s1", "s2"]
    assert all([cell.css for cell in row.cells] == ["", "", "", "best"] for row in rows)
    spread = {row.algorithm: row.cells[0] for row in seed_rows(summary, "tacotron", ["similarity"])}
    low, high = (float(one) for one in spread["maml"].notes[0].split(" to "))
    assert high - low == pytest.approx(0.02, abs=0.0015)
    assert spread["maml"].notes[1] == f"s.d. {0.02 / 2**0.5:.3f}"
    assert seed_rows(summary_of(utterances, curves), "tacotron", ["similarity"]) == []


def test_an_execution_at_a_glance_has_few_figures_in_whole_groups_and_a_page_that_fits_a_tag():
    few = summary_of(*tables({"transfer": 0.0, "maml": 0.05}))
    glance = overview(few, build_markdown(few, "A <title>"))
    assert next(iter(glance.figures.items())) == ("similarity/best", glance.figures["similarity/maml"])
    assert set(glance.figures) - {"similarity/best"} == {
        f"{metric}/{name}" for metric in ("similarity", "phoneme_error", "loss") for name in ("transfer", "maml")
    }
    assert glance.figures["similarity/maml"] > glance.figures["similarity/transfer"]
    assert glance.best == "MAML"
    assert "A &lt;title>" in glance.page
    names = [
        "transfer",
        "maml",
        "fomaml",
        "reptile",
        "anil",
        "boil",
        "meta_sgd",
        "mamlpp",
        "imaml",
        "scratch",
        "nearest",
    ]
    many = summary_of(*tables(dict.fromkeys(names, 0.0)))
    glance = overview(many, "# title\n\n## one\n\nshort\n\n## two\n\n" + "long " * 2000)
    assert {name.partition("/")[0] for name in glance.figures} == {"similarity"}, "half a group compares nothing"
    assert "short" in glance.page
    assert "long" not in glance.page
    assert glance.page.endswith("artifacts of the stage report.\n")
