// A chapter's network in the reader's browser: quantized, run and measured as the package does it in Python.
// What the names mean is told there: quantization/grids.py, quantization/ptq.py and measures/forward.py.
globalThis.quantskew = (() => {
  // Everything that computes. Its text is the script of the workers too, so it uses nothing from outside.
  const core = () => {
    const { fround, floor } = Math;
    const TINY = 2 ** -126;
    const BELOW_HALF = 0.4999999701976776;
    const CANDIDATES = 100;
    const bits32 = new Uint32Array(1), float32 = new Float32Array(bits32.buffer);

    // Half precision: eleven bits, ties to the even one.
    const half = (value) => {
      float32[0] = value;
      if (Math.abs(float32[0]) < 2 ** -14) return even(float32[0] * 2 ** 24) / 2 ** 24;
      bits32[0] = (bits32[0] + 0xfff + ((bits32[0] >>> 13) & 1)) & ~0x1fff;
      return Math.abs(float32[0]) > 65504 ? Infinity * Math.sign(value) : float32[0];
    };

    const even = (value) => {
      const up = floor(value + 0.5);
      return up - value === 0.5 && up % 2 !== 0 ? up - 1 : up;
    };

    // Smallest and largest of a part of the weights.
    const ends = (weights, start, stop) => {
      let low = Infinity, high = -Infinity;
      for (let k = start; k < stop; k++) {
        if (weights[k] < low) low = weights[k];
        if (weights[k] > high) high = weights[k];
      }
      return [low, high];
    };

    const signed = (scale, bits) => ({
      scale: Math.max(scale, TINY), zero: 0, offset: null, low: -(2 ** (bits - 1)), high: 2 ** (bits - 1) - 1,
      halfAway: false,
    });

    const reach = ([low, high], bits) => fround(Math.max(-low, high) / Math.max(2 ** (bits - 1) - 1, 1));

    const schemes = {
      banner(weights, start, stop, bits, halfAway, [low, high] = ends(weights, start, stop)) {
        const steps = 2 ** bits - 1, flat = low === high;
        const scale = flat && low !== 0 ? Math.abs(low) : Math.max(fround(fround(high - low) / steps), TINY);
        const crosses = flat || (low < 0 && high > 0);
        const ideal = Math.max(fround(-low / scale), 0);
        const zero = flat ? Number(low < 0) : halfAway ? floor(fround(ideal + BELOW_HALF)) : even(ideal);
        const grid = { scale, low: 0, high: steps, halfAway };
        return crosses ? { ...grid, zero, offset: null } : { ...grid, zero: 0, offset: low };
      },
      symmetric: (weights, start, stop, bits) => signed(reach(ends(weights, start, stop), bits), bits),
      mse(weights, start, stop, bits) {
        const widest = reach(ends(weights, start, stop), bits);
        let best = widest, least = Infinity;
        for (let candidate = CANDIDATES; candidate > 0; candidate--) {
          const { scale, low, high } = signed(fround(widest * fround(candidate / CANDIDATES)), bits);
          let sum = 0;
          for (let k = start; k < stop && sum < least; k++) {
            let code = fround(weights[k] / scale);
            code = code < low ? low : code > high ? high : even(code);
            const error = fround(fround(code * scale) - weights[k]);
            sum += fround(error * error);
          }
          if (sum < least) [best, least] = [scale, sum];
        }
        return signed(best, bits);
      },
    };

    // Codes and values of one weight tensor, a grid for all or for each channel, and what was lost.
    const onGrid = (weights, channels, { bits, scheme, per_channel: perChannel, clip }) => {
      const parts = perChannel && !clip ? channels : 1, size = weights.length / parts;
      const codes = new Int16Array(weights.length), values = new Float32Array(weights.length);
      const grids = Array.from({ length: parts }, (_, part) => clip
        ? schemes.banner(weights, 0, size, bits, true, clip.map(fround))
        : schemes[scheme](weights, part * size, (part + 1) * size, bits, parts === 1));
      // One grid that starts at its smallest weight makes all of the tensor's do their sums in that way.
      const shifted = grids.some(({ offset }) => offset !== null);
      let zeros = 0;
      grids.forEach(({ scale, zero, offset, low, high, halfAway }, part) => {
        for (let k = part * size; k < (part + 1) * size; k++) {
          let code = shifted ? fround(fround(weights[k] - (offset ?? 0)) / scale) : fround(weights[k] / scale);
          if (low >= 0) code = fround(code + zero);
          code = code < low ? low : code > high ? high : code;
          code = halfAway ? floor(fround(code + BELOW_HALF)) : even(code);
          values[k] = fround((code - zero) * scale) + (offset ?? 0);
          codes[k] = code;
          if (shifted ? values[k] === 0 : code === zero) zeros += 1;
        }
      });
      return { codes, values, zeros, grids };
    };

    // The inner loop: a 4 x 8 block of a matrix product. JavaScript has no SIMD, so these are the bytes of
    // WebAssembly: (a, b, c, k, stride), where a holds 4 and b 8 numbers for each of the k terms.
    const product = (memory) => {
      const [get, set] = [(local) => [0x20, local], (local) => [0x21, local]];
      const add = (local, step) => [...get(local), 0x41, step, 0x6a, ...set(local)];
      const load = (from, at) => [...get(from), 0xfd, 0x00, 2, at];
      const splat = (from, at) => [...get(from), 0xfd, 0x09, 2, at];
      const sum = (row, column) => 5 + 2 * row + column;
      const [left, right, splatted] = [13, 14, 15];
      const rows = [0, 1, 2, 3];
      const body = [
        1, 11, 0x7b, 0x03, 0x40, ...load(1, 0), ...set(left), ...load(1, 16), ...set(right),
        ...rows.flatMap((row) => [
          ...splat(0, 4 * row), ...set(splatted),
          ...[left, right].flatMap((own, column) => [
            ...get(sum(row, column)), ...get(splatted), ...get(own), 0xfd, 0xe6, 1, 0xfd, 0xe4, 1,
            ...set(sum(row, column)),
          ]),
        ]),
        ...add(0, 16), ...add(1, 32), ...get(3), 0x41, 1, 0x6b, 0x22, 3, 0x0d, 0, 0x0b,
        ...rows.flatMap((row) => [
          ...[0, 1].flatMap((column) => [...get(2), ...get(sum(row, column)), 0xfd, 0x0b, 2, 16 * column]),
          ...get(2), ...get(4), 0x6a, ...set(2),
        ]),
        0x0b,
      ];
      const size = (length) => (length < 128 ? [length] : [(length & 127) | 128, length >> 7]);
      const section = (id, ...content) => [id, ...size(content.length), ...content];
      const code = [...size(body.length), ...body];
      const module = new WebAssembly.Module(new Uint8Array([
        0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
        ...section(1, 1, 0x60, 5, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0),
        ...section(2, 1, 1, 0x6d, 1, 0x6d, 2, 0, 1),
        ...section(3, 1, 0),
        ...section(7, 1, 1, 0x66, 0, 0),
        ...section(10, 1, ...code),
      ]));
      return new WebAssembly.Instance(module, { m: { m: memory } }).exports.f;
    };

    const COLUMNS = 64, ROOM = 16;

    // The network over some images. It keeps what each layer gave, and starts at the first layer that changed.
    class Network {
      constructor(layers, images, side, classes) {
        this.layers = layers;
        this.count = images.length / side ** 2;
        this.classes = classes;
        // Whole blocks of columns: of the smallest pictures sixteen make one.
        this.room = Math.ceil(this.count / ROOM) * ROOM;
        const sides = [];
        for (const { from, stride } of layers) sides.push(Math.ceil((from < 0 ? side : sides[from]) / stride));
        this.sides = sides;
        this.maps = layers.slice(0, -1).map(({ shape }, k) => this.empty(shape[0], sides[k]));
        this.input = this.empty(1, side);
        this.see(images, side);
        const terms = layers.slice(0, -1).map(({ shape: [, inputs, kernel] }) => inputs * kernel ** 2);
        const outputs = layers.slice(0, -1).map(({ shape }) => shape[0]);
        const sizes = terms.map((own, k) => own * outputs[k]);
        const most = Math.max(...terms) * COLUMNS, wide = Math.max(...outputs) * COLUMNS;
        const total = 4 * (sizes.reduce((a, b) => a + b, 0) + most + wide);
        const memory = new WebAssembly.Memory({ initial: Math.ceil(total / 65536) });
        this.product = product(memory);
        let used = 0;
        const take = (length) => new Float32Array(memory.buffer, (used += 4 * length) - 4 * length, length);
        this.packed = sizes.map(take);
        this.columns = take(most);
        this.products = take(wide);
        this.logits = new Float32Array(this.count * classes);
        this.after = [];
      }

      // Pictures have a border of zeros, which is the padding of the next layer.
      empty(channels, side) {
        return new Float32Array(this.room * channels * (side + 2) ** 2);
      }

      see(images, side) {
        const around = side + 2;
        images.forEach((value, k) => {
          const [image, pixel] = [floor(k / side ** 2), k % side ** 2];
          this.input[image * around ** 2 + (floor(pixel / side) + 1) * around + (pixel % side) + 1] = value;
        });
      }

      // New layers: the values of the weights, and what is done to each channel of their products.
      change(changed) {
        for (const [k, { values, ...after }] of changed) {
          this.after[k] = { values, ...after };
          const packed = this.packed[k];
          if (!packed) continue;
          const terms = values.length / this.layers[k].shape[0];
          values.forEach((value, place) => {
            const row = floor(place / terms), term = place % terms;
            packed[(floor(row / 4) * terms + term) * 4 + (row % 4)] = value;
          });
        }
      }

      run(first, rounded) {
        for (let k = first; k < this.layers.length - 1; k++) this.convolve(k, rounded);
        this.decide(rounded);
        return this.logits;
      }

      convolve(k, rounded) {
        const { layers, sides, columns, products, maps } = this;
        const { shape: [outputs, inputs, kernel], from, plus, relu, stride } = layers[k];
        const { scale, shift, normed } = this.after[k];
        const side = sides[k], pixels = side ** 2, terms = inputs * kernel ** 2;
        const source = from < 0 ? this.input : maps[from];
        const around = Math.sqrt(source.length / this.room / inputs), size = inputs * around ** 2;
        const own = maps[k], edge = side + 2, added = plus === null ? null : maps[plus];
        const together = COLUMNS / pixels;
        // Of a kernel of one the only pixel is behind the border.
        const border = kernel === 1 ? 1 : 0;
        const at = this.packed[k].byteOffset, [b, c] = [columns.byteOffset, products.byteOffset];
        for (let image = 0; image < this.room; image += together) {
          for (let term = 0; term < terms; term++) {
            const channel = floor(term / kernel ** 2), within = term % kernel ** 2;
            const corner = image * size + channel * around ** 2
              + (floor(within / kernel) + border) * around + (within % kernel) + border;
            let column = 0;
            for (let part = 0; part < together; part++) {
              for (let y = 0; y < side; y++) {
                let place = corner + part * size + y * stride * around;
                for (let x = 0; x < side; x++, column++, place += stride) {
                  columns[((column >> 3) * terms + term) * 8 + (column & 7)] = source[place];
                }
              }
            }
          }
          for (let row = 0; row < outputs; row += 4) {
            for (let column = 0; column < COLUMNS; column += 8) {
              this.product(at + 4 * row * terms, b + 4 * column * terms, c + 4 * (row * COLUMNS + column), terms,
                4 * COLUMNS);
            }
          }
          for (let part = 0; part < together; part++) {
            for (let row = 0; row < outputs; row++) {
              let from = row * COLUMNS + part * pixels;
              const start = ((image + part) * outputs + row) * edge ** 2;
              for (let y = 1; y <= side; y++) {
                for (let x = 1; x <= side; x++) {
                  let value = products[from++];
                  const place = start + y * edge + x;
                  if (rounded && normed) value = half(value);
                  value = value * scale[row] + shift[row];
                  if (rounded) value = half(value);
                  if (added) value += added[place];
                  own[place] = relu && value < 0 ? 0 : value;
                }
              }
            }
          }
        }
      }

      // The mean of each channel, and the logits.
      decide(rounded) {
        const k = this.layers.length - 1, { shape: [, inputs], from } = this.layers[k];
        const { values, shift } = this.after[k], source = this.maps[from], pixels = this.sides[from] ** 2;
        const size = source.length / this.room / inputs, means = new Float64Array(inputs);
        for (let image = 0; image < this.count; image++) {
          for (let channel = 0; channel < inputs; channel++) {
            let sum = 0;
            // The border adds nothing.
            for (let p = 0; p < size; p++) sum += source[(image * inputs + channel) * size + p];
            means[channel] = sum / pixels;
          }
          for (let row = 0; row < this.classes; row++) {
            let sum = shift[row];
            for (let channel = 0; channel < inputs; channel++) sum += means[channel] * values[row * inputs + channel];
            this.logits[image * this.classes + row] = rounded ? half(sum) : sum;
          }
        }
      }
    }

    return { Network, onGrid, half, schemes: Object.keys(schemes) };
  };

  const serve = ({ Network }) => {
    let network;
    globalThis.onmessage = ({ data: { made, changed, first, rounded } }) => {
      if (made) network = new Network(...made);
      if (!changed) return;
      network.change(changed);
      globalThis.postMessage(network.run(first, rounded));
    };
  };

  const { Network, onGrid, half, schemes } = core();
  const { fround } = Math;
  const WORKERS = Math.min(4, Math.max(2, navigator.hardwareConcurrency ?? 2));

  const bytesOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

  // A model as interactive/page.py writes it: the parameters of each layer, then images, labels and groups.
  class Model {
    constructor(file) {
      Object.assign(this, file);
      const bytes = bytesOf(file.data);
      let at = 0;
      const take = (kind, length) => {
        const part = bytes.slice(at, (at += length * kind.BYTES_PER_ELEMENT));
        return new kind(part.buffer);
      };
      for (const layer of this.layers) {
        const outputs = layer.shape[0];
        layer.weight = take(Float32Array, layer.shape.reduce((a, b) => a * b) * (layer.shape[2] ?? 1));
        const names = layer.epsilon === null ? ["bias"] : ["gain", "bias", "mean", "variance"];
        for (const name of names) layer[name] = take(Float32Array, outputs);
      }
      const [count, side] = this.images;
      Object.assign(this, { count, side, pixels: take(Uint8Array, count * side ** 2) });
      this.labels = take(Uint8Array, count);
      this.groupOf = take(Uint8Array, count);
      this.made = new Map();
      this.folded = [];
      this.shown = this.shownOf(this.pixels);
      this.plain = this.layers.map(({ shape, from, plus, relu, stride }) => ({ shape, from, plus, relu, stride }));
    }

    // Pixels as the network sees them.
    shownOf(pixels) {
      return Float32Array.from(pixels, (value) => (value - 127.5) / 127.5);
    }

    // The layer with its batch norm folded in, as torch.nn.utils.fusion does it.
    fold(k) {
      const { weight, gain, bias, mean, variance, epsilon, shape } = this.layers[k];
      if (epsilon === null) return { weight, bias };
      this.folded[k] ??= (() => {
        const inverse = variance.map((own) => fround(1 / fround(Math.sqrt(fround(own + epsilon)))));
        const factor = inverse.map((own, row) => gain[row] * own);
        const terms = weight.length / shape[0];
        return {
          weight: weight.map((own, place) => own * factor[Math.floor(place / terms)]),
          bias: bias.map((own, row) => fround(fround(-mean[row] * inverse[row]) * gain[row]) + own),
        };
      })();
      return this.folded[k];
    }

    // What the quantizer makes of a layer; made once for each choice that it depends on.
    layer(k, quantizer) {
      const { shape, epsilon } = this.layers[k], atEnd = k === 0 || k === this.layers.length - 1;
      const { scheme, per_channel, fold_batchnorm: fold, boundary_precision: ends } = quantizer;
      const { bits: own, clip = null } = quantizer.layers?.[k] ?? {}, rounded = quantizer.precision === "fp16";
      const common = quantizer.bits !== null && atEnd && ends ? Number(ends.slice(3)) : quantizer.bits;
      const bits = rounded ? null : (own ?? common);
      const kind = bits === null ? [rounded] : [bits, scheme, per_channel, clip];
      const key = JSON.stringify([k, Boolean(fold), ...kind]);
      if (this.made.has(key)) return this.made.get(key);
      const { weight, bias } = fold ? this.fold(k) : this.layers[k], normed = epsilon !== null && !fold;
      const values = rounded ? weight.map(half) : weight;
      const made = bits !== null ? onGrid(weight, shape[0], { bits, scheme, per_channel, clip })
        : { codes: null, values, grids: [], zeros: values.reduce((count, value) => count + (value === 0), 0) };
      const exact = rounded ? half : (value) => value;
      const { gain, mean, variance } = this.layers[k];
      const scale = normed
        ? Float64Array.from(gain, (value, row) => exact(value) / Math.sqrt(exact(variance[row]) + epsilon))
        : new Float64Array(shape[0]).fill(1);
      const centre = (row) => (normed ? exact(mean[row]) * scale[row] : 0);
      const shift = Float64Array.from(bias, (value, row) => exact(value) - centre(row));
      let difference = 0;
      made.values.forEach((value, place) => { difference += Math.abs(fround(value - weight[place])); });
      const result = { ...made, weight, bits, difference, scale, shift, normed, key };
      // Dragging makes many.
      if (this.made.size > 400) this.made.delete(this.made.keys().next().value);
      this.made.set(key, result);
      return result;
    }

    quantized(quantizer) {
      return this.layers.map((_, k) => this.layer(k, quantizer));
    }

    get workers() {
      if (this.started) return this.started;
      const source = `"use strict"; (${serve})((${core})());`;
      const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      const size = this.side ** 2;
      this.started = Array.from({ length: WORKERS }, (_, place) => {
        const [start, stop] = [place, place + 1].map((own) => Math.floor((own * this.count) / WORKERS));
        const images = this.shown.slice(start * size, stop * size);
        const worker = new Worker(address);
        worker.postMessage({ made: [this.plain, images, this.side, this.classes.length] });
        return { worker, start };
      });
      return this.started;
    }

    // The logits of all test images; one call after the other.
    async run(quantizer) {
      const before = this.last ?? [], layers = this.quantized(quantizer), rounded = quantizer.precision === "fp16";
      // What rounds does so in every layer.
      const changed = layers.map((own, k) => [k, own]).filter(([k, own]) => own.key !== before[k]);
      const first = rounded !== this.rounded ? 0 : (changed[0]?.[0] ?? layers.length - 1);
      Object.assign(this, { last: layers.map(({ key }) => key), rounded });
      const sent = changed.map(([k, { values, scale, shift, normed }]) => [k, { values, scale, shift, normed }]);
      const logits = new Float32Array(this.count * this.classes.length);
      await Promise.all(this.workers.map(({ worker, start }) => new Promise((done, failed) => {
        worker.onmessage = ({ data }) => { logits.set(data, start * this.classes.length); done(); };
        worker.onerror = (error) => failed(new Error(error.message));
        worker.postMessage({ changed: sent, first, rounded });
      })));
      return logits;
    }

    // The logits of one image more, such as a drawn one.
    of(pixels, quantizer) {
      const images = this.shownOf(pixels);
      this.alone ??= new Network(this.plain, images, this.side, this.classes.length);
      this.alone.see(images, this.side);
      this.alone.change(this.quantized(quantizer).entries());
      return this.alone.run(0, quantizer.precision === "fp16").slice();
    }
  }

  // Each measure of one image: its logits, those of the reference, and its label.
  const softmax = (logits) => {
    const most = Math.max(...logits), parts = logits.map((z) => Math.exp(z - most));
    const sum = parts.reduce((a, b) => a + b);
    return parts.map((part) => part / sum);
  };
  const variance = (values) => {
    const mean = values.reduce((a, b) => a + b) / values.length;
    return values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  };
  const argmax = (values) => values.indexOf(Math.max(...values));
  const MEASURES = {
    cosine_distance(logits, _, reference) {
      const [own, other] = [logits, reference].map((z) => Math.hypot(...z));
      return own && other ? 0.5 * logits.reduce((sum, z, k) => sum + (z / own - reference[k] / other) ** 2, 0) : NaN;
    },
    logit_variance: (logits) => variance(logits),
    softmax_variance: (logits) => variance(softmax(logits)),
    dtdb: (logits, label) => softmax(logits)[label],
    loss(logits, label) {
      const most = Math.max(...logits);
      return Math.log(logits.reduce((sum, z) => sum + Math.exp(z - most), 0)) + most - logits[label];
    },
    accuracy: (logits, label) => Number(argmax(logits) === label),
  };

  // Student's t at 97.5 %, by the expansion of Cornish and Fisher.
  const student = (freedom) => {
    const z = 1.959963984540054;
    return z + (z ** 3 + z) / (4 * freedom) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2);
  };

  const wilson = (share, count) => {
    const z = 1.959963984540054, centre = share + z ** 2 / (2 * count);
    const spread = z * Math.sqrt((share * (1 - share)) / count + z ** 2 / (4 * count ** 2));
    return [-1, 1].map((sign) => Math.min(1, Math.max(0, (centre + sign * spread) / (1 + z ** 2 / count))));
  };

  // Mean of the values that are numbers, with an interval of 95 %.
  const summary = (values, measure) => {
    const known = values.filter((value) => !Number.isNaN(value)), count = known.length;
    const value = count ? known.reduce((a, b) => a + b) / count : NaN;
    if (measure.share) return { value, count, interval: wilson(value, count) };
    const wide = count > 1 ? student(count - 1) * Math.sqrt(variance(known) / (count - 1)) : NaN;
    const [least, most] = measure.limits ?? [known.some((own) => own < 0) ? -Infinity : 0, Infinity];
    return { value, count, interval: [Math.max(value - wide, least), Math.min(value + wide, most)] };
  };

  // All that is measured of a quantizer: of each group (by its id), of the whole model, of each image.
  const measured = (model, layers, logits, reference) => {
    const classes = model.classes.length;
    const rows = (of) => Array.from(model.labels, (_, n) => Array.from(of.subarray(n * classes, (n + 1) * classes)));
    const [own, before] = [rows(logits), rows(reference)];
    const known = model.measures.filter(({ key }) => key in MEASURES);
    const groups = {};
    for (const measure of known) {
      const values = own.map((z, n) => MEASURES[measure.key](z, model.labels[n], before[n]));
      const parts = model.groups.map(() => []);
      values.forEach((value, n) => parts[model.groupOf[n]].push(value));
      groups[measure.key] = parts.map((part) => summary(part, measure));
    }
    const predicted = own.map(argmax), expected = before.map(argmax);
    const right = (list) => list.map((guess, n) => guess === model.labels[n]);
    const [now, then] = [right(predicted), right(expected)];
    const images = Array.from(now.keys());
    const shares = groups.accuracy.map(({ value }) => value).filter((value) => !Number.isNaN(value));
    const size = layers.reduce((sum, { weight }) => sum + weight.length, 0);
    const total = (name) => layers.reduce((sum, layer) => sum + layer[name], 0);
    return {
      groups, predicted, expected, logits: own, reference: before,
      lost: images.filter((n) => then[n] && !now[n]),
      gained: images.filter((n) => !then[n] && now[n]),
      whole: {
        sparsity: total("zeros") / size, absolute_difference: total("difference") / size,
        accuracy: now.filter(Boolean).length / now.length, fvo: Math.max(...shares) - Math.min(...shares),
      },
    };
  };

  return { Model, measured, schemes, softmax, argmax };
})();
