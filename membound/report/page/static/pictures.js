// A drawing as a file of its own: the page's colours and letters go with it.
function saveSvg(root) {
  const drawn = [...root.querySelectorAll(".picture svg")].find((svg) => svg.getBoundingClientRect().width > 0) ?? root.querySelector(".picture svg");
  const copy = drawn.cloneNode(true);
  const text = new XMLSerializer().serializeToString(drawn);
  const used = [...new Set(text.match(/--[a-z0-9-]+/g) ?? [])];
  const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
  style.textContent = `svg{${used.map((name) => `${name}:${ink(name)}`).join(";")};color:${ink("--ink")};background:${ink("--ground")}}text{font-family:${ink("--sans")};fill:currentColor}`;
  copy.prepend(style);
  const [, , width, height] = copy.getAttribute("viewBox").split(/\s+/);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  save([new XMLSerializer().serializeToString(copy)], fileName(root, "svg"), "image/svg+xml");
}
