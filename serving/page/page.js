// Sends each file or text that a person drops, chooses, pastes or writes to the server, and draws the answer beside it.
// Every address is relative, so that the page also works below a proxy's prefix.

const release = JSON.parse(document.getElementById("release").textContent);
const part = (id) => document.getElementById(id);
const embedded = []; // the embeddings since the last "Clear", oldest first: {name, vector}
const TAGGED = 12; // up to this many boxes show their score on the picture; of more, only the one pointed at does
const LITERAL = 64; // a command writes out up to this many values; Python makes more
let turn = Promise.resolve(); // one request after the other, so that a person cannot fill the server's queue
let cards = 0;

/** A problem in words; `again` says whether the same request may succeed later. */
class Failure extends Error {
  constructor(text, again) {
    super(text);
    this.again = again;
  }
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const megabytes = (bytes) => `${(bytes / 1e6).toPrecision(3)} MB`;
const nameOf = (prediction, index) => prediction.names?.[index] ?? `class ${prediction.labels[index]}`;
const hueOf = (label) => (150 + label * 137.5) % 360; // far apart for neighbouring labels
const say = (text) => { part("status").textContent = text; };

// Asking the server

async function predict(content) {
  if (content.size > release.upload_bytes) {
    throw new Failure(`It has ${megabytes(content.size)}, and the server takes at most ${megabytes(release.upload_bytes)}: make it smaller.`, false);
  }
  const body = new FormData();
  body.append("file", content);
  const response = await answered("predict", { method: "POST", body });
  const answer = await response.json().catch(() => null);
  if (answer?.predictions?.length !== 1) throw new Failure("The server's answer is not a prediction.", false);
  return answer;
}

/** The response, if it is a good one. Throws a Failure that says what the server said. */
async function answered(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Failure("The server did not answer. It may have stopped, or the network between is down.", true);
  }
  if (response.ok) return response;
  const said = (await response.json().catch(() => null))?.error;
  const wait = response.headers.get("Retry-After");
  const text = said ?? `The server answered ${response.status} ${response.statusText}`.trim();
  const later = wait ? ` Try again in ${wait} ${wait === "1" ? "second" : "seconds"}.` : "";
  throw new Failure(`${text.replace(/\.?$/, ".")}${later}`, response.status >= 500 || response.status === 408);
}

// One card for each picture or text

function add(entries) {
  const made = entries.map(({ name, content, text }) => {
    const id = `entry-${(cards += 1)}`;
    const shown = text === undefined ? picture(content, name) : element("blockquote", {}, text);
    const answer = element("div", {});
    const title = element("h2", { id }, name);
    const card = element("article", { class: "card", "aria-labelledby": id }, shown, element("div", {}, title, answer));
    return { name, content, shown, answer, card };
  });
  part("results").prepend(...made.map((entry) => entry.card));
  part("clear").hidden = false;
  made.forEach(ask);
}

function ask(entry) {
  entry.card.setAttribute("aria-busy", "true");
  entry.answer.replaceChildren(element("p", { class: "soft" }, "Waiting for the server …"));
  turn = turn.then(async () => {
    if (!entry.card.isConnected) return; // cleared
    say(`${entry.name}: waiting for the server …`);
    try {
      const { predictions, inference_time_ms: time } = await predict(entry.content);
      if (!entry.card.isConnected) return; // cleared meanwhile
      const [summary, ...drawn] = DRAW[release.task](predictions[0], entry);
      entry.answer.replaceChildren(...drawn, element("p", { class: "time soft" }, `${time.toFixed(1)} ms in the model`));
      say(`${entry.name}: ${summary}`);
    } catch (failure) {
      const known = failure instanceof Failure;
      const prefix = `${entry.content.name}: `; // the server names the upload, and this is beside it
      const said = known && failure.message.startsWith(prefix) ? failure.message.slice(prefix.length) : failure.message;
      const text = known ? said : "This page could not draw the answer; the browser's console says why.";
      entry.answer.replaceChildren(element("p", { class: "bad" }, text));
      if (known && failure.again) entry.answer.append(again(entry));
      say(`${entry.name}: ${text}`);
      if (!known) console.error(failure);
    } finally {
      entry.card.removeAttribute("aria-busy");
    }
  });
}

function again(entry) {
  const button = element("button", { type: "button", "aria-label": `Try ${entry.name} again` }, "Try again");
  button.addEventListener("click", () => ask(entry));
  return button;
}

/** The picture in a frame that boxes can be laid over, as high as the window allows. */
function picture(content, name) {
  const image = element("img", { src: URL.createObjectURL(content), alt: name });
  const frame = element("div", { class: "frame" }, image);
  image.addEventListener("load", () => fit(frame, image.naturalWidth / image.naturalHeight));
  image.addEventListener("error", () => {
    frame.classList.add("unshown");
    image.replaceWith(element("p", { class: "soft" }, "The browser cannot show this file."));
  });
  return frame;
}

function fit(frame, ratio) {
  frame.style.aspectRatio = ratio;
  frame.style.maxWidth = `calc(min(75vh, 36rem) * ${ratio})`;
}

// How the answer to each task is drawn: a summary for the status line, then what goes beside the picture

const DRAW = {
  classification(prediction) {
    const rows = prediction.scores.map((score, index) => {
      const share = element("div", { class: "share" });
      share.style.width = `${100 * score}%`;
      const track = element("div", { class: "track", "aria-hidden": "true" }, share);
      return element("li", { class: "class" }, element("span", {}, nameOf(prediction, index)), " ", element("span", {}, percent(score)), track);
    });
    return [`${nameOf(prediction, 0)}, ${percent(prediction.scores[0])}`, element("ol", { class: "answers" }, ...rows)];
  },

  detection(prediction, entry) {
    entry.shown.querySelectorAll(".box").forEach((box) => box.remove());
    // A picture that the browser cannot show still has a size, by the server.
    if (entry.shown.matches(".unshown")) fit(entry.shown, prediction.width / prediction.height);
    const rows = prediction.boxes.map((corners, index) => {
      const box = boxOf(corners, prediction, index);
      entry.shown.append(box);
      const button = element("button", { type: "button", class: "object" }, element("span", {}, nameOf(prediction, index)), " ", percent(prediction.scores[index]));
      button.style.setProperty("--hue", hueOf(prediction.labels[index]));
      for (const event of ["focus", "pointerenter"]) button.addEventListener(event, () => box.classList.add("marked"));
      for (const event of ["blur", "pointerleave"]) button.addEventListener(event, () => box.classList.remove("marked"));
      return element("li", {}, button);
    });
    if (!rows.length) return ["nothing found", element("p", {}, "Nothing was found.")];
    const best = `${nameOf(prediction, 0)}, ${percent(prediction.scores[0])}`;
    const list = element("ol", { class: rows.length > TAGGED ? "answers many" : "answers" }, ...rows);
    const found = rows.length === 1 ? [`found ${best}`, "1 found"] : [`${rows.length} found, the surest ${best}`, `${rows.length} found, the surest first`];
    return [found[0], element("p", {}, found[1]), list];
  },

  embedding({ vector }, entry) {
    const first = vector.slice(0, 8).map((value) => value.toFixed(4)).join(", ");
    const length = Math.hypot(...vector);
    const others = embedded.slice(-10).map((other) => `${cosine(vector, other.vector).toFixed(4)} with ${other.name}`).reverse();
    const cosines = others.map((text) => element("li", {}, `cosine ${text}`));
    const list = cosines.length ? [element("ol", { class: "answers" }, ...cosines)] : [];
    embedded.push({ name: entry.name, vector });
    return [
      others.length ? `cosine ${others[0]}` : `${vector.length} components`,
      element("p", {}, `${vector.length} components, length ${length.toFixed(4)}`),
      element("p", {}, "The first: ", element("code", {}, first)),
      ...list,
    ];
  },
};

/** A box of pixels of the upright picture as shares of it, so that it stays in place at every size. */
function boxOf(corners, { width, height, scores, labels, names }, index) {
  // A box that reaches beyond the picture ends at its edge.
  const [left, top, right, bottom] = corners.map((value, side) => Math.min(Math.max(value, 0), side % 2 ? height : width));
  const score = `${names?.[index] ?? labels[index]} ${percent(scores[index])}`;
  const box = element("div", { class: "box", "aria-hidden": "true" }, element("b", {}, score));
  const place = { left: left / width, top: top / height, width: (right - left) / width, height: (bottom - top) / height };
  for (const [side, share] of Object.entries(place)) box.style[side] = `${100 * share}%`;
  box.style.setProperty("--hue", hueOf(labels[index]));
  box.classList.toggle("low", place.top < 0.08); // no room above it for the score
  box.classList.toggle("right", place.left > 0.6);
  box.classList.toggle("quiet", index >= TAGGED);
  return box;
}

function cosine(one, other) {
  const product = one.reduce((sum, value, index) => sum + value * other[index], 0);
  return product / (Math.hypot(...one) * Math.hypot(...other));
}

// The model, and how to call it

async function describe() {
  part("model").textContent = document.title = release.model;
  part("about").textContent = `${release.variant}, ${release.task}`;
  const server = new URL(".", location).href;
  if (release.kind !== "none") {
    command(`curl -F file=@${release.kind === "text" ? "text.txt" : "picture.jpg"} ${server}predict`);
  }
  let metadata;
  try {
    metadata = await (await answered(`v2/models/${encodeURIComponent(release.model)}`)).json();
  } catch (failure) {
    part("unknown").textContent = `The model's inputs could not be read. ${failure.message}`;
    part("unknown").hidden = false;
    return;
  }
  for (const kind of ["inputs", "outputs"]) {
    for (const { name, datatype, shape } of metadata[kind]) {
      const cells = [name, kind.slice(0, -1), datatype, `[${shape.join(", ")}]`.replaceAll("-", "−")];
      part("metadata").tBodies[0].append(element("tr", {}, ...cells.map((cell) => element("td", {}, cell))));
    }
  }
  command(tensorCommand(metadata, `${server}v2/models/${release.model}/infer`));
}

const command = (text) => part("commands").append(element("pre", {}, text));

/** A command that sends zeros, in the shapes that the release gives as an example. */
function tensorCommand(metadata, address) {
  const header = "-H 'Content-Type: application/json'";
  const inputs = metadata.inputs.map(({ name, datatype }) => {
    const shape = release.shapes[name];
    return { name, shape, datatype, count: shape.reduce((product, size) => product * size, 1) };
  });
  const zero = (datatype, python) => {
    if (datatype === "BOOL") return python ? "False" : "false";
    return datatype.startsWith("FP") && python ? "0.0" : "0";
  };
  const json = ({ name, shape, datatype }, data) =>
    `{"name": ${JSON.stringify(name)}, "shape": [${shape.join(", ")}], "datatype": "${datatype}", "data": ${data}}`;
  if (inputs.every(({ count }) => count <= LITERAL)) {
    const tensors = inputs.map((input) => json(input, `[${Array(input.count).fill(zero(input.datatype, false)).join(", ")}]`));
    return `curl ${address} ${header} -d '{"inputs": [${tensors.join(", ")}]}'`;
  }
  const tensors = inputs.map((input) => json(input, `[${zero(input.datatype, true)}] * ${input.count}`));
  return `python3 -c 'import json; print(json.dumps({"inputs": [${tensors.join(", ")}]}))' | curl ${address} ${header} --data-binary @-`;
}

// A person's actions

function addFiles(files) {
  const all = [...files];
  const taken = all.slice(0, release.max_files);
  add(taken.map((file) => ({ name: file.name, content: file })));
  const left = all.length - taken.length;
  part("limits").textContent = left ? `The server takes ${taken.length} at a time: the last ${left} were left out.` : limits();
}

const limits = () => `Up to ${release.max_files} at a time, ${megabytes(release.upload_bytes)} each. They are sent to this server and not kept.`;

function takePictures() {
  part("pictures").hidden = false;
  part("limits").textContent = limits();
  part("files").addEventListener("change", (event) => {
    addFiles(event.target.files);
    event.target.value = ""; // so that the same picture can be chosen again
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) addFiles(event.clipboardData.files);
  });
  // Anywhere on the page: a browser goes to a picture that is dropped beside the zone.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    part("zone").classList.add("over");
  });
  document.addEventListener("dragleave", () => part("zone").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    part("zone").classList.remove("over");
    if (event.dataTransfer.files.length) addFiles(event.dataTransfer.files);
    else say("That was no file: drop a picture's file, or save the picture first.");
  });
}

function takeText() {
  part("writing").hidden = false;
  part("writing").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = part("text").value;
    const name = text.length > 40 ? `${text.slice(0, 40)}…` : text;
    add([{ name: `“${name}”`, content: new File([text], "text.txt", { type: "text/plain" }), text }]);
    part("text").select();
  });
  part("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) part("writing").requestSubmit();
  });
}

part("clear").addEventListener("click", () => {
  for (const image of document.querySelectorAll(".frame img")) URL.revokeObjectURL(image.src);
  part("results").replaceChildren();
  embedded.length = 0;
  part("clear").hidden = true;
  say("Cleared.");
  (release.kind === "text" ? part("text") : part("files")).focus();
});

if (release.kind === "image") takePictures();
else if (release.kind === "text") takeText();
else {
  part("tensors").hidden = false;
  part("call").open = true;
}
await describe();
