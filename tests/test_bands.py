"""The map that gives a mel the mean and covariance of a speaker's recordings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaspeech.audio import bands


def mels(seed: int, frames: int, count: int = 6) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.eye(count) + 0.2 * generator.normal(size=(count, count))  # far from singular
    return (generator.normal(size=(frames, count)) @ mixing + generator.normal(size=count)).astype(np.float32)


def unshrunk(monkeypatch):
    monkeypatch.setattr(bands, "SHRINKAGE_FRAMES", 0)
    monkeypatch.setattr(bands, "MOST_GAIN", 1000.0)


def test_many_frames_get_mean_and_covariance_of_the_recordings(monkeypatch):
    unshrunk(monkeypatch)
    spoken, recorded = mels(1, 400), mels(2, 500)
    mapped = bands.fit(spoken, recorded)(spoken)
    np.testing.assert_allclose(mapped.mean(0), recorded.mean(0), atol=1e-3)
    np.testing.assert_allclose(np.cov(mapped.T), np.cov(recorded.T), rtol=0.02, atol=0.02)


@given(st.integers(0, 1000), st.integers(2, 300), st.integers(2, 300))
def test_the_mean_is_that_of_the_recordings_however_few_there_are(seed, spoken, recorded):
    spoken, recorded = mels(seed, spoken), mels(seed + 1, recorded)
    mapped = bands.fit(spoken, recorded)(spoken)
    np.testing.assert_allclose(mapped.mean(0), recorded.mean(0), atol=0.02)


@given(st.integers(0, 1000), st.integers(2, 300))
def test_what_is_alike_already_stays(seed, frames):
    mel = mels(seed, frames)
    np.testing.assert_allclose(bands.fit(mel, mel)(mel), mel, atol=0.02)


def test_one_band_is_scaled_by_the_ratio_of_standard_deviations():
    spoken, recorded = np.array([[0.0], [2.0]], np.float32), np.array([[5.0], [8.0]], np.float32)
    found = bands.fit(spoken, recorded)
    assert found.matrix == pytest.approx(np.array([[1.5]]))
    assert found.offset == pytest.approx(np.array([5.0]))


@pytest.mark.parametrize(("times", "gain"), [(100.0, 2.0), (0.01, 0.5)])
def test_no_direction_is_stretched_or_pressed_without_limit(times, gain):
    mel = mels(1, 300)
    found = bands.fit(mel, mel * np.float32(times))
    np.testing.assert_allclose(found.matrix, gain * np.eye(6), atol=1e-3)


def test_bands_of_which_nothing_is_known_together_are_scaled_one_by_one(monkeypatch):
    monkeypatch.setattr(bands, "SHRINKAGE_FRAMES", 10**9)
    spoken, recorded = mels(1, 50), mels(2, 50)
    found = bands.fit(spoken, recorded)
    np.testing.assert_allclose(found.matrix, np.diag(recorded.std(0) / spoken.std(0)), atol=1e-4)


@pytest.mark.parametrize(
    "broken", [np.zeros((1, 6)), np.zeros((0, 6)), np.full((9, 6), np.nan), np.full((9, 6), np.inf)]
)
def test_nothing_is_learned_from_too_little_or_from_what_is_not_finite(broken):
    good = mels(1, 9)
    assert bands.fit(broken.astype(np.float32), good) is None
    assert bands.fit(good, broken.astype(np.float32)) is None


def test_a_silent_band_stays_finite():
    spoken, recorded = mels(1, 30), mels(2, 30)
    spoken[:, 2] = recorded[:, 3] = np.log(1e-5)
    assert np.isfinite(bands.fit(spoken, recorded)(spoken)).all()
