"use strict";
// The page's behaviour: table, part switch, opening an asset. Text from the run is only ever set as textContent.
(() => {
  const byId = (id) => document.getElementById(id);
  const { rows, whole } = JSON.parse(byId("overview").textContent);
  const assetData = document.getElementsByClassName("asset-data");
  const indexOf = new Map(rows.map((row, index) => [row.ticker, index]));
  let split = "test", sorted = { column: 0, descending: false }, opened = null, visible = [];

  const fixed = (digits) => (value) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));
  const percent = (digits) => (value) => (value === null || value === undefined ? "–" : fixed(digits)(100 * value) + " %");
  const part = (key) => (row) => row[split][key];
  const higher = (own, naive) => own - naive, lower = (own, naive) => naive - own;
  const chance = (windows) => (windows > 0 ? 2 / Math.sqrt(windows) : Infinity); // two standard errors of a correlation of zero
  const COLUMNS = [
    { group: "", label: "Ticker", get: (row) => row.ticker, text: String, first: true },
    { group: "", label: "Windows", get: part("windows"), text: fixed(0) },
    { group: "Accuracy", label: "model", get: part("accuracy"), text: percent(1), against: part("majority_accuracy"), better: higher, first: true },
    { group: "Accuracy", label: "majority", get: part("majority_accuracy"), text: percent(1) },
    { group: "Macro F1", label: "model", get: part("macro_f1"), text: fixed(3), against: part("majority_macro_f1"), better: higher, first: true },
    { group: "Macro F1", label: "majority", get: part("majority_macro_f1"), text: fixed(3) },
    { group: "Return (no skill: 0)", label: "IC", get: part("ic"), text: fixed(3), against: () => 0, better: higher, chance: (row) => chance(row[split].windows), first: true },
    { group: "Return (no skill: 0)", label: "rank IC", get: part("rank_ic"), text: fixed(3), against: () => 0, better: higher, chance: (row) => chance(row[split].windows) },
    { group: "Return error (persistence: 1)", label: "MAE", get: part("mae"), text: percent(2), first: true },
    { group: "Return error (persistence: 1)", label: "persist.", get: part("persistence_mae"), text: percent(2) },
    { group: "Return error (persistence: 1)", label: "MAE ratio", get: part("mae_ratio"), text: fixed(3), against: () => 1, better: lower },
    { group: "Return error (persistence: 1)", label: "RMSE ratio", get: part("rmse_ratio"), text: fixed(3), against: () => 1, better: lower },
    { group: "Return error (persistence: 1)", label: "p-value", get: part("p_value"), text: fixed(3) },
    { group: "Price R²", label: "model", get: part("price_r2"), text: fixed(4), against: part("persistence_price_r2"), better: higher, first: true },
    { group: "Price R²", label: "persist.", get: part("persistence_price_r2"), text: fixed(4) },
    { group: "Training", label: "kept / epochs", get: (row) => row.best_epoch, text: (value, row) => (value === null ? "–" : row.unseen ? "unseen" : `${value} / ${row.epochs}`), first: true },
    { group: "Training", label: "val ÷ train loss", get: (row) => row.overfit_ratio, text: fixed(2) },
  ];
  const ORIGINS = { own: "own model", pooled: "pooled", whole: "pooled, whole", scratch: "scratch" };
  const started = (which, key) => (row) => (row.start && row.start[split] ? row.start[split][which][key] : null);
  if (rows.some((row) => row.start)) {
    COLUMNS.push(
      { group: "Start (kept beside it)", label: "from", get: (row) => (row.start ? ORIGINS[row.start.origin] + (row.start.unchanged ? ", unchanged" : "") : null), text: (value) => value || "–", first: true },
      { group: "Start (kept beside it)", label: "macro F1", get: started("start", "macro_f1"), text: fixed(3) },
      { group: "Start (kept beside it)", label: "kept", get: started("kept", "macro_f1"), text: fixed(3), against: started("start", "macro_f1"), better: higher },
      { group: "Start (kept beside it)", label: "RMSE ratio", get: started("start", "error_ratio"), text: fixed(3) },
      { group: "Start (kept beside it)", label: "kept", get: started("kept", "error_ratio"), text: fixed(3), against: started("start", "error_ratio"), better: lower },
    );
  }

  function make(name, text, className) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  function arrow(own, naive, better, within = 0) {
    if (own === null || own === undefined || naive === null || naive === undefined || Math.abs(own - naive) < 5e-7) return null;
    if (Math.abs(own - naive) <= within) return make("b", "●", "even");
    return better(own, naive) > 0 ? make("b", "▲", "up") : make("b", "▼", "down");
  }

  function drawHead() {
    const groups = make("tr", undefined, "group"), heads = make("tr");
    for (let i = 0; i < COLUMNS.length;) {
      const span = COLUMNS.slice(i).findIndex((column) => column.group !== COLUMNS[i].group);
      const cell = make("th", COLUMNS[i].group, COLUMNS[i].first && i ? "first" : "");
      cell.colSpan = span < 0 ? COLUMNS.length - i : span;
      groups.append(cell);
      i += cell.colSpan;
    }
    COLUMNS.forEach((column, index) => {
      const cell = make("th", undefined, (index ? "n" : "") + (column.first && index ? " first" : "")), button = make("button", column.label);
      button.type = "button";
      button.addEventListener("click", () => {
        sorted = { column: index, descending: sorted.column === index ? !sorted.descending : index > 0 };
        drawRows();
      });
      cell.append(button);
      heads.append(cell);
    });
    byId("fleet").tHead.replaceChildren(groups, heads);
  }

  function compare(a, b) {
    const left = COLUMNS[sorted.column].get(a), right = COLUMNS[sorted.column].get(b);
    if (left === null || left === undefined) return right === null || right === undefined ? 0 : 1;
    if (right === null || right === undefined) return -1;
    const order = left < right ? -1 : left > right ? 1 : 0;
    return sorted.descending ? -order : order;
  }

  function drawRows() {
    const wanted = byId("filter").value.trim().toUpperCase();
    visible = rows.filter((row) => row.ticker.toUpperCase().includes(wanted)).sort(compare);
    const heads = byId("fleet").tHead.rows[1].cells;
    COLUMNS.forEach((_, index) => heads[index].removeAttribute("aria-sort"));
    heads[sorted.column].setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
    byId("fleet").tBodies[0].replaceChildren(...visible.map((row) => {
      const line = make("tr", undefined, row.ticker === opened ? "open" : "");
      COLUMNS.forEach((column, index) => {
        const value = column.get(row), cell = make(index ? "td" : "th", undefined, (index ? "n" : "") + (column.first && index ? " first" : ""));
        if (index) cell.textContent = column.text(value, row);
        else { cell.append(make("button", row.ticker)); cell.firstChild.type = "button"; }
        const mark = column.against && arrow(value, column.against(row), column.better, column.chance && column.chance(row));
        if (mark) cell.append(mark);
        line.append(cell);
      });
      line.addEventListener("click", () => open(row.ticker));
      return line;
    }));
    byId("fleet-count").textContent = visible.length === rows.length ? `${rows.length} assets` : `${visible.length} of ${rows.length} assets`;
    for (const line of document.querySelectorAll("#untrained tbody tr")) line.hidden = !line.dataset.ticker.toUpperCase().includes(wanted);
  }

  function series(name, key, options) {
    const with_ = rows.filter((row) => row[split][key] !== null);
    return { name, values: with_.map((row) => row[split][key]), tickers: with_.map((row) => row.ticker), ...options };
  }

  function drawDistributions() {
    const windows = rows.map((row) => row[split].windows).filter((value) => value > 0).sort((a, b) => a - b);
    const band = windows.length ? 2 / Math.sqrt(windows[windows.length >> 1]) : undefined;
    charts.distribution(byId("chart-accuracy"), [series("model", "accuracy"), series("majority class", "majority_accuracy", { outline: "#1b2530" })], { label: "accuracy", format: ".0%" });
    charts.distribution(byId("chart-macro-f1"), [series("model", "macro_f1"), series("majority class", "majority_macro_f1", { outline: "#1b2530" })], { label: "macro F1" });
    charts.distribution(byId("chart-ic"), [series("IC", "ic")], { label: "IC over sessions", line: 0, band });
    charts.distribution(byId("chart-error"), [series("RMSE ratio", "rmse_ratio"), series("MAE ratio", "mae_ratio", { outline: "#d55e00" })], { label: "error ÷ persistence's error", line: 1 });
  }

  function drawStarts() {
    if (!byId("chart-start-error")) return;
    for (const [id, key, label, better] of [["chart-start-macro-f1", "macro_f1", "macro F1", higher], ["chart-start-error", "error_ratio", "error ÷ persistence's", lower]]) {
      const points = rows.map((row) => ({ ticker: row.ticker, start: started("start", key)(row), kept: started("kept", key)(row) })).filter((one) => one.start !== null && one.kept !== null);
      charts.startAgainstKept(byId(id), points, label, better);
    }
  }

  function open(ticker, { scroll = true } = {}) {
    if (!indexOf.has(ticker)) return;
    opened = ticker;
    byId("asset").hidden = false;
    drawAsset(JSON.parse(assetData[indexOf.get(ticker)].textContent));
    for (const line of byId("fleet").tBodies[0].rows) line.classList.toggle("open", line.cells[0].textContent === ticker);
    if (location.hash !== "#" + ticker) history.replaceState(null, "", "#" + ticker);
    if (scroll) byId("asset").scrollIntoView();
  }

  function drawAsset(view) {
    const facts = view.facts || {}, metrics = view.metrics || {}, parts = view.parts || {};
    byId("asset-title").textContent = view.ticker;
    const named = [["train", "training"], ["val", "validation"], ["test", "test"]].filter(([name]) => facts.splits && facts.splits[name]);
    byId("asset-facts").textContent = named.map(([name, label]) => {
      const one = facts.splits[name];
      if (!one.num_windows) return `${label}: no window`;
      return `${label} ${one.first} to ${one.last} (${one.num_windows} windows)`;
    }).concat(facts.initial_model ? [`started from ${facts.initial_model.origin}` + (metrics.best_epoch === 0 ? ", kept as it came" : "")] : [], facts.anchor ? [`prices at the basis of ${facts.anchor}`] : [], facts.model_sha256 ? [`model ${facts.model_sha256.slice(0, 12)}`] : []).join("  ·  ");
    byId("asset-missing").replaceChildren(...view.missing.map((text) => make("p", text, "notice")));
    drawOr("chart-price", parts.val || parts.test, (element) => charts.price(element, parts), "No predictions.");
    drawOr("chart-losses", view.history, (element) => charts.losses(element, view.history, metrics.best_epoch), "No history.");
    drawOr("chart-reliability", parts[split], (element) => charts.reliability(element, parts[split].reliability), "No predictions.");
    drawOr("chart-groups", parts[split], (element) => charts.returnGroups(element, parts[split].return_groups), "No predictions.");
    byId("confusion").replaceChildren(...[["val", "validation"], ["test", "test"]].filter(([name]) => metrics[name]).map(([name, label]) => confusion(metrics[name], label)));
    byId("asset-numbers").replaceChildren(numbers(metrics));
  }

  function drawOr(id, data, drawing, otherwise) {
    if (data) {
      if (byId(id).querySelector(".empty")) byId(id).replaceChildren();
      drawing(byId(id));
    } else charts.empty(byId(id), otherwise);
  }

  function confusion(metrics, label) {
    const names = ["buy", "sell", "hold"], table = make("table", undefined, "confusion"), head = make("tr");
    table.createCaption().textContent = label;
    head.append(make("th", "true ↓  predicted →"), ...names.map((name) => make("th", name, "n")), make("th", "recall", "n"));
    table.createTHead().append(head);
    const body = table.createTBody();
    metrics.confusion.forEach((counts, truth) => {
      const total = counts.reduce((sum, count) => sum + count, 0), line = make("tr");
      line.append(make("th", `${names[truth]} (${total})`));
      counts.forEach((count) => {
        const share = total ? count / total : 0, cell = make("td", String(count));
        cell.style.background = `rgba(0, 114, 178, ${0.06 + 0.74 * share})`;
        if (share > 0.7) cell.style.color = "#fff";
        line.append(cell);
      });
      const scores = metrics.per_class && metrics.per_class[names[truth]];
      line.append(make("td", total && scores ? percent(1)(scores.recall) : "–", "n"));
      body.append(line);
    });
    return table;
  }

  function numbers(metrics) {
    const read = (name, ...keys) => keys.reduce((value, key) => (value === null || value === undefined ? null : value[key]), metrics[name] || null);
    const table = make("table"), head = make("tr"), persistence = ["baselines", "persistence"];
    head.append(make("th", ""), ...["validation", "baseline", "test", "baseline"].map((text) => make("th", text, "n")));
    table.createTHead().append(head);
    const body = table.createTBody();
    const lines = [
      ["Accuracy", percent(1), ["accuracy"], ["baselines", "majority", "accuracy"], higher],
      ["Macro F1", fixed(3), ["macro_f1"], ["baselines", "majority", "macro_f1"], higher],
      ["Weighted F1", fixed(3), ["weighted_f1"], null],
      ["IC", fixed(3), ["return", "ic"], 0, higher, chance],
      ["Rank IC", fixed(3), ["return", "rank_ic"], 0, higher, chance],
      ["Return MAE", percent(3), ["return", "mae"], [...persistence, "return", "mae"], lower],
      ["Return RMSE", percent(3), ["return", "rmse"], [...persistence, "return", "rmse"], lower],
      ["Return R²", fixed(4), ["return", "r2"], [...persistence, "return", "r2"], higher],
      ["Price MAE, BRL", fixed(3), ["price", "mae"], [...persistence, "price", "mae"], lower],
      ["Price MAPE", percent(2), ["price", "mape"], [...persistence, "price", "mape"], lower],
      ["Price R²", fixed(4), ["price", "r2"], [...persistence, "price", "r2"], higher],
    ];
    for (const [label, text, keys, naive, better, within] of lines) {
      const line = make("tr");
      line.append(make("th", label));
      for (const name of ["val", "test"]) {
        const own = read(name, ...keys), base = Array.isArray(naive) ? read(name, ...naive) : naive, cell = make("td", text(own), "n strong");
        const mark = better && arrow(own, base, better, within && within(read(name, "num_windows")));
        if (mark) cell.append(mark);
        line.append(cell, make("td", text(base), "n quiet"));
      }
      body.append(line);
    }
    return table;
  }

  function step(by) {
    const position = visible.findIndex((row) => row.ticker === opened);
    const next = visible[(position + by + visible.length) % visible.length];
    if (next) open(next.ticker, { scroll: false });
  }

  function choose(name) {
    split = name;
    for (const element of document.querySelectorAll(".by-split")) element.hidden = element.dataset.split !== split;
    for (const label of document.querySelectorAll(".split-name")) label.textContent = split === "test" ? "test part" : "validation part";
    drawDistributions();
    drawStarts();
    drawRows();
    if (opened) open(opened, { scroll: false });
  }

  if (whole) drawOr("chart-whole", whole.history, (element) => charts.losses(element, whole.history, whole.kept), "No history.");
  if (!rows.length) return;
  drawHead();
  choose("test");
  byId("filter").addEventListener("input", drawRows);
  byId("split-switch").addEventListener("change", (event) => choose(event.target.value));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  window.addEventListener("hashchange", () => open(decodeURIComponent(location.hash.slice(1))));
  if (location.hash) open(decodeURIComponent(location.hash.slice(1)));
})();
