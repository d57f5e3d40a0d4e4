/* Thumbnails of the mistakes, and tables of many classes, which are built when they are opened. */
page.section("confusion", (root, data) => {
  const { el } = page;
  records.fill(root);

  function table({ number, title, classes }) {
    const counts = page.column(`confusion-${number}`);
    const rows = classes.map((name, i) => {
      const row = counts.slice(i * classes.length, (i + 1) * classes.length), total = row.reduce((sum, x) => sum + x, 0) || 1;
      return el("tr", {}, el("th", { scope: "row" }, el("bdi", { text: name })), ...Array.from(row, (count, j) => {
        const cell = el("td", { class: `${i === j ? "right" : "wrong"}${count ? "" : " none"}`, text: String(count) });
        if (count) cell.style.setProperty("--heat", (count / total).toFixed(3));
        return cell;
      }));
    });
    return el("div", { class: "scroll confusion-all", tabindex: "0", role: "region", "aria-label": `Table of confusion, ${title}` },
      el("table", { class: "confusion" }, el("caption", { text: `Test records by class (rows) and predicted class (columns); ${title}` }),
        el("thead", {}, el("tr", {}, el("td"), ...classes.map((name) => el("th", { scope: "col" }, el("bdi", { text: name }))))),
        el("tbody", {}, ...rows)));
  }

  for (const details of root.querySelectorAll("details[data-matrix]")) {
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(table(data.evaluations[Number(details.dataset.matrix)]));
    });
  }
});
