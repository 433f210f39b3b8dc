// The lines of a chart: one per curve with all its devices, one per device, or one device alone. Colours, dashes and words of each.
const COLOURS = 8;

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function linesOf(curves, mode) {
  if (mode === "each") return curves.flatMap((curve) => curve.devices.map((device, at) => lineOf(curve, [at], device, at, curve.dash)));
  if (mode === "together") return curves.map((curve) => lineOf(curve, curve.devices.map((_, at) => at), null, curve.colour, curve.dash));
  const wanted = Number(mode);
  return curves.filter((curve) => curve.devices.includes(wanted)).map((curve) => lineOf(curve, [curve.devices.indexOf(wanted)], wanted, curve.colour, curve.dash));
}

function lineOf(curve, devices, device, colour, dash) {
  const name = device === null || curve.devices.length === 1 ? curve.name : `${curve.name}, ${curve.noun} ${device}`;
  return { curve, devices, name, colour: `--c${colour % COLOURS}`, dash: DASHES[dash % DASHES.length], shown: true };
}

// "Mean 52.1 %, 40 to 61.3": what the pointer is at.
function wordsAt(unit, low, mean, high) {
  if (mean === null || mean === undefined) return "no sample";
  const range = high - low > Math.abs(mean) * 1e-3 ? ` (${number(low)} to ${number(high)})` : "";
  return `${number(mean)} ${unit}${range}`;
}

function number(value) {
  if (value === 0) return "0";
  const digits = Math.max(2 - Math.floor(Math.log10(Math.abs(value))), 0);
  return value.toLocaleString("en", { minimumFractionDigits: Math.min(digits, 6), maximumFractionDigits: Math.min(digits, 6) });
}

// A time of the run: as fine as the bins are.
function moment(seconds, fineness) {
  const digits = fineness >= 1 ? 0 : Math.min(Math.ceil(-Math.log10(fineness)), 3);
  if (Math.abs(seconds) < 60) return `${seconds.toFixed(digits)} s`;
  const rounded = Number(seconds.toFixed(digits));
  const whole = Math.floor(rounded / 60), hours = Math.floor(whole / 60);
  const rest = (rounded - whole * 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(whole % 60).padStart(2, "0")}:${rest}` : `${whole}:${rest}`;
}

function swatch(line) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("width", "26");
  svg.setAttribute("height", "10");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", "M1 5H25");
  path.setAttribute("stroke", `var(${line.colour})`);
  path.setAttribute("stroke-width", "2.5");
  path.setAttribute("stroke-dasharray", line.dash.join(" "));
  svg.append(path);
  return svg;
}
