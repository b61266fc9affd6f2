// Two starts at the same step for the same speaker, order by chance; the answer is counted, then they are named.
const blind = document.querySelector(".blind");
if (blind) {
  const role = (name) => blind.querySelector(`[data-role=${name}]`);
  const reveal = blind.querySelector(".reveal"), next = blind.querySelector(".next");
  const answers = [...blind.querySelectorAll("[data-answer]")];
  const chosen = {};
  let pair;

  const pick = (list) => list[Math.floor(Math.random() * list.length)];
  const pairs = () => {
    const table = [...document.querySelectorAll(".listen")].find((one) => !one.closest("[hidden]"));
    const clips = [...(table?.querySelectorAll("td[data-start] .play") ?? [])].map((button) => {
      const cell = button.closest("td"), row = cell.parentNode;
      const { start, step } = cell.dataset;
      return { start, step, clip: button.dataset.clip, row, real: row.cells[1].querySelector(".play")?.dataset.clip };
    });
    return clips.filter((one) => one.real && one.step !== "0" && clips.some((other) => fits(one, other)))
      .map((one) => [one, clips.filter((other) => fits(one, other))]);
  };
  const fits = (one, other) => one.row === other.row && one.step === other.step && one.start !== other.start;

  const draw = () => {
    stop();
    const found = pairs();
    blind.hidden = !found.length;
    if (!found.length) return;
    const [one, others] = pick(found);
    pair = { a: one, b: pick(others) };
    role("real").dataset.clip = one.real;
    role("a").dataset.clip = pair.a.clip;
    role("b").dataset.clip = pair.b.clip;
    next.hidden = true;
    for (const button of answers) button.disabled = false;
    reveal.textContent = "";
  };
  blind.addEventListener("click", ({ target }) => {
    if (target === next) return draw();
    if (!answers.includes(target)) return;
    const winner = pair[target.dataset.answer];
    for (const { start } of [pair.a, pair.b]) {
      chosen[start] ??= { won: 0, heard: 0 };
      chosen[start].heard += 1;
      chosen[start].won += start === winner?.start;
    }
    const tally = Object.entries(chosen).map(([start, { won, heard }]) => `${start} ${won} of ${heard}`).join(", ");
    reveal.textContent = `A was ${pair.a.start}, B was ${pair.b.start}, both after ${pair.a.step} steps, speaker ` +
      `${pair.a.row.dataset.speaker}. Chosen so far: ${tally}.`;
    for (const button of answers) button.disabled = true;
    next.hidden = false;
    next.focus();
  });
  document.querySelector('.choice[data-for="listen"]')?.addEventListener("change", draw);
  draw();
}
