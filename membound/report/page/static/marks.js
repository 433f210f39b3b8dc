// Steps and phases over the plot: lines where steps begin, a strip of phases along the top.
const STEP = 0, MARK = 1, PHASE = 2;
const STRIP = 13;
const marksRead = new Map();

function readMarks(id) {
  if (!marksRead.has(id)) marksRead.set(id, textOf(id).then(marksOf));
  return marksRead.get(id);
}

function marksOf(text) {
  const packed = JSON.parse(text);
  let start = 0;
  return packed.start.map((difference, at) => {
    start += difference;
    const end = packed.length[at] < 0 ? Infinity : (start + packed.length[at]) / 1000;
    return { start: start / 1000, end, kind: packed.kind[at], name: packed.names[packed.name[at]], step: packed.step[at] };
  });
}

function drawMarks(plot, marks) {
  const { ctx, bbox } = plot, { min, max } = plot.scales.x;
  const place = (time) => plot.valToPos(Math.min(Math.max(time, min), max), "x", true);
  const seen = marks.filter((mark) => mark.end > min && mark.start < max);
  const pixel = devicePixelRatio;
  ctx.save();
  ctx.font = `${10 * pixel}px ${getComputedStyle(document.body).getPropertyValue("--sans")}`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  drawSteps(ctx, seen.filter((mark) => mark.kind === STEP || mark.kind === MARK), place, bbox, pixel);
  drawPhases(ctx, seen.filter((mark) => mark.kind === PHASE), place, bbox, pixel);
  ctx.restore();
}

function drawSteps(ctx, steps, place, bbox, pixel) {
  // Closer than this, lines would be a grey wall.
  if (!steps.length || bbox.width / steps.length < 16 * pixel) return;
  for (const mark of steps) {
    const x = Math.round(place(mark.start));
    if (x <= bbox.left) continue;
    ctx.fillStyle = ink(mark.kind === MARK ? "--ink" : "--quiet");
    ctx.globalAlpha = mark.kind === MARK ? 0.9 : 0.3;
    ctx.fillRect(x, bbox.top, pixel, bbox.height);
  }
  ctx.globalAlpha = 1;
  for (const mark of steps) {
    const words = mark.kind === MARK || mark.step < 0 ? mark.name : `step ${mark.step + 1}`;
    const left = place(mark.start), room = place(mark.end) - left;
    if (ctx.measureText(words).width + 8 * pixel > room) continue;
    ctx.fillStyle = ink("--quiet");
    ctx.fillText(words, left + 4 * pixel, bbox.top + bbox.height - 9 * pixel);
  }
}

function drawPhases(ctx, phases, place, bbox, pixel) {
  if (!phases.length || bbox.width / phases.length < 5 * pixel) return;
  const top = bbox.top - (STRIP + 1) * pixel;
  phases.forEach((mark, at) => {
    const left = place(mark.start), width = place(mark.end) - left;
    ctx.fillStyle = ink(at % 2 ? "--faint" : "--ground");
    ctx.fillRect(left, top, width, STRIP * pixel);
    ctx.strokeStyle = ink("--faint");
    ctx.strokeRect(left, top, width, STRIP * pixel);
    const words = [mark.name, mark.name.slice(0, 3), mark.name.slice(0, 1)].find((each) => ctx.measureText(each).width + 4 * pixel <= width);
    if (!words) return;
    ctx.fillStyle = ink("--quiet");
    ctx.fillText(words, left + (width - ctx.measureText(words).width) / 2, top + (STRIP * pixel) / 2);
  });
}
