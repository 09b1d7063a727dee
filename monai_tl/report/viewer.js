// Binds brainsprite to the page: wheel, keys and sliders move through slices, a window brightens, layers go on and off.
"use strict";

const AXES = ["X", "Y", "Z"];
// on a focused picture; the wheel and the keys are the page's own again after Escape or Tab
const KEYS = {
  ArrowLeft: ["X", -1], ArrowRight: ["X", 1],
  PageDown: ["Y", -1], PageUp: ["Y", 1],
  ArrowDown: ["Z", -1], ArrowUp: ["Z", 1],
};

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
  const numbers = AXES.map((axis) => part(`${axis}-number`));
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
    // its cross is a voxel thick and its letters are for two planes alone; both are drawn below
    crosshair: false,
    showLR: false,
    // it would read a pixel back at every step, for a value that is not shown
    nanValue: true,
    onclick: () => follow(),
  });
  const drawSlices = viewer.drawAll;
  viewer.drawAll = () => {
    drawSlices();
    drawMarks(viewer, shape);
  };
  const redraw = () => {
    viewer.init();
    viewer.drawAll();
  };
  const follow = () => sliders.forEach((slider, k) => {
    slider.value = viewer.numSlice[AXES[k]];
    numbers[k].textContent = `${viewer.numSlice[AXES[k]] + 1} of ${shape[k]}`;
  });
  const go = (axis, slice) => {
    const last = shape[AXES.indexOf(axis)] - 1;
    const wanted = Math.min(Math.max(slice, 0), last);
    if (wanted === viewer.numSlice[axis]) return false;
    viewer.numSlice[axis] = wanted;
    follow();
    redraw();
    return true;
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
    // whoever scrolls past a picture scrolls the page
    if (document.activeElement !== viewer.canvas) return;
    const at = event.clientX - viewer.canvas.getBoundingClientRect().left;
    const { X, Y } = viewer.widthCanvas;
    const axis = at < X ? "X" : at < X + Y ? "Y" : "Z";
    if (go(axis, viewer.numSlice[axis] + Math.sign(event.deltaY))) event.preventDefault();
  }, { passive: false });
  viewer.canvas.addEventListener("keydown", (event) => {
    if (event.key === "Escape") viewer.canvas.blur();
    if (!(event.key in KEYS) || event.ctrlKey || event.altKey || event.metaKey) return;
    const [axis, step] = KEYS[event.key];
    go(axis, viewer.numSlice[axis] + step);
    event.preventDefault();
  });
  viewer.canvas.addEventListener("mouseleave", () => viewer.canvas.dispatchEvent(new MouseEvent("mouseup")));
  window.addEventListener("resize", redraw);
  follow();
  redraw();
}

// The place of each slice in the other two planes, and the patient's sides.
function drawMarks(viewer, shape) {
  const { context: pen, widthCanvas: width, heightCanvas: height, numSlice } = viewer;
  const share = Object.fromEntries(AXES.map((axis, k) => [axis, (numSlice[axis] + 0.5) / shape[k]]));
  const planes = [
    { left: 0, plane: "X", across: share.Y, down: 1 - share.Z, sides: "PASI" },
    { left: width.X, plane: "Y", across: share.X, down: 1 - share.Z, sides: "RLSI" },
    { left: width.X + width.Y, plane: "Z", across: share.X, down: 1 - share.Y, sides: "RLAP" },
  ];
  const gap = 9;
  pen.save();
  pen.lineWidth = 1;
  pen.strokeStyle = "rgb(255 255 255 / 0.55)";
  pen.fillStyle = "#ffffff";
  pen.font = `600 ${Math.max(11, Math.round(height.max * 0.045))}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (const { left, plane, across, down, sides } of planes) {
    const [wide, high] = [width[plane], height[plane]];
    const top = (height.max - high) / 2;
    const x = Math.round(left + across * wide) + 0.5;
    const y = Math.round(top + down * high) + 0.5;
    pen.beginPath();
    [[left, y, x - gap, y], [x + gap, y, left + wide, y], [x, top, x, y - gap], [x, y + gap, x, top + high]]
      .filter(([x0, y0, x1, y1]) => x1 > x0 || y1 > y0)
      .forEach(([x0, y0, x1, y1]) => { pen.moveTo(x0, y0); pen.lineTo(x1, y1); });
    pen.stroke();
    // letters are read over bone and over air
    pen.shadowColor = "#000000";
    pen.shadowBlur = 4;
    const edge = 0.035 * wide;
    pen.fillText(sides[0], left + edge, top + high / 2);
    pen.fillText(sides[1], left + wide - edge, top + high / 2);
    pen.fillText(sides[2], left + wide / 2, top + edge);
    pen.fillText(sides[3], left + wide / 2, top + high - edge);
    pen.shadowBlur = 0;
  }
  pen.restore();
}

window.addEventListener("load", () => {
  document.querySelectorAll("[data-viewer]").forEach((box) => {
    box.hidden = false;
    openViewer(box);
    box.parentElement.classList.add("has-viewer");
    document.body.classList.add("scripted");
  });
});
