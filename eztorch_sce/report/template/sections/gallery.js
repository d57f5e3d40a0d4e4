/* Queries and their neighbors, a page of them at a time. */
page.section("gallery", (root, data) => {
  const { el } = page;
  const PER_PAGE = matchMedia("(max-width: 40rem)").matches ? 6 : 12;
  const app = root.querySelector("#gallery-app");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let gallery, found = [], start = 0;

  const field = (label, input) => el("label", {}, label, input);
  const network = el("select", { class: "field", onchange: () => open(Number(network.value)) },
    ...data.galleries.map((each, i) => el("option", { value: i, text: each.name })));
  const classes = el("select", { class: "field", onchange: filter });
  const outcome = el("select", { class: "field", onchange: filter },
    ...[["", "all"], ["miss", "nearest is a miss"], ["hit", "nearest is a hit"]].map(([value, text]) => el("option", { value, text })));
  const search = el("input", { type: "search", class: "field", placeholder: "name", oninput: filter });
  const play = el("button", { type: "button", class: "button", "aria-pressed": "false", onclick: () => setPlaying(!list.classList.contains("playing")) });
  const status = el("span", { class: "small quiet", role: "status" });
  const list = el("ol", { class: "gallery-list" });
  const previous = el("button", { type: "button", class: "button", onclick: () => turn(-1) }, "Previous");
  const next = el("button", { type: "button", class: "button", onclick: () => turn(1) }, "Next");
  app.append(el("div", { class: "controls" }, data.galleries.length > 1 ? field("Network", network) : null,
    field("Class", classes), field("Show", outcome), field("Search", search), play),
    el("p", {}, status), list, el("div", { class: "controls gallery-pager" }, previous, next));

  const column = (name) => page.column(`gallery-${gallery.number}-${name}`);
  const label = (record) => column("label")[record];
  const className = (record) => (label(record) >= 0 ? gallery.classes[label(record)] : "");
  const near = (query) => Array.from(column("near").slice(query * gallery.num_shown, (query + 1) * gallery.num_shown)).filter((each) => each >= 0);

  /** Return "hit", "miss", or "" where a label is not known. */
  function judge(query, neighbor) {
    if (label(query) < 0 || label(neighbor) < 0) return "";
    return label(query) === label(neighbor) ? "hit" : "miss";
  }

  function open(number) {
    gallery = data.galleries[number];
    gallery.pictures = column("strip").some(Boolean) || column("tile").some((each) => each >= 0);
    const queries = column("query"), tally = new Map();
    queries.forEach((record, place) => {
      const entry = tally.get(label(record)) || { count: 0, hits: 0 };
      entry.count += 1;
      entry.hits += judge(record, near(place)[0]) === "hit";
      tally.set(label(record), entry);
    });
    classes.replaceChildren(el("option", { value: "", text: "all, worst first" }), ...[...tally].filter(([value]) => value >= 0)
      .map(([value, { count, hits }]) => el("option", { value, text: `${gallery.classes[value]} (${hits} of ${count} hit)` })));
    for (const select of [classes, outcome]) select.parentElement.hidden = ![...tally.keys()].some((value) => value >= 0);
    play.hidden = !gallery.moves;
    filter();
  }

  function filter() {
    const words = search.value.trim().toLowerCase();
    found = [];
    column("query").forEach((record, place) => {
      if (classes.value !== "" && label(record) !== Number(classes.value)) return;
      if (outcome.value && judge(record, near(place)[0]) !== outcome.value) return;
      if (words && !gallery.paths.names[record].toLowerCase().includes(words)) return;
      found.push(place);
    });
    start = 0;
    show();
  }

  function turn(by) {
    start += by * PER_PAGE;
    show();
    list.scrollIntoView({ block: "start" });
    list.firstElementChild.firstElementChild.focus({ preventScroll: true });
  }

  function show() {
    list.replaceChildren(...found.slice(start, start + PER_PAGE).map((place) => el("li", {}, card(place))));
    const end = Math.min(start + PER_PAGE, found.length);
    status.textContent = found.length ? `${start + 1} to ${end} of ${found.length} queries` : "No query matches";
    previous.disabled = start === 0;
    next.disabled = end === found.length;
  }

  /** Return the animation or the thumbnail of a record; null if the page has no pictures of this network's records. */
  function picture(record) {
    if (!gallery.pictures) return null;
    if (column("strip")[record]) return records.strip(`strip-${gallery.set}-${column("split")[record]}-${column("row")[record]}`);
    return el("span", { class: "gallery-still" }, records.tile(gallery.set, column("tile")[record]));
  }

  function card(place) {
    const query = column("query")[place], neighbors = near(place);
    const hits = neighbors.filter((each) => judge(query, each) === "hit").length;
    const known = neighbors.some((each) => judge(query, each));
    const name = gallery.paths.names[query];
    return el("div", { class: "gallery-card plays", tabindex: "0", role: "group", "aria-label": `Query ${name}, ${className(query)}${known ? `: ${hits} of ${neighbors.length} hits` : ""}` },
      el("div", { class: "gallery-query" }, picture(query),
        el("p", { class: "small" }, el("strong", {}, el("bdi", {}, page.breakable(className(query)))), el("bdi", { class: "path", title: name }, page.breakable(name.split("/").pop())))),
      el("ol", { class: "gallery-near" }, ...neighbors.map((each) => {
        const verdict = judge(query, each);
        return el("li", { class: verdict, title: gallery.paths.names[each] }, picture(each),
          verdict ? el("span", { class: `badge ${verdict === "hit" ? "good" : "bad"}` }, verdict === "hit" ? "✓ hit" : "✗ miss") : null,
          el("bdi", { class: "gallery-name" }, page.breakable(className(each) || gallery.paths.names[each].split("/").pop())));
      })));
  }

  function setPlaying(on) {
    list.classList.toggle("playing", on);
    play.setAttribute("aria-pressed", String(on));
    play.textContent = on ? "Pause all" : "Play all";
  }

  function follow() {
    play.disabled = still.matches;
    setPlaying(false);
    if (still.matches) play.textContent = "Paused: your system asks for less motion";
  }
  still.addEventListener("change", follow);

  follow();
  open(0);
});
