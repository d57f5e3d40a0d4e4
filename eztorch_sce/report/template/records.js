/* Thumbnails and animations of records, which the sections about records share. */
const records = (() => {
  const PER_ROW = 32, PER_ATLAS = PER_ROW * PER_ROW;

  /** Return the thumbnail of a row of a sample, or an empty tile if it has none. It is decoration: name it in text. */
  function tile(set, number) {
    const element = page.el("span", { class: "tile", "aria-hidden": "true" });
    return showTile(element, set, number);
  }

  function showTile(element, set, number) {
    const atlas = Math.floor(number / PER_ATLAS), place = number % PER_ATLAS;
    if (number >= 0 && page.hasImage(`tiles-${set}-${atlas}`)) {
      element.style.backgroundImage = `url(${page.image(`tiles-${set}-${atlas}`)})`;
      element.style.setProperty("--column", place % PER_ROW);
      element.style.setProperty("--row", Math.floor(place / PER_ROW));
      element.classList.add("shown");
    }
    element.hidden = !page.hasImage(`tiles-${set}-0`);  // no empty boxes where no record has a picture
    return element;
  }

  /** Return an animation, which plays while it or a parent of class "playing" is pointed at or focused. */
  function strip(name) {
    const element = page.el("span", { class: "strip", "aria-hidden": "true" });
    const image = new Image();
    image.addEventListener("load", () => {
      element.style.backgroundImage = `url(${image.src})`;
      element.style.setProperty("--frames", Math.round(image.naturalWidth / image.naturalHeight));
      if (image.naturalWidth > image.naturalHeight) element.classList.add("moving");
    });
    image.src = page.image(name);
    return element;
  }

  /** Show the thumbnails that a template has left places for, such as <span class="tile" data-set="0" data-tile="7">. */
  function fill(root) {
    const tiles = [...root.querySelectorAll(".tile")];
    for (const element of tiles) {
      if (element.dataset.tile) showTile(element, Number(element.dataset.set), Number(element.dataset.tile));
    }
    if (!tiles.some((element) => element.classList.contains("shown"))) for (const element of tiles) element.hidden = true;
  }

  /** Copy a text, and say so on a button. */
  async function copy(text, button) {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = page.el("textarea", { readonly: true, class: "hidden" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  }

  return { tile, strip, fill, copy };
})();
