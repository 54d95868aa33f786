// Lines over the last hour, with axes, and a readout at a pointer or by the arrow keys.

import { clock, el, put, svg } from './text.js';

const HOUR = 3600e3;
const LEAST = 300e3; // shown even if the gateway has just begun
const HEIGHT = 200;
const TOP = 10;
const BOTTOM = 22;
const SIDE = 56;

function niceStep(most) {
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
}

export class Chart {
  // series: [{ name, field, tone, area }]; format: of a value; least: the axis goes so far at least
  constructor(root, { title, series, format, least }) {
    Object.assign(this, { title, series, format, least, points: [], at: null });
    this.time = el('span', { class: 'time' });
    this.figures = series.map((s) => el('span', { class: 'figure' }));
    this.picture = svg('svg', { class: 'chart', height: HEIGHT, role: 'img', tabindex: 0, 'aria-label': title });
    root.append(
      el('figcaption', {}, el('h3', {}, title), this.time),
      el('p', { class: 'legend' }, ...series.map((s, i) =>
        el('span', { class: `key ${s.tone}` }, svgKey(s.tone), s.name + ' ', this.figures[i]))),
      this.picture,
    );
    this.picture.addEventListener('pointermove', (e) => this.point(e.offsetX));
    this.picture.addEventListener('pointerdown', (e) => this.point(e.offsetX));
    this.picture.addEventListener('pointerleave', () => this.leave());
    this.picture.addEventListener('blur', () => this.leave());
    this.picture.addEventListener('keydown', (e) => this.key(e));
    new ResizeObserver(() => this.draw()).observe(this.picture);
    this.read();
  }

  show(points) {
    this.points = points;
    this.draw();
  }

  span() {
    const to = this.points.length ? this.points[this.points.length - 1].t : Date.now();
    const began = this.points.length ? this.points[0].t : to;
    return [to - Math.min(HOUR, Math.max(LEAST, to - began)), to];
  }

  x(t) {
    const [from, to] = this.span();
    return SIDE + ((this.width - SIDE - 8) * (t - from)) / (to - from);
  }

  draw() {
    this.width = this.picture.clientWidth;
    if (!this.width) return;
    const values = this.points.flatMap((p) => this.series.map((s) => p[s.field] ?? 0));
    const step = niceStep(Math.max(this.least, ...values) * 1.02);
    const top = Math.ceil(Math.max(this.least, ...values) / step) * step;
    const y = (v) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * v) / top;
    this.y = y;
    this.marks = svg('g', {});
    this.picture.setAttribute('viewBox', `0 0 ${this.width} ${HEIGHT}`);
    this.picture.replaceChildren(this.axes(y, top, step), ...this.lines(y), this.marks);
    this.read();
  }

  axes(y, top, step) {
    const g = svg('g', { class: 'axes' });
    const [from, to] = this.span();
    for (let v = 0; v <= top * 1.001; v += step) {
      g.append(svg('line', { x1: SIDE, x2: this.width - 8, y1: y(v), y2: y(v), class: v ? 'grid' : 'base' }));
      g.append(svg('text', { x: SIDE - 8, y: y(v) + 4, 'text-anchor': 'end' }, this.format(v).replace(/\.0(?=\u00a0)/, '')));
    }
    const most = this.width < 480 ? 4 : 7;
    const every = [1, 2, 5, 10, 20].find((m) => (to - from) / (m * 60e3) <= most) || 20;
    const first = new Date(from);
    first.setMinutes(Math.ceil((first.getMinutes() + 1) / every) * every, 0, 0);
    for (let t = first.getTime(); t <= to; t += every * 60e3) {
      const x = this.x(t);
      if (x < SIDE + 12 || x > this.width - 24) continue;
      g.append(svg('line', { x1: x, x2: x, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4, class: 'base' }));
      g.append(svg('text', { x, y: HEIGHT - 4, 'text-anchor': 'middle' }, clock(t, false)));
    }
    return g;
  }

  // A gap where nothing is known.
  lines(y) {
    const out = [];
    for (const s of this.series) {
      const runs = [];
      let run = null;
      for (const p of this.points) {
        if (p[s.field] === null || p[s.field] === undefined) run = null;
        else if (run) run.push(p);
        else runs.push((run = [p]));
      }
      const path = (r) => r.map((p, i) => `${i ? 'L' : 'M'}${this.x(p.t).toFixed(1)} ${y(p[s.field]).toFixed(1)}`).join('');
      if (s.area) {
        const d = runs.filter((r) => r.length > 1).map((r) =>
          `${path(r)}V${y(0)}H${this.x(r[0].t).toFixed(1)}Z`).join('');
        out.push(svg('path', { d, class: `area ${s.tone}` }));
      }
      out.push(svg('path', { d: runs.map(path).join(''), class: `line ${s.tone}` }));
      for (const r of runs.filter((one) => one.length === 1)) {
        out.push(svg('circle', { cx: this.x(r[0].t), cy: y(r[0][s.field]), r: 1.6, class: `dot ${s.tone}` }));
      }
    }
    return out;
  }

  point(x) {
    let best = null;
    this.points.forEach((p, i) => {
      if (best === null || Math.abs(this.x(p.t) - x) < Math.abs(this.x(this.points[best].t) - x)) best = i;
    });
    this.at = best === null ? null : this.points[best].t;
    this.read();
  }

  leave() {
    this.at = null;
    this.read();
  }

  key(e) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -6, PageDown: 6, Home: -1e9, End: 1e9 }[e.key];
    if (e.key === 'Escape') this.leave();
    if (!step || !this.points.length) return;
    const last = this.points.length - 1;
    const now = this.at === null ? last : this.points.findIndex((p) => p.t === this.at);
    this.at = this.points[Math.min(Math.max(now + step, 0), last)].t;
    e.preventDefault();
    this.read();
    const figures = this.series.map((s, i) => `${s.name} ${this.figures[i].textContent}`);
    this.picture.setAttribute('aria-label', `${this.title}, ${this.time.textContent}: ${figures.join(', ')}`);
  }

  read() {
    const p = this.at === null ? this.points[this.points.length - 1] : this.points.find((one) => one.t === this.at);
    put(this.time, p ? (this.at === null ? 'now' : clock(p.t)) : 'nothing yet');
    this.series.forEach((s, i) => put(this.figures[i], p ? this.format(p[s.field] ?? null) : ''));
    if (!this.marks) return;
    this.marks.replaceChildren();
    if (this.at === null || !p) return;
    const x = this.x(p.t);
    this.marks.append(svg('line', { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, class: 'cursor' }));
    for (const s of this.series) {
      if (p[s.field] === null || p[s.field] === undefined) continue;
      this.marks.append(svg('circle', { cx: x, cy: this.y(p[s.field]), r: 3.5, class: `dot ${s.tone}` }));
    }
  }
}

function svgKey(tone) {
  return svg('svg', { width: 22, height: 10, 'aria-hidden': 'true' },
    svg('path', { d: 'M1 5H21', class: `line ${tone}` }));
}
