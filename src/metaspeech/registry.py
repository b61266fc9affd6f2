"""What can be named in params.yaml, and the class that stands behind each name.

Values are ``"module:Class"`` and imported only when asked for, so that looking a name up costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

CORPORA = {
    "espeak": "metaspeech.corpora.espeak:Espeak",
    "folder": "metaspeech.corpora.folder:Folder",
    "vctk": "metaspeech.corpora.vctk:Vctk",
    "libritts": "metaspeech.corpora.libritts:LibriTts",
    "ljspeech": "metaspeech.corpora.ljspeech:LjSpeech",
    "speechocean762": "metaspeech.corpora.speechocean762:SpeechOcean762",
    "audiomnist": "metaspeech.corpora.audiomnist:AudioMnist",
}

MODELS = {
    "tacotron": "metaspeech.models.tacotron.model:TacotronModel",
    "wavenet": "metaspeech.models.wavenet.model:WaveNetModel",
}

ALGORITHMS = {
    "transfer": "metaspeech.meta.baselines:Transfer",
    "pretrained": "metaspeech.meta.baselines:Pretrained",
    "scratch": "metaspeech.meta.baselines:Scratch",
    "conditioned": "metaspeech.meta.baselines:Conditioned",
    "nearest": "metaspeech.meta.baselines:Nearest",
    "maml": "metaspeech.meta.maml:Maml",
    "fomaml": "metaspeech.meta.maml:Fomaml",
    "reptile": "metaspeech.meta.reptile:Reptile",
    "anil": "metaspeech.meta.anil:Anil",
    "boil": "metaspeech.meta.anil:Boil",
    "meta_sgd": "metaspeech.meta.meta_sgd:MetaSgd",
    "mamlpp": "metaspeech.meta.mamlpp:MamlPlusPlus",
    "imaml": "metaspeech.meta.imaml:Imaml",
}

REPRESENTATIONS = {
    "speaker_embedding": "metaspeech.tasks.speaker_embedding:SpeakerEmbedding",
    "task2vec": "metaspeech.tasks.task2vec:Task2Vec",
    "inner_gradient": "metaspeech.tasks.inner_gradient:InnerGradient",
}

SAMPLERS = {
    "uniform": "metaspeech.tasks.samplers:Uniform",
    "diverse": "metaspeech.tasks.samplers:Diverse",
    "hard_first": "metaspeech.tasks.samplers:HardFirst",
}

JUDGES = {
    "mcd": "metaspeech.evaluation.judges.mcd:MelCepstralDistortion",
    "f0": "metaspeech.evaluation.judges.f0:PitchError",
    "prosody": "metaspeech.evaluation.judges.prosody:ProsodyError",
    "similarity": "metaspeech.evaluation.judges.similarity:SpeakerSimilarity",
    "phonemes": "metaspeech.evaluation.judges.phonemes:PhonemeError",
    "sentences": "metaspeech.evaluation.judges.sentences:SentenceAccuracy",
    "mos": "metaspeech.evaluation.judges.mos:PredictedMos",
    "attention": "metaspeech.evaluation.judges.attention:AttentionFailures",
}


def resolve(table: dict[str, str], name: str) -> Any:
    """The class behind a name. Raises KeyError for a name that config validation would have refused."""
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
