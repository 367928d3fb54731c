// Place names beside points and lines so that none covers another.

const pen = document.createElement("canvas").getContext("2d");
const FONT = "system-ui, sans-serif";
const widthOf = (text, size, weight = 400) => {
  pen.font = `${weight} ${size}px ${FONT}`;
  return Math.ceil(pen.measureText(text).width) + 2;
};
const shortTo = (text, width, size) => {
  let n = Math.min(text.length, 30);
  while (n > 4 && widthOf(short(text, n), size) > width) n -= 1;
  return short(text, n);
};
const overlaps = (a, b, gap = 1) =>
  a.x < b.x + b.width + gap && b.x < a.x + a.width + gap && a.y < b.y + b.height + gap && b.y < a.y + a.height + gap;

// The line from a point to the nearest edge of its label, and whether two such lines cross.
const leaderTo = (box, x, y) => [[x, y], [Math.max(box.x, Math.min(x, box.x + box.width)), box.y > y ? box.y : box.y + box.height]];
const cross = ([a, b], [c, d]) => {
  const side = (p, q, r) => Math.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]));
  return side(a, b, c) !== side(a, b, d) && side(c, d, a) !== side(c, d, b);
};

/* Give each of `items` ({x, y, text, size, weight}), the most important first, a box near its point within `bounds`.
   Boxes never overlap and avoid `points` ({x, y, r}) where they can. A label without room is left out (null);
   one that lies far from its point has a `leader`. */
const placeLabels = (items, points, bounds, isFreeAbove = true) => {
  const taken = [];
  const leaders = [];
  return items.map(({ x, y, text, size, weight }) => {
    const width = widthOf(text, size, weight);
    const height = Math.round(size * 1.25);
    let best = null;
    for (let ring = 0; ring < 9; ring += 1) {
      const [dx, dy] = [9 + 7 * ring, 5 + 9 * ring];
      // Nothing lies to the left of a front on the side of better scores, so that side is tried first.
      const [better, worse] = isFreeAbove ? [y - dy - height, y + dy] : [y + dy, y - dy - height];
      const [left, right] = [x - dx * 0.6 - width, x + dx * 0.6];
      const spots = [
        [x - dx - width, y - height / 2], [left, better], [x + dx, y - height / 2], [x - width / 2, better],
        [right, worse], [right, better], [x - width / 2, worse], [left, worse],
      ];
      spots.forEach(([left, top], i) => {
        const box = { x: left, y: top, width, height };
        const isOutside = left < bounds.x || top < bounds.y || left + width > bounds.x + bounds.width || top + height > bounds.y + bounds.height;
        if (isOutside || taken.some((other) => overlaps(box, other, 2))) return;
        const covered = points.filter((p) => overlaps(box, { x: p.x - p.r, y: p.y - p.r, width: 2 * p.r, height: 2 * p.r }, 0));
        const hidden = covered.reduce((sum, p) => sum + (p.r > 1 ? 14 : 3), 0);
        const leader = ring > 1 ? leaderTo(box, x, y) : null;
        const crossed = leader ? leaders.filter((other) => cross(leader, other)).length : 0;
        const cost = hidden + 25 * crossed + 10 * ring + i;
        if (best === null || cost < best.cost) best = { ...box, cost, leader };
      });
    }
    if (best) taken.push(best);
    if (best && best.leader) leaders.push(best.leader);
    return best;
  });
};

// Points along the steps of a front, for labels to avoid.
const alongSteps = (corners) =>
  corners.slice(1).flatMap(({ x, y }, i) => {
    const from = corners[i];
    const across = Array.from({ length: Math.floor(Math.abs(x - from.x) / 10) }, (_, k) => ({ x: from.x + 10 * (k + 1), y: from.y, r: 1 }));
    const up = Array.from({ length: Math.floor(Math.abs(y - from.y) / 10) }, (_, k) => ({ x, y: from.y + 10 * (k + 1) * Math.sign(y - from.y), r: 1 }));
    return [...across, ...up];
  });

/* Spread labels at the ends of lines: `ends` are heights in pixels; the result keeps their order, `gap` apart. */
const spread = (ends, gap, top, bottom) => {
  const order = ends.map((y, i) => ({ y, i })).sort((a, b) => a.y - b.y);
  const blocks = [];
  for (const { y, i } of order) {
    blocks.push({ middle: y, members: [i] });
    for (let last = blocks.length - 1; last > 0; last = blocks.length - 1) {
      const [a, b] = [blocks[last - 1], blocks[last]];
      if (b.middle - a.middle >= (gap * (a.members.length + b.members.length)) / 2) break;
      const n = a.members.length + b.members.length;
      blocks.splice(last - 1, 2, { middle: (a.middle * a.members.length + b.middle * b.members.length) / n, members: [...a.members, ...b.members] });
    }
  }
  const placed = [];
  let free = top;
  for (const { middle, members } of blocks) {
    let y = Math.max(free, middle - ((members.length - 1) * gap) / 2);
    for (const i of members) {
      placed[i] = y;
      y += gap;
    }
    free = y;
  }
  const over = Math.max(0, free - gap - bottom);
  if (over) {
    let limit = bottom;
    for (const { i } of order.reverse()) {
      placed[i] = Math.min(placed[i], limit);
      limit = placed[i] - gap;
    }
  }
  return placed;
};

// Round numbers from `low` to `high` on a linear axis.
const roundTicks = (low, high, most) => {
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
};
// The same with their texts, which have the same number of decimals.
const roundLabels = (low, high, most) => {
  const values = roundTicks(low, high, most);
  const digits = Math.min(4, Math.max(0, ...values.map((tick) => (String(tick).split(".")[1] || "").length)));
  return [values, values.map((tick) => tick.toFixed(digits))];
};
const logTicks = (low, high, most) => {
  const [from, to] = [Math.floor(low), Math.ceil(high)];
  const factors = high - low < 1.2 ? [1, 2, 5] : [1];
  const step = Math.max(1, Math.ceil((high - low) / most));
  const found = [];
  for (let power = from; power <= to; power += step) {
    for (const factor of factors) {
      const at = factor * 10 ** power;
      if (Math.log10(at) >= low && Math.log10(at) <= high) found.push(at);
    }
  }
  return found;
};
