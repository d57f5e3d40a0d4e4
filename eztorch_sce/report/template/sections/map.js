/* A map on a canvas: 5000 points with pan, zoom and lasso, by mouse, touch and keyboard. */
page.section("map", (root, data) => {
  const { el } = page;
  const SHAPES = ["circle", "square", "triangle", "diamond"];
  const SHOWN_AT_ONCE = 60, MARKS = 32;
  const app = root.querySelector("#map-app");
  let map, points, x, y, groups, groupOf, hidden, selected, matches, focused = -1;
  let span = { x: 1, y: 1 };
  let view = { scale: 1, x: 0, y: 0 }, size = { width: 0, height: 0 }, tool = "pan", lasso = null, listed = SHOWN_AT_ONCE;

  // --- controls -----------------------------------------------------------------------------------------------------

  const choice = (label, options, onchange) => {
    const select = el("select", { class: "field", onchange: () => onchange(select.value) });
    for (const [value, text] of options) select.append(el("option", { value, text }));
    return { select, label: el("label", {}, label, select) };
  };
  const button = (text, onclick, attributes = {}) => el("button", { type: "button", class: "button", onclick, ...attributes }, text);

  const runs = choice("Network", data.maps.map((each, i) => [i, each.name]), (i) => open(Number(i)));
  const projection = choice("Projection", [], () => { project(); draw(); });
  const color = choice("Color by", [], () => { group(); legend(); draw(); });
  const search = el("input", { type: "search", class: "field", placeholder: "name or class", oninput: find, onkeydown: (event) => {
    if (event.key === "Enter") { event.preventDefault(); nextMatch(); }
  } });
  const selectButton = button("", () => { select(visiblePoints(), false); });
  const tools = el("div", { class: "map-tools", role: "group", "aria-label": "Map tools" });
  const toolButtons = ["pan", "lasso"].map((name) => button(name === "pan" ? "Pan" : "Lasso", () => setTool(name), { "data-tool": name }));
  tools.append(...toolButtons,
    button("+", () => zoom(1.4), { "aria-label": "Zoom in" }), button("−", () => zoom(1 / 1.4), { "aria-label": "Zoom out" }),
    button("Reset", () => { view = { scale: 1, x: 0, y: 0 }; settle(); }));

  const canvas = el("canvas", { tabindex: "0", role: "application", "aria-roledescription": "map", "aria-describedby": "map-help" });
  const tip = el("div", { class: "map-tip", hidden: true });
  const spoken = el("p", { class: "hidden", "aria-live": "polite" });
  const stage = el("div", { class: "map-stage" }, canvas, tip);
  const legendList = el("ul", { class: "map-legend" });
  const found = el("span", { class: "small quiet", role: "status" });
  const axes = el("p", { class: "small quiet map-axes" });
  const selection = el("div", { class: "map-selection" });
  const repeated = el("p", { class: "small quiet", hidden: true }, `Marks repeat after ${MARKS} groups: use “only” or the search to tell groups apart.`);
  const side = el("div", { class: "map-side" }, el("div", { class: "map-legend-box" }, legendList), repeated, selection);

  app.append(
    el("div", { class: "controls" }, data.maps.length > 1 ? runs.label : null, projection.label, color.label,
      el("label", {}, "Search", search), selectButton),
    el("div", { class: "map-layout" }, el("div", { class: "map-main" }, tools, stage, axes,
      el("p", { class: "small quiet", id: "map-help" },
        "Drag to pan, or choose Lasso and draw around points to select them. Click the map first to zoom by scrolling. " +
        "Keyboard: arrow keys move from point to point, Space selects, + and − zoom, Escape clears."), found), side),
    spoken);

  // --- data ---------------------------------------------------------------------------------------------------------

  const column = (name) => page.column(`map-${map.number}-${name}`);
  const path = (i) => map.paths.folder + map.paths.names[i];
  const className = (i) => (column("label")[i] >= 0 ? map.classes[column("label")[i]] : "");
  const splitName = (i) => (column("split")[i] ? "test" : "train");

  function open(number) {
    map = data.maps[number];
    points = column("label").length;
    selected = new Uint8Array(points);
    focused = -1;
    fillChoice(projection.select, map.projections.map((name) => [name, name]));
    projection.label.hidden = map.projections.length < 2;
    const colors = [["cluster", "cluster"]];
    if (column("split").some((value) => value !== column("split")[0])) colors.unshift(["split", "split"]);
    if (map.evaluation) colors.unshift(["correct", `correct (${map.evaluation})`]);
    if (map.classes.length) colors.unshift(["label", "class"]);
    fillChoice(color.select, colors);
    canvas.setAttribute("aria-label", `Map of ${points} records`);
    view = { scale: 1, x: 0, y: 0 };
    project(); group(); find(); legend(); listSelection(); settle();
  }

  function fillChoice(select, options) {
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => el("option", { value, text })));
    if (options.some(([value]) => value === before)) select.value = before;
  }

  function project() {
    const plane = column(projection.select.value);
    axes.textContent = projection.select.value === "PCA"
      ? `Axes: the first two principal components, ${Math.round(100 * map.explained)}% of the variance.`
      : `Axes of ${projection.select.value} have no unit: only which records lie together has a meaning.`;
    let left = Infinity, right = -Infinity, low = Infinity, high = -Infinity;
    for (let i = 0; i < points; i++) {
      left = Math.min(left, plane[2 * i]); right = Math.max(right, plane[2 * i]);
      low = Math.min(low, plane[2 * i + 1]); high = Math.max(high, plane[2 * i + 1]);
    }
    const extent = Math.max(right - left, high - low) || 1;
    span = { x: Math.max(0.05, (right - left) / extent), y: Math.max(0.05, (high - low) / extent) };
    x = new Float32Array(points); y = new Float32Array(points);
    for (let i = 0; i < points; i++) {
      x[i] = (plane[2 * i] - (left + right) / 2) / extent;
      y[i] = -(plane[2 * i + 1] - (low + high) / 2) / extent;
    }
  }

  /** Divide the points into the groups of the legend. */
  function group() {
    const by = color.select.value, values = column(by);
    const names = { label: map.classes, cluster: map.clusters, split: ["train", "test"], correct: ["wrong", "correct"] }[by];
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
    const order = [...counts.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b);
    groups = order.map((value) => ({
      value, count: counts.get(value),
      name: value >= 0 ? names[value] : by === "correct" ? "not tested" : "unlabeled",
      shape: by === "correct" ? { 1: "circle", 0: "triangle" }[value] || "square" : value < 0 ? "square" : SHAPES[(value + Math.floor(value / 8)) % SHAPES.length],
      color: by === "correct" ? { 1: "good", 0: "bad" }[value] || "quiet" : value < 0 ? "quiet" : `series-${(value % 8) + 1}`,
    }));
    const indexOf = new Map(order.map((value, i) => [value, i]));
    groupOf = Uint16Array.from(values, (value) => indexOf.get(value));
    hidden = new Set();
  }

  const isVisible = (i) => !hidden.has(groupOf[i]) && (!matches || matches[i]);
  function visiblePoints() {
    const found = [];
    for (let i = 0; i < points; i++) if (isVisible(i)) found.push(i);
    return found;
  }

  function find() {
    const words = search.value.trim().toLowerCase();
    matches = words ? Uint8Array.from({ length: points }, (_, i) => Number(path(i).toLowerCase().includes(words) || className(i).toLowerCase().includes(words))) : null;
    say(); draw();
  }

  function nextMatch() {
    const candidates = visiblePoints();
    if (!candidates.length) return;
    focusOn(candidates.find((i) => i > focused) ?? candidates[0]);
  }

  function say() {
    const count = visiblePoints().length;
    found.textContent = matches ? `${count} of ${points} records match` : hidden.size ? `${count} of ${points} records shown` : `${points} records`;
    selectButton.textContent = `Select ${matches || hidden.size ? "these" : "all"} ${count}`;
    selectButton.disabled = count === 0;
  }

  // --- legend and selection -----------------------------------------------------------------------------------------

  function legend() {
    legendList.replaceChildren(...groups.map((each, i) => {
      const mark = el("canvas", { class: "map-mark", width: 28, height: 28, "aria-hidden": "true" });
      each.mark = mark;
      const toggle = el("button", { type: "button", class: "map-entry", "aria-pressed": "true", onclick: () => {
        if (hidden.has(i)) hidden.delete(i); else hidden.add(i);
        showPressed(); say(); draw();
      } }, mark, el("bdi", { text: each.name }), el("span", { class: "quiet", text: ` ${each.count}` }));
      const only = el("button", { type: "button", class: "map-only", "aria-label": `Show only ${each.name}`, onclick: () => {
        const isOnly = hidden.size === groups.length - 1 && !hidden.has(i);
        hidden = isOnly ? new Set() : new Set(groups.map((_, j) => j).filter((j) => j !== i));
        showPressed(); say(); draw();
      } }, "only");
      each.toggle = toggle;
      return el("li", {}, toggle, only);
    }));
    function showPressed() { groups.forEach((each, i) => each.toggle.setAttribute("aria-pressed", String(!hidden.has(i)))); }
    repeated.hidden = groups.length <= MARKS;
    drawMarks(); say();
  }

  function drawMarks() {
    for (const each of groups || []) {
      const context = each.mark.getContext("2d");
      context.clearRect(0, 0, 28, 28);
      context.fillStyle = page.color(each.color);
      const mark = new Path2D();
      addShape(mark, each.shape, 14, 14, 9);
      context.fill(mark);
    }
  }

  function select(rows, add) {
    if (!add) selected.fill(0);
    for (const i of rows) selected[i] = 1;
    listed = SHOWN_AT_ONCE;
    listSelection(); draw();
  }

  function listSelection() {
    const rows = [];
    for (let i = 0; i < points; i++) if (selected[i]) rows.push(i);
    const title = el("h3", { role: "status" }, rows.length ? `${rows.length} selected` : "Nothing selected");
    if (!rows.length) {
      selection.replaceChildren(title, el("p", { class: "small quiet" }, "Draw around points with the lasso, click them, or search and use the Select button."));
      return;
    }
    const copy = button("Copy paths", () => records.copy(rows.map(path).join("\n"), copy));
    const list = el("div", { class: "map-list-box", tabindex: "0", role: "region", "aria-label": "Selected records" },
      el("ul", { class: "map-list" }, ...rows.slice(0, listed).map((i) => el("li", {}, card(i)))));
    const more = rows.length > listed ? button(`Show ${Math.min(SHOWN_AT_ONCE, rows.length - listed)} more`, () => { listed += SHOWN_AT_ONCE; listSelection(); }) : null;
    selection.replaceChildren(title, el("div", { class: "controls" }, copy, button("Clear", () => select([], false))), list, ...(more ? [more] : []));
  }

  function card(i) {
    return el("div", { class: "record" }, records.tile(map.set, column("tile")[i] ? i : -1), describe(i));
  }

  function describe(i) {
    const words = [className(i) || map.clusters[column("cluster")[i]], splitName(i)];
    if (column("correct")[i] >= 0) words.push(column("correct")[i] ? "✓ correct" : "✗ wrong");
    return el("span", {}, el("bdi", { text: words.join(" · ") }), el("bdi", { class: "path", }, page.breakable(map.paths.names[i])));
  }

  // --- canvas -------------------------------------------------------------------------------------------------------

  const unit = () => Math.min(size.width / span.x, size.height / span.y) * 0.92 * view.scale;
  const screenX = (i) => size.width / 2 + view.x + x[i] * unit();
  const screenY = (i) => size.height / 2 + view.y + y[i] * unit();

  function addShape(to, shape, cx, cy, r) {
    if (shape === "circle") { to.moveTo(cx + r, cy); to.arc(cx, cy, r, 0, 7); return; }
    if (shape === "square") { to.rect(cx - r * 0.88, cy - r * 0.88, r * 1.76, r * 1.76); return; }
    const corners = shape === "triangle" ? [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] : [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]];
    corners.forEach(([dx, dy], i) => (i ? to.lineTo(cx + dx * r, cy + dy * r) : to.moveTo(cx + dx * r, cy + dy * r)));
    to.closePath();
  }

  let pending = false;
  function draw() {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => { pending = false; paint(); });
  }

  function paint() {
    if (!size.width || !groups) return;
    const ratio = devicePixelRatio || 1, context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size.width, size.height);
    const radius = Math.max(2.2, Math.min(5.5, 90 / Math.sqrt(points))) * Math.min(1.6, Math.sqrt(view.scale));
    const faded = new Path2D(), rings = new Path2D();
    const paths = groups.map(() => new Path2D());
    for (let i = 0; i < points; i++) {
      if (hidden.has(groupOf[i])) continue;
      const cx = screenX(i), cy = screenY(i);
      if (cx < -9 || cy < -9 || cx > size.width + 9 || cy > size.height + 9) continue;
      if (matches && !matches[i]) { faded.rect(cx - 1, cy - 1, 2, 2); continue; }
      addShape(paths[groupOf[i]], groups[groupOf[i]].shape, cx, cy, radius);
      if (selected[i]) addShape(rings, "circle", cx, cy, radius + 3);
    }
    context.fillStyle = colors.quiet; context.globalAlpha = 0.35; context.fill(faded);
    groups.forEach((each, i) => {
      context.globalAlpha = each.color === "quiet" ? 0.45 : 0.88;
      context.fillStyle = colors[each.color]; context.fill(paths[i]);
    });
    context.globalAlpha = 1; context.lineWidth = 2; context.strokeStyle = colors.ink; context.stroke(rings);
    if (focused >= 0) {
      const ring = new Path2D();
      addShape(ring, "circle", screenX(focused), screenY(focused), radius + 6);
      context.strokeStyle = colors.accent; context.lineWidth = 3; context.stroke(ring);
    }
    if (lasso) {
      const area = new Path2D();
      lasso.forEach(([px, py], i) => (i ? area.lineTo(px, py) : area.moveTo(px, py)));
      area.closePath();
      context.fillStyle = colors.accent; context.globalAlpha = 0.12; context.fill(area);
      context.globalAlpha = 1; context.strokeStyle = colors.accent; context.lineWidth = 1.5; context.setLineDash([5, 4]);
      context.stroke(area); context.setLineDash([]);
    }
  }

  let colors = {};
  page.onTheme(() => {
    colors = Object.fromEntries(["ink", "quiet", "accent", "good", "bad", "surface"].map((name) => [name, page.color(name)]));
    for (let i = 1; i <= 8; i++) colors[`series-${i}`] = page.color(`series-${i}`);
    drawMarks(); paint();  // at once: a print does not wait for the next frame
  });

  new ResizeObserver(() => {
    const box = stage.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!box.width) return;
    size = { width: box.width, height: box.height };
    canvas.width = Math.round(box.width * ratio); canvas.height = Math.round(box.height * ratio);
    paint();
  }).observe(stage);

  function pointAt(px, py) {
    let best = -1, least = 14 ** 2;
    for (let i = 0; i < points; i++) {
      if (!isVisible(i)) continue;
      const distance = (screenX(i) - px) ** 2 + (screenY(i) - py) ** 2;
      if (distance < least) { least = distance; best = i; }
    }
    return best;
  }

  function showTip(i) {
    tip.hidden = i < 0;
    if (i < 0) return;
    tip.replaceChildren(records.tile(map.set, column("tile")[i] ? i : -1), describe(i));
    const px = screenX(i), py = screenY(i), width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = `${Math.max(0, Math.min(size.width - width, px + 14 + width > size.width ? px - width - 14 : px + 14))}px`;
    tip.style.top = `${Math.max(0, Math.min(size.height - height, py - height / 2))}px`;
  }

  function settle() {
    canvas.style.touchAction = tool === "lasso" || view.scale > 1.01 ? "none" : "pan-y";
    showTip(-1); draw();
  }

  function zoom(factor, px = size.width / 2, py = size.height / 2) {
    const next = Math.min(40, Math.max(0.8, view.scale * factor)), by = next / view.scale;
    view = { scale: next, x: (view.x - (px - size.width / 2)) * by + (px - size.width / 2), y: (view.y - (py - size.height / 2)) * by + (py - size.height / 2) };
    settle();
  }

  function setTool(name) {
    tool = name;
    for (const each of toolButtons) each.setAttribute("aria-pressed", String(each.dataset.tool === name));
    canvas.classList.toggle("lassoing", name === "lasso");
    settle();
  }

  // --- pointers -----------------------------------------------------------------------------------------------------

  const pointers = new Map();
  let drag = null;
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    const isLasso = tool === "lasso" || event.shiftKey;
    drag = { start: at(event), moved: false, add: event.shiftKey };
    lasso = isLasso && pointers.size === 1 ? [at(event)] : null;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event);
    if (!pointers.has(event.pointerId)) { showTip(pointAt(...now)); return; }
    const before = pointers.get(event.pointerId);
    if (Math.hypot(now[0] - drag.start[0], now[1] - drag.start[1]) > 4) drag.moved = true;
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const distance = (from) => Math.hypot(from[0] - other[0], from[1] - other[1]);
      zoom(distance(now) / (distance(before) || 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      lasso = null;
    } else if (lasso) {
      lasso.push(now); draw();
    } else if (drag.moved) {
      view.x += now[0] - before[0]; view.y += now[1] - before[1];
      settle();
    }
    pointers.set(event.pointerId, now);
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (lasso && drag.moved) {
      const inside = visiblePoints().filter((i) => isInside(screenX(i), screenY(i), lasso));
      select(inside, drag.add);
    } else if (!drag.moved && event.type === "pointerup") {
      const i = pointAt(...at(event));
      if (i >= 0) toggle(i);
    }
    lasso = null; draw();
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => showTip(-1));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), ...at(event));
  }, { passive: false });

  function isInside(px, py, polygon) {
    let inside = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [ax, ay] = polygon[i], [bx, by] = polygon[j];
      if (ay > py !== by > py && px < ((bx - ax) * (py - ay)) / (by - ay) + ax) inside = !inside;
    }
    return inside;
  }

  // --- keyboard -----------------------------------------------------------------------------------------------------

  function toggle(i) {
    selected[i] = 1 - selected[i];
    focused = i;
    listSelection(); draw();
  }

  function focusOn(i) {
    focused = i;
    const margin = 24;
    if (screenX(i) < margin || screenX(i) > size.width - margin || screenY(i) < margin || screenY(i) > size.height - margin) {
      view.x -= screenX(i) - size.width / 2; view.y -= screenY(i) - size.height / 2;
    }
    settle(); showTip(i);
    spoken.textContent = `${className(i) || map.clusters[column("cluster")[i]]}, ${splitName(i)}, ${map.paths.names[i]}${selected[i] ? ", selected" : ""}`;
  }

  function step(dx, dy) {
    const candidates = visiblePoints();
    if (!candidates.length) return;
    if (focused < 0 || !isVisible(focused)) {
      const center = (i) => (screenX(i) - size.width / 2) ** 2 + (screenY(i) - size.height / 2) ** 2;
      focusOn(candidates.reduce((best, i) => (center(i) < center(best) ? i : best)));
      return;
    }
    let best = -1, least = Infinity;
    for (const i of candidates) {
      const along = (screenX(i) - screenX(focused)) * dx + (screenY(i) - screenY(focused)) * dy;
      const aside = Math.abs((screenX(i) - screenX(focused)) * dy) + Math.abs((screenY(i) - screenY(focused)) * dx);
      if (i === focused || along <= 0.01 || aside > along * 1.2) continue;
      if (along + 2 * aside < least) { least = along + 2 * aside; best = i; }
    }
    if (best >= 0) focusOn(best);
  }

  const keys = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4),
    " ": () => { if (focused >= 0) { toggle(focused); focusOn(focused); } },
    Enter: () => { if (focused >= 0) { toggle(focused); focusOn(focused); } },
    Escape: () => { focused = -1; select([], false); showTip(-1); },
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  canvas.addEventListener("blur", () => showTip(-1));

  setTool("pan");
  open(0);
});
