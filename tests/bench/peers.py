"""Programs that users would run in tailrace's place, with one worker each and otherwise as Debian packages them."""
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def children(pid):
    """The process and all it has started."""
    found = [pid]
    for task in found:
        try:
            found += [int(n) for t in os.listdir(f'/proc/{task}/task')
                      for n in Path(f'/proc/{task}/task/{t}/children').read_text().split()]
        except OSError:
            pass
    return found


def cpu(pid):
    """Seconds of CPU of all its threads: the scheduler's own account, in nanoseconds."""
    total = 0
    for process in children(pid):
        try:
            for task in os.listdir(f'/proc/{process}/task'):
                total += int(Path(f'/proc/{process}/task/{task}/schedstat').read_text().split()[0])
        except OSError:
            pass
    return total / 1e9


def written(pid):
    """Bytes it has caused to be written to a disk."""
    total = 0
    for process in children(pid):
        try:
            total += int(re.search(r'^write_bytes: (\d+)', Path(f'/proc/{process}/io').read_text(), re.M)[1])
        except (OSError, TypeError):
            pass
    return total


def wait_port(port, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(('127.0.0.1', port), 0.5).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Peer:
    """A running program; `port` takes clear or bare bytes, `tls_port` TLS."""

    def __init__(self, name, argv, port, tls_port=None, env=None, directory=None):
        self.name, self.port, self.tls_port = name, port, tls_port
        with open(Path(directory or '/tmp') / (name + '.out'), 'ab') as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                                            cwd=str(directory or '/'))
        self.pid = self.process.pid
        self.ready = wait_port(port)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def find(program):
    return shutil.which(program, path=os.environ.get('PATH', '') + ':/usr/sbin:/sbin')


class Relays:
    """Plain relays to `clear` and, over TLS, `tls`."""

    def __init__(self, directory, clear, tls, cert, key):
        self.dir, self.clear, self.tls, self.cert, self.key = Path(directory), clear, tls, cert, key
        self.pem = self.dir / 'both.pem'
        self.pem.write_text(Path(cert).read_text() + Path(key).read_text())

    def write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return str(path)

    def place(self, name):
        path = self.dir / name
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
        return path

    def nginx(self):
        d, a, b = self.place('nginx'), free_port(), free_port()
        user = 'user root;' if os.geteuid() == 0 else ''
        to = ('location / { proxy_pass %s; proxy_http_version 1.1; proxy_set_header Connection "";'
              ' proxy_set_header Host $host; }'
              ' location /stream/ { proxy_pass %s; proxy_http_version 1.1; proxy_set_header Connection upgrade;'
              ' proxy_set_header Upgrade $http_upgrade; proxy_read_timeout 300s; }'
              ' location /bulk { proxy_pass %s; proxy_http_version 1.1; proxy_set_header Connection "";'
              ' client_max_body_size 0; proxy_request_buffering off; proxy_max_temp_file_size 0;'
              ' proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; }')
        temp = ' '.join(f'{w}_temp_path {d}/{w};' for w in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))
        conf = self.write('nginx.conf', f'''daemon off; {user} worker_processes 1; pid {d}/pid; error_log {d}/error.log;
worker_rlimit_nofile {min(FILES, 65536)};
events {{ worker_connections 8192; }}
http {{ access_log off; {temp} keepalive_requests 100000000; client_body_buffer_size 64k;
ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_protocols TLSv1.2 TLSv1.3;
upstream clear {{ server 127.0.0.1:{self.clear}; keepalive 64; keepalive_requests 100000000; }}
upstream tls {{ server 127.0.0.1:{self.tls}; keepalive 64; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{a} backlog=4096; {to % (('http://clear',) * 3)} }}
server {{ listen 127.0.0.1:{b} ssl backlog=4096; ssl_certificate {self.cert}; ssl_certificate_key {self.key};
 {to % (('https://tls',) * 3)} }} }}''')
        return Peer('nginx', [find('nginx'), '-p', str(d), '-c', conf], a, b, directory=self.dir)

    def haproxy(self):
        a, b = free_port(), free_port()
        conf = self.write('haproxy.cfg', f'''global
 nbthread 1
 maxconn 8000
defaults
 mode http
 http-reuse always
 timeout client 60s
 timeout server 60s
 timeout connect 5s
 timeout tunnel 300s
listen clear
 bind 127.0.0.1:{a} backlog 4096
 server s 127.0.0.1:{self.clear}
listen tls
 bind 127.0.0.1:{b} ssl crt {self.pem} alpn h2,http/1.1
 server s 127.0.0.1:{self.tls} ssl verify none
''')
        return Peer('haproxy', [find('haproxy'), '-db', '-f', conf], a, b, directory=self.dir)

    def nghttpx(self):
        a, b = free_port(), free_port()
        peer = Peer('nghttpx', [find('nghttpx'), '--conf=/dev/null', '--workers=1', f'-f127.0.0.1,{a};no-tls',
                                f'-b127.0.0.1,{self.clear}', '--errorlog-file=/dev/null'], a, directory=self.dir)
        other = Peer('nghttpx', [find('nghttpx'), '--conf=/dev/null', '--workers=1', f'-f127.0.0.1,{b}', '-k',
                                 f'-b127.0.0.1,{self.tls};;tls', '--errorlog-file=/dev/null', str(self.key),
                                 str(self.cert)], b, directory=self.dir)
        peer.tls_port, peer.tls_pid = b, other.pid
        end = peer.stop
        peer.stop = lambda: (end(), other.stop())
        return peer

    def squid(self):
        d, a = self.place('squid'), free_port()
        conf = self.write('squid.conf', f'''http_port 127.0.0.1:{a} accel defaultsite=log-service.test no-vhost
cache_peer 127.0.0.1 parent {self.clear} 0 no-query originserver name=up
cache_peer_access up allow all
never_direct allow all
http_access allow all
cache deny all
access_log none
cache_store_log none
cache_log {d}/cache.log
pid_filename none
coredump_dir {d}
max_filedescriptors {min(FILES, 16384)}
shutdown_lifetime 0 seconds
pinger_enable off
''')
        return Peer('squid', [find('squid'), '-N', '-f', conf], a, directory=self.dir)

    def start(self, names):
        """Those that are installed; the others are named."""
        running = []
        for name in names:
            if not find(name):
                print(f'bench: {name} is not installed: skipped', flush=True)
                continue
            peer = getattr(self, name)()
            if peer.ready:
                running.append(peer)
            else:
                print(f'bench: {name} does not start here: skipped', flush=True)
                peer.stop()
        return running


def rsyslog(directory, raw_port):
    """A disk queue, each record written before it is sent (not synced)."""
    d, port = Path(directory) / 'rsyslog', free_port()
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir()
    conf = d / 'conf'
    conf.write_text(f'''global(workDirectory="{d}" maxMessageSize="64k")
module(load="imptcp")
template(name="raw" type="string" string="%rawmsg%\\n")
input(type="imptcp" address="127.0.0.1" port="{port}" ruleset="r")
ruleset(name="r" queue.type="Direct") {{
 action(type="omfwd" target="127.0.0.1" port="{raw_port}" protocol="tcp" template="raw" queue.type="Disk"
  queue.filename="q" queue.size="5000000" queue.maxDiskSpace="4g" queue.dequeueBatchSize="512"
  queue.checkpointInterval="1000")
}}
''')
    return Peer('rsyslog-disk', [find('rsyslogd'), '-n', '-f', str(conf), '-i', str(d / 'pid')], port, directory=d)


def syslog_ng(directory, raw_port):
    """Its disk buffer, reliable. SYSLOG_NG_ROOT: where the package is unpacked, if it is not installed."""
    root = os.environ.get('SYSLOG_NG_ROOT', '')
    d, port = Path(directory) / 'syslog-ng', free_port()
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir()
    conf = d / 'conf'
    conf.write_text(f'''@version: 3.38
options {{ stats-freq(0); }};
source s {{ network(ip("127.0.0.1") port({port}) transport("tcp") flags(no-parse) max-connections(32)
 log-iw-size(40000) log-fetch-limit(1000)); }};
destination d {{ network("127.0.0.1" port({raw_port}) transport("tcp") template("${{MSG}}\\n")
 disk-buffer(reliable(yes) disk-buf-size(2147483648) mem-buf-size(104857600) dir("{d}"))); }};
log {{ source(s); destination(d); flags(flow-control); }};
''')
    program = root + '/usr/sbin/syslog-ng' if root else find('syslog-ng')
    argv = [program, '-F', '--no-caps', '-f', str(conf), '-R', str(d / 'persist'), '-c', str(d / 'ctl'),
            '-p', str(d / 'pid')]
    env = dict(os.environ)
    if root:
        lib = Path(root) / 'usr/lib'
        argv += ['--module-path', str(next(lib.rglob('libdisk-buffer.so')).parent)]
        env['LD_LIBRARY_PATH'] = ':'.join(sorted({str(p.parent) for p in lib.rglob('lib*.so*')}))
    return Peer('syslog-ng-reliable', argv, port, env=env, directory=d)


def shippers():
    """[(name, starter)] of those that are there."""
    out = []
    if find('rsyslogd'):
        out.append(rsyslog)
    else:
        print('bench: rsyslog is not installed: skipped', flush=True)
    if find('syslog-ng') or os.environ.get('SYSLOG_NG_ROOT'):
        out.append(syslog_ng)
    else:
        print('bench: syslog-ng is not installed: skipped', flush=True)
    return out
