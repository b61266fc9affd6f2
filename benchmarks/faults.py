"""What the pipeline and the commands survive: ``python -m benchmarks.faults FOLDER``; a table, and one JSON line last.

FOLDER keeps a finished smoke run (made when absent) to which damage is done in copies. Each trial runs a command as a
user would, and survives when it ends in time, with status 0 or with status 2 and a message that says what is wrong,
never with a traceback; and when nothing is lost: after ``dvc repro`` all is as before.

    kills    SIGKILL of dvc, its stage and all workers at seeded random moments of random stages, in a project without
             any result; when all is done, the hashes of all outs are those of the run that nobody disturbed
    damage   a full disk, read-only places, and corrupted files of every kind
    fuzz     hostile manifests, params, audio headers and texts
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from benchmarks import fuzz_cases
from tools import smoke

PARTS = ("kills", "damage", "fuzz")
# outs that hold durations, or the date
TIMED = ("results/runs/", "reports")
DVC = (sys.executable, "-m", "dvc")


@dataclass
class Row:
    """One trial."""

    part: str
    tried: str
    command: str
    status: int
    seconds: float
    said: str  # the last line
    survived: bool


def run(folder: Path, command: Sequence[str], stdin: bytes = b"", seconds: float = 300) -> tuple[int, str, float]:
    """Status (-1: it did not end in time), output, seconds."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(stdin, timeout=seconds)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        status = -1
    return status, said.decode("utf-8", errors="replace"), time.monotonic() - began


def environment() -> dict[str, str]:
    return smoke.environment() | {"PYTHONPATH": f"src{os.pathsep}.", "OMP_NUM_THREADS": "1"}


def is_message(status: int, said: str) -> bool:
    """Whether a user can read it: no traceback, and where it failed, one line that says so."""
    return status in (0, 2) and "Traceback" not in said and (status == 0 or "error" in said.lower())


def last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "failed"))]
    chosen = (errors or lines or [""])[-1 if not errors else 0]
    return "".join(char if char.isprintable() else "?" for char in chosen)[:200]


def hashes(folder: Path) -> dict[str, str]:
    """Out -> md5, of all that a run makes the same each time."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    outs = [out for stage in lock["stages"].values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if not out["path"].startswith(TIMED)}


def reference(folder: Path) -> Path:
    """A finished smoke run in ``folder``."""
    if not (folder / "reports" / "index.html").is_file():
        fresh(folder)
        status, said, seconds = run(folder, (*DVC, "repro"), seconds=3600)
        assert status == 0, said[-3000:]
        print(f"reference: {seconds:.0f} s", flush=True)
    return folder


def fresh(folder: Path) -> None:
    """A copy of the sources with smoke's params and no result."""
    smoke.copy(folder)
    status, said, _ = run(folder, (sys.executable, "-m", "pipelines.profile", "apply", "smoke"))
    assert status == 0, said


# ---- kills ----------------------------------------------------------------------------------------------------------


def kills(reference: Path, scratch: Path, count: int, each: int, seed: int) -> list[Row]:
    """``count`` kills, ``each`` in one project before it may end."""
    durations = stage_seconds(reference)
    dice, rows, expected = random.Random(seed), [], hashes(reference)
    while len(rows) < count:
        folder = scratch / "killed"
        fresh(folder)
        stages = sorted(dice.sample(range(len(durations)), min(each, count - len(rows), len(durations))))
        killed = []
        for index in stages:
            name, seconds = list(durations.items())[index]
            moment = dice.uniform(0, seconds)
            killed.append((name, moment, kill_in(folder, name, moment)))
        status, said, seconds = run(folder, (*DVC, "repro"), seconds=3600)
        found = hashes(folder) if status == 0 else {}
        differing = sorted(path for path in expected if found.get(path) != expected[path])
        for name, moment, happened in killed:
            outcome = f"then dvc repro: status {status}, {len(differing)} of {len(expected)} outs differ"
            tried = f"SIGKILL {moment:.1f} s into {name}" + ("" if happened else " (it had ended)")
            rows.append(Row("kills", tried, "dvc repro", status, round(seconds, 1),
                            f"{outcome} {' '.join(differing[:3])}".strip(), status == 0 and not differing))  # fmt: skip
            show(rows[-1])
        if status:
            print(said[-2000:], flush=True)
    return rows


def stage_seconds(reference: Path) -> dict[str, float]:
    """Stage -> how long it took, in the order of the pipeline."""
    found = {}
    for name in yaml.safe_load((reference / "dvc.lock").read_text(encoding="utf-8"))["stages"]:
        stage, _, item = name.partition("@")
        record = reference / "results" / "runs" / stage / f"{item}.json" if item else None
        record = record or reference / "results" / "runs" / f"{stage}.json"
        found[name] = float(json.loads(record.read_text(encoding="utf-8")).get("seconds", 10.0))
    return found


def kill_in(folder: Path, stage: str, moment: float) -> bool:
    """Starts ``dvc repro`` and kills all of it ``moment`` seconds after it began a stage. False: it was done before."""
    process = subprocess.Popen(
        (*DVC, "repro"), cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith(f"Running stage '{stage}'"):
            time.sleep(moment)
            os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
            time.sleep(1)  # workers end with their parents
            return True
    process.wait()
    return False


# ---- damage ---------------------------------------------------------------------------------------------------------

Damage = Callable[[Path], None]


def cut(pattern: str) -> Damage:
    """Half of the first file is missing."""

    def damage(folder: Path) -> None:
        path = sorted(folder.glob(pattern))[0]
        content = path.read_bytes()
        path.unlink()  # it may be a link into DVC's cache
        path.write_bytes(content[: len(content) // 2])

    return damage


def garbage(pattern: str, content: bytes = b"\x00\xff garbage \x80" * 40) -> Damage:
    def damage(folder: Path) -> None:
        path = sorted(folder.glob(pattern))[0]
        path.unlink()
        path.write_bytes(content)

    return damage


def nothing(_: Path) -> None:
    pass


def stage(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"pipelines.{name}", *arguments)


def limited(*command: str) -> tuple[str, ...]:
    """With a limit on the size of files, which stands for a full disk: writing fails in the same places."""
    return ("bash", "-c", 'trap "" XFSZ; ulimit -f 8; exec "$@"', "bash", *command)


def cli(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "metaspeech.cli", *arguments)


def damages(item: str) -> list[tuple[str, Damage, tuple[str, ...]]]:
    """What is done, and what a user then runs. ``item``: of meta_train, such as tacotron-maml-1."""
    model, algorithm, seed = item.split("-")
    trained = stage("adapt", model, algorithm, seed)
    speak = ("say", "--voice", "anna", "boy made bath")
    return [
        ("shard of mels cut short", cut("data/prepared/mel*"), stage("pretrain", model)),
        ("shard of audio cut short", cut("data/prepared/audio*"), stage("pretrain", "wavenet")),
        ("manifest of shards is garbage", garbage("data/prepared/*.parquet"), stage("episodes")),
        ("episodes are garbage", garbage("data/episodes/test*"), trained),
        ("checkpoint cut short", cut(f"models/meta_train/{item}/*.safetensors"), trained),
        ("card of a checkpoint is garbage", garbage(f"models/meta_train/{item}/model.json"), trained),
        (
            "pickle in a checkpoint's place",
            garbage(f"models/meta_train/{item}/*.safetensors", fuzz_cases.PICKLE),
            trained,
        ),
        ("adapted parameters cut short", cut(f"results/adapt/{item}/deltas/*"), stage("evaluate")),
        ("curves are garbage", garbage(f"results/adapt/{item}/curves.parquet"), stage("evaluate")),
        ("scores that judges remember are garbage", garbage(".metaspeech/judges.sqlite"), stage("evaluate")),
        ("summary is garbage", garbage("results/evaluate/summary.json"), stage("report")),
        ("MLflow's database is garbage", garbage("mlflow.db"), stage("episodes")),
        ("MLflow's database cut short", cut("mlflow.db"), stage("episodes")),
        ("dvc.lock is garbage", garbage("dvc.lock"), (*DVC, "repro")),
        ("dvc.lock cut short", cut("dvc.lock"), (*DVC, "repro")),
        ("a shard cut short, and the pipeline", cut("data/prepared/mel*"), (*DVC, "repro")),
        ("a checkpoint cut short, and the pipeline", cut(f"models/meta_train/{item}/*.safetensors"), (*DVC, "repro")),
        ("disk full: prepare", nothing, limited(*stage("prepare"))),
        ("disk full: meta_train", nothing, limited(*stage("meta_train", model, algorithm, seed))),
        ("disk full: evaluate", nothing, limited(*stage("evaluate"))),
        ("disk full: say", nothing, limited(*cli(*speak))),
        ("disk full: say to a stream", nothing, ("bash", "-c", '"$@" > /dev/full', "bash", *cli(*speak, "-o", "-"))),
        ("read-only folder: say", nothing, cli(*speak, "-o", "/proc/a.wav")),
        ("read-only folder: adapt", nothing, (*fuzz_cases.ADAPT, "--store", "/proc/voices")),
        ("read-only folder: export", nothing, cli("voices", "export", "anna", "-o", "/proc/anna.voice")),
        ("weights of a voice cut short", cut("voices/anna/tacotron.safetensors"), cli(*speak)),
        ("card of a voice is garbage", garbage("voices/anna/voice.json"), cli(*speak)),
        ("meta-model of a voice is garbage", garbage("voices/.models/*/*.safetensors"), cli(*speak)),
    ]


def damage(reference: Path, scratch: Path, only: str) -> list[Row]:
    """Each in a fresh copy; those alone whose name has ``only`` in it."""
    item = next(path.name for path in sorted((reference / "models" / "meta_train").glob("tacotron-*")))
    folder = scratch / "damaged"
    rows = []
    for tried, harm, command in [one for one in damages(item) if only in one[0]]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(reference, folder, symlinks=True)
        expected = hashes(folder)
        try:
            harm(folder)
        except IndexError:
            print(f"{tried}: there is no such file here", flush=True)
            continue
        status, said, seconds = run(folder, command, seconds=900)
        survived = is_message(status, said) or (command[:3] == DVC and status == 255 and "Traceback" not in said)
        after = ""
        if command[:3] == DVC and status == 0:
            survived = survived and hashes(folder) == expected
            after = "; the same hashes" if hashes(folder) == expected else "; other hashes"
        elif (
            command[:3] != DVC
            and "voices" not in tried
            and tried.startswith(("disk full: p", "disk full: m", "disk full: e"))
        ):
            again, _, _ = run(folder, (*DVC, "repro"), seconds=1800)
            survived = survived and again == 0 and hashes(folder) == expected
            after = f"; then dvc repro: status {again}, " + ("the same hashes" if survived else "not the same")
        rows.append(Row("damage", tried, shown(command), status, round(seconds, 1), last_line(said) + after, survived))
        show(rows[-1])
        if not survived:
            print(said[-1500:], flush=True)
    return rows


# ---- fuzz -----------------------------------------------------------------------------------------------------------


def fuzz(reference: Path, scratch: Path, seed: int) -> list[Row]:
    rows = []
    for kind, cases in fuzz_cases.all_cases(seed).items():
        for case in cases:
            folder = scratch / "fuzzed"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name in ("src", "assets", "pipelines"):
                (folder / name).symlink_to((reference / name).resolve())
            # copies of what a trial changes: a voice that the last one left would be all that the next one speaks of
            for name in ("voices", "recordings"):
                shutil.copytree(reference / name, folder / name)
            for name in ("params.yaml", "dvc.yaml"):
                shutil.copy2(reference / name, folder / name)
            case.prepare(folder)
            status, said, seconds = run(folder, case.command, case.stdin, seconds=180)
            row = Row("fuzz", f"{kind}: {case.name}", shown(case.command), status, round(seconds, 1), last_line(said),
                      is_message(status, said))  # fmt: skip
            rows.append(row)
            show(row)
            if not row.survived:
                print(said[-1500:], flush=True)
    return rows


def shown(command: Sequence[str]) -> str:
    words = " ".join("python" if word == sys.executable else word for word in command)
    words = words.replace("python -m metaspeech.cli", "metaspeech").replace("python -m dvc", "dvc")
    return re.sub(r"bash -c .* bash ", "", words)[:100]


def show(row: Row) -> None:
    state = "survived" if row.survived else "BROKE"
    print(f"{state:8}  {row.part}  {row.tried}  [{row.status}, {row.seconds:.0f} s]  {row.said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the finished smoke run, and of scratch copies")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=4, help="kills in one project")
    parser.add_argument("--only", default="", help="of damage, the trials whose name has this in it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path, help="where to write the rows as JSON")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    made, scratch = reference(folder / "reference"), folder / "scratch"
    fuzz_cases.add_voice(made, run)
    rows: list[Row] = []
    if "fuzz" in arguments.parts:
        rows += fuzz(made, scratch, arguments.seed)
    if "damage" in arguments.parts:
        rows += damage(made, scratch, arguments.only)
    if "kills" in arguments.parts:
        rows += kills(made, scratch, arguments.kills, arguments.each, arguments.seed)
    if arguments.table:
        arguments.table.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    counts = {part: [row.survived for row in rows if row.part == part] for part in PARTS}
    print(json.dumps({f"{part}_tried": len(found) for part, found in counts.items() if found}
                     | {f"{part}_survived": sum(found) for part, found in counts.items() if found}))  # fmt: skip


if __name__ == "__main__":
    main()
