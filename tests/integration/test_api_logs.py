"""The commands that tell how it is: status, history, streams, stream, upstreams, tail."""
import json
from urllib.parse import quote

import pytest

from asked import ask, start
from calls import Api
from gateway import key, wait_for


def fill(api, n, *texts):
    names = [key(f's{i}') for i in range(n)]
    for name in names:
        assert api.open(name)[0] == 204
        assert api.put(name, *(texts or ('a\n', 'b\n')))[0] == 204
    return names


# --- status ----------------------------------------------------------------------------------------

def test_status_tells_what_runs(gw, api):
    fill(api, 3)
    gw.wait_delivered()
    now = ask(gw, 'status')
    assert now['pid'] == gw.pid and now['state'] == 'serving' and now['ready'] and now['not_ready'] == []
    assert now['started'] <= now['time'] and 0 < now['uptime_seconds'] < 600
    assert now['config']['file'] == str(gw.config_path) and now['config']['generation'] == 1
    assert now['config']['last_error'] is None
    assert now['ledger']['lines']['accepted'] == now['ledger']['lines']['delivered'] == 6
    assert now['ledger']['balanced'] is True
    assert now['spool']['limit_bytes'] == 512 << 20
    wait_for(lambda: ask(gw, 'status')['spool']['oldest_seconds'] is None, what='an empty spool')
    assert now['streams']['known'] == 3
    assert now['memory']['rss_bytes'] > 1 << 20


def test_status_tells_of_a_reload_that_failed(gw):
    good = gw.config_path.read_text()
    gw.config_path.write_text(good + 'nonsense: 1\n')
    assert 'nonsense' in ask(gw, 'reload', 'POST', status=409)['error']
    config = ask(gw, 'status')['config']
    assert config['generation'] == 1 and config['reload_failures'] == 1 and 'nonsense' in config['last_error']
    gw.config_path.write_text(good)
    ask(gw, 'reload', 'POST')
    config = ask(gw, 'status')['config']
    assert config['generation'] == 2 and config['reload_failures'] == 1 and config['last_error'] is None


def test_status_and_history_of_nothing(gw):
    now = ask(gw, 'status')
    assert set(now['rates'].values()) == {None} and [p for p in now['problems'] if p['severity'] != 'info'] == []
    history = ask(gw, 'history')
    assert history['points'] == [] and history['from'] is None and history['step_seconds'] == 10
    assert 'number' in ask(gw, 'history', status=400, last='x')['error']


# --- streams ---------------------------------------------------------------------------------------

def test_streams_are_listed_page_by_page(far, gw, api):
    names = fill(api, 7)
    gw.wait_delivered()
    for sort in ('name', 'age', 'backlog', 'idle', 'recent'):
        seen, cursor = [], ''
        while cursor is not None:
            page = ask(gw, 'streams', sort=sort, limit=3, **({'from': cursor} if cursor else {}))
            assert page['known'] == page['matched'] == 7 and len(page['streams']) <= 3
            seen += [s['key'] for s in page['streams']]
            cursor = page['next']
        order = {'idle': names, 'recent': names[::-1]}.get(sort, sorted(names))
        assert seen == order, sort


def test_streams_are_sought(gw, api):
    names = fill(api, 4)
    found = ask(gw, 'streams', search='LEVEL6:S2')
    assert [s['key'] for s in found['streams']] == [names[2]]
    assert (found['matched'], found['known'], found['next']) == (1, 4, None)
    assert ask(gw, 'streams', search='ACCT')['matched'] == 4
    assert ask(gw, 'streams', search='no such')['streams'] == []
    for wrong in ({'sort': 'x'}, {'state': 'x'}, {'limit': 0}, {'limit': 1001}, {'from': 'x'}, {'from': '1-zz-00'}):
        assert ask(gw, 'streams', status=400, **wrong)['error']


def test_streams_in_an_outage(far, gw, api):
    names = fill(api, 3)
    gw.wait_delivered()
    far.fault('status', 'lines', count=None, code=503)
    assert api.put(names[2], 'c\n', 'd\n', 'e\n', start=2)[0] == 204
    assert api.put(names[0], 'c\n', start=2)[0] == 204
    wait_for(lambda: ask(gw, 'upstreams')['upstreams'][0]['last_error'], what='the trouble')
    wait_for(lambda: all(s['last_error'] for s in ask(gw, 'streams', state='waiting')['streams']), what='errors')
    waiting = ask(gw, 'streams', state='waiting', sort='backlog')['streams']
    assert [(s['key'], s['backlog_lines'], s['backlog_records']) for s in waiting] == [(names[2], 3, 1), (names[0], 1, 1)]
    assert [s['key'] for s in ask(gw, 'streams', state='waiting', sort='age')['streams']] == [names[2], names[0]]
    assert waiting[0]['lines'] == 5 and waiting[0]['oldest'] and waiting[0]['backlog_bytes'] > 30
    assert waiting[0]['last_error']['status'] == 503 and waiting[0]['last_error']['text']
    wait_for(lambda: ask(gw, 'status')['streams']['waiting'] == 2, what='the count')
    host = ask(gw, 'upstreams')['upstreams'][0]
    assert host['kind'] == 'log-service' and '503' in host['last_error']['text'] and host['last_success']
    assert host['state'] in ('slowed', 'down')
    far.clear_faults()
    gw.wait_delivered()
    wait_for(lambda: ask(gw, 'status')['upstreams'][0]['state'] == 'healthy', what='recovery')


def test_one_stream(gw, api):
    name, = fill(api, 1)
    gw.wait_delivered()
    one = ask(gw, 'stream', account='acct', key=name)
    assert one['key'] == name and one['state'] == 'open' and one['credential'] == 'accepted'
    assert one['lives'][0]['lines_delivered'] == 2 and one['events'] == []
    assert api.open(name)[0] == 204
    assert api.delete(name)[0] == 204
    wait_for(lambda: ask(gw, 'stream', account='acct', key=name)['state'] == 'closed', what='the close')
    assert ask(gw, 'stream', account='acct', key=name)['events'] == ['joined']
    assert [s['key'] for s in ask(gw, 'streams', state='closed')['streams']] == [name]
    assert ask(gw, 'streams', state='open')['matched'] == 0
    assert 'no such stream' in ask(gw, 'stream', status=404, account='acct', key='x')['error']
    assert 'account and key' in ask(gw, 'stream', status=400, key='x')['error']


@pytest.mark.parametrize('name', ['<img src=x onerror=alert(1)>', 'a"b\\c', 'ü/€/\u2028', 'x' * 3000], ids=['html', 'quotes', 'unicode', 'long'])
def test_hostile_names_are_texts(gw, api, name):
    target = f'/log-service/stream?accountID=acct&key={quote(name, safe="")}'
    assert api.request('POST', target)[0] in (200, 204)
    found = ask(gw, 'streams', limit=1)['streams']
    assert [s['key'] for s in found] == [name]
    assert ask(gw, 'stream', account='acct', key=name)['key'] == name


# --- tail ------------------------------------------------------------------------------------------

class Tail:
    """Follows a stream; `next()` is one line of it."""

    def __init__(self, gw, name, **args):
        self.connection, self.answer = start(gw, 'tail', account='acct', key=name, **args)
        assert self.answer.status == 200 and self.answer.headers['Content-Type'] == 'application/x-ndjson'
        self.state = self.next()['begin']

    def next(self):
        line = self.answer.readline()
        assert line.endswith(b'\n')
        return json.loads(line)

    def texts(self):
        return [line['out'] for line in self.next()['lines']]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.connection.close()


def test_tail_shows_lines_as_they_pass(gw, api):
    name, other = fill(api, 2)
    gw.wait_delivered()
    with Tail(gw, name) as tail, Tail(gw, name) as second:
        assert tail.state == second.state == 'open'
        assert api.put(other, 'not this\n')[0] == 204
        assert api.put(name, 'c\n', 'd\n', start=2)[0] == 204
        assert tail.texts() == second.texts() == ['c\n', 'd\n']
        body = b'[\n {"level":"info",\r\n  "pos":4,"out":"\xff\\u001b[1m","time":"2026-01-02T03:04:05Z"} \n]'
        assert api.put_raw(name, body)[0] == 204
        assert tail.texts() == ['\ufffd\x1b[1m']
        assert api.delete(name)[0] == 204
        assert tail.next() == {'end': 'closed'} and tail.answer.read() == b''
    for text in ('not this', 'c\\n'):
        assert text not in gw.log()


def test_tail_begins_with_what_waits(far, gw, api):
    name, = fill(api, 1)
    gw.wait_delivered()
    far.fault('status', 'lines', count=None, code=503)
    for i in range(4):
        assert api.put(name, f'{i}\n', start=2 + i)[0] == 204
    with Tail(gw, name, last=2) as tail:
        assert [tail.texts(), tail.texts()] == [['2\n'], ['3\n']]
        assert api.put(name, 'new\n', start=6)[0] == 204
        assert tail.texts() == ['new\n']
    far.clear_faults()


def test_tail_when_memory_is_short(far, gateway_at):
    """Bodies that are kept in the spool only are shown all the same."""
    gw = gateway_at(far.url, memory={'limit': '1MiB'})
    api = Api(gw.log_url)
    far.fault('status', 'lines', count=None, code=503)
    name, = fill(api, 1)
    with Tail(gw, name) as tail:
        for i in range(12):
            text = f'{i}' + 'x' * 200_000 + '\n'
            assert api.put(name, text, start=2 + i)[0] == 204
            assert tail.texts() == [text]
    api.close()


def test_tail_that_is_slow_misses_lines_and_holds_nobody_up(gw, api):
    name, = fill(api, 1)
    with Tail(gw, name) as tail:
        for i in range(40):
            assert api.put(name, f'{i}' + 'x' * 250_000 + '\n', start=2 + i)[0] == 204
        assert api.put(name, 'last\n', start=100)[0] == 204
        assert api.delete(name)[0] == 204
        seen = missed = 0
        line = {}
        while 'end' not in line:
            line = tail.next()
            seen += len(line.get('lines', []))
            missed += line.get('missed', 0)
        assert missed > 0 and seen + missed == 41


def test_tails_are_few_and_let_go(gw, api):
    name, = fill(api, 1)
    tails = [Tail(gw, name) for _ in range(16)]
    assert '16' in ask(gw, 'tail', status=503, account='acct', key=name)['error']
    for tail in tails:
        tail.answer.close()
        tail.connection.close()

    def one_more():
        connection, answer = start(gw, 'tail', account='acct', key=name)
        connection.close()
        return answer.status == 200

    wait_for(one_more, what='a place')
    assert ask(gw, 'tail', status=404, account='acct', key='x')['error']
    assert ask(gw, 'tail', status=400)['error']


def test_tail_may_be_off(far, gateway_at):
    gw = gateway_at(far.url, control={'tail': False})
    assert 'control.tail' in ask(gw, 'tail', status=403, account='acct', key='x')['error']
    gw.write_config(control={'tail': True})
    ask(gw, 'reload', 'POST')
    assert ask(gw, 'tail', status=404, account='acct', key='x')


def test_tail_ends_with_the_process(gw, api):
    name, = fill(api, 1)
    with Tail(gw, name) as tail:
        assert api.put(name, 'c\n', start=2)[0] == 204
        assert tail.texts() == ['c\n']
        assert gw.stop() == 0
        assert tail.answer.readline() == b''


def test_the_process_that_takes_over_is_asked(far, gw, api):
    """Who follows a stream is let go at a handover, and finds it again at the new process."""
    name, = fill(api, 1)
    gw.wait_delivered()
    with Tail(gw, name) as tail:
        gw.take_over()
        assert tail.answer.readline() == b''
    now = ask(gw, 'status')
    assert now['pid'] == gw.pid and now['ledger']['lines']['delivered'] == 2 and now['uptime_seconds'] < 60
    with Tail(gw, name) as tail:
        again = Api(gw.log_url)
        assert again.put(name, 'c\n', start=2)[0] == 204
        assert tail.texts() == ['c\n']
        again.close()
