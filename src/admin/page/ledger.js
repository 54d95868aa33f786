// The ledger as a picture: one channel that parts. Each state has a row, however small it is.

import { count, el, exact, percent, put, svg } from './text.js';

const BAR = 128; // height of all together
const ROW = 32; // least height of a row
const LEFT = 10; // width of the bars

const KINDS = {
  lines: {
    title: 'Lines',
    states: [
      ['delivered', 'flow', 'Upstream has confirmed them.'],
      ['spooled', 'wait', 'They are safe on the disk and wait for their delivery.'],
      ['superseded', 'calm', 'The finished log of their stream was stored, and it has them.'],
      ['settled', 'calm', 'Upstream had lost them; they were added to the stored log afterwards.'],
      ['late', 'calm', 'They came after their stream was closed.'],
      ['refused', 'bad', 'The client was told so: the spool was full.'],
      ['dead', 'bad', 'Upstream refuses them for good. They are kept as dead letters until somebody decides.'],
    ],
  },
  blobs: {
    title: 'Finished logs',
    states: [
      ['delivered', 'flow', 'They are stored upstream.'],
      ['spooled', 'wait', 'They are safe on the disk and wait for their upload.'],
      ['repeated', 'calm', 'The client sent the same log again.'],
      ['broken', 'calm', 'A broken retry of a client, empty or cut; what is stored was kept.'],
      ['dead', 'bad', 'Upstream refuses them for good. They are kept as dead letters until somebody decides.'],
    ],
  },
};

const ACCEPTED = 'Accepted: acknowledged to a client. Point at a state, or go to it by the Tab key, to see what it means.';

function heights(values, all) {
  const shown = values.map((v) => (v > 0 && all > 0 ? Math.max((BAR * v) / all, 2.5) : 0));
  const sum = shown.reduce((a, b) => a + b, 0);
  return sum > 0 ? shown.map((h) => (h * BAR) / sum) : shown;
}

function band(x0, x1, a, b, h) {
  const mid = (x0 + x1) / 2;
  return `M${x0} ${a}C${mid} ${a} ${mid} ${b} ${x1} ${b}V${b + h}C${mid} ${b + h} ${mid} ${a + h} ${x0} ${a + h}Z`;
}

export class Ledger {
  constructor(root, kind) {
    this.kind = KINDS[kind];
    this.picture = svg('svg', { 'aria-hidden': 'true', class: 'channel' });
    this.total = el('strong');
    this.note = el('p', { class: 'note', id: `note-${kind}` }, ACCEPTED);
    this.rows = this.kind.states.map(([name, tone, text]) => this.makeRow(kind, name, tone, text));
    this.list = el('ul', { class: 'states' }, ...this.rows.map((r) => r.item));
    root.append(
      el('figcaption', {}, el('h3', {}, this.kind.title), el('span', { class: 'total' }, this.total, ' accepted')),
      el('div', { class: 'channel-box' }, this.picture, this.list),
      this.note,
    );
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }

  makeRow(kind, name, tone, text) {
    const share = el('span', { class: 'share' });
    const figure = el('span', { class: 'figure', 'data-figure': `${kind}-${name}` });
    const item = el('li', { tabindex: '0', class: `state ${tone}`, 'aria-describedby': `note-${kind}` },
      el('span', { class: 'name' }, name), share, figure);
    const say = () => put(this.note, `${name[0].toUpperCase()}${name.slice(1)}: ${text[0].toLowerCase()}${text.slice(1)}`);
    const rest = () => put(this.note, ACCEPTED);
    item.addEventListener('focus', say);
    item.addEventListener('pointerenter', say);
    item.addEventListener('blur', rest);
    item.addEventListener('pointerleave', rest);
    return { name, tone, item, share, figure };
  }

  show(values) {
    this.values = values || {};
    const all = this.values.accepted;
    put(this.total, count(all), exact(all));
    for (const r of this.rows) {
      const v = this.values[r.name];
      put(r.figure, count(v), exact(v));
      put(r.share, v > 0 ? percent(v, all) : '');
      r.item.classList.toggle('none', !v);
    }
    this.draw();
  }

  draw() {
    const width = this.picture.clientWidth;
    if (!width || !this.values) return;
    const all = this.values.accepted || 0;
    const hs = heights(this.rows.map((r) => this.values[r.name] || 0), all);
    const rows = hs.map((h) => Math.max(ROW, Math.ceil(h) + 8));
    const total = rows.reduce((a, b) => a + b, 0);
    const parts = [];
    let from = (total - BAR) / 2;
    let to = 0;

    parts.push(svg('rect', { x: 0, y: from, width: LEFT, height: BAR, rx: 2, class: all ? 'all' : 'empty' }));
    this.rows.forEach((r, i) => {
      const y = to + (rows[i] - hs[i]) / 2;
      if (hs[i]) {
        parts.push(svg('path', { d: band(LEFT, width - LEFT, from, y, hs[i]), class: `band ${r.tone}` }));
        parts.push(svg('rect', { x: width - LEFT, y, width: LEFT, height: hs[i], rx: Math.min(2, hs[i] / 2), class: r.tone }));
      } else {
        parts.push(svg('rect', { x: width - LEFT, y: to + rows[i] / 2 - 0.5, width: LEFT, height: 1, class: 'empty' }));
      }
      r.item.style.height = `${rows[i]}px`;
      from += hs[i];
      to += rows[i];
    });
    this.picture.setAttribute('viewBox', `0 0 ${width} ${total}`);
    this.picture.style.height = `${total}px`;
    this.picture.replaceChildren(...parts);
  }
}
