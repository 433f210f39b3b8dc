// Packed samples: base64, deflate, byte planes, differences. The other side is packing.py.
const MISSING = -1;

function bytesOf(id) {
  const text = document.getElementById(id).textContent;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  return Uint8Array.from({ length: raw.length }, (_, at) => raw.charCodeAt(at));
}

async function inflate(id) {
  const stream = new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function textOf(id) {
  return new TextDecoder().decode(await inflate(id));
}

// Codes of a block, as [part][device], each an Int16Array of its bins. Parts: low, high, mean; of level 0 one that is all three.
async function unpack(block, devices) {
  const bytes = await inflate(block.id);
  const count = bytes.length / 2;
  const codes = new Int16Array(count);
  for (let at = 0; at < count; at++) codes[at] = bytes[at] | (bytes[count + at] << 8);
  const rows = count / block.bins;
  if (block.delta) {
    for (let row = 0; row < rows; row++) {
      const end = (row + 1) * block.bins;
      for (let at = row * block.bins + 1; at < end; at++) codes[at] += codes[at - 1];
    }
  }
  const row = (at) => codes.subarray(at * block.bins, (at + 1) * block.bins);
  const parts = Array.from({ length: rows / devices }, (_, part) => Array.from({ length: devices }, (_, device) => row(part * devices + device)));
  return { low: parts[0], high: parts[1] ?? parts[0], mean: parts[2] ?? parts[0] };
}
