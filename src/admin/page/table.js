// A table whose rows stay what they are while their figures change: by a key of each row.

import { el, put, putPath } from './text.js';

export class Table {
  // columns: [{ label, show(row) -> [text, title, mark], sort, wide, number, path }]
  // options: caption, empty (what is said without rows), key(row), onsort(name), detail(row, box), actions(row)
  constructor(root, columns, options) {
    Object.assign(this, { root, columns, options, rows: new Map(), open: new Map() });
    this.heads = columns.map((c) => el('th', { scope: 'col', class: c.number ? 'number' : null },
      c.sort ? el('button', { type: 'button', class: 'sort', onclick: () => options.onsort(c.sort) }, c.label) : c.label));
    this.body = el('tbody');
    this.empty = el('td', { colspan: columns.length, class: 'empty' });
    root.append(el('caption', {}, options.caption), el('thead', {}, el('tr', {}, ...this.heads)), this.body);
    this.say(options.waiting || 'One moment');
  }

  say(text) {
    put(this.empty, text);
    this.rows.clear();
    this.open.clear();
    this.body.replaceChildren(el('tr', { class: 'says' }, this.empty));
  }

  sorted(name) {
    this.columns.forEach((c, i) => {
      if (c.sort) this.heads[i].setAttribute('aria-sort', c.sort === name ? (c.up ? 'ascending' : 'descending') : 'none');
    });
  }

  show(list) {
    if (!list.length) {
      this.say(this.options.empty);
      return;
    }
    if (this.empty.isConnected) this.body.replaceChildren();
    const seen = new Set();
    let at = this.body.firstChild;
    for (const row of list) {
      const key = this.options.key(row);
      if (seen.has(key)) continue;
      seen.add(key);
      const tr = this.rows.get(key) || this.make(key);
      this.fill(tr, row);
      at = this.place(tr, at);
      const more = this.open.get(key);
      if (more) at = this.place(more, at);
    }
    for (const [key, tr] of this.rows) {
      if (seen.has(key)) continue;
      tr.remove();
      this.rows.delete(key);
      this.close(key);
    }
  }

  // Moved only if it stands elsewhere, so that what has the focus keeps it.
  place(tr, at) {
    if (tr === at) return at.nextSibling;
    this.body.insertBefore(tr, at);
    return at;
  }

  make(key) {
    const tr = el('tr');
    this.columns.forEach((c, i) => {
      const td = el('td', { 'data-label': c.label, class: c.number ? 'number' : c.wide ? 'wide' : null });
      if (i === 0 && this.options.detail) {
        td.append(el('button', { type: 'button', class: 'more', 'aria-expanded': 'false', onclick: () => this.toggle(key) },
          el('span', { class: 'clip' })));
      }
      tr.append(td);
    });
    this.rows.set(key, tr);
    return tr;
  }

  fill(tr, row) {
    tr.row = row;
    this.columns.forEach((c, i) => {
      const td = tr.children[i];
      if (c.node) {
        c.node(td, row);
        return;
      }
      const [text, title, mark] = c.show(row);
      const place = i === 0 && this.options.detail ? td.firstChild.firstChild : td;
      (c.path ? putPath : put)(place, text, title);
      if (mark !== undefined) td.dataset.mark = mark;
      else delete td.dataset.mark;
    });
  }

  toggle(key) {
    const tr = this.rows.get(key);
    if (this.open.has(key)) {
      this.close(key);
      return;
    }
    const box = el('td', { colspan: this.columns.length });
    const more = el('tr', { class: 'detail' }, box);
    this.open.set(key, more);
    tr.after(more);
    tr.querySelector('.more').setAttribute('aria-expanded', 'true');
    this.options.detail(tr.row, box);
  }

  close(key) {
    const more = this.open.get(key);
    if (more) more.remove();
    this.open.delete(key);
    const tr = this.rows.get(key);
    if (tr && tr.querySelector('.more')) tr.querySelector('.more').setAttribute('aria-expanded', 'false');
  }
}
