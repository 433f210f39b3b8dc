// Figures that look at the same span of time.
class Group {
  constructor(name) {
    this.name = `membound-${name}`;
    this.charts = [];
  }

  add(chart) {
    this.charts.push(chart);
    this.start = Math.min(this.start ?? Infinity, chart.spec.start);
    this.end = Math.max(this.end ?? -Infinity, chart.spec.end);
    this.from = this.start;
    this.to = this.end;
  }

  get finest() {
    return Math.min(...this.charts.flatMap((chart) => chart.spec.series.map((series) => series.period)));
  }

  // Looks at `from` to `to`, within what there is, and no closer than a few samples.
  zoom(from, to) {
    const span = Math.min(Math.max(to - from, 5 * this.finest), this.end - this.start);
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - span / 2, this.start), this.end - span);
    this.to = this.from + span;
    return Promise.all(this.charts.map((chart) => chart.refresh()));
  }

  // Keeps the middle: 0.5 looks twice as close.
  closer(share) {
    const middle = (this.from + this.to) / 2, half = ((this.to - this.from) / 2) * share;
    return this.zoom(middle - half, middle + half);
  }

  // Moves by a share of what is seen.
  move(share) {
    const by = (this.to - this.from) * share;
    const kept = Math.min(Math.max(by, this.start - this.from), this.end - this.to);
    return this.zoom(this.from + kept, this.to + kept);
  }

  whole() {
    return this.zoom(this.start, this.end);
  }
}
