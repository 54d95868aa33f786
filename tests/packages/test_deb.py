"""The Debian package: what is in it, and its whole life on a system with systemd, from the first installation over
upgrades under load to the purge."""
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import pytest
from calls import Api
from gateway import free_port, key, to_yaml, wait_for
from proxies import place
from standin.harness import Harness
from tree import TOP


def test_lintian_has_nothing_to_say(deb, unpacked):
    if not shutil.which('lintian'):
        pytest.skip('lintian is not installed')
    done = subprocess.run(['lintian', '--allow-root', '--tag-display-limit', '0', '--fail-on', 'error,warning', str(deb)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not re.findall('^[EW]:', done.stdout, re.M), done.stdout + done.stderr


def test_what_is_in_it(unpacked):
    for name in ('usr/sbin/tailrace', 'usr/sbin/tailracectl', 'usr/libexec/tailrace/take-over',
                 'lib/systemd/system/tailrace.service', 'lib/systemd/system/tailrace.socket', 'etc/logrotate.d/tailrace',
                 'usr/lib/sysusers.d/tailrace.conf', 'usr/lib/tmpfiles.d/tailrace.conf',
                 'usr/share/man/man8/tailrace.8.gz', 'usr/share/man/man8/tailracectl.8.gz',
                 'usr/share/man/man5/tailrace.yaml.5.gz',
                 'usr/share/bash-completion/completions/tailracectl', 'usr/share/zsh/vendor-completions/_tailracectl',
                 'usr/share/fish/vendor_completions.d/tailracectl.fish', 'usr/share/doc/tailrace/examples/high-ports.conf',
                 'usr/share/doc/tailrace/prometheus/rules.yml', 'usr/share/doc/tailrace/grafana/tailrace-dashboard.json'):
        assert (unpacked / name).is_file(), name
    doc = unpacked / 'usr/share/doc/tailrace'
    for part in ('*.md', 'images/*'):
        assert {p.name for p in (doc / 'docs').glob(part)} == {p.name for p in (TOP / 'docs').glob(part)}
    assert {p.name for p in (TOP / 'conf').glob('*.yaml')} <= {p.name for p in (doc / 'examples').iterdir()}
    assert not (unpacked / 'lib/systemd/system/tailrace.service.d/high-ports.conf').exists()     # for those who want it
    assert list((unpacked / 'etc' / 'tailrace').iterdir()) == []    # the configuration is the admin's own


def test_no_fault_points_and_no_paths_of_the_build_in_the_program(unpacked):
    text = (unpacked / 'usr/sbin/tailrace').read_bytes()
    assert b'TAILRACE_FAULT' not in text
    assert b'/tree/src/' not in text


LOG = b'{"out":"one\\n"}\n{"out":"two\\n"}\n'


class Life:
    """The gateway in the machine, as its admin and its clients see it."""

    def __init__(self, machine, far, echo_port):
        self.machine, self.far = machine, far
        self.ports = {name: free_port() for name in ('upstream', 'admin', 'orders')}
        self.options = {
            'harness': {'url': far.url},
            'listen': {
                'upstream': {'address': f'127.0.0.1:{self.ports["upstream"]}'},
                'admin': {'address': f'127.0.0.1:{self.ports["admin"]}'},
                'orders': {'mode': 'forward', 'address': f'127.0.0.1:{self.ports["orders"]}',
                           'to': f'127.0.0.1:{echo_port}'},
            },
            'log': {'file': '/var/log/tailrace/tailrace.log'},
            'drain': {'limit': '20s'},
        }

    def configure(self, **more):
        self.machine.write('/etc/tailrace/tailrace.yaml', to_yaml(dict(self.options, **more)))

    def main_pid(self):
        return int(self.machine.out('systemctl', 'show', '-p', 'MainPID', '--value', 'tailrace'))

    def active(self):
        return self.machine.run('systemctl', 'is-active', '--quiet', 'tailrace', check=False).returncode == 0

    def send_lines(self, n):
        """A whole stream, live lines and finished log, and what the far side has of it."""
        api = Api(f'http://127.0.0.1:{self.ports["upstream"]}/log-service')
        try:
            for status, text, _ in (api.open(key(run=n)), api.put(key(run=n), 'one', 'two'), api.blob(key(run=n), LOG),
                                    api.delete(key(run=n))):
                assert status in (200, 204), text
        finally:
            api.close()
        self.far.wait(lambda h: h.blob('acct', key(run=n)) == LOG, timeout=20, what='the log to arrive')

    def metric(self, name):
        with urllib.request.urlopen(f'http://127.0.0.1:{self.ports["admin"]}/metrics', timeout=10) as page:
            return float(re.search(rf'^tailrace_{re.escape(name)} (\S+)$', page.read().decode(), re.M).group(1))


class Hammer(threading.Thread):
    """A client that asks the admin listener over and over, by a new connection each time, and bytes on one tunnel."""

    def __init__(self, life):
        super().__init__()
        self.life, self.over, self.asked, self.failures = life, threading.Event(), 0, []
        self.tunnel = socket.create_connection(('127.0.0.1', life.ports['orders']), timeout=30)

    def say(self, word):
        self.tunnel.sendall(word)
        got = b''
        while len(got) < len(word):
            piece = self.tunnel.recv(100)
            assert piece, 'the tunnel ended'
            got += piece
        return got

    def run(self):
        while not self.over.is_set():
            try:
                with urllib.request.urlopen(f'http://127.0.0.1:{self.life.ports["admin"]}/healthz', timeout=20) as page:
                    assert page.status == 200
                assert self.say(b'still there') == b'still there'
                self.asked += 1
            except (OSError, AssertionError) as e:
                self.failures.append(repr(e))
                return
            time.sleep(0.01)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.join()
        assert self.asked and not self.failures, self.failures


@pytest.fixture(scope='module')
def life(machine):
    with Harness() as far, place() as target:
        life = Life(machine, far, target.port)
        yield life
        machine.run('systemctl', 'stop', 'tailrace', check=False)


# The life of the package; each test goes on where the one before it ended.

@pytest.mark.xdist_group('life')
class TestLife:
    def test_01_installed_it_waits_for_a_configuration(self, machine, life, deb):
        machine.write('/var/cache/tailrace.deb', deb.read_bytes())
        said = machine.out('dpkg', '-i', '/var/cache/tailrace.deb')
        assert '/etc/tailrace/tailrace.yaml' in said
        assert machine.out('systemctl', 'is-enabled', 'tailrace') == 'enabled'
        assert machine.run('systemctl', 'is-enabled', 'tailrace.socket', check=False).stdout.strip() == 'disabled'
        machine.run('systemctl', 'start', 'tailrace')       # its condition is not met: that is no failure
        assert not life.active()
        assert machine.run('systemctl', 'is-failed', '--quiet', 'tailrace', check=False).returncode != 0
        assert machine.out('stat', '-c', '%U:%G %a', '/var/lib/tailrace', '/var/log/tailrace', '/etc/tailrace',
                           '/etc/tailrace/private').split('\n') == [
            'tailrace:tailrace 700', 'tailrace:tailrace 750', 'root:root 755', 'root:tailrace 750']

    def test_02_the_two_commands_that_it_tells(self, machine, life):
        """As the package says: the sample for a configuration, and start."""
        sample = machine.out('cat', '/usr/share/doc/tailrace/examples/minimal.yaml')
        machine.write('/etc/tailrace/tailrace.yaml', sample.replace('8080', str(life.ports['upstream'])))
        machine.run('tailrace', 'check')
        machine.run('systemctl', 'start', 'tailrace')
        assert life.active()

    def test_03_configured_it_carries_logs_as_a_user_of_its_own(self, machine, life):
        life.configure()
        machine.run('systemctl', 'restart', 'tailrace')
        assert machine.out('stat', '-c', '%U', f'/proc/{life.main_pid()}') == 'tailrace'
        life.send_lines(1)
        assert life.metric('sandbox{feature="not_root"}') == 1
        assert machine.out('tailracectl', 'version')

    def test_03b_manual_and_completion_are_where_the_system_looks(self, machine):
        for page, word in (('tailrace', 'doctor'), ('tailracectl', 'policy explain'), ('tailrace.yaml', 'harness.url')):
            assert word in machine.out('man', '-P', 'cat', page), page
        line = 'tailracectl sta'
        assert machine.out('bash', '-c', f'''
            source /usr/share/bash-completion/completions/tailracectl
            COMP_WORDS=({line}) COMP_CWORD=1 COMP_LINE="{line}" COMP_POINT={len(line)}
            $(complete -p tailracectl | sed 's/.*-F \\([^ ]*\\).*/\\1/') tailracectl sta tailracectl
            echo ${{COMPREPLY[@]}}''') == 'status'
        assert machine.out('fish', '-c', f'complete -C "{line}"').split()[0] == 'status'
        assert machine.out('zsh', '-c', 'autoload -U compinit; compinit -uD; print $_comps[tailracectl]') == '_tailracectl'

    def test_04_rotated_logs_are_opened_again(self, machine, life):
        machine.run('logrotate', '--force', '/etc/logrotate.d/tailrace')
        wait_for(lambda: machine.exists('/var/log/tailrace/tailrace.log'), what='the new log')
        assert machine.exists('/var/log/tailrace/tailrace.log.1')
        life.send_lines(2)
        assert life.metric('config_generation') >= 2

    def test_05_an_upgrade_refuses_nobody_and_keeps_tunnels(self, machine, life, newer):
        machine.write('/var/cache/newer.deb', newer('0.1.1').read_bytes())
        before = life.main_pid()
        with Hammer(life) as hammer:
            wait_for(lambda: hammer.asked > 3)
            said = machine.out('dpkg', '-i', '/var/cache/newer.deb')
            assert f'has taken over from {before}' in said
            asked = hammer.asked
            wait_for(lambda: hammer.asked > asked + 3 or hammer.failures)
        assert life.active() and life.main_pid() != before
        assert machine.out('readlink', f'/proc/{life.main_pid()}/exe') == '/usr/sbin/tailrace'
        life.send_lines(3)
        hammer.tunnel.close()

    def test_06_an_upgrade_with_a_configuration_that_is_wrong_changes_nothing(self, machine, life, newer):
        machine.write('/var/cache/newer.deb', newer('0.1.2').read_bytes())
        life.configure(harness={'url': 'gopher://nowhere'})
        before = life.main_pid()
        done = machine.run('dpkg', '-i', '/var/cache/newer.deb')
        assert 'goes on with the program that it was started with' in done.stderr, done.stdout + done.stderr
        assert machine.out('dpkg-query', '-W', '-f', '${db:Status-Status} ${Version}', 'tailrace') == 'installed 0.1.2'
        assert life.active() and life.main_pid() == before
        life.send_lines(4)
        life.configure()

    def test_07_removed_it_stops_and_keeps_its_spool(self, machine, life):
        machine.run('dpkg', '--remove', 'tailrace')
        assert not life.active()
        assert machine.exists('/var/lib/tailrace/spool.db') and machine.exists('/etc/tailrace/tailrace.yaml')
        assert not machine.exists('/usr/sbin/tailrace')

    def test_08_installed_again_it_starts_with_what_was_there(self, machine, life):
        machine.run('dpkg', '-i', '/var/cache/tailrace.deb')
        assert life.active()
        assert life.metric('ledger_lines{state="accepted"}') >= 8
        life.send_lines(5)

    def test_09_purged_nothing_is_left_but_what_the_admin_wrote(self, machine, life):
        machine.run('dpkg', '--purge', 'tailrace')
        assert not life.active()
        for path in ('/var/lib/tailrace', '/var/log/tailrace', '/etc/logrotate.d/tailrace', '/usr/share/doc/tailrace',
                     '/usr/libexec/tailrace', '/etc/systemd/system/multi-user.target.wants/tailrace.service'):
            assert not machine.exists(path), path
        assert machine.exists('/etc/tailrace/tailrace.yaml')
