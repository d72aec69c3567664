// What every page does: it says how old its index is, and copies commands.
(() => {
  "use strict";

  const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

  function age(time) {
    const seconds = (Date.now() - Date.parse(time)) / 1000;
    for (const [name, length] of UNITS) {
      const count = Math.floor(seconds / length);
      if (count >= 1) return `${count} ${name}${count === 1 ? "" : "s"} ago`;
    }
    return "just now";
  }

  for (const time of document.querySelectorAll("time[data-age]")) {
    if (!Number.isNaN(Date.parse(time.dateTime))) time.append(` (${age(time.dateTime)})`);
  }

  async function copied(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      getSelection().selectAllChildren(element);
      return document.execCommand("copy");
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button[data-copy]");
    if (!button) return;
    const text = button.parentElement.querySelector("code");
    button.textContent = (await copied(text)) ? "Copied" : "Press Ctrl+C";
    document.getElementById("said").textContent = button.textContent;
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });

  for (const button of document.querySelectorAll("button[data-copy]")) button.hidden = false;
})();
