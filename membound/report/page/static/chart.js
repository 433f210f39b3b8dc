// One figure over time, drawn by uPlot: a line for the mean, a shade from the lowest to the highest of what each pixel holds.
const AXIS_STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

class TimeChart {
  constructor(root, group) {
    this.root = root;
    this.group = group;
    this.spec = JSON.parse(root.querySelector("script.document").textContent);
    this.place = root.querySelector(".chart");
    this.mode = "together";
    this.marks = [];
    this.fine = null;
  }

  // Draws the whole view. Finer samples are unpacked when somebody looks closer.
  async draw() {
    const { spec } = this;
    this.whole = await Promise.all(spec.series.map((entry, at) => curveOf(entry, entry.overview, at)));
    this.finest = this.whole;
    if (spec.marks) this.marks = await readMarks(spec.marks);
    this.place.replaceChildren();
    this.#build();
  }

  // Unpacks the finest samples that the page holds, once.
  refine() {
    const unpacked = (entry, at) => (entry.fine ? curveOf(entry, entry.fine, at) : this.whole[at]);
    this.fine ??= Promise.all(this.spec.series.map(unpacked)).then((curves) => (this.finest = curves));
    return this.fine;
  }

  // Shows devices together, each, or one.
  show(mode) {
    this.mode = mode;
    if (this.whole) this.#build();
  }

  // Fills the plot with what the group looks at.
  async refresh() {
    const { spec, group } = this;
    if (!this.plot) return;
    const whole = group.from <= spec.start && group.to >= spec.end;
    if (!whole) await this.refine();
    const [from, to] = [group.from, group.to];
    const curves = whole ? this.whole : this.finest;
    const finest = Math.min(...curves.map((curve) => curve.period * 2 ** curve.pyramid.base));
    this.width = binWidth(finest, from, to, this.plot.bbox.width / devicePixelRatio);
    const first = Math.floor(from / this.width) - 1;
    const count = Math.ceil(to / this.width) + 1 - first;
    const times = Array.from({ length: count }, (_, bin) => (first + bin) * this.width);
    const columns = this.lines.flatMap((line) => {
      const found = sample(curves[line.curve.index], line.devices, first * this.width, this.width, count, spec.factor);
      return [found.mean, found.low, found.high];
    });
    this.plot.batch(() => {
      this.plot.setData([times, ...columns], false);
      this.plot.setScale("x", { min: from, max: to });
    });
    this.#tell();
  }

  // Follows a new width of the page, or of a sheet of paper.
  fit(width = this.place.clientWidth) {
    if (!this.plot || width < 50) return;
    this.plot.setSize({ width, height: this.#height(width) });
    this.refresh();
  }

  #height(width) {
    return width < 520 ? 260 : 320;
  }

  #build() {
    this.plot?.destroy();
    this.lines = linesOf(this.whole, this.mode);
    const width = this.place.clientWidth || 700;
    this.plot = new uPlot(this.#options(width), [[this.group.from, this.group.to], ...this.lines.flatMap(() => [[null, null], [null, null], [null, null]])], this.place);
    this.root.chart = this;
    this.#legend();
    return this.refresh();
  }

  #options(width) {
    const { spec, group } = this;
    const axis = { stroke: () => ink("--quiet"), grid: { stroke: () => ink("--faint"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return {
      width,
      height: this.#height(width),
      padding: [STRIP + 8, 26, 0, 0],
      legend: { show: false },
      scales: { x: { time: false, range: () => [group.from, group.to] }, y: { range: () => [spec.bottom, spec.top] } },
      axes: [
        { ...axis, incrs: AXIS_STEPS, space: 70, size: 28, values: (_, splits, __, ___, step) => splits.map((time) => moment(time, step)) },
        { ...axis, size: 52, values: (_, splits) => splits.map((value) => value.toLocaleString("en")) },
      ],
      series: [{}, ...this.lines.flatMap((line) => this.#series(line))],
      bands: this.lines.map((line, at) => ({ series: [3 * at + 3, 3 * at + 2], fill: () => `${ink(line.colour)}38` })),
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false },
        points: { size: 7 },
        sync: { key: group.name, setSeries: false, filters: { pub: (event) => event === "mousemove" || event === "mouseleave" } },
        bind: { dblclick: () => null },
        dataIdx: (_, series, nearest) => (series % 3 === 1 ? nearest : null),
      },
      hooks: {
        drawAxes: [(plot) => drawUnit(plot, spec.unit), (plot) => drawMarks(plot, this.marks)],
        draw: [(plot) => drawReferences(plot, spec.references)],
        setCursor: [(plot) => this.#follow(plot.cursor.idx)],
        setSelect: [(plot) => this.#select(plot)],
      },
    };
  }

  #series(line) {
    const edge = { stroke: "transparent", width: 0, points: { show: false }, show: line.shown };
    return [{ stroke: () => ink(line.colour), width: 1.6, dash: line.dash, show: line.shown, points: { size: 4 } }, edge, edge];
  }

  #select(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.group.zoom(from, to);
  }

  #legend() {
    const holder = this.root.querySelector(".legend");
    holder.replaceChildren(...this.lines.map((line, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const name = document.createElement("span");
      name.className = "name";
      name.textContent = line.name;
      const origin = document.createElement("span");
      origin.className = "origin";
      origin.textContent = line.curve.origin;
      line.value = document.createElement("span");
      line.value.className = "value";
      button.append(swatch(line), name, origin, line.value);
      button.addEventListener("click", () => this.#toggle(line, at, button));
      return button;
    }));
  }

  #toggle(line, at, button) {
    line.shown = !line.shown;
    button.setAttribute("aria-pressed", String(line.shown));
    for (const part of [1, 2, 3]) this.plot.setSeries(3 * at + part, { show: line.shown }, false);
  }

  #follow(bin) {
    const { plot } = this;
    const there = bin !== null && bin !== undefined && plot.cursor.left >= 0;
    this.lines.forEach((line, at) => {
      line.value.textContent = there ? wordsAt(this.spec.unit, plot.data[3 * at + 2][bin], plot.data[3 * at + 1][bin], plot.data[3 * at + 3][bin]) : "";
    });
    this.#tell(there ? plot.data[0][bin] : null);
  }

  #tell(time = null) {
    const { width, group } = this;
    const span = `${moment(group.from, width)} to ${moment(group.to, width)}`;
    const each = width < 1 ? `${Number((width * 1000).toPrecision(3))} ms` : `${Number(width.toPrecision(3))} s`;
    this.root.querySelector(".state").textContent = time === null ? `${span}, a point for each ${each}` : `at ${moment(time, width)}, a point for each ${each}`;
  }
}

async function curveOf(entry, block, index) {
  return { ...entry, index, pyramid: new Pyramid(block, await unpack(block, entry.devices.length)) };
}

// The unit stands over the axis, where nothing has to be read sideways.
function drawUnit(plot, unit) {
  const { ctx, bbox } = plot, pixel = devicePixelRatio;
  ctx.save();
  ctx.font = `${11 * pixel}px ${getComputedStyle(document.body).getPropertyValue("--sans")}`;
  ctx.textAlign = "right";
  ctx.textBaseline = "alphabetic";
  ctx.fillStyle = ink("--quiet");
  ctx.fillText(unit, bbox.left - 6 * pixel, bbox.top - 6 * pixel);
  ctx.restore();
}

function drawReferences(plot, references) {
  const { ctx, bbox } = plot, pixel = devicePixelRatio;
  ctx.save();
  ctx.font = `${11 * pixel}px ${getComputedStyle(document.body).getPropertyValue("--sans")}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  const placed = [];
  for (const line of joined(references)) {
    const y = plot.valToPos(line.value, "y", true);
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.strokeStyle = ink("--ink");
    ctx.lineWidth = 1.2 * pixel;
    ctx.setLineDash([5 * pixel, 4 * pixel]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    const words = `${line.label} ${number(line.value)}`, wide = ctx.measureText(words).width + 8 * pixel;
    const spot = freeSpot(placed, y, wide, bbox, pixel);
    placed.push(spot);
    ctx.fillStyle = ink("--ground");
    ctx.globalAlpha = 0.85;
    ctx.fillRect(spot.left, spot.top, wide, 14 * pixel);
    ctx.globalAlpha = 1;
    ctx.fillStyle = ink("--ink");
    ctx.fillText(words, spot.left + 4 * pixel, spot.top + 11 * pixel);
  }
  ctx.restore();
}

// Lines of one value are one line with all their names.
function joined(references) {
  const found = new Map();
  for (const { label, value } of references) found.set(value, found.has(value) ? `${found.get(value)}; ${label}` : label);
  return [...found].map(([value, label]) => ({ value, label }));
}

// Above its line, else below it, else to the left of the words that are there already.
function freeSpot(placed, y, wide, bbox, pixel) {
  const height = 14 * pixel, above = y - 17 * pixel, right = bbox.left + bbox.width;
  const free = (top, left) => !placed.some((each) => Math.abs(each.top - top) < height && left < each.right && each.left < left + wide);
  const tops = above < bbox.top ? [y + 3 * pixel] : [above, y + 3 * pixel];
  const top = tops.find((each) => free(each, right - wide)) ?? tops[0];
  const others = placed.filter((each) => Math.abs(each.top - top) < height);
  const left = free(top, right - wide) ? right - wide : Math.min(...others.map((each) => each.left)) - wide - 4 * pixel;
  return { top, left, right: left + wide };
}
