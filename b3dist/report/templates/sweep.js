"use strict";
// Draws each figure of the page's data into its element.
(() => {
  const { figures } = JSON.parse(document.getElementById("figures").textContent);
  figures.forEach((figure, index) => {
    if (figure) {
      Plotly.newPlot(`figure-${index}`, figure.data, figure.layout, { displayModeBar: false, responsive: true });
    }
  });
})();
