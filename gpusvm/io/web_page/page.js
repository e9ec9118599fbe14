// The page: what is drawn or dropped, and what the model says of it.

const LINE = 0.07; // width of a line as it is shown, in parts of the canvas's side
const KEY_STEP = 0.03;
const MOST_BARS = 12;
const BARS_OF_MANY = 10;
const LIVE_MS = 30; // an answer that takes longer waits for the end of the stroke
const LARGEST_PICTURE = 1024; // pixels of the longer side that are looked at

const element = (id) => document.getElementById(id);
const model = JSON.parse(element("model").textContent);
const canvas = element("canvas");

let svm = null; // until the support vectors are unpacked
let content = { strokes: [], picture: null }; // never changed, always replaced: history holds the ones before
const history = [];
let stroke = null; // under way: {pointer, points}
let cursor = null; // of the keyboard: {x, y, down}
let lastMilliseconds = 0;
let scheduled = false;

// -- unpacking ----------------------------------------------------------------------------------------

async function inflated(id) {
  const text = atob(element(id).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function unpack() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser is too old for the page: Chrome 80, Firefox 113, Safari 16.4 or newer can open it.");
  }
  const [vectors, coefficients] = await Promise.all(["vectors", "coefficients"].map(inflated));
  const typed = model.vectors === "uint8" ? new Uint8Array(vectors) : new Float32Array(vectors);
  svm = new Model(model, typed, new Float64Array(coefficients));
  for (const id of ["vectors", "coefficients"]) element(id).remove();
}

// -- from drawing to answer ---------------------------------------------------------------------------

/** The pixels that the model is given of a picture: in its shape, its range, and dark on light if its images are. */
function pixelsOf(picture) {
  const digit = asDigit(picture, model.shape, model.box);
  return digit.map((ink) => Math.round(((model.dark_ink ? 255 - ink : ink) * model.white) / 255));
}

/** What is on the canvas as {pixels}, or {reason} where there is nothing to recognise. */
function reading() {
  const strokes = stroke ? [...content.strokes, stroke.points] : content.strokes;
  if (content.picture && !stroke) {
    if (!asInk(content.picture).some((ink) => ink > 0)) return { reason: "This picture is of one colour." };
    return { pixels: pixelsOf(content.picture) };
  }
  if (!strokes.length) return { reason: "" };
  if (isDot(strokes)) return { reason: "That is too small to read. Draw it larger." };
  return { pixels: pixelsOf(pictureOf(strokes)) };
}

function recognise(finished) {
  scheduled = false;
  if (!svm) return;
  const { pixels, reason } = reading();
  if (!pixels) {
    showNothing(reason, finished);
    return;
  }
  const start = performance.now();
  const answer = svm.answer(pixels);
  lastMilliseconds = performance.now() - start;
  showPixels(element("seen"), Array.from(pixels), model.white);
  showAnswer(answer, finished);
}

function update({ finished }) {
  element("hint").hidden = Boolean(content.strokes.length || content.picture || stroke);
  element("undo").disabled = !history.length;
  element("clear").disabled = !content.strokes.length && !content.picture;
  paint();
  if (finished) recognise(true);
  else if (!scheduled && lastMilliseconds < LIVE_MS) {
    scheduled = true;
    requestAnimationFrame(() => scheduled && recognise(false));
  }
}

function replaceContent(next) {
  history.push(content);
  content = next;
  update({ finished: true });
}

function undo() {
  if (!history.length) return;
  content = history.pop();
  update({ finished: true });
}

function clear() {
  if (cursor) cursor.down = false;
  if (content.strokes.length || content.picture) replaceContent({ strokes: [], picture: null });
}

// -- showing ------------------------------------------------------------------------------------------

function showNothing(reason, finished) {
  element("label").textContent = "";
  element("words").textContent = reason || `Nothing drawn yet. It tells apart ${listed(model.classes)}.`;
  element("words").className = "";
  element("details").hidden = true;
  showPixels(element("seen"), new Array(model.shape[0] * model.shape[1]).fill(model.dark_ink ? model.white : 0), model.white);
  if (finished) element("spoken").textContent = reason || "Nothing drawn.";
}

function showAnswer(answer, finished) {
  const { label, winner } = answer;
  element("label").textContent = label;
  element("label").className = label.length > 3 ? "long" : "";
  element("details").hidden = false;
  const words = inWords(answer);
  element("words").className = "";
  element("words").replaceChildren(words.main, make("small", words.more));
  element("bars-title").textContent = answer.probabilities ? "Probability of each class" : "Votes: how many of its pairs each class wins";
  showBars(barsOf(answer), winner);
  for (const side of ["for", "against"]) {
    element(`${side}-title`).textContent = `Spoke most ${side} ${label}`;
    element(side).replaceChildren(...answer.speakers[side].map(speaker));
  }
  if (finished) element("spoken").textContent = `${label}. ${words.main}`;
}

function inWords({ label, winner, votes, decisions, probabilities }) {
  const values = probabilities ?? votes;
  const second = values.map((value, i) => [value, i]).filter(([, i]) => i !== winner).sort((a, b) => b[0] - a[0])[0][1];
  const margin = svm.margin(decisions, winner, second).toFixed(2);
  if (!probabilities) {
    const main = `${votes[winner]} of ${votes.length - 1} ${votes.length > 2 ? "votes" : "vote"}`;
    return { main, more: `Margin over ${model.classes[second]}: ${margin}. This model has no probabilities.` };
  }
  const more = `Next: ${model.classes[second]} with ${percent(probabilities[second])}. Margin over it: ${margin}.`;
  return { main: `Probability ${percent(probabilities[winner])}`, more };
}

function percent(share) {
  if (share < 0.0005) return "< 0.1 %";
  return share > 0.9995 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`;
}

/** What each class's bar shows: all classes in their order, or the first of many. */
function barsOf({ winner, votes, probabilities }) {
  const most = votes.length - 1;
  const bars = model.classes.map((name, i) => ({
    name, first: i === winner,
    share: probabilities ? probabilities[i] : votes[i] / most,
    text: probabilities ? percent(probabilities[i]) : `${votes[i]} of ${most}`,
  }));
  if (bars.length <= MOST_BARS) return bars;
  return bars.sort((a, b) => b.first - a.first || b.share - a.share).slice(0, BARS_OF_MANY);
}

function showBars(bars) {
  const list = element("bars");
  while (list.children.length > bars.length) list.lastChild.remove();
  while (list.children.length < bars.length) {
    const item = make("li", make("span"), make("span", make("i")), make("span"));
    ["name", "track", "value"].forEach((name, i) => { item.children[i].className = name; });
    list.append(item);
  }
  const longest = Math.max(...bars.map((bar) => bar.name.length));
  list.style.setProperty("--names", `${Math.min(Math.max(longest, 2), 14) * 0.68}em`);
  bars.forEach(({ name, first, share, text }, i) => {
    const [label, track, value] = list.children[i].children;
    list.children[i].className = first ? "first" : "";
    label.textContent = label.title = name;
    track.firstChild.style.width = `${100 * share}%`;
    value.textContent = text;
  });
}

function speaker({ vector, label, weight }) {
  const picture = document.createElement("canvas");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `A training image of ${label}`);
  const start = vector * svm.nFeatures;
  showPixels(picture, Array.from(svm.vectors.subarray(start, start + svm.nFeatures)), model.largest);
  return make("li", picture, make("b", label), make("small", (weight > 0 ? "+" : "−") + Math.abs(weight).toFixed(2)));
}

/** Values of an image of the model's shape as greys, `white` being the largest. */
function showPixels(target, values, white) {
  [target.height, target.width] = model.shape;
  const image = new ImageData(model.shape[1], model.shape[0]);
  values.forEach((value, i) => image.data.set([0, 0, 0, 255].fill((255 * value) / white, 0, 3), 4 * i));
  target.getContext("2d").putImageData(image, 0, 0);
}

function make(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

function listed(names) {
  if (names.length > 12) return `${names.length} classes, from ${names[0]} to ${names[names.length - 1]}`;
  return names.length < 2 ? String(names) : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}

// -- the canvas ---------------------------------------------------------------------------------------

function paint() {
  const side = Math.round(canvas.clientWidth * devicePixelRatio);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, side, side);
  if (content.picture && !stroke) {
    const { bitmap } = content.picture;
    const scale = side / Math.max(bitmap.width, bitmap.height);
    const width = bitmap.width * scale, height = bitmap.height * scale;
    context.drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
  }
  context.strokeStyle = context.fillStyle = getComputedStyle(document.body).color;
  context.lineCap = context.lineJoin = "round";
  const strokes = stroke ? [...(content.picture ? [] : content.strokes), stroke.points] : content.strokes;
  for (const points of strokes) paintStroke(context, points, side);
  if (cursor && document.activeElement === canvas) paintCursor(context, side);
}

/** A stroke of one width is one curve; of several, as a pen's is, a line from each point to the next. */
function paintStroke(context, points, side) {
  const places = points.map(({ x, y, width }) => ({ x: x * side, y: y * side, width: width * LINE * side }));
  context.lineWidth = places[0].width;
  context.beginPath();
  context.moveTo(places[0].x, places[0].y);
  if (places.every((place) => place.width === places[0].width)) {
    places.slice(0, -1).forEach((place, i) => { // through the middle of each two points, which bend it
      context.quadraticCurveTo(place.x, place.y, (place.x + places[i + 1].x) / 2, (place.y + places[i + 1].y) / 2);
    });
    context.lineTo(places[places.length - 1].x, places[places.length - 1].y);
    context.stroke();
    return;
  }
  places.forEach((place, i) => {
    const before = places[Math.max(0, i - 1)];
    context.lineWidth = (before.width + place.width) / 2;
    context.beginPath();
    context.moveTo(before.x, before.y);
    context.lineTo(place.x, place.y);
    context.stroke();
  });
}

function paintCursor(context, side) {
  context.lineWidth = Math.max(2, side / 200);
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  context.beginPath();
  context.arc(cursor.x * side, cursor.y * side, (LINE * side) / 2 + 3, 0, 2 * Math.PI);
  context.stroke();
}

/** A place on the canvas; a pen that is pressed draws wider. */
function pointOf(event) {
  const box = canvas.getBoundingClientRect();
  const width = event.pointerType === "pen" && event.pressure > 0 ? 0.6 + 0.8 * event.pressure : 1;
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height, width };
}

canvas.addEventListener("pointerdown", (event) => {
  if (stroke || event.button !== 0) return;
  finishKeyboardStroke();
  cursor = null;
  canvas.setPointerCapture?.(event.pointerId);
  stroke = { pointer: event.pointerId, points: [pointOf(event)] };
  update({ finished: false });
});

canvas.addEventListener("pointermove", (event) => {
  if (stroke?.pointer !== event.pointerId) return;
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.points.push(...(events.length ? events : [event]).map(pointOf));
  update({ finished: false });
});

for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (stroke?.pointer === event.pointerId) finishStroke();
  });
}

/** The stroke becomes part of the drawing; a picture that was there makes room for a new drawing. */
function finishStroke() {
  const { points } = stroke;
  stroke = null;
  replaceContent({ strokes: content.picture ? [points] : [...content.strokes, points], picture: null });
}

function finishKeyboardStroke() {
  if (cursor?.down && stroke) finishStroke();
  if (cursor) cursor.down = false;
}

// -- the keyboard -------------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  const arrow = ARROWS[event.key];
  if (!arrow && event.key !== " ") return;
  event.preventDefault();
  if (stroke && !cursor) return; // a pointer is drawing
  cursor ??= { x: 0.5, y: 0.5, down: false };
  if (arrow) {
    const step = event.shiftKey ? KEY_STEP / 3 : KEY_STEP;
    cursor.x = Math.min(1, Math.max(0, cursor.x + step * arrow[0]));
    cursor.y = Math.min(1, Math.max(0, cursor.y + step * arrow[1]));
    if (cursor.down) stroke.points.push({ x: cursor.x, y: cursor.y, width: 1 });
  } else if (cursor.down) {
    finishKeyboardStroke();
    return;
  } else {
    cursor.down = true;
    stroke = { pointer: null, points: [{ x: cursor.x, y: cursor.y, width: 1 }] };
  }
  update({ finished: false });
});

canvas.addEventListener("blur", () => { finishKeyboardStroke(); paint(); });
canvas.addEventListener("focus", () => paint());

document.addEventListener("keydown", (event) => {
  const withControl = event.ctrlKey || event.metaKey;
  if (withControl && !event.shiftKey && event.key.toLowerCase() === "z") undo();
  else if (!withControl && ["Escape", "Delete", "Backspace"].includes(event.key)) {
    if (stroke) stroke = null;
    clear();
    update({ finished: true });
  } else return;
  event.preventDefault();
});

// -- pictures -----------------------------------------------------------------------------------------

async function takePicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    element("label").textContent = "";
    element("details").hidden = true;
    element("words").textContent = "That is no picture that this browser can read: try a PNG or JPEG.";
    element("words").className = "fault";
    element("spoken").textContent = element("words").textContent;
    return;
  }
  replaceContent({ strokes: [], picture: { ...greyOf(bitmap), bitmap } });
}

/** The greys of a bitmap, as Pillow makes them; what is transparent lies on the paper that shows more of its ink. */
function greyOf(bitmap) {
  const scale = Math.min(1, LARGEST_PICTURE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale)), height = Math.max(1, Math.round(bitmap.height * scale));
  const sheet = Object.assign(document.createElement("canvas"), { width, height });
  const context = sheet.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const grey = new Uint8Array(width * height);
  let opaque = 0, brightness = 0;
  for (let i = 0; i < grey.length; i++) {
    const alpha = data[4 * i + 3];
    grey[i] = (data[4 * i] * 19595 + data[4 * i + 1] * 38470 + data[4 * i + 2] * 7471 + 32768) >> 16;
    opaque += alpha;
    brightness += (grey[i] * alpha) / 255;
  }
  const paper = brightness <= opaque / 2 ? 255 : 0;
  for (let i = 0; i < grey.length; i++) {
    const alpha = data[4 * i + 3] / 255;
    grey[i] = Math.round(grey[i] * alpha + paper * (1 - alpha));
  }
  return { grey, height, width };
}

function firstPicture(files) {
  const file = [...files].find((one) => one.type.startsWith("image/")) ?? files[0];
  if (file) takePicture(file);
}

element("choose").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", (event) => {
  firstPicture(event.target.files);
  event.target.value = "";
});
document.addEventListener("paste", (event) => firstPicture(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("paper").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("paper").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("paper").classList.remove("over");
  firstPicture(event.dataTransfer.files);
});

// -- the beginning ------------------------------------------------------------------------------------

element("undo").addEventListener("click", undo);
element("clear").addEventListener("click", clear);
new ResizeObserver(() => paint()).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint());
element("words").textContent = "Unpacking the support vectors…";

const ready = unpack().then(
  () => update({ finished: true }),
  (error) => {
    element("words").textContent = error.message;
    element("words").className = "fault";
  },
);
