"""What is evaluated must not have been part of any training: who is unseen, what is said, and who judges.

Checked again from the files themselves at the start of the evaluation, whatever the stages that made them promised.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from metaspeech.data.episodes import EpisodeSpec, Pool, read_episodes, read_pool
from metaspeech.data.texts import phrase
from metaspeech.errors import UserError
from metaspeech.evaluation.judges.base import UNKNOWN
from metaspeech.evaluation.summary import LEAKAGE
from metaspeech.registry import JUDGES, resolve
from metaspeech.training.checkpoint import CARD, read_card
from metaspeech.training.starts import check_unseen, read_start

HOLDS = {"libritts": ("librispeech",)}  # a corpus -> others with recordings of the same speakers
GENERATED = ("espeak",)  # corpora whose voices nobody has recordings of
NAMED = 5  # culprits in a message


@dataclass(frozen=True)
class Inputs:
    """Where it stands what was trained on, and what is evaluated.

    Attributes:
        pool, val, test: the training speakers, the tasks that rates were tuned on, those that are evaluated.
        trained: folders of models, each with what it is called.
        starts: model -> file that says which start its pretraining went on from, null for none.
        vectors: model -> task vectors.
    """

    pool: Path
    val: Path
    test: Path
    trained: Mapping[str, Path]
    starts: Mapping[str, Path]
    vectors: Mapping[str, Path]


@dataclass(frozen=True)
class _Finding:
    """``problem`` stops the evaluation; a check without one may yet not have passed, which the report marks."""

    check: str
    detail: str
    passed: bool = True
    problem: str = ""


def check_leakage(
    inputs: Inputs, manifest: pd.DataFrame, *, text_split: str, source: str, judges: Sequence[str]
) -> pd.DataFrame:
    """What was checked, a row each: check, passed, detail. A row that did not pass is to be marked in the report.

    Args:
        manifest: columns speaker and text, utt_id as the index.
        text_split: ``episodes.text_split``.
        source: of the corpus.
        judges: names in the registry. A class may say ``trained_on``: names of corpora, or "corpus/speaker".

    Raises:
        UserError: names the files and who or what leaked; everything that was found at once.
    """
    pool = read_pool(inputs.pool)
    val, test = read_episodes(inputs.val), read_episodes(inputs.test)
    speaker_of = dict(zip(manifest.index, manifest["speaker"].astype(str), strict=True))
    texts = dict(zip(manifest.index, manifest["text"].astype(str), strict=True))
    unseen = _speakers(test, speaker_of)
    held_out = unseen | _speakers(val, speaker_of)
    findings = [
        _training_speakers(inputs, pool, speaker_of, held_out),
        _tuning_speakers(inputs, _speakers(val, speaker_of), unseen),
        _texts(inputs, pool, val, test, texts, text_split),
        _support_and_query(inputs, val, test, speaker_of),
        *(_trained(name, folder, held_out) for name, folder in inputs.trained.items()),
        *(_start(*item, source, val + test, texts, text_split) for item in inputs.starts.items()),
        *(_vectors(*item, held_out) for item in inputs.vectors.items()),
        *(_judge(name, source, unseen) for name in judges),
    ]
    problems = [found.problem for found in findings if found.problem]
    if problems:
        raise UserError(
            "what is to be evaluated was part of training, or judges knew it, so no figure would mean anything:\n- "
            + "\n- ".join(problems)
        )
    return pd.DataFrame([(found.check, found.passed, found.detail) for found in findings], columns=LEAKAGE)


def _training_speakers(inputs: Inputs, pool: Pool, speaker_of: Mapping[str, str], held_out: set[str]) -> _Finding:
    name = "no validation or test speaker is for training"
    training = set(pool) | {speaker_of.get(utt_id, speaker) for speaker, ids in pool.items() for utt_id in ids}
    if shared := training & held_out:
        problem = f"{inputs.pool}: has {_named('speaker', shared)} of {inputs.val} and {inputs.test}. "
        return _Finding(name, "", False, problem + _again("episodes"))
    return _Finding(name, f"{len(training)} for training, {len(held_out)} held out")


def _tuning_speakers(inputs: Inputs, tuning: set[str], unseen: set[str]) -> _Finding:
    name = "no test speaker is for validation, which rates are tuned on"
    if shared := tuning & unseen:
        problem = f"{inputs.val}: has {_named('speaker', shared)} of {inputs.test}. "
        return _Finding(name, "", False, problem + _again("episodes"))
    return _Finding(name, f"{len(tuning)} for validation, {len(unseen)} for the test")


def _texts(
    inputs: Inputs,
    pool: Pool,
    val: Sequence[EpisodeSpec],
    test: Sequence[EpisodeSpec],
    texts: Mapping[str, str],
    text_split: str,
) -> _Finding:
    training = {phrase(texts[utt_id]) for ids in pool.values() for utt_id in ids if utt_id in texts}
    tuning, unseen = _phrases(val, texts), _phrases(test, texts)
    if text_split == "none":
        shared = len(unseen & (training | tuning))
        return _Finding(
            "texts may be shared (episodes.text_split none)",
            f"{shared} of {len(unseen)} test texts are training or validation texts too",
        )
    name = "no text is in two splits"
    for path, other in ((inputs.pool, training), (inputs.val, tuning)):
        if common := other & unseen:
            problem = f"{path}: has {_named('text', common)} of {inputs.test}. {_again('episodes')}"
            return _Finding(name, "", False, problem)
    if common := training & tuning:
        problem = f"{inputs.pool}: has {_named('text', common)} of {inputs.val}. {_again('episodes')}"
        return _Finding(name, "", False, problem)
    detail = f"{len(unseen)} test texts, {len(training)} training texts"
    if text_split == "words":
        words = {word for text in training for word in text.split()}
        if known := {text for text in unseen if words.issuperset(text.split())}:
            problem = f"{inputs.test}: has {_named('text', known)}, of words that are all in {inputs.pool}, against "
            return _Finding(name, "", False, f"{problem}episodes.text_split words. {_again('episodes')}")
        detail += ", each test text with a word that no training text has"
    return _Finding(name, detail)


def _support_and_query(
    inputs: Inputs, val: Sequence[EpisodeSpec], test: Sequence[EpisodeSpec], speaker_of: Mapping[str, str]
) -> _Finding:
    name = "no recording is in the support and the query set of a task"
    for path, tasks in ((inputs.val, val), (inputs.test, test)):
        for task in tasks:
            if shared := set(task.support) & set(task.query):
                problem = f"{path}: task '{task.episode_id}' has {_named('recording', shared)} in support and query. "
                return _Finding(name, "", False, problem + _again("episodes"))
            others = {one for one in (*task.support, *task.query) if speaker_of.get(one, task.speaker) != task.speaker}
            if others:
                problem = f"{path}: task '{task.episode_id}' has {_named('recording', others)} of another speaker. "
                return _Finding(name, "", False, problem + _again("episodes"))
    return _Finding(name, f"{len(test)} test tasks, {len(val)} validation tasks")


def _trained(name: str, folder: Path, held_out: set[str]) -> _Finding:
    check, speakers = f"{name}: trained on nobody who is held out", read_card(folder).get("speakers")
    if speakers is None:
        problem = f"{folder / CARD}: does not say whom the model was trained on. Delete {folder} and run: dvc repro"
        return _Finding(check, "", False, problem)
    if shared := set(speakers) & held_out:
        problem = f"{folder / CARD}: the model was trained on {_named('held-out speaker', shared)}. "
        return _Finding(check, "", False, f"{problem}Delete {folder} and run: dvc repro")
    return _Finding(check, f"{len(speakers)} speakers")


def _start(
    model: str, path: Path, source: str, tasks: Sequence[EpisodeSpec], texts: Mapping[str, str], text_split: str
) -> _Finding:
    name = f"{model}: the start that ships knows nobody and nothing that is held out"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        folder, digest = (Path(described["name"]), described["sha256"]) if described else (None, None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _Finding(name, "", False, f"{path}: cannot be read ({error}). {_again('pretrain')}")
    if folder is None:
        return _Finding(name, "trained from nothing")
    start = read_start(folder, model)
    if start.card["sha256"] != digest:
        return _Finding(name, "", False, f"{folder}: not the start that {path} speaks of. {_again('pretrain')}")
    try:
        check_unseen(start, source, tasks, texts, text_split == "none")
    except UserError as error:
        return _Finding(name, "", False, str(error))
    corpus = start.card["corpus"]["source"]
    return _Finding(name, f"{folder.as_posix()}: {len(start.card['speakers'])} speakers of {corpus}")


def _vectors(model: str, path: Path, held_out: set[str]) -> _Finding:
    name = f"{model}: no held-out speaker is among the neighbours that task vectors are compared with"
    try:
        table = pd.read_parquet(path, columns=["id", "split", "speaker"])
    except (OSError, ValueError) as error:
        return _Finding(name, "", False, f"{path}: cannot be read ({error}). {_again('represent')}")
    training = table[table["split"] == "train"]
    known = set(training["id"].astype(str)) | set(training["speaker"].astype(str))
    if shared := known & held_out:
        problem = f"{path}: has {_named('held-out speaker', shared)} among the training tasks. {_again('represent')}"
        return _Finding(name, "", False, problem)
    return _Finding(name, f"{training['id'].nunique()} training tasks")


def _judge(name: str, source: str, unseen: set[str]) -> _Finding:
    """A judge that names the corpus may have heard the test speakers: a mark. One that names them has."""
    check = f"judge {name}: has not heard the test speakers in its training"
    known: tuple[str, ...] = resolve(JUDGES, name).trained_on
    corpora = (source, *HOLDS.get(source, ()))
    heard = {speaker for speaker in unseen if any(f"{corpus}/{speaker}" in known for corpus in corpora)}
    if heard:
        problem = (
            f"evaluate.judges: '{name}' was trained on {_named('speaker', heard)}. Leave it out, or hold out others"
        )
        return _Finding(check, "", False, problem)
    if not known:
        return _Finding(check, "learned from no recordings")
    if UNKNOWN in known:
        unpublished = "what it was trained on is not published"
        if source in GENERATED:
            return _Finding(check, f"{unpublished}; the voices of this corpus are generated here")
        return _Finding(check, unpublished, False)
    detail = f"trained on {', '.join(dict.fromkeys(entry.partition('/')[0] for entry in known))}"
    same = [corpus for corpus in corpora if corpus in known]
    if same:
        return _Finding(check, f"{detail}: {same[0]} has the speakers of this corpus, perhaps these too", False)
    return _Finding(check, detail)


def _speakers(tasks: Iterable[EpisodeSpec], speaker_of: Mapping[str, str]) -> set[str]:
    """By their names, and by whose the recordings are."""
    return {name for task in tasks for name in (task.speaker, *(speaker_of.get(u, task.speaker) for u in _of(task)))}


def _phrases(tasks: Iterable[EpisodeSpec], texts: Mapping[str, str]) -> set[str]:
    return {phrase(texts[utt_id]) for task in tasks for utt_id in _of(task) if utt_id in texts}


def _of(task: EpisodeSpec) -> tuple[str, ...]:
    return (*task.support, *task.query)


def _named(kind: str, culprits: Collection[str]) -> str:
    names = sorted(culprits)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{kind}{'s' if len(names) > 1 else ''} {', '.join(repr(name) for name in names[:NAMED])}{more}"


def _again(stage: str) -> str:
    return f"Make it again: dvc repro -sf {stage}, then dvc repro"
