"""Layer sizes. ``paper`` is section 2.2 of Shen et al. 2018; the others keep its proportions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Channels and kernel widths (in characters, frames or attention positions)."""

    embedding: int
    encoder_convolutions: int
    encoder_kernel: int
    encoder: int  # output of the bidirectional LSTM, both directions
    prenet: int
    attention_rnn: int
    attention: int
    location_filters: int
    location_kernel: int
    decoder_rnn: int
    postnet: int
    postnet_convolutions: int
    postnet_kernel: int


PRESETS = {
    "paper": Sizes(
        embedding=512,
        encoder_convolutions=3,
        encoder_kernel=5,
        encoder=512,
        prenet=256,
        attention_rnn=1024,
        attention=128,
        location_filters=32,
        location_kernel=31,
        decoder_rnn=1024,
        postnet=512,
        postnet_convolutions=5,
        postnet_kernel=5,
    ),
    "small": Sizes(
        embedding=128,
        encoder_convolutions=3,
        encoder_kernel=5,
        encoder=128,
        prenet=128,
        attention_rnn=256,
        attention=64,
        location_filters=16,
        location_kernel=15,
        decoder_rnn=256,
        postnet=64,
        postnet_convolutions=5,
        postnet_kernel=5,
    ),
    "tiny": Sizes(
        embedding=12,
        encoder_convolutions=1,
        encoder_kernel=3,
        encoder=12,
        prenet=10,
        attention_rnn=16,
        attention=8,
        location_filters=4,
        location_kernel=5,
        decoder_rnn=16,
        postnet=12,
        postnet_convolutions=2,
        postnet_kernel=3,
    ),
}
