// Elements and figures. Text only ever becomes text: nothing here, or anywhere on this page, makes
// markup of what came from outside.

const NONE = '\u2013';
const SPACE = '\u00a0';
const SVG = 'http://www.w3.org/2000/svg';

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'class') node.className = value;
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

export function svg(tag, props = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

export function byId(id) {
  return document.getElementById(id);
}

// Only what differs is touched: a selection, or a reader's place, stays.
export function put(node, text, title) {
  if (node.textContent !== text) node.textContent = text;
  if (title === undefined || title === null) node.removeAttribute('title');
  else if (node.title !== String(title)) node.title = String(title);
}

// The same, with places after slashes where a line may break.
export function putPath(node, text, title) {
  if (node.textContent !== text) node.replaceChildren(...(text.match(/[^/]*\/|[^/]+/g) || []).flatMap((part) => [part, el('wbr')]));
  put(node, text, title);
}

function known(n) {
  return typeof n === 'number' && Number.isFinite(n);
}

export function exact(n) {
  return known(n) ? n.toLocaleString('en-US', { maximumFractionDigits: 3 }) : null;
}

// 9,421; 12.3 k; 1.2 M
export function count(n) {
  if (!known(n)) return NONE;
  const size = Math.abs(n);
  if (size < 10000) return Math.round(n).toLocaleString('en-US');
  for (const [unit, of] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) {
    if (size >= of * 0.99995) return (n / of).toFixed(size >= of * 99.95 ? 0 : 1) + SPACE + unit;
  }
  return String(n);
}

export function rate(n) {
  if (!known(n)) return NONE;
  return (n > 0 && n < 10 ? n.toFixed(1) : count(n)) + '/s';
}

export function bytes(n) {
  if (!known(n)) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (Math.abs(n) >= 1024 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return (at && Math.abs(n) < 100 ? n.toFixed(1) : Math.round(n).toLocaleString('en-US')) + SPACE + units[at];
}

// 0.4 ms; 12 s; 3 h 20 min
export function span(seconds) {
  if (!known(seconds)) return NONE;
  const s = Math.abs(seconds);
  const parts = (big, bigUnit, small, smallUnit) =>
    big + SPACE + bigUnit + (small ? ' ' + small + SPACE + smallUnit : '');
  let text;
  if (s === 0) text = '0' + SPACE + 's';
  else if (s < 0.01) text = (s * 1000).toFixed(1) + SPACE + 'ms';
  else if (s < 0.9995) text = Math.round(s * 1000) + SPACE + 'ms';
  else if (s < 10) text = s.toFixed(1) + SPACE + 's';
  else if (s < 60) text = Math.floor(s) + SPACE + 's';
  else if (s < 3600) text = parts(Math.floor(s / 60), 'min', Math.floor(s % 60), 's');
  else if (s < 86400) text = parts(Math.floor(s / 3600), 'h', Math.floor((s % 3600) / 60), 'min');
  else text = parts(Math.floor(s / 86400), 'd', Math.floor((s % 86400) / 3600), 'h');
  return seconds < 0 ? '\u2212' + text : text;
}

// Of something that goes on: no fractions that flicker.
export function age(seconds) {
  return known(seconds) && seconds < 10 ? Math.floor(Math.max(seconds, 0)) + SPACE + 's' : span(seconds);
}

export function percent(part, whole) {
  if (!known(part) || !known(whole) || whole <= 0) return '';
  const p = (100 * part) / whole;
  if (part > 0 && p < 0.01) return '<' + SPACE + '0.01' + SPACE + '%';
  if (part < whole && p > 99.99) return '>' + SPACE + '99.99' + SPACE + '%';
  return (p > 0 && p < 10 ? p.toFixed(2) : p.toFixed(p > 99 && p < 100 ? 2 : 1)).replace(/\.0+$/, '') + SPACE + '%';
}

const two = (n) => String(n).padStart(2, '0');

export function clock(time, seconds = true) {
  const d = new Date(time);
  if (Number.isNaN(d.getTime())) return NONE;
  return two(d.getHours()) + ':' + two(d.getMinutes()) + (seconds ? ':' + two(d.getSeconds()) : '');
}

export function when(time) {
  if (!time) return NONE;
  const d = new Date(time);
  if (Number.isNaN(d.getTime())) return NONE;
  if (d.toDateString() === new Date().toDateString()) return clock(d);
  const day = d.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
  const year = d.getFullYear() === new Date().getFullYear() ? '' : ' ' + d.getFullYear();
  return day + year + ' ' + clock(d, false);
}

export function since(time, now) {
  return time ? (new Date(now) - new Date(time)) / 1000 : null;
}

export function plural(n, one, many) {
  return count(n) + ' ' + (n === 1 ? one : many);
}

// What a list of facts shows: [name, text, title] each.
export function facts(list, rows) {
  rows.forEach(([name, text, title, mark], i) => {
    let box = list.children[i];
    if (!box) {
      box = el('div', {}, el('dt'), el('dd'));
      list.append(box);
    }
    put(box.children[0], name);
    put(box.children[1], text, title);
    box.className = mark || '';
  });
  while (list.children.length > rows.length) list.lastChild.remove();
}
