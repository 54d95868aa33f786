"""Forwards: listeners with a fixed destination."""
import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from gateway import free_port, wait_for
from proxies import Trail, dial, echo, keep, place, proxy_at, read_all, read_exactly
from names import Names

POSTGRES = Path('/usr/lib/postgresql/15/bin')


def forward_at(make, to, names=None, **listen):
    return proxy_at(make, names, listen={'orders': {'mode': 'forward', 'address': '127.0.0.1:0', 'to': to, **listen}})


def test_bytes_pass_and_are_audited(gateway_at):
    with place(echo) as p:
        gw = forward_at(gateway_at, f'127.0.0.1:{p.port}')
        with dial(gw, 'orders') as s:
            client = '127.0.0.1:%d' % s.getsockname()[1]
            s.sendall(b'x' * 100000)
            assert read_exactly(s, 100000) == b'x' * 100000
            s.shutdown(socket.SHUT_WR)
            assert read_all(s) == b''
        e = gw.trail.last(event='end')
        assert (e['kind'], e['listener'], e['rule'], e['client']) == ('forward', 'orders', 'forward:orders', client)
        assert (e['bytes_up'], e['bytes_down'], e['end'], e['asked']) == (100000, 100000, 'client', f'127.0.0.1:{p.port}')
        assert gw.metric('passages_total', kind='forward') == 1


def test_the_admin_named_it_so_the_policy_is_not_asked(gateway_at):
    names = Names({'db.internal': ['127.0.0.9']})
    with place(echo, host='127.0.0.9') as p:
        gw = forward_at(gateway_at, f'db.internal:{p.port}', names)
        with dial(gw, 'orders') as s:
            s.sendall(b'x')
            assert s.recv(1) == b'x'
        assert gw.trail.last(event='end')['dialled'] == f'127.0.0.9:{p.port}'
    names.close()


def test_a_destination_that_is_away(gateway_at):
    gw = forward_at(gateway_at, f'127.0.0.1:{free_port()}')
    with pytest.raises(ConnectionResetError):       # perhaps before connect() has returned
        with dial(gw, 'orders') as s:
            s.recv(1)
    assert gw.trail.last(event='end')['end'] == 'unreachable'
    assert 'cannot be reached' in gw.log()


def test_a_reload_leads_elsewhere(gateway_at):
    with place(echo) as p, place(lambda s: s.sendall(b'other')) as q:
        gw = forward_at(gateway_at, f'127.0.0.1:{p.port}')
        with dial(gw, 'orders') as old:
            old.sendall(b'x')
            assert old.recv(1) == b'x'
            gw.options['listen']['orders']['to'] = f'127.0.0.1:{q.port}'
            gw.write_config()
            gw.signal(signal.SIGHUP)
            wait_for(lambda: gw.metric('config_generation') == 2)
            with dial(gw, 'orders') as s:
                assert read_exactly(s, 5) == b'other'
            old.sendall(b'x')
            assert old.recv(1) == b'x', 'what stands stays'


def test_the_client_s_address_by_the_proxy_protocol(gateway_at):
    with place(echo) as p:
        gw = forward_at(gateway_at, f'127.0.0.1:{p.port}', **{'proxy-protocol': ['127.0.0.1']})
        with dial(gw, 'orders') as s:
            s.sendall(b'PROXY TCP4 192.0.2.7 198.51.100.1 1234 5432\r\nhello')
            assert read_exactly(s, 5) == b'hello', 'and not a byte of the header'
        assert gw.trail.last(event='end')['client'] == '192.0.2.7:1234'


def test_connections_are_limited(gateway_at):
    with place(keep) as p:
        gw = proxy_at(gateway_at, listen={'orders': {'mode': 'forward', 'address': '127.0.0.1:0', 'to': f'127.0.0.1:{p.port}'}},
                      limits={'connections': 16, 'share': 100})
        open_now = [dial(gw, 'orders') for _ in range(15)]
        wait_for(lambda: gw.metric('tunnels') == 15)
        with dial(gw, 'orders') as s:
            try:
                assert s.recv(1) == b''
            except ConnectionResetError:
                pass
        for s in open_now:
            s.close()


# --- a real database -------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def database(tmp_path_factory):
    """A PostgreSQL of this module, on a port of its own, as an unprivileged user."""
    if not (POSTGRES / 'initdb').exists():
        pytest.skip('no PostgreSQL')
    home = tmp_path_factory.mktemp('pg')
    who = {}
    if os.getuid() == 0:
        user = pwd.getpwnam('postgres')
        for at in (home, *home.parents[:3]):
            if at != Path('/tmp'):
                at.chmod(at.stat().st_mode | 0o711)
        os.chown(home, user.pw_uid, user.pw_gid)
        who = {'user': user.pw_uid, 'group': user.pw_gid, 'extra_groups': []}
    data = home / 'data'
    subprocess.run([str(POSTGRES / 'initdb'), '-D', str(data), '-U', 'orders', '-A', 'trust', '-N'], check=True, capture_output=True, cwd=home, **who)
    port = free_port()
    with open(home / 'log', 'wb') as log:
        server = subprocess.Popen([str(POSTGRES / 'postgres'), '-D', str(data), '-h', '127.0.0.1', '-p', str(port), '-k', str(home), '-c', 'fsync=off'],
                                  stdout=log, stderr=log, cwd=home, **who)
    try:
        wait_for(lambda: subprocess.run([str(POSTGRES / 'pg_isready'), '-h', '127.0.0.1', '-p', str(port)], capture_output=True).returncode == 0,
                 60, what='PostgreSQL')
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(data, ignore_errors=True)


def psql(gw, sql, timeout=60):
    return subprocess.run(['psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1', '-p', str(gw.ports['orders']), '-U', 'orders',
                           '-d', 'postgres'], input=sql, capture_output=True, text=True, timeout=timeout, env=dict(os.environ, PGSSLMODE='prefer'))


def test_sql_through_a_forward(gateway_at, database):
    gw = forward_at(gateway_at, f'127.0.0.1:{database}')
    done = psql(gw, '''
        CREATE TABLE lines (n int PRIMARY KEY, text text);
        INSERT INTO lines SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 20000) i;
        SELECT count(*), sum(length(text)) FROM lines;
        COPY lines TO STDOUT;
        DROP TABLE lines;''')
    assert done.returncode == 0, done.stderr
    out = done.stdout.splitlines()
    assert out[0] == '20000|19200000' and len(out) == 20001
    e = gw.trail.last(event='end')
    assert e['kind'] == 'forward' and e['bytes_down'] > 19000000
    assert psql(gw, 'SELECT 1/0;').returncode != 0


def test_a_cancelled_query_through_a_forward(gateway_at, database):
    """The cancel goes by a connection of its own."""
    gw = forward_at(gateway_at, f'127.0.0.1:{database}')
    done = psql(gw, "SET statement_timeout = '200ms'; SELECT pg_sleep(30);")
    assert 'canceling statement' in done.stderr
    gw.trail.last(event='end')
