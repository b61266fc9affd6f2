"""WaveNet: from mel to waveform, sample by sample."""
