/* Views as tiles of one picture: a row for each view, its frames beside each other, shown in turn. */
page.section("views", (root, data) => {
  const app = root.querySelector("#views-app");
  const moving = data.runs.some((run) => run.frames > 1);
  let playing = moving && !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const button = page.el("button", { type: "button", class: "button", onclick: () => { playing = !playing; label(); } });
  const label = () => { button.textContent = playing ? "Pause" : "Play"; };
  label();
  if (moving) app.append(page.el("p", {}, button));

  let tiles = [];
  function fill() {
    tiles = [...root.querySelectorAll(".views-tile")].map((element) => {
      const { image, row, rows, frames, ms } = element.dataset;
      element.style.backgroundImage = `url("${page.image(image)}")`;
      element.style.backgroundSize = `${100 * frames}% ${100 * rows}%`;
      const tile = { element, frames: Number(frames), ms: Number(ms), top: rows > 1 ? (100 * row) / (rows - 1) : 0, frame: -1 };
      show(tile, 0);
      return tile;
    });
  }

  function show(tile, frame) {
    if (frame === tile.frame) return;
    tile.frame = frame;
    tile.element.style.backgroundPosition = `${tile.frames > 1 ? (100 * frame) / (tile.frames - 1) : 0}% ${tile.top}%`;
  }

  let visible = false, clock = 0;
  new IntersectionObserver(([entry]) => { visible = entry.isIntersecting; }).observe(root);
  setInterval(() => {
    if (!playing || !visible || document.hidden) return;
    clock += 40;
    for (const tile of tiles) show(tile, Math.floor(clock / tile.ms) % tile.frames);
  }, 40);

  fill();
  return fill;
});
