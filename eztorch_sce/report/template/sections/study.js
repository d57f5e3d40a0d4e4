"use strict";
page.section("study", (root) => {
  const button = root.querySelector("[data-copy]");
  if (!button) return;
  const command = root.querySelector("[data-command]");
  const status = root.querySelector("[data-copied]");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command.textContent);
      status.textContent = "copied";
    } catch {  // pages opened from a file may have no clipboard: select the text, so that one key copies it
      getSelection().selectAllChildren(command);
      status.textContent = "selected: copy it by keyboard";
    }
  });
});
