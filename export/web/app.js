// Run the served .tflite file on pictures and camera frames, in the page.
import {loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';

const $ = (id) => document.getElementById(id);
const state = {classes: null, source: null, stream: null};

const info = await (await fetch('/model.json')).json();
const [height, width] = info.size;
const {names, colors} = info.labels;
$('title').textContent = `${info.file}: ${names.length} classes, ${width}x${height}`;

let model;
try {
  await loadLiteRt('/litert/core/wasm/', {threads: crossOriginIsolated});
  model = await loadAndCompile('/model.tflite', {accelerator: 'wasm'});
  $('status').textContent = 'ready';
  $('camera').disabled = !navigator.mediaDevices;
} catch (error) {
  $('status').textContent = `the model cannot be loaded: ${error.message ?? error}`;
  throw error;
}

const small = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});

/** Segment RGB bytes (height * width * 3). Returns class ids (height * width) and milliseconds. */
async function segmentBytes(rgb) {
  const input = new Tensor(rgb, [1, height, width, 3]);
  const start = performance.now();
  const [output] = await model.run(input);
  const values = output.toTypedArray();
  const milliseconds = performance.now() - start;
  const classes = info.output === 'classes' ? values.slice() : argmax(values, names.length);
  input.delete();
  output.delete();
  return {classes, milliseconds};
}

function argmax(scores, count) {
  const classes = new Uint16Array(scores.length / count);
  for (let pixel = 0; pixel < classes.length; pixel++) {
    let best = 0;
    for (let index = 1; index < count; index++) {
      if (scores[pixel * count + index] > scores[pixel * count + best]) best = index;
    }
    classes[pixel] = best;
  }
  return classes;
}

let last = Promise.resolve();

/** Show the overlay of a picture, video or canvas, when those before it are done. */
function segment(...source) {
  last = last.then(() => show(...source)).catch((error) => {
    stopCamera();
    $('status').textContent = `the model cannot be run: ${error.message ?? error}`;
  });
  return last;
}

async function show(source, sourceWidth, sourceHeight) {
  const copy = new OffscreenCanvas(sourceWidth, sourceHeight);  // a video goes on meanwhile
  const context = copy.getContext('2d');
  context.fillStyle = 'white';  // a picture may be transparent
  context.fillRect(0, 0, sourceWidth, sourceHeight);
  context.drawImage(source, 0, 0);
  small.imageSmoothingQuality = 'high';
  small.drawImage(copy, 0, 0, width, height);
  const rgba = small.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(height * width * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  const {classes, milliseconds} = await segmentBytes(rgb);
  Object.assign(state, {classes, source: copy});
  draw();
  $('status').textContent = `${milliseconds.toFixed(0)} ms`;
}

function draw() {
  if (!state.classes) return;
  const canvas = $('picture');
  canvas.hidden = false;
  $('stage').classList.add('full');
  canvas.width = state.source.width;
  canvas.height = state.source.height;
  const context = canvas.getContext('2d');
  context.drawImage(state.source, 0, 0);
  const map = new ImageData(width, height);
  const counts = new Array(names.length).fill(0);
  state.classes.forEach((index, pixel) => {
    counts[index]++;
    map.data.set([...colors[index], 255], 4 * pixel);
  });
  const sheet = new OffscreenCanvas(width, height);
  sheet.getContext('2d').putImageData(map, 0, 0);
  context.globalAlpha = $('opacity').valueAsNumber;
  context.imageSmoothingEnabled = false;  // class ids cannot be interpolated
  context.drawImage(sheet, 0, 0, canvas.width, canvas.height);
  const shown = names.map((name, index) => index).filter((index) => counts[index]);
  shown.sort((a, b) => counts[b] - counts[a]);
  $('legend').replaceChildren(...shown.map((index) => {
    const item = document.createElement('li');
    const swatch = document.createElement('i');
    swatch.style.background = `rgb(${colors[index]})`;
    const share = (100 * counts[index] / state.classes.length).toFixed(1);
    item.append(swatch, `${names[index]} ${share} %`);
    return item;
  }));
}

async function open(file) {
  stopCamera();
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    $('status').textContent = `${file.name}: not a picture that this browser can read`;
    return;
  }
  $('status').textContent = 'working';
  await segment(picture, picture.width, picture.height);
}

async function startCamera() {
  $('camera').disabled = true;
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}});
  } catch (error) {
    $('status').textContent = `no camera: ${error.message}`;
    return;
  } finally {
    $('camera').disabled = false;
  }
  state.stream = stream;
  $('camera').textContent = 'Stop the camera';
  const video = document.createElement('video');
  video.srcObject = stream;
  video.muted = video.playsInline = true;
  await video.play();
  while (state.stream === stream) {
    await segment(video, video.videoWidth, video.videoHeight);
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  $('camera').textContent = 'Use the camera';
}

$('camera').onclick = () => (state.stream ? stopCamera() : startCamera());
$('file').onchange = ({target}) => target.files[0] && open(target.files[0]);
$('opacity').oninput = draw;
$('picture').onpointermove = (event) => {
  const box = $('picture').getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left) / box.width * width);
  const row = Math.floor((event.clientY - box.top) / box.height * height);
  $('pointer').textContent = names[state.classes?.[row * width + column]] ?? '';
};
$('picture').onpointerleave = () => ($('pointer').textContent = '');
for (const kind of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $('stage').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop' && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
}

// For tests, which drive the page.
window.pspnet = {segmentBytes, open, info};
