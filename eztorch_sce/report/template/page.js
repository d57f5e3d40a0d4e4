"use strict";
/* The interface of the sections. Texts enter the document through textContent only. */
const page = (() => {
  const sections = new Map();
  const updates = new Map();
  const themeListeners = [];
  const charts = new Set();
  const cache = new Map();
  const arrays = {
    int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array,
    uint32: Uint32Array, float32: Float32Array, float64: Float64Array,
  };
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false, following = null;

  function stored(kind, name) {
    const element = document.getElementById(`${kind}-${name}`);
    if (!element) throw new Error(`the page has no ${kind} ${name}`);
    const text = atob(element.textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return { bytes, type: element.dataset.kind };
  }

  function cached(key, make) {
    if (!cache.has(key)) cache.set(key, make());
    return cache.get(key);
  }

  /**
   * Draw a section when the page is ready: draw(root element, data). It may return a function that draws it again with
   * later data of a live page: update(data).
   */
  function section(name, draw) { sections.set(name, draw); }

  /** Show a section as a live page receives it: new, or in the place of what it showed before. */
  function receive({ name, title, html, data, columns, images }) {
    store("column", columns);
    store("image", images);
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById(name);
    const root = document.getElementById(name);
    if (!root) {
      const content = document.getElementById("content"), list = document.querySelector(".contents ol");
      content.append(document.adoptNode(fresh));
      list.append(el("li", {}, el("a", { href: `#${name}` }, title)));
      drawOne(name, fresh, data);
      return;
    }
    const parts = [...root.querySelectorAll("[data-live]")];
    for (const part of parts) exchange(part, fresh.querySelector(`[data-live="${part.dataset.live}"]`));
    if (updates.has(name)) updates.get(name)(data);
    else if (!parts.length) {
      exchange(root, fresh);
      drawOne(name, fresh, data);
    }
  }

  /** Put the sections and the links to them in an order of names. */
  function arrange(order) {
    for (const [parent, of] of [[document.getElementById("content"), (name) => document.getElementById(name)],
      [document.querySelector(".contents ol"), (name) => document.querySelector(`.contents a[href="#${name}"]`).parentElement]]) {
      const wanted = order.map(of), present = [...parent.children].filter((child) => wanted.includes(child));
      if (wanted.some((child, i) => child !== present[i])) parent.append(...wanted);
    }
    followContents();
  }

  /** Put an element in the place of another that it differs from; details that are open stay open. */
  function exchange(element, fresh) {
    if (element.isEqualNode(fresh)) return;
    const open = [...element.querySelectorAll("details")].map((details) => details.open);
    document.adoptNode(fresh).querySelectorAll("details").forEach((details, i) => { details.open = Boolean(open[i]); });
    element.replaceWith(fresh);
  }

  function store(kind, entries) {
    for (const { name, type, base64 } of entries) {
      const id = `${kind}-${name}`;
      let element = document.getElementById(id);
      if (!element) {
        element = el("script", { type: "text/plain", id });
        document.body.append(element);
      }
      if (element.textContent === base64) continue;
      element.dataset.kind = type;
      element.textContent = base64;
      if (kind === "image" && cache.has(id)) URL.revokeObjectURL(cache.get(id));
      cache.delete(id);
    }
  }

  function drawOne(name, root, data) {
    if (!sections.has(name)) return;
    const update = sections.get(name)(root, data);
    if (update) updates.set(name, update);
  }

  /** Return whether the page has a column. */
  function hasColumn(name) { return document.getElementById(`column-${name}`) !== null; }

  /** Return a column as a typed array. */
  function column(name) {
    return cached(`column-${name}`, () => {
      const { bytes, type } = stored("column", name);
      return new arrays[type](bytes.buffer);
    });
  }

  /** Return whether the page has an image. */
  function hasImage(name) { return document.getElementById(`image-${name}`) !== null; }

  /** Return the URL of an image. */
  function image(name) {
    return cached(`image-${name}`, () => {
      const { bytes, type } = stored("image", name);
      return URL.createObjectURL(new Blob([bytes], { type }));
    });
  }

  /** Make an element: strings among the children are text; functions among the attributes are listeners ("onclick"). */
  function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
      else if (name === "class") element.className = value;
      else if (name === "text") element.textContent = value;
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat()) {
      if (child !== null && child !== undefined) element.append(child);
    }
    return element;
  }

  /** Return a text as nodes that may break after "_", "-", "." and "/" and between "aB", rather than inside a word. */
  function breakable(text) {
    return text.split(/(?<=[_\-./])|(?<=[a-z])(?=[A-Z])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
  }

  /** Return a number as text: rates with three decimals, others with three significant digits. */
  function number(x) {
    if (x === null || x === undefined || Number.isNaN(x)) return "–";
    if (Number.isInteger(x)) return x.toLocaleString("en-US");
    const size = Math.abs(x);
    if (size >= 1000) return Math.round(x).toLocaleString("en-US");
    if (size >= 0.001 && size < 10) return x.toFixed(3);
    return size >= 10 ? x.toPrecision(3) : x.toExponential(2);
  }

  /** Return a color of the theme, such as color("accent"), as "rgb(...)". */
  function color(name) {
    const probe = el("span", { style: `color: var(--${name}); display: none` });
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  /** Return the colors of series, in order; they differ in lightness too. */
  function palette() { return Array.from({ length: 8 }, (_, i) => color(`series-${i + 1}`)); }

  /** Return whether the page is dark now. */
  function isDark() {
    const choice = document.documentElement.dataset.theme;
    return !printing && (choice === "dark" || (choice === "auto" && prefersDark.matches));
  }

  function base() {
    const ink = color("ink"), quiet = color("quiet"), line = color("line"), surface = color("surface");
    const axis = {
      axisLine: { lineStyle: { color: line } }, axisTick: { lineStyle: { color: line } },
      axisLabel: { color: quiet }, nameTextStyle: { color: quiet }, splitLine: { lineStyle: { color: line } },
    };
    return {
      axis,
      option: {
        color: palette(), backgroundColor: "transparent", animation: !reducedMotion.matches && !printing,
        animationDuration: 300, textStyle: { color: ink, fontFamily: getComputedStyle(document.body).fontFamily },
        legend: { textStyle: { color: ink }, inactiveColor: line, pageTextStyle: { color: quiet } },
        tooltip: {
          backgroundColor: surface, borderColor: line, textStyle: { color: ink }, confine: true, appendTo: undefined,
        },
      },
    };
  }

  const isPlain = (value) => value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype;

  function merged(below, above) {
    const result = { ...below };
    for (const [name, value] of Object.entries(above)) {
      result[name] = isPlain(value) && isPlain(below[name]) ? merged(below[name], value) : value;
    }
    return result;
  }

  /**
   * Draw a chart by ECharts in the colors of the theme, and again when the theme or the size changes.
   * `option` is an option of ECharts, or a function that returns one and may ask for colors. A formatter of a tooltip
   * must return an element of `page.el`, never HTML. `label` describes the chart to a screen reader.
   */
  function chart(element, option, label) {
    const drawn = { element, option, instance: null };
    element.classList.add("chart");
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", label || element.getAttribute("aria-label") || "chart");
    charts.add(drawn);
    draw(drawn);
    new ResizeObserver(() => { if (drawn.instance && !printing) drawn.instance.resize(); }).observe(element);
    return {
      get instance() { return drawn.instance; },
      set(next) { drawn.option = next; draw(drawn); },
    };
  }

  function draw(drawn) {
    const own = typeof drawn.option === "function" ? drawn.option() : drawn.option;
    const { axis, option } = base();
    const full = merged(option, own);
    for (const name of ["xAxis", "yAxis"]) {
      if (full[name]) {
        full[name] = Array.isArray(full[name]) ? full[name].map((each) => merged(axis, each)) : merged(axis, full[name]);
      }
    }
    if (!drawn.instance) drawn.instance = echarts.init(drawn.element, null, { renderer: full.renderer || "canvas" });
    drawn.instance.setOption(full, { notMerge: true });
  }

  /** Call a function now and whenever the theme changes. */
  function onTheme(listener) {
    themeListeners.push(listener);
    listener();
  }

  function redraw() {
    for (const drawn of charts) draw(drawn);
    for (const listener of themeListeners) listener();
  }

  function chooseTheme(choice) {
    document.documentElement.dataset.theme = choice;
    for (const button of document.querySelectorAll("#theme button")) {
      button.setAttribute("aria-pressed", String(button.dataset.choice === choice));
    }
    redraw();
  }

  function preparePrint() {
    printing = true;
    document.documentElement.dataset.print = "";  // the light colors, which the browser applies only later
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      details.dataset.opened = "";
    }
    redraw();
    for (const drawn of charts) drawn.instance.resize();
  }

  function finishPrint() {
    printing = false;
    delete document.documentElement.dataset.print;
    for (const details of document.querySelectorAll("details[data-opened]")) {
      details.open = false;
      delete details.dataset.opened;
    }
    redraw();
    for (const drawn of charts) drawn.instance.resize();
  }

  function followContents() {
    if (following) following.disconnect();
    const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
    following = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id).setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-10% 0px -75% 0px" });
    for (const id of links.keys()) following.observe(document.getElementById(id));
  }

  function start() {
    for (const button of document.querySelectorAll("#theme button")) {
      button.addEventListener("click", () => chooseTheme(button.dataset.choice));
    }
    prefersDark.addEventListener("change", redraw);
    addEventListener("beforeprint", preparePrint);
    addEventListener("afterprint", finishPrint);
    followContents();
    for (const name of sections.keys()) {
      const root = document.getElementById(name);
      if (root) drawOne(name, root, JSON.parse(document.getElementById(`data-${name}`).textContent));
    }
    document.documentElement.dataset.ready = "";
  }

  addEventListener("DOMContentLoaded", start);
  return { section, receive, arrange, column, hasColumn, image, hasImage, el, breakable, number, color, palette, isDark, chart, onTheme };
})();
