"""A deployment in network namespaces: four networks of one customer, and the internet.

    build (delegate, browser)   10.20.0.0/24 ─┐
    pods (lite engine, step)    10.21.0.0/24 ─┤ boundary (tailrace) ── 52.1.1.0/24 ── internet
    data (PostgreSQL)           10.22.0.0/24 ─┘

Each is joined to the boundary by a wire of its own. The boundary does not forward packets: what gets
from one network to another got there through tailrace, or not at all. The internet's addresses are
such as the real ones are (public), and exist in that namespace only.

Needs root, `ip netns`, and PostgreSQL's programs. Everything that is started is ended by its pid, and
the namespaces go, whatever happens; those of a run that was killed go at the next one."""
import ctypes
import glob
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
sys.path[:0] = [str(TESTS / 'integration'), str(TESTS)]

from gateway import BINARY, Gateway, merge, wait_for        # noqa: E402
from standin.certs import CA                                # noqa: E402

CLONE_NEWNET = 0x40000000
WIRES = {'build': '10.20.0', 'pods': '10.21.0', 'data': '10.22.0'}
INSIDE, OUTSIDE = '52.1.1.2', '52.1.1.1'        # the boundary's leg to the internet, and the far end
PUBLIC = {'app.harness.io': '34.120.225.85', 'storage.googleapis.com': '142.250.74.59',
          'git.forge.test': '140.82.121.3', 'registry.forge.test': '18.213.50.7',
          'static.harness.io': '34.120.225.85', 'vanity.harness.io': '34.120.225.85',
          'unlisted.forge.test': '140.82.121.3'}
GATE = 'gate.corp.test'
ENGINE, STEP, DATABASE = '10.21.0.3', '10.21.0.4', '10.22.0.5'
EXTRA = {'build': ['10.20.0.53', '10.20.0.54'], 'pods': [ENGINE, STEP, '10.21.0.53', '10.21.0.54'],
         'data': [DATABASE], 'boundary': ['127.0.0.53'], 'internet': sorted(set(PUBLIC.values()))}
PSQL_BIN = sorted(glob.glob('/usr/lib/postgresql/*/bin'))


def obstacle():
    """Why namespaces are not possible here, or None."""
    if os.geteuid() != 0:
        return 'not root'
    if not shutil.which('ip') or not PSQL_BIN:
        return 'iproute2 or PostgreSQL is not installed'
    name = 'tr%d-try' % os.getpid()
    done = subprocess.run(['ip', 'netns', 'add', name], capture_output=True, text=True)
    if done.returncode:
        return 'ip netns: ' + done.stderr.strip()
    subprocess.run(['ip', 'netns', 'del', name], check=False)
    try:
        import grpc                                         # noqa: F401
    except ImportError:
        return 'python3-grpcio is not installed'
    return None


def inside(namespace, work):
    """work() by a thread that is in that namespace; sockets it makes stay there."""
    box = {}

    def run():
        libc = ctypes.CDLL(None, use_errno=True)
        with open('/run/netns/' + namespace) as there:
            if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
                box['error'] = OSError(ctypes.get_errno(), 'setns')
                return
        try:
            box['result'] = work()
        except Exception as exc:
            box['error'] = exc

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if 'error' in box:
        raise box['error']
    return box['result']


class Process:
    """A program in a namespace. Its output is read line by line; JSON lines become `events`."""

    def __init__(self, argv, directory, name, env=None):
        self.name, self.events, self.text = name, [], []
        self.errors = open(Path(directory) / (name + '.err'), 'ab+')
        self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                      env=dict(os.environ, PYTHONPATH=str(TESTS), **(env or {})))
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.popen.stdout:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.text.append(line.decode('utf-8', 'replace'))

    def wait_for(self, condition, timeout=20, what='an event'):
        """The first event for which condition(event) is true; fails if the program ends first."""
        def found():
            for event in list(self.events):
                if condition(event):
                    return event
            if self.popen.poll() is not None and not self.thread.is_alive():
                raise AssertionError('%s ended with %s: %s\n%s' % (self.name, self.popen.returncode, self.events[-5:],
                                                                   self.complaints()))
            return None
        try:
            return wait_for(found, timeout, what=what)
        except AssertionError as exc:
            raise AssertionError('%s: %s\n%s\n%s' % (self.name, exc, self.events[-5:], self.complaints())) from None

    def event(self, name, timeout=20):
        return self.wait_for(lambda e: e.get('event') == name, timeout, 'the event %s' % name)

    def complaints(self):
        self.errors.seek(0)
        return self.errors.read().decode('utf-8', 'replace')[-3000:]

    def stop(self, signo=signal.SIGTERM):
        if self.popen.poll() is None:
            try:
                self.popen.stdin.close()
            except OSError:
                pass
            self.popen.send_signal(signo)
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self.errors.close()


class Boundary(Gateway):
    """tailrace in its namespace."""

    def __init__(self, world, *args, **options):
        self.world = world
        super().__init__(*args, **options)

    def start(self, wait=True):
        self.write_config()
        self.log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, 'ab') as log:
            self.process = subprocess.Popen(
                self.world.prefix('boundary') + [BINARY, 'serve', '-c', str(self.config_path)],
                stderr=log, stdout=log, stdin=subprocess.DEVNULL, env=self.env)
        if wait:
            self.wait_ready()
        return self

    def get(self, path, headers=None):
        try:
            return self.world.http('boundary', self.ports.get('admin', 9464), 'GET', path)
        except OSError:
            return 0, ''

    def command(self, *arguments):
        """Another command of the program, in the same place, with the same configuration."""
        return subprocess.run(self.world.prefix('boundary') + [BINARY, *arguments, '-c', str(self.config_path)],
                              capture_output=True, text=True, timeout=60)


class World:
    def __init__(self, directory):
        self.directory = Path(directory)
        self.tag = 'tr%d-' % os.getpid()
        self.processes, self.namespaces, self.made, self.gateways = [], [], [], []
        self.scratch = tempfile.mkdtemp(prefix='tailrace-net-')
        os.chmod(self.scratch, 0o755)
        try:
            self.sweep()
            self.build()
        except BaseException:
            self.close()
            raise

    # --- namespaces and wires --------------------------------------------------------------

    def ns(self, name):
        return self.tag + name

    def ip(self, *arguments, at=None):
        subprocess.run(['ip'] + (['-n', self.ns(at)] if at else []) + list(arguments), check=True,
                       capture_output=True, text=True)

    def prefix(self, name):
        return ['ip', 'netns', 'exec', self.ns(name)]

    def sweep(self):
        """What a run left that could not tidy up."""
        for path in glob.glob('/run/netns/tr*-*') + glob.glob('/etc/netns/tr*-*'):
            found = re.fullmatch(r'tr(\d+)-\w+', os.path.basename(path))
            if not found or os.path.exists('/proc/' + found.group(1)):
                continue
            if path.startswith('/run'):
                subprocess.run(['ip', 'netns', 'del', os.path.basename(path)], check=False)
            else:
                shutil.rmtree(path, ignore_errors=True)

    def build(self):
        for name in (*WIRES, 'boundary', 'internet'):
            self.ip('netns', 'add', self.ns(name))
            self.namespaces.append(name)
            self.ip('link', 'set', 'lo', 'up', at=name)
        for name, net in WIRES.items():
            self.wire(name, net + '.2', net + '.1')
            self.ip('route', 'add', 'default', 'via', net + '.1', at=name)
        self.wire('internet', OUTSIDE, INSIDE)
        self.ip('route', 'add', 'default', 'via', OUTSIDE, at='boundary')
        for name, addresses in EXTRA.items():
            for address in addresses:
                self.ip('address', 'add', address + '/32', 'dev', 'lo', at=name)
        for net, addresses in (('pods', EXTRA['pods']), ('data', EXTRA['data'])):
            for address in addresses:
                self.ip('route', 'add', address, 'via', WIRES[net] + '.2', at='boundary')
        # No packet passes the boundary by itself.
        subprocess.run(self.prefix('boundary') + ['sh', '-c', 'echo 0 > /proc/sys/net/ipv4/ip_forward'], check=True)
        for name in WIRES:
            self.resolver(name, WIRES[name] + '.53')
        self.resolver('boundary', '127.0.0.53')

    def wire(self, name, near, far):
        """A pair of interfaces between a network and the boundary."""
        self.ip('link', 'add', 'up0', 'netns', self.ns(name), 'type', 'veth', 'peer', 'name', 'to-' + name,
                'netns', self.ns('boundary'))
        for at, device, address in ((name, 'up0', near), ('boundary', 'to-' + name, far)):
            self.ip('address', 'add', address + '/24', 'dev', device, at=at)
            self.ip('link', 'set', device, 'up', at=at)

    def resolver(self, name, address):
        """What programs started in that network from now on ask for names."""
        path = '/etc/netns/' + self.ns(name)
        if path not in self.made:
            os.makedirs(path, exist_ok=True)
            self.made.append(path)
        Path(path, 'resolv.conf').write_text('nameserver %s\noptions timeout:2 attempts:1\n' % address)

    # --- programs --------------------------------------------------------------------------

    def run(self, name, *argv, timeout=30, env=None):
        """A command in a network, to its end."""
        return subprocess.run(self.prefix(name) + list(argv), capture_output=True, text=True, timeout=timeout,
                              env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL)

    def spawn(self, name, label, *argv, env=None):
        process = Process(self.prefix(name) + list(argv), self.directory, label, env)
        self.processes.append(process)
        return process

    def python(self, name, label, module, *arguments):
        return self.spawn(name, label, sys.executable, '-m', 'standin.' + module, *arguments)

    def end(self, process):
        process.stop()
        self.processes.remove(process)

    def http(self, name, port, method, path, spec=None, host='127.0.0.1'):
        """A small call to something that listens in a network: (status, text)."""
        s = inside(self.ns(name), lambda: socket.create_connection((host, port), 10))
        conn = http.client.HTTPConnection(host, port, timeout=20)
        conn.sock = s
        try:
            conn.request(method, path, json.dumps(spec) if spec is not None else None)
            answer = conn.getresponse()
            return answer.status, answer.read().decode()
        finally:
            conn.close()

    # --- the far side, the names, the database -------------------------------------------------

    def populate(self):
        """Everything but tailrace and the actors of a single run."""
        self.outside, self.corp = CA(self.directory, 'internet CA'), CA(self.directory, 'corporate CA')
        self.trust = self.directory / 'trust.pem'
        self.trust.write_text(Path(self.outside.ca).read_text() + Path(self.corp.ca).read_text())
        cert, key = self.outside.issue(*PUBLIC)
        common = {'certificate': cert, 'key': key}
        self.repositories()
        platform = self.config('platform', dict(
            common, address=PUBLIC['app.harness.io'], store_address=PUBLIC['storage.googleapis.com'],
            store_name='storage.googleapis.com', client_ca=self.corp.ca))
        repos = self.config('repos', dict(
            common, git=PUBLIC['git.forge.test'], registry=PUBLIC['registry.forge.test'], log=self.scratch + '/repos.log',
            repositories=self.scratch + '/git', users={'puller': 'planted-registry-password'}))
        begun = [self.python('internet', 'platform', 'platform', platform),
                 self.python('internet', 'repos', 'repos', repos)]
        begun += self.name_servers()
        self.database()
        for process in begun:
            process.wait_for(lambda event: True, what='its being ready')
        self.control_port = begun[0].events[0]['control_port']

    def config(self, name, spec):
        path = self.directory / (name + '.json')
        path.write_text(json.dumps(spec))
        return str(path)

    def repositories(self):
        work = Path(self.scratch) / 'work'
        env = {'HOME': self.scratch, 'GIT_CONFIG_NOSYSTEM': '1', 'PATH': os.environ['PATH'], 'GIT_AUTHOR_NAME': 'x',
               'GIT_AUTHOR_EMAIL': 'x@corp.test', 'GIT_COMMITTER_NAME': 'x', 'GIT_COMMITTER_EMAIL': 'x@corp.test'}

        def git(*arguments):
            subprocess.run(['git', *arguments], check=True, env=env, capture_output=True)
        git('init', '-q', '-b', 'main', str(work))
        (work / 'changelog.sql').write_text('create table orders (id int);\n')
        (work / 'big.bin').write_bytes(os.urandom(300000))
        git('-C', str(work), 'add', '.')
        git('-C', str(work), 'commit', '-q', '-m', 'orders')
        git('clone', '-q', '--bare', str(work), self.scratch + '/git/orders.git')

    def name_servers(self):
        """One for each network, and a second one for those where names are overridden."""
        begun = []
        tables = {('boundary', '127.0.0.53'): dict({n: [a] for n, a in PUBLIC.items()}, **{'db.corp.test': [DATABASE]})}
        for name in ('build', 'pods'):
            leg = WIRES[name] + '.1'
            plain = {GATE: [leg]}
            tables[name, WIRES[name] + '.53'] = plain
            tables[name, WIRES[name] + '.54'] = dict(plain, **{n: [leg] for n in PUBLIC})
        for (name, address), table in tables.items():
            begun.append(self.python(name, 'names-' + address, 'names', address, json.dumps(table),
                                     '%s/names-%s.log' % (self.directory, address)))
        return begun

    def asked(self, address):
        """Names that a name server was asked for."""
        path = self.directory / ('names-%s.log' % address)
        return path.read_text().split() if path.exists() else []

    def database(self):
        """PostgreSQL, as its own user, which trusts everybody who comes through the wire."""
        place, tools = self.scratch + '/pg', PSQL_BIN[-1]
        as_owner = ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups']
        os.mkdir(place)
        shutil.chown(place, 'postgres', 'postgres')
        subprocess.run(as_owner + [tools + '/initdb', '-D', place + '/d', '-A', 'trust', '-N', '-U', 'postgres'], check=True,
                       capture_output=True, cwd='/')
        with open(place + '/d/pg_hba.conf', 'a') as out:
            out.write('host all all 10.22.0.1/32 trust\n')
        self.postgres = self.spawn('data', 'postgres', *as_owner, tools + '/postgres', '-D', place + '/d', '-h', DATABASE,
                                   '-k', place, '-c', 'fsync=off', '-c', 'log_connections=on')
        wait_for(lambda: subprocess.run([tools + '/pg_isready', '-q', '-h', place], check=False).returncode == 0, 30,
                 what='PostgreSQL')

    def sql(self, text):
        """What the database itself says, past every gate."""
        return subprocess.run(['psql', '-X', '-At', '-h', self.scratch + '/pg', '-U', 'postgres', '-c', text], check=True,
                              capture_output=True, text=True).stdout.strip()

    def control(self, method, path, spec=None):
        status, text = self.http('internet', self.control_port, method, path, spec)
        assert status == 200, (status, text)
        return json.loads(text) if text else None

    def repos_log(self):
        path = Path(self.scratch) / 'repos.log'
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # --- tailrace ------------------------------------------------------------------------------

    def gate_options(self):
        """All three ways of being reached at once, and the listeners between the networks."""
        cert, key = self.corp.issue(GATE)
        options = {
            'harness': {'url': 'https://app.harness.io'},
            'listen': {
                'upstream': {'address': '0.0.0.0:8443', 'certificate': cert, 'key': key},
                'proxy': {'address': '0.0.0.0:3128'},
                'sni': {'address': '0.0.0.0:443'},
                'orders': {'mode': 'forward', 'address': '10.21.0.1:5432', 'to': 'db.corp.test:5432'},
                'engine': {'mode': 'grpc', 'address': '10.20.0.1:20001', 'to': 'http://%s:20001' % ENGINE},
                'admin': {'address': '127.0.0.1:9464'}},
            'egress': {'allow': ['git.forge.test:443', 'registry.forge.test:443']},
            'intercept': {'hosts': ['app.harness.io'], 'ca': self.corp.ca, 'key': self.corp.ca_key},
            'upstream': {'ca': self.outside.ca, 'resolvers': ['127.0.0.53']},
            'audit': {'to': 'file', 'file': str(self.directory / 'audit'), 'interval': '1s'},
            'workers': 2,
        }
        return options

    def gateway(self, name='tailrace', **options):
        wanted = merge(self.gate_options(), options)
        for section, value in options.items():
            if value == {}:
                wanted.pop(section, None)  # it is not wanted at all
        wanted['listen'] = {k: v for k, v in wanted['listen'].items() if v}
        directory = self.directory / name
        wanted['audit']['file'] = str(directory / 'audit')
        if any(g.process and g.process.poll() is None for g in self.gateways):
            raise AssertionError('one gateway at a time: the addresses are taken')
        url = wanted.pop('harness')['url']
        listen = wanted['listen']
        gate = Boundary(self, directory, url, start=False, **wanted)
        gate.options['listen'] = listen
        self.gateways.append(gate)
        gate.start()
        return gate

    def answered(self):
        """What delegates said of their tasks; fails at once if the gate is gone."""
        code = self.gateways[-1].process.poll()
        assert code is None, 'tailrace ended with %s:\n%s' % (code, self.gateways[-1].log()[-3000:])
        return self.control('GET', '/responses')

    def audit(self, gate):
        path = gate.directory / 'audit'
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # --- the end -------------------------------------------------------------------------------

    def close(self):
        for gate in self.gateways:
            if gate.process and gate.process.poll() is None:
                gate.process.kill()
                gate.process.wait()
        for process in reversed(self.processes):
            process.stop(signal.SIGINT if process.name == 'postgres' else signal.SIGTERM)
        for name in self.namespaces:
            subprocess.run(['ip', 'netns', 'del', self.ns(name)], check=False, capture_output=True)
        for path in self.made:
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.processes, self.namespaces, self.made = [], [], []


def reaches(namespace, address, port, timeout=1.0):
    """Does a direct connection from there to that address come about?"""
    def attempt():
        with socket.create_connection((address, port), timeout):
            return True
    try:
        return inside(namespace, attempt)
    except OSError:
        return False


__all__ = ['World', 'Boundary', 'obstacle', 'reaches', 'inside', 'wait_for', 'time', 'select']
