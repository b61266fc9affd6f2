"""Profiles: params.yaml as a whole is changed, its comments stay, and what changed is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from test_config import committed_params
from typer.testing import CliRunner

from metaspeech import config, profiles
from metaspeech.errors import UserError
from pipelines import profile

REPO = Path(__file__).resolve().parents[1]
NAMES = profiles.names(REPO / "profiles")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    (tmp_path / "params.yaml").write_text(committed_params())
    (tmp_path / "profiles").symlink_to(REPO / "profiles")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def apply(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(profile.app, ["apply", *arguments])
    return result.exit_code, result.output


def test_the_profiles_are_those_that_are_documented():
    assert NAMES == [
        "algorithms",
        "default",
        "gpu",
        "pretrained_tacotron",
        "pretrained_wavenet",
        "protocol",
        "real",
        "smoke",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_leaves_every_byte_as_it_was(project, name):
    before = (project / "params.yaml").read_text()
    assert apply(name)[0] == 0
    assert config.load("params.yaml") == profiles.settings(project / "profiles" / f"{name}.yaml")
    assert apply("default")[0] == 0
    assert (project / "params.yaml").read_text() == before


def test_what_changes_is_shown_and_nothing_else_changes(project):
    before = (project / "params.yaml").read_text().splitlines()
    status, output = apply(
        "pretrained_tacotron", "--set", "corpus.path=/my/voices", "--set", "adapt.rates=[0.1, 0.00001]"
    )
    assert status == 0
    assert "  corpus.vocabulary: 300 -> 800\n" in output
    assert "  corpus.path: assets/espeak_voices.csv -> /my/voices\n" in output
    assert f"  adapt.rates: {config.Params().adapt.rates} -> [0.1, 1e-05]\n" in output
    after = (project / "params.yaml").read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == output.count(" -> ")
    assert all(old.partition("#")[1:] == new.partition("#")[1:] for old, new in changed)  # comments are kept


def test_what_a_model_does_differently_comes_and_goes(project):
    before = (project / "params.yaml").read_text()
    assert apply("smoke", "--set", "per_model.tacotron.inner.rate=0.1")[0] == 0
    assert config.load("params.yaml").per_model.tacotron.inner == {"rate": 0.1}
    status, output = apply("default", "--set", "per_model.tacotron.inner.clip=2", "--set", "seed=3")
    assert status == 0
    assert "per_model.tacotron.inner.rate: 0.1 -> (removed)" in output
    assert config.load("params.yaml").per_model.tacotron.inner == {"clip": 2.0}
    assert apply("default")[0] == 0
    assert (project / "params.yaml").read_text() == before


@pytest.mark.parametrize("wrong", ["innr.rate=1", "inner.rate=fast", "inner.steps=0", "inner.rate", "adapt.shots=[9]"])
def test_a_wrong_setting_is_refused_and_the_file_stays(project, wrong):
    before = (project / "params.yaml").read_text()
    status, output = apply("smoke", "--set", wrong)
    assert status == 2
    assert wrong.partition("=")[0].partition(".")[0] in output
    assert (project / "params.yaml").read_text() == before


def test_an_unknown_profile_names_those_there_are(project):
    status, output = apply("smok")
    assert status == 2
    assert f"There are: {', '.join(NAMES)}" in output


def test_a_broken_profile_is_one_message(project):
    (project / "profiles").unlink()
    (project / "profiles").mkdir()
    (project / "profiles" / "mine.yaml").write_text("inner:\n  rate: 0.1\n  rate: 0.2\n")
    status, output = apply("mine")
    assert status == 2
    assert "profiles/mine.yaml" in output
    assert "duplicate key" in output


def test_a_broken_params_file_can_be_set_right_again(project):
    rate = config.Params().inner.rate
    text = (project / "params.yaml").read_text()
    broken = text.replace("data_seed: 1", "data_seeds: 1").replace(f"  rate: {rate}", "  rate: fast")
    assert broken.count("fast") == 1
    (project / "params.yaml").write_text(broken)
    status, output = apply("default")
    assert status == 0
    assert "data_seeds: 1 -> (removed)" in output
    assert f"inner.rate: fast -> {rate}" in output
    assert config.load("params.yaml") == config.Params()


def test_a_file_that_is_no_yaml_is_left_alone(project):
    (project / "params.yaml").write_text("seed: [")
    status, output = apply("default")
    assert status == 2
    assert "no YAML" in output
    assert (project / "params.yaml").read_text() == "seed: ["


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.floats(1e-6, 100),
    rates=st.lists(st.floats(1e-6, 100), min_size=1, max_size=4, unique=True),  # a rate named twice is refused
    title=st.text(max_size=20),
)
def test_dvc_and_the_pipeline_read_the_same_values(tmp_path, rate, rates, title):
    wanted = config.Params()
    wanted.inner.rate, wanted.adapt.rates = rate, rates
    wanted.report.title = "".join(letter for letter in title if letter.isprintable())
    path = tmp_path / "params.yaml"
    path.write_text("inner:\n  rate: 0.2 # of SGD\nadapt:\n  rates: [0.2]\n")
    try:
        profiles.apply(path, wanted)
    except UserError as error:
        pytest.fail(str(error))
    read = YAML(typ="safe").load(path.read_text())  # as DVC does
    assert (read["inner"]["rate"], read["adapt"]["rates"]) == (rate, rates)
    assert config.load(path) == wanted
    assert "# of SGD" in path.read_text()
