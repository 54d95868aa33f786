"""Budgets: what is refused when one is used up, who still gets through, and that nothing is left behind afterwards."""
import concurrent.futures
import json
import os
import re
import resource
import socket
import ssl
import struct
import threading
import time

import pytest
from calls import Api, body_of, error_of, row
from frames import DATA, END_HEADERS, END_STREAM, HEADERS, H2, RST_STREAM, SETTINGS, Watch, frame, sanitized
from gateway import key, wait_for

MIB = 1 << 20


@pytest.fixture(scope='module', autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(port, source=None, timeout=10):
    """A connection, perhaps from another address; it may have been reset already."""
    s = socket.socket()
    s.settimeout(timeout)
    if source:
        s.bind((source, 0))
    try:
        s.connect(('127.0.0.1', port))
    except ConnectionResetError:
        pass
    return s


def send(s, data):
    try:
        s.sendall(data)
    except OSError:
        pass


def put_head(name, length, account='acct'):
    return (f'PUT /log-service/stream?accountID={account}&key={name} HTTP/1.1\r\nHost: x\r\nX-Harness-Token: token-1\r\n'
            f'Content-Length: {length}\r\n\r\n').encode()


def put_call(name, text='x\n', account='acct'):
    body = body_of(text)
    return put_head(name, len(body), account) + body


def answer(s):
    """The status of the next answer of a connection; 0: it has ended."""
    try:
        head = s.recv(65536)
    except OSError:
        return 0
    return int(head.split()[1]) if head else 0


def is_open(s):
    s.settimeout(0.05)
    try:
        return bool(s.recv(1))
    except socket.timeout:
        return True
    except OSError:
        return False


def close_all(socks):
    for s in socks:
        s.close()


class Level:
    """What the gateway holds, to be found again after the load has gone."""

    def __init__(self, gw, spare_fds=32, mib=12):
        self.gw, self.spare, self.mib = gw, spare_fds, mib
        self.fds, self.kb = gw.fds(), gw.rss_kb()
        self.connections = gw.metric('connections')

    def again(self):
        gw = self.gw
        gw.wait_delivered(30)
        wait_for(lambda: gw.metric('connections') <= self.connections, 20, what='the end of connections')
        wait_for(lambda: gw.fds() <= self.fds + self.spare, 20,
                 what=f'going back from {gw.fds()} to {self.fds} descriptors')
        if not sanitized():
            wait_for(lambda: gw.rss_kb() <= self.kb + self.mib * 1024, 20,
                     what=f'memory going back from {gw.rss_kb()} to {self.kb} kB')


def forget_streams(gw, at_most=0):
    wait_for(lambda: gw.metric('streams') <= at_most, 30, what='streams being forgotten')


# --- connections ------------------------------------------------------------------------------

def test_connections_are_one_number_for_the_process(far, gateway_at):
    """Not one for each worker and listener; the last tenth is for those who have less than their share."""
    gw = gateway_at(far.url, workers=2, limits={'connections': 40},
                    listen={'second': {'mode': 'upstream', 'address': '127.0.0.1:0'}})
    assert Api(gw.log_url).open(key())[0] == 204
    wait_for(lambda: gw.metric('connections') == 0, what='the end of the first')
    level, held = Level(gw), []
    try:
        for i in range(60):         # active, so that none can be closed to make room
            s = connect((gw.port, gw.ports['second'])[i % 2])
            send(s, put_head('k', 10))
            held.append(s)
        wait_for(lambda: gw.metric('overload_refused_total', reason='client_share') == 24, what='refusals')
        wait_for(lambda: gw.metric('connections') == 36, what='nine tenths for one client')
        assert gw.metric('connections', listener='second') >= 12 and gw.metric('connections', listener='upstream') >= 12
        others = [connect(gw.port, f'127.0.0.{i}', timeout=30) for i in range(2, 8)]
        held += others
        for s in others:
            send(s, put_call(key()))
        assert [answer(s) for s in others].count(204) == 4, 'the last tenth is for others'
        wait_for(lambda: gw.metric('overload_refused_total', reason='connections') == 2, what='refusals of all')
        assert re.search(r'component=overload msg=refused reason=client_share client=127.0.0.1', gw.log())
    finally:
        close_all(held)
    level.again()
    assert Api(gw.log_url).open(key('later'))[0] == 204


def test_idle_connections_make_room(far, gateway_at):
    gw = gateway_at(far.url, workers=1, limits={'connections': 32, 'share': 100})
    assert Api(gw.log_url).open(key())[0] == 204
    level = Level(gw)
    wait_for(lambda: gw.metric('connections') == 0, what='the end of the first')
    idle = [connect(gw.port) for _ in range(32)]
    try:
        assert [s.sendall(put_call(key())) or answer(s) for s in idle] == [204] * 32
        time.sleep(2.1)         # what has just been answered is likely to ask again: not closed before two seconds
        assert all(is_open(s) for s in idle)
        fresh = [connect(gw.port) for _ in range(8)]
        idle += fresh
        assert [s.sendall(put_call(key())) or answer(s) for s in fresh] == [204] * 8
        assert [is_open(s) for s in idle[:32]].count(False) == 8
        assert not is_open(idle[0]), 'the longest idle goes first'
        assert gw.metric('overload_refused_total') == 0
    finally:
        close_all(idle)
    level.again()


def test_ten_thousand_connections_and_a_hundred_streams(far, gateway_at, ca):
    """Idle keep-alive connections, some with TLS; none is refused, and streams go on as if there were none."""
    n, n_tls = (9500, 500) if not sanitized() else (1500, 100)
    cert, pem = ca.issue('127.0.0.1')
    tls_listen = {'mode': 'upstream', 'address': '127.0.0.1:0', 'certificate': str(cert), 'key': str(pem)}
    gw = gateway_at(far.url, listen={'tls': tls_listen}, log={'level': 'info'})
    Api(gw.log_url).open(key('first'))
    level, socks = Level(gw, spare_fds=64, mib=24), []
    context = ssl.create_default_context(cafile=ca.ca)
    relay = b'GET /healthz-of-far HTTP/1.1\r\nHost: x\r\n\r\n'

    def some(count, tls):
        for i in range(count):
            s = connect(gw.ports['tls' if tls else 'upstream'])
            if tls:
                s = context.wrap_socket(s, server_hostname='127.0.0.1')
            socks.append(s)
            if i % 50 == 0:
                s.sendall(relay)
                assert answer(s) > 0
    try:
        before = gw.rss_kb()
        some(n, False)
        wait_for(lambda: gw.metric('connections') >= n, what='connections')
        per_clear = (gw.rss_kb() - before) * 1024 / n
        before = gw.rss_kb()
        some(n_tls, True)
        per_tls = (gw.rss_kb() - before) * 1024 / n_tls
        assert gw.metric('connections') >= n + n_tls and gw.metric('overload_refused_total') == 0
        assert sanitized() or (per_clear < 4096 and per_tls < 65536), (per_clear, per_tls)
        took = []

        def stream(i):
            api, name = Api(gw.log_url), key(f's{i}')
            assert api.open(name)[0] == 204
            for j in range(3):
                began = time.monotonic()
                assert api.put(name, f'{j}\n', start=j)[0] == 204
                took.append(time.monotonic() - began)
            assert api.delete(name)[0] == 204
            api.close()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            list(pool.map(stream, range(100)))
        assert sorted(took)[len(took) * 9 // 10] < 2, sorted(took)[-20:]
        assert gw.metric('connections') >= n + n_tls and gw.metric('overload_refused_total') == 0
        print(f'{per_clear:.0f} bytes for a connection in clear, {per_tls:.0f} with TLS')
    finally:
        close_all(socks)
    level.again()


# --- descriptors --------------------------------------------------------------------------------

def few_descriptors(gw, n):
    resource.prlimit(gw.pid, resource.RLIMIT_NOFILE, (n, n))


def test_descriptors_run_out(far, gateway_at, tmp_path, monkeypatch):
    """Accepting goes on, idle connections make room, and spool and delivery have descriptors of their own."""
    wrapper = tmp_path / 'few'
    wrapper.write_text('#!/bin/sh\nulimit -n 160\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv('TAILRACE_WRAPPER', f'{wrapper} {os.environ.get("TAILRACE_WRAPPER", "")}')
    gw = gateway_at(far.url, workers=1, limits={'share': 100})
    level = Level(gw, spare_fds=24)
    api = Api(gw.log_url)
    held = []
    try:
        for _ in range(100):        # busy for ever
            s = connect(gw.port)
            send(s, put_head('k', 10))
            held.append(s)
        wait_for(lambda: gw.metric('overload_refused_total', reason='descriptors') + gw.metric('connections') == 100,
                 what='all being served or refused')
        assert gw.metric('overload_refused_total', reason='descriptors') >= 3
        assert gw.metric('accept_pauses_total') >= 3 and gw.fds() < 150
        assert gw.get('/readyz')[0] == 200      # the admin's listener has some of what is kept
        close_all(held[:40])
        wait_for(lambda: gw.fds() < 118, what='descriptors')
        assert [api.open(key(f'd{i}'))[0] for i in range(20)] == [204] * 20
        assert [api.put(key(f'd{i}'), 'line\n')[0] for i in range(20)] == [204] * 20
        wait_for(lambda: far.lines('acct', key('d19')) == ['line\n'], what='delivery')
    finally:
        api.close()
        close_all(held)
    level.again()
    assert 'too few descriptors are left' in gw.log()


def test_idle_connections_make_room_for_descriptors(far, gateway_at, tmp_path, monkeypatch):
    wrapper = tmp_path / 'few'
    wrapper.write_text('#!/bin/sh\nulimit -n 128\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv('TAILRACE_WRAPPER', f'{wrapper} {os.environ.get("TAILRACE_WRAPPER", "")}')
    gw = gateway_at(far.url, workers=1, limits={'share': 100})
    api = Api(gw.log_url)
    assert api.open(key('a'))[0] == 204
    idle = []
    try:
        while gw.metric('accept_pauses_total') == 0 and len(idle) < 150:
            idle.append(connect(gw.port))
            if len(idle) % 20 == 0:
                time.sleep(0.05)
        time.sleep(2.1)
        refused = gw.metric('overload_refused_total')
        for i in range(30):
            s = connect(gw.port)
            idle.append(s)
            s.sendall(put_call(key('a'), f'{i}\n'))
            assert answer(s) == 204, i
        assert gw.metric('overload_refused_total') == refused
    finally:
        close_all(idle)


# --- streams ------------------------------------------------------------------------------------

def test_streams_past_the_limit(far, gateway_at):
    """Opens and lines of new streams are refused so that clients try again; those that are there go on, and uploads pass."""
    gw = gateway_at(far.url, limits={'streams': 40}, stream={'idle': '3s', 'hold': '0s'})
    level = Level(gw)
    api = Api(gw.log_url)
    codes = [api.open(key(f's{i}'))[0] for i in range(50)]
    assert codes == [204] * 40 + [503] * 10, 'an account alone may have them all'
    status, text, _ = api.put(key('s49'), 'x\n')
    assert status == 503 and error_of(text) == 'the gateway is overloaded'
    wait_for(lambda: gw.ledger()['refused'] == 1, what='the ledger')
    assert api.put(key('s0'), 'goes on\n')[0] == 204
    assert api.blob(key('s48'), b'whole log\n')[0] == 204, 'an upload is let go a little further'
    assert gw.metric('overload_refused_total', reason='streams') == 11
    wait_for(lambda: far.lines('acct', key('s0')) == ['goes on\n'], what='delivery')
    for i in range(40):
        assert api.delete(key(f's{i}'))[0] == 204
    wait_for(lambda: api.open(key('later'))[0] == 204, what='room for new streams')
    api.delete(key('later'))
    api.close()
    forget_streams(gw, 1)
    level.again()


def test_closed_streams_are_forgotten_early_when_there_are_many(far, gateway_at):
    gw = gateway_at(far.url, limits={'streams': 40}, stream={'idle': '1h', 'hold': '0s'})
    api = Api(gw.log_url)
    for i in range(200):            # five times as many as it may know, none at the same time
        wait_for(lambda: api.open(key(f's{i}'))[0] == 204, what='room')
        assert api.delete(key(f's{i}'))[0] == 204
    assert gw.metric('streams') <= 40


def test_an_account_leaves_streams_to_others(far, gateway_at):
    gw = gateway_at(far.url, limits={'streams': 100})
    one, two = Api(gw.log_url, account='one'), Api(gw.log_url, account='two')
    assert two.open(key('first'))[0] == 204
    codes = [one.open(key(f's{i}'))[0] for i in range(100)]
    assert codes == [204] * 89 + [503] * 11, codes
    assert [two.open(key(f't{i}'))[0] for i in range(12)] == [204] * 10 + [503] * 2
    assert gw.metric('overload_refused_total', reason='streams_share') == 11
    assert re.search(r'reason=streams_share client=127.0.0.1 account=one', gw.log())


def pipelined(port, calls):
    """The statuses of calls that are all sent before the first answer is read."""
    with connect(port) as s:
        sender = threading.Thread(target=send, args=(s, b''.join(calls)))
        sender.start()
        codes, got = [], b''
        while len(codes) < len(calls):
            piece = s.recv(1 << 18)
            assert piece, f'{len(codes)} of {len(calls)} answers'
            got += piece
            codes = re.findall(rb'HTTP/1\.1 (\d\d\d) ', got)
        sender.join()
        return [int(code) for code in codes]


def test_a_flood_of_streams_leaves_nothing_behind(far, gateway_at):
    """More than twice as many as may be known at once, from four accounts: what was refused and what was taken is forgotten, and
    the second flood takes no more memory than the first."""
    gw = gateway_at(far.url, limits={'streams': 600}, stream={'idle': '1s', 'hold': '0s'}, log={'level': 'info'})
    head = 'X-Harness-Token: token-1\r\n'

    def flood(round_):
        def of_account(account):
            names = [f'{account}-{round_}-{i}' for i in range(400)]
            target = f'/log-service/stream?accountID={account}&key='
            codes = pipelined(gw.port, [f'POST {target}{n} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 0\r\n\r\n'.encode()
                                        for n in names])
            taken = [n for n, code in zip(names, codes) if code == 204]
            puts = pipelined(gw.port, [put_call(n, account=account) for n in taken])
            ends = pipelined(gw.port, [f'DELETE {target}{n} HTTP/1.1\r\nHost: x\r\n{head}\r\n'.encode() for n in taken])
            assert set(codes) <= {204, 503} and set(puts) <= {204} and set(ends) <= {204}, (set(codes), set(puts), set(ends))
            return len(codes) - len(taken), len(taken)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            refused, taken = map(sum, zip(*pool.map(of_account, ['a1', 'a2', 'a3', 'a4'])))
        assert taken >= 500
        gw.wait_delivered(60)
        forget_streams(gw)
        return refused, taken
    refused, taken = flood(0)
    level = Level(gw, mib=8)
    more = flood(1)
    assert refused + more[0] > 0, 'it was no flood'
    level.again()
    ledger = gw.ledger()
    assert ledger['accepted'] == ledger['delivered'] + ledger['superseded'] == taken + more[1]
    assert refused + more[0] == sum(gw.metric('overload_refused_total', reason=r) for r in ('streams', 'streams_share'))


# --- the spool ------------------------------------------------------------------------------------

def noise_lines(n, seed):
    return [row(os.urandom(768).hex() + '\n', seed * n + i) for i in range(n)]


def fill(api, name, until, limit=400):
    """PUT lines until the condition holds or a call is refused; the statuses."""
    codes = []
    while len(codes) < limit and not until():
        codes.append(api.put_raw(name, json.dumps(noise_lines(800, len(codes))).encode())[0])
        if codes[-1] != 204:
            break
    return codes


def test_an_account_leaves_the_spool_to_others_and_lines_yield(far, gateway_at):
    """With upstream away: one account's lines stop a tenth earlier if there is another; at nine tenths all lines do;
    opens, uploads and closes go on."""
    gw = gateway_at(far.url, spool={'limit': '40MiB'})
    one, two = Api(gw.log_url, account='one'), Api(gw.log_url, account='two')
    assert one.open(key('a'))[0] == 204 and two.open(key('b'))[0] == 204
    assert one.put(key('a'), 'x\n')[0] == 204 and two.put(key('b'), 'x\n')[0] == 204
    gw.wait_delivered()
    far.stop()
    assert fill(one, key('a'), lambda: False)[-1] == 503
    assert gw.metric('overload_refused_total', reason='spool_share') == 1
    for i in range(10):
        assert two.put(key('b'), f'{i}\n', start=i)[0] == 204, 'the other account goes on'
    assert fill(two, key('b'), lambda: False)[-1] == 503, 'until the spool is full for lines'
    assert gw.metric('overload_refused_total', reason='spool') + gw.metric(
        'overload_refused_total', reason='spool_share') >= 2
    assert one.open(key('c'))[0] == 204 and one.blob(key('c'), b'a log\n' * 1000)[0] == 204
    assert one.put_link(key('d'), b'a log\n')[0] == 200 and one.delete(key('c'))[0] == 204
    far.start()
    gw.wait_delivered(60)
    assert one.put(key('a'), 'y\n')[0] == 204
    assert len(far.blob('one', key('c'))) == 6000


# --- one stream that floods ---------------------------------------------------------------------

def test_a_stream_that_floods_slows_itself(far, gateway_at):
    """Thirty connections send to one stream as fast as they can: others hardly notice, uploads and closes pass, and what
    cannot be taken is refused, not dropped."""
    gw = gateway_at(far.url, memory={'limit': '16MiB'}, workers=2)
    level = Level(gw, mib=48)
    api = Api(gw.log_url)
    assert api.open(key('flood'))[0] == 204
    stop, codes = threading.Event(), []
    body = json.dumps([row('x' * 2000 + '\n', i) for i in range(500)]).encode()

    def flood():
        mine = Api(gw.log_url)
        while not stop.is_set():
            try:
                codes.append(mine.put_raw(key('flood'), body)[0])
            except OSError:
                codes.append(0)
        mine.close()
    threads = [threading.Thread(target=flood) for _ in range(16)]
    took = []
    try:
        for t in threads:
            t.start()
        end, i = time.monotonic() + 5, 0
        while time.monotonic() < end:
            began = time.monotonic()
            name = key(f'o{i % 10}')
            assert (api.open(name) if i < 10 else api.put(name, 'x\n', start=i))[0] == 204
            if i % 20 == 19:
                assert api.blob(key(f'blob{i}'), b'log\n')[0] == 204
            took.append(time.monotonic() - began)
            i += 1
    finally:
        stop.set()
        for t in threads:
            t.join(30)
    assert set(codes) <= {204, 503} and codes.count(204) > 20, codes
    assert sorted(took)[len(took) * 99 // 100] < (0.5 if not sanitized() else 2), sorted(took)[-5:]
    assert codes.count(503) > 0, 'more than its share was never on its way'
    assert gw.metric('overload_refused_total', reason='stream_queue') == codes.count(503)
    wait_for(lambda: gw.ledger()['refused'] == 500 * codes.count(503), what='the ledger')
    api.delete(key('flood'))
    api.close()
    gw.wait_delivered(60)
    level.again()


# --- memory of connections --------------------------------------------------------------------------

@pytest.mark.parametrize('protocol', ['h1', 'h2'])
def test_clients_that_read_nothing_are_ended_when_memory_is_short(far, gateway_at, protocol):
    """Each of them waits for megabytes that it does not read. Past memory.connections they are ended, not those who read."""
    gw = gateway_at(far.url, memory={'connections': '4MiB'}, log={'level': 'info'})
    level, held = Level(gw, spare_fds=64, mib=48), []
    relayed = b'GET /api/echo?respond=12000000 HTTP/1.1\r\nHost: x\r\n\r\n'
    try:
        if protocol == 'h1':
            for _ in range(60):
                s = socket.socket()
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.settimeout(10)
                s.connect(('127.0.0.1', gw.port))
                send(s, relayed)
                held.append(s)
        else:
            for _ in range(8):
                h2 = H2(gw.port, window=0)
                for stream in range(1, 40, 2):
                    h2.request(stream, 'GET', '/api/echo?respond=2000000')
                held.append(h2.sock)
        wait_for(lambda: gw.metric('overload_refused_total', reason='buffers') > 0, 20, what='ends')
        wait_for(lambda: gw.metric('connection_memory_bytes') < 5 * MIB, 20, what='memory within the limit')
        status, body, _ = Api(gw.url).request('GET', '/api/echo?respond=2000000')
        assert status == 200 and len(body) >= 2000000, 'one that reads is served'
        api = Api(gw.log_url)
        assert api.open(key())[0] == 204 and api.put(key(), 'x\n')[0] == 204
        api.close()
    finally:
        close_all(held)
    level.again()
    wait_for(lambda: gw.metric('connection_memory_bytes') < MIB // 4, what='all of it given back')


# --- upstream that does not go on -----------------------------------------------------------------

def test_answers_that_stall_upstream_hold_no_memory(far, gateway_at):
    """Two hundred relayed calls: half have no answer, half stop in the middle of one. What they hold is little, others go on,
    and it ends with them."""
    gw = gateway_at(far.url, log={'level': 'info'})
    assert Api(gw.url).request('GET', '/api/echo?respond=2000000')[0] == 200
    level, held = Level(gw, spare_fds=64, mib=16), []
    far.fault('stall', 'api', count=None, target='nothing')
    far.fault('stall', 'api', count=None, target='middle', where='headers')
    try:
        for i in range(200):
            s = connect(gw.port)
            send(s, b'GET /api/%s?respond=1000000 HTTP/1.1\r\nHost: x\r\n\r\n' % (b'nothing', b'middle')[i % 2])
            held.append(s)
        wait_for(lambda: far.counts()['started'].get('api', 0) >= 201, 20, what='all of them upstream')
        began = time.monotonic()
        status, body, _ = Api(gw.url).request('GET', '/api/echo?respond=2000000')
        assert status == 200 and len(body) >= 2000000 and time.monotonic() - began < 5
        assert gw.metric('connection_memory_bytes') < 4 * MIB
        assert sanitized() or gw.rss_kb() - level.kb < 16 * 1024, 'under 80 KiB each'
    finally:
        close_all(held)
    far.clear_faults()
    level.again()


def test_deliveries_that_stall_hold_no_memory(far, gateway_at):
    """Upstream takes lines and does not answer, while megabytes come: they wait on the disk, within memory.limit."""
    gw = gateway_at(far.url, memory={'limit': '16MiB'}, log={'level': 'info'})
    api = Api(gw.log_url)
    names = [key(f's{i}') for i in range(20)]
    for name in names:
        assert api.open(name)[0] == 204
    wait_for(lambda: far.counts()['started'].get('open') == 20, what='the opens upstream')
    gw.wait_delivered()
    hold = far.fault('hold', 'lines', count=None, where='after')
    level, sent = Level(gw, mib=64), 0
    while sent < 60 * MIB:
        body = json.dumps(noise_lines(400, sent // MIB)).encode()
        name = names[sent // 100 % 20]
        assert api.put_raw(name, body)[0] == 204
        sent += len(body)
    assert gw.metric('memory_bytes') <= 16 * MIB
    assert sanitized() or gw.rss_kb() - level.kb < 28 * 1024, f'{gw.rss_kb() - level.kb} kB of 30 MiB, compressed'
    far.clear_faults(hold)
    api.close()
    level.again()
