// Draws the figures in the colours of the reader's choice, shows and hides curves, sorts tables.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const boxes = [...document.querySelectorAll("#shown input")];

  const colourOf = (contestant) => {
    const palette = dark.matches ? page.colours.dark : page.colours.light;
    return palette[contestant % palette.length];
  };

  function traces(figure) {
    const banded = boxes.filter((box) => box.checked).length <= page.most_bands;
    return figure.data.map((trace) => {
      const colour = colourOf(trace.meta);
      const drawn = { ...trace, visible: boxes[trace.meta].checked && (banded || !trace.fill) };
      if (trace.fill) return { ...drawn, fillcolor: colour };
      return { ...drawn, line: { ...trace.line, color: colour }, marker: { ...trace.marker, color: colour } };
    });
  }

  // The legend stands below the curves, in as many columns as there is room for, and takes no
  // height from them.
  function heightOf(figure, width) {
    const names = figure.data.filter((trace) => trace.name).map((trace) => trace.name.length);
    const columns = Math.max(1, Math.floor((width - 80) / (7.5 * Math.max(...names) + 45)));
    return 310 + 20 * Math.ceil(names.length / columns);
  }

  function layout(figure, width) {
    const style = getComputedStyle(document.documentElement);
    const [text, ground, line] = ["--text", "--ground", "--line"].map((name) => style.getPropertyValue(name).trim());
    const axis = { gridcolor: line, linecolor: text, tickcolor: text };
    return {
      ...figure.layout,
      width,
      height: heightOf(figure, width),
      font: { color: text, family: getComputedStyle(document.body).fontFamily, size: 13 },
      xaxis: { ...figure.layout.xaxis, ...axis },
      yaxis: { ...figure.layout.yaxis, ...axis },
      hoverlabel: { bgcolor: ground, bordercolor: line, font: { color: text }, namelength: -1 },
    };
  }

  function draw() {
    for (const sample of document.querySelectorAll(".sample")) {
      sample.style.background = colourOf(Number(sample.dataset.contestant));
    }
    for (const place of document.querySelectorAll(".plot")) {
      const figure = page.figures[place.dataset.figure];
      Plotly.react(place, traces(figure), layout(figure, place.clientWidth), { displayModeBar: false });
    }
  }

  function sort(head) {
    const table = head.closest("table");
    const column = head.cellIndex;
    const downwards = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
    const compare = (one, two) => {
      const [a, b] = [one.cells[column], two.cells[column]];
      // What is missing stays at the end, whichever way.
      if (a.dataset.missing || b.dataset.missing) return Boolean(a.dataset.missing) - Boolean(b.dataset.missing);
      const numbers = a.dataset.value !== undefined && b.dataset.value !== undefined;
      const order = numbers
        ? Number(a.dataset.value) - Number(b.dataset.value)
        : a.textContent.localeCompare(b.textContent, "en", { numeric: true });
      return downwards ? -order : order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }

  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }
  for (const box of boxes) box.addEventListener("change", draw);
  for (const button of document.querySelectorAll("#shown button")) {
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = button.dataset.all === "yes";
      draw();
    });
  }
  dark.addEventListener("change", draw);
  let due = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(draw);
  });
  draw();
})();
