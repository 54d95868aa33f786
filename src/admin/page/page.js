// The page: what the gateway sends each second, and what is said of it.

import { act, get } from './api.js';
import { Chart } from './charts.js';
import { Ledger } from './ledger.js';
import { again, startDead, startDenials, startStreams, startTunnels, tick } from './lists.js';
import { Table } from './table.js';
import {
  age, byId, bytes, clock, count, el, exact, facts, percent, plural, put, rate, since, span, when,
} from './text.js';

const STALE_MS = 5000; // five events missed
const RETRY_MS = 2000;
const POINTS = 361;

const ledgers = { lines: new Ledger(byId('ledger-lines'), 'lines'), blobs: new Ledger(byId('ledger-blobs'), 'blobs') };
const charts = [
  new Chart(byId('chart-lines'), {
    title: 'Lines a second',
    series: [{ name: 'in', field: 'lines_in', tone: 'in', area: true }, { name: 'out', field: 'lines_out', tone: 'out' }],
    format: (v) => (v !== null && v > 0 && v < 10 ? v.toFixed(v < 1 ? 2 : 1) : count(v)),
    least: 1,
  }),
  new Chart(byId('chart-ack'), {
    title: 'Time to acknowledge a call',
    series: [{ name: '99 of 100 within', field: 'ack_p99_seconds', tone: 'high' },
      { name: 'half of them within', field: 'ack_p50_seconds', tone: 'in' }],
    format: (v) => span(v),
    least: 0.005,
  }),
  new Chart(byId('chart-spool'), {
    title: 'Lines that wait',
    series: [{ name: 'waiting', field: 'spooled_lines', tone: 'wait', area: true }],
    format: count,
    least: 10,
  }),
];

// --- the verdict ----------------------------------------------------------------------------------

const HEADLINES = { critical: 'This needs you now', warning: 'This needs a look', none: 'All is well' };
const ORDER = { critical: 0, warning: 1, info: 2 };

function level(s) {
  const worst = Math.min(2, ...s.problems.map((p) => ORDER[p.severity] ?? 2));
  return ['critical', 'warning', 'none'][worst];
}

// What happens to lines now, in one sentence.
function summary(s) {
  const waits = s.ledger.lines.spooled || 0;
  const { lines_in: into, lines_out: out } = s.rates;
  const down = s.upstreams.some((u) => u.state === 'down');

  if (waits && down) {
    const room = s.spool.full_in_seconds === null ? '' : `; at this pace there is room for ${span(s.spool.full_in_seconds)}`;
    const well = s.spool.failing || s.spool.bytes > 0.9 * s.spool.limit_bytes ? '' : ' Builds notice nothing.';
    return `${plural(waits, 'line waits', 'lines wait')} on the disk until upstream is back${room}.${well}`;
  }
  if (waits && out > into && waits / (out - into) >= 5) {
    return `Catching up: ${plural(waits, 'line waits', 'lines wait')}, done in about ${span(waits / (out - into))}.`;
  }
  if (into >= 0.05) {
    return `${plural(into, 'line comes', 'lines come')} in each second, ${count(out)} go out, and ${waits ? `${count(waits)} are on their way` : 'nothing waits'}.`;
  }
  return waits ? `${plural(waits, 'line is', 'lines are')} on their way.` : 'Nobody logs at the moment, and nothing waits.';
}

function showProblems(list) {
  const sorted = [...list].sort((a, b) => (ORDER[a.severity] ?? 2) - (ORDER[b.severity] ?? 2));
  const root = byId('problems');
  sorted.forEach((p, i) => {
    let item = root.children[i];
    if (!item) {
      item = el('li', {}, el('span', { class: 'severity' }), el('p'), el('code', { class: 'runbook' }));
      root.append(item);
    }
    item.className = p.severity;
    put(item.children[0], p.severity);
    put(item.children[1], p.text, p.since ? `since ${when(p.since)}` : null);
    put(item.children[2], p.runbook ? `docs/operations.md${p.runbook}` : p.name, 'the section of the runbook that says what to do');
  });
  while (root.children.length > sorted.length) root.lastChild.remove();
}

function showVerdict(s) {
  const how = s.state === 'serving' ? level(s) : 'warning';
  const words = { draining: 'It is draining, and then ends', 'handing over': 'It hands over to another process' };
  const headline = words[s.state] || HEADLINES[how];

  byId('verdict').className = `verdict ${how}`;
  put(byId('headline'), headline);
  put(byId('summary'), summary(s) + (s.ready ? '' : ` Not ready: ${(s.not_ready || []).join('; ')}.`));
  showProblems(s.problems);
  document.title = `${how === 'none' ? '' : how === 'critical' ? '(!!) ' : '(!) '}tailrace: ${headline.toLowerCase()}`;
  facts(byId('glance'), [
    ['lines in', rate(s.rates.lines_in), exact(s.rates.lines_in)],
    ['lines out', rate(s.rates.lines_out), exact(s.rates.lines_out)],
    ['waiting', count(s.ledger.lines.spooled), exact(s.ledger.lines.spooled), s.ledger.lines.spooled ? 'wait' : ''],
    ['oldest waits for', s.spool.oldest_seconds === null ? '\u2013' : age(s.spool.oldest_seconds), exact(s.spool.oldest_seconds)],
    ['99 of 100 calls within', span(s.rates.ack_p99_seconds), exact(s.rates.ack_p99_seconds)],
    ['dead letters', count(s.dead_letters), exact(s.dead_letters), s.dead_letters ? 'bad' : ''],
  ]);
}

// --- spool and upstreams --------------------------------------------------------------------------

const gauge = el('div', { class: 'fill' });
const gaugeText = el('p', { class: 'reading' });
byId('gauge').append(gaugeText, el('div', { class: 'tube', role: 'img', 'aria-label': 'how full the spool is' }, gauge,
  el('span', { class: 'at80', title: '80 %' }), el('span', { class: 'at90', title: '90 %' })),
el('div', { class: 'scale', 'aria-hidden': 'true' }, el('span', {}, '0'), el('span', { class: 's80' }, '80'), el('span', { class: 's90' }, '90 %')));

function showSpool(s) {
  const p = s.spool;
  const share = p.limit_bytes ? p.bytes / p.limit_bytes : 0;

  gauge.style.width = `${Math.min(100, share * 100)}%`;
  gauge.parentNode.dataset.level = share >= 0.9 ? 'bad' : share >= 0.8 ? 'wait' : 'calm';
  put(gaugeText, `${bytes(p.bytes)} of ${bytes(p.limit_bytes)}${p.bytes ? `, ${percent(p.bytes, p.limit_bytes)}` : ''}`,
    `${exact(p.bytes)} bytes`);
  facts(byId('spool-facts'), [
    ['full in', p.full_in_seconds === null ? 'not at this pace' : span(p.full_in_seconds), exact(p.full_in_seconds),
      p.full_in_seconds !== null && p.full_in_seconds < 14400 ? 'bad' : ''],
    ['oldest waits for', p.oldest_seconds === null ? 'nothing waits' : age(p.oldest_seconds), exact(p.oldest_seconds)],
    ['room', bytes(p.room_bytes), exact(p.room_bytes)],
    ['free on its disk', bytes(p.disk_free_bytes), exact(p.disk_free_bytes)],
    ['made durable', p.failing ? 'failing: records are refused' : 'yes', null, p.failing ? 'bad' : ''],
    ['sealed', p.sealed ? 'yes' : 'no'],
    ['set aside', count(p.set_aside) + (p.set_aside_bytes ? ` (${bytes(p.set_aside_bytes)})` : ''), exact(p.set_aside),
      p.set_aside ? 'wait' : ''],
    ['written since the start', bytes(p.written_bytes), exact(p.written_bytes)],
  ]);
}

let now = null; // the gateway's

const upstreams = new Table(byId('upstream-table'), [
  { label: 'Host', wide: true, show: (u) => [u.host] },
  { label: 'For', show: (u) => [u.kind === 'object-store' ? 'finished logs' : 'log service'] },
  { label: 'State', show: (u) => [u.state, null, u.state] },
  { label: 'Under way', number: true, show: (u) => [`${count(u.in_flight)} of ${count(u.limit)}`, 'requests; of as many as the limiter allows now'] },
  { label: 'Next probe', number: true, show: (u) => [u.waiting_for_seconds === null ? '' : `in ${span(u.waiting_for_seconds)}`] },
  { label: 'Last success', number: true, show: (u) => [u.last_success ? `${age(since(u.last_success, now))} ago` : 'none yet', u.last_success] },
  {
    label: 'Last error',
    wide: true,
    show: (u) => (u.last_error ? [`${when(u.last_error.time)}: ${u.last_error.text}`, u.last_error.time, u.state === 'healthy' ? undefined : 'bad'] : ['']),
  },
], { caption: 'Upstream hosts', empty: 'Nothing has been delivered yet.', key: (u) => `${u.kind} ${u.host}` });

// --- the gateway ----------------------------------------------------------------------------------

const listeners = new Table(byId('listener-table'), [
  { label: 'Listener', show: (l) => [l.name] }, { label: 'Mode', show: (l) => [l.mode] },
  { label: 'Address', wide: true, show: (l) => [l.address] }, { label: 'TLS', show: (l) => [l.tls ? 'yes' : 'no'] },
], { caption: 'Listeners', empty: 'Not known.', key: (l) => l.name });

const certificates = new Table(byId('certificate-table'), [
  { label: 'Certificate', show: (c) => [c.name] }, { label: 'Subject', wide: true, show: (c) => [c.subject || ''] },
  {
    label: 'Expires in',
    number: true,
    show: (c) => [c.expires_in_seconds > 0 ? span(c.expires_in_seconds) : 'expired', when(c.not_after), c.expires_in_seconds < 604800 ? 'bad' : c.expires_in_seconds < 2592000 ? 'wait' : undefined],
  },
], { caption: 'Certificates', empty: 'None is in use.', key: (c) => c.name });

function showGateway(s) {
  const c = s.config;

  put(byId('where'), location.host);
  facts(byId('gateway-facts'), [
    ['version', s.version], ['process', String(s.pid)],
    ['runs for', span(s.uptime_seconds), `since ${when(s.started)}`],
    ['configuration', c.file], ['generation', String(c.generation), `loaded ${when(c.loaded)}`],
    ['last reload', c.last_error ? `failed: ${c.last_error}` : `${when(c.loaded)}`, null, c.last_error ? 'bad' : ''],
    ['reloads that failed', count(c.reload_failures)],
    ['policy', c.policy_mode || 'not used'],
    ['connections', `${count(s.connections.open)} of ${count(s.connections.limit)}`],
    ['streams known', count(s.streams.known), exact(s.streams.known)],
    ['lines sent again', count(s.ledger.lines_resent), exact(s.ledger.lines_resent)],
    ['credentials refused', count(s.credentials_refused), null, s.credentials_refused ? 'wait' : ''],
    ['memory', bytes(s.memory.rss_bytes), `records ${bytes(s.memory.records_bytes)}, connections ${bytes(s.memory.connections_bytes)}`],
  ]);
  listeners.show(s.listeners || []);
  certificates.show(s.certificates || []);
}

function showLedger(s) {
  ledgers.lines.show(s.ledger.lines);
  ledgers.blobs.show(s.ledger.blobs);
  put(byId('balance'), s.ledger.balanced === false ? 'It does not balance: see the runbook.' : 'It balances.');
  byId('balance').className = s.ledger.balanced === false ? 'bad' : '';
}

// --- what comes -----------------------------------------------------------------------------------

// A part that cannot be shown leaves the others as they are.
function each(s, ...parts) {
  for (const part of parts) {
    try {
      part(s);
    } catch (e) {
      console.error(e);
    }
  }
}

const NOTHING = {
  problems: [], upstreams: [], listeners: [], certificates: [], rates: {}, spool: {}, streams: {}, memory: {},
  connections: {}, config: {}, tunnels: {},
};
let version = null;

function show(told) {
  const s = { ...NOTHING, ...told, ledger: { lines: {}, blobs: {}, ...told.ledger } };

  if (version && version !== s.version) location.reload(); // it was upgraded, and this page with it
  version = s.version;
  now = s.time;
  each(s, showVerdict, showLedger, showSpool, (all) => upstreams.show(all.upstreams), showGateway);
}

let points = [];

function take(h) {
  const from = new Date(h.from).getTime();
  const step = h.step_seconds * 1000;
  const fresh = h.points.map((p, i) => ({ ...p, t: p.time ? new Date(p.time).getTime() : from + i * step }));
  if (!fresh.length) return;
  points = [...points.filter((p) => p.t < fresh[0].t - step / 2), ...fresh].slice(-POINTS);
  for (const c of charts) c.show(points);
}

async function takeHistory() {
  try {
    const h = await get('history');
    points = [];
    take(h);
  } catch (e) {
    console.error(e);
  }
}

// --- the connection -------------------------------------------------------------------------------

let heard = null; // when an event came last
let source = null;
let why = '';

function stale() {
  document.body.classList.add('stale');
  byId('lost').hidden = false;
  put(byId('lost'), heard
    ? `Not connected since ${clock(heard)}: these figures are old.${why} Trying again.`
    : `Not connected to the gateway.${why} Trying again.`);
  put(byId('live'), 'not connected');
  byId('live').className = 'live off';
}

function fresh() {
  heard = Date.now();
  why = '';
  put(byId('live'), 'live');
  byId('live').className = 'live on';
  if (!document.body.classList.contains('stale')) return;
  document.body.classList.remove('stale');
  byId('lost').hidden = true;
}

async function reason() {
  try {
    await get('version');
    why = '';
  } catch (e) {
    why = e.name === 'TypeError' ? '' : ` The gateway says: ${e.message}.`;
  }
  if (document.body.classList.contains('stale')) stale();
}

function connect() {
  source = new EventSource('api/v1/events');
  source.addEventListener('open', () => {
    takeHistory();
    again();
  });
  source.addEventListener('status', (e) => {
    fresh();
    show(JSON.parse(e.data));
    tick();
  });
  source.addEventListener('history', (e) => take(JSON.parse(e.data)));
  source.addEventListener('error', () => {
    stale();
    reason();
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    setTimeout(connect, RETRY_MS);
  });
}

setInterval(() => {
  if (heard && Date.now() - heard > STALE_MS) stale();
}, 1000);

// --- actions --------------------------------------------------------------------------------------

function sure(question, yes) {
  const box = byId('sure');
  put(byId('sure-text'), question);
  put(byId('sure-yes'), yes);
  box.showModal();
  return new Promise((done) => {
    box.addEventListener('close', () => done(box.returnValue === 'yes'), { once: true });
  });
}

async function run(action, question, yes = 'Do it') {
  byId('sure').returnValue = '';
  if (question && !(await sure(question, yes))) return;
  try {
    const a = await action();
    put(byId('said'), `Done at ${clock(Date.now())}${a && a.generation ? `: generation ${a.generation}` : ''}.`
      + `${a && a.needs_restart && a.needs_restart.length ? ` A restart is needed for ${a.needs_restart.join(', ')}.` : ''}`);
    byId('said').className = '';
  } catch (e) {
    put(byId('said'), `Not done: ${e.message}.`);
    byId('said').className = 'bad';
  }
}

async function startActions() {
  let may = false;
  try {
    may = (await get('access')).actions;
  } catch {
    may = false;
  }
  startDead(may, run);
  if (!may) return;
  byId('no-actions').hidden = true;
  byId('can-act').hidden = false;
  byId('act-reload').addEventListener('click', () => run(() => act('reload')));
  byId('act-drain').addEventListener('click', () => run(() => act('drain'),
    'Drain and end this process? It takes no more calls; what waits stays on the disk for its next start.', 'Drain and end'));
  try {
    byId('act-level').value = (await get('log-level')).level;
    byId('level-box').hidden = false;
    byId('act-level').addEventListener('change', (e) => run(() => act('log-level', { level: e.target.value })));
  } catch {
    byId('level-box').hidden = true;
  }
}

startStreams();
startTunnels();
startDenials();
startActions();
connect();
