// Theme, keys, sorting, filtering, the colours of tokens, and figures of runs that are running.
// Everything works without it, except these comforts.
(() => {
  "use strict";
  const root = document.documentElement;
  const kept = (name, value) => {
    try {
      if (value === undefined) return localStorage.getItem(name);
      localStorage.setItem(name, value);
    } catch { /* a browser may keep nothing */ }
    return null;
  };
  const theme = kept("eapo-view-theme");
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  const toggleTheme = () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const next = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    root.dataset.theme = next;
    kept("eapo-view-theme", next);
  };

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell === undefined ? "" : cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text.replace(/[,%]/g, ""));
    return text !== "" && Number.isFinite(number) ? number : text.toLowerCase();
  };
  const sortBy = (table, column, direction) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.sort((a, b) => {
      const [x, y] = [valueOf(a, column), valueOf(b, column)];
      if (typeof x === "number" && typeof y === "number") return direction * (x - y);
      return direction * String(x).localeCompare(String(y), undefined, { numeric: true });
    });
    body.append(...rows);
    [...table.tHead.rows[0].cells].forEach((cell, index) => {
      if (index === column) cell.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
    table.dataset.sorted = `${column},${direction}`;
  };
  const makeSortable = (table) => {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      if (!cell.textContent.trim()) return;
      cell.tabIndex = 0;
      const sort = () => {
        const numeric = cell.classList.contains("right");
        const sorted = cell.getAttribute("aria-sort");
        const direction = sorted ? (sorted === "ascending" ? -1 : 1) : numeric ? -1 : 1;
        sortBy(table, column, direction);
      };
      cell.addEventListener("click", sort);
      cell.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
    if (table.dataset.sorted) sortBy(table, ...table.dataset.sorted.split(",").map(Number));
  };

  const filter = (input) => {
    const table = document.querySelector(input.dataset.filter);
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      left += row.hidden ? 0 : 1;
    }
    const none = document.querySelector(".none-left");
    if (none) none.hidden = left > 0;
  };

  const follow = (rel) => {
    const link = document.querySelector(`a[rel~="${rel}"]`);
    if (link) link.click();
  };
  const keys = {
    j: () => follow("next"),
    k: () => follow("prev"),
    u: () => follow("up"),
    t: () => follow("alternate"),
    d: toggleTheme,
    "/": () => { const input = document.getElementById("search"); if (input) { input.focus(); input.select(); } },
    "?": () => { const help = document.getElementById("help"); if (help) (help.open ? help.close() : help.showModal()); },
    e: () => {
      const all = [...document.querySelectorAll("main details")];
      const open = all.some((one) => !one.open);
      all.forEach((one) => { one.open = open; });
    },
  };

  const colourTokens = () => {
    const links = [...document.querySelectorAll("[data-colour]")];
    links.forEach((link) => link.addEventListener("click", (event) => {
      event.preventDefault();
      document.getElementById("rows").className = `rows by-${link.dataset.colour}`;
      links.forEach((one) => one.toggleAttribute("aria-current", one === link));
      history.replaceState(null, "", link.href || location.href);
    }));
    const told = document.getElementById("token-told");
    let here = null;
    const tell = (token) => {
      if (!token || !token.classList.contains("t") || !told) return;
      if (here) here.classList.remove("here");
      here = token;
      token.classList.add("here");
      told.textContent = `${JSON.stringify(token.textContent)} · ${token.title}`;
      told.hidden = false;
    };
    for (const kind of ["mouseover", "click"]) {
      document.addEventListener(kind, (event) => {
        if (event.target.closest && event.target.closest("#rows")) tell(event.target);
      });
    }
  };

  const tablesOf = (one) => (one.matches("table[data-sort]") ? [one] : [...one.querySelectorAll("table[data-sort]")]);
  const before = new Map();  // id -> the figures as they were sent last
  const refresh = async (every) => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { credentials: "same-origin" });
        if (answer.ok) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          for (const old of document.querySelectorAll("[data-live][id]")) {
            const fresh = page.getElementById(old.id);
            if (!fresh || fresh.innerHTML === before.get(old.id)) continue;
            const text = fresh.innerHTML;
            if (old.matches(":hover") && old.querySelector(".hit:hover")) continue;
            const were = tablesOf(old);
            const opened = [...old.querySelectorAll("details")].map((one) => one.open);
            old.replaceWith(fresh);
            fresh.dataset.renewed = "";
            before.set(fresh.id, text);
            tablesOf(fresh).forEach((table, index) => {
              const sorted = were[index] && were[index].dataset.sorted;
              if (sorted) table.dataset.sorted = sorted;
              makeSortable(table);
            });
            [...fresh.querySelectorAll("details")].forEach((one, index) => { if (index < opened.length) one.open = opened[index]; });
          }
          document.querySelectorAll("input[data-filter]").forEach((input) => { if (input.value) filter(input); });
          if (!page.body.dataset.liveMs) return;
        }
      } catch { /* the server has ended, or is busy: ask again later */ }
    }
    setTimeout(refresh, every, every);
  };

  document.addEventListener("keydown", (event) => {
    const inField = event.target.closest && event.target.closest("input, select, textarea");
    if (event.key === "Escape" && inField) { event.target.blur(); return; }
    if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  document.addEventListener("DOMContentLoaded", () => {
    const on = (id, act) => { const found = document.getElementById(id); if (found) found.addEventListener("click", act); };
    on("theme", toggleTheme);
    on("help-button", keys["?"]);
    document.querySelectorAll("table[data-sort]").forEach(makeSortable);
    document.querySelectorAll("input[data-filter]").forEach((input) => {
      input.addEventListener("input", () => filter(input));
    });
    colourTokens();
    const every = Number(document.body.dataset.liveMs);
    if (every) setTimeout(refresh, every, every);
  });
})();
