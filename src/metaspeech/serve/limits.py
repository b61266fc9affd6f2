"""What one may ask of the service."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
LONGEST_STATEMENT = 1000  # characters of a statement of consent
LONGEST_RECORDED_TEXT = 500  # characters of what one recording says


@dataclass(frozen=True)
class Limits:
    """Each is an option of ``metaspeech serve``.

    Attributes:
        workers: processes that speak and adapt, one core each; 0: one a core.
        queue: requests to speak that may wait for a worker.
        wait: seconds that they may wait.
        time: seconds that one synthesis may take.
        text: characters of a text.
        upload: MiB of one request with recordings.
        recordings: in one request.
        recording_seconds: of one recording.
        adaptations: that may wait or run.
        adapt_time: seconds that one may take.
        requests: that may be open at the same time, of whatever kind.
        receive: seconds within which a request must have arrived.
        grace: seconds that running requests are given when the service ends.
    """

    workers: int = 0
    queue: int = 64
    wait: float = 60.0
    time: float = 60.0
    text: int = 2000
    upload: int = 64
    recordings: int = 50
    recording_seconds: float = 30.0
    adaptations: int = 4
    adapt_time: float = 600.0
    requests: int = 128
    receive: float = 60.0
    grace: float = 10.0

    @property
    def upload_bytes(self) -> int:
        return self.upload * MIB

    @property
    def json_bytes(self) -> int:
        """Of a request without recordings: a text, each character escaped as two surrogates, and the rest."""
        return 4096 + 12 * self.text
