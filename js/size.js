// What painting a picture of a size takes, without DOM. The figures are those of wegen_model/models/decoder.py for SDXL's UNet and VAE.

const SAMPLING = 8400, PAINTING = 2178; // bytes a number: for each latent cell and row, for each pixel
const CELL = 8, WIDE = 2; // pixels a latent's side, bytes a number in 16 bits
const LARGE = 2048 * 2048; // pixels: said above this

/** GiB beside the weights at the peak, in 16 bits with guidance. */
export const gib = (width, height, rows = 1) =>
  (Math.max(SAMPLING * 2 * rows * (width / CELL) * (height / CELL), PAINTING * width * height) * WIDE) / 2 ** 30;

/** The sentence for a large picture; "" for others. */
export function cost(width, height, rows = 1) {
  const pixels = width * height;
  if (!(pixels > LARGE)) return "";
  const times = Math.round(pixels / 1024 ** 2), more = rows > 1 ? `, ${rows} variations` : "";
  return `${width} x ${height}${more}: a full-size decoder needs about ${Math.round(gib(width, height, rows))} GiB beside its weights, and at `
    + `least ${times * rows} times as long as 1024 x 1024. It was trained far below this size.`;
}
