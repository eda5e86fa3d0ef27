// Two canvases, ED and ES, whose pixels are labels: 0 background, 1 LV, 2 MYO, 3 RV. The component's value is their bytes
// as base64. The server hears 'paint' after each stroke; what the server sets is drawn.
const COLOURS = [[17, 20, 24], [213, 94, 0], [0, 158, 115], [86, 180, 233]];
const side = props.pixels, area = side * side;
const canvases = [...element.querySelectorAll('canvas')];
let labels = new Uint8Array(2 * area), past = [];
let label = 1, filling = false, last = null, dirty = false;

const bytes = text => Uint8Array.from(atob(text || ''), c => c.charCodeAt(0));
const text = array => { let s = ''; for (const b of array) s += String.fromCharCode(b); return btoa(s); };

function show() {
  canvases.forEach((canvas, phase) => {
    canvas.width = canvas.height = side;
    const context = canvas.getContext('2d'), picture = context.createImageData(side, side);
    for (let k = 0; k < area; k++) picture.data.set([...COLOURS[labels[phase * area + k]], 255], 4 * k);
    context.putImageData(picture, 0, 0);
  });
}

function load() {
  const given = bytes(props.value);
  if (given.length !== labels.length) return;
  labels = given; past = []; show();
}

function tell() { props.value = text(labels); trigger('paint'); }

function place(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * side, (event.clientY - box.top) / box.height * side];
}

function dab(phase, x, y) {
  const radius = element.querySelector('[name=brush]').value / 2;
  const reach = Math.ceil(radius);
  for (let j = Math.floor(y) - reach; j <= y + reach; j++) for (let i = Math.floor(x) - reach; i <= x + reach; i++)
    if (i >= 0 && j >= 0 && i < side && j < side &&
        (Math.hypot(i + .5 - x, j + .5 - y) <= radius || (i === Math.floor(x) && j === Math.floor(y))))
      labels[phase * area + j * side + i] = label;
}

function fill(phase, x, y) {
  const start = Math.floor(y) * side + Math.floor(x), offset = phase * area, old = labels[offset + start];
  if (old === label) return;
  const open = [start];
  while (open.length) {
    const k = open.pop();
    if (labels[offset + k] !== old) continue;
    labels[offset + k] = label;
    const i = k % side;
    if (i > 0) open.push(k - 1);
    if (i < side - 1) open.push(k + 1);
    if (k >= side) open.push(k - side);
    if (k < area - side) open.push(k + side);
  }
}

canvases.forEach((canvas, phase) => {
  canvas.addEventListener('pointerdown', event => {
    event.preventDefault();
    try { canvas.setPointerCapture(event.pointerId); } catch (error) { /* a pointer that is gone */ }
    past.push(labels.slice()); past = past.slice(-50);
    const [x, y] = place(event, canvas);
    if (filling) fill(phase, Math.min(x, side - 1), Math.min(y, side - 1)); else dab(phase, x, y);
    last = [x, y]; dirty = true; show();
  });
  canvas.addEventListener('pointermove', event => {
    if (!dirty || filling || last === null) return;
    const [x, y] = place(event, canvas), steps = Math.ceil(2 * Math.hypot(x - last[0], y - last[1])) || 1;
    for (let k = 1; k <= steps; k++)
      dab(phase, last[0] + (x - last[0]) * k / steps, last[1] + (y - last[1]) * k / steps);
    last = [x, y]; show();
  });
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => {
    if (!dirty) return;
    dirty = false; last = null; tell();
  });
});

function press() {
  for (const button of element.querySelectorAll('[data-label]'))
    button.setAttribute('aria-pressed', Number(button.dataset.label) === label);
  element.querySelector('[data-do=fill]').setAttribute('aria-pressed', filling);
}

element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.label) label = Number(button.dataset.label);
  if (button.dataset.do === 'fill') filling = !filling;
  if (button.dataset.do === 'undo' && past.length) { labels = past.pop(); show(); tell(); }
  if (button.dataset.do === 'clear') { past.push(labels.slice()); labels.fill(0); show(); tell(); }
  press();
});

watch('value', load);
load(); press();
