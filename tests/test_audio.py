"""Audio: reading and writing, levels, log-mel, resampling, Griffin-Lim."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaspeech.audio import io, level
from metaspeech.audio.features import FLOOR, LogMel, mel_to_audio, resample
from metaspeech.errors import UserError
from tests.speech import syllables, with_silence

SETTINGS = {"sample_rate": 16000, "n_fft": 1024, "win": 800, "hop": 200, "n_mels": 80, "fmin": 0.0, "fmax": 8000.0}


def log_mel(waveform: np.ndarray) -> np.ndarray:
    return LogMel.from_settings(SETTINGS)(torch.from_numpy(np.asarray(waveform, dtype=np.float32))).numpy()


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 3000.0, 6500.0])
def test_the_mel_of_a_sine_peaks_in_the_band_that_holds_its_frequency(hertz: float) -> None:
    mel = log_mel(0.5 * np.sin(2 * np.pi * hertz * np.arange(16000) / 16000))
    edges = librosa.mel_frequencies(n_mels=82, fmin=0, fmax=8000)
    band = int(mel[40].argmax())
    assert edges[band] <= hertz <= edges[band + 2]
    assert mel.shape == (81, 80)


def test_log_mel_agrees_with_librosa() -> None:
    waveform = syllables(1.0) + np.random.default_rng(0).normal(0, 0.01, 16000).astype(np.float32)
    expected = librosa.feature.melspectrogram(
        y=waveform, sr=16000, n_fft=1024, win_length=800, hop_length=200, n_mels=80, power=1.0, pad_mode="constant"
    )
    np.testing.assert_allclose(log_mel(waveform), np.log(np.maximum(expected, FLOOR)).T, atol=2e-3)


def test_silence_sits_on_the_floor() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(4000)), np.log(FLOOR), atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_a_tone(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    resampled = resample(torch.from_numpy(tone), rate, 16000).numpy()
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert len(resampled) == 16000
    np.testing.assert_allclose(resampled[500:-500], expected[500:-500], atol=0.02)


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    tone = torch.sin(2 * torch.pi * 11000 * torch.arange(48000) / 48000)
    assert resample(tone, 48000, 16000)[500:-500].abs().max() < 0.05


def test_griffin_lim_copies_a_recording(corpora: Path) -> None:
    path = next((corpora / "timit_sample" / "audio").rglob("*.flac"))
    recording, rate = io.read(path)
    assert rate == 16000
    original = log_mel(recording)
    copy = mel_to_audio(torch.from_numpy(original), SETTINGS, iterations=32, seed=0).numpy()
    assert abs(len(copy) - len(recording)) <= SETTINGS["hop"]
    loud = original.max(axis=1) > original.max() - 6  # frames within 52 dB of the loudest
    difference = np.abs(log_mel(copy)[: len(original)] - original)[loud]
    assert difference.mean() < 0.2  # natural logarithm; 0.2 is 1.7 dB


def test_griffin_lim_follows_from_its_seed() -> None:
    mel = torch.from_numpy(log_mel(syllables(0.5)))
    before = torch.get_rng_state()
    first, second, other = (mel_to_audio(mel, SETTINGS, iterations=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    samples = syllables(0.2)
    io.write(tmp_path / f"a.{suffix}", samples, 16000)
    read, rate = io.read(tmp_path / f"a.{suffix}")
    assert rate == 16000
    np.testing.assert_allclose(read, samples, atol=1 / 32768)
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{suffix}"]


def test_too_loud_samples_are_limited_and_do_not_wrap(tmp_path: Path) -> None:
    io.write(tmp_path / "a.wav", np.array([2.0, -2.0, 0.0]), 16000)
    np.testing.assert_allclose(io.read(tmp_path / "a.wav")[0], [1, -1, 0], atol=1e-4)


def test_segments_and_channels(tmp_path: Path) -> None:
    left, right = syllables(0.5, pitch=100), syllables(0.5, pitch=200)
    soundfile.write(tmp_path / "a.flac", np.stack([left, right], axis=1), 16000)
    with io.Reader() as reader:
        for start, stop in [(100, 3000), (0, 8000), (7000, 8000), (50, 50)]:
            samples, _ = reader.read(tmp_path / "a.flac", start, stop)
            np.testing.assert_allclose(samples, ((left + right) / 2)[start:stop], atol=1e-4)


@pytest.mark.parametrize(
    ("content", "segment", "message"),
    [
        (None, (None, None), "missing file"),
        (b"this is no audio", (None, None), "unreadable audio"),
        (b"", (None, None), "unreadable audio"),
        ("audio", (0, 9_999_999), "segment outside the file"),
        ("audio", (500, 100), "segment outside the file"),
        ("cut", (None, None), "unreadable audio"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, content: object, segment: tuple[int, int], message: str) -> None:
    path = tmp_path / "a.flac"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        io.write(path, syllables(1.0), 16000)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=message) as caught:
        io.read(path, *segment)
    assert str(path) in str(caught.value)


def test_a_reader_recovers_from_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF....")
    io.write(tmp_path / "good.wav", syllables(0.1), 16000)
    with io.Reader() as reader:
        with pytest.raises(UserError):
            reader.read(tmp_path / "bad.wav")
        assert len(reader.read(tmp_path / "good.wav")[0]) == 1600


@given(before=st.floats(0, 0.6), after=st.floats(0, 0.6), rate=st.sampled_from([8000, 16000, 22050]))
@settings(max_examples=30, deadline=None)
def test_speech_is_found_between_silences(before: float, after: float, rate: int) -> None:
    speech = syllables(0.5, rate)
    waveform = with_silence(speech, rate, before, after)
    found = level.find_speech(waveform, rate, trim_db=40)
    assert found is not None
    assert abs(found.start / rate - before) <= 0.025
    assert abs((found.stop - found.start) / rate - 0.5) <= 0.05
    trimmed = level.trim(waveform, rate, found)
    assert len(trimmed) == found.stop - found.start + 2 * round(0.05 * rate)


@given(loudness=st.floats(-40, -15), scale=st.floats(0.01, 1))
@settings(max_examples=30, deadline=None)
def test_levelling_reaches_the_loudness_without_clipping(loudness: float, scale: float) -> None:
    waveform = with_silence(syllables(0.5), 16000, 0.2, 0.2) * scale
    speech = level.find_speech(waveform, 16000, trim_db=40)
    assert speech is not None
    levelled = waveform * level.gain(waveform, speech, loudness)
    reached = level.find_speech(levelled, 16000, trim_db=40)
    assert reached is not None
    assert np.abs(levelled).max() <= level.PEAK + 1e-6
    if np.abs(levelled).max() < level.PEAK - 1e-3:
        assert 20 * np.log10(reached.rms) == pytest.approx(loudness, abs=0.05)


def test_a_peak_limits_the_gain() -> None:
    waveform = syllables(0.5)
    waveform[4000] = 0.9
    speech = level.find_speech(waveform, 16000, trim_db=40)
    assert speech is not None
    assert np.abs(waveform * level.gain(waveform, speech, 0.0)).max() == pytest.approx(level.PEAK, abs=1e-4)


def test_silence_and_clipping_are_recognised() -> None:
    assert level.find_speech(np.zeros(16000, np.float32), 16000, 40) is None
    assert level.find_speech(syllables(0.5) * 1e-3, 16000, 40) is None
    assert level.find_speech(np.ones(10, np.float32), 16000, 40) is None
    assert level.clipped_share(np.clip(syllables(0.5) * 100, -1, 1)) > 0.5
    assert level.clipped_share(syllables(0.5)) == 0
    assert level.clipped_share(np.zeros(0)) == 0


FULL = """
import resource, signal, sys
import numpy as np
from metaspeech.audio import io

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    io.write(sys.argv[1], np.random.default_rng(0).uniform(-1, 1, 16000), 16000)
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_sound_that_does_not_fit_says_why_and_leaves_nothing(tmp_path, suffix):
    """With a limit on the size of files, which fails where a full disk does."""
    path = tmp_path / f"full.{suffix}"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.EFBIG)
    assert list(tmp_path.iterdir()) == []
