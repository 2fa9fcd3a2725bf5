// Zoom by wheel or drag, back by double click, values under the pointer: for every figure of the page, without any library.
"use strict";
for (const figure of document.querySelectorAll("figure.timeline")) {
  const told = JSON.parse(figure.querySelector("script").textContent);
  const chart = figure.querySelector("svg.chart"), plot = chart.querySelector("svg.plot");
  const axis = chart.querySelector("g.axis"), pointer = plot.querySelector("line.pointer"), box = figure.querySelector("output");
  const still = axis.innerHTML, height = plot.viewBox.baseVal.height, least = told.wide / 400;
  let from = 0, wide = told.wide, grabbed = null;

  const clock = (seconds, options) =>
    new Intl.DateTimeFormat("sv-SE", { timeZone: told.zone, ...options }).format(new Date(seconds * 1000));
  const whole = { dateStyle: "short", timeStyle: "medium" };
  const place = (event) => {
    const edge = plot.getScreenCTM();
    return Math.max(0, Math.min(told.wide, (event.clientX - edge.e) / edge.a + 0));
  };
  const moment = (x) => told.begin + (x / told.wide) * told.span;

  function show(begin, width) {
    wide = Math.max(least, Math.min(told.wide, width));
    from = Math.max(0, Math.min(told.wide - wide, begin));
    plot.setAttribute("viewBox", `${from} 0 ${wide} ${height}`);
    if (wide === told.wide) { axis.innerHTML = still; return; }
    const seconds = (wide / told.wide) * told.span;
    const step = told.steps.find((one) => seconds / one <= 10) ?? told.steps.at(-1);
    const parts = step < 60 ? { timeStyle: "medium" } : step < 86400 ? { timeStyle: "short" } : { dateStyle: "short" };
    let ticks = "";
    for (let at = Math.ceil(moment(from) / step) * step; at <= moment(from + wide); at += step) {
      const x = told.left + ((at - moment(from)) / seconds) * told.width;
      ticks += `<text x="${x.toFixed(1)}" y="${told.foot}" text-anchor="middle">${clock(at, parts)}</text>`;
    }
    axis.innerHTML = `<text x="4" y="${told.foot}">from ${clock(moment(from), whole)}</text>${ticks}`;
  }

  function nearest(x) {
    let low = 0, high = told.x.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (told.x[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - told.x[low - 1] < told.x[low] - x ? low - 1 : low;
  }

  plot.addEventListener("wheel", (event) => {
    event.preventDefault();
    const x = place(event), width = Math.max(least, Math.min(told.wide, wide * (event.deltaY < 0 ? 0.7 : 1 / 0.7)));
    show(x - ((x - from) / wide) * width, width);
  }, { passive: false });
  plot.addEventListener("pointerdown", (event) => { grabbed = place(event); plot.setPointerCapture(event.pointerId); });
  plot.addEventListener("pointerup", (event) => {
    const first = Math.min(grabbed, place(event)), last = Math.max(grabbed, place(event));
    if (grabbed !== null && last - first > wide / 50) show(first, last - first);
    grabbed = null;
  });
  plot.addEventListener("dblclick", () => show(0, told.wide));
  plot.addEventListener("pointerleave", () => { box.value = ""; pointer.setAttribute("visibility", "hidden"); });
  plot.addEventListener("pointermove", (event) => {
    if (!told.x.length) return;
    const row = nearest(place(event)), x = told.x[row];
    const values = told.series.map(([name, all]) => `${name} ${all[row] ?? "–"}`);
    const during = told.incidents.filter(([first, last]) => first <= x && x <= last).map((one) => one[2]);
    box.value = [clock(moment(x), whole), ...values, ...during].join(" · ");
    for (const end of ["x1", "x2"]) pointer.setAttribute(end, x);
    pointer.setAttribute("visibility", "visible");
  });
}
