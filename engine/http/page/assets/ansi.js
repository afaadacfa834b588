// Colours of terminals as classes. What else a terminal would obey (moving about, titles, links) is left out.

const ESCAPE = /\x1b(?:\[([0-9;:]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])/g;
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g;
const LONGEST = 8000;

export function plain() {
  return { bold: false, dim: false, italic: false, under: false, swap: false, front: null, back: null };
}

// Adds one line to an element; returns the style with which the next one goes on.
export function write(line, text, style) {
  let at = 0;
  const cut = text.length > LONGEST;
  const shown = cut ? text.slice(0, LONGEST) : text;
  ESCAPE.lastIndex = 0;
  for (let found = ESCAPE.exec(shown); found; found = ESCAPE.exec(shown)) {
    add(line, shown.slice(at, found.index), style);
    at = ESCAPE.lastIndex;
    if (found[2] === "m") style = changed(style, found[1]);
  }
  add(line, shown.slice(at), style);
  if (cut) add(line, ` … ${text.length - LONGEST} more characters: see the download`, { ...plain(), dim: true });
  return style;
}

function add(line, text, style) {
  if (!text) return;
  const safe = text.replace(HIDDEN, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`);
  const names = classes(style);
  if (!names) {
    line.append(safe);
    return;
  }
  const span = document.createElement("span");
  span.className = names;
  span.textContent = safe;
  line.append(span);
}

function classes({ bold, dim, italic, under, swap, front, back }) {
  const names = [];
  if (bold) names.push("bold");
  if (dim) names.push("dim");
  if (italic) names.push("italic");
  if (under) names.push("under");
  if (swap) names.push("swap");
  if (front !== null) names.push(`f${front}`);
  if (back !== null) names.push(`b${back}`);
  return names.join(" ");
}

function changed(style, text) {
  const next = { ...style };
  const codes = (text || "0").split(/[;:]/).map(Number);
  while (codes.length) {
    const code = codes.shift();
    if (code === 0) Object.assign(next, plain());
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.under = true;
    else if (code === 7) next.swap = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.under = false;
    else if (code === 27) next.swap = false;
    else if (code >= 30 && code <= 37) next.front = code - 30;
    else if (code >= 90 && code <= 97) next.front = code - 82;
    else if (code === 39) next.front = null;
    else if (code >= 40 && code <= 47) next.back = code - 40;
    else if (code >= 100 && code <= 107) next.back = code - 92;
    else if (code === 49) next.back = null;
    else if (code === 38 || code === 48) {
      const colour = extended(codes);
      if (code === 38) next.front = colour;
      else next.back = colour;
    }
  }
  return next;
}

// Of 256 colours, and of all that there are, the nearest of the sixteen: those can be read on our ground, light or dark.
function extended(codes) {
  const kind = codes.shift();
  if (kind === 5) {
    const number = codes.shift() ?? 0;
    if (number < 16) return number;
    if (number >= 232) return number < 244 ? 8 : 7;
    const cube = number - 16;
    return nearest(Math.floor(cube / 36) * 51, (Math.floor(cube / 6) % 6) * 51, (cube % 6) * 51);
  }
  if (kind === 2) return nearest(codes.shift() ?? 0, codes.shift() ?? 0, codes.shift() ?? 0);
  return null;
}

function nearest(red, green, blue) {
  const top = Math.max(red, green, blue);
  if (top < 64) return 0;
  if (top - Math.min(red, green, blue) < 40) return top > 200 ? 15 : 8;
  const bits = (red > top * 0.6 ? 1 : 0) + (green > top * 0.6 ? 2 : 0) + (blue > top * 0.6 ? 4 : 0);
  return bits + (top > 200 ? 8 : 0);
}
