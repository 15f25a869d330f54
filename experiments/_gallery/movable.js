"use strict";
// Moves the figures of this page: looks up what stands at the sliders' places. The points were placed when it was built.
for (const figure of document.querySelectorAll("[data-movable]")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const inputs = [...figure.querySelectorAll("input")];
  const outputs = [...figure.querySelectorAll(".slider output")];
  const readings = [...figure.querySelectorAll(".reading output")];
  const paths = [...figure.querySelectorAll("path.moves")];

  const at = (values, by) =>
    by.reduce((found, slider) => (Array.isArray(found[0]) ? found[+inputs[slider].value] : found), values);

  const path = ({ kind, by, x, y, top }) => {
    const [across, up, over] = [x, y, top].map((values) => at(values, by));
    const points = across.map((a, i) => `${a} ${up[i]}`);
    if (kind === "bars") return points.map((p, i) => `M${p}V${over[i]}`).join("");
    if (kind === "dots") return points.map((p) => `M${p}h0`).join("");
    return points.length ? `M${points.join("L")}${kind === "area" ? "Z" : ""}` : "";
  };

  const move = () => {
    inputs.forEach((input, i) => {
      outputs[i].value = data.sliders[i][+input.value];
      input.setAttribute("aria-valuetext", outputs[i].value);
    });
    paths.forEach((element, i) => element.setAttribute("d", path(data.marks[i])));
    readings.forEach((output, i) => (output.value = at(data.readings[i].shown, data.readings[i].by)[0]));
  };

  inputs.forEach((input) => input.addEventListener("input", move));
  move(); // a browser may have kept the sliders where they were
}
