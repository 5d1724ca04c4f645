"use strict";
// The table of scores: only those that differ, only those that match a word; sections that open when they are linked to.
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

// The published table: all its columns on request, sorted by the column whose head is clicked.
(() => {
  const table = document.getElementById("submissions");
  if (!table) return;
  document.getElementById("more-columns").addEventListener("change", (e) => table.classList.toggle("all", e.target.checked));
  const body = table.tBodies[0], first = [...body.rows];
  let sorted = -1, up = true;
  table.querySelectorAll("button.sort").forEach((button, i) => {
    button.addEventListener("click", () => {
      up = sorted === i ? !up : true;
      sorted = i;
      const value = (row) => { const text = row.cells[i + 1].dataset.sort; return text === "" ? Infinity : Number(text) * (up ? 1 : -1); };
      body.append(...first.slice().sort((a, b) => value(a) - value(b)));
    });
  });
})();

// On a phone only the first model's own figures of a section are open: those of all would be a long way to scroll.
if (document.documentElement.clientWidth < 760)
  for (const part of document.querySelectorAll(".part"))
    part.querySelectorAll("details.own").forEach((block, i) => { block.open = i === 0; });
