"""All figures agree: whoever shows one has it from the same metrics, read at one moment. A figure is looked at by all
ways between two scrapes; if both scrapes say the same, so must all that was shown between them."""
import fnmatch
import json
import math
import os
import subprocess
import threading
import time

import pytest

from asked import ask, start
from calls import Api
from gateway import BINARY, key, wait_for
from proxies import RULES, place, status_of, tunnel

CTL = os.environ.get('TAILRACECTL') or os.path.join(os.path.dirname(BINARY), 'tailracectl')

LINES = ['accepted', 'delivered', 'spooled', 'superseded', 'settled', 'late', 'refused', 'dead']
BLOBS = ['accepted', 'delivered', 'spooled', 'repeated', 'broken', 'dead']

# Where a figure stands in the status, and the metric that it is. Not: memory of connections, which who looks changes.
FIGURES = {
    **{f'ledger.lines.{s}': f'ledger_lines{{state="{s}"}}' for s in LINES},
    **{f'ledger.blobs.{s}': f'ledger_blobs{{state="{s}"}}' for s in BLOBS},
    'ledger.lines_resent': 'lines_resent_total',
    'spool.bytes': 'spool_bytes', 'spool.limit_bytes': 'spool_limit_bytes', 'spool.commits': 'spool_commits_total',
    'spool.written_bytes': 'spool_written_bytes_total', 'spool.set_aside': 'spool_set_aside',
    'spool.set_aside_bytes': 'spool_set_aside_bytes', 'spool.failing': 'spool_failing',
    'spool.room_bytes': 'spool_room_bytes',
    'streams.known': 'streams', 'streams.waiting': 'streams_waiting', 'dead_letters': 'dead_letters',
    'credentials_refused': 'credentials_refused', 'config.generation': 'config_generation',
    'config.reload_failures': 'reload_failures_total', 'memory.records_bytes': 'memory_bytes',
    'connections.open': 'connections',
    'tunnels.open': 'tunnels', 'denied': 'denied_total', 'would_deny': 'would_deny_total',
}

# Figures of the status that are not compared so, and why. Each other one has to be above.
NOT_THERE = {
    'pid': 'a number, no figure', 'uptime_seconds': 'passes', 'connections.limit': 'a setting',
    'memory.connections_bytes': 'changes by looking', 'memory.rss_bytes': "the system's",
    'spool.disk_free_bytes': "others' too", 'spool.oldest_seconds': 'below, in an outage', 'spool.full_in_seconds': 'below, in an outage',
    'rates.*': 'below, with the history', 'tunnels.by_kind.*': 'below', 'upstreams.*': 'below, in an outage',
    'certificates.*': 'test_api_egress.py',
}

# These never go down while the process lives.
RISING = ['ledger.lines.accepted', 'ledger.lines.delivered', 'ledger.lines.superseded', 'ledger.blobs.accepted',
          'ledger.blobs.delivered', 'ledger.lines_resent', 'spool.commits', 'spool.written_bytes', 'denied']


def numbers(told, path=''):
    """Where figures stand in it; all elements of a list in one place."""
    if isinstance(told, dict):
        for name, inner in told.items():
            yield from numbers(inner, f'{path}.{name}'.lstrip('.'))
    elif isinstance(told, list):
        for inner in told:
            yield from numbers(inner, path)
    elif isinstance(told, (int, float)) and (not isinstance(told, bool) or path in FIGURES):
        yield path


def uncompared(status):
    return [p for p in numbers(status) if p not in FIGURES and not any(fnmatch.fnmatchcase(p, n) for n in NOT_THERE)]


def figure(status, path):
    for name in path.split('.'):
        status = status[name]
    return status


def scraped(gw):
    """The figures as a scrape has them; families with labels that the status does not tell apart are summed up."""
    metrics = gw.metrics()
    out = {}
    for path, name in FIGURES.items():
        if name in metrics:
            out[path] = metrics[name]
        else:
            out[path] = sum(v for k, v in metrics.items() if k.partition('{')[0] == name)
    return out


def shown(status):
    return {path: float(figure(status, path)) for path in FIGURES}


def by_command(gw):
    done = subprocess.run([CTL, '-c', str(gw.config_path), '--json', 'status'], capture_output=True, text=True,
                          timeout=20, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_page(gw):
    code, text = gw.get('/api/v1/status')
    assert code == 200, text
    return json.loads(text)


def by_socket(gw):
    return ask(gw, 'status')


def by_event(gw):
    """What the page is sent each second."""
    connection, answer = start(gw, 'events')
    try:
        assert answer.status == 200 and answer.headers['Content-Type'] == 'text/event-stream'
        line = b''
        while line != b'event: status\n':
            line = answer.readline()
        return json.loads(answer.readline().removeprefix(b'data: '))
    finally:
        connection.close()


WAYS = [by_socket, by_command, by_page, by_event]


def balances(figures):
    for kind, states in (('lines', LINES), ('blobs', BLOBS)):
        parts = [figures[f'ledger.{kind}.{s}'] for s in states]
        assert parts[0] == sum(parts[1:]), (kind, figures)


class Load:
    """A few clients that open streams, write, upload and close, until told to end."""

    def __init__(self, gw, n=3):
        self.gw, self.ended, self.errors = gw, threading.Event(), []
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(n)]

    def run(self, i):
        api, turn = Api(self.gw.log_url), 0
        try:
            while not self.ended.is_set():
                name = key(f'load{i}-{turn}')
                turn += 1
                assert api.open(name)[0] == 204
                for k in range(20):
                    assert api.put(name, f'{k}\n', f'{k} more\n', start=2 * k)[0] == 204
                if turn % 2:
                    assert api.blob(name, b'{"level":"info","out":"all of it"}\n')[0] == 204
                assert api.delete(name)[0] == 204
        except BaseException as e:   # shown by the test
            self.errors.append(e)
        finally:
            api.close()

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        for t in self.threads:
            t.join()
        assert not self.errors, self.errors


def test_figures_agree_under_load(far, gateway_at):
    """Whatever is looked at while clients write balances in itself and lies between the scrapes around it; and once
    nothing changes any more, all are equal."""
    gw = gateway_at(far.url, listen={'proxy': {'address': '127.0.0.1:0'}}, rules=RULES, egress={'profile': 'none'})
    with place() as there, tunnel(gw, f'127.0.0.1:{there.port}'):
        agree_under_load(gw)


def agree_under_load(gw):
    with Load(gw):
        wait_for(lambda: gw.ledger()['accepted'] > 200, what='load')
        first = scraped(gw)
        for _ in range(5):
            before = scraped(gw)
            assert status_of(gw, '10.0.0.1:443') == 403
            looks = [shown(way(gw)) for way in WAYS]
            after = scraped(gw)
            for look in [before, *looks, after]:
                balances(look)
            for path in RISING:
                values = [look[path] for look in [before, *looks, after]]
                assert values == sorted(values), (path, values)
        wait_for(lambda: scraped(gw)['ledger.lines.accepted'] > first['ledger.lines.accepted'] + 50, what='more load')
        wait_for(lambda: by_socket(gw)['rates']['lines_in'] is not None, what='rates')
        now, history = by_socket(gw), ask(gw, 'history', last=1)['points'][0]
        if now['time'] < history['time']:   # a step was taken between the two
            now = by_socket(gw)
        assert now['rates'] == {name: history[name] for name in now['rates']}
        assert history['lines_in'] > 0 and history['lines_out'] > 0
        assert 0 < history['ack_p50_seconds'] <= history['ack_p99_seconds'] < 60
    gw.wait_delivered()

    def quiet():
        before = scraped(gw)
        looks = {way.__name__: shown(way(gw)) for way in WAYS}
        return before['streams.waiting'] == 0 and before == scraped(gw) and (before, looks)

    before, looks = wait_for(quiet, what='a quiet moment')
    for way, look in looks.items():
        assert look == before, way
    now = by_socket(gw)
    assert uncompared(now) == []
    kinds = now['tunnels']['by_kind']
    assert kinds == {k: gw.metric('tunnels_by_kind', kind=k) for k in kinds} and kinds['tunnel'] == 1
    assert before['ledger.lines.delivered'] > 200 and before['denied'] == 5 and before['tunnels.open'] == 1


def test_figures_agree_in_an_outage(far, gw):
    """Also what is not 0 in an outage only, and of each stream what is in the sum."""
    api = Api(gw.log_url)
    names = [key(f's{i}') for i in range(4)]
    for name in names:
        assert api.open(name)[0] == 204
    gw.wait_delivered()
    far.fault('status', 'lines', count=None, code=503)
    for i, name in enumerate(names):
        assert api.put(name, *['x\n'] * (i + 1))[0] == 204
    wait_for(lambda: by_socket(gw)['streams']['waiting'] == 4, what='the streams that wait')
    wait_for(lambda: by_socket(gw)['upstreams'][0]['state'] == 'down', what='the limiter')
    for way in WAYS:
        now = way(gw)
        listed = ask(gw, 'streams', state='waiting')
        assert now['ledger']['lines']['spooled'] == sum(s['backlog_lines'] for s in listed['streams']) == 10
        assert listed['matched'] == now['streams']['waiting'] == gw.metric('streams_waiting') == 4
        assert gw.metric('upstream_state', upstream='harness') == 2
        assert now['upstreams'][0]['state'] == 'down' and now['upstreams'][0]['last_error']
        assert now['spool']['oldest_seconds'] == pytest.approx(gw.metric('spool_oldest_seconds'), abs=2)
        full = gw.metric('spool_full_in_seconds')
        assert now['spool']['full_in_seconds'] == (None if math.isinf(full) else pytest.approx(full, rel=.5))
        oldest = min(s['oldest'] for s in listed['streams'])
        assert now['spool']['oldest_seconds'] == pytest.approx(age(oldest, now['time']), abs=1.1)
    far.clear_faults()
    gw.wait_delivered()
    api.close()


def age(then, now):
    def seconds(text):
        whole, _, fraction = text.rstrip('Z').partition('.')
        return time.mktime(time.strptime(whole, '%Y-%m-%dT%H:%M:%S')) + float('0.' + fraction)
    return seconds(now) - seconds(then)
