// The colours that agent/vision/draw.py gives to class ids: what is drawn here looks as what is drawn there.

const SATURATION = 200 / 255;
const VALUE = 230 / 255;

export function colorOf(classId) {
  const hue = (Math.trunc(classId * 180 * 0.381966) % 180) * 2;
  const channel = (offset) => {
    const k = (offset + hue / 60) % 6;
    return Math.round(255 * VALUE * (1 - SATURATION * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return `rgb(${channel(5)}, ${channel(3)}, ${channel(1)})`;
}

// A label's colour; of a label that the model does not list, grey.
export function colorsOf(labels) {
  const colors = new Map();
  labels.forEach((label, classId) => colors.has(label) || colors.set(label, colorOf(classId)));
  return (label) => colors.get(label) ?? "rgb(128, 128, 128)";
}
