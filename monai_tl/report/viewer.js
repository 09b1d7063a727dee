// Binds brainsprite to the page: wheel, keys and sliders move through slices, a window brightens, layers go on and off.
"use strict";

const AXES = ["X", "Y", "Z"];

function openViewer(box) {
  const part = (name) => box.querySelector(`[data-part="${name}"]`);
  const shape = JSON.parse(box.dataset.shape);
  const start = JSON.parse(box.dataset.start);
  const picture = part("image");
  const sheet = part("sheet");
  const layer = part("layer");
  const level = part("level");
  const width = part("width");
  const switches = { reference: part("reference"), prediction: part("prediction") };
  const sliders = AXES.map((axis) => part(axis));
  sheet.width = picture.naturalWidth;
  sheet.height = picture.naturalHeight;
  const pen = sheet.getContext("2d", { willReadFrequently: true });
  pen.drawImage(picture, 0, 0);
  const stored = pen.getImageData(0, 0, sheet.width, sheet.height);

  const paint = () => {
    const wide = 2.55 * width.value;
    const black = 2.55 * level.value - wide / 2;
    const table = Uint8ClampedArray.from({ length: 256 }, (_, grey) => (255 * (grey - black)) / wide);
    const shown = new ImageData(sheet.width, sheet.height);
    for (let k = 0; k < stored.data.length; k += 4) {
      const grey = table[stored.data[k]];
      shown.data[k] = shown.data[k + 1] = shown.data[k + 2] = grey;
      shown.data[k + 3] = 255;
    }
    pen.putImageData(shown, 0, 0);
  };
  paint();

  const viewer = brainsprite({
    canvas: part("canvas").id,
    sprite: sheet.id,
    nbSlice: { X: shape[0], Y: shape[1], Z: shape[2] },
    overlay: { sprite: layer.id, nbSlice: { X: shape[0], Y: shape[1], Z: shape[2] }, opacity: 1 },
    numSlice: { X: start[0], Y: start[1], Z: start[2] },
    colorBackground: "#000000",
    colorFont: "#ffffff",
    crosshair: true,
    colorCrosshair: "#c4ccd4",
    // the slices come with the patient's right first
    radiological: true,
    // it would read a pixel back at every step, for a value that is not shown
    nanValue: true,
    onclick: () => follow(),
  });
  const redraw = () => {
    viewer.init();
    viewer.drawAll();
  };
  const follow = () => sliders.forEach((slider, k) => { slider.value = viewer.numSlice[AXES[k]]; });
  const go = (axis, slice) => {
    const last = shape[AXES.indexOf(axis)] - 1;
    viewer.numSlice[axis] = Math.min(Math.max(slice, 0), last);
    follow();
    redraw();
  };
  sliders.forEach((slider, k) => slider.addEventListener("input", () => go(AXES[k], Number(slider.value))));
  [level, width].forEach((slider) => slider.addEventListener("input", () => { paint(); redraw(); }));
  const cover = () => {
    const shown = Object.keys(switches).filter((name) => switches[name].checked);
    const name = shown.length === 2 ? "both" : shown[0];
    viewer.overlay.opacity = shown.length ? 1 : 0;
    // loading draws anew
    if (name && layer.src !== box.dataset[name]) layer.src = box.dataset[name];
    else redraw();
  };
  Object.values(switches).forEach((one) => one.addEventListener("change", cover));
  viewer.canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = event.clientX - viewer.canvas.getBoundingClientRect().left;
    const { X, Y } = viewer.widthCanvas;
    const axis = at < X ? "X" : at < X + Y ? "Y" : "Z";
    go(axis, viewer.numSlice[axis] + Math.sign(event.deltaY));
  }, { passive: false });
  viewer.canvas.addEventListener("mouseleave", () => viewer.canvas.dispatchEvent(new MouseEvent("mouseup")));
  window.addEventListener("resize", redraw);
  follow();
  redraw();
}

window.addEventListener("load", () => {
  document.querySelectorAll("[data-viewer]").forEach((box) => {
    box.hidden = false;
    openViewer(box);
    box.parentElement.classList.add("has-viewer");
    document.body.classList.add("scripted");
  });
});
