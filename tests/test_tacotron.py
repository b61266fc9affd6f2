"""Tacotron: agreement with a published implementation, masking, free running, losses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from metaspeech.config import Tacotron
from metaspeech.data.batch import collate, concatenate
from metaspeech.models.base import AcousticModel, FeatureSpec, loss_function, parameters_of, second_order
from metaspeech.models.tacotron.loss import aligned_attention_loss, guided_attention_loss, stop_loss
from metaspeech.models.tacotron.model import TacotronModel

FEATURES = FeatureSpec(symbols=20, n_mels=80, hop=256, sample_rate=16000)


def model(preset="tiny", **settings):
    torch.manual_seed(0)
    return TacotronModel(Tacotron(preset=preset, **settings), FEATURES).eval()


def batch(lengths=(9, 6, 7), frames=(31, 20, 25), seed=0):
    generator = torch.Generator().manual_seed(seed)
    items = [
        (
            torch.randint(1, 20, (n,), generator=generator).tolist(),
            torch.randn(t, 80, generator=generator).numpy(),
            np.zeros(8, np.float32),
        )
        for n, t in zip(lengths, frames, strict=True)
    ]
    return collate(items)


def test_sizes():
    counts = {p: sum(v.numel() for v in model(p).parameters()) for p in ("tiny", "small", "paper")}
    assert 1.5e6 < counts["small"] < 3e6
    assert counts["tiny"] < 3e4
    assert 25e6 < counts["paper"] < 32e6  # the published model has about 28 million


def test_follows_the_protocol():
    assert isinstance(model(), AcousticModel)


@pytest.fixture
def no_dropout(monkeypatch):
    """Both implementations keep the prenet's dropout on at all times."""
    monkeypatch.setattr(functional, "dropout", lambda x, *args, **kwargs: x)


def test_agrees_with_torchaudio_at_paper_sizes(no_dropout):
    """Encoder, decoder and postnet with copied weights; normalisation, where the two differ, is taken out of both."""
    from torchaudio.models import Tacotron2

    torch.manual_seed(1)
    theirs = Tacotron2(n_symbol=20, n_mels=80).eval()
    ours = model("paper", reduction_factor=1, prenet_dropout=0.0, dropout=0.0)
    for pair in zip(theirs.encoder.convolutions, ours.encoder.convolutions, strict=True):
        _copy_convolution(*pair)
    for pair in zip(theirs.postnet.convolutions, [*ours.postnet.convolutions, ours.postnet.last], strict=True):
        _copy_convolution(*pair)
    ours.encoder.embedding.weight.data = theirs.embedding.weight.data
    ours.encoder.lstm.load_state_dict(theirs.encoder.lstm.state_dict())
    d, t = ours.decoder, theirs.decoder
    for mine, other in zip(d.prenet.layers, t.prenet.layers, strict=True):
        mine.weight.data = other.weight.data
    d.attention_rnn.load_state_dict(t.attention_rnn.state_dict())
    d.decoder_rnn.load_state_dict({f"{name}_l0": value for name, value in t.decoder_rnn.state_dict().items()})
    layer, location = t.attention_layer, t.attention_layer.location_layer
    d.attention.query.weight.data = layer.query_layer.weight.data
    d.attention.memory.weight.data = layer.memory_layer.weight.data
    d.attention.score.weight.data = layer.v.weight.data
    d.attention.location_convolution.weight.data = location.location_conv.weight.data
    d.attention.location_projection.weight.data = location.location_dense.weight.data
    d.projection.load_state_dict(t.linear_projection.state_dict())
    d.stop.load_state_dict(t.gate_layer.state_dict())

    given = batch(lengths=(9, 9), frames=(13, 13))
    with torch.no_grad():
        memory = ours.encoder(given.tokens, given.token_lengths)
        embedded = theirs.embedding(given.tokens).transpose(1, 2)
        assert torch.allclose(memory, theirs.encoder(embedded, given.token_lengths), atol=1e-5)
        states, alignments = ours.decoder(memory, given.token_lengths, given.mels)
        mels, stop = ours.decoder.project(states)
        their_mels, their_stop, their_alignments = t(
            memory, given.mels.transpose(1, 2), memory_lengths=given.token_lengths
        )
        assert torch.allclose(mels, their_mels.transpose(1, 2), atol=1e-5)
        assert torch.allclose(stop, their_stop, atol=1e-5)
        assert torch.allclose(alignments, their_alignments, atol=1e-5)
        mask = torch.ones(2, 13, dtype=torch.bool)
        corrected = theirs.postnet(mels.transpose(1, 2)).transpose(1, 2)
        assert torch.allclose(ours.postnet(mels, mask), corrected, atol=1e-5)


def _copy_convolution(theirs, ours):
    convolution, theirs[1] = theirs[0], torch.nn.Identity()
    target = getattr(ours, "convolution", ours)
    target.load_state_dict(convolution.state_dict())
    if hasattr(ours, "norm"):
        ours.norm = torch.nn.Identity()


def test_free_running_equals_teacher_forcing_on_its_own_output():
    """The two code paths are one model: what one generates, the other reproduces when it is fed with it."""
    net = model("small", prenet_dropout=0.0)
    given = batch(lengths=(9,), frames=(1,))
    with torch.no_grad():
        memory = net.encoder(given.tokens, given.token_lengths)
        mels, lengths, alignments, _ = net.decoder.generate(memory, given.token_lengths, [0], torch.tensor([24]))
        states, forced_alignments = net.decoder(memory, given.token_lengths, mels)
        forced, _ = net.decoder.project(states)
    assert int(lengths) > 0
    assert torch.allclose(forced, mels, atol=1e-5)
    assert torch.allclose(forced_alignments, alignments, atol=1e-5)


def test_padding_has_no_say():
    net = model("small", prenet_dropout=0.0, dropout=0.0)
    together = batch()
    alone = [batch_row(together, row) for row in range(3)]
    loss_fn, params = loss_function(net), parameters_of(net)
    with torch.no_grad():
        mel_cells = [int(one.mel_lengths) for one in alone]
        separate = [loss_fn(params, one)[1]["mel"] for one in alone]
        joint = loss_fn(params, together)[1]["mel"]
    weighted = sum(w * float(m) for w, m in zip(mel_cells, separate, strict=True)) / sum(mel_cells)
    assert float(joint) == pytest.approx(weighted, rel=1e-5)


def test_following_its_own_attention_changes_nothing():
    """The loop over time and all steps at once are one model."""
    net, given = model("small", prenet_dropout=0.0), batch()
    with torch.no_grad():
        memory = net.encoder(given.tokens, given.token_lengths)
        mels = functional.pad(given.mels, (0, 0, 0, -given.mels.shape[1] % 4))
        states, alignments = net.decoder(memory, given.token_lengths, mels)
        followed, predicted = net.decoder(memory, given.token_lengths, mels, alignments)
    assert torch.allclose(followed, states, atol=1e-5)
    assert torch.allclose(predicted, alignments, atol=1e-5)


def begun(given, reduction=4):
    """The batch with symbols that follow each other evenly."""
    starts = torch.zeros(given.tokens.shape)
    for row, (symbols, frames) in enumerate(zip(given.token_lengths, given.mel_lengths, strict=True)):
        starts[row, :symbols] = torch.linspace(0, float(frames), int(symbols) + 1)[:-1]
    return replace(given, starts=starts)


def test_shares_of_what_is_spoken_by_hand():
    """Steps of 4 frames; symbols begin at frames 0, 2 and 5, of the shorter utterance at 0 and 4."""
    given = batch(lengths=(3, 2), frames=(8, 8))
    starts = torch.tensor([[0.0, 2.0, 5.0], [0.0, 4.0, 0.0]])
    shares = model()._spoken(replace(given, starts=starts))
    expected = [[[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    assert torch.allclose(shares, torch.tensor(expected))
    assert model()._spoken(given) is None


def test_aligned_attention_loss_by_hand():
    """Even attention over two symbols misses log 2 a step, whatever is spoken; the padding has no say."""
    spoken = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]])
    loss = aligned_attention_loss(torch.full((1, 3, 2), 0.5), spoken, torch.tensor([2]))
    assert float(loss) == pytest.approx(math.log(2), rel=1e-3)
    assert float(aligned_attention_loss(spoken, spoken, torch.tensor([1]))) == pytest.approx(0, abs=1e-3)


def test_an_aligned_utterance_does_not_depend_on_padding():
    net = model("small", prenet_dropout=0.0, dropout=0.0)
    together, loss_fn, params = begun(batch()), loss_function(net), parameters_of(net)
    with torch.no_grad():
        joint = loss_fn(params, together)[1]["mel"]
        alone = [loss_fn(params, begun(batch_row(together, row)))[1]["mel"] for row in range(3)]
    frames = together.mel_lengths.tolist()
    weighted = sum(length * float(mel) for length, mel in zip(frames, alone, strict=True)) / sum(frames)
    assert float(joint) == pytest.approx(weighted, rel=1e-5)


def test_attention_learns_where_it_is_told_to_look():
    net, given = model("tiny", prenet_dropout=0.0, guided_attention=0.0), begun(batch())
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss, terms = net(given)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(terms["aligned"]))
    assert losses[-1] < 0.6 * losses[0]


def test_second_derivatives_of_aligned_utterances():
    """As torch takes them itself: of the gradient's norm, in double precision."""
    net, given = model("tiny", prenet_dropout=0.0).double(), begun(batch()).double()
    given = replace(given, starts=given.starts.double())

    def derivative():
        parameters = list(net.parameters())
        gradients = torch.autograd.grad(net(given)[0], parameters, create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in gradients), parameters, materialize_grads=True)

    plain = derivative()
    with second_order():
        written_out = derivative()
    for one, other in zip(plain, written_out, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def batch_row(many, row):
    tokens, mels = many.tokens[row, : many.token_lengths[row]], many.mels[row, : many.mel_lengths[row]]
    return collate([(tokens.tolist(), mels.numpy(), many.audio[row].numpy())])


def test_synthesis_of_an_utterance_does_not_depend_on_its_neighbours():
    net = model("small")
    net.decoder.stop.bias.data.fill_(-20.0)
    together = batch()
    limits = torch.tensor([40, 32, 24])
    joint = net.synthesize(together, seeds=[5, 6, 7], max_frames=limits)
    assert joint.mel_lengths.tolist() == [40, 32, 24]
    assert not joint.stopped.any()
    for row in range(3):
        alone = net.synthesize(batch_row(together, row), seeds=[5 + row], max_frames=limits[row, None])
        assert torch.allclose(alone.mels[0], joint.mels[row, : limits[row]], atol=1e-4)


def test_synthesis_is_deterministic_given_its_seed_and_leaves_the_mode_alone():
    net = model("small").train()
    net.decoder.stop.bias.data.fill_(-20.0)
    results = [
        net.synthesize(batch(), seeds=s, max_frames=torch.full((3,), 20)).mels for s in ([1] * 3, [1] * 3, [2] * 3)
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert net.training


def test_stop_ends_synthesis_and_the_limit_is_reported():
    net = model()
    net.decoder.stop.bias.data.fill_(20.0)
    stopped = net.synthesize(batch(), seeds=[0] * 3, max_frames=torch.full((3,), 100))
    assert stopped.stopped.all()
    assert stopped.mel_lengths.tolist() == [4, 4, 4]
    net.decoder.stop.bias.data.fill_(-20.0)
    ran_on = net.synthesize(batch(), seeds=[0] * 3, max_frames=torch.full((3,), 10))
    assert not ran_on.stopped.any()
    assert ran_on.mel_lengths.tolist() == [12, 12, 12]


def test_alignments_are_distributions_over_the_characters_of_each_text():
    result = model("small").synthesize(batch(), seeds=[0] * 3, max_frames=torch.full((3,), 20))
    assert torch.allclose(result.alignments.sum(-1), torch.ones(result.alignments.shape[:2]), atol=1e-5)
    assert result.alignments[1, :, 6:].abs().max() == 0


def test_a_batch_can_be_learned_by_heart():
    net = model("small", dropout=0.0, prenet_dropout=0.0).train()
    given = batch()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, _ = net(given)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_guided_attention_by_hand():
    """Two characters, two steps, sigma 0.5: off-diagonal cells are half a length away, 1 - exp(-0.25 / 0.5)."""
    away = 1 - math.exp(-0.5)
    lengths = torch.tensor([2])
    swapped = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert float(guided_attention_loss(swapped, lengths, lengths, 0.5)) == pytest.approx(2 * away / 4)
    assert float(guided_attention_loss(torch.eye(2)[None], lengths, lengths, 0.5)) == 0


def test_stop_loss_by_hand():
    """Logits 0 everywhere: log 2 a cell, the one positive counts ``positive_weight`` times; padding not at all."""
    logits = torch.zeros(1, 5)
    logits[0, 3:] = 50.0
    assert float(stop_loss(logits, torch.tensor([3]), 4.0)) == pytest.approx(math.log(2) * (2 + 4) / 3)


def test_concatenated_batches_keep_their_content():
    one, other = batch(), batch(lengths=(12,), frames=(40,), seed=1)
    both = concatenate([one, other])
    assert len(both) == 4
    assert both.mels.shape == (4, 40, 80)
    assert torch.equal(both.tokens[3, :12], other.tokens[0])
    assert torch.equal(both.mels[0, :31], one.mels[0])


def test_voices_steer_the_model_and_none_is_its_own_voice():
    net = model("small", dropout=0.0, prenet_dropout=0.0)
    given = batch()
    with torch.no_grad():
        own = float(net(given)[0])
        assert float(net(given, torch.zeros(3, len(net.voice)))[0]) == pytest.approx(own, rel=1e-6)
        offset = torch.ones(3, len(net.voice))
        steered = float(net(given, offset)[0])
        net.voice += 1.0
        assert float(net(given)[0]) == pytest.approx(steered, rel=1e-6)
    assert steered != own


def test_loss_is_a_pure_function_of_parameters():
    net = model("small", dropout=0.0, prenet_dropout=0.0)
    loss_fn, given = loss_function(net), batch()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    shifted = {name: value + 0.1 for name, value in parameters_of(net).items()}
    first, other, again = (float(loss_fn(p, given)[0]) for p in (parameters_of(net), shifted, parameters_of(net)))
    assert first == again != other
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert replace(net.config) == net.config
