// Formulas within a line that are wider than the text, as on a phone, get a line that scrolls by
// itself; without this the whole page would have to be scrolled sideways to read them.
(() => {
  const fit = () => {
    for (const formula of document.querySelectorAll("article span.math")) {
      formula.classList.remove("wide");
      const room = formula.closest("p, li, td, dd, div").getBoundingClientRect().right;
      if (formula.getBoundingClientRect().right > room + 1) formula.classList.add("wide");
    }
  };
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    fit();
    window.addEventListener("resize", fit);
  });
})();
