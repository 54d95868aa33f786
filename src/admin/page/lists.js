// Streams, tunnels, denials and dead letters: asked for while they are in view.

import { act, get } from './api.js';
import { Table } from './table.js';
import { age, byId, bytes, count, el, exact, facts, plural, put, since, span, when } from './text.js';

// --- asking again and again, for what can be seen -------------------------------------------------

const watched = new Map();
const eye = new IntersectionObserver((entries) => {
  for (const e of entries) {
    const w = watched.get(e.target);
    w.seen = e.isIntersecting;
    if (w.seen) w.now();
  }
}, { rootMargin: '200px' });

function watch(section, seconds, ask) {
  let asking = false;
  const w = { seen: false, due: 0, now: null };
  w.now = async () => {
    if (asking) return;
    asking = true;
    w.due = Date.now() + seconds * 1000;
    try {
      await ask();
    } catch {
      w.due = Date.now() + seconds * 1000; // the banner says that there is no connection
    }
    asking = false;
  };
  watched.set(section, w);
  eye.observe(section);
  return w;
}

// Each second, by who hears from the gateway.
export function tick() {
  if (document.hidden) return;
  for (const w of watched.values()) {
    if (w.seen && Date.now() >= w.due) w.now();
  }
}

export function again() {
  for (const w of watched.values()) w.due = 0;
}

// --- streams --------------------------------------------------------------------------------------

const FIRST = 15; // rows at the first, and how many more each time
const MORE = 50;
const MOST = 1000; // that the gateway gives
const streamView = { search: '', state: 'all', sort: 'backlog', limit: FIRST, time: null };

function streamError(s) {
  if (!s.last_error) return ['', null];
  const e = s.last_error;
  return [`${e.status ? `${e.status} ` : ''}${e.text || ''}`, when(e.time), 'bad'];
}

function detailOf(value) {
  if (value === null || value === undefined) return '\u2013';
  if (typeof value === 'object') return JSON.stringify(value);
  return String(value);
}

async function streamDetail(row, box) {
  const list = el('dl', { class: 'facts' });
  box.append(list);
  const show = (s) => facts(list, Object.entries(s).map(([k, v]) => [k.replaceAll('_', ' '), detailOf(v)]));
  show(row);
  try {
    show(await get('stream', { account: row.account, key: row.key }));
  } catch (e) {
    box.append(el('p', { class: 'note' }, e.message));
  }
}

function retryTitle(s) {
  if (s.in_flight) return 'a delivery is under way';
  return typeof s.retry_in_seconds === 'number' ? `next try in ${span(s.retry_in_seconds)}` : null;
}

// The account stands beside it. What tells one stream from the next is at the end of its key.
function shortKey(s) {
  const own = `accountId:${s.account}/`;
  const key = [...(s.key.startsWith(own) ? `\u2026/${s.key.slice(own.length)}` : s.key)];
  return key.length > 150 ? [...key.slice(0, 40), '\u2026', ...key.slice(-105)].join('') : key.join('');
}

function waiting(s) {
  const logs = s.blobs_waiting ? plural(s.blobs_waiting, 'log', 'logs') : '';
  if (!logs) return count(s.backlog_lines);
  return s.backlog_lines ? `${count(s.backlog_lines)} + ${logs}` : logs;
}

const streamColumns = [
  { label: 'Stream', wide: true, path: true, sort: 'name', up: true, show: (s) => [shortKey(s), `${s.account} / ${s.key}`] },
  { label: 'Account', show: (s) => [s.account] },
  { label: 'State', show: (s) => [s.state, retryTitle(s), s.state] },
  { label: 'Opened', number: true, sort: 'age', show: (s) => [age(since(s.opened, streamView.time)), when(s.opened)] },
  { label: 'Last call', number: true, sort: 'idle', show: (s) => [age(since(s.last_call, streamView.time)), when(s.last_call)] },
  {
    label: 'Waiting',
    number: true,
    sort: 'backlog',
    show: (s) => [waiting(s), `${exact(s.backlog_lines)} lines, ${bytes(s.backlog_bytes)}`,
      s.backlog_lines || s.blobs_waiting ? 'wait' : undefined],
  },
  { label: 'For', number: true, show: (s) => [s.oldest ? age(since(s.oldest, streamView.time)) : '', s.oldest ? when(s.oldest) : null] },
  { label: 'Route', show: (s) => [s.route || ''] },
  { label: 'Last error', wide: true, show: streamError },
];

export function startStreams() {
  const section = byId('streams');
  const more = byId('stream-more');
  let w = null;
  let asked = 0;
  const table = new Table(byId('stream-table'), streamColumns, {
    caption: 'Log streams',
    empty: 'No stream fits.',
    key: (s) => JSON.stringify([s.account, s.key]),
    detail: streamDetail,
    onsort: order,
  });
  function order(name) {
    streamView.sort = name;
    table.sorted(name);
    byId('stream-sort').value = name;
    change();
  }
  async function ask() {
    const mine = ++asked;
    const { search, state, sort, limit } = streamView;
    const a = await get('streams', { search, state, sort, limit });
    if (mine !== asked) return; // another question was put meanwhile
    streamView.time = Date.now();
    table.options.empty = search || state !== 'all' ? 'No stream fits.' : 'No streams are known.';
    table.show(a.streams);
    put(byId('stream-count'), `${count(a.matched)} of ${plural(a.known, 'stream', 'streams')}`);
    more.hidden = !a.next || limit >= MOST;
  }
  async function change() {
    try {
      await ask();
    } catch (e) {
      table.say(e.message);
    }
  }
  let later = null;
  byId('search').addEventListener('input', (e) => {
    streamView.search = e.target.value;
    clearTimeout(later);
    later = setTimeout(change, 200);
  });
  byId('stream-search').addEventListener('submit', (e) => {
    e.preventDefault();
    change();
  });
  byId('stream-state').addEventListener('change', (e) => {
    streamView.state = e.target.value;
    change();
  });
  byId('stream-sort').addEventListener('change', (e) => order(e.target.value));
  more.addEventListener('click', () => {
    streamView.limit = Math.min(streamView.limit + MORE, MOST);
    change();
  });
  table.sorted(streamView.sort);
  w = watch(section, 3, ask);
  return w;
}

// --- tunnels --------------------------------------------------------------------------------------

function tunnelTable(id, by) {
  return new Table(byId(id), [
    { label: by === 'destination' ? 'Destination' : 'Identity', wide: true, show: (g) => [g.name || 'without'] },
    { label: 'Open', number: true, show: (g) => [count(g.open), exact(g.open)] },
    { label: 'Up', number: true, show: (g) => [bytes(g.bytes_up), exact(g.bytes_up)] },
    { label: 'Down', number: true, show: (g) => [bytes(g.bytes_down), exact(g.bytes_down)] },
    { label: 'Oldest', number: true, show: (g) => [age(g.oldest_seconds), exact(g.oldest_seconds)] },
  ], { caption: `Tunnels by ${by}`, empty: 'No tunnel is open.', key: (g) => g.name });
}

export function startTunnels() {
  const tables = { destination: tunnelTable('tunnel-destinations', 'destination'),
    identity: tunnelTable('tunnel-identities', 'identity') };
  watch(byId('tunnels'), 4, async () => {
    for (const [by, table] of Object.entries(tables)) {
      const a = await get('tunnels', { by, limit: 50 });
      table.show(a.groups);
      put(byId('tunnel-count'), a.open ? `${plural(a.open, 'is', 'are')} open.` : 'None is open.', exact(a.open));
    }
  });
}

// --- denials --------------------------------------------------------------------------------------

export function startDenials() {
  const table = new Table(byId('denial-table'), [
    { label: 'Last', show: (d) => [when(d.time), d.time] },
    { label: 'Who', wide: true, show: (d) => [d.identity ? `${d.identity} (${d.client})` : d.client || ''] },
    { label: 'Destination', wide: true, show: (d) => [d.destination || ''] },
    { label: 'Rule', show: (d) => [d.rule || ''] },
    { label: 'Why', wide: true, show: (d) => [d.reason || ''] },
    { label: 'Verdict', show: (d) => [d.verdict === 'would-deny' ? 'would be denied' : 'denied', null,
      d.verdict === 'would-deny' ? 'wait' : 'bad'] },
    { label: 'Times', number: true, show: (d) => [count(d.count), exact(d.count)] },
  ], {
    caption: 'The latest denials',
    empty: 'Nothing was denied.',
    key: (d) => JSON.stringify([d.client, d.identity, d.listener, d.kind, d.destination, d.rule, d.reason, d.verdict]),
  });
  watch(byId('denials'), 4, async () => {
    const a = await get('denials', { limit: 50 });
    table.show(a.denials);
    put(byId('denial-count'), `${plural(a.denied, 'passage was', 'passages were')} denied since the start`
      + `${a.would_deny ? `, ${count(a.would_deny)} would have been` : ''}. The latest, repeated ones together:`, exact(a.denied));
  });
}

// --- dead letters ---------------------------------------------------------------------------------

async function letterDetail(row, box) {
  try {
    const a = await get(`dead/${row.id}`);
    for (const text of [...a.explanation, a.advice]) box.append(el('p', {}, text));
  } catch (e) {
    box.append(el('p', { class: 'note' }, e.message));
  }
}

function letterActions(td, row, done) {
  const mine = `${row.id}`;
  if (td.dataset.letter === mine) return;
  td.dataset.letter = mine;
  const button = (text, path, question) => el('button', { type: 'button', onclick: () => done(path, question) }, text);
  td.replaceChildren(
    button('Replay', `dead/${row.id}/replay`, null), ' ',
    button('Drop', `dead/${row.id}/drop`, `Give up dead letter ${row.id}? What is in it is lost.`));
}

export function startDead(canAct, run) {
  const columns = [
    { label: 'Letter', show: (d) => [`${d.id}`] },
    { label: 'Stream', wide: true, show: (d) => [`${d.account} / ${d.key}`] },
    { label: 'What', show: (d) => [d.kind === 'lines' ? plural(d.lines, 'line', 'lines') : d.kind === 'blob' ? 'finished log' : d.kind,
      `${exact(d.bytes)} bytes`] },
    { label: 'Since', show: (d) => [when(d.buried), d.buried] },
    { label: 'Why', wide: true, show: (d) => [`${d.status ? `${d.status} ` : ''}${d.reason || ''}`, null, 'bad'] },
    { label: 'Replays', number: true, show: (d) => [count(d.replays)] },
  ];
  let w = null;
  if (canAct) {
    columns.push({ label: 'Decide', node: (td, row) => letterActions(td, row, async (path, question) => {
      await run(() => act(path), question);
      w.now();
    }) });
  }
  const table = new Table(byId('dead-table'), columns, {
    caption: 'Dead letters', empty: 'There are none.', key: (d) => d.id, detail: letterDetail,
  });
  w = watch(byId('dead'), 6, async () => {
    table.show((await get('dead')).letters);
  });
}
