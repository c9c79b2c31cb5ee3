// The box_text widget, read as wegen_model/chat/boxes.py reads it, so that the canvas can follow it before anything runs.
// Lines of four numbers, or JSON; fractions where all numbers are below 2, pixels otherwise. null: not readable (the server says why).

const SLACK = 0.01; // of the side, as in box_forms.py

export function readText(text, width, height, format = "xywh") {
  text = String(text ?? "").trimEnd();
  if (!text.trim()) return [];
  const rows = /^\s*[[{]/.test(text) && !text.split("\n").every((line) => /^\s*(\[[^\][{}]*\],?|[^\][{}]*)\s*$/.test(line))
    ? fromJson(text) : fromLines(text);
  if (!rows) return null;
  const four = rows.map((row) => row && sides(row, format));
  if (four.some((row) => row === undefined)) return null;
  const fractions = four.every((row) => !row || row.every((v) => Math.abs(v) < 2));
  const boxes = four.map((row) => row && scaled(row, fractions ? 1 : width, fractions ? 1 : height));
  return boxes.some((b) => b && (b.x < -1e-6 || b.y < -1e-6 || b.width <= 0 || b.height <= 0 || b.x + b.width > 1.0001
    || b.y + b.height > 1.0001)) ? null : boxes;
}

function fromLines(text) {
  const rows = [];
  for (const raw of text.split("\n")) {
    const line = raw.trim().replace(/^[[\](), ]+|[[\](), ]+$/g, "").trim();
    rows.push(["", "-", "none", "null"].includes(line) ? null : line.split(/[\s,;]+/).filter(Boolean).map(Number));
  }
  return rows;
}

function fromJson(text) {
  try {
    let value = JSON.parse(text);
    const flat = (v) => Array.isArray(v) && v.length > 0 && v.every((n) => typeof n === "number");
    if (flat(value) || !Array.isArray(value)) value = [value];
    const first = value.find((v) => v !== null);
    if (Array.isArray(first) && !flat(first)) value = first;
    return Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function sides(row, format) {
  const named = !Array.isArray(row);
  const v = named ? [row.x, row.y, row.width, row.height].map(Number) : row;
  if (v.length !== 4 || !v.every(Number.isFinite)) return undefined;
  return named || format === "xywh" ? v : [v[0], v[1], v[2] - v[0], v[3] - v[1]];
}

function scaled([x, y, w, h], width, height) {
  const slack = (side) => (side === 1 ? SLACK : Math.max(1, SLACK * side)); // detectors overshoot the border
  const right = x + w, bottom = y + h, left = x >= -slack(width) && x < 0 ? 0 : x, top = y >= -slack(height) && y < 0 ? 0 : y;
  const cutX = right > width && right <= width + slack(width), cutY = bottom > height && bottom <= height + slack(height);
  const wide = cutX ? width - left : left === x ? w : right - left, high = cutY ? height - top : top === y ? h : bottom - top;
  return { x: left / width, y: top / height, width: wide / width, height: high / height };
}
