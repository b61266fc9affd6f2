"""params.yaml: what is refused, and with which words."""

from __future__ import annotations

import subprocess
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from metaspeech import config, registry
from metaspeech.errors import UserError

REPO = Path(__file__).resolve().parents[1]
DEFAULTS = config.flat(config.Params())


def committed_params() -> str:
    """params.yaml as committed: one's own may have a profile applied."""
    show = ["git", "-C", str(REPO), "show", "HEAD:./params.yaml"]
    try:
        done = subprocess.run(show, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs git, to see params.yaml as committed")
    if done.returncode:
        pytest.skip("needs a git checkout, to see params.yaml as committed")
    return done.stdout


def test_params_yaml_holds_every_key_with_its_default_and_a_comment(tmp_path):
    text = committed_params()
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert config.load(path) == config.Params()
    assert set(dotted(OmegaConf.to_container(OmegaConf.load(path)))) == set(DEFAULTS)


def dotted(values, prefix=""):
    """The keys of nested mappings; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("innner: {steps: 1}", "unknown key 'innner'. Did you mean 'inner'?"),
        ("inner: {stepps: 1}", "unknown key 'inner.stepps'. Did you mean 'inner.steps'?"),
        ("inner: {zzz: 1}", "unknown key 'inner.zzz'. Known here: steps, rate"),
        ("inner: 3", "inner: expected a section of keys, found 3"),
        ("inner: [1]", "inner: expected a section of keys"),
        ("- a", "expected sections of 'key: value'"),
        ("inner: {steps: many}", "inner.steps"),
        ("inner: {steps: 1.5}", "inner.steps"),
        ("inner: {rate: fast}", "inner.rate"),
        ("algorithms: 3", "algorithms"),
        ("inner: {steps: 0}", "inner.steps: 0 is out of range, expected between 1 and 100"),
        ("models: [wavenet, wavenet]", "models: 'wavenet' is there more than once; name each value once"),
        ("seeds: [1, 2, 1]", "seeds: 1 is there more than once"),
        ("seed: 1180591620717411303424", "seed: 1180591620717411303424 is out of range"),
        ("meta_train: {gradient_evaluations: 1000000000000000000}", "is out of range"),
        ("inner: {rate: -0.1}", "inner.rate: -0.1 is out of range"),
        ("inner: {rate: .nan}", "inner.rate: nan is out of range"),
        ("pretrain: {rate: .inf}", "pretrain.rate: inf is out of range"),
        ("adapt: {rates: [0.1, .nan]}", "adapt.rates: nan is out of range"),
        ("adapt: {shots: []}", "adapt.shots: expected at least one value, found an empty list"),
        ("algorithms: []", "algorithms: expected at least one value"),
        ("device: tpu", "device: 'tpu' is not one of auto, cpu, cuda"),
        ("algorithms: [mamml]", "algorithms: 'mamml' is not known. Known: transfer, pretrained, scratch"),
        ("corpus: {source: moon}", "corpus.source: 'moon' is not known"),
        ("evaluate: {judges: [ear]}", "evaluate.judges: 'ear' is not known"),
        ("prepare: {n_fft: 1024, win: 2048}", "prepare.win: 2048 exceeds prepare.n_fft (1024)"),
        ("prepare: {win: 800, hop: 801}", "prepare.hop: 801 exceeds prepare.win (800)"),
        (
            "prepare: {sample_rate: 16000, fmax: 9000}",
            "prepare.fmax: 9000.0 exceeds half of prepare.sample_rate (8000)",
        ),
        ("prepare: {fmin: 8000, fmax: 8000}", "prepare.fmin: 8000.0 is not below prepare.fmax"),
        ("prepare: {min_seconds: 12, max_seconds: 12}", "prepare.min_seconds: must be below prepare.max_seconds"),
        ("{episodes: {shots: 5}, adapt: {shots: [9]}}", "9 exceeds episodes.shots (5) and episodes.stored_shots (0)"),
        ("{adapt: {shots: [5]}, evaluate: {shots: [3, 5]}}", "evaluate.shots: [3] are not in adapt.shots [5]"),
        ("adapt: {steps: [1, 5]}", "adapt.steps: [1, 5] must contain 0"),
        ("{episodes: {queries: 5}, evaluate: {queries: 6}}", "evaluate.queries: 6 exceeds episodes.queries (5)"),
        ("inner: {steps: [", "cannot be read as YAML"),
        ("seed: " + "[" * 5000, "nested too deeply"),
        ("corpus: &a {path: *a}", "nested too deeply, or in itself"),
        ("seed: ${nothing}", "cannot be read as YAML"),
        ("a: &a [x, x]\nb: [" + "*a, " * 21 + "]", "more than 20 aliases"),
        ("pretrain: {init: none, steps: 0}", "pretrain.steps: 0 steps from nothing (pretrain.init none)"),
        ("per_model: {tacotron: {pretrain: {init: none, steps: 0}}}", "per_model.tacotron.pretrain.steps: 0 steps"),
        ("per_model: {tacotrn: {}}", "unknown key 'per_model.tacotrn'. Did you mean 'per_model.tacotron'?"),
        ("per_model: {tacotron: {evaluate: {}}}", "unknown key 'per_model.tacotron.evaluate'. Known here: pretrain"),
        ("per_model: {tacotron: {inner: {rat: 1}}}", "unknown key 'per_model.tacotron.inner.rat'. Did you mean"),
        ("per_model: {tacotron: {inner: }}", "per_model.tacotron.inner: expected a section of keys, found None"),
        ("per_model: {tacotron: {inner: {rate: fast}}}", "per_model.tacotron.inner.rate"),
        ("per_model: {tacotron: {inner: {steps: 1.5}}}", "per_model.tacotron.inner.steps"),
        ("per_model: {tacotron: {inner: {steps: 0}}}", "per_model.tacotron.inner.steps: 0 is out of range"),
        ("per_model: {tacotron: {adapt: {rates: []}}}", "per_model.tacotron.adapt.rates: expected at least one value"),
        ("per_model: {tacotron: {adapt: {steps: [0]}}}", "per_model.tacotron.adapt.steps: is the same for all models"),
    ],
)
def test_bad_values_end_in_one_message_that_names_the_key(tmp_path, text, expected):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        config.load(path)
    assert expected in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        config.load(tmp_path / "params.yaml")


def test_absent_keys_have_their_defaults(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("inner: {rate: 0.05}")
    assert config.flat(config.load(path)) == DEFAULTS | {"inner.rate": 0.05}


def test_a_model_has_its_own_values_and_otherwise_the_common_ones():
    own = {"inner": {"rate": 1}, "adapt": {"rates": [1]}}
    params = config.from_mapping({"inner": {"steps": 7}, "per_model": {"tacotron": own}})
    assert config.for_model(params, "tacotron").inner == replace(params.inner, rate=1.0)
    assert config.for_model(params, "tacotron").adapt == replace(params.adapt, rates=[1.0])
    assert params.inner == config.Inner(steps=7)
    other = config.from_mapping({"inner": {"steps": 7}, "per_model": {"tacotron": {"inner": {}}}})
    assert config.for_model(other, "tacotron") == other
    changed = {key: value for key, value in config.flat(params).items() if value != DEFAULTS.get(key)}
    assert changed == {
        "inner.steps": 7, "per_model.tacotron.inner.rate": 1.0, "per_model.tacotron.adapt.rates": [1.0],
    }  # fmt: skip
    assert type(changed["per_model.tacotron.inner.rate"]) is float


def test_every_model_has_a_section_and_may_differ_from_the_others():
    models = {item.name for item in fields(config.PerModel)}
    assert set(registry.MODELS) <= models <= {item.name for item in fields(config.Params)}


def numbers() -> list[tuple[str, float | None, float | None, bool]]:
    found = []
    for section in fields(config.Params):
        values = getattr(config.Params(), section.name)
        for item in fields(values) if is_dataclass(values) else []:
            default, low = getattr(values, item.name), item.metadata.get("low")
            if low is not None and isinstance(default, int | float):
                found.append((f"{section.name}.{item.name}", low, item.metadata["high"], isinstance(default, int)))
    return found


@settings(max_examples=60)
@given(st.sampled_from(numbers()), st.floats(min_value=1e-3, max_value=1e6), st.booleans())
def test_whatever_lies_outside_its_range_is_refused(number, distance, above):
    key, low, high, whole = number
    if above and high is None:
        above = False
    bad = high + distance if above else low - distance
    if whole:
        bad = int(high + 1 + distance) if above else int(low - 1 - distance)
    section, name = key.split(".")
    with pytest.raises(UserError, match=rf"{section}\.{name}: .* is out of range"):
        config.from_mapping({section: {name: bad}})


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1))
def test_no_unknown_section_passes(name):
    known = {item.name for item in fields(config.Params)}
    if name not in known:
        with pytest.raises(UserError, match=f"unknown key '{name}'"):
            config.from_mapping({name: 1})


@pytest.mark.parametrize("table", ["MODELS", "ALGORITHMS", "CORPORA", "REPRESENTATIONS", "JUDGES"])
def test_every_name_in_the_registry_leads_to_a_class(table):
    entries = getattr(registry, table)
    for name in entries:
        assert isinstance(registry.resolve(entries, name), type)


def test_params_that_are_no_text_are_named(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"seed: 1\n# caf\xe9")
    with pytest.raises(UserError, match="byte 13 is not UTF-8"):
        config.load(tmp_path / "params.yaml")
