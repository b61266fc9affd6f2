// Spectrogram, alignment and losses on canvases, in the colours of the page.

const LEFT = 46, BOTTOM = 22;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

// 256 colours from the panel's through the series' to the ink's
function palette() {
  const stops = [parts(colour("panel")), parts(colour("series-0")), parts(colour("ink"))];
  return Array.from({ length: 256 }, (_, value) => {
    const place = value / 255, first = place < 0.6 ? 0 : 1;
    const share = first ? (place - 0.6) / 0.4 : place / 0.6;
    return stops[first].map((from, channel) => Math.round(from + share * (stops[first + 1][channel] - from)));
  });
}

// a picture of (times, rows) bytes as a canvas of its own, rows upwards
function image(picture, colours) {
  const { times, rows } = picture, values = bytes(picture.values);
  const drawn = new OffscreenCanvas(Math.max(1, times), rows), context = drawn.getContext("2d");
  const pixels = context.createImageData(Math.max(1, times), rows);
  for (let time = 0; time < times; time++) {
    for (let row = 0; row < rows; row++) {
      const at = 4 * ((rows - 1 - row) * times + time), [red, green, blue] = colours[values[time * rows + row]];
      pixels.data.set([red, green, blue, 255], at);
    }
  }
  context.putImageData(pixels, 0, 0);
  return drawn;
}

const mel = (hz) => (hz < 1000 ? (3 * hz) / 200 : 15 + Math.log(hz / 1000) / (Math.log(6.4) / 27)); // Slaney's scale

function seconds(context, total, width, height) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60].find((one) => total / one <= 8) || 120;
  context.textAlign = "center";
  for (let at = 0; at <= total; at += step) {
    const x = LEFT + (at / total) * (width - LEFT);
    if (x < width - 24) context.fillText(`${Number(at.toFixed(1))}${at ? "" : " s"}`, Math.max(x, LEFT + 10), height - 6);
  }
}

// Each draws once; cursor() then shows where the sound is.
export function spectrogram(canvas, spoken) {
  const { context, width, height, drawn } = begin(canvas), plot = height - BOTTOM, colours = palette();
  const scale = (width - LEFT) / spoken.seconds;
  for (const one of spoken.sentences) {
    const long = one.mel.times * spoken.frame_seconds;
    context.drawImage(image(one.mel, colours), LEFT + one.start * scale, 0, long * scale, plot);
  }
  context.fillStyle = colour("muted");
  seconds(context, spoken.seconds, width, height);
  context.textAlign = "right";
  for (const hz of [500, 1000, 2000, 4000, 8000].filter((one) => one <= spoken.highest_hz)) {
    const y = plot * (1 - mel(hz) / mel(spoken.highest_hz));
    context.fillText(hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`, LEFT - 5, Math.min(plot, Math.max(10, y + 4)));
  }
  end(canvas, drawn);
}

export function alignment(canvas, sentence, long) {
  const { context, width, height, drawn } = begin(canvas), plot = height - BOTTOM;
  context.imageSmoothingEnabled = false;
  context.drawImage(image(sentence.alignment, palette()), LEFT, 0, width - LEFT, plot);
  context.fillStyle = colour("muted");
  seconds(context, long, width, height);
  context.textAlign = "right";
  const each = plot / sentence.alignment.rows;
  const every = Math.max(1, Math.ceil(9 / each));
  sentence.symbols.forEach((symbol, index) => {
    if (index % every === 0) context.fillText(symbol === " " ? "␣" : symbol, LEFT - 6, plot - (index + 0.5) * each + 4);
  });
  end(canvas, drawn);
}

export function losses(canvas, values, best) {
  const { context, width, height, drawn } = begin(canvas), plot = height - BOTTOM;
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const x = (step) => LEFT + (step / Math.max(1, values.length - 1)) * (width - LEFT - 8);
  const y = (value) => 6 + (1 - (value - low) / span) * (plot - 12);
  context.strokeStyle = colour("series-0");
  context.lineWidth = 2;
  context.beginPath();
  values.forEach((value, step) => context.lineTo(x(step), y(value)));
  context.stroke();
  context.fillStyle = colour("series-1");
  context.beginPath();
  context.arc(x(best), y(values[best] ?? low), 4, 0, 7);
  context.fill();
  context.fillStyle = colour("muted");
  context.textAlign = "right";
  context.fillText(high.toFixed(2), LEFT - 6, 12);
  if (values.length > 1) context.fillText(low.toFixed(2), LEFT - 6, plot);
  context.textAlign = "left";
  context.fillText(`loss on the recording held back, ${values.length - 1} steps`, LEFT, height - 6);
  end(canvas, drawn);
}

// Shows what was drawn, and a line at a share (0 to 1) of its time.
export function cursor(canvas, share) {
  if (!canvas.drawn) return;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(canvas.drawn, 0, 0);
  if (share >= 0 && share <= 1) {
    const left = LEFT * canvas.ratio;
    context.fillStyle = colour("series-5");
    const x = left + share * (canvas.width - left);
    context.fillRect(x, 0, 1.5 * canvas.ratio, canvas.height - BOTTOM * canvas.ratio);
  }
}

// The share of the time at which a pointer is.
export function shareAt(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return Math.max(0, Math.min(1, (event.clientX - box.left - LEFT) / (box.width - LEFT)));
}

function begin(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth || 600;
  const height = Number((canvas.dataset.height ||= canvas.getAttribute("height")));
  canvas.style.height = `${height}px`;
  const drawn = new OffscreenCanvas(Math.round(width * ratio), Math.round(height * ratio));
  const context = drawn.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, sans-serif";
  canvas.ratio = ratio;
  return { context, drawn, width, height };
}

function end(canvas, drawn) {
  canvas.width = drawn.width;
  canvas.height = drawn.height;
  canvas.drawn = drawn;
  cursor(canvas, -1);
}
