// Waveforms and spectrograms, drawn from what the server computed.

// Dark to light, even in lightness, so that it reads without colours too.
const STOPS = [
  [16, 22, 33], [22, 44, 68], [24, 77, 96], [33, 118, 114], [96, 160, 116], [190, 196, 122], [252, 240, 205],
];
const PALETTE = new Uint8ClampedArray(256 * 3);
for (let n = 0; n < 256; n++) {
  const place = (n / 255) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  for (let c = 0; c < 3; c++) PALETTE[3 * n + c] = STOPS[low][c] + (STOPS[low + 1][c] - STOPS[low][c]) * (place - low);
}

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** The spectrogram as a picture of one pixel per value. */
export function spectrogram(view) {
  const levels = bytes(view.levels);
  const canvas = document.createElement("canvas");
  canvas.width = view.columns;
  canvas.height = view.bands;
  const context = canvas.getContext("2d");
  const image = context.createImageData(view.columns, view.bands);
  for (let band = 0; band < view.bands; band++) {
    const row = (view.bands - 1 - band) * view.columns;
    for (let column = 0; column < view.columns; column++) {
      const level = levels[band * view.columns + column];
      // Music lies in the upper two thirds of the scale.
      const shade = Math.max(0, Math.min(255, Math.round((level - 70) * 1.6)));
      image.data.set(PALETTE.subarray(3 * shade, 3 * shade + 3), 4 * (row + column));
      image.data[4 * (row + column) + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Draw a lane: waveform above, spectrogram below; `scale` makes quiet songs fill the height. */
export function draw(canvas, view, picture, colour, scale) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const wave = Math.round(height * 0.46);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, wave + ratio, width, height - wave - ratio);
  context.fillStyle = colour;
  const middle = wave / 2;
  const step = 3 * ratio;
  const bar = 2 * ratio;
  for (let x = 0; x < width; x += step) {
    const first = Math.floor((x * view.columns) / width);
    const last = Math.max(first + 1, Math.floor(((x + step) * view.columns) / width));
    let low = 0;
    let high = 0;
    for (let column = first; column < last && column < view.columns; column++) {
      low = Math.min(low, view.low[column]);
      high = Math.max(high, view.high[column]);
    }
    const top = Math.max(0, middle - (high / 127) * scale * middle);
    const bottom = Math.min(wave, middle - (low / 127) * scale * middle);
    context.beginPath();
    context.roundRect(x, Math.min(top, middle - ratio / 2), bar, Math.max(bottom - top, ratio), ratio);
    context.fill();
  }
}
