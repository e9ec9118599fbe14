// The model: pixels through the model's steps, kernel values, decision values of the pairs, votes, probabilities.
// What gpusvm/predict.py, voting.py and calibration.py do, in float64.

/** Each step that a model may have been trained behind: features of features. Add one under its name in a model file. */
const STEPS = {
  pixel_scaler: (values, step) => values.map((value) => Math.fround(value / Math.fround(step.maximum))),
  pixel_binarizer: (values, step) => values.map((value) => (value > Math.fround(step.threshold) ? 1 : 0)),
  deskewer: (values, step, shape) => sheared(values, shape),
};

const KERNELS = {
  rbf: ({ gamma }) => (inner, squares) => Math.exp(-gamma * Math.max(0, squares - 2 * inner)),
  linear: () => (inner) => inner,
  poly: ({ gamma, coef0, degree }) => (inner) => Math.pow(gamma * inner + coef0, degree),
  sigmoid: ({ gamma, coef0 }) => (inner) => Math.tanh(gamma * inner + coef0),
};

const LEAD = 1e-6;

class Model {
  /**
   * model: the page's JSON. vectors: support vectors in rows, Uint8Array in units of 1 / model.unit, or Float32Array.
   * coefficients: Float64Array, rows of one coefficient for each support vector, in LIBSVM's layout.
   */
  constructor(model, vectors, coefficients) {
    this.model = model;
    this.vectors = vectors;
    this.coefficients = coefficients;
    this.nClasses = model.classes.length;
    this.nVectors = model.n_support.reduce((a, b) => a + b, 0);
    this.nFeatures = vectors.length / this.nVectors;
    this.starts = [0];
    for (const count of model.n_support) this.starts.push(this.starts[this.starts.length - 1] + count);
    this.columns = transposed(vectors, this.nVectors, this.nFeatures);
    this.norms = this.squaredNorms();
    this.kernel = KERNELS[model.kernel.name](model.kernel);
  }

  squaredNorms() {
    const { vectors, nVectors, nFeatures } = this, unit = this.model.unit;
    const norms = new Float64Array(nVectors);
    for (let s = 0, i = 0; s < nVectors; s++) {
      let sum = 0;
      for (const end = i + nFeatures; i < end; i++) sum += vectors[i] * vectors[i];
      norms[s] = sum / (unit * unit);
    }
    return norms;
  }

  /** Pixels of an image, Uint8Array in the range of the training images, as features. */
  features(pixels) {
    let values = Float64Array.from(pixels);
    for (const step of this.model.steps) values = STEPS[step.step](values, step, this.model.shape);
    return values;
  }

  /** The value of the kernel between features and each support vector. */
  kernelValues(features) {
    const { columns, norms, kernel, nVectors } = this;
    const inner = new Float64Array(nVectors);
    let norm = 0;
    for (let j = 0; j < features.length; j++) {
      const value = features[j];
      if (value === 0) continue;
      norm += value * value;
      const factor = value / this.model.unit, start = j * nVectors;
      for (let s = 0; s < nVectors; s++) inner[s] += factor * columns[start + s];
    }
    for (let s = 0; s < nVectors; s++) inner[s] = kernel(inner[s], norms[s] + norm);
    return inner;
  }

  /** The decision value of each pair, in the order (0, 1), (0, 2), ..., (1, 2), ...; positive for the first. */
  decisions(kernelValues) {
    const decisions = Float64Array.from(this.model.intercept);
    for (let c = 0; c < this.nClasses; c++) {
      for (let row = 0; row < this.nClasses - 1; row++) {
        const other = row < c ? row : row + 1;
        const start = row * this.nVectors;
        let sum = 0;
        for (let s = this.starts[c]; s < this.starts[c + 1]; s++) sum += this.coefficients[start + s] * kernelValues[s];
        decisions[this.pair(c, other)] += sum;
      }
    }
    return decisions;
  }

  /** The place of the pair of two classes among the decision values. */
  pair(i, j) {
    const low = Math.min(i, j), high = Math.max(i, j);
    return (low * (2 * this.nClasses - low - 1)) / 2 + high - low - 1;
  }

  /** How many pairs each class wins. */
  votes(decisions) {
    const votes = new Array(this.nClasses).fill(0);
    for (let i = 0, p = 0; i < this.nClasses; i++) {
      for (let j = i + 1; j < this.nClasses; j++, p++) votes[decisions[p] > 0 ? i : j]++;
    }
    return votes;
  }

  /** By how much class i beats class j. */
  margin(decisions, i, j) {
    return (i < j ? 1 : -1) * decisions[this.pair(i, j)];
  }

  /** The probability of each class, the winner's the largest; null for a model that has none. */
  probabilities(decisions, winner) {
    const calibration = this.model.calibration;
    if (!calibration) return null;
    const logit = (i, j) => {
      const p = this.pair(i, j);
      return (i < j ? -1 : 1) * (calibration.probA[p] * decisions[p] + calibration.probB[p]);
    };
    const shares = [];
    for (let i = 0; i < this.nClasses; i++) {
      const against = [0];
      for (let j = 0; j < this.nClasses; j++) if (j !== i) against.push(-logit(i, j));
      const most = Math.max(...against);
      const sum = against.reduce((total, value) => total + Math.exp(value - most), 0);
      shares.push(-calibration.sharpness * (most + Math.log(sum)));
    }
    const most = Math.max(...shares);
    const odds = shares.map((share) => Math.exp(share - most));
    const total = odds.reduce((a, b) => a + b, 0);
    return ledBy(odds.map((value) => value / total), winner);
  }

  /**
   * The support vectors that spoke most for a class and most against it: {vector, label, weight}, weight being what it
   * adds to the decision values of that class's pairs, all together.
   */
  speakers(kernelValues, winner, count) {
    const found = [];
    for (let c = 0; c < this.nClasses; c++) {
      for (let s = this.starts[c]; s < this.starts[c + 1]; s++) {
        let sum = 0;
        if (c === winner) {
          for (let row = 0; row < this.nClasses - 1; row++) {
            sum += (c < (row < c ? row : row + 1) ? 1 : -1) * this.coefficients[row * this.nVectors + s];
          }
        } else {
          const row = winner < c ? winner : winner - 1;
          sum = (winner < c ? 1 : -1) * this.coefficients[row * this.nVectors + s];
        }
        const weight = sum * kernelValues[s];
        if (weight !== 0) found.push({ vector: s, label: this.model.classes[c], weight });
      }
    }
    found.sort((a, b) => b.weight - a.weight);
    return {
      for: found.filter((one) => one.weight > 0).slice(0, count),
      against: found.filter((one) => one.weight < 0).slice(-count).reverse(),
    };
  }

  /** All that the page shows of an image: pixels, Uint8Array in the range of the training images. */
  answer(pixels, nSpeakers = 6) {
    const kernelValues = this.kernelValues(this.features(pixels));
    const decisions = this.decisions(kernelValues);
    const votes = this.votes(decisions);
    const winner = votes.indexOf(Math.max(...votes));
    return {
      winner, label: this.model.classes[winner], votes, decisions,
      probabilities: this.probabilities(decisions, winner),
      speakers: this.speakers(kernelValues, winner, nSpeakers),
    };
  }
}

/** The nearest probabilities in which the winner alone has the largest: calibration.led_by. */
function ledBy(probabilities, winner) {
  const own = probabilities[winner];
  const rivals = probabilities.filter((_, i) => i !== winner).sort((a, b) => b - a);
  if (!(rivals[0] >= own * (1 - LEAD))) return probabilities;
  let sum = own, level = own;
  rivals.forEach((rival, i) => {
    sum += rival;
    level = Math.max(level, sum / (i + 2));
  });
  const shared = probabilities.map((value, i) => (i === winner ? level * (1 + LEAD) : Math.min(value, level)));
  const total = shared.reduce((a, b) => a + b, 0);
  return shared.map((value) => value / total);
}

/** Rows as columns, in an array of the same type. */
function transposed(rows, n, width) {
  const columns = new rows.constructor(rows.length);
  const block = 64;
  for (let first = 0; first < n; first += block) {
    const last = Math.min(n, first + block);
    for (let j = 0; j < width; j++) for (let i = first; i < last; i++) columns[j * n + i] = rows[i * width + j];
  }
  return columns;
}

/** The step Deskewer: each row moved so that the strokes stand upright. */
function sheared(values, [height, width]) {
  const rowMass = new Float64Array(height), rowMoment = new Float64Array(height);
  let mass = 0, moment = 0, momentY = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      rowMass[y] += values[y * width + x];
      rowMoment[y] += values[y * width + x] * x;
    }
    mass += rowMass[y];
    moment += rowMoment[y];
    momentY += rowMass[y] * y;
  }
  const centreX = moment / mass;
  let centreY = momentY / mass, mu11 = 0, mu02 = 0;
  for (let y = 0; y < height; y++) {
    mu11 += (y - centreY) * (rowMoment[y] - centreX * rowMass[y]);
    mu02 += (y - centreY) ** 2 * rowMass[y];
  }
  let slant = mu11 / mu02;
  if (!(Number.isFinite(slant) && mu02 > 1e-9 * Math.abs(mass))) slant = centreY = 0;
  const result = new Float64Array(values.length);
  for (let y = 0; y < height; y++) {
    const shift = Math.max(-width, Math.min(width, slant * (y - centreY)));
    const whole = Math.floor(shift), fraction = Math.fround(shift - whole);
    const at = (x) => (x >= 0 && x < width ? values[y * width + x] : 0);
    for (let x = 0; x < width; x++) {
      const left = at(x + whole), right = at(x + whole + 1);
      result[y * width + x] = Math.fround(left + Math.fround(fraction * Math.fround(right - left)));
    }
  }
  return result;
}
