// An episode, step by step, beside the circuit that acted in it.
//
// All that changes is one row of numbers a step, in `signals`: features, state, probabilities,
// previous state, gates. The first `nodes` of them are the activities of the nodes.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const { names, columns, places, steps, fps } = data;
const nodes = names.length;
const actions = columns.at(-1).nodes;

// ---- reading ----------------------------------------------------------------------------------

async function inflate(base64, Type) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Type(await new Response(stream).arrayBuffer());
}

const arrays = {};
const types = { float32: Float32Array, float64: Float64Array, int32: Int32Array, uint8: Uint8Array };
await Promise.all(
  Object.entries(data.arrays).map(async ([name, { type, deflated }]) => {
    arrays[name] = await inflate(deflated, types[type]);
  }),
);
const { signals, values, returns, rewards, taken, palette, nodeScale, synapseScale, mean, drawn } = arrays;
const width = signals.length / steps;
const row = (t) => signals.subarray(t * width, (t + 1) * width);

// The current of a group's synapse i at a step, as ncp_agents/explain/circuit_graph.py defines it.
const currents = {
  gated: ({ source, gate, weight, change }, i) => (now) =>
    now[source[i]] * (weight[i] + now[gate[i]] * change[i]),
  conductance: ({ source, target, weight, slope, offset, pull }, i) => (now) =>
    (pull[i] - weight[i] * now[target[i]]) / (1 + Math.exp(offset[i] - slope[i] * now[source[i]])),
};
// Synapse s of all groups together: between which nodes, and its current.
const synapses = data.synapses.flatMap(({ kind, fields }, index) => {
  const group = Object.fromEntries(fields.map((field) => [field, arrays[`${field} ${index}`]]));
  return Array.from(group.source, (source, i) => ({
    from: source < nodes ? source : source - nodes + data.inputs,
    to: group.target[i],
    current: currents[kind](group, i),
  }));
});

// Frames are compressed in segments: indices of a palette, each frame XOR the previous one.
const segments = new Map();
function segment(index) {
  if (index < data.frames.length && !segments.has(index)) {
    if (segments.size > 5) segments.delete(segments.keys().next().value);
    segments.set(index, decompress(index));
  }
  return segments.get(index);
}
async function decompress(index) {
  const numbers = await inflate(data.frames[index], Uint8Array);
  const size = data.width * data.height;
  for (let i = size; i < numbers.length; i++) numbers[i] ^= numbers[i - size];
  return numbers;
}

// ---- what is shown now ------------------------------------------------------------------------

let now = 0;
let followed = null;
let near = null;

const screen = $("screen").getContext("2d");
[$("screen").width, $("screen").height] = [data.width, data.height];
const image = screen.createImageData(data.width, data.height);
const colors = new Uint32Array(
  new Uint8Array(
    Array.from({ length: palette.length / 3 }, (_, i) => [...palette.slice(3 * i, 3 * i + 3), 255]).flat(),
  ).buffer,
);

async function drawScreen() {
  const t = now;
  const numbers = await segment(Math.floor(t / data.segment));
  segment(Math.floor(t / data.segment) + 1);
  if (t !== now) return;
  const size = data.width * data.height;
  const start = (t % data.segment) * size;
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < size; i++) pixels[i] = colors[numbers[start + i]];
  screen.putImageData(image, 0, 0);
  $("screen").dataset.step = t + 1;
}

function show(t) {
  now = Math.min(Math.max(t, 0), steps - 1);
  const seconds = Math.floor(now / fps);
  $("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  $("step").textContent = (now + 1).toLocaleString("en");
  $("value").textContent = number(values[now], 2);
  $("return").textContent = number(returns[now], Number.isInteger(returns[now]) ? 0 : 1);
  $("scrub").value = now;
  $("scrub").setAttribute("aria-valuetext", `step ${now + 1} of ${steps}`);
  drawScreen();
  drawNodes();
  drawLines();
  drawPlot();
  drawTip();
  drawFollowed();
}

const number = (x, digits) => (Number(x.toFixed(digits)) || 0).toFixed(digits).replace("-", "−");

// ---- circuit ----------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
function element(parent, tag, attributes = {}) {
  const made = parent.appendChild(document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A node is a cell of a heat map in the inputs and in blocks of neurons, a disc elsewhere.
const marks = names.map((name, node) => {
  const column = columns.find((one) => one.nodes.includes(node));
  const mark = element($("nodes"), column.cells ? "rect" : "circle", {
    role: "button", tabindex: -1, "aria-label": name, "data-node": node,
  });
  return { mark, column, x: 0, y: 0, half: 0 };
});
const bars = actions.map((node) => {
  const group = element($("nodes"), "g");
  const part = (tag, name) => element(group, tag, { class: name });
  const made = { group, node, room: part("rect", "room"), bar: part("rect", "bar"),
    name: part("text", "action"), chance: part("text", "chance") };
  made.name.textContent = names[node];
  return made;
});
for (const { kind, nodes: own } of columns) {
  const label = $("columns").appendChild(document.createElement("span"));
  label.textContent = kind === "action" ? "\naction" : `${own.length}\n${kind}`;
}

let palettes = {};
function readColors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const ramp = (end) => {
    const [a, b] = [channels(color("rest")), channels(color(end))];
    return Array.from({ length: 33 }, (_, i) =>
      `rgb(${a.map((from, c) => Math.round(from + (b[c] - from) * (i / 32) ** 0.8)).join(" ")})`);
  };
  palettes = { raises: color("raises"), lowers: color("lowers"), ink: color("ink"),
    grey: color("grey"), faint: color("faint"), up: ramp("raises"), down: ramp("lowers") };
}

function place() {
  const { clientWidth, clientHeight } = $("stage");
  const bar = Math.min(190, Math.max(104, 0.28 * clientWidth));
  const left = 12;
  const right = clientWidth - bar - 14;
  for (const column of columns) {
    const own = column.nodes.map((node) => marks[node]);
    column.nodes.forEach((node, i) => {
      own[i].x = left + places[node][0] * (right - left);
      own[i].y = places[node][1] * clientHeight;
    });
    const pitch = clientHeight / new Set(own.map(({ y }) => y.toFixed(2))).size;
    const across = [...new Set(own.map(({ x }) => x))].sort((a, b) => a - b);
    const wide = across.length > 1 ? across[1] - across[0] : 20;
    for (const one of own) {
      const high = column.cells ? Math.max(pitch / 2 - 0.5, 0.5) : Math.min(0.42 * pitch, 8);
      one.half = column.cells ? Math.max(Math.min(wide, 20) / 2 - 0.5, 0.5) : high;
      const shape = column.cells
        ? { x: one.x - one.half, y: one.y - high, width: 2 * one.half, height: 2 * high }
        : { cx: one.x, cy: one.y, r: one.half };
      for (const [name, value] of Object.entries(shape)) one.mark.setAttribute(name, value);
    }
  }
  const high = Math.min(30, (0.9 * clientHeight) / bars.length);
  for (const one of bars) {
    const { y } = marks[one.node];
    const x = right + 14;
    const box = { x, y: y - high / 2, width: bar, height: high, rx: 4 };
    for (const [name, value] of Object.entries(box)) {
      one.room.setAttribute(name, value);
      one.bar.setAttribute(name, value);
    }
    one.width = bar;
    one.name.setAttribute("x", x + 8);
    one.chance.setAttribute("x", x + bar - 8);
    for (const label of [one.name, one.chance]) label.setAttribute("y", y);
  }
  [...$("columns").children].forEach((label, i) => {
    const own = columns[i].nodes.map((node) => marks[node].x);
    const middle = own.reduce((a, b) => a + b) / own.length;
    label.style.left = `${i === 0 ? 0 : i === columns.length - 1 ? middle + 14 : middle}px`;
  });
}

function drawNodes() {
  const signal = row(now);
  marks.forEach(({ mark }, node) => {
    const strength = Math.min(Math.abs(signal[node]) / nodeScale[node], 1);
    mark.setAttribute("fill", palettes[signal[node] < 0 ? "down" : "up"][Math.round(32 * strength)]);
    mark.classList.toggle("near", node === near);
    mark.classList.toggle("followed", node === followed);
  });
  bars.forEach(({ group, node, bar, chance, width: room }, i) => {
    bar.setAttribute("width", signal[node] * room);
    chance.textContent = `${number(100 * signal[node], 0)}%`;
    group.classList.toggle("taken", taken[now] === i);
  });
}

const LEVELS = 6; // of brightness, so that a step has few paths to draw
function drawLines() {
  const context = sharp($("lines"));
  const signal = row(now);
  const own = followed !== null && [...strongestOf("to"), ...strongestOf("from")];
  const shown = own || (data.in_blocks ? [] : drawnSynapses);
  const scale = own && Math.max(...own.map((s) => synapseScale[s]), 1e-9);
  const paths = { raises: [], lowers: [] };
  for (const s of shown) {
    const current = synapses[s].current(signal);
    const strength = Math.min(Math.abs(current) / (scale || synapseScale[s]), 1);
    const level = Math.ceil(strength ** (own ? 1 : 1.5) * LEVELS - 0.2);
    if (level < 1 && !own) continue;
    const path = (paths[current < 0 ? "lowers" : "raises"][Math.max(level, 1)] ??= new Path2D());
    trail(path, marks[synapses[s].from], marks[synapses[s].to]);
  }
  for (const [color, levels] of Object.entries(paths)) {
    levels.forEach((path, level) => {
      context.strokeStyle = palettes[color];
      context.globalAlpha = 0.15 + (0.75 * level) / LEVELS;
      context.lineWidth = (own ? 1 : 0.5) + ((own ? 1.6 : 0.8) * level) / LEVELS;
      context.stroke(path);
    });
  }
}
const drawnSynapses = [...drawn.keys()].filter((s) => drawn[s]);

// From edge to edge; within a column an arc to the right, and a loop to itself.
function trail(path, from, to) {
  path.moveTo(from.x + from.half, from.y);
  if (from.column !== to.column) path.lineTo(to.x - to.half, to.y);
  else {
    const reach = 20 + 0.3 * Math.abs(from.y - to.y);
    const lift = from === to ? 12 : 0;
    path.bezierCurveTo(from.x + reach, from.y - lift, to.x + reach, to.y + lift, to.x + to.half, to.y);
  }
}

function nearest(event) {
  const { left, top } = $("stage").getBoundingClientRect();
  const [x, y] = [event.clientX - left, event.clientY - top];
  const bar = bars.find(({ room }) => event.target.parentNode === room.parentNode);
  if (bar) return bar.node;
  let found = null, least = 18;
  marks.forEach((one, node) => {
    const distance = Math.hypot(x - one.x, y - one.y);
    if (distance < least) [found, least] = [node, distance];
  });
  return found;
}

function drawTip() {
  $("tip").hidden = near === null;
  if (near === null) return;
  const { x, y } = marks[near];
  $("tip").style.left = `${Math.min(Math.max(x - 92, 0), $("stage").clientWidth - 184)}px`;
  $("tip").style.top = `${y > 120 ? y - 112 : y + 16}px`;
  $("tip").querySelector("b").textContent = names[near];
  $("tip").querySelector("output").textContent = number(row(now)[near], 3);
  drawTrace($("tip").querySelector("canvas"), near, now - 5 * fps, now);
}

// ---- one neuron -------------------------------------------------------------------------------

const STRONGEST = 6;
function strongestOf(end) {
  return bySide[end].get(followed) ?? [];
}
const bySide = Object.fromEntries(["from", "to"].map((end) => {
  const of = Map.groupBy(synapses.keys(), (s) => synapses[s][end]);
  for (const [node, own] of of) of.set(node, own.sort((a, b) => mean[b] - mean[a]).slice(0, STRONGEST));
  return [end, of];
}));

function follow(node) {
  followed = node;
  $("follow").value = node ?? "";
  $("hint").hidden = node !== null;
  $("followed").hidden = node === null;
  if (node !== null) {
    $("name").textContent = names[node];
    list($("inputs"), strongestOf("to"), "from");
    list($("outputs"), strongestOf("from"), "to");
  }
  show(now);
}

function list(parent, own, end) {
  parent.replaceChildren(...own.map((s) => {
    const item = document.createElement("li");
    item.innerHTML = `<button type="button"><span class="name"></span>
      <span class="current"><i></i></span><output></output></button>`;
    item.querySelector(".name").textContent = names[synapses[s][end]];
    item.firstChild.onclick = () => follow(synapses[s][end]);
    item.synapse = s;
    return item;
  }));
  parent.previousElementSibling.hidden = !own.length;
}

function drawFollowed() {
  if (followed === null) return;
  $("activity").textContent = number(row(now)[followed], 3);
  drawTrace($("trace"), followed, now - 5 * fps, now + 5 * fps);
  for (const parent of [$("inputs"), $("outputs")]) {
    const scale = Math.max(...[...parent.children].map(({ synapse }) => synapseScale[synapse]));
    for (const item of parent.children) {
      const current = synapses[item.synapse].current(row(now));
      const half = 50 * Math.min(Math.abs(current) / scale, 1);
      item.querySelector("output").textContent = number(current, 3);
      const bar = item.querySelector("i");
      bar.style.width = `${half}%`;
      bar.style.left = `${current < 0 ? 50 - half : 50}%`;
      bar.style.background = `var(--${current < 0 ? "lowers" : "raises"})`;
    }
  }
}

// ---- lines over time --------------------------------------------------------------------------

// A cleared context in CSS pixels, as sharp as the display.
function sharp(canvas) {
  const { clientWidth, clientHeight } = canvas;
  const [wide, high] = [clientWidth, clientHeight].map((side) => Math.round(side * devicePixelRatio));
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const context = canvas.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, clientWidth, clientHeight);
  context.globalAlpha = 1;
  context.lineJoin = "round";
  return context;
}

// A node's activity between two steps, with zero and, inside, the present marked.
function drawTrace(canvas, node, first, last) {
  const context = sharp(canvas);
  const { clientWidth: wide, clientHeight: high } = canvas;
  const x = (t) => 1 + ((wide - 2) * (t - first)) / (last - first);
  const floor = columns[0].nodes.includes(node) || actions.includes(node) ? 0 : -1;
  const y = (value) => high - 2 - ((high - 4) * (value / nodeScale[node] - floor)) / (1 - floor);
  stroke(context, palettes.faint, [[0, y(0)], [wide, y(0)]]);
  if (now < last) stroke(context, palettes.grey, [[x(now), 0], [x(now), high]]);
  const points = [];
  for (let t = Math.max(first, 0); t <= Math.min(last, steps - 1); t++) {
    points.push([x(t), Math.min(Math.max(y(signals[t * width + node]), 1), high - 1)]);
  }
  stroke(context, palettes.raises, points, 1.4);
}

function stroke(context, color, points, thickness = 1) {
  context.strokeStyle = color;
  context.lineWidth = thickness;
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

const THUMB = 8; // half of the slider's handle, which the line of time leaves room for
const range = (numbers) => numbers.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [0, 0]);
const ranges = [range(values), range(returns)];
function drawPlot() {
  const context = sharp($("plot"));
  const { clientWidth: wide, clientHeight: high } = $("plot");
  const x = (t) => THUMB + ((wide - 2 * THUMB) * t) / Math.max(steps - 1, 1);
  const half = high / 2;
  [values, returns].forEach((numbers, i) => {
    const [low, top] = ranges[i];
    const y = (value) => i * half + half - 6 - ((half - 12) * (value - low)) / (top - low || 1);
    stroke(context, palettes.faint, [[THUMB, y(0)], [wide - THUMB, y(0)]]);
    context.globalAlpha = 0.35;
    stroke(context, palettes.raises, Array.from(numbers, (value, t) => [x(t), y(value)]), 1.2);
    context.globalAlpha = 1;
    stroke(context, palettes.raises, Array.from(numbers.subarray(0, now + 1), (value, t) => [x(t), y(value)]), 1.5);
  });
  rewards.forEach((reward, t) => {
    if (reward) stroke(context, palettes[reward < 0 ? "lowers" : "raises"], [[x(t), high - 4], [x(t), high]], 2);
  });
  stroke(context, palettes.ink, [[x(now), 0], [x(now), high]]);
}

// ---- playing ----------------------------------------------------------------------------------

let playing = null; // when and where it began
function play(on) {
  if (on && now === steps - 1) show(0);
  playing = on ? { step: now, time: performance.now() } : null;
  $("play").classList.toggle("playing", on);
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  if (on) requestAnimationFrame(tick);
}
function tick(time) {
  if (!playing) return;
  const speed = Number($("speed").value);
  const step = playing.step + Math.floor(((time - playing.time) / 1000) * fps * speed);
  if (step > now) show(step);
  if (now === steps - 1) play(false);
  else requestAnimationFrame(tick);
}
function jump(t) {
  play(false);
  show(t);
}

$("play").onclick = () => play(!playing);
$("back").onclick = () => jump(now - 1);
$("forward").onclick = () => jump(now + 1);
$("speed").onchange = () => {
  if (playing) playing = { step: now, time: performance.now() };
};
$("scrub").oninput = () => jump(Number($("scrub").value));
$("plot").onpointerdown = $("plot").onpointermove = (event) => {
  if (!(event.buttons & 1)) return;
  if (event.type === "pointerdown") $("plot").setPointerCapture(event.pointerId);
  const { left, width: wide } = $("plot").getBoundingClientRect();
  jump(Math.round(((event.clientX - left - THUMB) / (wide - 2 * THUMB)) * (steps - 1)));
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const keys = { ArrowLeft: () => jump(now - 1), ArrowRight: () => jump(now + 1),
    Home: () => jump(0), End: () => jump(steps - 1), " ": () => play(!playing), Escape: () => follow(null) };
  if (!(event.key in keys) || (event.key === " " && event.target.matches("button"))) return;
  event.preventDefault();
  keys[event.key]();
});

$("nodes").onpointermove = (event) => point(nearest(event));
$("nodes").onpointerleave = () => point(null);
$("nodes").onclick = (event) => {
  const node = nearest(event);
  follow(node === followed ? null : node);
};
function point(node) {
  if (node === near) return;
  near = node;
  drawNodes();
  drawTip();
}
$("follow").onchange = () => follow($("follow").value === "" ? null : Number($("follow").value));

// ---- the page itself --------------------------------------------------------------------------

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  readColors();
  resize();
}
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.onchange = () => paint(dark.matches ? "dark" : "light");
$("theme").onclick = () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark");

function resize() {
  const narrow = matchMedia("(max-width: 760px)").matches;
  const [wide, high] = narrow ? [innerWidth - 46, Infinity] : [0.36 * innerWidth, innerHeight - 340];
  // Whole pixels of the display, so that all of the game's pixels are equally large.
  const scale = Math.max(1, Math.floor(Math.min(wide / data.width, high / data.height) * devicePixelRatio));
  $("screen").style.width = `${(scale * data.width) / devicePixelRatio}px`;
  place();
  show(now);
}

document.title = $("title").textContent = data.title;
$("about").textContent = data.about;
$("note").textContent = data.in_blocks ? "Too many synapses for lines: layers are blocks of neurons." : "";
$("steps").textContent = steps.toLocaleString("en");
$("scrub").max = steps - 1;
for (const { kind, nodes: own } of columns) {
  const group = $("follow").appendChild(document.createElement("optgroup"));
  group.label = kind;
  for (const node of own) group.append(new Option(names[node], node));
}
paint(dark.matches ? "dark" : "light");
new ResizeObserver(resize).observe($("stage"));
addEventListener("resize", resize);
document.documentElement.dataset.ready = "";
