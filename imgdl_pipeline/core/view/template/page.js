"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const index = JSON.parse($("index").textContent);

  // ---- text of strangers: shown as it is, but for characters that hide or reorder what is around them
  const UNSEEN =
    /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]|\p{Surrogate}/gu;
  const plain = (text) =>
    String(text).replace(UNSEEN, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const number = (value) => value.toLocaleString("en");
  const many = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
  const bytes = (size) =>
    size < 1e3 ? `${size} B` : size < 1e6 ? `${Math.round(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`;
  const made = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  // ---- rows: an index of all, and blocks that are parsed when one of their rows is needed
  const value = (column, row) => index[column].values[index[column].rows[row]] ?? null;
  const BLOCKS_KEPT = 24;
  const blocks = new Map();

  function block(row) {
    const place = Math.floor(row / index.block);
    let found = blocks.get(place);
    if (!found) {
      const element = $(`block-${place}`);
      // while the page loads, a block is whole once something follows it
      if (!element || (!element.nextSibling && document.readyState === "loading")) return null;
      found = JSON.parse(element.textContent);
      if (blocks.size >= BLOCKS_KEPT) blocks.delete(blocks.keys().next().value);
    } else {
      blocks.delete(place);
    }
    blocks.set(place, found);
    return found;
  }

  function picture(row) {
    const found = block(row)?.pictures[row % index.block];
    if (!found) return null;
    const image = made("img");
    image.src = `data:image/webp;base64,${found}`;
    image.alt = plain(index.name[row]);
    image.draggable = false;
    return image;
  }

  const missing = (row) => block(row)?.missing[row % index.block];

  // ---- filters: each maps a row to the option that it belongs to
  const SIZES = [256, 512, 1024, 2048];
  const STATUSES = ["ok", "invalid", "failed", "refused"];
  const HOSTS_LISTED = 30;
  const NONE = "none";
  const OTHER = "other";

  const groupSizes = new Map();
  for (const group of index.group) if (group !== null) groupSizes.set(group, (groupSizes.get(group) ?? 0) + 1);
  // how many images of this gallery are in a row's group; a group may have its others elsewhere
  const company = (row) => groupSizes.get(index.group[row]) ?? 0;

  function size(row) {
    if (index.width[row] === null) return NONE;
    const side = Math.min(index.width[row], index.height[row]);
    return String(SIZES.filter((each) => side >= each).length);
  }

  const hostCounts = new Map();
  for (const host of index.host.rows) hostCounts.set(host, (hostCounts.get(host) ?? 0) + 1);
  const listedHosts = new Set(
    [...hostCounts].sort((one, two) => two[1] - one[1]).slice(0, HOSTS_LISTED).map(([host]) => host),
  );
  const codeOf = (column) => (row) => String(index[column].rows[row]);
  const labelOf = (column, none) => (code) => (code === "-1" ? none : plain(index[column].values[code]));

  const FACETS = {
    status: { of: codeOf("status"), label: labelOf("status") },
    reason: { of: codeOf("reason"), label: labelOf("reason", "no reason") },
    host: {
      of: (row) => (listedHosts.has(index.host.rows[row]) ? String(index.host.rows[row]) : OTHER),
      label: (code) => (code === OTHER ? "other hosts" : labelOf("host", "no host")(code)),
    },
    size: {
      of: size,
      label: (code) => {
        if (code === NONE) return "unknown";
        const [from, to] = [SIZES[code - 1], SIZES[code]];
        return to === undefined ? `${from} px and more` : from === undefined ? `under ${to} px` : `${from} to ${to - 1} px`;
      },
      order: true,
    },
    license_id: { of: codeOf("license_id"), label: labelOf("license_id", "unknown") },
    group: {
      of: (row) => (index.group[row] === null ? NONE : OTHER),
      label: (code) => (code === NONE ? "without" : "with near duplicates"),
    },
  };
  const chosen = { status: "", reason: "", host: "", size: "", license_id: "", group: "" };
  let onlyGroup = null;
  let words = [];

  // every order falls back on the rows' own, which is the newest first
  const byName = new Intl.Collator("en", { numeric: true });
  const area = (row) => (index.width[row] ?? 0) * (index.height[row] ?? 0);
  const groupKey = (row) => index.group[row] ?? Number.MAX_SAFE_INTEGER;
  const ORDERS = {
    newest: ["newest first", () => 0],
    pixels: ["most pixels first", (one, two) => area(two) - area(one)],
    bytes: ["largest files first", (one, two) => (index.bytes[two] ?? -1) - (index.bytes[one] ?? -1)],
    name: ["by name", (one, two) => byName.compare(index.name[one], index.name[two])],
    group: ["near duplicates together", (one, two) => groupKey(one) - groupKey(two)],
  };

  const haystack = [];
  const isSearched = (row) => {
    haystack[row] ??= `${index.name[row]}\n${index.url[row]}`.toLowerCase();
    return words.every((word) => haystack[row].includes(word));
  };

  const names = Object.keys(FACETS);
  let found = [];

  function filter() {
    const counts = Object.fromEntries(names.map((name) => [name, new Map()]));
    found = [];
    for (let row = 0; row < index.rows; row++) {
      if (words.length && !isSearched(row)) continue;
      const codes = names.map((name) => FACETS[name].of(row));
      const failing = names.filter(
        (name, place) =>
          (chosen[name] && chosen[name] !== codes[place]) ||
          (name === "group" && onlyGroup !== null && index.group[row] !== onlyGroup),
      );
      // an option counts the rows that it would show beside what the other filters say
      names.forEach((name, place) => {
        if (!failing.length || (failing.length === 1 && failing[0] === name)) {
          counts[name].set(codes[place], (counts[name].get(codes[place]) ?? 0) + 1);
        }
      });
      if (!failing.length) found.push(row);
    }
    const order = ORDERS[$("order").value][1];
    found.sort((one, two) => order(one, two) || one - two);
    return counts;
  }

  function options(name, counts) {
    const { label, order } = FACETS[name];
    const codes = [...counts.keys()];
    if (chosen[name] && !counts.has(chosen[name])) codes.push(chosen[name]);
    codes.sort((one, two) =>
      order ? Number(one === NONE) - Number(two === NONE) || one - two : (counts.get(two) ?? 0) - (counts.get(one) ?? 0),
    );
    const total = [...counts.values()].reduce((sum, each) => sum + each, 0);
    const listed = [["", `all (${number(total)})`]];
    for (const code of codes) listed.push([code, `${label(code)} (${number(counts.get(code) ?? 0)})`]);
    if (name === "group" && onlyGroup !== null) listed.push(["only", `group ${onlyGroup}`]);
    $(name).replaceChildren(
      ...listed.map(([code, text]) => Object.assign(made("option", text), { value: code })),
    );
    $(name).value = name === "group" && onlyGroup !== null ? "only" : chosen[name];
  }

  function statuses(counts) {
    const total = [...counts.values()].reduce((sum, each) => sum + each, 0);
    for (const chip of $("status").querySelectorAll(".chip")) {
      const code = chip.firstChild.value;
      chip.lastChild.textContent = number(code ? (counts.get(code) ?? 0) : total);
      chip.firstChild.checked = chosen.status === code;
    }
  }

  function makeStatuses() {
    const codes = index.status.values.map((_, code) => code);
    codes.sort((one, two) => STATUSES.indexOf(index.status.values[one]) - STATUSES.indexOf(index.status.values[two]));
    for (const code of ["", ...codes]) {
      const chip = made("label", undefined, "chip");
      const radio = Object.assign(made("input"), { type: "radio", name: "status", value: String(code) });
      const word = code === "" ? "all" : plain(index.status.values[code]);
      chip.append(radio, made("b", word, STATUSES.includes(word) ? word : ""), made("span"));
      $("status").append(chip);
    }
  }

  function refilter() {
    const counts = filter();
    for (const name of names) if (name !== "status") options(name, counts[name]);
    statuses(counts.status);
    const isAll = found.length === index.rows;
    $("count").textContent = isAll ? many(index.rows, "row") : `${number(found.length)} of ${many(index.rows, "row")}`;
    $("reset").hidden = isAll;
    $("nothing").hidden = found.length > 0;
    for (const tile of tiles.values()) tile.remove();
    tiles.clear();
    active = 0;
    layout();
    if (gridTop() < 0) window.scrollTo(0, window.scrollY + gridTop() - stuck());
    render();
  }

  // ---- the grid: only the tiles that are seen, and the one with the focus, are in the document
  const LEAST_SIDE = 150;
  const GAP = 10;
  const CAPTION = 46;
  const OVERSCAN = 1;
  const grid = $("grid");
  const tiles = new Map();
  let active = 0;
  let columns = 1;
  let side = LEAST_SIDE;
  let isDrawn = true;

  const rowHeight = () => side + CAPTION + GAP;
  const gridTop = () => grid.getBoundingClientRect().top;
  const stuck = () => (getComputedStyle($("filters")).position === "sticky" ? $("filters").offsetHeight : 0);

  function layout() {
    columns = Math.max(1, Math.floor((grid.clientWidth + GAP) / (LEAST_SIDE + GAP)));
    side = Math.floor((grid.clientWidth + GAP) / columns) - GAP;
    grid.style.height = `${Math.ceil(found.length / columns) * rowHeight()}px`;
    for (const [place, tile] of tiles) put(tile, place);
  }

  function put(tile, place) {
    const [left, top] = [(place % columns) * (side + GAP), Math.floor(place / columns) * rowHeight()];
    tile.style.transform = `translate(${left}px, ${top}px)`;
    tile.style.width = `${side}px`;
    tile.style.height = `${side + CAPTION}px`;
  }

  function facts(row) {
    if (index.width[row] === null) return plain(value("host", row) ?? "");
    const pixels = `${index.width[row]} × ${index.height[row]}`;
    return index.bytes[row] === null ? pixels : `${pixels} · ${bytes(index.bytes[row])}`;
  }

  function spoken(row) {
    const status = value("status", row);
    const alike = company(row) > 1 ? [`${company(row)} look alike`] : [];
    return status === "ok" ? [facts(row), ...alike] : [status, value("reason", row) ?? "", facts(row)];
  }

  function face(row) {
    const image = picture(row);
    if (image) {
      image.className = "face";
      return image;
    }
    const status = value("status", row);
    if (status !== "ok") return made("p", `${plain(status)}\n${plain(value("reason", row) ?? "")}`, `face ${STATUSES.includes(status) ? status : ""}`);
    if (block(row)) return made("p", `no picture: ${plain(missing(row) ?? "no file")}`, "face");
    return made("p", "", "face waiting");
  }

  function tile(place) {
    const row = found[place];
    const element = made("div", undefined, "tile");
    element.setAttribute("role", "option");
    element.setAttribute("aria-posinset", place + 1);
    element.setAttribute("aria-setsize", found.length);
    element.dataset.place = place;
    if (company(row) > 1) element.dataset.alike = company(row);
    element.setAttribute("aria-label", [index.name[row], ...spoken(row)].map(plain).join(", "));
    const name = made("p", plain(index.name[row]).replaceAll("\n", " "), "name");
    name.dataset.facts = facts(row);
    element.append(face(row), name);
    put(element, place);
    return element;
  }

  function seen() {
    const top = -gridTop();
    const first = Math.floor(top / rowHeight()) - OVERSCAN;
    const last = Math.floor((top + window.innerHeight) / rowHeight()) + OVERSCAN;
    return [Math.max(0, first * columns), Math.min(found.length, (last + 1) * columns)];
  }

  function render() {
    isDrawn = true;
    const [first, end] = seen();
    const hasFocus = grid.contains(document.activeElement);
    if (!hasFocus && (active < first || active >= end)) active = Math.max(0, Math.min(first + columns, end - 1));
    for (const [place, each] of tiles) {
      if ((place < first || place >= end) && place !== active) {
        each.remove();
        tiles.delete(place);
      }
    }
    const places = [];
    if (active < first && active < found.length) places.push(active);
    for (let place = first; place < end; place++) places.push(place);
    if (active >= end && active < found.length) places.push(active);
    let before = null;
    for (const place of places) {
      let each = tiles.get(place);
      if (!each) {
        each = tile(place);
        tiles.set(place, each);
        if (before) before.after(each);
        else grid.prepend(each);
      }
      each.tabIndex = place === active ? 0 : -1;
      before = each;
    }
  }

  function redraw() {
    if (isDrawn) {
      isDrawn = false;
      requestAnimationFrame(render);
    }
  }

  function fillWaiting() {
    for (const [place, each] of tiles) {
      if (each.querySelector(".waiting") && block(found[place])) each.firstChild.replaceWith(face(found[place]));
    }
    if (document.readyState === "loading") setTimeout(fillWaiting, 100);
  }

  function go(place) {
    active = Math.max(0, Math.min(found.length - 1, place));
    const top = gridTop() + Math.floor(active / columns) * rowHeight();
    const [least, most] = [stuck() + GAP, window.innerHeight - rowHeight()];
    if (top < least) window.scrollBy(0, top - least);
    else if (top > most) window.scrollBy(0, top - Math.max(least, most));
    render();
    tiles.get(active)?.focus({ preventScroll: true });
  }

  function steps() {
    const page = columns * Math.max(1, Math.floor((window.innerHeight - stuck()) / rowHeight()));
    return {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page,
      Home: -Infinity, End: Infinity,
    };
  }

  grid.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") show(active);
    else if (event.key in steps()) go(active + steps()[event.key]);
    else return;
    event.preventDefault();
  });
  grid.addEventListener("click", (event) => {
    const clicked = event.target.closest(".tile");
    if (clicked) show(Number(clicked.dataset.place));
  });
  grid.addEventListener("focusin", (event) => {
    const focused = event.target.closest(".tile");
    if (!focused || Number(focused.dataset.place) === active) return;
    active = Number(focused.dataset.place);
    for (const [place, each] of tiles) each.tabIndex = place === active ? 0 : -1;
  });

  // ---- the detail: a picture and its catalog row
  const dialog = $("detail");
  let shownPlace = 0;

  function show(place) {
    shownPlace = place;
    const row = found[place];
    const shown = picture(row) ?? made("p", plain(missing(row) ?? value("status", row) + " – there is no picture"));
    $("picture").replaceChildren(shown);
    $("place").textContent = `${number(place + 1)} of ${number(found.length)}`;
    $("detail-name").textContent = plain(index.name[row]);
    $("previous").disabled = place === 0;
    $("next").disabled = place === found.length - 1;
    const details = block(row)?.rows[row % index.block] ?? {};
    const status = value("status", row);
    const reason = value("reason", row) ?? "";
    const verdict = [[status, reason].filter(Boolean).join(": "), details.detail].filter(Boolean).join(" – ");
    $("verdict").textContent = plain(verdict);
    $("verdict").className = STATUSES.includes(status) ? status : "";
    $("link").replaceChildren(link(index.url[row]));
    $("alike").hidden = company(row) < 2;
    $("alike").textContent = `Show the ${many(company(row), "image")} that look alike`;
    $("values").replaceChildren(...values(details));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function link(url) {
    const isWhole = !url.includes("…") && URL.canParse(url);
    if (!isWhole || !["http:", "https:"].includes(new URL(url).protocol)) return made("span", plain(url));
    const anchor = made("a", plain(url));
    Object.assign(anchor, { href: url, rel: "noreferrer noopener", target: "_blank", referrerPolicy: "no-referrer" });
    return anchor;
  }

  const JSON_COLUMNS = ["attributes", "embedded", "exif", "opt_outs"];

  function values(details) {
    const columns = Object.keys(index.columns).filter((name) => name !== "url");
    const isEmpty = (name) => !(name in details) || ["{}", "[]"].includes(details[name]);
    const empty = columns.filter(isEmpty);
    const shown = columns.filter((name) => !isEmpty(name));
    const listed = shown.flatMap((name) => {
      const term = made("dt", name);
      term.title = index.columns[name];
      const described = made("dd");
      described.append(JSON_COLUMNS.includes(name) ? nested(details[name]) : text(details[name]));
      return [term, described];
    });
    return empty.length ? [...listed, made("dt", "empty"), made("dd", empty.join(", "), "quiet")] : listed;
  }

  const text = (each) => (typeof each === "number" && Number.isInteger(each) ? number(each) : plain(each));

  function nested(json) {
    let parsed;
    try {
      parsed = JSON.parse(json);
    } catch {
      return plain(json); // it was cut
    }
    return tree(parsed, 0);
  }

  function tree(each, depth) {
    if (each === null || typeof each !== "object") return plain(each);
    if (depth === 3) return plain(JSON.stringify(each));
    if (Array.isArray(each) && each.every((inner) => typeof inner !== "object")) return plain(each.join(", "));
    const list = made("dl");
    for (const [name, inner] of Object.entries(each)) {
      const described = made("dd");
      described.append(tree(inner, depth + 1));
      list.append(made("dt", plain(name)), described);
    }
    return list;
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    if (found[shownPlace + step] !== undefined) show(shownPlace + step);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => go(shownPlace));
  $("previous").addEventListener("click", () => show(shownPlace - 1));
  $("next").addEventListener("click", () => show(shownPlace + 1));
  $("close").addEventListener("click", () => dialog.close());
  $("alike").addEventListener("click", () => {
    const group = index.group[found[shownPlace]];
    reset();
    onlyGroup = group;
    refilter();
    shownPlace = 0;
    dialog.close();
  });

  // ---- the form
  function reset() {
    for (const name of names) chosen[name] = "";
    onlyGroup = null;
    words = [];
    $("search").value = "";
  }

  for (const name of names) {
    $(name).addEventListener("change", (event) => {
      if (name === "group") onlyGroup = null;
      chosen[name] = event.target.value;
      refilter();
    });
  }
  $("search").addEventListener("input", () => {
    words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    refilter();
  });
  $("order").addEventListener("change", refilter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("reset").addEventListener("click", (event) => {
    event.preventDefault();
    reset();
    refilter();
  });

  const isShort = index.rows < index.links;
  const what = isShort ? `the newest ${number(index.rows)} of ${many(index.links, "link")}` : many(index.links, "link");
  $("about").textContent = index.listed ? `${what}, last listed ${index.listed.slice(0, 10)}` : what;
  $("order").append(
    ...Object.entries(ORDERS).map(([name, [label]]) => Object.assign(made("option", label), { value: name })),
  );
  document.querySelector("details").open = window.innerWidth > 900;
  makeStatuses();
  refilter();
  fillWaiting();
  document.addEventListener("DOMContentLoaded", fillWaiting);
  window.addEventListener("scroll", redraw, { passive: true });
  window.addEventListener("resize", () => {
    layout();
    redraw();
  });
})();
