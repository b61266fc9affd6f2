import { alignment, bytes, cursor, losses, shareAt, spectrogram } from "/pictures.js";
import { Recorder } from "/recorder.js";

const $ = (id) => document.getElementById(id);
const made = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
let about = { limits: {}, phrases: [] };
let voices = [];

// ---- asking the service -------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, detail, after) {
    super(detail);
    Object.assign(this, { status, after });
  }
}

async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service does not answer. Is metaspeech serve still running?");
  }
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const { detail } = await answer.json().catch(() => ({ detail: `It answered with status ${answer.status}.` }));
  throw new Refused(answer.status, detail, Number(answer.headers.get("Retry-After")) || 0);
}

function tell(place, text, wrong = false) {
  place.textContent = text;
  place.classList.toggle("error", wrong);
}

// ---- voices -------------------------------------------------------------------------------------------------------

async function loadVoices(chosen = $("voice").value) {
  const found = await ask("/api/voices");
  voices = found.voices;
  $("voice").replaceChildren(...voices.map((one) => made("option", one.name, { value: one.name })));
  if (voices.some((one) => one.name === chosen)) $("voice").value = chosen;
  $("no-voices").hidden = voices.length > 0;
  $("speak").hidden = $("about-voice").hidden = voices.length === 0;
  if (found.damaged.length) tell($("spoken-status"), `Cannot be read: ${found.damaged.join(", ")}`, true);
  showVoice();
}

function showVoice() {
  const voice = voices.find((one) => one.name === $("voice").value);
  askToDelete(false);
  if (!voice) return;
  const facts = {
    Consent: voice.consent,
    Made: `${new Date(voice.created).toLocaleString()} from ${voice.recordings} recordings`,
    "Adapted by": `${voice.steps} steps of ${voice.algorithm}, meta-model ${voice.meta_model.slice(0, 12)}`,
    Size: `${(voice.bytes / 1e6).toFixed(2)} MB`,
  };
  $("voice-facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [made("dt", name), made("dd", value)]),
  );
}

function askToDelete(asking) {
  $("delete-ask").hidden = !asking;
  $("delete").hidden = asking;
  if (asking) $("delete-no").focus();
}

async function deleteVoice() {
  const name = $("voice").value;
  try {
    await ask(`/api/voices/${encodeURIComponent(name)}`, { method: "DELETE" });
    tell($("spoken-status"), `${name} was deleted.`);
    $("spoken").hidden = true;
  } catch (error) {
    tell($("spoken-status"), error.message, true);
  }
  await loadVoices();
}

// ---- speaking -----------------------------------------------------------------------------------------------------

let speaking = null;
let spoken = null;
let shownSentence = -1;

async function speak(event) {
  event.preventDefault();
  speaking?.abort();
  const own = (speaking = new AbortController());
  $("stop").hidden = false;
  $("say").disabled = true;
  tell($("spoken-status"), "Speaking …");
  const body = JSON.stringify({ text: $("text").value, speed: Number($("speed").value), seed: Number($("seed").value) });
  const headers = { "Content-Type": "application/json" };
  const address = `/api/voices/${encodeURIComponent($("voice").value)}/spoken`;
  try {
    showSpoken(await ask(address, { method: "POST", body, headers, signal: own.signal }));
    tell($("spoken-status"), "");
    $("audio").play().catch(() => {}); // a browser may want a click first
  } catch (error) {
    if (error.name === "AbortError") tell($("spoken-status"), "Cancelled.");
    else tell($("spoken-status"), error.message, true);
  } finally {
    $("stop").hidden = true;
    $("say").disabled = false;
  }
}

function showSpoken(found) {
  spoken = found;
  URL.revokeObjectURL($("audio").src);
  $("audio").src = URL.createObjectURL(new Blob([bytes(found.wav)], { type: "audio/wav" }));
  $("download").href = $("audio").src;
  $("download").download = `${found.voice}.wav`;
  const cut = found.sentences.filter((one) => !one.came_to_an_end).length;
  const notes = [`${found.seconds.toFixed(1)} s.`];
  if (found.left_out.length) notes.push(`Cannot be heard and left out: ${found.left_out.slice(0, 8).join(", ")}.`);
  if (cut) notes.push(`${cut} of ${found.sentences.length} sentences did not come to an end and were cut: the voice does not know such sentences.`);
  notes.push(found.provenance);
  $("spoken-notes").textContent = notes.join(" ");
  $("spoken").hidden = false;
  $("sentences").replaceChildren(...(found.sentences.length > 1 ? found.sentences.map(sentenceRow) : []));
  shownSentence = -1;
  draw();
}

function sentenceRow(one, index) {
  const row = made("li");
  const button = made("button", "▶", { type: "button", onclick: () => playFrom(one.start) });
  button.setAttribute("aria-label", `Play sentence ${index + 1}`);
  row.append(button, one.text, one.came_to_an_end ? "" : " (cut)");
  return row;
}

function playFrom(second) {
  $("audio").currentTime = second;
  $("audio").play().catch(() => {});
}

function draw() {
  if (!spoken || $("spoken").hidden) return;
  spectrogram($("mel"), spoken);
  $("mel").setAttribute("aria-label", `Spectrogram of ${spoken.seconds.toFixed(1)} seconds`);
  shownSentence = -1;
  showTime();
}

function showTime() {
  if (!spoken) return;
  const now = $("audio").currentTime;
  const index = Math.max(0, spoken.sentences.findLastIndex((one) => one.start <= now + 0.01));
  const one = spoken.sentences[index];
  if (index !== shownSentence) {
    shownSentence = index;
    alignment($("alignment"), one, one.mel.times * spoken.frame_seconds);
    $("alignment").setAttribute("aria-label", `Alignment of: ${one.text}`);
  }
  const at = now > 0 && now < spoken.seconds;
  cursor($("mel"), at ? now / spoken.seconds : -1);
  cursor($("alignment"), at ? (now - one.start) / (one.mel.times * spoken.frame_seconds) : -1);
  if (!$("audio").paused) requestAnimationFrame(showTime);
}

// ---- recordings ---------------------------------------------------------------------------------------------------

let rows = [];
let recording = null; // {row, recorder}

function addRow(text = "", file = null) {
  const row = { file, text: made("input"), record: made("button", "Record"), said: made("p"), item: made("li") };
  row.play = made("button", "Play", { type: "button", onclick: () => playRow(row), disabled: true });
  row.remove = made("button", "✕", { type: "button", onclick: () => removeRow(row) });
  row.level = made("meter", "", { className: "level", min: 0, max: 1, high: 0.9, hidden: true });
  Object.assign(row.text, { type: "text", value: text, maxLength: 500, placeholder: "What is said" });
  Object.assign(row.record, { type: "button", className: "record", onclick: () => toggle(row) });
  row.said.className = "said note";
  row.item.append(row.text, row.level, row.record, row.play, row.remove, row.said);
  rows.push(row);
  $("recordings").append(row.item);
  label();
  if (file) setFile(row, file);
  return row;
}

function label() {
  rows.forEach((row, index) => {
    row.text.setAttribute("aria-label", `Text of recording ${index + 1}`);
    row.level.setAttribute("aria-label", `Level of recording ${index + 1}`);
    row.play.setAttribute("aria-label", `Play recording ${index + 1}`);
    row.remove.setAttribute("aria-label", `Remove recording ${index + 1}`);
    const pressed = recording?.row === row;
    row.record.setAttribute("aria-label", `${pressed ? "Stop" : "Record"} recording ${index + 1}`);
    row.record.setAttribute("aria-pressed", pressed);
  });
}

async function removeRow(row) {
  if (recording?.row === row) await toggle(row);
  const at = rows.indexOf(row);
  rows = rows.filter((one) => one !== row);
  row.item.remove();
  label();
  (rows[Math.min(at, rows.length - 1)]?.remove || $("add")).focus();
}

function setFile(row, file, words = "") {
  row.file = file;
  row.play.disabled = false;
  tell(row.said, `${file.name || "recorded"}${words}`);
}

const player = new Audio();
function playRow(row) {
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(row.file);
  player.play().catch(() => tell(row.said, "This browser cannot play it; it can be used all the same."));
}

async function toggle(row) {
  if (recording) {
    const { row: old, recorder, timer } = recording;
    clearTimeout(timer);
    recording = null;
    const seconds = recorder.seconds;
    const file = await recorder.stop();
    old.record.textContent = "Again";
    old.level.hidden = true;
    const words = recorder.peak >= 0.99 ? ": clipped, record it again at a lower level" : recorder.peak < 0.02 ? ": nothing is heard, is the microphone on?" : "";
    setFile(old, file, `, ${seconds.toFixed(1)} s${words}`);
    old.said.classList.toggle("error", Boolean(words));
    label();
    if (old === row) return;
  }
  const recorder = new Recorder((peak) => {
    recorder.peak = Math.max(recorder.peak, peak);
    row.level.value = peak;
  });
  recorder.peak = 0;
  try {
    await recorder.start();
  } catch (error) {
    tell(row.said, `The microphone cannot be used: ${error.message}. Allow it for this page, or upload recordings.`, true);
    return;
  }
  const most = about.limits.recording_seconds || 30;
  recording = { row, recorder, timer: setTimeout(() => recording?.row === row && toggle(row), 1000 * most) };
  row.record.textContent = "Stop";
  row.level.hidden = false;
  tell(row.said, "Recording: read the sentence, then press Stop.");
  label();
}

const stem = (name) => name.replace(/\.[^.]*$/, "");

async function upload() {
  const files = [...$("upload").files].sort((one, other) => (one.name < other.name ? -1 : 1));
  const texts = new Map();
  for (const file of files.filter((one) => /\.txt$/i.test(one.name) && one.size < 1e5)) {
    texts.set(stem(file.name), (await file.text()).trim());
  }
  rows.filter((row) => !row.file).forEach((row) => row.item.remove()); // sentences that nobody has read yet
  rows = rows.filter((row) => row.file);
  for (const file of files.filter((one) => !/\.txt$/i.test(one.name))) addRow(texts.get(stem(file.name)) || "", file);
  if (!rows.length) about.phrases.forEach((phrase) => addRow(phrase));
  $("upload").value = "";
  const missing = rows.filter((row) => !row.text.value).length;
  tell($("make-status"), missing ? `${missing} recordings have no text yet: write what they say.` : "");
}

// ---- making a voice -----------------------------------------------------------------------------------------------

let job = null;

async function make(event) {
  event.preventDefault();
  if (recording) await toggle(recording.row);
  const used = rows.filter((row) => row.file);
  const wrong = notReady(used);
  if (wrong) return tell($("make-status"), wrong, true);
  const form = new FormData();
  form.set("name", $("name").value);
  form.set("consent", $("consent").value);
  form.set("check_texts", $("check-texts").checked);
  form.set("keep_doubtful", $("keep-doubtful").checked);
  form.set("overwrite", $("overwrite").checked);
  used.forEach((row, index) => {
    form.append("recordings", row.file, `${index}.wav`);
    form.append("texts", row.text.value);
  });
  $("adapt").disabled = true;
  tell($("make-status"), "Sending …");
  try {
    job = await ask("/api/adaptations", { method: "POST", body: form });
    tell($("make-status"), "");
    await follow(used);
  } catch (error) {
    tell($("make-status"), error.message, true);
  } finally {
    $("adapt").disabled = false;
  }
}

function notReady(used) {
  const size = used.reduce((sum, row) => sum + row.file.size, 0) / (1 << 20);
  if (!used.length) return "There is no recording yet: record a sentence, or upload files.";
  if (used.some((row) => !row.text.value.trim())) return "A recording has no text: write what it says.";
  if (used.length > about.limits.recordings) return `At most ${about.limits.recordings} recordings: remove some.`;
  if (size > 0.98 * about.limits.upload) return `${size.toFixed(0)} MiB of recordings; at most ${about.limits.upload}.`;
  return "";
}

async function follow(used) {
  $("job").hidden = false;
  $("job-cancel").hidden = false;
  showJob(used);
  while (["queued", "checking", "adapting"].includes(job.state)) {
    await pause(400);
    job = await ask(`/api/adaptations/${job.id}`);
    showJob(used);
  }
  $("job-cancel").hidden = true;
  if (job.state === "done") {
    await loadVoices(job.voice);
    $("text").value ||= about.phrases[0] || "";
  }
}

const WORDS = {
  queued: () => "Waiting for its turn.",
  checking: () => "Listening to the recordings: are they clear, and do they say their texts?",
  adapting: () => `Adapting: step ${job.step} of at most ${job.steps}.`,
  done: () => `The voice ${job.voice} is made: ${job.best} steps. ${job.message}`,
  failed: () => forPage(job.message),
  cancelled: () => job.message,
};

// What messages say to the command line, to people who use the page.
const forPage = (text) => text.replaceAll("--keep-doubtful", "“Use doubtful recordings too” under More");

function showJob(used) {
  tell($("job-status"), WORDS[job.state](), job.state === "failed");
  const share = { queued: 0, checking: 0.1, adapting: 0.2 + (0.8 * job.step) / (job.steps || 1) }[job.state] ?? 1;
  $("job-progress").value = share;
  $("job-model").textContent = job.model && `Adapted from ${job.model}`;
  $("losses").hidden = job.losses.length < 2;
  if (job.losses.length > 1) losses($("losses"), job.losses, job.best);
  $("checks").hidden = !job.checks.length;
  $("checks").tBodies[0].replaceChildren(
    ...job.checks.map((one) => {
      const row = made("tr", "", { className: one.state });
      row.append(made("th", used[one.recording]?.text.value || `${one.recording + 1}`, { scope: "row" }));
      row.append(made("td", one.state === "good" ? "good" : `${one.state}: ${one.reason}`), made("td", forPage(one.advice)));
      return row;
    }),
  );
}

// ---- beginning ----------------------------------------------------------------------------------------------------

async function ready() {
  for (;;) {
    try {
      await ask("/ready");
      return tell($("spoken-status"), "");
    } catch (error) {
      tell($("spoken-status"), error.message, error.status === 0);
      await pause(1000 * (error.after || 2));
    }
  }
}

$("speak").addEventListener("submit", speak);
$("stop").addEventListener("click", () => speaking?.abort());
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("speak").requestSubmit();
});
$("speed").addEventListener("input", () => ($("speed-shown").value = Number($("speed").value).toFixed(2)));
$("voice").addEventListener("change", showVoice);
$("delete").addEventListener("click", () => askToDelete(true));
$("delete-no").addEventListener("click", () => (askToDelete(false), $("delete").focus()));
$("delete-yes").addEventListener("click", deleteVoice);
$("audio").addEventListener("play", showTime);
$("audio").addEventListener("seeked", showTime);
$("audio").addEventListener("ended", showTime);
$("mel").addEventListener("click", (event) => spoken && playFrom(shareAt($("mel"), event) * spoken.seconds));
$("add").addEventListener("click", () => addRow().text.focus());
$("upload").addEventListener("change", upload);
$("make").addEventListener("submit", make);
$("job-cancel").addEventListener("click", async () => {
  job = await ask(`/api/adaptations/${job.id}`, { method: "DELETE" });
});
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

about = await ask("/api/about");
$("text").maxLength = about.limits.text;
$("text").value = about.phrases[0] || "";
about.phrases.forEach((phrase) => addRow(phrase));
await loadVoices();
ready();
