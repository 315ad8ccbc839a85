// Keeps the page's numbers moving, and no more: every page works without it.
const source = document.querySelector("[data-live]");
if (source) {
  const places = new Map([...document.querySelectorAll("[data-key]")].map((e) => [e, e.dataset.key]));
  const sparks = [...document.querySelectorAll("[data-spark]")].map((e) => spark(e, e.dataset.spark));
  const stream = new EventSource(source.dataset.live);
  stream.onopen = () => document.body.classList.add("is-live");
  stream.onerror = () => document.body.classList.remove("is-live");
  stream.onmessage = (event) => {
    const now = JSON.parse(event.data);
    for (const [element, key] of places) {
      if (key in now && element.textContent !== now[key]) element.textContent = now[key];
    }
    for (const draw of sparks) draw(now);
  };
  addEventListener("pagehide", () => stream.close());
}

// spark draws the last minute of a number as a line.
function spark(element, key) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  svg.setAttribute("viewBox", "0 0 60 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.append(line);
  element.append(svg);
  const values = [];
  return (now) => {
    values.push(Number(now[key]) || 0);
    if (values.length > 61) values.shift();
    const top = Math.max(1, ...values);
    const from = 61 - values.length;
    line.setAttribute("points", values.map((v, i) => `${from + i},${(19 - (18 * v) / top).toFixed(2)}`).join(" "));
  };
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

// What went wrong is where a person goes on, also one who does not see the page.
document.getElementById("bad")?.focus();

// A form is sent once: a second click on a slow answer is none.
for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
  });
}
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((f) => delete f.dataset.sent));
