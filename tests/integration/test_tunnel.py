"""Tunnels: bytes, ends, silence, reload, drain."""
import concurrent.futures
import hashlib
import os
import random
import select
import signal
import socket
import struct
import threading
import time

import pytest
from frames import sanitized
from gateway import wait_for
from proxies import (MB, RULES, Trail, dial, echo, keep, place, proxy_at, read_all, read_exactly, read_head, reset, status_of,
                     tunnel)


@pytest.fixture
def gw(gateway_at):
    return proxy_at(gateway_at)


def through(gw, p):
    return tunnel(gw, f'127.0.0.1:{p.port}')


def linger(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))


# --- bytes -----------------------------------------------------------------------------------------

class Source:
    """Sends `n` random bytes, then the end; remembers their digest."""

    def __init__(self, n):
        self.data = os.urandom(min(n, 4 * MB)) * (n // min(n, 4 * MB))
        self.digest = hashlib.sha256(self.data).hexdigest()

    def __call__(self, s):
        with s:
            s.sendall(self.data)
            s.shutdown(socket.SHUT_WR)
            read_all(s)


def digest_of(s):
    h, n = hashlib.sha256(), 0
    while True:
        piece = s.recv(1 << 20)
        if not piece:
            return h.hexdigest(), n
        h.update(piece)
        n += len(piece)


@pytest.mark.parametrize('size', [1, 65536, 65537, 3 * MB, 200 * MB])
def test_bulk_down(gw, size):
    source = Source(size)
    with place(source) as p, through(gw, p) as s:
        got, n = digest_of(s)
        assert (n, got) == (len(source.data), source.digest)
    e = gw.trail.last(event='end')
    assert (e['bytes_down'], e['bytes_up'], e['end']) == (n, 0, 'upstream')


def test_bulk_up(gw):
    data = os.urandom(4 * MB) * 25
    seen = []
    with place(lambda s: (seen.append(digest_of(s)), s.close())) as p, through(gw, p) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b''
    assert seen == [(hashlib.sha256(data).hexdigest(), len(data))]
    e = gw.trail.last(event='end')
    assert (e['bytes_up'], e['bytes_down'], e['end']) == (len(data), 0, 'client')


def test_bulk_both_ways_at_once_in_many_tunnels(gw):
    """More tunnels than there are pipes; odd pieces; each echoes its own."""
    def one(seed):
        rng = random.Random(seed)
        data = rng.randbytes(3 * MB)
        with through(gw, p) as s:
            def send():
                at = 0
                while at < len(data):
                    n = rng.choice((1, 100, 65536, 300000))
                    s.sendall(data[at:at + n])
                    at += n
                s.shutdown(socket.SHUT_WR)
            t = threading.Thread(target=send)
            t.start()
            got = read_all(s)
            t.join()
            return got == data
    with place(echo) as p, concurrent.futures.ThreadPoolExecutor(60) as pool:
        assert all(pool.map(one, range(60)))
    wait_for(lambda: gw.metric('tunnels') == 0)
    assert gw.metric('passage_bytes_total', kind='tunnel') == 2 * 60 * 3 * MB


def test_small_pieces_are_not_held(gw):
    with place(echo) as p, through(gw, p) as s:
        begun = time.monotonic()
        for i in range(200):
            s.sendall(b'%d' % (i % 10))
            assert s.recv(10) == b'%d' % (i % 10)
        assert time.monotonic() - begun < 200 * 0.04, 'no delay of Nagle\'s anywhere'


@pytest.mark.parametrize('who', ['client', 'upstream'])
def test_a_side_that_never_reads(gw, who):
    """The other one is held up; memory stays; everybody else goes on."""
    sent = [0]

    def pour(s):
        s.settimeout(1)
        try:
            while sent[0] < 400 * MB:
                sent[0] += s.send(b'x' * MB)
        except (socket.timeout, OSError):
            pass
    with place(echo) as other, place(pour if who == 'client' else keep) as p, through(gw, p) as s:
        before = gw.rss_kb()
        if who == 'upstream':
            pour(s)
        else:
            wait_for(lambda: sent[0] and not stirs(sent), 20, every=0.3, what='the sender to be held up')
        assert sent[0] < 100 * MB
        with through(gw, other) as t:
            t.sendall(b'still here')
            assert read_exactly(t, 10) == b'still here'
        if not sanitized():
            assert gw.rss_kb() - before < 4000
    wait_for(lambda: gw.metric('tunnels') == 0)


def stirs(sent):
    before = sent[0]
    time.sleep(0.25)
    return sent[0] != before


# --- ends ------------------------------------------------------------------------------------------

def test_half_closed_by_the_client(gw):
    """What the destination says after the client's end still comes."""
    def late(s):
        with s:
            assert read_all(s) == b'question'
            s.sendall(b'a late answer')
    with place(late) as p, through(gw, p) as s:
        s.sendall(b'question')
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b'a late answer'
        assert p.errors == []
    assert gw.trail.last(event='end')['end'] == 'client', 'who ended first'


def test_half_closed_by_the_destination(gw):
    got = []

    def early(s):
        with s:
            s.sendall(b'hello')
            s.shutdown(socket.SHUT_WR)
            got.append(read_all(s))
    with place(early) as p, through(gw, p) as s:
        assert read_all(s) == b'hello'
        s.sendall(b'and you')
        s.shutdown(socket.SHUT_WR)
        wait_for(lambda: got == [b'and you'])
    assert gw.trail.last(event='end')['end'] == 'upstream'


def test_reset_by_the_client(gw):
    ends = []

    def watch(s):
        try:
            ends.append(s.recv(10))
        except ConnectionResetError:
            ends.append('reset')
    with place(watch) as p:
        s = through(gw, p)
        gw.trail.last(event='start')
        linger(s)
        s.close()
        wait_for(lambda: ends)
    assert ends == ['reset'], 'a reset is no end of bytes'
    assert gw.trail.last(event='end')['end'] == 'client'


def test_reset_by_the_destination(gw):
    go = threading.Event()
    with place(lambda s: (go.wait(10), reset(s))) as p, through(gw, p) as s:
        go.set()
        with pytest.raises(ConnectionResetError):
            s.recv(10)
    assert gw.trail.last(event='end')['end'] == 'upstream'


def test_reset_of_a_client_that_owes_and_is_owed(gw):
    """In the middle of bulk, both ways."""
    with place(echo) as p:
        for _ in range(5):
            s = through(gw, p)
            s.settimeout(0.3)
            try:
                while True:
                    s.sendall(b'x' * MB)
            except socket.timeout:
                pass
            linger(s)
            s.close()
        wait_for(lambda: gw.metric('tunnels') == 0)
        with through(gw, p) as s:
            s.sendall(b'well')
            assert read_exactly(s, 4) == b'well'
    assert {e['end'] for e in gw.trail.entries(event='end')} <= {'client'}


# --- silence ---------------------------------------------------------------------------------------

def test_idle_tunnels_end(gateway_at):
    gw = proxy_at(gateway_at, egress={'idle-timeout': '1s'})
    with place(echo) as p, through(gw, p) as quiet, through(gw, p) as busy:
        busy.settimeout(20)

        def ended():
            busy.sendall(b'x')
            assert busy.recv(1) == b'x'
            return select.select([quiet], [], [], 0)[0]

        wait_for(ended, 20, every=0.1, what='the end of the silent one')
        assert quiet.recv(1) == b''
        e = gw.trail.last(event='end')
        assert e['end'] == 'idle' and e['seconds'] > 0.9
        busy.sendall(b'x')
        assert busy.recv(1) == b'x'


def test_a_stuck_tunnel_ends_too(gateway_at):
    """Nothing moves because one side does not read: that is silence as well."""
    gw = proxy_at(gateway_at, egress={'idle-timeout': '1s'})
    with place(keep) as p, through(gw, p) as s:
        s.settimeout(15)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                s.sendall(b'x' * MB)
    assert gw.trail.last(event='end')['end'] == 'idle'


def test_keep_alive_is_on_for_both_sides(gw):
    with place(echo) as p, through(gw, p):
        gw.trail.last(event='start')
        out = os.popen(f'ss -tnoH state established "( sport = :{gw.ports["proxy"]} or dport = :{p.port} )" 2>/dev/null').read()
        if not out:
            pytest.skip('no ss')
        lines = [x for x in out.splitlines() if f':{gw.ports["proxy"]} ' in x.split()[2] + ' ' or f':{p.port} ' in x.split()[3] + ' ']
        assert len(lines) == 2 and all('keepalive' in x for x in lines), out


# --- reload, drain, shutdown -----------------------------------------------------------------------

def reload(gw, generation=2):
    gw.write_config()
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == generation)


def alive(s):
    s.sendall(b'!')
    return s.recv(1) == b'!'


def test_a_reload_ends_what_the_new_policy_forbids_and_nothing_else(gateway_at):
    rules = {'one': {'hosts': ['127.0.0.1'], 'ports': ['1-65535']}, 'two': {'hosts': ['127.0.0.3'], 'ports': ['1-65535']}}
    gw = proxy_at(gateway_at, rules=rules)
    with place(echo) as p, place(echo, host='127.0.0.3') as q, through(gw, p) as kept, tunnel(gw, f'127.0.0.3:{q.port}') as gone:
        reload(gw)
        assert alive(kept) and alive(gone)
        del gw.options['rules']['two']
        reload(gw, 3)
        assert gone.recv(1) == b'' and alive(kept)
        e = gw.trail.last(event='end')
        assert (e['end'], e['asked']) == ('policy', f'127.0.0.3:{q.port}')
        assert status_of(gw, f'127.0.0.3:{q.port}') == 403
        assert gw.metric('tunnels') == 1


def test_a_reload_looks_at_the_address_that_was_dialled(gateway_at):
    from names import Names
    names = Names({'here.example': ['127.0.0.1']})
    gw = proxy_at(gateway_at, names)
    with place(echo) as p, tunnel(gw, f'here.example:{p.port}') as s:
        assert alive(s)
        gw.options['rules'] = {'names': {**RULES['names'], 'addresses': ['10.0.0.0/8']}}
        reload(gw)
        assert s.recv(1) == b''
    assert gw.trail.last(event='end')['end'] == 'policy'
    names.close()


def test_a_drain_ends_tunnels_one_by_one(gateway_at):
    gw = proxy_at(gateway_at, drain={'limit': '4s'})
    with place(echo) as p:
        tunnels = [through(gw, p) for _ in range(30)]
        ends = []

        def watch(s):
            assert s.recv(1) == b''
            ends.append(time.monotonic())
        threads = [threading.Thread(target=watch, args=(s,)) for s in tunnels]
        for t in threads:
            t.start()
        begun = time.monotonic()
        gw.signal(signal.SIGTERM)
        for t in threads:
            t.join(20)
        assert len(ends) == 30
        spread = sorted(t - begun for t in ends)
        assert spread[-1] < 3.9 and spread[-1] - spread[0] > 0.8, spread
        assert len({round(t, 1) for t in spread}) > 5, 'not all at once'
        assert gw.process.wait(20) == 0
        for s in tunnels:
            s.close()
    assert [e['end'] for e in gw.trail.entries(event='end')] == ['drain'] * 30


def test_a_second_signal_breaks_off_what_is_left(gateway_at):
    gw = proxy_at(gateway_at, drain={'limit': '1h'})
    with place(echo) as p, through(gw, p) as s:
        gw.signal(signal.SIGTERM)
        wait_for(lambda: 'draining' in gw.log())
        assert alive(s)
        gw.signal(signal.SIGTERM)
        assert gw.process.wait(20) == 0
        with pytest.raises(ConnectionResetError):
            s.recv(1)
    assert gw.trail.last(event='end')['end'] == 'shutdown'


def test_descriptors_are_given_back(gw):
    with place(echo) as p:
        before = gw.fds()
        for _ in range(3):
            tunnels = [through(gw, p) for _ in range(50)]
            for s in tunnels:
                s.sendall(b'x')
                s.close()
            wait_for(lambda: gw.metric('tunnels') == 0)
        wait_for(lambda: gw.fds() <= before + 2 * 48, what='descriptors')
        source = Source(8 * MB)
    with place(source) as p:
        for _ in range(3):
            with through(gw, p) as s:
                digest_of(s)
        wait_for(lambda: gw.metric('tunnels') == 0 and gw.fds() <= before + 4, what='descriptors, but for a pipe')
