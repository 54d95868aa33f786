"""Every figure of the page is that of /metrics and of tailracectl: each is found in what it shows, none is left out. A
figure that has no metric says here what it is compared with."""
import json
import os
import re
import subprocess
import threading

from calls import TOKEN, Api
from gateway import BINARY, key, wait_for
from proxies import RULES, echo, place, read_exactly, status_of, tunnel

CTL = os.environ.get('TAILRACECTL') or os.path.join(os.path.dirname(BINARY), 'tailracectl')

# What the page shows beside a name: where it stands in the status, and the metric that it is (None: it is no metric).
GLANCE = {
    'lines in': ('rates.lines_in', None), 'lines out': ('rates.lines_out', None),
    '99 of 100 calls within': ('rates.ack_p99_seconds', None),
    'waiting': ('ledger.lines.spooled', 'ledger_lines{state="spooled"}'),
    'oldest waits for': ('spool.oldest_seconds', 'spool_oldest_seconds'),
    'dead letters': ('dead_letters', 'dead_letters'),
}
SPOOL = {
    'full in': ('spool.full_in_seconds', 'spool_full_in_seconds'),
    'oldest waits for': ('spool.oldest_seconds', 'spool_oldest_seconds'),
    'room': ('spool.room_bytes', 'spool_room_bytes'), 'free on its disk': ('spool.disk_free_bytes', 'spool_disk_free_bytes'),
    'made durable': ('spool.failing', 'spool_failing'), 'sealed': ('spool.sealed', None),
    'set aside': ('spool.set_aside', 'spool_set_aside'),
    'written since the start': ('spool.written_bytes', 'spool_written_bytes_total'),
}
GATEWAY = {
    'version': ('version', None), 'process': ('pid', None), 'runs for': ('uptime_seconds', None),
    'configuration': ('config.file', None), 'generation': ('config.generation', 'config_generation'),
    'last reload': ('config.loaded', None), 'reloads that failed': ('config.reload_failures', 'reload_failures_total'),
    'policy': ('config.policy_mode', None), 'connections': ('connections.open', 'connections'),
    'streams known': ('streams.known', 'streams'), 'lines sent again': ('ledger.lines_resent', 'lines_resent_total'),
    'credentials refused': ('credentials_refused', 'credentials_refused'), 'memory': ('memory.records_bytes', 'memory_bytes'),
}
# These change by themselves, or by being looked at: as near as two looks are to each other.
MOVING = {'uptime_seconds': 15, 'spool.oldest_seconds': 15, 'spool.disk_free_bytes': 1 << 30, 'connections.open': 8,
          'spool.full_in_seconds': 1e9}

FACTS = '''Object.fromEntries([...document.querySelectorAll("#%s > div")].map(
    d => [d.children[0].textContent, {text: d.children[1].textContent, title: d.children[1].title}]))'''
LEDGERS = '''Object.fromEntries([...document.querySelectorAll("[data-figure]")].map(
    e => [e.dataset.figure, Number((e.title || e.textContent).replaceAll(",", ""))]))'''
TABLE = '''[...document.querySelectorAll("#%s tbody tr:not(.says):not(.detail)")].map(r => Object.fromEntries(
    [...r.children].map(c => [c.dataset.label, {text: c.textContent, title: c.title}])))'''


def at(told, path):
    for name in path.split('.'):
        told = told[name]
    return told


def number(text):
    found = re.match(r'-?[\d,]+(\.\d+)?', text)
    return float(found.group().replace(',', '')) if found else None


def exact(cell):
    """What it shows when pointed at, or what it shows."""
    pointed = number(cell['title'])
    return number(cell['text']) if pointed is None else pointed


def metric(metrics, name):
    if name in metrics:
        return metrics[name]
    return sum(v for k, v in metrics.items() if k.partition('{')[0] == name)


def is_so(cell, path, value):
    """Whether the page shows that value there."""
    texts = {'spool.failing': {False: 'yes', True: 'failing: records are refused'}, 'spool.sealed': {False: 'no', True: 'yes'}}
    if path in texts:
        return cell['text'] == texts[path][value]
    if path in ('version', 'config.file', 'config.policy_mode'):
        return cell['text'] == str(value)
    if path in ('uptime_seconds', 'config.loaded'):
        return bool(cell['text'])
    if path == 'memory.records_bytes':      # among others, in words
        return cell['title'].startswith('records ')
    if path == 'config.generation':         # what it shows when pointed at is when it was loaded
        return number(cell['text']) == value
    if value is None:
        return not cell['title']
    return exact(cell) is not None and abs(exact(cell) - value) <= MOVING.get(path, 0.0006)


def by_command(gw, *words):
    done = subprocess.run([CTL, '-c', str(gw.config_path), *words], capture_output=True, text=True, timeout=20,
                          stdin=subprocess.DEVNULL, check=True, env={**os.environ, 'LC_ALL': 'C.UTF-8'})
    return done.stdout


def in_words(gw):
    """The ledger as `tailracectl status` shows it to people: {(kind, state): n}; figures end where their heads do."""
    lines = by_command(gw, 'status').splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith('LEDGER'))
    ends = {kind: lines[head].index(word) + len(word) for kind, word in (('lines', 'LINES'), ('blobs', 'LOGS'))}
    out = {}
    for line in lines[head + 1:]:
        if not line:
            break
        for kind, end in ends.items():
            shown = re.search(r'(?<= )[\d,]+$', line[:end])
            if shown:
                out[kind, line.split()[0]] = number(shown.group())
    return out


def differences(page, gw):
    """What the page shows and neither the command nor the metrics say."""
    told, metrics, wrong = json.loads(by_command(gw, '--json', 'status')), gw.metrics(), []

    def compare(where, cell, path, name):
        value = at(told, path)
        if not is_so(cell, path, value):
            wrong.append((where, cell, path, value))
        if name and value is not None and abs(metric(metrics, name) - value) > MOVING.get(path, 0):
            wrong.append((where, name, metric(metrics, name), path, value))

    for part, names in (('glance', GLANCE), ('spool-facts', SPOOL), ('gateway-facts', GATEWAY)):
        shown = page.ask(FACTS % part)
        assert set(shown) == set(names), part          # none that nobody compares
        for name, (path, series) in names.items():
            compare((part, name), shown[name], path, series)

    shown = page.ask(LEDGERS)
    ledgers = {f'{kind}-{state}': n for kind in ('lines', 'blobs') for state, n in told['ledger'][kind].items()
               if state != 'accepted'}
    assert set(shown) == set(ledgers)
    wrong += [(name, n, ledgers[name]) for name, n in shown.items() if n != ledgers[name]]
    for kind, states in told['ledger'].items():
        for state, n in states.items() if isinstance(states, dict) else ():
            if metrics[f'ledger_{kind}{{state="{state}"}}'] != n:
                wrong.append((kind, state, n, 'metric'))
    people = in_words(gw)
    wrong += [(kind, state, people.get((kind, state))) for kind in ('lines', 'blobs')
              for state, n in told['ledger'][kind].items() if people.get((kind, state)) != n]
    for kind in ('lines', 'blobs'):
        total = page.ask(f'[document.querySelector("#ledger-{kind} .total strong")].map(e => e.title || e.textContent)[0]')
        if number(total) != told['ledger'][kind]['accepted']:
            wrong.append((kind, 'accepted', total))

    reading = exact(page.ask('(e => ({text: e.textContent, title: e.title}))(document.querySelector("#gauge .reading"))'))
    if not reading == told['spool']['bytes'] == metrics['spool_bytes']:
        wrong.append(('spool.bytes', reading))
    ups = {u['host']: u for u in told['upstreams']}
    for row in page.ask(TABLE % 'upstream-table'):
        u = ups.pop(row['Host']['text'])
        if (row['State']['text'], row['Under way']['text']) != (u['state'], f'{u["in_flight"]} of {u["limit"]}'):
            wrong.append((u, row))
    assert not ups
    return wrong


def lists_differ(page, gw):
    """The same of the lists, which are asked for when they are seen."""
    wrong, metrics = [], gw.metrics()
    groups = {by: json.loads(by_command(gw, '--json', 'tunnels', '--by', by))['groups'] for by in ('destination', 'identity')}
    for by, table in (('destination', 'tunnel-destinations'), ('identity', 'tunnel-identities')):
        shown = [(next(iter(r.values()))['text'], *(exact(r[c]) for c in ('Open', 'Up', 'Down'))) for r in page.ask(TABLE % table)]
        if shown != [(g['name'] or 'without', g['open'], g['bytes_up'], g['bytes_down']) for g in groups[by]]:
            wrong.append((by, shown, groups[by]))
    if number(page.ask('document.getElementById("tunnel-count").title')) != metrics['tunnels']:
        wrong.append('tunnels')
    denials = json.loads(by_command(gw, '--json', 'denials'))
    shown = [(r['Destination']['text'], r['Rule']['text'], exact(r['Times'])) for r in page.ask(TABLE % 'denial-table')]
    if shown != [(d['destination'], d['rule'], d['count']) for d in denials['denials']]:
        wrong.append((shown, denials))
    total = number(page.ask('document.getElementById("denial-count").title'))
    if not total == denials['denied'] == metric(metrics, 'denied_total'):
        wrong.append(('denied', total))
    streams = json.loads(by_command(gw, '--json', 'streams', '--state', 'all'))
    shown = page.ask('document.getElementById("stream-count").textContent')
    if shown != f'{streams["matched"]} of {streams["known"]} streams' or streams['known'] != metrics['streams']:
        wrong.append((shown, streams['matched']))
    letters = json.loads(by_command(gw, '--json', 'dead', 'list'))
    shown = [r['Letter']['text'] for r in page.ask(TABLE % 'dead-table')]
    if sorted(shown) != sorted(str(d['id']) for d in letters) or len(letters) != metrics['dead_letters']:
        wrong.append((shown, letters))
    return wrong


def test_every_figure_is_that_of_the_command_and_of_the_metrics(far, gateway_at, open_page):
    gw = gateway_at(far.url, listen={'proxy': {'address': '127.0.0.1:0'}}, rules=RULES, egress={'profile': 'none'})
    page, api = open_page(gw), Api(gw.log_url)
    with place(echo) as there, tunnel(gw, f'127.0.0.1:{there.port}') as s:
        s.sendall(b'x' * 5000)
        read_exactly(s, 5000)
        for target in ('nowhere.test:443', '10.0.0.1:443', '10.0.0.1:443'):
            assert status_of(gw, target) == 403
        for i in range(6):
            assert api.open(key(f's{i}'))[0] == 204
            assert api.put(key(f's{i}'), *[f'{k}\n' for k in range(i + 1)])[0] == 204
        assert api.blob(key('s0'), b'{"out":"x"}\n')[0] == 204 and api.delete(key('s0'))[0] == 204
        gw.wait_delivered()
        far.fault('status', 'lines', count=None, key=key('s1'), code=400, body='{"error_msg":"invalid character"}')
        assert api.put(key('s1'), 'never\n', start=2)[0] == 204
        wait_for(lambda: gw.metric('dead_letters') == 1, what='the letter')
        far.fault('status', 'lines', count=None, key=key('s2'), code=500, body='')
        assert api.put(key('s2'), 'later\n', 'and later\n', start=3)[0] == 204
        told = {}

        def nothing():
            told['wrong'] = differences(page, gw)
            return not told['wrong']
        try:
            wait_for(nothing, every=0.3, what='that all agree')
        except AssertionError as e:
            raise AssertionError(told['wrong']) from e
        for part in ('streams', 'tunnels', 'denials', 'dead'):
            page.ask(f'document.getElementById("{part}").scrollIntoView({{behavior: "instant"}})')
            page.wait(f'document.querySelectorAll("#{part} tbody tr:not(.says)").length > 0')

        def no_list():
            told['wrong'] = lists_differ(page, gw)
            return not told['wrong']
        try:
            wait_for(no_list, every=0.3, what='that the lists agree')
        except AssertionError as e:
            raise AssertionError(told['wrong']) from e
        text = page.text('body')
        assert TOKEN not in text and 'and later' not in text
    far.clear_faults()
    api.close()


# What only ever grows: its ledger or its name on the page, and its metric.
RISING = {
    'lines-delivered': 'ledger_lines{state="delivered"}', 'blobs-delivered': 'ledger_blobs{state="delivered"}',
    'lines-superseded': 'ledger_lines{state="superseded"}', 'written since the start': 'spool_written_bytes_total',
    'streams known': 'streams', 'lines sent again': 'lines_resent_total', 'accepted': 'ledger_lines{state="accepted"}',
}


def test_under_load_the_page_lies_between_what_the_metrics_say(gw, open_page):
    """All that only grows, while it does: what the page shows came after one scrape and before another."""
    page, stop = open_page(gw), threading.Event()
    look = (f'({{...{LEDGERS}, ...{FACTS % "spool-facts"}, ...{FACTS % "gateway-facts"}, '
            'accepted: Number(document.querySelector("#ledger-lines .total strong").title.replaceAll(",", "")) '
            '|| Number(document.querySelector("#ledger-lines .total strong").textContent.replaceAll(",", ""))})')

    def write():
        api, n = Api(gw.log_url), 0
        while not stop.is_set():
            name = key(f'load{n}')
            n += 1
            assert api.open(name)[0] == 204
            for k in range(20):
                assert api.put(name, f'{k}\n', start=k)[0] == 204
            assert api.blob(name, b'{"out":"x"}\n')[0] == 204 and api.delete(name)[0] == 204
        api.close()

    writers = [threading.Thread(target=write) for _ in range(2)]
    for w in writers:
        w.start()
    try:
        for _ in range(4):
            before = gw.metrics()
            wait_for(lambda: page.ask(look)['accepted'] > before[RISING['accepted']], what='a later event')
            shown, after = page.ask(look), gw.metrics()
            assert shown['accepted'] > 0
            for name, series in RISING.items():
                seen = exact(shown[name]) if isinstance(shown[name], dict) else shown[name]
                assert metric(before, series) <= seen <= metric(after, series), name
    finally:
        stop.set()
        for w in writers:
            w.join()
    assert after[RISING['blobs-delivered']] > 0
