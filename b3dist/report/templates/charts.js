"use strict";
// How each chart is drawn. Every function takes an element and plain data; nothing here knows the page.
const charts = (() => {
  const INK = "#1b2530", QUIET = "#5c6875", LINE = "#e4e8ec", MODEL = "#0072b2", BASELINE = "#8a949e";
  const ACTIONS = { b: ["buy", "#0072b2", "triangle-up"], s: ["sell", "#d55e00", "triangle-down"], h: ["hold", "#8a949e", "circle"] };
  const CONFIG = { displaylogo: false, displayModeBar: false, responsive: true };
  const FONT = { family: getComputedStyle(document.body).fontFamily, size: 12, color: QUIET };

  function draw(element, traces, layout) {
    const axis = { gridcolor: LINE, zeroline: false, linecolor: "#b9c2cb", ticks: "outside", ticklen: 4, tickcolor: "#b9c2cb", automargin: true };
    const merged = {
      font: FONT, paper_bgcolor: "#fff", plot_bgcolor: "#fff", margin: { l: 52, r: 12, t: 26, b: 42 }, showlegend: true,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } }, hoverlabel: { font: { size: 12 } }, ...layout,
      xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
    };
    Plotly.react(element, traces, merged, CONFIG);
  }

  function empty(element, why) {
    Plotly.purge(element);
    const text = document.createElement("p");
    text.className = "empty";
    text.textContent = why;
    element.replaceChildren(text);
  }

  const title = (text) => ({ text, font: { size: 12 }, standoff: 8 });
  const median = (values) => {
    const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };

  // series: [{name, values, tickers, outline}], bars unless an outline colour is given. Bins are shared; values far
  // outside the middle 96 % are gathered in the outermost bins, so that one wild asset does not flatten the picture.
  function distribution(element, series, { label, line, band, format }) {
    const present = series.filter((one) => one.values.length);
    if (!present.length) return empty(element, "Undefined for every asset.");
    const all = present.flatMap((one) => one.values).concat(line === undefined ? [] : [line]).sort((a, b) => a - b);
    const at = (share) => all[Math.round(share * (all.length - 1))];
    const spread = at(0.98) - at(0.02) || Math.abs(at(0.5)) * 0.1 || 0.1;
    let low = Math.max(all[0], at(0.02) - 0.35 * spread), high = Math.min(all[all.length - 1], at(0.98) + 0.35 * spread);
    if (line !== undefined) { low = Math.min(low, line); high = Math.max(high, line); }
    if (high - low < 1e-9) { low -= spread / 2; high += spread / 2; }
    const bins = Math.max(9, Math.min(29, Math.round(2 * Math.sqrt(Math.max(...present.map((one) => one.values.length))))));
    const size = (high - low) / (bins - 1);
    low -= size / 2; high += size / 2;
    const traces = present.map((one) => {
      const counts = new Array(bins).fill(0), names = counts.map(() => []);
      one.values.forEach((value, index) => {
        const bin = Math.min(bins - 1, Math.max(0, Math.floor((value - low) / size)));
        counts[bin] += 1;
        names[bin].push([value, one.tickers[index]]);
      });
      const hover = counts.map((count, bin) => {
        const listed = names[bin].sort((a, b) => a[0] - b[0]).slice(0, 8).map(([value, ticker]) => `${ticker} ${value.toFixed(3)}`);
        return `${one.name}: ${count}<br>${listed.join("<br>")}${count > 8 ? "<br>…" : ""}`;
      });
      const x = counts.map((_, bin) => low + (bin + 0.5) * size);
      const common = { x, y: counts, name: one.name, hovertext: hover, hoverinfo: "text" };
      return one.outline
        ? { ...common, x: [low - size / 2, ...x, high + size / 2], y: [0, ...counts, 0], hovertext: ["", ...hover, ""], type: "scatter", mode: "lines", line: { shape: "hvh", color: one.outline, width: 1.6 } }
        : { ...common, type: "bar", width: size * 0.92, marker: { color: MODEL, opacity: 0.8 } };
    });
    const shapes = [], annotations = [];
    if (band) shapes.push({ type: "rect", x0: -band, x1: band, y0: 0, y1: 1, yref: "paper", fillcolor: "#000", opacity: 0.05, line: { width: 0 }, layer: "below" });
    if (line !== undefined) shapes.push({ type: "line", x0: line, x1: line, y0: 0, y1: 1, yref: "paper", line: { color: INK, width: 1.5 } });
    const main = present.find((one) => !one.outline);
    if (main) {
      const middle = Math.min(high, Math.max(low, median(main.values)));
      shapes.push({ type: "line", x0: middle, x1: middle, y0: 0, y1: 1, yref: "paper", line: { color: MODEL, width: 1.5, dash: "dash" } });
      annotations.push({ x: 1, xref: "paper", xanchor: "right", y: 1.02, yref: "paper", yanchor: "bottom", showarrow: false, text: `dashed: median of ${main.name} ${median(main.values).toFixed(3)}`, font: { size: 12, color: QUIET } });
    }
    const most = Math.max(...traces.flatMap((trace) => trace.y)); // assets are counted: no halves
    draw(element, traces, {
      barmode: "overlay", bargap: 0, shapes, annotations, hovermode: "closest",
      xaxis: { title: title(label), range: [low - size / 2, high + size / 2], showgrid: false, tickformat: format }, yaxis: { title: title("assets"), rangemode: "tozero", ...(most < 6 ? { dtick: 1 } : {}) },
    });
  }

  function sessions(part) {
    const dates = [new Date(part.first + "T00:00:00Z")];
    for (const days of part.days) dates.push(new Date(dates[dates.length - 1].getTime() + days * 864e5));
    return dates.map((date) => date.toISOString().slice(0, 10));
  }

  function price(element, parts) {
    const traces = [], shapes = [], annotations = [], listed = new Set();
    for (const [name, label] of [["val", "validation"], ["test", "test"]]) {
      const part = parts[name];
      if (!part) continue;
      const dates = sessions(part);
      const hover = dates.map((date, i) => `${date} · close ${part.close[i]}<br>predicted ${ACTIONS[part.action[i]][0]}, true ${ACTIONS[part.truth[i]][0]}`
        + `<br>return predicted ${(part.predicted_bp[i] / 100).toFixed(2)} %, realised ${(part.realised_bp[i] / 100).toFixed(2)} %`);
      traces.push({ type: "scatter", mode: "lines", x: dates, y: part.close, name: "close", showlegend: false, line: { color: INK, width: 1.2 }, text: hover, hoverinfo: "text" });
      for (const letter of ["b", "s"]) {
        for (const right of [true, false]) {
          const at = dates.map((_, i) => i).filter((i) => part.action[i] === letter && (part.truth[i] === letter) === right);
          if (!at.length) continue;
          const [action, color, symbol] = ACTIONS[letter], legend = `${action}, ${right ? "right" : "wrong"}`;
          traces.push({
            type: "scatter", mode: "markers", x: at.map((i) => dates[i]), y: at.map((i) => part.close[i]), name: legend, legendgroup: legend,
            showlegend: !listed.has(legend), text: at.map((i) => hover[i]), hoverinfo: "text",
            marker: { symbol: right ? symbol : symbol + "-open", size: right ? 10 : 7, color, line: { color, width: 1.2 }, opacity: right ? 1 : 0.75 },
          });
          listed.add(legend);
        }
      }
      const last = dates[dates.length - 1];
      if (name === "test") shapes.push({ type: "rect", x0: dates[0], x1: last, y0: 0, y1: 1, yref: "paper", fillcolor: "#56b4e9", opacity: 0.09, line: { width: 0 }, layer: "below" });
      annotations.push({ x: dates[0], xanchor: "left", y: 1, yref: "paper", yanchor: "top", xshift: 4, showarrow: false, text: label, font: { size: 12, color: QUIET } });
    }
    draw(element, traces, { shapes, annotations, hovermode: "closest", margin: { l: 52, r: 12, t: 30, b: 30 }, xaxis: { type: "date" }, yaxis: { title: title("BRL") } });
  }

  function losses(element, history, bestEpoch) {
    const all = [...history.train_loss, ...history.val_loss].filter((value) => value > 0);
    const wide = Math.max(...all) > 20 * Math.min(...all);
    const trace = (name, key, color, dash) => ({ type: "scatter", mode: "lines", x: history.epoch, y: history[key], name, line: { color, width: 1.8, dash }, hovertemplate: `epoch %{x}: %{y:.4g}<extra>${name}</extra>` });
    const shapes = [], annotations = [];
    if (bestEpoch) {
      shapes.push({ type: "line", x0: bestEpoch, x1: bestEpoch, y0: 0, y1: 1, yref: "paper", line: { color: QUIET, width: 1, dash: "dot" } });
      const right = bestEpoch > (history.epoch[history.epoch.length - 1] || 1) / 2;
      annotations.push({ x: bestEpoch, xanchor: right ? "right" : "left", xshift: right ? -4 : 4, y: 1, yref: "paper", yanchor: "top", showarrow: false, text: `kept: epoch ${bestEpoch}`, font: { size: 12 } });
    }
    draw(element, [trace("training", "train_loss", BASELINE, "solid"), trace("validation", "val_loss", MODEL, "solid")], {
      shapes, annotations, xaxis: { title: title("epoch") }, yaxis: { title: title(wide ? "loss (log)" : "loss"), type: wide ? "log" : "linear" },
    });
  }

  // points: [{ticker, start, kept}]; one marker per asset, on the diagonal where the start was kept as it came.
  function startAgainstKept(element, points, label, better) {
    if (!points.length) return empty(element, "No asset's start was judged on this part.");
    const values = points.flatMap((one) => [one.start, one.kept]), low = Math.min(...values), high = Math.max(...values), room = 0.04 * (high - low) || 0.01;
    const ends = [low - room, high + room];
    const traces = [{ type: "scatter", mode: "lines", x: ends, y: ends, line: { color: INK, width: 1, dash: "dot" }, hoverinfo: "skip", showlegend: false }];
    const groups = [["kept is better", (sign) => sign > 0, MODEL, "triangle-up"], ["kept is worse", (sign) => sign < 0, "#d55e00", "triangle-down"], ["the same", (sign) => sign === 0, BASELINE, "circle"]];
    for (const [name, belongs, color, symbol] of groups) {
      const shown = points.filter((one) => belongs(Math.sign(better(one.kept, one.start))));
      if (!shown.length) continue;
      traces.push({
        type: "scatter", mode: "markers", name: `${name}: ${shown.length}`, x: shown.map((one) => one.start), y: shown.map((one) => one.kept), marker: { color, symbol, size: 8, opacity: 0.8 },
        text: shown.map((one) => `${one.ticker}<br>start ${one.start.toFixed(4)}, kept ${one.kept.toFixed(4)}`), hoverinfo: "text",
      });
    }
    draw(element, traces, { hovermode: "closest", xaxis: { title: title(`start: ${label}`), range: ends }, yaxis: { title: title(`kept: ${label}`), range: ends } });
  }

  function reliability(element, tables) {
    const traces = [{ type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], name: "perfect", line: { color: INK, width: 1, dash: "dot" }, hoverinfo: "skip", showlegend: false }];
    for (const [action, color, symbol] of Object.values(ACTIONS)) {
      const points = tables[action] || [];
      traces.push({
        type: "scatter", mode: "lines+markers", name: action, x: points.map((p) => p[0]), y: points.map((p) => p[1]), line: { color, width: 1.4 },
        marker: { color, symbol, size: points.map((p) => 5 + 2.2 * Math.log10(p[2])), line: { color: "#fff", width: 0.5 } },
        text: points.map((p) => `${action}: ${p[2]} windows<br>predicted ${p[0].toFixed(3)}, happened ${p[1].toFixed(3)}`), hoverinfo: "text",
      });
    }
    draw(element, traces, { hovermode: "closest", xaxis: { title: title("predicted probability"), range: [-0.03, 1.03] }, yaxis: { title: title("share that happened"), range: [-0.05, 1.05] } });
  }

  function returnGroups(element, groups) {
    const percent = (value) => (value === null ? null : 100 * value);
    const trace = {
      type: "scatter", mode: "markers", x: groups.map((g) => percent(g[0])), y: groups.map((g) => percent(g[1])), marker: { color: MODEL, size: 8 },
      error_y: { type: "data", array: groups.map((g) => percent(g[2]) || 0), color: MODEL, thickness: 1.1, width: 3 }, showlegend: false,
      text: groups.map((g, i) => `group ${i + 1} of ${groups.length}, ${g[3]} windows<br>predicted ${percent(g[0]).toFixed(2)} %, realised ${percent(g[1]).toFixed(2)} %`), hoverinfo: "text",
    };
    const ends = [groups[0][0], groups[groups.length - 1][0]].map(percent);
    const diagonal = { type: "scatter", mode: "lines", x: ends, y: ends, line: { color: INK, width: 1, dash: "dot" }, hoverinfo: "skip", showlegend: false };
    draw(element, [diagonal, trace], {
      hovermode: "closest", xaxis: { title: title("predicted return, % (tenths of the windows)"), ticksuffix: "" }, yaxis: { title: title("realised, % ± standard error"), zeroline: true, zerolinecolor: "#b9c2cb" },
    });
  }

  return { distribution, price, losses, startAgainstKept, reliability, returnGroups, empty };
})();
