"""Basic credentials of the proxy's clients: a file of user:hash lines."""
import base64
import concurrent.futures
import os
import signal
import subprocess
import time

import pytest
from gateway import BINARY, to_yaml, wait_for
from proxies import MB, RULES, ask, echo, get, place, proxy_at, read_exactly, read_head, status_of

# Of "correct horse".
SHA512 = subprocess.run(['openssl', 'passwd', '-6', '-salt', 'saltsalt', 'correct horse'], capture_output=True, text=True,
                        check=True).stdout.strip()


def users_file(directory, text, mode=0o640):
    path = directory / 'users'
    path.write_text(text)
    path.chmod(mode)
    return path


def basic(user, password, scheme='Basic'):
    return f'Proxy-Authorization: {scheme} ' + base64.b64encode(f'{user}:{password}'.encode()).decode()


RULES_BY_USER = {
    'local': {**RULES['local'], 'identity': ['alice', 'dora']},
    'names': {'hosts': ['nothing.example']},
}


@pytest.fixture
def gw(gateway_at, tmp_path):
    path = users_file(tmp_path, f'# who may\nalice:{SHA512}\n\nbob:{SHA512}\n')
    g = proxy_at(gateway_at, rules=RULES_BY_USER, listen={'proxy': {'users': str(path)}})
    g.users = path
    return g


@pytest.fixture(scope='module')
def echoes():
    with place(echo) as p:
        yield p


def test_407_names_the_scheme_and_has_no_body(gw, echoes):
    s, status, head = ask(gw, f'127.0.0.1:{echoes.port}')
    with s:
        assert status == 407 and 'Proxy-Authenticate: Basic realm="tailrace"' in head and 'Content-Length: 0' in head
        # The connection stays: the client answers on it.
        s.sendall(f'CONNECT 127.0.0.1:{echoes.port} HTTP/1.1\r\nHost: 127.0.0.1:{echoes.port}\r\n{basic("alice", "correct horse")}\r\n\r\n'.encode())
        assert read_head(s)[0] == 200
        s.sendall(b'x')
        assert s.recv(1) == b'x'
    e = gw.trail.last(event='deny', rule='credentials')
    assert (e['status'], e['reason']) == (407, 'no credential') and 'identity' not in e
    assert gw.trail.last(event='end')['identity'] == 'alice'
    assert gw.metric('denied_total', rule='credentials') == 1


def test_who_is_who(gw, echoes):
    target = f'127.0.0.1:{echoes.port}'
    for user, password, want, rule in (('alice', 'correct horse', 200, 'local'), ('bob', 'correct horse', 403, 'default'),
                                       ('alice', 'wrong', 407, 'credentials'), ('alice', '', 407, 'credentials'),
                                       ('carol', 'correct horse', 407, 'credentials'), ('ALICE', 'correct horse', 407, 'credentials'),
                                       ('', '', 407, 'credentials'), ('alice', 'correct horse', 200, 'local')):
        assert status_of(gw, target, basic(user, password)) == want, (user, password)
        e = gw.trail.last(event='end' if want == 200 else 'deny', rule=rule)
        assert e.get('identity') == (user if want in (200, 403) else None)
    assert 'correct' not in gw.trail.path.read_text() + gw.log()


@pytest.mark.parametrize('line', ['Proxy-Authorization: Basic', 'Proxy-Authorization: Basic !!!!', 'Proxy-Authorization: Bearer YWxpY2U6eA==',
                                  'Proxy-Authorization: Basic YWxpY2U=', 'Proxy-Authorization: Basic ' + 'QUFB' * 500,
                                  'Proxy-Authorization: Basic ' + base64.b64encode(b'alice:a\0b').decode(),
                                  basic('alice', 'x' * 600), basic('a' * 200, 'x'), 'Authorization: Basic YWxpY2U6eA=='])
def test_what_is_no_credential(gw, echoes, line):
    assert status_of(gw, f'127.0.0.1:{echoes.port}', line) == 407


def test_a_body_that_came_before_its_credential_was_checked(gw):
    """The hash takes a while; what is sent meanwhile is not lost."""
    def answer(s):
        with s:
            head = b''
            while b'\r\n\r\n' not in head:
                head += s.recv(65536)
            head, _, body = head.partition(b'\r\n\r\n')
            body += read_exactly(s, 3 * MB - len(body))
            assert b'authorization' not in head.lower()
            s.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
    data = os.urandom(3 * MB)
    with place(answer) as p:
        status, _, body = get(gw, f'http://127.0.0.1:{p.port}/x', 'Host: x', basic('alice', 'correct horse'), f'Content-Length: {len(data)}',
                              method='POST', body=data)
        assert p.errors == []
    assert status == 200 and body == data
    with place(answer) as p:
        assert get(gw, f'http://127.0.0.1:{p.port}/x', 'Host: x', basic('alice', 'no'), f'Content-Length: {len(data)}', method='POST',
                   body=data)[0] == 407
        assert p.connections == []


def test_guessing_is_slowed_down_and_harms_nobody_else(gw, echoes):
    target = f'127.0.0.1:{echoes.port}'
    answers = [status_of(gw, target, basic('alice', f'guess {i}')) for i in range(14)]
    assert answers[:10] == [407] * 10 and answers[-1] == 429
    assert gw.trail.last(event='deny', status=429)['reason'] == 'too many attempts'


def test_a_known_credential_costs_no_hash(gateway_at, tmp_path, echoes):
    import crypt
    path = users_file(tmp_path, 'alice:' + crypt.crypt('correct horse', '$6$rounds=400000$saltsalt') + '\n')
    g = proxy_at(gateway_at, rules=RULES_BY_USER, listen={'proxy': {'users': str(path)}})
    target = f'127.0.0.1:{echoes.port}'

    def timed():
        begun = time.monotonic()
        assert status_of(g, target, basic('alice', 'correct horse')) == 200
        return time.monotonic() - begun
    first = timed()
    assert min(timed() for _ in range(5)) < first / 4
    # Nobody waits for one who guesses: the loop does not compute.
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        guesses = [pool.submit(status_of, g, target, basic('alice', f'guess {i}')) for i in range(6)]
        assert timed() < first
        assert {f.result() for f in guesses} == {407}


def test_many_at_once_with_one_credential(gw, echoes):
    """As after a restart of a fleet: one computation answers them all."""
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: status_of(gw, f'127.0.0.1:{echoes.port}', basic('alice', 'correct horse')), range(80)))
    assert answers == [200] * 80


def test_a_reload_takes_up_another_file(gw, echoes, tmp_path):
    target = f'127.0.0.1:{echoes.port}'
    assert status_of(gw, target, basic('alice', 'correct horse')) == 200
    users_file(tmp_path, f'dora:{SHA512}\n')
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == 2)
    assert status_of(gw, target, basic('alice', 'correct horse')) == 407, 'what was known is forgotten'
    assert status_of(gw, target, basic('dora', 'correct horse')) == 200
    users_file(tmp_path, 'nonsense\n')
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('reload_failures_total') == 1)
    assert status_of(gw, target, basic('dora', 'correct horse')) == 200, 'nothing has changed'
    gw.options['listen']['proxy'].pop('users')
    gw.write_config()
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == 3)
    assert status_of(gw, target) == 403, 'nobody is asked any more, and nobody is anybody'


def test_hashes_of_several_formats(gateway_at, tmp_path, echoes):
    import crypt
    lines = [f'u{i}:{crypt.crypt("secret", crypt.mksalt(m))}' for i, m in enumerate((crypt.METHOD_SHA512, crypt.METHOD_BLOWFISH))]
    lines.append('u2:' + crypt.crypt('secret', '$y$j9T$h1bcp2YTbuQVAxSK54tO0/'))
    path = users_file(tmp_path, '\n'.join(lines) + '\n')
    g = proxy_at(gateway_at, listen={'proxy': {'users': str(path)}})
    for i in range(3):
        assert status_of(g, f'127.0.0.1:{echoes.port}', basic(f'u{i}', 'secret')) == 200
        assert status_of(g, f'127.0.0.1:{echoes.port}', basic(f'u{i}', 'Secret')) == 407


BAD = {
    'none': ('', 'has no users'),
    'no-colon': ('alice\n', 'line 1: use user:hash'),
    'in-clear': ('alice:password\n', 'line 1'),
    'des': ('# x\nalice:ab1S9HpYHmTqM\n', 'line 2'),
    'md5': ('alice:$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/\n', 'line 1'),
    'costly': ('alice:$2b$20$N9qo8uLOickgx2ZMRZoMye.IjPeYhvFzB0bSwpTSW0d8KBPjLkxGS\n', 'costs too much'),
    'twice': (f'alice:{SHA512}\nalice:{SHA512}\n', 'a user stands twice'),
    'nobody': (f':{SHA512}\n', 'line 1: use user:hash'),
    'blank': (f'al ice:{SHA512}\n', 'no blanks'),
}


@pytest.mark.parametrize('name', BAD)
def test_files_that_are_no_good(tmp_path, name):
    text, why = BAD[name]
    out = check(tmp_path, users_file(tmp_path, text))
    assert out.returncode == 1 and why in out.stderr and 'listen.proxy.users' in out.stderr
    assert 'saltsalt' not in out.stderr and 'password' not in out.stderr


def test_a_file_that_others_may_read(tmp_path):
    for mode in (0o644, 0o662, 0o660):
        out = check(tmp_path, users_file(tmp_path, f'alice:{SHA512}\n', mode))
        assert out.returncode == 1 and 'chmod 640' in out.stderr
    assert check(tmp_path, users_file(tmp_path, f'alice:{SHA512}\n', 0o600)).returncode == 0


def check(directory, users):
    config = directory / 'tailrace.yaml'
    config.write_text(to_yaml({'harness': {'url': 'https://app.harness.io'},
                               'listen': {'proxy': {'address': '127.0.0.1:0', 'users': str(users)}}}))
    return subprocess.run([BINARY, 'check', '-c', str(config)], capture_output=True, text=True, timeout=30)


def test_curl_answers_a_407(gw, echoes):
    from standin.harness import Harness
    with Harness() as far:
        done = subprocess.run(['curl', '-sS', '-m', '30', '-x', f'http://127.0.0.1:{gw.ports["proxy"]}', '-U', 'alice:correct horse', '--proxy-anyauth',
                               '-w', '%{http_code}', '-o', os.devnull, f'http://127.0.0.1:{far.port}/api/x'], capture_output=True, timeout=40)
        assert done.stdout == b'200', done.stderr
        done = subprocess.run(['curl', '-sS', '-m', '30', '-p', '-x', f'http://127.0.0.1:{gw.ports["proxy"]}', '-U', 'alice:correct horse',
                               '-w', '%{http_code}', '-o', os.devnull, f'http://127.0.0.1:{far.port}/api/x'], capture_output=True, timeout=40)
        assert done.stdout == b'200', done.stderr
