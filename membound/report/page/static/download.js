// What a reader takes away: data as CSV, pictures as PNG or SVG.
function save(parts, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function fileName(root, ending) {
  const title = root.querySelector("h3").textContent.toLowerCase();
  return `${title.replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 80) || "figure"}.${ending}`;
}

// The samples in view, as finely as the page holds them, in SI units. Bins of several samples give lowest, mean and highest.
function* csvOf(chart) {
  const { spec, group } = chart;
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  yield `curve,origin,device,time (s),lowest (${spec.si}),mean (${spec.si}),highest (${spec.si})\n`;
  for (const curve of chart.finest) {
    const { pyramid, start } = curve, parts = pyramid.at(pyramid.base), span = curve.period * 2 ** pyramid.base;
    const digits = Math.max(Math.ceil(-Math.log10(curve.period)) + 1, 0);
    const value = (code) => (code === MISSING ? "" : String(Number((pyramid.offset + code * pyramid.step).toPrecision(9))));
    const first = Math.max(Math.ceil((group.from - start) / span - NEARLY), 0);
    const last = Math.min(Math.floor((group.to - start) / span + NEARLY), parts.low[0].length - 1);
    for (let device = 0; device < curve.devices.length; device++) {
      const front = `${quoted(curve.csv)},${curve.origin},${curve.devices[device]},`;
      let lines = "";
      for (let at = first; at <= last; at++) {
        lines += `${front}${(start + at * span).toFixed(digits)},${value(parts.low[device][at])},${value(parts.mean[device][at])},${value(parts.high[device][at])}\n`;
        if (lines.length > 1_000_000) {
          yield lines;
          lines = "";
        }
      }
      yield lines;
    }
  }
}

async function saveSamples(chart) {
  await chart.refine();
  save([...csvOf(chart)], fileName(chart.root, "csv"), "text/csv");
}

// The plot with its title, sentence and key, as it is seen.
function savePng(chart) {
  const plot = chart.plot.ctx.canvas, pixel = devicePixelRatio, pad = 20 * pixel;
  const canvas = document.createElement("canvas");
  const ctx = canvas.getContext("2d");
  const font = (size, weight = 400) => `${weight} ${size * pixel}px ${getComputedStyle(document.body).getPropertyValue("--sans")}`;
  ctx.font = font(12);
  const sentence = wrapped(ctx, chart.spec.says, plot.width);
  const shown = chart.lines.filter((line) => line.shown);
  const top = (44 + 17 * sentence.length + 18 * shown.length) * pixel;
  canvas.width = plot.width + 2 * pad;
  canvas.height = plot.height + top + 2 * pad;
  ctx.fillStyle = ink("--ground");
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.fillStyle = ink("--ink");
  ctx.font = font(15, 600);
  ctx.fillText(chart.root.querySelector("h3").textContent, pad, pad + 14 * pixel);
  ctx.font = font(12);
  sentence.forEach((line, at) => ctx.fillText(line, pad, pad + (36 + 17 * at) * pixel));
  shown.forEach((line, at) => keyLine(ctx, line, pad, pad + (40 + 17 * sentence.length + 18 * at) * pixel, pixel));
  ctx.drawImage(plot, pad, pad + top);
  canvas.toBlob((blob) => save([blob], fileName(chart.root, "png"), "image/png"));
}

function keyLine(ctx, line, x, y, pixel) {
  ctx.strokeStyle = ink(line.colour);
  ctx.lineWidth = 2.5 * pixel;
  ctx.setLineDash(line.dash.map((each) => each * pixel));
  ctx.beginPath();
  ctx.moveTo(x, y - 4 * pixel);
  ctx.lineTo(x + 26 * pixel, y - 4 * pixel);
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.fillText(`${line.name} (${line.curve.origin})`, x + 34 * pixel, y);
}

function wrapped(ctx, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines[lines.length - 1]} ${word}`.trim();
    if (ctx.measureText(longer).width > width && lines[lines.length - 1]) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return text ? lines : [];
}
