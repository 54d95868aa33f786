"""The audit trail: where it goes, in what form, what it never holds."""
import json
import os
import re
import signal
import socket

import pytest
from gateway import wait_for
from proxies import echo, get, place, proxy_at, status_of, tunnel
from standin.harness import Harness


def reload(gw, generation=2):
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == generation)


def test_a_rotated_file_is_opened_anew(gateway_at):
    gw = proxy_at(gateway_at)
    assert status_of(gw, 'one.test:443') == 403
    gw.trail.last(asked='one.test:443')
    old = gw.trail.path.with_suffix('.1')
    os.rename(gw.trail.path, old)
    assert status_of(gw, 'two.test:443') == 403
    wait_for(lambda: 'two.test' in old.read_text())
    reload(gw)
    assert status_of(gw, 'three.test:443') == 403
    gw.trail.last(asked='three.test:443')
    assert 'three' not in old.read_text() and 'two' not in gw.trail.path.read_text()
    assert gw.trail.path.stat().st_mode & 0o777 == 0o640


def test_no_entry_is_lost_by_a_reload(gateway_at):
    gw = proxy_at(gateway_at)
    with place(echo) as p:
        for i in range(30):
            with tunnel(gw, f'127.0.0.1:{p.port}') as s:
                s.sendall(b'x')
                assert s.recv(1) == b'x'
            if i % 5 == 4:
                gw.signal(signal.SIGHUP)
        gw.trail.last(event='end', count=30)
    ids = [e['id'] for e in gw.trail.entries(event='start')]
    assert sorted(ids) == sorted(e['id'] for e in gw.trail.entries(event='end')) and len(set(ids)) == 30


def test_intervals_of_what_lasts(gateway_at):
    gw = proxy_at(gateway_at, audit={'interval': '1s'})
    with place(echo) as p, tunnel(gw, f'127.0.0.1:{p.port}') as s:
        s.sendall(b'x' * 10)
        first = gw.trail.last(event='interval')
        s.sendall(b'x' * 5)
        gw.trail.last(event='interval', count=3)
    end = gw.trail.last(event='end')
    entries = gw.trail.entries()
    assert {e['id'] for e in entries} == {end['id']} and [e['event'] for e in entries[:2]] == ['start', 'interval']
    assert (first['bytes_up'], end['bytes_up'], end['bytes_down']) == (10, 15, 15)
    seconds = [e['seconds'] for e in entries if e['event'] == 'interval']
    assert all(0.8 < b - a < 2.5 for a, b in zip(seconds, seconds[1:])), seconds
    assert 'end' not in first


def test_long_relays_leave_intervals_too(gateway_at):
    with Harness() as far:
        gw = proxy_at(gateway_at, audit={'interval': '1s'})
        far.fault('delay', 'api', seconds=2.5)
        assert get(gw, f'http://127.0.0.1:{far.port}/api/x')[0] == 200
        kinds = [e['event'] for e in gw.trail.entries()]
        assert kinds[0] == 'interval' and kinds[-1] == 'end'


def test_logfmt(gateway_at):
    gw = proxy_at(gateway_at, audit={'format': 'logfmt'})
    assert status_of(gw, 'one.test:443') == 403
    line = wait_for(lambda: gw.trail.path.exists() and gw.trail.path.read_text())
    assert re.match(r'time=\S+ event=deny id=1 kind=tunnel listener=proxy client=127.0.0.1:\d+ asked=one.test:443 verdict=deny rule=default '
                    r'reason="[^"]+" status=403 start=\S+\n$', line), line


def test_into_the_log(gateway_at):
    gw = proxy_at(gateway_at, audit={'to': 'log'})
    assert status_of(gw, 'one.test:443') == 403
    wait_for(lambda: re.search(r'component=audit msg=deny id=1 .*asked=one.test:443 .*rule=default', gw.log()))
    assert not gw.trail.path.exists()


def test_nowhere(gateway_at):
    gw = proxy_at(gateway_at, audit={'to': 'none'})
    assert status_of(gw, 'one.test:443') == 403
    assert 'one.test' not in gw.log() and not gw.trail.path.exists()
    assert gw.metric('denied_total', rule='default') == 1


@pytest.fixture
def system_log(tmp_path):
    """As /dev/log: a datagram socket that may be taken away and come back."""
    class Log:
        path = str(tmp_path / 'log-socket')

        def open(self):
            if os.path.exists(self.path):
                os.unlink(self.path)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.settimeout(10)
            self.socket.bind(self.path)

        def read(self):
            return self.socket.recv(65536).decode()

        def close(self):
            self.socket.close()
    log = Log()
    log.open()
    yield log
    log.close()


def test_syslog(gateway_at, system_log):
    gw = proxy_at(gateway_at, audit={'to': 'syslog', 'file': system_log.path})
    assert status_of(gw, 'one.test:443') == 403
    line = system_log.read()
    found = re.match(r'<134>tailrace\[(\d+)\]: (\{.*\})$', line)
    assert found and int(found.group(1)) == gw.pid and '\n' not in line
    assert json.loads(found.group(2))['asked'] == 'one.test:443'
    # The system's log restarts: the next entry goes to the new one.
    system_log.close()
    system_log.open()
    assert status_of(gw, 'two.test:443') == 403
    assert 'two.test' in system_log.read()


def test_a_system_log_that_is_away_stops_nothing(gateway_at, system_log):
    gw = proxy_at(gateway_at, audit={'to': 'syslog', 'file': system_log.path})
    system_log.close()
    os.unlink(system_log.path)
    assert status_of(gw, 'one.test:443') == 403
    wait_for(lambda: gw.metric('audit_dropped_total') >= 1)
    assert 'an audit entry could not be written' in gw.log()
    system_log.open()
    assert status_of(gw, 'two.test:443') == 403
    assert 'two.test' in system_log.read()


def test_a_system_log_that_does_not_read_holds_nobody_up(gateway_at, system_log):
    gw = proxy_at(gateway_at, audit={'to': 'syslog', 'file': system_log.path})
    for i in range(600):
        if gw.metric('audit_dropped_total'):
            break
        assert status_of(gw, f'n{i}.test:443') == 403
    assert gw.metric('audit_dropped_total') >= 1


def test_a_full_disk_stops_nothing(gateway_at):
    gw = proxy_at(gateway_at, audit={'file': '/dev/full'})
    assert status_of(gw, 'one.test:443') == 403
    wait_for(lambda: gw.metric('audit_dropped_total') >= 1)
    with place(echo) as p, tunnel(gw, f'127.0.0.1:{p.port}') as s:
        s.sendall(b'x')
        assert s.recv(1) == b'x'


def test_a_file_that_cannot_be_opened_is_told_at_the_reload(gateway_at, tmp_path):
    gw = proxy_at(gateway_at)
    gw.options['audit']['file'] = str(tmp_path / 'nowhere' / 'audit')
    gw.write_config()
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('reload_failures_total') == 1)
    assert status_of(gw, 'one.test:443') == 403
    gw.trail.last(asked='one.test:443')


def test_secrets_stay_out(gateway_at):
    """Queries, fields, bodies, what looks like a password: in no entry, log line or metric."""
    secret = 'pl4nted'
    with Harness() as far:
        gw = proxy_at(gateway_at)
        get(gw, f'http://127.0.0.1:{far.port}/api/x?token={secret}', f'Host: {secret}', f'Authorization: Bearer {secret}',
            f'Content-Length: {len(secret)}', method='POST', body=secret.encode())
        get(gw, f'http://user:{secret}@127.0.0.1:{far.port}/')
        status_of(gw, f'user:{secret}@one.test:443', host='x')
        status_of(gw, 'one.test:443', f'Proxy-Authorization: Basic {secret}', f'X-{secret}: 1')
        gw.trail.last(asked='one.test:443')
        gw.stop()
        for text in (gw.trail.path.read_text(), gw.log()):
            assert secret not in text
