page.section("data", (root, data) => {
  for (const element of root.querySelectorAll(".balance")) {
    const set = data.sets[Number(element.dataset.set)];
    if (set.classes.length < 2) continue;
    element.hidden = false;
    const order = set.classes.map((_, i) => i).sort((a, b) => set.train[b] - set.train[a]);
    const isLong = order.length > 40;
    const series = [{ name: "train", values: set.train }];
    if (set.test.length) series.push({ name: "test", values: set.test });
    page.chart(element, () => ({
      grid: { left: 8, right: 8, top: 56, bottom: isLong ? 8 : 4, containLabel: true },
      legend: { top: 0, left: 0, data: series.map((each) => each.name) },
      tooltip: { trigger: "axis" },
      xAxis: {
        type: "category", data: order.map((i) => set.classes[i]), axisTick: { show: false },
        axisLabel: { show: !isLong, rotate: order.length > 6 ? 40 : 0, width: 140, overflow: "truncate", interval: 0 },
      },
      yAxis: { type: "value", name: "records", minInterval: 1, nameTextStyle: { align: "left" } },
      series: series.map((each, number) => ({
        name: each.name, type: "bar", barMaxWidth: 28, data: order.map((i) => each.values[i]),
        itemStyle: number ? { decal: { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 3], rotation: 0.8, color: page.color("surface") } } : {},
      })),
    }), `Bar chart of the records of ${set.classes.length} classes, from ${Math.min(...set.train)} to ${Math.max(...set.train)} in the train split; the table below has the numbers.`);
  }
});
