// The table of scores: only those that differ, only those that match a word; sections that open when they are linked to.
"use strict";
(() => {
  const table = document.getElementById("scores");
  if (!table) return;
  const word = document.getElementById("find"), different = document.getElementById("different"), said = document.getElementById("found");
  const groups = [...table.querySelectorAll("tbody")];

  function filter() {
    const text = word.value.trim().toLowerCase();
    let left = 0, all = 0;
    for (const group of groups) {
      let here = 0;
      for (const row of group.querySelectorAll("tr[data-words]")) {
        const kept = (!different.checked || row.dataset.different === "1") && row.dataset.words.includes(text);
        row.hidden = !kept || (group.dataset.folded === "1" && !text && !different.checked);
        here += kept; all += 1;
      }
      left += here;
      group.classList.toggle("none", here === 0);
    }
    said.textContent = left === all ? "" : `${left} of ${all} scores`;
  }

  for (const group of groups) {
    const button = group.querySelector("button.fold");
    button?.addEventListener("click", () => {
      group.dataset.folded = group.dataset.folded === "1" ? "0" : "1";
      button.setAttribute("aria-expanded", String(group.dataset.folded !== "1"));
      filter();
    });
  }
  word.addEventListener("input", filter);
  different.addEventListener("change", filter);
  filter();
})();
