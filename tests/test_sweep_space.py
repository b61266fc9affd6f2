"""The file that says what a sweep varies: what is refused and how, and what of the pipeline a key touches."""

from __future__ import annotations

import copy

import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from import_graph import ROOT
from omegaconf import OmegaConf

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.sweeps import space as spaces
from metaspeech.sweeps.stages import affected, figures, metric_files, needed

BASE = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
LOSS = {"model": "tacotron", "metric": "validation_loss", "direction": "minimise"}
GOOD = {
    "target": "adapt",
    "objectives": [LOSS],
    "fixed": {"models": ["tacotron"], "algorithms": ["maml"]},
    "search": {
        "inner.rate": {"low": 0.02, "high": 0.5, "log": True},
        "inner.steps": {"low": 1, "high": 5},
        "inner.adapts": {"values": ["weights", "vectors"]},
        "inner.adapt_modules": {"values": [["*"], ["decoder.*"]]},
    },
}


def parsed(changes: dict) -> spaces.Space:
    raw = copy.deepcopy(GOOD)
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) and isinstance(raw.get(key), dict) else value
    return spaces.parse(raw, BASE, "mine.yaml")


@pytest.mark.parametrize("file", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_spaces_that_ship_are_good(file):
    space = spaces.load(file, BASE)
    assert space.search
    assert needed(STAGES, space.target)


def test_a_space_is_read():
    space = parsed({})
    assert space.search["inner.rate"] == spaces.Range(0.02, 0.5, log=True)
    assert space.search["inner.steps"] == spaces.Range(1, 5, whole=True)
    chosen = {"inner.rate": 0.1, "inner.steps": 2, "inner.adapts": "vectors", "inner.adapt_modules": '["decoder.*"]'}
    assert space.values(chosen) == {
        "inner.rate": 0.1, "inner.steps": 2, "inner.adapts": "vectors", "inner.adapt_modules": ["decoder.*"],
    }  # fmt: skip


def range_of(key: str, **ends) -> dict:
    return {"search": {key: ends}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"searhc": {}}, "unknown key 'searhc'. Known here: target, objectives"),
        ({"target": "report"}, "target: 'report' is not one of meta_train, adapt, evaluate"),
        ({"search": None}, "search: expected keys of params.yaml"),
        (range_of("inner.rat", low=0.1, high=1), "search.inner.rat: unknown key 'inner.rat'. Did you mean 'inner.r"),
        (range_of("innner.rate", low=0.1, high=1), "unknown key 'innner'. Did you mean 'inner'?"),
        (range_of("inner", low=1, high=2), "search.inner: inner: expected a key with a value, not a section"),
        (range_of("inner.rate.low", low=1, high=2), "inner.rate.low: expected a key with a value"),
        (range_of("inner.rate", low=0.5, high=0.5), "search.inner.rate: empty range: low 0.5 is not below high 0.5"),
        (range_of("inner.rate", low=0.5, high=0.1), "empty range"),
        (range_of("inner.rate", low=0.1, high=1000), "inner.rate: 1000.0 is out of range, expected between"),
        (range_of("inner.steps", low=0, high=3), "inner.steps: 0 is out of range, expected between 1 and 100"),
        (range_of("inner.steps", low=1.5, high=3), "inner.steps"),
        (range_of("inner.rate", low="fast", high=1), "inner.rate: Value 'fast'"),
        (range_of("inner.rate", low=0.1), "expected {low: ..., high: ...}"),
        (range_of("inner.rate", low=0.1, hihg=1), "found the keys low, hihg"),
        (range_of("inner.rate", low=0.1, high=1, log="yes"), "log: expected true or false, found 'yes'"),
        (range_of("inner.rate", low=0.1, high=1, log=True, step=0.1), "step: expected a number between 0 and 0.9"),
        (range_of("inner.steps", low=1, high=5, step=0.5), "step: expected a whole number"),
        (range_of("inner.clip", low=0, high=1, log=True), "a logarithmic range must begin above 0, low is 0"),
        (range_of("inner.adapts", low=1, high=2), "is not one of weights, vectors, low_rank"),
        (range_of("meta_train.recompute", low=0, high=1), "only numbers have a range"),
        (range_of("inner.steps", values=[]), "a list of at least two different values"),
        (range_of("inner.steps", values=[2]), "a single one goes to fixed"),
        (range_of("inner.steps", values=[2, 2, 3]), "one stands there twice"),
        (range_of("inner.steps", values=[2, "many"]), "search.inner.steps: inner.steps: Value 'many'"),
        (range_of("represent.use", values=["task2vec", "task2vek"]), "represent.use: 'task2vek' is not in"),
        (range_of("per_model.tacotron.inner.rat", low=0.1, high=1), "'per_model.tacotron.inner.rat'. Did you mean"),
        (range_of("models", low=1, high=2), "stands under fixed and under search"),
        ({"fixed": {"episodes.shots": 2}}, "fixed: adapt.shots: 5 exceeds episodes.shots (2)"),
        ({"fixed": {"inner.stepps": 2}}, "fixed: unknown key 'inner.stepps'. Did you mean 'inner.steps'?"),
        ({"fixed": ["models"]}, "fixed: expected keys of params.yaml with a value each"),
        ({"objectives": []}, "objectives: expected a list of at least one"),
        ({"objectives": [LOSS | {"direction": "up"}]}, "'up' is not one of minimise, maximise"),
        ({"objectives": [LOSS | {"model": "tacotrn"}]}, "model: 'tacotrn' is not known"),
        ({"objectives": [LOSS | {"model": "wavenet"}]}, "'wavenet' is not among the models of the trials"),
        ({"objectives": [LOSS | {"weight": 2}]}, "expected {model: tacotron"),
        ({"objectives": [LOSS, LOSS]}, "one stands there twice"),
        ({"prune": "yes"}, "prune: expected true or false, found 'yes'"),
        (
            {"prune": True, "objectives": [LOSS, LOSS | {"metric": "loss_5"}]},
            "prune: Optuna can stop trials early by one objective only, and there are 2",
        ),
        ({"search": {"inner.adapt_modules": {"values": [["on"], ["*"]]}}}, "adapt_modules: 'on' cannot be handed"),
        ({"fixed": {"corpus.path": "12:30"}}, "corpus.path: '12:30' cannot be handed on"),
        ({"prune": True, "fixed": {"algorithms": ["maml", "boil"]}}, "algorithms names several: [maml,boil]"),
        ({"prune": True, "fixed": {"seeds": [1, 2]}}, "seeds names several"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_file_key_and_what_was_expected(changes, expected):
    with pytest.raises(UserError) as error:
        parsed(changes)
    assert str(error.value).startswith("mine.yaml: ")
    assert expected in str(error.value)


@pytest.mark.parametrize("content", ["[", "- a\n", "", "target: adapt\ntarget: [\n"])
def test_a_file_that_is_no_space_is_one_message(tmp_path, content):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=r"mine\.yaml"):
        spaces.load(tmp_path / "mine.yaml", BASE)
    with pytest.raises(UserError, match=r"no such file\. An example is sweeps/inner\.yaml"):
        spaces.load(tmp_path / "other.yaml", BASE)


@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes, through DVC
@given(rate=st.floats(1e-6, 100), steps=st.integers(1, 100), modules=st.lists(st.text(min_size=1), min_size=1))
@example(rate=0.2, steps=3, modules=["mÇ", "à", "_é"])
def test_what_dvc_is_told_is_what_was_chosen(tmp_path_factory, rate, steps, modules):
    """Through Hydra's grammar, as ``dvc exp run -S`` reads it, into the file."""
    from dvc.utils.hydra import apply_overrides

    modules = ["".join(one for one in name if one.isprintable() and one not in "\\'\"$") or "*" for name in modules]
    # a module named twice is refused, and so is what YAML reads otherwise
    modules = [name for name in dict.fromkeys(modules) if not spaces.READ_OTHERWISE.fullmatch(name)] or ["*"]
    wanted = {"inner.rate": float(f"{rate:.6g}"), "inner.steps": steps, "inner.adapt_modules": modules}
    path = tmp_path_factory.mktemp("told") / "params.yaml"
    path.write_text("inner:\n  rate: 0.2\n  steps: 3\n  adapt_modules: ['*']\n")
    apply_overrides(str(path), [spaces.assignment(key, value) for key, value in wanted.items()])
    read = config.flat(config.from_mapping(OmegaConf.to_container(OmegaConf.load(path))))
    assert {key: read[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("keys", "target", "expected"),
    [
        (["inner.rate"], "adapt", ["meta_train", "adapt"]),
        (["inner.rate"], "meta_train", ["meta_train"]),
        (["adapt.rates"], "adapt", ["adapt"]),
        (["algorithms"], "adapt", ["meta_train", "adapt"]),
        (["evaluate.judges"], "adapt", []),
        (["per_model.tacotron.inner.rate"], "evaluate", ["meta_train", "adapt", "evaluate"]),
        (["pretrain.steps"], "adapt", ["pretrain", "represent", "meta_train", "adapt"]),
        (["data_seed"], "adapt", ["corpus", "prepare", "episodes", "pretrain", "represent", "meta_train", "adapt"]),
        (["episodes.shots"], "adapt", ["episodes", "pretrain", "represent", "meta_train", "adapt"]),
    ],
)
def test_a_key_touches_the_stages_that_read_it_and_what_follows(keys, target, expected):
    assert affected(STAGES, target, keys) == expected


def test_a_target_needs_what_comes_before_it():
    assert needed(STAGES, "episodes") == ["corpus", "prepare", "episodes"]
    assert needed(STAGES, "adapt")[-1] == "adapt"
    assert "evaluate" not in needed(STAGES, "adapt")


def test_an_objective_is_found_in_the_figures_of_its_stage():
    params = config.from_mapping(
        {"models": ["tacotron", "wavenet"], "algorithms": ["maml", "reptile"], "seeds": [1, 2]}
    )
    loss = spaces.Objective("loss_5", "tacotron", "minimize")
    files = metric_files(STAGES["adapt"], loss, params)
    assert files == [
        f"results/adapt/tacotron-{algorithm}-{seed}/metrics.json"
        for algorithm in ("maml", "reptile")
        for seed in (1, 2)
    ]
    only = spaces.Objective("loss_5", "tacotron", "minimize", "maml")
    assert metric_files(STAGES["adapt"], only, params) == files[:2]
    assert figures({"loss_5": 0.5}, loss, params, files[0]) == [0.5]

    chain = spaces.Objective("similarity_5", "tacotron+wavenet", "maximize")
    assert metric_files(STAGES["evaluate"], chain, params) == ["results/evaluate/metrics.json"]
    content = {f"tacotron-wavenet-{name}": {"similarity_5": value} for name, value in (("maml", 0.7), ("reptile", 0.5))}
    assert figures(content, chain, params, "metrics.json") == [0.7, 0.5]
    with pytest.raises(UserError, match=r"metrics\.json has no such figure. It has: similarity_5"):
        figures(content, spaces.Objective("similarity_7", "tacotron+wavenet", "maximize"), params, "metrics.json")
