"use strict";
// Text that comes from runs, and so perhaps from hostile clients, is only ever set as text.
const at = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const EVERY = 1000;
const shown = {};
let last = null, asked = null, touched = null;

function make(tag, text, attributes = {}, space = null) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text ?? "";
  return element;
}

function within(parent, children) {
  children.forEach(child => parent.appendChild(child));
  return parent;
}

// What has not changed is left alone: whoever reads or selects it is not disturbed.
function changed(name, value) {
  const text = JSON.stringify(value);
  if (shown[name] === text) return false;
  shown[name] = text;
  return true;
}

function clock(seconds) {
  const when = new Date(1000 * seconds);
  const time = when.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
  const today = when.toDateString() === new Date().toDateString();
  return today ? time : `${when.toLocaleDateString()}, ${time}`;
}

function standing(now) {
  const when = ["killed", "silent"].includes(now.state) ? "Last sign at" : "At";
  at("standing").className = `standing ${now.state}`;
  at("says").textContent = now.says + (now.since === null ? "" : ` ${when} ${clock(now.since)}.`);
  at("where").textContent = now.run ? `${now.run.kind} · ${now.folder}` : now.folder;
  at("title").textContent = now.title;
  document.title = `${now.run ? `${now.run.done}/${now.run.rounds} ` : ""}${now.state} · ${now.title}`;
}

function bar(element, label, text, value, most) {
  element.max = most;
  element.value = Math.min(value, most);
  label.textContent = text;
}

function progress(run) {
  bar(at("bar-rounds"), at("rounds"), `${run.done} of ${run.rounds} rounds done`, run.done, run.rounds);
  at("privacy").hidden = run.epsilon === null;
  if (run.epsilon !== null) {
    const [spent, budget] = run.epsilon;
    bar(at("bar-privacy"), at("epsilon"), `epsilon ${Number(spent.toPrecision(4))} of ${budget} spent`, spent, budget);
  }
  at("end").textContent = run.end ? `Expected end: about ${clock(run.end.at)}, in ${run.end.in}, ${run.end.by}.` : "";
  at("tiles").replaceChildren(...run.tiles.map(tile => within(make("div"), [
    make("dt", tile.label), within(make("dd", tile.value), [make("small", tile.note)]),
  ])));
  at("report").hidden = !run.report;
  at("stop").hidden = run.stop === null;
}

function clients(now, server) {
  at("clients").hidden = now === null && !server;
  at("server").textContent = server;
  at("h-clients").textContent = now ? `Clients of round ${now.round}` : "Clients";
  at("clients-note").textContent = now ? now.note : "";
  at("phases").replaceChildren(...(now ? now.phases : []).map(phase => {
    const items = phase.clients.map(client => within(make("li", client.name), client.does ? [make("span", client.does)] : []));
    const more = phase.count - phase.clients.length;
    if (more > 0) items.push(make("li", `and ${more} more`));
    return within(make("div", "", {class: phase.phase}), [
      make("h3", `${phase.phase}: ${phase.count}`), ...(items.length ? [within(make("ul"), items)] : []),
    ]);
  }));
}

function failures(found) {
  at("h-failures").textContent = `Clients left out: ${found.count}`;
  at("no-failures").hidden = found.count > 0;
  const items = found.latest.map(each => within(make("li", `Round ${each.round}, ${each.client}`), [make("span", each.reason, {class: "reason"})]));
  const more = found.count - found.latest.length;
  if (more > 0) items.push(make("li", `and ${more} before`));
  at("failures").replaceChildren(...items);
}

function table(rows) {
  at("table").replaceChildren(...rows.map(([round, ...cells]) => within(make("tr"), [
    make("th", round, {scope: "row"}), ...cells.map(cell => make("td", cell)),
  ])));
}

function chart(score, rounds) {
  at("h-score").textContent = `${score.name} by round`;
  at("score-says").textContent = score.says;
  const width = at("chart").clientWidth, height = 220, left = 64, right = 12, top = 14, bottom = 30;
  if (!score.points.length || width <= left + right) { at("chart").replaceChildren(); return; }
  const [low, high] = [score.low, score.high], range = high[0] - low[0];
  const x = round => left + (rounds > 1 ? (round - 1) / (rounds - 1) : 0.5) * (width - left - right);
  const y = value => range > 0 ? height - bottom - (value - low[0]) / range * (height - top - bottom) : height / 2;
  const svg = make("svg", "", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": score.says}, SVG);
  for (const [value, text] of range > 0 ? [low, high] : [high]) {
    svg.append(make("line", "", {x1: left, x2: width - right, y1: y(value), y2: y(value)}, SVG));
    svg.append(make("text", text, {x: left - 8, y: y(value) + 4, "text-anchor": "end"}, SVG));
  }
  svg.append(make("text", "round 1", {x: rounds > 1 ? left : x(1), y: height - 6, "text-anchor": rounds > 1 ? "start" : "middle"}, SVG));
  if (rounds > 1) svg.append(make("text", `round ${rounds}`, {x: width - right, y: height - 6, "text-anchor": "end"}, SVG));
  svg.append(make("polyline", "", {points: score.points.map(([r, v]) => `${x(r)},${y(v)}`).join(" ")}, SVG));
  if (score.points.length <= 40) for (const [r, v] of score.points) svg.append(make("circle", "", {cx: x(r), cy: y(v), r: 4}, SVG));
  at("chart").replaceChildren(svg);
}

// One short sentence for who hears the page: a round that is over, or another way that it stands.
function tell(now) {
  const run = now.run, news = [];
  // A page that waited for the run tells of all that has happened since.
  const before = last && (last.run ?? {done: 0, failures: {count: 0}});
  if (run && before && run.done > before.done) {
    const [round, student, , answered] = run.table[0];
    news.push(`Round ${round} of ${run.rounds} is over: student ${student}, ${answered} clients answered.`);
  }
  if (run && before && run.failures.count > before.failures.count) {
    const {client, round, reason} = run.failures.latest[0];
    news.push(`${client} is left out of round ${round}: ${reason}.`);
  }
  if (!last || last.state !== now.state) news.push(now.says);
  if (news.length) at("news").textContent = news.join(" ");
}

function show(now) {
  tell(now);
  if (changed("standing", [now.state, now.says, now.since, now.title, now.folder, now.run && now.run.done])) standing(now);
  at("run").hidden = now.run === null;
  if (now.run) {
    const run = now.run;
    if (changed("progress", [run.done, run.rounds, run.epsilon, run.end, run.tiles, run.report, run.stop])) progress(run);
    if (changed("clients", [run.clients, run.server])) clients(run.clients, run.server);
    if (changed("chart", [run.score, run.rounds])) chart(run.score, run.rounds);
    if (changed("failures", run.failures)) failures(run.failures);
    if (changed("table", run.table)) table(run.table);
  }
  last = now;
}

async function follow() {
  try {
    const answer = await fetch("state", {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.json());
    touched = Date.now() / 1000;
    at("lost-touch").hidden = true;
  } catch {
    const since = touched ? ` What is shown is of ${clock(touched)}.` : "";
    if (at("lost-touch").hidden) {
      at("lost-touch").textContent = `The command fedkd watch does not answer any more: start it again, and open its new address.${since}`;
      at("lost-touch").hidden = false;
    }
  }
  setTimeout(follow, EVERY);
}

at("stop").addEventListener("click", () => {
  asked = last.run.stop;
  at("sure").showModal();
});
at("no").addEventListener("click", () => at("sure").close());
at("yes").addEventListener("click", async () => {
  at("sure").close();
  const body = JSON.stringify({run: asked});
  const answer = await fetch("stop", {method: "POST", headers: {"Content-Type": "application/json"}, body});
  at("stop-says").textContent = (await answer.json()).says;
});
new ResizeObserver(() => { if (last && last.run) chart(last.run.score, last.run.rounds); }).observe(at("chart"));
follow();
