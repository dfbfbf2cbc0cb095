// Keeps every bit-width control of a page, and of the next page, on the precision that was chosen last.
// Without this file each control works by itself.
(() => {
  const radios = ".bit-width > input[type=radio]";
  const key = "quantskew-bit-width";

  const choose = (precision) => {
    for (const radio of document.querySelectorAll(radios)) {
      if (radio.value === precision) radio.checked = true;
    }
  };

  document.addEventListener("change", ({ target }) => {
    if (!target.matches(radios)) return;
    choose(target.value);
    // A browser may refuse to remember anything.
    try { localStorage.setItem(key, target.value); } catch {}
  });

  document.addEventListener("DOMContentLoaded", () => {
    try { choose(localStorage.getItem(key)); } catch {}
  });
})();
