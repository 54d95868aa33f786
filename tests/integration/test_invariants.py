"""One test for each of the eleven invariants of the log path (docs/architecture.md). `make check-break`
breaks each of them in the sources and sees its test turn red."""
import base64
import http.client
import json
import os
import re
import socket
import sqlite3
import time

import pytest

from gateway import key, wait_for

TOKEN = 'token-of-the-invariants'
IN_TIME = 10                    # what clients wait for an answer (HP 2.4)


class Client:
    """Plain calls on one kept connection."""

    def __init__(self, gw, name='a', timeout=IN_TIME):
        self.conn = http.client.HTTPConnection('127.0.0.1', gw.port, timeout=timeout)
        self.key = key(name)

    def call(self, method, path, body=None, key=None, extra='', token=TOKEN):
        url = '/log-service%s?accountID=acct&key=%s%s' % (path, key or self.key, extra)
        self.conn.request(method, url, body, {'X-Harness-Token': token})
        answer = self.conn.getresponse()
        self.body = answer.read()
        return answer.status

    def open(self, **kw):
        return self.call('POST', '/stream', **kw)

    def put(self, *outs, pos=0, **kw):
        lines = [{'level': 'info', 'pos': pos + n if pos is not None else 0, 'out': out,
                  'time': '2026-01-02T03:04:05Z', 'args': None} for n, out in enumerate(outs)]
        return self.call('PUT', '/stream', json.dumps(lines), **kw)

    def blob(self, body, **kw):
        return self.call('POST', '/blob', body, **kw)

    def link(self, **kw):
        assert self.call('POST', '/blob/link/upload', **kw) == 200
        return json.loads(self.body)['link']

    def upload(self, link, body):
        self.conn.request('PUT', '/' + link.split('/', 3)[3], body)
        answer = self.conn.getresponse()
        answer.read()
        return answer.status

    def close(self, snapshot=False, **kw):
        return self.call('DELETE', '/stream', extra='&snapshot=true' if snapshot else '', **kw)


def history(*outs):
    return b''.join(json.dumps({'level': 'info', 'pos': n, 'out': out, 'time': '2026-01-02T03:04:05Z',
                                'args': None}, separators=(',', ':')).encode() + b'\n'
                    for n, out in enumerate(outs))


def outs_of(blob):
    return [json.loads(row)['out'] for row in (blob or b'').splitlines()]


def lines(far, name='a'):
    return far.lines('acct', key(name))


def record(far, name='a'):
    none = {'opens': 0, 'closes': 0, 'close_misses': 0, 'wipes': 0, 'events': []}      # upstream has not heard of it yet
    return far.state(lines=False)['records'].get('acct/' + key(name), none)


def database(gw):
    found = [p for p in (gw.directory / 'spool').iterdir() if p.is_file() and p.read_bytes()[:15] == b'SQLite format 3']
    assert len(found) == 1
    return sqlite3.connect(found[0], timeout=5, isolation_level=None)


def test_invariant_01_ack_means_durable(far, gw):
    far.stop()
    client = Client(gw)
    assert client.open() == 204
    assert client.put('first\n') == 204
    db = database(gw)
    db.execute('BEGIN IMMEDIATE')       # nothing can be committed now
    client.conn.sock.settimeout(1)
    try:
        status = client.put('second\n')
    except (socket.timeout, http.client.HTTPException):
        status = 0
    gw.kill()
    db.execute('ROLLBACK')
    db.close()
    assert status == 0 or status >= 500, 'acknowledged before it was durable'
    gw.start()
    assert Client(gw).put('third\n') == 204
    gw.kill()                           # right after the answer
    gw.start()
    far.start()
    gw.wait_delivered()
    assert [x for x in lines(far) if x != 'second\n'] == ['first\n', 'third\n']


@pytest.mark.parametrize('how', ['stalled', 'refused'])
def test_invariant_02_in_time(far, gateway_at, how):
    gw = gateway_at(far.url, drain={'limit': '1s'})
    if how == 'stalled':
        far.fault('stall', count=None)
    else:
        far.stop()
    client = Client(gw, timeout=IN_TIME)
    assert client.open() == 204
    assert client.put('line\n') == 204
    assert client.blob(history('line\n')) == 204
    assert client.upload(client.link(), history('line\n')) == 200
    assert client.close() == 204


def test_invariant_03_one_owner(far, gateway_at):
    gw = gateway_at(far.url, workers=2)
    far.fault('delay', 'lines', count=None, seconds=0.03, where='after')
    clients = [Client(gw) for _ in range(16)]           # on both workers
    assert clients[0].open() == 204
    wrote = ['line %d\n' % n for n in range(64)]
    for n, out in enumerate(wrote):
        assert clients[n % 16].put(out, pos=n) == 204   # each after the one before was acknowledged
    gw.wait_delivered()
    assert lines(far) == wrote
    assert far.state(lines=False)['overlaps'] == {}
    assert record(far)['opens'] == 1


def test_invariant_04_order(far, gw):
    client = Client(gw)
    assert client.open() == 204
    far.fault('delay', 'lines', seconds=1)
    assert client.put('head\n', pos=5) == 204
    far.wait(lambda h: h.counts()['started'].get('lines'), timeout=30)
    # It is on its way: what follows queues up behind it.
    assert client.put('c\n', 'd\n', pos=10) == 204
    assert client.put('a\n', 'b\n', pos=0) == 204           # later, whatever its numbers say
    assert client.put('java 1\n', 'java 2\n', pos=None) == 204
    assert client.put('java 3\n', 'java 4\n', pos=None) == 204  # the same numbers, another body
    assert client.put('java 3\n', 'java 4\n', pos=None) == 204  # the same body: a repetition
    assert client.put('z\n', pos=99) == 204                 # a gap is not waited for
    gw.wait_delivered()
    assert lines(far) == ['head\n', 'c\n', 'd\n', 'a\n', 'b\n', 'java 1\n', 'java 2\n', 'java 3\n',
                          'java 4\n', 'z\n']


def test_invariant_05_no_wiping(far, gw):
    far.fault('stall', 'open', execute=True)
    client = Client(gw)
    assert client.open() == 204
    far.wait(lambda h: h.state(lines=False)['opens'].get('acct/' + key('a')) == 1, timeout=30)
    gw.kill()                           # it has been executed, and nobody was told
    gw.start()
    client = Client(gw)
    assert client.open() == 204         # a client's own repetition joins
    assert client.put('line\n') == 204
    gw.wait_delivered()
    assert lines(far) == ['line\n']
    assert (record(far)['opens'], record(far)['wipes']) == (1, 0)


def test_invariant_06_no_unasked_repeats(far, gateway_at):
    gw = gateway_at(far.url, upstream={'http': '1.1'})
    client = Client(gw)
    assert client.open() == 204
    assert client.put('one\n') == 204
    gw.wait_delivered()                 # a connection is kept now
    far.fault('execute_lost', 'lines', how='fin')
    assert client.put('two\n', pos=1) == 204
    gw.wait_delivered()
    repeated = len(lines(far)) - 2
    assert lines(far)[:2] == ['one\n', 'two\n']
    assert gw.metric('lines_resent_total') == repeated
    far.fault('execute_lost', 'open', how='fin')
    other = Client(gw, 'b')
    assert other.open() == 204
    far.wait(lambda h: h.state(lines=False)['opens'].get('acct/' + key('b')), timeout=30)
    assert other.put('line\n') == 204
    gw.wait_delivered()
    assert (record(far, 'b')['opens'], record(far, 'b')['wipes']) == (1, 0)


def test_invariant_07_no_empty_or_cut_blob_over_a_fuller_one(far, gw):
    wrote = ['line %d\n' % n for n in range(20)]
    for name, broken in (('empty', b''), ('cut', history(*wrote)[200:])):
        client = Client(gw, name)
        assert client.open() == 204
        assert client.put(*wrote) == 204
        assert client.blob(broken) == 204           # never an error to an upload
        assert client.close() == 204
        far.wait(lambda h: record(h, name)['closes'] == 1, timeout=30)
        assert outs_of(far.blob('acct', key(name))) == wrote
    client = Client(gw, 'whole')
    assert client.open() == 204
    assert client.put(*wrote) == 204
    assert client.blob(history(*wrote)) == 204
    assert client.blob(b'') == 204                  # its retry, broken
    assert client.close() == 204
    far.wait(lambda h: record(h, 'whole')['closes'] == 1, timeout=30)
    assert far.blob('acct', key('whole')) == history(*wrote)
    client = Client(gw, 'silent')                   # a step without lines has an empty log
    assert client.open() == 204
    assert client.blob(b'') == 204
    far.wait(lambda h: h.blob('acct', key('silent')) == b'', timeout=30)


def test_invariant_08_nothing_after_the_close(far, gw):
    client = Client(gw)
    wrote = ['line %d\n' % n for n in range(30)]
    assert client.open() == 204
    assert client.put(*wrote[:10], pos=0) == 204
    gw.wait_delivered()                             # the open among it: it shall be sent once
    far.stop()
    for n in range(10, 30, 10):
        assert client.put(*wrote[n:n + 10], pos=n) == 204
    assert client.close(snapshot=True) == 204
    assert client.close(snapshot=True) == 204       # a second one is no error
    gw.kill()
    gw.start()
    far.start()
    far.wait(lambda h: record(h)['closes'] == 1, timeout=30)
    assert outs_of(far.blob('acct', key('a'))) == wrote
    gw.wait_delivered()
    client = Client(gw)
    calls = far.counts()['started']['lines']
    assert client.put('late\n', pos=99) == 204
    assert client.close(snapshot=True) == 204
    assert gw.ledger()['late'] == 1
    other = Client(gw, 'b')             # what is sent now was decided after the late line
    assert other.open() == 204
    assert other.put('elsewhere\n') == 204
    far.wait(lambda h: h.counts()['started']['lines'] > calls, timeout=30)
    assert record(far)['events'][-1] == 'close'
    assert record(far)['closes'] == 1 and record(far)['opens'] == 1


def test_invariant_09_conservation(far, gw):
    def balances():
        return gw.ledger(), gw.ledger('blobs')      # each asserts that it does

    client = Client(gw)
    assert client.open() == 204
    assert client.put('one\n', 'two\n') == 204
    gw.wait_delivered()
    far.stop()
    assert client.put('three\n', pos=2) == 204
    assert client.blob(history('one\n', 'two\n', 'three\n')) == 204
    assert client.close() == 204
    found, blobs = balances()
    assert (found['accepted'], found['delivered'], found['spooled']) == (3, 2, 1)
    assert (blobs['accepted'], blobs['spooled']) == (1, 1)
    gw.kill()
    gw.start()
    assert balances()[0] == found
    far.fault('delay', 'lines', count=None, seconds=0.5)    # so that the blob comes first
    far.start()
    gw.wait_delivered()
    found, blobs = balances()
    assert found['accepted'] == 3 == found['delivered'] + found['superseded']
    assert blobs['delivered'] == 1
    far.clear_faults()
    client = Client(gw, 'b')                        # lines that are superseded, and one that is late
    far.stop()
    assert client.open() == 204
    assert client.put('x\n', 'y\n') == 204
    assert client.blob(history('x\n', 'y\n')) == 204
    assert client.close() == 204
    far.fault('status', 'lines', count=None, code=503)
    far.start()
    wait_for(lambda: gw.ledger()['superseded'] >= 2, what='superseded lines')
    far.wait(lambda h: record(h, 'b')['closes'] + record(h, 'b')['close_misses'], timeout=30)
    assert client.put('late\n', pos=9) == 204
    gw.wait_delivered()
    found, _ = balances()
    assert (found['accepted'], found['late']) == (6, 1)
    gw.kill()
    gw.start()
    assert balances()[0] == found


def test_invariant_10_bounded(far, gateway_at):
    gw = gateway_at(far.url, spool={'limit': '8MiB'})
    client = Client(gw)
    wrote = ['first\n']
    assert client.open() == 204
    assert client.put(*wrote) == 204
    gw.wait_delivered()                             # upstream takes this credential
    far.stop()
    for n in range(1, 401):
        out = base64.b64encode(os.urandom(48000)).decode() + '\n'
        status = client.put(out, pos=n)
        if status != 204:
            break
        wrote.append(out)
    assert status == 503 and len(wrote) > 20        # lines yield first
    wait_for(lambda: gw.ledger()['refused'] >= 1, what='the count of refused lines')
    for n in range(3):
        other = Client(gw, 'other%d' % n)
        assert other.open() == 204
        assert other.blob(history('line\n') * 200) == 204
        assert other.upload(other.link(), history('line\n') * 201) == 200
        assert other.close() == 204
    assert sum(p.stat().st_size for p in (gw.directory / 'spool').iterdir()
               if 'reserve' not in p.name) < 11 << 20
    far.start()
    gw.wait_delivered(30)
    assert lines(far) == wrote                      # nothing was dropped to make room


def test_invariant_11_secrets_stay_in(far, gw):
    secret, text = 'sesame-0123456789', 'the-text-of-a-line'
    client = Client(gw)
    assert client.open(token=secret) == 204
    assert client.put(text + '\n', token=secret) == 204
    link = client.link(token=secret)
    assert client.upload(link, history(text + '\n')) == 200
    gw.wait_delivered()
    answers = []
    for method, path, body in (('PUT', '/stream', b'{"%s": 1' % text.encode()), ('GET', '/nothing', None),
                               ('PUT', '/stream', b'["%s"]' % text.encode())):
        client.call(method, path, body, token=secret)
        answers.append(client.body)
    far.tokens(bad=['wrong-' + secret])
    other = Client(gw, 'b')
    other.open(token='wrong-' + secret)
    answers.append(other.body)
    far.stop()
    client.put(text + ' 2\n', pos=1, token=secret)
    client.upload(link, history(text + ' 3\n'))
    wait_for(lambda: 'cannot be reached' in gw.log(), what='the warning')
    far.start()
    gw.wait_delivered()
    gw.kill()
    gw.start()
    said = [gw.log(), gw.get('/metrics')[1]] + [a.decode() for a in answers]
    assert gw.get('/metrics')[0] == 200
    for what in (secret, text, 'Signature=', link.rsplit('/', 1)[1][:40]):
        for where in said:
            assert what not in where, where[max(0, where.find(what) - 300):where.find(what) + 100]
    for where in said:
        assert not re.search('INVALID_TOKEN|EXPIRED_TOKEN|REVOKED_TOKEN|Revoked Delegate Token', where)
