"""What params.yaml may say: one dataclass for each of its sections, with defaults and ranges.

``load`` merges a file over these defaults. An unknown key, a wrong type or a value out of range ends in a
:class:`~metaspeech.errors.UserError` that names the key.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasEvent, YAMLError

from metaspeech.errors import UserError
from metaspeech.schema import check_keys, check_range, leaves, ranged, some_of, typed

LARGEST_SEED = 2**31 - 1  # that all libraries take
_MOST_ALIASES = 20  # of params.yaml: a few lines of nested aliases are worth gigabytes


@dataclass
class Corpus:
    """Where the speech comes from."""

    source: str = "espeak"  # a name in registry.CORPORA
    path: str = "assets/espeak_voices.csv"  # espeak: the list of voices; any other source: the folder of recordings
    layout: str = ranged("auto", choices=("auto", "metadata", "ljspeech", "vctk"))  # source folder only
    speakers: int = ranged(0, 0)  # at most so many speakers are used; 0: all
    utterances: int = ranged(40, 0)  # espeak: phrases a voice; else at most so many a speaker, 0: all
    vocabulary: int = ranged(300, 6)  # espeak: words that texts are made of
    texts: str = ranged("sentences", choices=("phrases", "sentences"))  # espeak
    words_per_phrase: int = ranged(6, 1, 12)  # espeak; of the longest sentence


@dataclass
class Prepare:
    """Audio and text to features. Lengths in samples at ``sample_rate`` unless named otherwise."""

    sample_rate: int = ranged(16000, 8000, 48000)
    n_fft: int = ranged(1024, 64, 8192)
    win: int = ranged(1024, 64, 8192)
    hop: int = ranged(256, 16, 4096)
    n_mels: int = ranged(80, 8, 256)
    fmin: float = ranged(0.0, 0)  # Hz
    fmax: float = ranged(8000.0, 100)  # Hz
    text: str = ranged("phonemes", choices=("phonemes", "characters"))
    align: str = ranged("none", choices=("none", "pocketsphinx"))  # when each symbol is spoken
    statistics: str = "assets/mel_statistics.json"  # of each mel band, to normalise by; empty: of this corpus itself
    loudness_db: float = ranged(-23.0, -60, 0)  # RMS over speech, dB full scale
    trim_db: float = ranged(40.0, 10, 90)  # what lies this far below the peak at either end is silence
    min_seconds: float = ranged(0.2, 0.05)
    max_seconds: float = ranged(12.0, 0.5)
    max_clipped: float = ranged(0.01, 0, 1)  # share of samples at full scale
    max_rejected: float = ranged(0.2, 0, 1)  # share of utterances left out at which the stage stops
    shard_mb: int = ranged(256, 1)
    workers: int = ranged(0, 0)  # processes; 0: one a core


@dataclass
class Episodes:
    """Tasks: a speaker with a support and a query set."""

    val_speakers: int = ranged(6, 1)
    test_speakers: int = ranged(12, 1)
    text_split: str = ranged("phrases", choices=("phrases", "words", "none"))
    held_out_texts: str = ""  # a file of texts, one a line: val and test speakers keep only these, train speakers none
    shots: int = ranged(5, 1)  # support utterances in training
    stored_shots: int = ranged(0, 0)  # of stored val and test tasks, the most that adapt may use; at least shots
    queries: int = ranged(5, 1)
    tasks_per_speaker: int = ranged(1, 1)  # stored val and test tasks

    @property
    def most_shots(self) -> int:
        """Support utterances of a stored task."""
        return max(self.shots, self.stored_shots)


@dataclass
class Tacotron:
    """Tacotron 2 sizes (Shen et al. 2018, section 2.2). `small` is for two cores, `paper` as published."""

    preset: str = ranged("small", choices=("small", "paper", "tiny"), of_weights=True)
    reduction_factor: int = ranged(4, 1, 10, of_weights=True)  # mel frames a decoder step
    guided_attention: float = ranged(5.0, 0)  # weight of the guided attention loss
    guided_sigma: float = ranged(0.3, 0.05, 2)
    aligned_attention: float = ranged(1.0, 0)  # weight of the attention loss where prepare.align found the alignment
    stop_weight: float = ranged(8.0, 0.1)  # of the positive class of the stop token
    prenet_dropout: float = ranged(0.5, 0, 0.9)
    dropout: float = ranged(0.0, 0, 0.9)


@dataclass
class Wavenet:
    """WaveNet (van den Oord et al. 2016) from mel to waveform. `small` is for two cores, `paper` as published."""

    preset: str = ranged("small", choices=("small", "paper", "tiny"), of_weights=True)
    output: str = ranged("mulaw", choices=("mulaw", "logistics", "gaussian"), of_weights=True)  # of the next sample
    preemphasis: float = ranged(0.85, 0, 0.99, of_weights=True)  # of what is modelled; undone after sampling
    window: int = ranged(2048, 64)  # samples of each utterance that a loss is taken over, context included
    temperature: float = ranged(1.0, 0, 2)  # of the draws in synthesis


@dataclass
class Pretrain:
    """Joint training over the training speakers: the common start."""

    init: str = ranged("shipped", choices=("shipped", "none"))  # train on from the start that ships, or from nothing
    steps: int = ranged(0, 0)  # 0: the start as it is
    batch_size: int = ranged(16, 1)
    voices: bool = True  # a vector for each training speaker; false: the features alone say who speaks
    speeds: list[float] = ranged([1.0], 0.5, 2.0)  # recordings are played at, as if by speakers of their own
    rate: float = ranged(2e-3, 1e-8, 10)
    final_rate: float = ranged(1e-4, 0, 10)  # cosine from rate to this
    warmup: int = ranged(50, 0)  # steps
    clip: float = ranged(1.0, 0)  # gradient norm; 0: none
    checkpoint_every: int = ranged(100, 1)  # steps


@dataclass
class Represent:
    """Vectors for tasks: which are near, which are far."""

    representations: list[str] = ranged(["speaker_embedding", "task2vec", "inner_gradient"])  # in the registry
    use: str = "speaker_embedding"  # the one that samplers, nearest and conditioned go by
    utterances: int = ranged(3, 1)  # of a training speaker
    workers: int = ranged(0, 0)  # processes; 0: one a core


@dataclass
class Inner:
    """The inner loop in meta-training: gradient steps on the support loss."""

    steps: int = ranged(3, 1, 100)
    rate: float = ranged(0.2, 1e-6, 100)
    clip: float = ranged(1.0, 0)  # inner gradient norm; 0: none
    optimiser: str = ranged("sgd", choices=("sgd", "momentum", "adam"))
    adapts: str = ranged("weights", choices=("weights", "vectors", "low_rank"))
    adapt_modules: list[str] = ranged(  # name patterns (fnmatch) of the parameters that may adapt
        ["voice", "decoder.decoder_rnn.*", "decoder.projection.*", "postnet.*"]
    )
    low_rank: int = ranged(4, 1, 1024)  # rank of the adapters with adapts: low_rank


@dataclass
class MetaTrain:
    """The outer loop. Every algorithm gets the same number of gradient evaluations."""

    gradient_evaluations: int = ranged(800, 2, 10**9)  # support or query gradients over the whole of meta-training
    meta_batch: int = ranged(2, 1)  # episodes an outer step
    sampler: str = "uniform"  # a name in registry.SAMPLERS: whose episodes an outer step gets
    rate: float = ranged(5e-4, 1e-8, 10)  # outer rate (Adam)
    reptile_rate: float = ranged(1.0, 1e-6, 10)  # outer rate of Reptile (SGD), annealed to 0
    clip: float = ranged(1.0, 0)
    checkpoint_every: int = ranged(10, 1)  # outer steps
    validate_every: int = ranged(20, 1)  # outer steps
    max_skipped: float = ranged(0.1, 0, 1)  # share of tasks that may be skipped because their loss is not finite
    recompute: bool = False  # second order: take inner steps again on the way back, with the memory of one


@dataclass
class Nothing:
    """An algorithm with no values of its own."""


@dataclass
class Mamlpp:
    """MAML++."""

    multi_step: float = ranged(0.5, 0, 1)  # share of meta-training in which the loss after every inner step counts
    first_order: float = ranged(0.25, 0, 1)  # share of meta-training, at first, with first-order gradients
    rates_rate: float = ranged(0.02, 1e-8, 10)  # outer rate of the logarithms of inner rates


@dataclass
class Imaml:
    """Implicit MAML."""

    strength: float = ranged(2.0, 1e-6)  # of the pull towards the start (lambda)
    solver_steps: int = ranged(5, 1, 100)  # of conjugate gradients
    damping: float = ranged(0.0, 0)  # added to strength in the solver: less exact, more stable


@dataclass
class Nearest:
    """The baseline with a warm start."""

    warm_steps: int = ranged(5, 1, 1000)  # on the nearest training speaker, before the task's own


@dataclass
class PerAlgorithm:
    """What an algorithm has besides the inner and the outer loop: a field for each algorithm."""

    transfer: Nothing = field(default_factory=Nothing)
    pretrained: Nothing = field(default_factory=Nothing)
    scratch: Nothing = field(default_factory=Nothing)
    conditioned: Nothing = field(default_factory=Nothing)
    nearest: Nearest = field(default_factory=Nearest)
    maml: Nothing = field(default_factory=Nothing)
    fomaml: Nothing = field(default_factory=Nothing)
    reptile: Nothing = field(default_factory=Nothing)
    anil: Nothing = field(default_factory=Nothing)
    boil: Nothing = field(default_factory=Nothing)
    meta_sgd: Nothing = field(default_factory=Nothing)
    mamlpp: Mamlpp = field(default_factory=Mamlpp)
    imaml: Imaml = field(default_factory=Imaml)


@dataclass
class Adapt:
    """The inner loop on unseen speakers."""

    shots: list[int] = ranged([5], 1)
    steps: list[int] = ranged([0, 1, 5, 10, 20], 0)
    rates: list[float] = ranged([0.1, 0.2], 1e-6, 100)  # the best on the validation tasks is used
    tune_steps: int = ranged(5, 1)  # steps at which rates are compared
    horizon: int = ranged(20, 1)  # times inner.steps: so far a few tasks are followed, in case adaptation diverges
    horizon_tasks: int = ranged(1, 0)  # how many
    workers: int = ranged(1, 0)  # processes of one thread, which pay from four cores on; 0: one a core


@dataclass
class Overrides:
    """Values of one model that take the place of those in the sections of the same names."""

    pretrain: dict[str, Any] = some_of(Pretrain)
    inner: dict[str, Any] = some_of(Inner)
    meta_train: dict[str, Any] = some_of(MetaTrain)
    adapt: dict[str, Any] = some_of(
        Adapt, not_these=("shots", "steps", "tune_steps", "horizon", "horizon_tasks")
    )  # evaluate compares models


@dataclass
class PerModel:
    """What a model does differently: a field for each model."""

    tacotron: Overrides = field(default_factory=Overrides)
    wavenet: Overrides = field(
        default_factory=lambda: Overrides(
            pretrain={"voices": False},
            inner={"rate": 0.1, "adapt_modules": ["*"]},
            meta_train={"gradient_evaluations": 96, "validate_every": 30},
            adapt={"rates": [0.05, 0.1]},
        )
    )


@dataclass
class Evaluate:
    """Free-running synthesis of the query texts, and what is measured on it."""

    shots: list[int] = ranged([5], 1)  # which of adapt.shots are synthesised
    queries: int = ranged(2, 1)  # query utterances a task
    vocoder_steps: list[int] = ranged([0, 5, 20], 0)  # those of adapt.steps at which vocoders synthesise
    vocoder_queries: int = ranged(2, 1)  # of the query utterances, at most so many through vocoders
    griffin_lim_iterations: int = ranged(32, 1)
    match_bands: bool = True  # give adapted voices the mean and covariance of the mel bands of their recordings
    max_seconds_ratio: float = ranged(3.0, 1)  # a synthesis stops at so many times the length of the recording
    judges: list[str] = ranged(
        ["mcd", "f0", "prosody", "similarity", "phonemes", "sentences", "mos", "attention"]
    )  # names in registry.JUDGES
    dear_queries: int = ranged(1, 1)  # of the query utterances, at most so many are heard by the slow judge: mos
    test: str = ranged("sign_flip", choices=("sign_flip", "wilcoxon"))  # of paired differences over speakers
    bootstrap: int = ranged(2000, 100)  # resamples of speakers
    workers: int = ranged(0, 0)  # processes; 0: one a core


@dataclass
class Report:
    """The page a person opens."""

    title: str = "MetaSpeech"
    speakers: int = ranged(6, 1)  # with audio on the page


@dataclass
class Tracking:
    """MLflow."""

    experiment: str = "metaspeech"
    system_metrics: bool = False


@dataclass
class Params:
    """The whole of params.yaml."""

    seed: int = ranged(1, 0, LARGEST_SEED)  # of pretraining, representations, resampling
    seeds: list[int] = ranged([1], 0, LARGEST_SEED)  # of meta-training and adaptation: a run each
    data_seed: int = ranged(1, 0, LARGEST_SEED)  # of the generated corpus, who and what is held out, stored tasks
    device: str = ranged("auto", choices=("auto", "cpu", "cuda"))
    precision: str = ranged("float32", choices=("float32", "bfloat16"))  # of matrix products in training
    threads: int = ranged(0, 0)  # of torch; 0: one a core
    devices: int = ranged(1, 1)  # processes that share the tasks of an outer step, each with one thread or one GPU
    engine: str = ranged("local", choices=("local", "ray"))  # where prepare's workers and meta_train's processes run
    models: list[str] = ranged(["tacotron", "wavenet"])
    algorithms: list[str] = ranged(["transfer", "pretrained", "reptile", "mamlpp"])
    corpus: Corpus = field(default_factory=Corpus)
    prepare: Prepare = field(default_factory=Prepare)
    episodes: Episodes = field(default_factory=Episodes)
    tacotron: Tacotron = field(default_factory=Tacotron)
    wavenet: Wavenet = field(default_factory=Wavenet)
    pretrain: Pretrain = field(default_factory=Pretrain)
    represent: Represent = field(default_factory=Represent)
    inner: Inner = field(default_factory=Inner)
    meta_train: MetaTrain = field(default_factory=MetaTrain)
    per_algorithm: PerAlgorithm = field(default_factory=PerAlgorithm)
    adapt: Adapt = field(default_factory=Adapt)
    per_model: PerModel = field(default_factory=PerModel)
    evaluate: Evaluate = field(default_factory=Evaluate)
    report: Report = field(default_factory=Report)
    tracking: Tracking = field(default_factory=Tracking)


def load(path: str | Path = "params.yaml") -> Params:
    """Reads and checks a params file.

    Raises:
        UserError: the file is missing or no YAML, or a key is unknown, of the wrong type or out of range.
    """
    path = Path(path)
    try:
        raw = _yaml(path)
        values = OmegaConf.to_container(raw, resolve=True)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file. Run from the project's root, or restore it: git checkout {path}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8. Restore it: git checkout {path}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply, or in itself. Expected sections of 'key: value'") from None
    except (YAMLError, OSError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(raw, DictConfig):
        raise UserError(f"{path}: expected sections of 'key: value', found a {type(raw).__name__}")
    return from_mapping(values, source=str(path))  # type: ignore[arg-type]


def _yaml(path: Path) -> Any:
    """The content, unless its aliases would multiply it beyond what memory holds."""
    text = path.read_text(encoding="utf-8")
    if "*" in text and sum(isinstance(event, AliasEvent) for event in yaml.parse(text)) > _MOST_ALIASES:
        raise UserError(f"{path}: more than {_MOST_ALIASES} aliases (*name): write the values out")
    return OmegaConf.load(io.StringIO(text))


def from_mapping(values: Mapping[str, Any], source: str = "params") -> Params:
    """Checks nested values and merges them over the defaults. Raises like :func:`load`."""
    check_keys(values, Params, "", source)
    prefix = ""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Params), OmegaConf.create(dict(values)))
        params = OmegaConf.to_object(merged)
        assert isinstance(params, Params)
        for model in fields(params.per_model):
            overrides = getattr(params.per_model, model.name)
            for item in fields(overrides):
                prefix = f"per_model.{model.name}.{item.name}."
                setattr(overrides, item.name, typed(item.metadata["section"], getattr(overrides, item.name)))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: {prefix}{key}: {reason}") from None
    for key, value, metadata in leaves(params):
        check_range(key, value, metadata, source)
    _check_combinations(params, source)
    return params


def for_model(params: Params, model: str) -> Params:
    """The params with what ``per_model`` says of this model in the place of the common values."""
    overrides = getattr(params.per_model, model)
    sections = {item.name: getattr(overrides, item.name) for item in fields(overrides)}
    return replace(params, **{name: replace(getattr(params, name), **own) for name, own in sections.items()})


def weight_settings(params: Params, model: str) -> dict[str, Any]:
    """The values of a model's section that decide the shapes or the meaning of its weights."""
    section = getattr(params, model)
    return {item.name: getattr(section, item.name) for item in fields(section) if item.metadata.get("of_weights")}


def flat(params: Params) -> dict[str, Any]:
    """Every value under its dotted key: ``{"seed": 1, "corpus.source": "espeak", ...}``.

    ``per_model.<model>.<section>`` without any key is there as ``{}``.
    """
    return {key: value for key, value, _ in leaves(params)}


def _check_combinations(params: Params, source: str) -> None:
    """What one key demands of another."""

    def demand(holds: bool, message: str) -> None:
        if not holds:
            raise UserError(f"{source}: {message}")

    prepare, adapt, evaluate = params.prepare, params.adapt, params.evaluate
    demand(prepare.win <= prepare.n_fft, f"prepare.win: {prepare.win} exceeds prepare.n_fft ({prepare.n_fft})")
    demand(prepare.hop <= prepare.win, f"prepare.hop: {prepare.hop} exceeds prepare.win ({prepare.win})")
    nyquist = prepare.sample_rate / 2
    demand(prepare.fmax <= nyquist, f"prepare.fmax: {prepare.fmax} exceeds half of prepare.sample_rate ({nyquist:g})")
    demand(prepare.fmin < prepare.fmax, f"prepare.fmin: {prepare.fmin} is not below prepare.fmax ({prepare.fmax})")
    demand(prepare.min_seconds < prepare.max_seconds, "prepare.min_seconds: must be below prepare.max_seconds")
    demand(
        max(adapt.shots) <= params.episodes.most_shots,
        f"adapt.shots: {max(adapt.shots)} exceeds episodes.shots ({params.episodes.shots}) and episodes.stored_shots "
        f"({params.episodes.stored_shots})",
    )
    unadapted = [shots for shots in evaluate.shots if shots not in adapt.shots]
    demand(not unadapted, f"evaluate.shots: {unadapted} are not in adapt.shots {adapt.shots}: name some of these")
    demand(0 in adapt.steps, f"adapt.steps: {adapt.steps} must contain 0, the voice before adaptation")
    absent = [step for step in evaluate.vocoder_steps if step not in adapt.steps]
    demand(not absent, f"evaluate.vocoder_steps: {absent} are not in adapt.steps {adapt.steps}: name some of these")
    demand(
        evaluate.queries <= params.episodes.queries,
        f"evaluate.queries: {evaluate.queries} exceeds episodes.queries ({params.episodes.queries})",
    )
    represent = params.represent
    demand(
        represent.use in represent.representations,
        f"represent.use: '{represent.use}' is not in represent.representations {represent.representations}",
    )
    samplers = [for_model(params, model.name).meta_train.sampler for model in fields(params.per_model)]
    from metaspeech import registry

    for key, names, table in (
        ("models", params.models, registry.MODELS),
        ("algorithms", params.algorithms, registry.ALGORITHMS),
        ("corpus.source", [params.corpus.source], registry.CORPORA),
        ("represent.representations", params.represent.representations, registry.REPRESENTATIONS),
        ("meta_train.sampler", samplers, registry.SAMPLERS),
        ("evaluate.judges", evaluate.judges, registry.JUDGES),
    ):
        for name in names:
            demand(name in table, f"{key}: '{name}' is not known. Known: {', '.join(table)}")
    for model in params.models:
        own, name = for_model(params, model).pretrain, "pretrain.steps"
        if "steps" in getattr(params.per_model, model).pretrain:
            name = f"per_model.{model}.{name}"
        demand(
            own.init == "shipped" or own.steps > 0,
            f"{name}: 0 steps from nothing (pretrain.init none) leave {model} untrained. Expected at least 1",
        )
