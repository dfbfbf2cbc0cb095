// What is wider than the window scrolls in a box of its own, which the keyboard must reach.
(() => {
  const boxes = "div.math, .wide, .bit-width-panel details, .forest";

  const mark = ({ target }) => {
    const wide = target.scrollWidth > target.clientWidth;
    if (wide) target.setAttribute("tabindex", "0");
    else target.removeAttribute("tabindex");
  };

  addEventListener("load", () => {
    const watch = new ResizeObserver((changed) => changed.forEach(mark));
    for (const box of document.querySelectorAll(boxes)) watch.observe(box);
  });
})();
