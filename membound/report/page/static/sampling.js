// From curves to the bins of a picture: a bin holds the lowest, highest and mean of every sample that begins in it. No sample is skipped.
const NEARLY = 1e-6;
// Samples that are gathered in a few milliseconds.
const DIRECT = 300_000;

// The width of a bin: the shortest period of the curves, doubled until a picture of `pixels` has about one bin a pixel.
function binWidth(period, from, to, pixels) {
  let width = period;
  while ((to - from) / width > pixels * 1.25) width *= 2;
  return width;
}

// The curve over `count` bins of `width` seconds from time `from`, for some of its devices together. In shown units; null: nothing there.
function sample(curve, devices, from, width, count, factor) {
  const pyramid = curve.pyramid;
  const fitting = Math.min(Math.max(Math.floor(Math.log2(width / curve.period) + NEARLY), pyramid.base), pyramid.top);
  // A short span is read from the finest level as it is: coarser ones of the whole run would take longer to make.
  const level = (count * width) / curve.period / 2 ** pyramid.base > DIRECT / devices.length ? fitting : pyramid.base;
  const parts = pyramid.at(level);
  const span = curve.period * 2 ** level;
  const out = { low: new Array(count).fill(null), high: new Array(count).fill(null), mean: new Array(count).fill(null) };
  for (let bin = 0; bin < count; bin++) {
    const start = (from + bin * width - curve.start) / span;
    const held = span > width * (1 + NEARLY);
    const first = held ? Math.floor(start + NEARLY) : Math.ceil(start - NEARLY);
    const last = held ? first : Math.ceil(start + width / span - NEARLY) - 1;
    gather(parts, devices, Math.max(first, 0), Math.min(last, parts.low[0].length - 1), out, bin);
  }
  const shown = (code) => (code === null ? null : (pyramid.offset + code * pyramid.step) * factor);
  return { low: out.low.map(shown), high: out.high.map(shown), mean: out.mean.map(shown) };
}

function gather(parts, devices, first, last, out, bin) {
  let low = Infinity, high = -Infinity, sum = 0, count = 0;
  for (const device of devices) {
    for (let at = first; at <= last; at++) {
      if (parts.low[device][at] === MISSING) continue;
      low = Math.min(low, parts.low[device][at]);
      high = Math.max(high, parts.high[device][at]);
      sum += parts.mean[device][at];
      count += 1;
    }
  }
  if (!count) return;
  out.low[bin] = low;
  out.high[bin] = high;
  out.mean[bin] = sum / count;
}
