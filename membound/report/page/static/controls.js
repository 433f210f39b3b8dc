// Buttons and keys of a chart. Zoom acts on its whole group.
const ACTIONS = [
  ["−", "Zoom out", (group) => group.closer(2)],
  ["+", "Zoom in", (group) => group.closer(0.5)],
  ["←", "Earlier", (group) => group.move(-0.5)],
  ["→", "Later", (group) => group.move(0.5)],
  ["Whole run", "Show the whole run", (group) => group.whole()],
];
const KEYS = { "-": 0, "+": 1, "=": 1, ArrowLeft: 2, ArrowRight: 3, 0: 4 };

function addControls(chart) {
  const holder = chart.root.querySelector(".buttons");
  for (const [sign, words, act] of ACTIONS) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = sign;
    button.setAttribute("aria-label", words);
    button.title = words;
    button.addEventListener("click", () => act(chart.group));
    holder.append(button);
  }
  const devices = [...new Set(chart.spec.series.flatMap((series) => series.devices))].sort((a, b) => a - b);
  if (devices.length > 1) holder.append(deviceChoice(chart, devices));
  chart.place.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    ACTIONS[KEYS[event.key]][2](chart.group);
  });
  chart.place.addEventListener("dblclick", () => chart.group.whole());
}

function deviceChoice(chart, devices) {
  const noun = chart.spec.series[0].noun;
  const select = document.createElement("select");
  select.setAttribute("aria-label", `Which ${noun}s`);
  const choices = [["together", `all ${noun}s together`], ["each", `each ${noun}`], ...devices.map((device) => [String(device), `${noun} ${device}`])];
  for (const [value, words] of choices) select.append(new Option(words, value));
  select.addEventListener("change", () => chart.show(select.value));
  return select;
}
