// What a pen drew, as a picture. Strokes are lists of points {x, y, width} in parts of the canvas's side.

const PEN = 0.14; // width of a line in parts of the longer side that the pen went: 2.5 of 20 pixels, as MNIST has it
const SMALLEST = 0.06; // what is smaller than this part of the canvas is a dot, and no character
const RASTER = 160; // pixels of the character's longer side
const MARGIN = 24;

/** From where to where the strokes' points go: {left, top, size}, size being the longer side. */
function boundsOf(strokes) {
  const points = strokes.flat();
  const xs = points.map((p) => p.x), ys = points.map((p) => p.y);
  const left = Math.min(...xs), top = Math.min(...ys);
  return { left, top, wide: Math.max(...xs) - left, high: Math.max(...ys) - top };
}

/** Whether the strokes are too small to be told. */
function isDot(strokes) {
  const { wide, high } = boundsOf(strokes);
  return Math.max(wide, high) < SMALLEST;
}

/**
 * The strokes as a picture, bright on black, with lines as wide as they are in the training images however large they
 * were drawn: a small character does not come out bold, and a large one not thin.
 */
function pictureOf(strokes) {
  const { left, top, wide, high } = boundsOf(strokes);
  const scale = RASTER / Math.max(wide, high);
  const height = Math.ceil(high * scale) + 2 * MARGIN, width = Math.ceil(wide * scale) + 2 * MARGIN;
  const grey = new Uint8Array(height * width);
  for (const stroke of strokes) {
    const points = stroke.map((p) => ({
      x: (p.x - left) * scale + MARGIN, y: (p.y - top) * scale + MARGIN, radius: (p.width * PEN * RASTER) / 2,
    }));
    if (points.length === 1) points.push(points[0]);
    for (let i = 1; i < points.length; i++) drawSegment(grey, height, width, points[i - 1], points[i]);
  }
  return { grey, height, width };
}

/** A line with round ends, grey where it covers a pixel in part; the distance to it tells how far. */
function drawSegment(grey, height, width, a, b) {
  const radius = (a.radius + b.radius) / 2, reach = radius + 1;
  const dx = b.x - a.x, dy = b.y - a.y, squared = dx * dx + dy * dy;
  const bottom = Math.min(height - 1, Math.ceil(Math.max(a.y, b.y) + reach));
  const right = Math.min(width - 1, Math.ceil(Math.max(a.x, b.x) + reach));
  for (let y = Math.max(0, Math.floor(Math.min(a.y, b.y) - reach)); y <= bottom; y++) {
    for (let x = Math.max(0, Math.floor(Math.min(a.x, b.x) - reach)); x <= right; x++) {
      const px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      const along = squared ? Math.max(0, Math.min(1, (px * dx + py * dy) / squared)) : 0;
      const distance = Math.hypot(px - along * dx, py - along * dy);
      const value = Math.round(255 * Math.max(0, Math.min(1, radius + 0.5 - distance)));
      if (value > grey[y * width + x]) grey[y * width + x] = value;
    }
  }
}
