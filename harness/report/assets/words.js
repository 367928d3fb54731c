// Words and numbers: the same as harness/support/text.py writes.

const byId = (id) => document.getElementById(id);
const make = (tag, said = "", of = "") => {
  const element = document.createElement(tag);
  element.textContent = said;
  if (of) element.className = of;
  return element;
};

// Plotly reads a little HTML in its labels; a method's name is a name.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = (text, width = 30) => (text.length <= width ? text : text.slice(0, width - 1) + "…");

// Halves are rounded to the even neighbour, as Python does.
const fixed = (x, digits) => {
  const exact = Math.abs(x).toFixed(60);
  const end = exact.indexOf(".") + 1 + digits;
  if (!/^\.?50*$/.test(digits ? exact.slice(end) : exact.slice(end - 1))) return x.toFixed(digits);
  const kept = exact.slice(0, digits ? end : end - 1);
  const isEven = "02468".includes(kept[kept.length - 1]);
  return isEven ? (x < 0 ? "-" : "") + kept : (x + Math.sign(x) * 10 ** -(digits + 2)).toFixed(digits);
};
const grouped = (x) => Number(fixed(x, 0)).toLocaleString("en");
const scoreOf = (x) => {
  if (x === null) return "–";
  const size = Math.abs(x);
  if (size >= 1e-6 && size < 5e-4) return fixed(x, 1 - Math.floor(Math.log10(size)));
  return fixed(x, size <= 1 ? 3 : size < 9.995 ? 2 : size < 999.95 ? 1 : 0);
};
const scoredBy = (of) => of.metric + (of.higher ? "" : " (lower is better)");
const interval = (row) => (row.low === null ? "" : `${scoreOf(row.low)}–${scoreOf(row.high)}`);
const counted = (x) => {
  if (x === null) return "–";
  if (x < 10000) return grouped(x);
  if (x < 999950) return fixed(x / 1e3, 1) + "k";
  return x < 999.95e6 ? fixed(x / 1e6, 1) + "M" : fixed(x / 1e9, 2) + "B";
};
const bytes = (x) => {
  if (x === null) return "–";
  if (x < 1e6) return fixed(x / 1e3, 0) + " kB";
  return x < 999.5e6 ? fixed(x / 1e6, 0) + " MB" : fixed(x / 1e9, 1) + " GB";
};
const seconds = (x) => {
  if (x === null) return "–";
  if (x < 0.0995) return x >= 0.001 ? fixed(x * 1000, 0) + " ms" : x === 0 ? "0 s" : "<1 ms";
  if (x < 119.5) return fixed(x, x < 9.95 ? 1 : 0) + " s";
  return x < 7200 ? fixed(x / 60, 1) + " min" : fixed(x / 3600, 1) + " h";
};
const percent = (x) => fixed(100 * x, x >= 0.0995 ? 0 : 1) + " %";
// A number and its unit stay on one line.
const unbroken = (text) => text.replace(/(\d) (s|ms|min|h|kB|MB|GB|%|labels?)(?![a-z])/g, "$1\u00a0$2");
const several = (n, noun) => `${grouped(n)} ${noun}${n === 1 ? "" : "s"}`;

const changed = (value) => (value === null ? "–" : String(Number(value.toPrecision(2))));

const costs = [
  { key: "train", name: "training time", axis: "training: seconds of encoding, tuning and fitting", shown: seconds, least: 0.001 },
  { key: "memory", name: "memory", axis: "peak memory above the baseline", shown: bytes, least: 1000 },
  { key: "trainable", name: "trainable parameters", axis: "trainable parameters", shown: counted, least: 1 },
  { key: "stored", name: "bytes to store", axis: "bytes to store", shown: bytes, least: 100 },
  { key: "predict", name: "time of 1,000 predictions", axis: "seconds to predict 1,000 texts", shown: seconds, least: 0.001 },
  { key: "forgetting", name: "forgetting", axis: "forgetting on outside text (nats per token, or 1 - CKA)", shown: changed, least: 0.001 },
];

// ---- tooltips: for a mouse and for a keyboard

const tip = byId("tip");
const showTip = (target) => {
  tip.textContent = target.dataset.tip;
  tip.hidden = false;
  const [at, own] = [target.getBoundingClientRect(), tip.getBoundingClientRect()];
  tip.style.left = Math.max(4, Math.min(at.left, window.innerWidth - own.width - 8)) + "px";
  tip.style.top = (at.bottom + own.height + 10 < window.innerHeight ? at.bottom + 6 : Math.max(4, at.top - own.height - 6)) + "px";
  target.setAttribute("aria-describedby", "tip");
};
const hideTip = () => (tip.hidden = true);
for (const event of ["mouseover", "focusin"]) {
  document.addEventListener(event, ({ target }) => {
    const found = target.closest && target.closest("[data-tip]");
    found ? showTip(found) : hideTip();
  });
}
document.addEventListener("keydown", ({ key }) => key === "Escape" && hideTip());
document.addEventListener("scroll", hideTip, true);

// The settings of a method stand in a tooltip beside its name; § marks default settings that are behind others.
const named = (row, tag = "span", of = "") => {
  const element = make(tag, short(row.name || row.line), of);
  const said = [row.name.length > 30 ? row.name : "", row.settings || "", row.behind || ""].filter(Boolean).join(": ");
  if (row.behind) element.append(" §");
  if (said) {
    element.dataset.tip = short(said, 600);
    element.tabIndex = 0;
    element.classList.add("has-tip");
  }
  return element;
};
