/* Small multiples of logged numbers that share their axis: hovering one shows the same step in all. */
page.section("curves", (root, data) => {
  const { el } = page;
  const app = root.querySelector("#curves-app");
  const LEFT = 52, RIGHT = 10, BOTTOM = 42;
  const state = { axis: "step", smooth: null, log: false, band: true, hidden: new Set() };
  let groups = [];

  const toggle = (name, label) => {
    const input = el("input", { type: "checkbox", onchange: () => { state[name] = input.checked; redraw(); } });
    return { input, label: el("label", {}, input, label) };
  };
  const axis = el("select", { class: "field", onchange: () => { state.axis = axis.value; redraw(); } },
    el("option", { value: "step" }, "Step"), el("option", { value: "epoch" }, "Epoch"));
  const smooth = toggle("smooth", "Smooth"), log = toggle("log", "Logarithmic"), band = toggle("band", "Reference band");
  const controls = el("div", { class: "controls" }, el("label", {}, "Horizontal axis", axis),
    el("div", { class: "curves-switches" }, smooth.label, log.label, band.label));
  const place = el("div");
  app.append(controls, place);

  function redraw() { for (const group of groups) for (const cell of group.cells) cell.chart.set(() => option(group, cell)); }

  const color = (run) => page.palette()[run % 8];
  const isHidden = (group, run) => state.hidden.has(`${group.command} ${group.runs[run].name}`);
  const scale = (group, run) => (state.axis === "epoch" && group.runs[run].per_epoch ? 1 / group.runs[run].per_epoch : 1);

  function points(group, series) {
    const x = page.column(`${series.column}-x`), y = page.column(`${series.column}-y`), factor = scale(group, series.run);
    return Array.from(x, (step, i) => [(step + (state.axis === "epoch" ? 1 : 0)) * factor, y[i]]);
  }

  function smoothed(values) {
    const width = Math.max(1, Math.round(values.length / 40)), result = [];
    for (let i = 0; i < values.length; i++) {
      let sum = 0, count = 0;
      for (let j = Math.max(0, i - width); j <= Math.min(values.length - 1, i + width); j++) {
        if (Number.isFinite(values[j][1])) { sum += values[j][1]; count++; }
      }
      result.push([values[i][0], count ? sum / count : NaN]);
    }
    return result;
  }

  function ends(group) {
    let last = 0;
    group.runs.forEach((run, i) => { if (!isHidden(group, i)) last = Math.max(last, run.steps * scale(group, i)); });
    return last || 1;
  }

  function bandSeries(group, cell) {
    if (!cell.band || !state.band) return [];
    const x = page.column(`${cell.band}-x`), low = page.column(`${cell.band}-low`), high = page.column(`${cell.band}-high`);
    const factor = scale(group, 0), fill = page.isDark() ? "rgba(255,255,255,0.13)" : "rgba(20,30,45,0.10)";
    const line = (values, extra) => ({
      type: "line", data: Array.from(x, (step, i) => [step * factor, values(i)]), symbol: "none", silent: true, z: 1,
      stack: "band", stackStrategy: "all", lineStyle: { opacity: 0 }, animation: false, ...extra,
    });
    return [line((i) => low[i], {}), line((i) => high[i] - low[i], { areaStyle: { color: fill, opacity: 1 } })];
  }

  function option(group, cell) {
    const ink = page.color("quiet"), shown = cell.series.filter((series) => !isHidden(group, series.run));
    const positive = shown.every((series) => series.min === null || series.min > 0);
    const isLog = state.log && positive;
    const drawn = bandSeries(group, cell);
    for (const series of shown) {
      const raw = points(group, series).map(([x, y]) => [x, Number.isFinite(y) ? y : "-"]);
      const single = raw.length === 1;
      const softened = state.smooth && raw.length > 8;
      drawn.push({
        type: "line", data: raw, symbol: single ? "circle" : "none", symbolSize: 7, z: 2, silent: true, color: color(series.run),
        lineStyle: { width: softened ? 1 : 1.75, opacity: softened ? 0.28 : 1 },
        markLine: {
          silent: true, symbol: "none", label: { show: false }, lineStyle: { color: ink, type: "dashed", opacity: 0.7 },
          data: group.runs[series.run].resumed_at.map((step) => ({ xAxis: step * scale(group, series.run) })),
        },
      });
      if (softened) {
        drawn.push({ type: "line", data: smoothed(points(group, series)).map(([x, y]) => [x, Number.isFinite(y) ? y : "-"]),
          symbol: "none", z: 3, silent: true, color: color(series.run), lineStyle: { width: 2 } });
      }
    }
    return {
      animation: false, grid: { left: LEFT, right: RIGHT, top: 8, bottom: BOTTOM }, legend: { show: false }, tooltip: { show: false },
      xAxis: { type: "value", name: state.axis, nameLocation: "middle", nameGap: 24, min: 0, max: ends(group), axisLabel: { hideOverlap: true, formatter: short }, splitLine: { show: false }, splitNumber: 4 },
      yAxis: { type: isLog ? "log" : "value", scale: true, splitNumber: 3, axisLabel: { formatter: short, hideOverlap: true } },
      series: drawn,
    };
  }

  const short = (x) => {
    const size = Math.abs(x);
    if (size >= 1e6) return `${+(x / 1e6).toPrecision(3)}M`;
    if (size >= 1e4) return `${+(x / 1e3).toPrecision(3)}k`;
    return size !== 0 && size < 1e-3 ? x.toExponential(0) : String(+x.toPrecision(4));
  };

  // --- hovering -------------------------------------------------------------------------------------------------------

  function hover(group, cell, event) {
    const box = cell.frame.getBoundingClientRect();
    const fraction = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    if (fraction < 0 || fraction > 1) return leave(group);
    for (const each of group.cells) {
      each.line.hidden = false;
      each.line.style.left = `${LEFT + fraction * (each.frame.clientWidth - LEFT - RIGHT)}px`;
      readout(group, each, fraction * ends(group));
    }
  }

  function leave(group) { for (const cell of group.cells) { cell.line.hidden = true; readout(group, cell, null); } }

  /** Show the values at a place of the horizontal axis, or the last ones. */
  function readout(group, cell, at) {
    const several = group.runs.length > 1;
    cell.now.replaceChildren(...cell.series.filter((series) => !isHidden(group, series.run)).map((series) => {
      const values = points(group, series);
      let nearest = values.length - 1;
      if (at !== null) {
        let low = 0, high = values.length - 1;
        while (low < high) { const middle = (low + high) >> 1; if (values[middle][0] < at) low = middle + 1; else high = middle; }
        nearest = low > 0 && at - values[low - 1][0] < values[low][0] - at ? low - 1 : low;
      }
      const value = values[nearest][1];
      return el("span", {}, several ? dot(series.run) : null, Number.isFinite(value) ? page.number(value) : "not a number",
        at !== null && !several ? ` at ${short(Math.round(values[nearest][0] * 100) / 100)}` : null);
    }));
  }

  const dots = [];
  function dot(run) {
    const mark = el("i", { "aria-hidden": "true" });
    mark.style.background = color(run);
    return mark;
  }

  // --- building -------------------------------------------------------------------------------------------------------

  function build(data) {
    groups = data.groups.map((group) => ({ ...group, cells: group.charts.map((chart) => ({ ...chart })) }));
    const lengths = data.groups.flatMap((group) => group.charts.flatMap((chart) => chart.series.map((series) => page.column(`${series.column}-x`).length)));
    if (state.smooth === null && lengths.length) state.smooth = Math.max(...lengths) > 60;
    smooth.input.checked = Boolean(state.smooth);
    band.input.checked = state.band;
    band.label.hidden = !groups.some((group) => group.charts.some((chart) => chart.band));
    axis.parentElement.hidden = !groups.some((group) => group.runs.some((run) => run.per_epoch));
    place.replaceChildren(...groups.map(groupElement));
    for (const group of groups) {
      for (const cell of group.cells) {
        cell.chart = page.chart(cell.element, () => option(group, cell), describe(group, cell));
        readout(group, cell, null);
      }
    }
  }

  function describe(group, cell) {
    const words = cell.series.map((series) =>
      `${group.runs[series.run].name} from ${page.number(series.first)} to ${page.number(series.last)}`);
    return `${cell.title} over the training: ${words.join("; ")}`;
  }

  function groupElement(group) {
    const grid = el("div", { class: "curves-grid" });
    for (const cell of group.cells) {
      cell.element = el("div");
      cell.line = el("div", { class: "curves-line", hidden: true });
      cell.now = el("span", { class: "curves-now" });
      const broken = cell.series.reduce((sum, series) => sum + series.not_finite, 0);
      cell.frame = el("div", { class: "curves-frame", onpointermove: (event) => hover(group, cell, event), onpointerleave: () => leave(group) },
        cell.element, cell.line);
      grid.append(el("figure", { class: "curves-cell", "data-curve": cell.name }, el("figcaption", {}, el("b", {}, cell.title), cell.now,
        el("span", { class: "about" }, [cell.about, broken ? `${broken} logged values are not a number` : ""].filter(Boolean).join("; "))), cell.frame));
    }
    const legend = group.runs.length < 2 ? null : el("ul", { class: "curves-legend", "aria-label": "Runs" }, group.runs.map((run, i) => {
      const button = el("button", { type: "button", class: "button", "aria-pressed": String(!isHidden(group, i)), onclick: () => {
        const key = `${group.command} ${run.name}`;
        if (!state.hidden.delete(key)) state.hidden.add(key);
        button.setAttribute("aria-pressed", String(!isHidden(group, i)));
        redraw();
        leave(group);
      } }, dot(i), el("bdi", {}, run.name));
      return el("li", {}, button);
    }));
    const more = group.hidden.length ? el("p", { class: "small quiet" }, `Not shown: ${group.hidden.join(", ")}.`) : null;
    const resumed = group.runs.some((run) => run.resumed_at.length)
      ? el("p", { class: "small quiet" }, "Dashed lines mark where a run was resumed; values it had logged past that point are left out.") : null;
    return el("div", {}, groups.length > 1 ? el("h3", {}, group.command) : null, legend, grid, resumed, more);
  }

  const shape = (data) => JSON.stringify(data.groups.map((group) =>
    [group.command, group.runs.map((run) => [run.name, run.resumed_at]), group.charts.map((chart) => [chart.name, chart.band, chart.series.length])]));
  let built = "";

  function update(data) {
    if (shape(data) !== built) {
      built = shape(data);
      return build(data);
    }
    data.groups.forEach((fresh, i) => {
      const group = groups[i];
      group.runs = fresh.runs;
      group.cells.forEach((cell, j) => {
        cell.series = fresh.charts[j].series;
        cell.chart.set(() => option(group, cell));
        if (cell.line.hidden) readout(group, cell, null);
      });
    });
  }

  update(data);
  page.onTheme(() => { for (const group of groups) for (const cell of group.cells) readout(group, cell, null); });
  return update;
});
