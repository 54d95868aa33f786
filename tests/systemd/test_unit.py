"""The units in contrib/systemd under the real systemd: what the stand-ins of tests/integration cannot show."""
import http.client
import os
import re
import signal
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from calls import Api
from gateway import Other, key, wait_for
from machine import CONTRIB
from proxies import ask, echo, place, tunnel
from standin.certs import CA
from test_takeover import WAIT, Load, talk

RULES = {'local': {'hosts': ['127.0.0.1'], 'ports': ['1-65535'], 'addresses': ['127.0.0.0/8']}}
PROXY = {'proxy': {'mode': 'proxy', 'address': '127.0.0.1:443'}}        # which takes a capability


def step(service, far, name='step'):
    """A step's log, until it has arrived."""
    api = Api(service.log_url)
    assert api.open(key(name))[0] < 300
    assert api.put(key(name), *[f'line {i}\n' for i in range(50)])[0] < 300
    assert api.put_link(key(name), b''.join(b'{"out":"%d"}\n' % i for i in range(5000)))[0] < 300
    assert api.delete(key(name))[0] < 300
    api.close()
    service.wait_delivered()
    far.wait(lambda h: h.blob('acct', key(name)), timeout=10)
    assert far.lines('acct', key(name)) == [f'line {i}\n' for i in range(50)]


def status(pid):
    return dict(line.split(':\t', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines() if ':\t' in line)


def restricted(service):
    """Of the main process: who it is, and all that the unit takes from it."""
    pid, seen = service.pid, status(service.pid)
    user = int(service.machine.sh('id', '-u', 'tailrace').stdout)
    assert user > 0 and set(seen['Uid'].split()) == {str(user)}
    assert set(seen['Gid'].split()) == {service.machine.sh('id', '-g', 'tailrace').stdout.strip()}
    assert seen['NoNewPrivs'] == '1' and seen['Seccomp'] == '2'
    assert int(seen['CapBnd'], 16) in (0, 1 << 10)      # CAP_NET_BIND_SERVICE
    assert int(seen['CapEff'], 16) in (0, 1 << 10)
    assert int(re.search(r'Seccomp_filters:\t(\d+)', Path(f'/proc/{pid}/status').read_text()).group(1)) >= 5
    assert re.search(r'Max core file size +0 +0 ', Path(f'/proc/{pid}/limits').read_text())
    mounts = {line.split()[4]: line.split()[5].split(',') for line in Path(f'/proc/{pid}/mountinfo').read_text().splitlines()}
    assert 'ro' in mounts['/'] and 'rw' in mounts['/var/lib/tailrace'] and 'rw' in mounts['/var/log/tailrace']
    for place_of_nothing in ('/home', '/root'):
        assert 'ro' in mounts[place_of_nothing] and os.listdir(f'/proc/{pid}/root{place_of_nothing}') == []
    assert 'console' not in os.listdir(f'/proc/{pid}/root/dev')     # which the machine has


def test_it_starts_and_is_what_the_unit_says(far, service_at):
    """`systemctl start` returns when it serves; as its user, on a port below 1024, behind everything the unit has."""
    service = service_at(far.url, listen=PROXY, rules=RULES)
    assert service.get('/readyz')[0] == 200             # at once: Type=notify
    shown = service.show()
    assert (shown['ActiveState'], shown['SubState'], shown['NRestarts']) == ('active', 'running', '0')
    assert shown['Type'] == 'notify' and shown['WatchdogUSec'] == '0'
    restricted(service)
    step(service, far)
    with place(echo) as p, tunnel(service, f'127.0.0.1:{p.port}') as s:
        talk(s)
    spool = service.machine.path('var/lib/tailrace')
    assert spool.stat().st_mode & 0o7777 == 0o700 and spool.stat().st_uid == int(status(service.pid)['Uid'].split()[0])
    assert all(f.lstat().st_mode & 0o077 == 0 for f in spool.rglob('*'))


def test_a_start_that_fails_says_why(far, service_at):
    """And it is tried again until it can, by itself."""
    service = service_at(far.url, start=False, drop_in='RestartSec=50ms\n', listen=PROXY)
    service.config_path.write_text('harness:\n  url: nonsense\n')
    assert service.ctl('start', 'tailrace.service', check=False).returncode != 0
    assert 'tailrace.yaml:2: harness.url' in service.log_path.read_text()
    wait_for(lambda: int(service.show()['NRestarts']) > 6, what='more tries than systemd makes of itself')
    service.write_config()
    wait_for(lambda: service.show()['ActiveState'] == 'active', what='the start')
    service.process = service.main()
    assert service.get('/readyz')[0] == 200


def test_without_capabilities(far, service_at):
    """With the drop-in for ports from 1024 on."""
    drop_in = (CONTRIB / 'high-ports.conf').read_text()
    service = service_at(far.url, drop_in=drop_in, listen={'proxy': {'mode': 'proxy', 'address': '127.0.0.1:3128'}}, rules=RULES)
    seen = status(service.pid)
    assert all(int(seen[name], 16) == 0 for name in ('CapBnd', 'CapEff', 'CapPrm', 'CapInh', 'CapAmb'))
    assert os.readlink(f'/proc/{service.pid}/ns/user') != os.readlink('/proc/self/ns/user')
    step(service, far)
    with place(echo) as p, tunnel(service, f'127.0.0.1:{p.port}') as s:
        talk(s)
        service.take_over()
        service.taken_over()
        talk(s)
    step(service, far, 'after')


def test_reload(far, service_at):
    service = service_at(far.url, listen=PROXY, rules=RULES)
    with place(echo) as p, tunnel(service, f'127.0.0.1:{p.port}') as s:
        generation, pid = service.metric('config_generation'), service.pid
        service.write_config(log={'level': 'info'})
        service.ctl('reload', 'tailrace.service')
        wait_for(lambda: service.metric('config_generation') == generation + 1, what='the reload')
        talk(s)
        assert service.main().pid == pid and service.show()['ActiveState'] == 'active'
    assert service.metric('reload_failures_total') == 0


def lines_on_new_connections(service, name):
    def turn(i):
        api = Api(service.log_url)
        assert api.put(key(name), f'{i}\n', start=i)[0] == 204
        api.close()
    return turn


def arrived_once(service, far, name, n):
    service.wait_delivered()
    lines = far.lines('acct', key(name))
    assert list(dict.fromkeys(lines)) == [f'{i}\n' for i in range(n)]
    return len(lines) - n


@pytest.mark.parametrize('sockets', [False, True], ids=['own sockets', 'socket activation'])
def test_upgrade(far, service_at, sockets):
    """USR2 twice under load: nobody is refused, the tunnel stays, systemd follows; the unit is active all the while."""
    service = service_at(far.url, sockets=sockets, listen=PROXY, rules=RULES, drain={'limit': '60s'})
    entered = service.show()['ActiveEnterTimestampMonotonic']
    api = Api(service.log_url)
    assert api.open(key('load'))[0] == 204
    api.close()
    with place(echo) as p:
        s = ask(service, f'127.0.0.1:{p.port}')[0]
        first = service.process
        load = Load(lines_on_new_connections(service, 'load'))
        for workers in (3, 1):
            wait_for(lambda n=load.done: load.done > n + 3, what='calls')
            service.take_over(workers=workers)
            wait_for(lambda n=load.done: load.done > n + 3, what='calls after the upgrade')
            restricted(service)
            talk(s)
        n = load.end()
        shown = service.show()
        assert shown['ActiveState'] == 'active' and shown['ActiveEnterTimestampMonotonic'] == entered
        assert shown['NRestarts'] == '0' and shown['ExecMainPID'] == shown['MainPID']
        assert first.poll() is None and first.pid in service.pids()
        s.close()
        assert first.wait(WAIT) == 0
        wait_for(lambda: service.pids() == [service.pid], what='the end of the old processes')
        arrived_once(service, far, 'load', n)
        # The one that came by an upgrade is watched over as the first was.
        service.process.send_signal(signal.SIGKILL)
        wait_for(lambda: service.show()['NRestarts'] == '1' and service.get('/readyz')[0] == 200, what='the restart')
        service.process = service.main()
        step(service, far, 'after')


def test_an_upgrade_that_fails_changes_nothing(far, service_at):
    service = service_at(far.url, listen=PROXY, rules=RULES)
    pid = service.pid
    good = service.config_path.read_text()
    service.config_path.write_text('harness:\n  url: nonsense\n')
    service.ctl('kill', '-s', 'USR2', '--kill-whom=main', 'tailrace.service')
    wait_for(lambda: 'tailrace.yaml:2: harness.url' in service.log(), what='the complaint')
    wait_for(lambda: service.pids() == [pid], what='the end of the new process')
    assert service.main().pid == pid and service.show()['ActiveState'] == 'active'
    service.config_path.write_text(good)
    step(service, far)


def test_a_restart_and_a_crash_with_socket_activation_refuse_nobody(far, service_at):
    """The system's sockets hold who comes meanwhile."""
    service = service_at(far.url, sockets=True)
    assert service.show('tailrace.socket')['SubState'] == 'running'
    assert 'no listener is for' not in service.log()
    api = Api(service.log_url)
    assert api.open(key('load'))[0] == 204
    api.close()

    def turn(i):
        """A call that was under way when it crashed may be cut off, and is made again, as clients do; none is refused."""
        for _ in range(5):
            api = Api(service.log_url)
            try:
                assert api.put(key('load'), f'{i}\n', start=i)[0] == 204
                return
            except ConnectionRefusedError:
                raise
            except (OSError, http.client.HTTPException):
                cut.append(i)
            finally:
                api.close()
        raise AssertionError('cut off again and again')

    cut = []
    load = Load(turn)
    wait_for(lambda: load.done > 5, what='calls')
    service.ctl('restart', 'tailrace.service')
    wait_for(lambda n=load.done: load.done > n + 5, what='calls after the restart')
    assert not cut
    service.main().send_signal(signal.SIGKILL)
    wait_for(lambda: service.show()['NRestarts'] == '1', what='the restart after a crash')
    wait_for(lambda n=load.done: load.done > n + 5, what='calls after the crash')
    n = load.end()
    service.process = service.main()
    arrived_once(service, far, 'load', n)


def test_the_first_client_starts_it(far, service_at):
    service = service_at(far.url, start=False, sockets=True)
    service.log_from = 0
    service.ctl('start', 'tailrace.socket')
    assert service.show()['ActiveState'] == 'inactive'
    step(service, far)
    service.process = service.main()
    assert service.show()['ActiveState'] == 'active'


def test_stop_ends_all(far, service_at):
    """Also a process that was taken over from and has a tunnel; by itself, nothing has to be killed."""
    service = service_at(far.url, listen=PROXY, rules=RULES, drain={'limit': '60s'})    # the old one's
    with place(echo) as p:
        s = ask(service, f'127.0.0.1:{p.port}')[0]
        service.take_over(drain={'limit': '2s'})
        talk(s)
        assert len(service.pids()) == 2
        gone = [Other(pid) for pid in service.pids()]
        heard, began = len(service.machine.said), time.monotonic()
        service.ctl('stop', 'tailrace.service')
        assert time.monotonic() - began < 10
        assert all(process.poll() == 0 for process in gone) and service.pids() == []
        shown = service.show()
        assert (shown['ActiveState'], shown['Result']) == ('inactive', 'success')
        said = service.machine.said[heard:].decode()
        assert 'SIGKILL' not in said
        s.close()


def test_a_crash_after_an_upgrade_is_made_good_at_once(far, service_at):
    """Though there still is a process that was taken over from, with a tunnel and a long drain.limit: systemd starts
    no other while that lives, and would not notice the end of a process that is not its child."""
    service = service_at(far.url, listen=PROXY, rules=RULES, drain={'limit': '60s'})
    with place(echo) as p:
        s = ask(service, f'127.0.0.1:{p.port}')[0]
        service.take_over()
        service.taken_over()
        talk(s)
        began = time.monotonic()
        service.process.send_signal(signal.SIGKILL)
        wait_for(lambda: service.show()['NRestarts'] == '1' and service.get('/readyz')[0] == 200, 90, what='the restart')
        assert time.monotonic() - began < 6
        s.close()
    service.process = service.main()
    step(service, far)


def test_a_key_that_only_root_may_read(far, service_at, machine):
    """By LoadCredential=; also after a reload and after an upgrade, which run as the user."""
    ca = CA(machine.path('root'), 'a CA')
    private = machine.path('etc/private')
    private.mkdir(mode=0o700, exist_ok=True)
    cert, cert_key = ca.issue('127.0.0.1')
    os.rename(cert_key, private / 'server.key')
    (private / 'server.key').chmod(0o600)
    service = service_at(
        far.url, start=False, drop_in='LoadCredential=server.key:/etc/private/server.key\n',
        listen={'tls': {'mode': 'upstream', 'address': '127.0.0.1:8444', 'certificate': '/etc/tailrace/server.pem',
                        'key': '${CREDENTIALS_DIRECTORY}/server.key'}})
    os.rename(cert, machine.path('etc/tailrace/server.pem'))
    machine.path('etc/tailrace/server.pem').chmod(0o644)
    service.start()
    context = ssl.create_default_context(cafile=str(ca.ca))

    def served():
        conn = http.client.HTTPSConnection('127.0.0.1', 8444, context=context, timeout=10)
        conn.request('GET', '/healthz')
        code = conn.getresponse().status
        conn.close()
        return code
    assert served() > 0
    assert subprocess.run(['setpriv', '--reuid', status(service.pid)['Uid'].split()[0], '--clear-groups',
                           'cat', private / 'server.key'], capture_output=True).returncode != 0
    generation = service.metric('config_generation')
    service.ctl('reload', 'tailrace.service')
    wait_for(lambda: service.metric('config_generation') == generation + 1, what='the reload')
    assert served() > 0
    service.take_over()
    service.taken_over()
    assert served() > 0


def test_nothing_in_the_unit_is_not_understood(service_at, far, machine):
    """By this systemd, when it read the units."""
    service_at(far.url)
    assert not re.search(r'tailrace\.(service|socket):\d+:.*', machine.said.decode()), machine.said.decode()
