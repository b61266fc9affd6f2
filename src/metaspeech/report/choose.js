// Of the blocks with the same data-of, the chosen one is shown. Without scripts all are.
"use strict";
for (const choice of document.querySelectorAll(".choice")) {
  const show = () => {
    const chosen = choice.querySelector("input:checked").value;
    for (const block of document.querySelectorAll("[data-of]"))
      if (block.dataset.of === choice.dataset.for) block.hidden = block.dataset.value !== chosen;
  };
  choice.addEventListener("change", show);
  show();
}
