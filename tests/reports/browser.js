// What a page is like in a browser: faults of its script, how far it is cut, and each column sorted.
addEventListener("load", () => {
  const pages = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, root = page.documentElement;
    const columns = [];
    for (const button of page.querySelectorAll("th button")) {
      const cell = button.parentElement, table = cell.closest("table");
      const texts = () => [...table.tBodies[0].rows].map((row) =>
        (row.cells[cell.cellIndex]?.innerText ?? "").trim());
      const before = texts();
      button.click();
      const first = [cell.ariaSort, texts()];
      button.click();
      columns.push({ name: button.innerText, before, clicks: [first, [cell.ariaSort, texts()]] });
    }
    return {
      page: frame.title,
      width: frame.width,
      dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
      faults: frame.contentWindow.faults,
      cut: root.scrollWidth - root.clientWidth,
      columns,
    };
  });
  document.body.innerHTML = `<pre id="result">${encodeURIComponent(JSON.stringify(pages))}</pre>`;
});
