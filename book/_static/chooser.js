// "Which to take?": shows of a table of methods (quantskew.book.prose.chooser) the rows for one's bits and means, and
// sets apart those that no other row shown beats in both accuracy and FVO. Without this file the whole table stays.
(() => {
  const setUp = (table) => {
    const rows = [...table.tBodies[0].rows];
    const text = (row, column) => row.cells[column].textContent.trim();
    const distinct = (column) => [...new Set(rows.map((row) => text(row, column)))];
    // From the least to the most: who has more can take what needs less.
    const means = [...table.dataset.takes.split("|")];

    const select = (label, options, chosen) => {
      const box = document.createElement("label");
      const list = document.createElement("select");
      for (const own of options) list.add(new Option(own, own, false, own === chosen));
      list.addEventListener("change", show);
      box.append(`${label} `, list);
      form.append(box, " ");
      return list;
    };

    const beaten = (row, others) => {
      const [accuracy, fvo] = [3, 4].map((column) => parseFloat(text(row, column)));
      return others.some((other) => {
        const [a, f] = [3, 4].map((column) => parseFloat(text(other, column)));
        return a >= accuracy && f <= fvo && (a > accuracy || f < fvo);
      });
    };

    const show = () => {
      const most = means.indexOf(have.value);
      for (const row of rows) row.hidden = text(row, 0) !== bits.value || means.indexOf(text(row, 1)) > most;
      const shown = rows.filter((row) => !row.hidden);
      for (const row of shown) row.classList.toggle("unbeaten", !beaten(row, shown));
      const best = shown.filter((row) => row.classList.contains("unbeaten")).map((row) => text(row, 2));
      said.textContent = `${shown.length} methods; not beaten in both accuracy and FVO: ${best.join("; ")}.`;
    };

    const form = document.createElement("form");
    form.className = "chooser";
    const bits = select("Bits:", distinct(0), "int3");
    const have = select("Beside the model you have:", means.filter((own) => distinct(1).includes(own)), means[1]);
    const said = document.createElement("p");
    said.setAttribute("role", "status");
    form.append(said);
    table.before(form);
    show();
  };

  const start = () => document.querySelectorAll("table.chooser").forEach(setUp);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
