"use strict";
// The rows of a page: draws their cards as one scrolls, and filters, sorts and searches them. Texts of models and
// tables only ever become text nodes. `data` is what evaluation/pages/rows.py makes; `answers` has one entry a run.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const CHUNK = 20, MOST_PRINTED = 200, LONG = 300, UNPARSED = data.levels.length - 1, GRAVE = 3;
  const NO_REFERENCE = data.marks.findIndex((mark) => mark.name === "no reference");
  const find = (id) => document.getElementById(id);
  const cards = find("cards"), search = find("search"), sort = find("sort"), viewer = find("viewer");
  const byNumber = new Map(data.rows.map((row) => [row.n, row]));
  const drawnCards = new Map(), haystacks = new Map();
  const collator = new Intl.Collator("zh", { numeric: true });
  const DEFAULT_SORT = sort.options[0].value;
  let state = emptyState(), shown = [], numDrawn = 0, current = -1;

  function emptyState() { return { q: "", sort: DEFAULT_SORT, cell: "", set: "", marks: [] }; }

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  const english = (text) => make("span", "en", text);

  // --- which rows, in which order ---

  function haystack(row) {
    if (!haystacks.has(row.n)) {
      const texts = [row.id, row.group, row.label && row.label.text, row.level === null ? "" : data.levels[row.level]];
      texts.push(...Object.values(row.texts).map((one) => one.text));
      for (const answer of row.answers) texts.push(answer.raw.text, answer.error);
      haystacks.set(row.n, texts.filter(Boolean).join("\n").toLowerCase());
    }
    return haystacks.get(row.n);
  }

  function fits(row) {
    if (state.cell && `${row.level}-${row.answers[0].level}` !== state.cell) return false;
    if (state.marks.length) {
      const found = new Set(row.answers.flatMap((answer) => answer.marks.map((mark) => data.marks[mark].name)));
      if (!state.marks.some((mark) => (mark === "unmarked" ? !found.size : found.has(mark)))) return false;
    }
    return state.q.toLowerCase().split(/\s+/).every((word) => haystack(row).includes(word));
  }

  const largest = (row, key) => Math.max(...row.answers.map((answer) => answer[key] ?? -1));
  const smallest = (row, key) => Math.min(...row.answers.map((answer) => answer[key] ?? Infinity));
  // where one answer has no cost none has: the row lacks a reference
  const spread = (row, key) => (row.answers[0][key] === null ? 0 : largest(row, key) - smallest(row, key));
  const compare = (left, right) => (left < right ? -1 : left > right ? 1 : 0);

  function byMarks(left, right) {
    const [ours, theirs] = [left, right].map((row) => row.answers.map((answer) => [...answer.marks, 99]).sort()[0]);
    for (let place = 0; place < Math.min(ours.length, theirs.length); place++) {
      if (ours[place] !== theirs[place]) return ours[place] - theirs[place];
    }
    return 0;
  }

  const ORDERS = {
    worst: (left, right) => largest(right, "cost") - largest(left, "cost") || byMarks(left, right)
      || compare(smallest(left, "defect"), smallest(right, "defect")),
    apart: (left, right) => spread(right, "cost") - spread(left, "cost") || spread(right, "text") - spread(left, "text"),
    id: (left, right) => collator.compare(left.id, right.id),
    text: (left, right) => smallest(left, "text") - smallest(right, "text"),
    confidence: (left, right) => compare(smallest(left, "confidence"), smallest(right, "confidence")),
    row: () => 0,
  };

  function chosenRows() {
    // a set comes with its worst rows first, which is also what the first order is about
    const rows = state.set ? data.sets[state.set].map((number) => byNumber.get(number)) : data.rows;
    const found = rows.filter(fits);
    if (state.set && state.sort === DEFAULT_SORT) return found;
    return found.sort((left, right) => ORDERS[state.sort](left, right) || left.n - right.n);
  }

  // --- a row's card ---

  function pill(level) {
    if (level === UNPARSED) return tag(0);
    if (level === null) return tag(NO_REFERENCE);
    return make("span", `pill level${level}`, data.levels[level]);
  }

  function tag(index) {
    const mark = data.marks[index];
    const weight = index === NO_REFERENCE ? " plain" : index < GRAVE ? " grave" : "";
    return make("span", `tag${weight}`, mark.zh, english(mark.en));
  }

  function belief(probabilities) {
    const bar = make("span", "belief");
    bar.title = probabilities.map((share, level) => `${data.levels[level]} ${(100 * share).toFixed(1)}%`).join(" · ");
    probabilities.forEach((share, level) => {
      const part = make("i", `level${level}`);
      part.style.flex = `${share} 1 0`;
      bar.append(part);
    });
    return bar;
  }

  function facts(row, answer, withTruth) {
    const element = make("span", "facts");
    if (withTruth) element.append(pill(row.level), make("span", "arrow", "→"));
    // where either has no level, the tag that says so stands in the level's place
    element.append(pill(answer.level), ...answer.marks.filter((mark) => mark > 0 && mark !== NO_REFERENCE).map(tag));
    if (!answer.marks.length) element.append(make("span", "tag right", "未见错误", english("no mistake found")));
    if (answer.cost) element.append(make("span", "cost", `代价 ${answer.cost}`));
    if (answer.confidence !== null) element.append(make("span", "", `把握 ${(100 * answer.confidence).toFixed(0)}%`));
    if (answer.probabilities) element.append(belief(answer.probabilities));
    return element;
  }

  function text(className, whose, pieces, more) {
    const words = make("span", "");
    pieces.forEach((piece, place) => piece && words.append(place % 2 ? make("mark", "", piece) : piece));
    if (more) words.append(make("span", "cut", ` … 共 ${more.toLocaleString("en")} 字`));
    if (words.textContent.length > LONG) words.className = "long";
    return make("div", `text ${className}`, make("span", "whose", whose), words);
  }

  function answerText(row, answer, label, whose) {
    const field = answer.fields[label];
    if (field) return text("", whose, field.pieces, field.more);
    return text("absent", whose, [answer.error === null ? "（没有读到）" : "（没有回答）"], 0);
  }

  function truthText(row, label) {
    const field = row.answers.length === 1 ? row.answers[0].fields[label] : null;
    if (!row.texts[label]) return text("absent truth", "标准", ["（标准无法解析）"], 0);
    return text("truth", "标准", (field && field.truth) || [row.texts[label].text], row.texts[label].more);
  }

  function fields(row) {
    const several = data.runs.length > 0;
    const grid = make("div", several ? "fields several" : "fields", make("div", "head"));
    grid.style.setProperty("--columns", row.answers.length + 1);
    grid.append(several ? make("div", "head", "标准 ", pill(row.level))
      : make("div", "head", "标准 ", english("truth")));
    row.answers.forEach((answer, place) => grid.append(several
      ? make("div", "head of-run", make("b", "", data.runs[place]), make("br"), facts(row, answer, false))
      : make("div", "head of-run", "回答 ", english("answer"))));
    for (const label of data.fields) {
      grid.append(make("div", "label", label), truthText(row, label));
      row.answers.forEach((answer, place) => grid.append(answerText(row, answer, label, several ? data.runs[place] : "回答")));
    }
    return grid;
  }

  function notes(answer, name) {
    const element = make("div", "notes");
    const say = (zh, values) => values.length && element.append(make("span", "", `${zh}：${values.join("、")}`));
    say("缺少字段 missing", answer.notes.missing);
    say("多余字段 extra", answer.notes.extra);
    say("格式差异（已容忍）tolerated", answer.notes.tolerated);
    if (answer.finish && answer.finish !== "stop") say("结束原因 finish", [answer.finish]);
    if (name && element.childElementCount) element.prepend(make("span", "", name));
    return element.childElementCount ? element : null;
  }

  function rawAnswer(answer, name) {
    const raw = make("pre", "", answer.raw.text);
    if (answer.raw.more) raw.append(make("span", "cut", `\n… 共 ${answer.raw.more.toLocaleString("en")} 字`));
    return make("details", "", make("summary", "", name ? `原始回答 · ${name}` : "原始回答", " ", english("raw answer")), raw);
  }

  function footing(answer, name) {
    const failed = answer.error !== null;
    const why = failed ? `未能预测 failed：${answer.error}` : answer.reason ? `无法解析 unparsed：${answer.reason}` : "";
    return [
      why ? make("div", "wrong", name ? `${name} · ${why}` : why) : null,
      notes(answer, name),
      failed ? null : rawAnswer(answer, name),
    ].filter(Boolean);
  }

  function photos(row) {
    const strip = make("div", "photos");
    row.photos.forEach((source, place) => {
      const image = make("img");
      Object.assign(image, { loading: "lazy", decoding: "async", alt: `照片 ${row.id}`, src: source });
      const button = make("button", "photo", image);
      button.setAttribute("aria-label", `放大照片 ${row.id}`);
      button.addEventListener("click", () => { choose(shown.indexOf(row)); openViewer(row, place); });
      strip.append(button);
    });
    return strip;
  }

  function draw(row) {
    const identity = make("span", "identity", make("span", "id", row.id), row.group === null ? null : make("span", "group", row.group));
    const header = make("header", "", identity, data.runs.length ? null : facts(row, row.answers[0], true));
    const label = row.label === null ? null : make("div", "wrong", `标准不是一份报告 no report：${row.label.text}`);
    const feet = row.answers.flatMap((answer, place) => footing(answer, data.runs[place] || ""));
    const card = make("article", row.photos.length ? "row" : "row without", row.photos.length ? photos(row) : null,
      make("div", "", header, label, fields(row), make("div", "feet", ...feet)));
    card.dataset.row = row.n;
    card.tabIndex = -1;
    return card;
  }

  // --- the list of cards ---

  function drawUpTo(number) {
    const until = Math.min(number, shown.length), chunk = document.createDocumentFragment();
    for (; numDrawn < until; numDrawn++) {
      const row = shown[numDrawn];
      if (!drawnCards.has(row.n)) drawnCards.set(row.n, draw(row));
      chunk.append(drawnCards.get(row.n));
    }
    cards.append(chunk);
  }

  function show() {
    unmark();
    shown = chosenRows();
    numDrawn = 0;
    cards.replaceChildren();
    drawUpTo(CHUNK);
    find("nothing").hidden = shown.length > 0;
    find("count").textContent = `显示 ${shown.length.toLocaleString("en")} / ${data.rows.length.toLocaleString("en")} 行`;
    showControls();
    // a new observation reports at once where the end of the list is
    observer.unobserve(find("more"));
    observer.observe(find("more"));
  }

  const isOn = (kind, value) => (kind === "mark" ? state.marks.includes(value) : state[kind] === value);

  function showControls() {
    const active = find("active");
    active.replaceChildren();
    for (const button of document.querySelectorAll("[data-filter]")) {
      const on = isOn(button.dataset.filter, button.dataset.value);
      button.setAttribute("aria-pressed", on);
      if (on && button.dataset.label) {
        const off = make("button", "chip", `${button.dataset.label} ✕`);
        off.setAttribute("aria-pressed", "true");
        off.addEventListener("click", () => toggle(button.dataset.filter, button.dataset.value));
        active.append(off);
      }
    }
    find("clear").hidden = !(state.q || state.cell || state.set || state.marks.length);
    if (search.value !== state.q) search.value = state.q;
    sort.value = state.sort;
  }

  // --- the state, which a link can carry ---

  function readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    state = emptyState();
    state.q = given.get("q") || "";
    if (Object.hasOwn(ORDERS, given.get("sort"))) state.sort = given.get("sort");
    if ([...sort.options].every((option) => option.value !== state.sort)) state.sort = DEFAULT_SORT;
    if (/^[0-2]-[0-3]$/.test(given.get("cell"))) state.cell = given.get("cell");
    if (Object.hasOwn(data.sets, given.get("set"))) state.set = given.get("set");
    state.marks = given.getAll("mark").filter((mark) => mark === "unmarked" || data.marks.some((one) => one.name === mark));
    show();
  }

  function change(values) {
    Object.assign(state, values);
    const written = new URLSearchParams();
    for (const key of ["q", "cell", "set"]) if (state[key]) written.set(key, state[key]);
    if (state.sort !== DEFAULT_SORT) written.set("sort", state.sort);
    for (const mark of state.marks) written.append("mark", mark);
    history.replaceState(null, "", `#${written}`);
    show();
  }

  function toggle(kind, value) {
    const on = isOn(kind, value);
    if (kind === "mark") change({ marks: on ? state.marks.filter((mark) => mark !== value) : [...state.marks, value] });
    else change({ [kind]: on ? "" : value });
  }

  function clear() { change({ ...emptyState(), sort: state.sort }); }

  // --- the current card, by keyboard ---

  function unmark() {
    document.querySelector(".row.current")?.classList.remove("current");
    current = -1;
  }

  function choose(place) {
    if (!shown.length) return;
    const chosen = Math.min(Math.max(place, 0), shown.length - 1);
    unmark();
    current = chosen;
    drawUpTo(current + CHUNK / 2);
    const card = cards.children[current];
    card.classList.add("current");
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }

  function onEscape() {
    if (document.activeElement === search) search.blur();
    if (find("clear").hidden) unmark();
    else clear();
  }

  const KEYS = {
    "/": () => { search.focus(); search.select(); },
    j: () => choose(current + 1), k: () => choose(current - 1),
    ArrowDown: () => choose(current + 1), ArrowUp: () => choose(current - 1),
    Enter: () => cards.children[current].querySelectorAll("details").forEach((raw) => { raw.open = !raw.open; }),
    p: () => shown[current].photos.length && openViewer(shown[current], 0),
  };
  const NEED_A_CARD = ["ArrowDown", "ArrowUp", "Enter", "p"];

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (viewer.open) {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") stepViewer(event.key === "ArrowLeft" ? -1 : 1);
      return;
    }
    const target = event.target;
    if (event.key === "Escape") { event.preventDefault(); onEscape(); return; }
    if (target === search && event.key === "Enter") { event.preventDefault(); search.blur(); choose(0); return; }
    if (target.matches("input, select") || !Object.hasOwn(KEYS, event.key)) return;
    if (NEED_A_CARD.includes(event.key) && current < 0) return;
    if (event.key === "Enter" && target.matches("button, summary")) return;
    event.preventDefault();
    KEYS[event.key]();
  }

  // --- a photo, large ---

  let viewed = { row: null, place: 0 };

  function openViewer(row, place) {
    viewed = { row, place };
    stepViewer(0);
    viewer.showModal();
  }

  function stepViewer(by) {
    const { row } = viewed, count = row.photos.length;
    viewed.place = (viewed.place + by + count) % count;
    const image = viewer.querySelector("img");
    image.src = row.photos[viewed.place];
    image.alt = `照片 ${row.id}`;
    viewer.querySelector(".caption").textContent = count > 1 ? `${row.id} · ${viewed.place + 1} / ${count}` : row.id;
    for (const button of viewer.querySelectorAll("[data-step]")) button.hidden = count < 2;
  }

  function onViewerClick(event) {
    const step = event.target.closest("[data-step]");
    if (step) stepViewer(Number(step.dataset.step));
    else if (event.target === viewer || event.target.closest("[data-close]")) viewer.close();
  }

  // --- on paper ---

  function preparePrint() {
    drawUpTo(MOST_PRINTED);
    while (cards.children.length > MOST_PRINTED) { cards.lastChild.remove(); numDrawn--; }
    for (const image of cards.querySelectorAll("img")) image.loading = "eager";
    find("print-note").textContent = shown.length > MOST_PRINTED
      ? `只打印前 ${MOST_PRINTED} 行，共 ${shown.length.toLocaleString("en")} 行 · the first ${MOST_PRINTED} rows only` : "";
  }

  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting) || numDrawn >= shown.length) return;
    drawUpTo(numDrawn + CHUNK);
    observer.unobserve(find("more"));
    observer.observe(find("more"));
  }, { rootMargin: "1500px" });

  let typing = 0;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => change({ q: search.value }), 120);
  });
  sort.addEventListener("change", () => change({ sort: sort.value }));
  find("clear").addEventListener("click", clear);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-filter]");
    if (!button) return;
    toggle(button.dataset.filter, button.dataset.value);
    const top = cards.getBoundingClientRect().top;
    if (top > 0.7 * innerHeight) document.querySelector(".toolbar").scrollIntoView({ block: "start" });
  });
  cards.addEventListener("focusin", (event) => {
    const card = event.target.closest(".row"), place = [...cards.children].indexOf(card);
    if (place < 0 || place === current) return;
    unmark();
    current = place;
    card.classList.add("current");
  });
  viewer.addEventListener("click", onViewerClick);
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", readHash);
  addEventListener("beforeprint", preparePrint);
  readHash();
})();
