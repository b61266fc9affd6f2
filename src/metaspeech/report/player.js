// One clip at a time; its sound is read from the page when it is first wanted. A button shows a square while it plays.
// In a table of clips one button is in the order of tabs, arrows move, escape stops.
const player = document.getElementById("player");
let sounds, playing;

function stop() {
  player?.pause();
  playing?.classList.remove("playing");
  playing = undefined;
}

function play(button) {
  const again = button === playing;
  stop();
  if (again) return;
  sounds ??= JSON.parse(document.getElementById("sounds").textContent);
  player.src = "data:audio/mpeg;base64," + sounds[button.dataset.clip];
  playing = button;
  button.classList.add("playing");
  player.play().catch(() => button === playing && stop());
}

player?.addEventListener("ended", stop);
document.addEventListener("click", (event) => {
  const button = event.target.closest(".play");
  if (button?.dataset.clip) play(button);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return stop();
  const cell = event.target.closest?.(".listen tbody td, .listen tbody th");
  const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!cell || !move) return;
  event.preventDefault();
  const rows = [...cell.closest("tbody").rows];
  let y = rows.indexOf(cell.parentNode), x = cell.cellIndex, button;
  do {
    y += move[0];
    x += move[1];
    button = rows[y]?.cells[x]?.querySelector(".play");
  } while (!button && rows[y]?.cells[x]);
  if (button) focusOn(button);
});
for (const table of document.querySelectorAll(".listen"))
  table.querySelectorAll(".play").forEach((button, place) => (button.tabIndex = place ? -1 : 0));
document.addEventListener("focusin", (event) => {
  if (event.target.matches(".listen .play")) roam(event.target);
});

function focusOn(button) {
  roam(button);
  button.focus();
}

function roam(button) {
  for (const other of button.closest("table").querySelectorAll('.play[tabindex="0"]')) other.tabIndex = -1;
  button.tabIndex = 0;
}
