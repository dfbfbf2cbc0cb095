// Small things that every page needs.
(() => {
  // What is wider than the window scrolls in a box of its own, which the keyboard must reach.
  const boxes = "div.math, .wide, .bit-width-panel details, .forest, .forest ~ details";

  const mark = (box) => {
    if (box.scrollWidth > box.clientWidth) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  };

  addEventListener("load", () => {
    const watch = new ResizeObserver((changed) => changed.forEach(({ target }) => mark(target)));
    for (const box of document.querySelectorAll(boxes)) watch.observe(box);
    // A box keeps its size when its fold opens.
    addEventListener("toggle", () => document.querySelectorAll(boxes).forEach(mark), true);

    // The search reads the pages for its excerpts, which a browser forbids between files.
    const results = document.querySelector("#search-results");
    if (results && location.protocol === "file:") {
      const note = document.createElement("p");
      note.textContent = "These pages are opened from disk, where a browser lets no page read another: results have no excerpts.";
      results.before(note);
    }
  });
})();
