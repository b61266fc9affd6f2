// One clip at a time; a button shows a square while its clip plays.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".play");
  if (!button) return;
  const audio = button.querySelector("audio");
  for (const other of document.querySelectorAll(".play.playing audio")) if (other !== audio) other.pause();
  if (!audio.paused) return audio.pause();
  audio.currentTime = 0;
  audio.onplay = () => button.classList.add("playing");
  audio.onpause = audio.onended = () => button.classList.remove("playing");
  audio.play().catch(() => button.classList.remove("playing"));
});
