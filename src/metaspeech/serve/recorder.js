// From the microphone to a wav file.

export class Recorder {
  // level: called with the peak (0 to 1) of each block
  constructor(level) {
    this.level = level;
    this.blocks = [];
  }

  async start() {
    const sound = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("/tap.js");
    const tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
    tap.port.onmessage = ({ data }) => {
      this.blocks.push(data);
      this.level(data.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0));
    };
    this.context.createMediaStreamSource(this.stream).connect(tap);
  }

  get seconds() {
    return this.blocks.reduce((count, block) => count + block.length, 0) / (this.context?.sampleRate || 1);
  }

  async stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    const rate = this.context.sampleRate;
    await this.context.close();
    return wav(this.blocks, rate);
  }
}

// Float blocks in [-1, 1] to a Blob: 16 bit, mono.
export function wav(blocks, rate) {
  const count = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const text = (offset, value) => [...value].forEach((char, index) => view.setUint8(offset + index, char.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * count, true);
  let offset = 44;
  for (const block of blocks) {
    for (const value of block) {
      view.setInt16(offset, Math.round(Math.max(-1, Math.min(1, value)) * 32767), true);
      offset += 2;
    }
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}
