"""Bounds that hold whatever clients do: memory while bodies are received, time for others, and a clean end."""
import concurrent.futures
import os
import signal
import socket
import threading
import time
from http.client import HTTPException
from pathlib import Path

import pytest
import zstandard
from calls import Api, body_of
from gateway import BINARY, key, wait_for

MB = 1024 * 1024
# A sanitizer's own memory says nothing about ours.
SANITIZED = any(name in Path(BINARY).read_bytes() for name in (b'__asan_init', b'__tsan_init'))


def large_body(mb, seed=0):
    """An array of about so many MB whose lines do not compress to nothing."""
    text = os.urandom(32 * 1024).hex() + '\n'
    return body_of(*[f'{seed} {i} {text}' for i in range(mb * 16)])


def test_large_bodies_share_a_budget(far, gateway_at):
    """24 bodies of 16 MB at once: all are taken, and not all are held in memory at once."""
    mb = 16 if not SANITIZED else 4
    gw = gateway_at(far.url, memory={'limit': f'{mb}MiB'}, workers=2, drain={'limit': '1s'})
    before = gw.rss_kb()
    body = large_body(mb)

    def send(i):
        a = Api(gw.log_url, timeout=120)
        try:
            return a.put_raw(key(f's{i}'), body)[0]
        except OSError:
            return 503  # answered, and closed, before all of it was sent
        finally:
            a.close()

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        got = list(pool.map(send, range(24)))
    # Those for whom there was no memory within 8 s were told so; on a machine with time to spare there are none.
    assert set(got) <= {204, 503} and got.count(204) >= 8, got
    assert SANITIZED or gw.rss_kb(peak=True) - before < 250 * 1024


def test_a_slow_large_body_does_not_shut_others_out(far, gateway_at):
    """One that holds the memory and trickles loses its place; small calls never wait for it."""
    gw = gateway_at(far.url, memory={'limit': '1MiB'}, workers=1)
    hog = socket.create_connection(('127.0.0.1', gw.port))
    body = large_body(4)
    hog.sendall(b'PUT /log-service/stream?accountID=acct&key=hog HTTP/1.1\r\nHost: x\r\nX-Harness-Token: token-1\r\n'
                b'Content-Length: %d\r\n\r\n' % len(body) + body[:3 * MB])
    a = Api(gw.log_url)
    began = time.monotonic()
    for i in range(20):
        assert a.put(key(), f'line {i}\n', start=i)[0] == 204
    assert time.monotonic() - began < 8
    hog.sendall(body[3 * MB:])
    assert hog.recv(100).startswith(b'HTTP/1.1 204')
    hog.close()
    a.close()


def test_an_upload_that_expands_holds_nobody_up(far, gateway_at):
    """A few kilobytes that become 900 MB are decoded no faster than the spool takes them, in turn with other calls."""
    gw = gateway_at(far.url, workers=1, spool={'limit': '2GiB'}, drain={'limit': '1s'})
    data = zstandard.ZstdCompressor(level=3).compress(b' ' * ((900 if not SANITIZED else 300) * MB))
    before = gw.rss_kb()
    answers = []

    def upload():
        big = Api(gw.log_url, timeout=120)
        answers.append(big.request('POST', big.target('/blob', key('big')), data,
                                   {'X-Harness-Token': big.token, 'Content-Encoding': 'zstd'})[0])
        big.close()

    thread = threading.Thread(target=upload)
    thread.start()
    a = Api(gw.log_url)
    worst, i = 0, 0
    while thread.is_alive() and i < 2000:
        began = time.monotonic()
        assert a.put(key(), f'line {i}\n', start=i)[0] == 204
        worst, i = max(worst, time.monotonic() - began), i + 1
    thread.join()
    assert answers == [204]
    assert i > 50 and worst < 8, (i, worst)
    assert SANITIZED or gw.rss_kb(peak=True) - before < 200 * 1024
    a.close()


def test_an_upload_whose_client_leaves_takes_no_room(far, gateway_at):
    """Its pieces leave the spool at once, not at the next start."""
    gw = gateway_at(far.url, spool={'limit': '64MiB'})
    a = Api(gw.log_url)
    assert a.open(key())[0] == 204  # upstream knows the credential: no share of the spool bounds it
    gw.wait_delivered()
    wait_for(lambda: far.counts()['requests'].get('open'))
    for i in range(8):  # 128 MB in all: twice what the spool holds
        s = socket.create_connection(('127.0.0.1', gw.port))
        s.sendall(b'POST /log-service/blob?accountID=acct&key=left%d HTTP/1.1\r\nHost: x\r\nX-Harness-Token: token-1\r\n'
                  b'Content-Length: %d\r\n\r\n' % (i, 17 * MB))
        s.sendall(os.urandom(16 * MB))
        s.close()
    wait_for(lambda: gw.metric('spool_bytes') < 16 * MB, 30, what='room in the spool')
    a.close()
    assert a.put(key(), 'a line\n')[0] == 204
    a.close()


@pytest.mark.parametrize('after', [0.05, 0.3])
def test_the_end_comes_clean_amid_calls(far, gateway_at, after):
    """Told twice to end while clients are at work and workers hand calls to each other."""
    gw = gateway_at(far.url, workers=4)
    large = large_body(1)
    stop = threading.Event()

    def client(n):
        a = Api(gw.log_url, timeout=10)
        i = 0
        while not stop.is_set():
            try:
                a.open(key(f'{n}-{i % 7}'))
                a.put(key(f'{n}-{i % 7}'), f'line {i}\n', start=i)
                if i % 5 == 0:
                    a.put_raw(key(f'{n}-large'), large)
                if i % 3 == 0:
                    a.delete(key(f'{n}-{i % 7}'), '&prefix=true&snapshot=true')
                if i % 4 == 0:
                    a.blob(key(f'{n}-{i % 7}'), b'{"out":"x"}\n' * 50000)
            except (OSError, HTTPException):
                a.close()
            i += 1
        a.close()

    threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(8)]
    for t in threads:
        t.start()
    wait_for(lambda: gw.ledger()['accepted'] > 50, 30, what='traffic')
    gw.signal(signal.SIGTERM)
    time.sleep(after) # the end is to come at some moment, not at a certain one
    gw.signal(signal.SIGTERM)
    gw.process.wait(30)
    stop.set()
    for t in threads:
        t.join(30)
    assert gw.process.returncode == 0


def test_a_listener_does_not_lose_tls_by_a_reload(far, gateway_at, ca, tmp_path):
    """A file that gives a listener TLS, or takes it away, is refused as a whole."""
    gw = gateway_at(far.url)
    gw.write_config(listen={'upstream': {'certificate': str(tmp_path / 'c.pem'), 'key': str(tmp_path / 'k.pem')}})
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('reload_failures_total') == 1, what='a refused reload')
    assert gw.metric('config_generation') == 1
