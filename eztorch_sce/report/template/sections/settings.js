page.section("settings", (root) => {
  const search = root.querySelector("#settings-search");
  const shown = root.querySelector("#settings-shown");
  const count = root.querySelector("#settings-count");
  const tables = [...root.querySelectorAll("details.settings")].map((details) => ({
    none: details.querySelector(".none"),
    rows: [...details.querySelectorAll("tbody tr")].map((row) => ({ row, text: row.textContent.toLowerCase() })),
  }));
  const hiddenOrigins = { set: ["default", "recipe"], changed: ["default"], all: [] };
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    for (const { rows, none } of tables) {
      let here = 0;
      for (const { row, text } of rows) {
        row.hidden = (!words.length && hiddenOrigins[shown.value].includes(row.dataset.origin))
          || !words.every((word) => text.includes(word));
        here += row.hidden ? 0 : 1;
      }
      none.hidden = here > 0;
      visible += here;
    }
    const total = tables.reduce((sum, { rows }) => sum + rows.length, 0);
    count.textContent = `${page.number(visible)} of ${page.number(total)} settings`;
    if (words.length) for (const details of root.querySelectorAll("details.settings")) details.open = true;
  }
  root.querySelector("#settings-controls").hidden = false;
  search.addEventListener("input", filter);
  shown.addEventListener("change", filter);
  filter();
});
