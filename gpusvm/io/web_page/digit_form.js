// Brings a drawing or a picture into the form of the training images: gpusvm/data/digit_form.py, step by step.
// A picture here is {grey: Uint8Array, height, width}, row by row.

const INK_SHARE = 0.25;
const SPECKS = 3;
const SHADED = 64;
const TIE = 1e-6;

/** A picture of one character as an image of MNIST's form, bright on black; box is what the character is to fill. */
function asDigit(picture, shape, box) {
  const [height, width] = shape;
  const ink = asInk(picture);
  const byRow = profileOf(ink, picture.height, picture.width, picture.width, 1);
  const byColumn = profileOf(ink, picture.width, picture.height, 1, picture.width);
  if (!byRow.extent || !byColumn.extent) return new Uint8Array(height * width);
  const scale = Math.min(box[0] / lengthOf(byRow.extent), box[1] / lengthOf(byColumn.extent));
  const down = weightsOf(byRow, scale, height);
  const across = weightsOf(byColumn, scale, width);
  return resampled(ink, picture.width, down, across, Math.max(1, scale));
}

/**
 * How much ink there is at each pixel, from 0 to 255: the slope of the light taken off, light paper turned around, and
 * noise as large as that along the edge taken off.
 */
function asInk({ grey, height, width }) {
  const even = evened(grey, height, width);
  const edge = [];
  for (let x = 0; x < width; x++) edge.push(even[x], even[(height - 1) * width + x]);
  for (let y = 1; y < height - 1; y++) edge.push(even[y * width], even[y * width + width - 1]);
  const paper = medianOf(edge);
  const noise = Math.floor(SPECKS * medianOf(edge.map((value) => Math.abs(value - paper))));
  const ink = new Float64Array(grey.length);
  let most = 0;
  for (let i = 0; i < grey.length; i++) {
    ink[i] = Math.max((paper > 127 ? paper - even[i] : even[i] - paper) - noise, 0);
    if (ink[i] > most) most = ink[i];
  }
  const stretch = 255 / Math.max(most, 1);
  for (let i = 0; i < ink.length; i++) ink[i] *= stretch;
  return ink;
}

/** The picture less the slope of the light on its paper, judged by the four sides. */
function evened(grey, height, width) {
  const even = Float64Array.from(grey);
  if (Math.min(height, width) < SHADED) return even;
  const row = (y) => grey.subarray(y * width, (y + 1) * width);
  const column = (x) => Array.from({ length: height }, (_, y) => grey[y * width + x]);
  const down = medianOf(row(height - 1)) - medianOf(row(0));
  const across = medianOf(column(width - 1)) - medianOf(column(0));
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      even[i] -= down * (y / (height - 1) - 0.5) + across * (x / (width - 1) - 0.5);
    }
  }
  return even;
}

/** The middle one, of an even number the upper of the two. */
function medianOf(values) {
  return Float64Array.from(values).sort()[values.length >> 1];
}

/** Of the rows (or columns) of ink: the mean place of the ink, and from where to where there is some. */
function profileOf(ink, n, across, step, stepAcross) {
  let mass = 0, moment = 0, extent = null;
  for (let i = 0; i < n; i++) {
    let sum = 0, most = 0;
    for (let j = 0; j < across; j++) {
      const value = ink[i * step + j * stepAcross];
      sum += value;
      if (value > most) most = value;
    }
    mass += sum;
    moment += sum * (i + 0.5);
    if (most >= INK_SHARE * 255) extent = [extent ? extent[0] : i, i + 1];
  }
  return { n, mean: moment / mass, extent };
}

function lengthOf(extent) {
  return extent[1] - extent[0];
}

/** What each of nOut pixels takes of those along one side: for each the first of them, and its weights from there. */
function weightsOf({ n, mean, extent }, scale, nOut) {
  const first = extent[0] * scale;
  let margin = Math.floor((nOut >> 1) + 1 - (mean * scale - first) - TIE);
  margin = Math.max(0, Math.min(margin, Math.floor(nOut - lengthOf(extent) * scale + TIE)));
  const start = first - margin, half = Math.max(1, scale) / 2;
  const rows = [];
  for (let i = 0; i < nOut; i++) {
    const centre = start + i + 0.5;
    const from = Math.max(0, Math.floor((centre - half) / scale) - 1);
    const to = Math.min(n, Math.ceil((centre + half) / scale) + 1);
    const weights = [];
    for (let pixel = from; pixel < to; pixel++) {
      const low = Math.max(centre - half, pixel * scale), high = Math.min(centre + half, (pixel + 1) * scale);
      weights.push(Math.max(high - low, 0) / (2 * half));
    }
    rows.push({ from, weights });
  }
  return rows;
}

/** The ink at each pixel of the result; what is enlarged gets edges as steep as those of MNIST are. */
function resampled(ink, width, down, across, steepness) {
  const result = new Uint8Array(down.length * across.length);
  const line = new Float64Array(width);
  down.forEach((row, y) => {
    line.fill(0);
    row.weights.forEach((weight, i) => {
      for (let x = 0; x < width; x++) line[x] += weight * ink[(row.from + i) * width + x];
    });
    across.forEach((column, x) => {
      let sum = 0;
      for (let i = 0; i < column.weights.length; i++) sum += column.weights[i] * line[column.from + i];
      if (steepness > 1) sum = Math.min(255, Math.max(0, (sum - 127.5) * steepness + 127.5));
      result[y * across.length + x] = Math.floor(sum + (0.5 - TIE));
    });
  });
  return result;
}
