// The samples of one curve at every coarseness from `base` up: bins of 2 ** level samples, each with its lowest, highest and mean code.
class Pyramid {
  constructor(block, parts) {
    this.base = block.level;
    this.offset = block.offset;
    this.step = block.step;
    this.levels = [parts];
  }

  // The view of `level`, made from the next finer one when it is first wanted.
  at(level) {
    const wanted = Math.max(level - this.base, 0);
    while (this.levels.length <= wanted) this.levels.push(coarser(this.levels[this.levels.length - 1]));
    return this.levels[wanted];
  }

  get top() {
    return this.base + Math.max(Math.ceil(Math.log2(this.levels[0].low[0].length)), 0);
  }
}

// Loops of their own for each part: these run over millions of codes.
function coarser(parts) {
  return { low: parts.low.map(lowestOfPairs), high: parts.high.map(highestOfPairs), mean: parts.mean.map(meanOfPairs) };
}

function lowestOfPairs(row) {
  const out = new Int16Array((row.length + 1) >> 1);
  for (let at = 0; at < out.length; at++) {
    const first = row[2 * at], second = 2 * at + 1 < row.length ? row[2 * at + 1] : MISSING;
    out[at] = first === MISSING ? second : second === MISSING || first < second ? first : second;
  }
  return out;
}

// A missing code is below all others.
function highestOfPairs(row) {
  const out = new Int16Array((row.length + 1) >> 1);
  for (let at = 0; at < out.length; at++) {
    const first = row[2 * at], second = 2 * at + 1 < row.length ? row[2 * at + 1] : MISSING;
    out[at] = first > second ? first : second;
  }
  return out;
}

function meanOfPairs(row) {
  const out = new Float32Array((row.length + 1) >> 1);
  for (let at = 0; at < out.length; at++) {
    const first = row[2 * at], second = 2 * at + 1 < row.length ? row[2 * at + 1] : MISSING;
    out[at] = first === MISSING ? second : second === MISSING ? first : (first + second) / 2;
  }
  return out;
}
