"""Handing over to a new process: nobody is refused, nothing is cut off, no line is lost or doubled (but for what is counted)."""
import ctypes
import errno
import fcntl
import os
import queue
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
from calls import Api, body_of
from h2.connection import H2Connection
from h2.settings import SettingCodes
from gateway import BINARY, Other, free_port, key, wait_for
from proxies import ask, dial, echo, place, read_exactly
from inside import HARNESS
from test_dead import BAD, balanced, ctl_json_any, letters, poison, replay, stored, stream_with_poison
from test_disk import Disk, library, needs_preload  # noqa: F401
from test_intercept import World

WAIT = 20
with_faults = pytest.mark.skipif(
    b'fault points' not in subprocess.run([BINARY, 'version'], capture_output=True).stdout,
    reason='this binary has no fault points')


def talk(s, text=b'hello'):
    """Through a tunnel whose far end echoes."""
    s.sendall(text)
    assert read_exactly(s, len(text)) == text


class WebSocket:
    """A client of the delegate's WebSocket, whose far end echoes."""

    def __init__(self, gw):
        self.s = socket.create_connection(('127.0.0.1', gw.port), WAIT)
        self.s.sendall(b'GET /stream/delegate/acct HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n'
                       b'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n')
        head = b''
        while not head.endswith(b'\r\n\r\n'):
            head += read_exactly(self.s, 1)
        assert b' 101 ' in head.split(b'\r\n')[0], head

    def talk(self, text=b'hello'):
        self.s.sendall(struct.pack('!BB', 0x81, 0x80 | len(text)) + bytes(4) + text)
        assert read_exactly(self.s, 2 + len(text))[2:] == text


class Load(threading.Thread):
    """`turn(i)` again and again; what it raises is a failure."""

    def __init__(self, turn):
        super().__init__(daemon=True)
        self.turn, self.done, self.errors, self.longest, self.over = turn, 0, [], 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            began = time.monotonic()
            try:
                self.turn(self.done)
            except Exception as e:      # whatever it is
                self.errors.append(repr(e))
            self.longest = max(self.longest, time.monotonic() - began)
            self.done += 1

    def end(self):
        self.over.set()
        self.join(WAIT)
        assert not self.is_alive() and not self.errors, self.errors[:5]
        return self.done


def close_all(socks):
    for s in socks:
        s.close()


def full_gateway(make, far, port, **options):
    return make(far.url, workers=2, rules={'local': {'hosts': ['127.0.0.1'], 'ports': ['1-65535'], 'addresses': ['127.0.0.0/8']}},
                listen={'proxy': {'mode': 'proxy', 'address': '127.0.0.1:0'},
                        'db': {'mode': 'forward', 'address': '127.0.0.1:0', 'to': f'127.0.0.1:{port}'}},
                egress={'profile': 'none'}, **options)


def test_three_takeovers_under_load(far, gateway_at):
    """New connections, kept ones, tunnels and forwards, while the number of workers changes; each line arrives once."""
    with place(echo) as p:
        gw = full_gateway(gateway_at, far, p.port)
        kept = Api(gw.log_url)
        for name in ('new', 'kept'):
            assert kept.open(key(name))[0] == 204

        def on_new_connections(i):
            api = Api(gw.log_url)
            assert api.put(key('new'), f'{i}\n', start=i)[0] == 204
            api.close()

        def on_a_kept_one(i):
            assert kept.put(key('kept'), f'{i}\n', start=i)[0] == 204

        def by_connect(i):
            s, status, head = ask(gw, f'127.0.0.1:{p.port}')
            assert status == 200, head
            talk(s)
            s.close()

        def by_forward(i):
            with dial(gw, 'db') as s:
                talk(s)

        tunnel = ask(gw, f'127.0.0.1:{p.port}')[0]
        loads = [Load(f) for f in (on_new_connections, on_a_kept_one, by_connect, by_forward)]
        first = gw.process
        for by_signal, workers in ((False, 4), (True, 1), (False, 3)):
            seen = [load.done for load in loads]
            gw.take_over(by_signal, workers=workers)
            talk(tunnel)
            wait_for(lambda: all(load.done > n + 3 for load, n in zip(loads, seen)), what='calls after the takeover')
            assert gw.gap_ms() < 3000
        new, old, *_ = [load.end() for load in loads]
        assert max(load.longest for load in loads) < 10
        talk(tunnel)
        assert first.poll() is None             # it has that tunnel
        tunnel.close()
        kept.close()
        assert first.wait(WAIT) == 0
        gw.wait_delivered()
        ledger = gw.ledger()
        assert ledger['accepted'] == ledger['delivered'] == new + old
        for name, n in (('new', new), ('kept', old)):
            lines = far.lines('acct', key(name))
            assert list(dict.fromkeys(lines)) == [f'{i}\n' for i in range(n)]
            assert len(lines) - n <= gw.metric('lines_resent_total')
        assert len(re.findall('msg="taken over"', gw.log())) == 3


def test_open_connections_stay(far, gateway_at):
    """A WebSocket, a CONNECT and a forward outlive two takeovers; the old processes end with them."""
    with place(echo) as p:
        gw = full_gateway(gateway_at, far, p.port)
        ws, tunnel, forward = WebSocket(gw), ask(gw, f'127.0.0.1:{p.port}')[0], dial(gw, 'db')
        first = gw.process
        for by_signal in (True, False):
            gw.take_over(by_signal)
            ws.talk()
            talk(tunnel)
            talk(forward, b'x' * 100000)
        second = gw.before[-1]
        assert first.poll() is None
        for s in (ws.s, tunnel, forward):
            s.close()
        assert first.wait(WAIT) == 0 and second.wait(WAIT) == 0


def test_intercepted_connections_stay(tmp_path):
    """TLS that ends here: requests to Harness and log calls on it go on, through the old process, after two takeovers."""
    world = World(tmp_path)
    try:
        gw = world.gw
        inside = world.tls().handshake()
        relayed = world.tls('listed.test', f'listed.test:{world.listed.port}').handshake()
        target = f'/log-service/stream?accountID=acct&key={key()}'
        assert inside.get(target, world.authority, 'POST')[0] == 204
        assert relayed.get('/a', f'listed.test:{world.listed.port}')[0] == 200
        gw.take_over(True, drain={'limit': '60s'})
        gw.take_over(drain={'limit': '60s'})
        for i in range(3):
            assert inside.get(target, world.authority, 'PUT', body_of(f'{i}\n', start=i))[0] == 204
            assert inside.get('/api/version', world.authority)[0] == 200
            assert relayed.get('/b', f'listed.test:{world.listed.port}')[0] == 200
        gw.wait_delivered()
        assert world.far.lines('acct', key()) == ['0\n', '1\n', '2\n']
        inside.sock.close()
        relayed.sock.close()
        assert gw.before[0].wait(WAIT) == 0
    finally:
        world.close()


def test_connections_by_dns_override_stay(tmp_path):
    """A listener of mode sni: TLS that is passed on unopened, and TLS that ends here; and new ones come by it afterwards."""
    world = World(tmp_path)
    try:
        spliced = world.sni('spliced.test', ca=world.origin_ca.ca).handshake()
        ended = world.sni(HARNESS).handshake()
        assert spliced.get('/before', 'spliced.test')[0] == 200
        for by_signal in (True, False):
            world.gw.take_over(by_signal, drain={'limit': '60s'})
            assert spliced.get('/after', 'spliced.test')[0] == 200
            assert ended.get('/api/version', world.authority)[0] == 200
            fresh = world.sni('spliced.test', ca=world.origin_ca.ca).handshake()
            assert fresh.get('/new', 'spliced.test')[0] == 200
            fresh.sock.close()
        first = world.gw.before[0]
        assert first.poll() is None
        spliced.sock.close()
        ended.sock.close()
        assert first.wait(WAIT) == 0
    finally:
        world.close()


def test_remote_calls_stay(far, gateway_at, tmp_path):
    """A gRPC stream that is open goes on message by message; calls that begin afterwards are the new process's."""
    calls = pytest.importorskip('test_grpc')
    engine = calls.Engine()
    engine.server, engine.port = calls.serve(engine)
    gw = gateway_at(far.url, listen={'engine': {'mode': 'grpc', 'address': '127.0.0.1:0',
                                                'to': f'http://127.0.0.1:{engine.port}'}})
    try:
        with calls.grpc.insecure_channel(f'127.0.0.1:{gw.ports["engine"]}', options=calls.OPTIONS) as channel:
            words = queue.Queue()
            answers = channel.stream_stream(calls.path('Chat'))(iter(words.get, None), timeout=60)
            words.put(b'0')
            assert next(answers) == b'<0>'
            for i, by_signal in enumerate((True, False)):
                gw.take_over(by_signal)
                words.put(b'%d' % i)
                assert next(answers) == b'<%d>' % i
                assert calls.unary(channel, 'Echo')(b'new', timeout=20) == b'new'
            first = gw.before[0]
            assert first.poll() is None             # it has that stream
            words.put(None)
            assert list(answers) == [b'bye']
            assert first.wait(WAIT) == 0
    finally:
        engine.release.set()
        engine.server.stop(0).wait()


def test_kept_tls_connections_are_served_once_more(far, gateway_at, ca):
    """The process that took over gets the call, knows that it came by TLS, and the connection ends with the answer."""
    cert, cert_key = ca.issue('127.0.0.1')
    gw = gateway_at(far.url, cert=cert, key=cert_key)
    api = Api(gw.log_url, ca=ca.ca)
    assert api.open(key())[0] == 204
    gw.take_over()
    status, text, fields = api.link(key())
    assert status == 200 and '"https://' in text and fields['connection'] == 'close'
    assert api.put_link(key(), b'whole\n')[0] == 200
    api.close()
    assert gw.before[0].wait(WAIT) == 0
    gw.wait_delivered()
    assert far.blob('acct', key()) == b'whole\n'


def test_a_slow_upload_is_not_cut_off(far, gateway_at):
    """The takeover waits for it, and nobody else waits meanwhile."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    body = b'line\n' * 2000
    s = socket.create_connection(('127.0.0.1', gw.port), WAIT)
    s.sendall(f'POST /log-service/blob?accountID=acct&key={key()} HTTP/1.1\r\nHost: h\r\nX-Harness-Token: token-1\r\n'
              f'Content-Length: {len(body)}\r\n\r\n'.encode() + body[:3000])
    wait_for(lambda: gw.metric('http_connections') >= 2)
    gw.take_over(wait=False)
    wait_for(lambda: 'waiting for calls in hand' in gw.log(), what='the takeover that waits')
    assert api.open(key('other'))[0] == 204
    for i in range(3):
        assert api.put(key('other'), f'{i}\n', start=i)[0] == 204
    s.sendall(body[3000:])
    assert b' 204 ' in s.recv(1000)
    s.close()
    api.close()
    old = gw.process
    wait_for(lambda: 'msg="taken over"' in gw.log(), what='the takeover')
    assert old.wait(WAIT) == 0
    gw.process = Other(int(re.search(r'"handed over.*?pid=(\d+)', gw.log()).group(1)))
    wait_for(lambda: far.blob('acct', key()) == body, what='the whole blob')
    gw.wait_delivered()


def test_an_upload_without_end_calls_it_off(far, gateway_at):
    gw = gateway_at(far.url, drain={'limit': '1s'})
    s = socket.create_connection(('127.0.0.1', gw.port), WAIT)
    s.sendall(f'POST /log-service/blob?accountID=acct&key={key()} HTTP/1.1\r\nHost: h\r\nX-Harness-Token: token-1\r\n'
              f'Content-Length: 10\r\n\r\nline\n'.encode())
    wait_for(lambda: gw.metric('http_connections') >= 2)
    new = gw.take_over(wait=False)
    assert new.wait(WAIT) == 1
    assert 'calls of clients did not end in time' in gw.log()
    s.sendall(b'line\n')
    assert b' 204 ' in s.recv(1000)
    s.close()
    gw.wait_delivered()
    assert far.blob('acct', key()) == b'line\nline\n'


def test_calls_under_way_are_finished(far, gateway_at):
    """Over HTTP/1.1 and HTTP/2, by a relay that upstream lets wait."""
    gw = gateway_at(far.url)
    far.fault('delay', 'api', count=2, seconds=2)
    curls = [subprocess.Popen(['curl', '-sS', '-o', '/dev/null', '-w', '%{http_code} %{http_version}', flag,
                               f'{gw.url}/api/slow'], stdout=subprocess.PIPE)
             for flag in ('--http1.1', '--http2-prior-knowledge')]
    wait_for(lambda: len(far.log('api')) == 2, what='both calls')
    gw.take_over()
    assert [c.communicate(timeout=WAIT)[0] for c in curls] == [b'200 1.1', b'200 2']
    assert gw.before[0].wait(WAIT) == 0


def test_deliveries_that_do_not_end_are_given_up(far, gateway_at):
    """Their outcome is unknown, as after a crash: one batch may arrive twice, and is counted."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    far.fault('delay', 'lines', count=1, seconds=30)
    assert api.put(key(), 'a\n')[0] == 204
    wait_for(lambda: far.counts()['requests'].get('lines') is not None or gw.metric('upstream_requests_total') >= 1)
    gw.take_over()
    assert 'deliveries are given up' in gw.log()
    assert api.put(key(), 'b\n', start=1)[0] == 204
    api.close()
    gw.wait_delivered()
    assert list(dict.fromkeys(far.lines('acct', key()))) == ['a\n', 'b\n']
    assert gw.metric('lines_resent_total') <= 1


def test_what_is_left_ends_with_the_drain_limit(far, gateway_at):
    """Spread over its last quarter, so that not all clients come back at once."""
    with place(echo) as p:
        gw = full_gateway(gateway_at, far, p.port, drain={'limit': '3s'})
        tunnels = [ask(gw, f'127.0.0.1:{p.port}')[0] for _ in range(30)]
        gw.take_over()
        began = time.monotonic()
        talk(tunnels[0])
        ends, left = [], set(tunnels)
        while left and time.monotonic() < began + WAIT:
            for s in select.select(list(left), [], [], 1)[0]:
                assert s.recv(1) == b''                     # an orderly end
                ends.append(time.monotonic() - began)
                left.remove(s)
        assert gw.before[0].wait(WAIT) == 0
        assert len(ends) == 30 and 1.5 < ends[0] and ends[-1] < 5, ends
        assert ends[-1] - ends[0] > 0.3, ends
        assert max(sum(at <= e < at + 0.1 for e in ends) for at in ends) <= 15, ends
        close_all(tunnels)
        new, status, _ = ask(gw, f'127.0.0.1:{p.port}')
        assert status == 200
        new.close()


def test_listeners_come_go_and_move(far, gateway_at):
    """What a reload refuses; connections that wait at a listener which goes are taken first."""
    with place(echo) as p:
        gw = full_gateway(gateway_at, far, p.port)
        gw.write_config(listen={'db': {'address': '127.0.0.1:%d' % free_port()}})
        gw.signal(signal.SIGHUP)
        wait_for(lambda: 'hand over (SIGUSR2)' in gw.log(), what='the reason')
        old_port = gw.ports['db']
        more = {'db2': {'mode': 'forward', 'address': '127.0.0.1:0', 'to': f'127.0.0.1:{p.port}'}}
        gw.take_over(True, listen=more)
        assert gw.ports['db'] != old_port
        for name in ('db', 'db2'):
            with dial(gw, name) as s:
                talk(s)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', old_port), WAIT)


@pytest.mark.parametrize('by_signal', [False, True])
def test_a_bad_configuration_changes_nothing(far, gateway_at, by_signal):
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    good = gw.config_path.read_text()
    gw.config_path.write_text(good + 'nonsense: 1\n')
    if by_signal:
        gw.signal(signal.SIGUSR2)
        wait_for(lambda: 'handing over failed; this process goes on' in gw.log(), what='the report')
    else:
        assert gw.run('--takeover').wait(WAIT) == 1
    assert 'nonsense' in gw.log()
    assert api.put(key(), 'a\n')[0] == 204
    gw.config_path.write_text(good)
    gw.take_over(by_signal)
    assert api.put(key(), 'b\n', start=1)[0] == 204
    api.close()
    gw.wait_delivered()
    assert far.lines('acct', key()) == ['a\n', 'b\n']


def test_another_spool_is_refused(far, gateway_at):
    """What waits in this one would be left behind."""
    gw = gateway_at(far.url)
    gw.write_config(control={'socket': str(gw.directory / 'spool' / 'control.sock')},
                    spool={'directory': str(gw.directory / 'other')})
    assert gw.run('--takeover').wait(WAIT) == 1
    assert 'cannot be changed by a takeover' in gw.log()
    assert Api(gw.log_url).open(key())[0] == 204


@needs_preload
def test_a_spool_that_fails_is_not_handed_over(far, gateway_at, library, tmp_path):  # noqa: F811
    """The old process serves clients directly meanwhile; the new one could not even open it."""
    disk = Disk(tmp_path, library)
    gw = gateway_at(far.url, name='gw', env=dict(disk.env, BADDISK_DIR=str(tmp_path / 'gw' / 'spool')))
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    wait_for(lambda: far.counts()['started'].get('open'), what='the open upstream')
    gw.wait_delivered()
    disk.set(write=errno.ENOSPC)
    assert api.put(key(), 'a\n')[0] == 204
    assert gw.metric('spool_failing') == 1
    assert gw.run('--takeover').wait(WAIT) == 1
    assert 'records cannot be made durable now' in gw.log()
    assert api.put(key(), 'b\n', start=1)[0] == 204
    disk.mend()
    wait_for(lambda: gw.get('/readyz')[0] == 200, what='readiness')
    gw.take_over()
    assert api.put(key(), 'c\n', start=2)[0] == 204
    api.close()
    gw.wait_delivered()
    assert far.lines('acct', key()) == ['a\n', 'b\n', 'c\n']
    wait_for(lambda: gw.ledger()['delivered'] == 3, what='the ledger')


def test_a_dead_letter_that_is_being_replayed(far, gateway_at):
    """Its upload is given up and its outcome unknown: the letter stays, and what upstream stored all the same is not stored
    twice by the next replay."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    letter = stream_with_poison(far, gw, api)
    api.close()
    hold, said = far.fault('hold', 'blob'), []

    def ask_for_it():
        said.append(wait_for(lambda: [r for r in [ctl_json_any(gw, 'dead', 'replay', letter)]
                                      if 'has not ended' not in r[1]], what='the replay')[0])
    asker = threading.Thread(target=ask_for_it)
    asker.start()
    wait_for(lambda: far.counts()['started'].get('blob'), what='the upload')
    gw.take_over()
    asker.join(WAIT)
    assert said[0][0] in (1, 3), said           # told that it failed, or that nobody is there to say so
    far.clear_faults(hold)
    assert [found['id'] for found in letters(gw)] == [letter]
    balanced(gw, accepted=4, delivered=2, dead=2, settled=0)
    wait_for(lambda: not far.counts()['running'], what='what was held')
    assert replay(gw, letter)['result'] == 'settled'
    assert stored(far, key()) == BAD
    balanced(gw, accepted=4, delivered=2, dead=0, settled=2)
    assert letters(gw) == []


@pytest.mark.skipif(os.getuid() != 0, reason='only root can make a container')
def test_the_first_process_of_a_container_refuses(far, gateway_at, monkeypatch):
    monkeypatch.setenv('TAILRACE_WRAPPER', 'unshare --pid --fork --kill-child')
    if subprocess.run(['unshare', '--pid', '--fork', 'true'], capture_output=True).returncode:
        pytest.skip('no namespaces here')
    gw = gateway_at(far.url)
    monkeypatch.delenv('TAILRACE_WRAPPER')
    outer = gw.process
    with open(f'/proc/{outer.pid}/task/{outer.pid}/children') as f:
        gw.process = Other(int(f.read()))
    try:
        assert gw.run('--takeover').wait(WAIT) == 1
        gw.signal(signal.SIGUSR2)
        wait_for(lambda: 'this process cannot hand over' in gw.log(), what='the reason')
        assert gw.log().count('the first process of its container') == 2
        assert Api(gw.log_url).open(key())[0] == 204
    finally:
        gw.stop()
        outer.wait(WAIT)


def test_nobody_to_take_over_from(far, gateway_at):
    gw = gateway_at(far.url, start=False)
    gw.write_config()
    assert gw.run('--takeover').wait(WAIT) == 1
    assert 'cannot take over: is it running?' in gw.log()


@with_faults
@pytest.mark.parametrize('point', ['takeover-ready', 'takeover-released', 'takeover-serving'])
def test_the_new_process_dies(far, gateway_at, point):
    """Before it has the spool, the old one goes on. Afterwards the old one starts itself again and hands over to that;
    clients wait, tunnels stay."""
    with place(echo) as p:
        gw = full_gateway(gateway_at, far, p.port)
        api = Api(gw.log_url)
        assert api.open(key())[0] == 204
        tunnel = ask(gw, f'127.0.0.1:{p.port}')[0]
        began = time.monotonic()
        new = gw.take_over(wait=False, env={'TAILRACE_FAULT': f'{point}:1:kill'})
        assert new.wait(WAIT) == -signal.SIGKILL
        fresh = Api(gw.log_url)
        assert fresh.put(key(), 'a\n')[0] == 204
        assert time.monotonic() - began < 8
        fresh.close()
        talk(tunnel)
        if point == 'takeover-ready':
            assert 'handing over failed; this process goes on' in gw.log()
        else:
            gw.before.append(gw.process)
            wait_for(lambda: 'msg="handed over' in gw.log(), what='the rescue')
            gw.process = Other(int(re.search(r'"handed over.*?pid=(\d+)', gw.log()).group(1)))
        assert api.put(key(), 'b\n', start=1)[0] == 204
        api.close()
        gw.take_over()
        talk(tunnel)
        tunnel.close()
        gw.wait_delivered()
        assert far.lines('acct', key()) == ['a\n', 'b\n']


@with_faults
def test_the_old_process_dies_when_the_spool_is_free(far, gateway_at):
    """The new one has the listeners: it goes on by itself."""
    gw = gateway_at(far.url, env={'TAILRACE_FAULT': 'handover-released:1:kill'})
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204 and api.put(key(), 'a\n')[0] == 204
    api.close()
    old = gw.process
    gw.env = dict(os.environ)
    gw.process = gw.take_over(wait=False)
    assert old.wait(WAIT) == -signal.SIGKILL
    gw.wait_ready()
    assert api.put(key(), 'b\n', start=1)[0] == 204
    api.close()
    gw.wait_delivered()
    assert list(dict.fromkeys(far.lines('acct', key()))) == ['a\n', 'b\n']


def paused(gw, tmp_path, **options):
    """A takeover that stands still between RELEASED and SERVING; the new process, and what lets it go on."""
    flag = tmp_path / 'pause'
    flag.touch()
    old = gw.process
    new = gw.take_over(wait=False, env={'TAILRACE_FAULT': 'takeover-pause:1:while', 'TAILRACE_FAULT_WHILE': str(flag)},
                       **options)

    def released():
        """The spool is nobody's: its lock can be had."""
        with open(gw.directory / 'spool' / 'spool.lock', 'r+b') as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                return False
    wait_for(released, what='the spool')
    gw.before.append(old)
    gw.process = new
    return old, new, flag


@with_faults
def test_the_old_process_dies_before_the_new_one_serves(far, gateway_at, tmp_path):
    """The new one has all that it needs: it serves."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204 and api.put(key(), 'a\n')[0] == 204
    api.close()
    old, new, flag = paused(gw, tmp_path)
    old.kill()
    assert old.wait(WAIT) == -signal.SIGKILL
    gw.before.remove(old)
    flag.unlink()
    gw.wait_ready()
    assert api.put(key(), 'b\n', start=1)[0] == 204
    api.close()
    gw.wait_delivered()
    assert list(dict.fromkeys(far.lines('acct', key()))) == ['a\n', 'b\n']
    assert new.poll() is None and 'ended before it was relieved' in gw.log()


@with_faults
def test_the_old_process_is_told_to_end_before_the_new_one_serves(far, gateway_at, tmp_path):
    """Its tunnels end as with any drain, not at once, and the new process serves."""
    with place(echo) as p:
        gw = full_gateway(gateway_at, far, p.port, drain={'limit': '3s'})
        tunnel = ask(gw, f'127.0.0.1:{p.port}')[0]
        old, _, flag = paused(gw, tmp_path, drain={'limit': '3s'})
        old.send_signal(signal.SIGTERM)
        wait_for(lambda: 'told to end: when the new process serves' in gw.log(), what='the signal')
        talk(tunnel)
        flag.unlink()
        gw.taken_over()
        talk(tunnel)
        assert old.wait(WAIT) == 0
        assert tunnel.recv(1) == b''
        api = Api(gw.log_url)
        assert api.open(key())[0] == 204
        api.close()


@with_faults
def test_the_new_process_dies_when_the_old_one_was_told_to_end(far, gateway_at, tmp_path):
    """Nothing is started again, then."""
    gw = gateway_at(far.url)
    old, new, _ = paused(gw, tmp_path)
    old.send_signal(signal.SIGTERM)
    wait_for(lambda: 'told to end: when the new process serves' in gw.log(), what='the signal')
    new.kill()
    assert new.wait(WAIT) == -signal.SIGKILL
    assert old.wait(WAIT) == 0
    assert 'starting this program again' not in gw.log()


def lock_of(pid, path):
    """The very descriptor with which that process has locked the file, as one of ours (pidfd_getfd(2))."""
    number, = [int(fd) for fd in os.listdir(f'/proc/{pid}/fd') if os.readlink(f'/proc/{pid}/fd/{fd}') == str(path)]
    pidfd = os.pidfd_open(pid)
    try:
        fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    finally:
        os.close(pidfd)
    if fd < 0:
        pytest.skip(f'pidfd_getfd: {os.strerror(ctypes.get_errno())}')
    return fd


def test_the_lock_of_a_process_that_died_comes_a_moment_later(far, gateway_at):
    """Its descriptors are closed one after the other: the channel may go before the lock."""
    gw = gateway_at(far.url)
    api, slow = Api(gw.log_url), socket.create_connection(('127.0.0.1', gw.port), WAIT)
    assert api.open(key())[0] == 204
    api.close()
    slow.sendall(f'POST /log-service/blob?accountID=acct&key={key("x")} HTTP/1.1\r\nHost: h\r\nX-Harness-Token: token-1\r\n'
                 'Content-Length: 9\r\n\r\n{'.encode())
    wait_for(lambda: gw.metric('http_connections') >= 2)
    old = gw.process
    lock = lock_of(old.pid, gw.directory / 'spool' / 'spool.lock')
    gw.process = gw.take_over(wait=False)
    wait_for(lambda: '"handing over"' in gw.log(), what='the takeover')
    old.kill()
    assert old.wait(WAIT) == -signal.SIGKILL
    slow.close()
    wait_for(lambda: 'ended before it had handed over' in gw.log(), what='the new process')
    with pytest.raises(subprocess.TimeoutExpired):
        gw.process.wait(0.3)
    os.close(lock)
    gw.wait_ready()
    assert api.put(key(), 'a\n')[0] == 204
    api.close()
    gw.wait_delivered()
    assert far.lines('acct', key()) == ['a\n']


def test_no_dead_letter_is_replayed_while_the_spool_is_to_change_hands(far, gateway_at):
    """Its upload would be on its way while the new process sends others to the same blob."""
    gw = gateway_at(far.url)
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    letter = poison(far, gw, api, key(), 'bad\n', start=0)
    assert api.delete(key())[0] == 204
    far.fault('status', 'get-blob', count=None, code=503)
    slow = socket.create_connection(('127.0.0.1', gw.port), WAIT)
    slow.sendall(f'POST /log-service/blob?accountID=acct&key={key("x")} HTTP/1.1\r\nHost: h\r\nX-Harness-Token: token-1\r\n'
                 'Content-Length: 2\r\n\r\n{'.encode())
    wait_for(lambda: gw.metric('http_connections') >= 2)
    old = gw.process
    new = gw.take_over(wait=False)
    wait_for(lambda: 'about to hand over' in ctl_json_any(gw, 'dead', 'replay', letter)[1], 5, what='the refusal')
    slow.sendall(b'\n')
    assert b' 204 ' in slow.recv(1000)
    slow.close()
    gw.before.append(old)
    gw.process = new
    gw.taken_over()
    api.close()
    assert old.wait(WAIT) == 0
    gw.wait_delivered()


@with_faults
def test_a_client_of_http2_that_reads_nothing_calls_when_the_spool_is_gone(far, gateway_at, tmp_path):
    """It cannot be told of the takeover; its call is not for the old process, which has no spool, and does not end it."""
    with place(echo) as p:
        gw = full_gateway(gateway_at, far, p.port)
        tunnel = ask(gw, f'127.0.0.1:{p.port}')[0]
        api = Api(gw.log_url)
        assert api.blob(key(), b'x' * (24 << 20))[0] == 204
        api.close()
        gw.wait_delivered()
        c = H2Connection()
        c.initiate_connection()
        c.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        c.increment_flow_control_window(2**30)
        fields = [(':method', 'GET'), (':scheme', 'http'), (':authority', 'h'), ('x-harness-token', 'token-1'),
                  (':path', f'/log-service/blob?accountID=acct&key={key()}')]
        c.send_headers(1, sorted(fields), end_stream=True)
        with socket.create_connection(('127.0.0.1', gw.port), WAIT) as s:
            s.sendall(c.data_to_send())
            wait_for(lambda: far.counts()['started'].get('get-blob'), what='the answer that nobody reads')
            old, _, flag = paused(gw, tmp_path)
            for stream, path in ((3, 'stream'), (5, 'blob')):
                c.send_headers(stream, sorted(fields[1:4] + [(':method', 'POST'), (':path', f'/log-service/{path}?accountID=acct&key=y')]),
                               end_stream=True)
            s.sendall(c.data_to_send())
            with pytest.raises(subprocess.TimeoutExpired):
                old.wait(0.3)
            flag.unlink()
            gw.taken_over()
            talk(tunnel)
        tunnel.close()
        assert old.wait(WAIT) == 0


# --- supervisors --------------------------------------------------------------------------------

class Supervisor:
    """A stand-in for systemd's notification socket."""

    def __init__(self, directory):
        self.path = str(directory / 'notify')
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.said = []

    def has_said(self, *texts):
        try:
            while True:
                self.said += self.socket.recv(1000).decode().split('\n')
        except BlockingIOError:
            pass
        return all(t in self.said for t in texts)


def test_the_supervisor_is_told_who_the_main_process_is(far, gateway_at, tmp_path):
    boss = Supervisor(tmp_path)
    gw = gateway_at(far.url, env={'NOTIFY_SOCKET': boss.path})
    wait_for(lambda: boss.has_said('READY=1'))
    gw.take_over(True)
    wait_for(lambda: boss.has_said(f'MAINPID={gw.pid}'), what='MAINPID')
    parent = re.search(r'PPid:\t(\d+)', open(f'/proc/{gw.pid}/status').read()).group(1)
    assert int(parent) != gw.before[0].pid          # or its end would be hidden from the supervisor
    assert gw.before[0].wait(WAIT) == 0
    assert 'STOPPING=1' not in boss.said
    gw.stop()
    assert boss.has_said('STOPPING=1')


def activated(gw, sockets, names):
    """Start it as a supervisor does that holds the sockets."""
    code = ('import fcntl, os, sys\n'
            'fds = [int(a) for a in sys.argv[1].split(",")]\n'
            'high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]\n'
            'for i, fd in enumerate(high): os.dup2(fd, 3 + i)\n'
            'os.environ["LISTEN_PID"] = str(os.getpid())\n'
            'os.execv(sys.argv[2], sys.argv[2:])')
    env = dict(gw.env, LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=':'.join(names))
    gw.log_from = gw.log_path.stat().st_size if gw.log_path.exists() else 0
    with open(gw.log_path, 'ab') as log:
        gw.process = subprocess.Popen(
            ['/usr/bin/python3', '-c', code, ','.join(str(s.fileno()) for s in sockets), BINARY, 'serve', '-c',
             str(gw.config_path)], pass_fds=[s.fileno() for s in sockets], stdout=log, stderr=log, env=env)
    gw.wait_ready()


def test_a_restart_under_socket_activation_refuses_nobody(far, gateway_at):
    """By name, and by address; what is of no use is closed with a warning; a takeover passes them on."""
    gw = gateway_at(far.url, start=False, workers=3)
    sockets = [socket.create_server(('127.0.0.1', 0), backlog=128) for _ in range(3)]
    gw.options['listen']['admin']['address'] = '127.0.0.1:%d' % sockets[1].getsockname()[1]
    gw.write_config()
    activated(gw, sockets, ['upstream', 'whatever', 'stray'])
    assert gw.port == sockets[0].getsockname()[1]
    assert 'no listener is for this descriptor; closed' in gw.log() and 'name=stray' in gw.log()
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    api.close()
    load = Load(lambda i: Api(gw.log_url).put(key(), f'{i}\n', start=i)[0] == 204 or 1 / 0)
    wait_for(lambda: load.done > 3)
    assert gw.stop() == 0
    activated(gw, sockets, ['upstream', 'whatever', 'stray'])
    wait_for(lambda: load.done > 10)
    gw.take_over(True, workers=4)
    n = load.done
    wait_for(lambda: load.done > n + 3)
    n = load.end()
    gw.wait_delivered()
    assert far.lines('acct', key()) == [f'{i}\n' for i in range(n)]
    for s in sockets:
        s.close()


@pytest.mark.skipif(not os.path.exists('/usr/bin/systemd-socket-activate'), reason='systemd is not here')
def test_systemd_socket_activate(far, gateway_at):
    gw = gateway_at(far.url, start=False)
    port = free_port()
    gw.options['listen']['upstream']['address'] = f'127.0.0.1:{port}'
    gw.write_config()
    gw.log_from = 0
    with open(gw.log_path, 'ab') as log:
        gw.process = subprocess.Popen(['/usr/bin/systemd-socket-activate', '-l', f'127.0.0.1:{port}', '--fdname=upstream',
                                       BINARY, 'serve', '-c', str(gw.config_path)], stdout=log, stderr=log, env=gw.env)
    wait_for(lambda: 'Listening on' in gw.log(), what='systemd-socket-activate')
    api = Api(f'http://127.0.0.1:{port}/log-service')
    assert api.open(key())[0] == 204        # which starts it
    gw.wait_ready()
    assert api.put(key(), 'a\n')[0] == 204
    api.close()
    gw.wait_delivered()
