// Values on hover, and the light/dark switch. Without this script the page still shows everything else.
const SVG = "http://www.w3.org/2000/svg";

for (const figure of document.querySelectorAll("figure[data-series]")) {
  const series = JSON.parse(figure.dataset.series); // for each series: [step, x, y, text]
  const svg = figure.querySelector("svg");
  const cursor = figure.querySelector(".cursor");
  const rule = cursor.querySelector("line");
  const keys = [...figure.querySelectorAll(".key")];
  const values = keys.map((key) => key.querySelector("b"));
  const label = figure.querySelector(".step");
  const resting = [label.textContent, ...values.map((value) => value.textContent)];
  const dots = keys.map((key) => {
    const dot = document.createElementNS(SVG, "circle");
    dot.setAttribute("r", 3.2);
    dot.setAttribute("class", key.className.replace("key", "pick"));
    return cursor.appendChild(dot);
  });

  const rest = () => {
    cursor.setAttribute("visibility", "hidden");
    [label.textContent] = resting;
    values.forEach((value, index) => (value.textContent = resting[index + 1]));
  };

  const move = (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const near = series.flat().reduce((best, point) => (Math.abs(point[1] - x) < Math.abs(best[1] - x) ? point : best));
    cursor.setAttribute("visibility", "visible");
    rule.setAttribute("x1", near[1]);
    rule.setAttribute("x2", near[1]);
    label.textContent = "step " + near[0].toLocaleString("en");
    series.forEach((points, index) => {
      const point = points.findLast((candidate) => candidate[0] <= near[0]);
      dots[index].setAttribute("visibility", point ? "inherit" : "hidden");
      values[index].textContent = point ? point[3] : "–";
      if (!point) return;
      dots[index].setAttribute("cx", point[1]);
      dots[index].setAttribute("cy", point[2]);
    });
  };

  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerdown", move);
  svg.addEventListener("pointerleave", rest);
}

const button = document.querySelector("header button");
button.hidden = false;
button.addEventListener("click", () => {
  const root = document.documentElement;
  const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.style.colorScheme = (root.style.colorScheme || preferred) === "dark" ? "light" : "dark";
});

// Folded blocks print open.
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.rollouts)").forEach((block) => (block.open = true)));
