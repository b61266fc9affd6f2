"""A look at params.yaml and the corpus before the pipeline starts: what is wrong is said at once, in one message."""

from __future__ import annotations

import sys
from pathlib import Path

from metaspeech import config
from metaspeech.errors import UserError


def check(params: config.Params) -> str:
    """What will run, in a line. Raises UserError when it cannot."""
    corpus = params.corpus
    path = Path(corpus.path)
    if corpus.source == "espeak":
        if not path.is_file():
            raise UserError(
                f"corpus.path: {path}: no such file. Source espeak needs the list of voices; the one that ships is "
                "assets/espeak_voices.csv. For recordings of your own set corpus.source to folder"
            )
    elif not path.is_dir() or next(path.iterdir(), None) is None:
        found = "an empty folder" if path.is_dir() else "no such folder"
        raise UserError(f"corpus.path: {path}: {found}. {_how(corpus.source, path)}")
    items = len(params.models) * len(params.algorithms)
    return f"params.yaml: corpus {corpus.source} from {path}; {', '.join(params.models)} x " + (
        f"{', '.join(params.algorithms)} ({items} meta-trainings)"
    )


def _how(source: str, path: Path) -> str:
    if source == "folder":
        return "Put recordings with a metadata.csv there, or name their folder: corpus.path in params.yaml"
    return (
        f"Source {source} needs the corpus as published: name its folder (corpus.path in params.yaml), or, where its "
        f"publisher allows it, download it: python -m metaspeech.corpora.download {source} {path}"
    )


def main() -> None:
    try:
        print(check(config.load("params.yaml")))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
