/* A page that follows a run: it asks the server for what has changed, and says how the run is getting on. */
(() => {
  const PAUSE_MS = 2000, PAUSE_HIDDEN_MS = 15000;
  const known = new Map();
  const token = new URLSearchParams(location.search).get("token");
  const words = document.getElementById("live-words"), progress = document.getElementById("live-progress"), line = document.getElementById("live");

  const duration = (seconds) => {
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  };

  function describe(run) {
    const parts = [run.words];
    if (run.epoch !== null) parts.push(run.epochs === null ? `epoch ${run.epoch}` : `epoch ${run.epoch} of ${run.epochs}`);
    if (run.step !== null) parts.push(`step ${run.step.toLocaleString("en-US")}`);
    if (run.left_s !== null) parts.push(`about ${duration(run.left_s)} left`);
    if (run.silence_s !== null && run.state !== "finished") {
      parts.push(run.silence_s < 3 ? "updated just now" : `last update ${duration(run.silence_s)} ago`);
    }
    return parts.join(" · ");
  }

  function show(state, text, fraction) {
    line.dataset.state = state;
    if (words.textContent !== text) words.textContent = text;
    progress.hidden = fraction === null;
    if (fraction !== null) progress.value = fraction;
  }

  async function ask() {
    const list = [...known].map(([name, digest]) => `${name}:${digest}`).join(",");
    try {
      const answer = await fetch(`/data.json?token=${encodeURIComponent(token)}&known=${encodeURIComponent(list)}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const news = await answer.json();
      for (const section of news.sections) {
        page.receive(section);
        known.set(section.name, section.digest);
      }
      if (news.sections.length) page.arrange(news.order);
      show(news.run.state, describe(news.run), news.run.progress);
      document.documentElement.dataset.live = String(Number(document.documentElement.dataset.live || 0) + 1);
    } catch (error) {
      show("gone", "No answer: eztorch-sce watch has ended, or this address is old. The page shows what it last received.", null);
      if (!(error instanceof TypeError)) console.info(error);
    }
    setTimeout(ask, document.hidden ? PAUSE_HIDDEN_MS : PAUSE_MS);
  }

  addEventListener("DOMContentLoaded", ask);
})();
