// Brings the page to life: charts first where the reader looks, the others when there is time.
const groups = new Map();

function groupOf(name) {
  if (!groups.has(name)) groups.set(name, new Group(name));
  return groups.get(name);
}

function chartOf(root) {
  const chart = new TimeChart(root, null);
  chart.group = groupOf(chart.spec.group);
  chart.group.add(chart);
  addControls(chart);
  return chart;
}

async function drawOnce(chart) {
  if (chart.begun) return chart.begun;
  chart.begun = chart.draw().catch((error) => {
    chart.place.textContent = `The curves could not be drawn (${error.message}). The table below has their means and extremes.`;
  });
  return chart.begun;
}

function watch(charts) {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) drawOnce(charts.find((chart) => chart.root === entry.target));
  }, { rootMargin: "600px" });
  charts.forEach((chart) => seen.observe(chart.root));
  const later = globalThis.requestIdleCallback ?? ((act) => setTimeout(act, 200));
  const next = async () => {
    const waiting = charts.find((chart) => !chart.begun);
    if (!waiting) return ready(charts, later);
    await drawOnce(waiting);
    later(next);
  };
  later(next);
}

// All is drawn. Finer samples are unpacked in idle moments, so that the first zoom need not wait for them.
function ready(charts, later) {
  document.documentElement.setAttribute("data-drawn", "all");
  const drawn = charts.filter((chart) => chart.plot);
  const next = (at) => drawn[at] && drawn[at].refine().then(() => later(() => next(at + 1)));
  later(() => next(0));
}

function listen(charts) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const root = button.closest("figure"), chart = charts.find((each) => each.root === root);
    if (button.dataset.do === "csv" && chart) saveSamples(chart);
    else if (button.dataset.do === "csv") save([JSON.parse(root.querySelector("script.csv").textContent)], fileName(root, "csv"), "text/csv");
    else if (button.dataset.do === "png") savePng(chart);
    else saveSvg(root);
  });
  let wait;
  addEventListener("resize", () => {
    clearTimeout(wait);
    wait = setTimeout(() => charts.forEach((chart) => chart.fit()), 120);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.plot?.redraw(false)));
  // A sheet of paper is white, and about so many pixels wide.
  const paper = (is, width) => {
    document.documentElement.classList.toggle("paper", is);
    charts.forEach((chart) => chart.fit(width));
  };
  addEventListener("beforeprint", () => paper(true, 680));
  addEventListener("afterprint", () => paper(false));
}

const charts = [...document.querySelectorAll("figure.time")].map(chartOf);
listen(charts);
watch(charts);
