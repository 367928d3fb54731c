// The answer: harness/report/answer.py explains the rule and writes the same words; tests compare the two.

const LEVEL = 0.05;
const MUCH_CHEAPER = 0.75;
const CHEAP = 0.1;
const NEARLY_FREE = 0.03;
const WORTH_SAVING_SECONDS = 5;
const MOST_NAMED = 3;
const limitKeys = ["train", "memory", "trainable"];
const units = { train: " of training", memory: " of memory", trainable: " trainable parameters" };
const costOf = (key) => costs.find((cost) => cost.key === key);

const fitsIn = (row, limits) => limitKeys.every((key) => limits[key] == null || (row[key] !== null && row[key] <= limits[key]));
// Position of the largest size at which more than half of the methods compete that were given labels.
const mainSize = (one) => {
  const given = one.sizes.map((size) => rowsAt(one, size).filter((row) => row.n_train > 0).length);
  const most = Math.max(0, ...given);
  return Math.max(0, given.findLastIndex((n) => 2 * n > most || !most));
};
const pValue = (size, place, later) => (size.p[place] ? size.p[place][later - place - 1] : null);

// p-values corrected for their number (Holm, 1979).
const holm = (values) => {
  const known = values.map((p, i) => [p, i]).filter(([p]) => p !== null);
  known.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const adjusted = values.map(() => null);
  let highest = 0;
  known.forEach(([p, i], rank) => {
    highest = Math.max(highest, Math.min(1, (known.length - rank) * p));
    adjusted[i] = highest;
  });
  return adjusted;
};

const beats = (size, place, floor) => {
  if (place >= floor) return false;
  const p = pValue(size, place, floor);
  return p === null ? null : p >= 0 && p < LEVEL;
};

const choose = (size, own, limits) => {
  const fitting = own.map((_, place) => place).filter((place) => fitsIn(own[place], limits));
  const found = { best: null, fitting, tied: [], untested: [], saver: null, cheap: null, floor: null, beatsFloor: null };
  if (!fitting.length) return found;
  const [best, ...others] = fitting;
  found.best = best;
  const ps = others.map((other) => pValue(size, best, other));
  const corrected = holm(ps.map((p) => (p === null ? null : Math.abs(p))));
  others.forEach((other, i) => {
    if (ps[i] === null) found.untested.push(other);
    else if (corrected[i] >= LEVEL || ps[i] < 0) found.tied.push(other);
  });
  const time = own.map((row) => row.train);
  const floor = own.findIndex((row) => row.floor);
  for (const place of found.tied) {
    if (time[place] !== null && place !== floor && (found.saver === null || time[place] < time[found.saver])) found.saver = place;
  }
  if (found.saver !== null && !(time[best] && time[found.saver] <= MUCH_CHEAPER * time[best])) found.saver = null;
  if (floor >= 0) found.floor = floor;
  if (time[best] !== null && time[best] >= WORTH_SAVING_SECONDS) {
    const cheap = others.find(
      (place) => time[place] !== null && time[place] <= CHEAP * time[best] && place !== floor && (floor < 0 || beats(size, place, floor))
    );
    if (cheap !== undefined && !found.tied.includes(cheap)) found.cheap = cheap;
  }
  if (floor >= 0) found.beatsFloor = !found.tied.includes(floor) && beats(size, best, floor);
  return found;
};

// ---- in words: strings, and rows for the methods they name

const atLabels = (own) => {
  const row = own.find((one) => one.n_train > 0);
  if (!row) return "Without labels";
  const [number, perClass] = [row.label.split(" ")[0], row.label.split(" ").slice(1).join(" ")];
  return `With ${number} label${number === "1" ? "" : "s"}${perClass ? " " + perClass : ""}`;
};
const within = (limits) => {
  const said = limitKeys.filter((key) => limits[key] != null).map((key) => costOf(key).shown(limits[key]) + units[key]);
  if (!said.length) return "";
  return " and at most " + [said.slice(0, -1).join(", "), said[said.length - 1]].filter(Boolean).join(" and ");
};
const share = (saver, best) => {
  const part = saver.train / best.train;
  const names = [[0.585, "two thirds"], [0.415, "half"], [0.29, "a third"], [0.225, "a quarter"], [0.15, "a fifth"], [0.07, "a tenth"]];
  const found = names.find(([least]) => part >= least);
  return found ? "about " + found[1] : part >= 0.0005 ? percent(part) : "less than 0.1 %";
};

const ties = (found, own) => {
  const tied = found.tied.filter((place) => place !== found.floor); // the floor has a sentence of its own
  const [best, nTied, said] = [own[found.best], tied.length, []];
  if (found.saver !== null) {
    const saver = own[found.saver];
    said.push(" ", saver, ` is not shown to be worse (${scoreOf(saver.score)}), at ${share(saver, best)} of the training time.`);
    if (nTied > 1) said.push(` Nor ${nTied === 2 ? "is" : "are"} ${several(nTied - 1, "other")}.`);
  } else if (nTied) {
    said.push(" Not shown to be worse: ");
    const shown = tied.slice(0, MOST_NAMED);
    const more = nTied - shown.length;
    shown.forEach((place, i) => said.push(i === 0 ? "" : i === shown.length - 1 && !more ? " and " : ", ", own[place]));
    said.push(more ? ` and ${more} more.` : ".");
  } else if (own.length === 1) said.push(" No other method was measured at this size.");
  else if (found.fitting.length === 1) said.push(" No other method fits.");
  else if (!found.untested.length && !found.tied.length && !(found.fitting.length === 2 && found.cheap !== null)) {
    const [n, some] = [found.fitting.length - 1, found.fitting.length < own.length];
    said.push(` ${n === 1 ? `The other method${some ? " that fits" : ""} is` : `All ${n} others${some ? " that fit" : ""} are`} worse.`);
  }
  if (found.untested.length) {
    const withLabels = [found.best, ...found.untested].map((place) => own[place]).filter((row) => row.n_train > 0);
    const few = withLabels.length > 0 && withLabels.every((row) => row.n_seeds === 2);
    said.push(few ? " Two seeds are too few for a test." : ` No test against ${several(found.untested.length, "method")} was possible.`);
  }
  return said;
};

const nothingFits = (own, limits) => {
  const said = [`${atLabels(own)}${within(limits)}, nothing that was measured fits.`];
  const alone = limitKeys.filter((key) => limits[key] != null && !own.some((row) => fitsIn(row, { [key]: limits[key] })));
  for (const key of alone) {
    const known = own.filter((row) => row[key] !== null);
    if (!known.length) {
      said.push(` No method has a known figure for ${costOf(key).name}.`);
      continue;
    }
    const least = known.reduce((a, b) => (b[key] < a[key] ? b : a));
    said.push(` The least ${costOf(key).name}: `, least, ` with ${costOf(key).shown(least[key])} (${scoreOf(least.score)}).`);
  }
  if (!alone.length) said.push(" Each limit alone would allow some methods.");
  return said;
};

const fewerLabels = (panel, at, limits, best) => {
  const sign = panel.higher ? 1 : -1;
  let ahead = best;
  for (const size of limitKeys.some((key) => limits[key] != null) ? panel.sizes.slice(0, at) : []) {
    const row = rowsAt(panel, size).find((one) => fitsIn(one, limits));
    if (row && sign * row.score > sign * ahead.score) ahead = row;
  }
  if (ahead === best) return [];
  return [" ", ahead, ` scores ${panel.higher ? "higher" : "better"} on only ${ahead.label} of the labels: ${scoreOf(ahead.score)}.`];
};

const inWords = (panel, at, limits) => {
  const size = panel.sizes[at];
  const own = rowsAt(panel, size);
  const found = choose(size, own, limits);
  if (found.best === null) return nothingFits(own, limits);
  const best = own[found.best];
  const said = [`${atLabels(own)}${within(limits)}, use `, best];
  const cost = best.train === null ? "" : `, ${seconds(best.train)} of training`;
  said.push(`: ${panel.metric} ${scoreOf(best.score)}${best.low === null ? "" : ` (${interval(best)})`}${cost}.`, ...ties(found, own));
  if (found.cheap !== null) {
    const row = own[found.cheap];
    const part = row.train / best.train;
    const isFree = part <= NEARLY_FREE;
    said.push(" ", row, ` is ${isFree ? "nearly free" : "cheap"}: ${scoreOf(row.score)} in ${seconds(row.train)}${isFree ? "" : `, ${percent(part)} of the time`}.`);
  }
  if (found.floor === found.best && own.length > 1) said.push(" It gives all texts the same answer: nothing that fits is better.");
  else if (found.beatsFloor === false) {
    const floor = own[found.floor];
    said.push(" It is not shown to beat ", floor, ` (${scoreOf(floor.score)}).`);
  }
  return [...said, ...fewerLabels(panel, at, limits, best)];
};

const footnote = (panel, at, limits) => {
  const size = panel.sizes[at];
  const own = rowsAt(panel, size);
  const found = choose(size, own, limits);
  const [nFit, n] = [found.fitting.length, own.length];
  const labelled = own.filter((row) => row.n_train > 0);
  const seeds = (labelled.length ? labelled : own).map((row) => row.n_seeds);
  const [least, most] = [Math.min(...seeds), Math.max(...seeds)];
  let said = `Best mean of ${nFit === n ? "" : `${nFit} of `}${several(n, "method")}${nFit < n ? " within the budget" : ""}, `;
  said += least === most ? several(least, "seed") : `${least} to ${most} seeds`;
  if (nFit > 1 + found.untested.length) said += "; worse: shown by a test at the 5 % level (Holm)";
  if (least === 1 && nFit > 1) {
    const width = size.w[found.best];
    said += `. ${most === 1 ? "One seed" : "Some have one seed"}: ${width == null ? "small differences" : `differences below ${scoreOf(width)}`} are noise`;
  }
  if (!panel.higher) said += `. Lower ${panel.metric} is better`;
  return said + (panel.chosen ? ". Defaults were tuned on this task." : ".");
};
