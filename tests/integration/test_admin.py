"""What the admin sees: metrics, health, the command line, the log, reload."""
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest
from calls import Api, body_of, raw
from gateway import BINARY, Gateway, key, to_yaml, wait_for

# Architecture, "How it looks to its admin": these are promised. Egress adds series of its own later.
PROMISED = {
    'ledger_lines': ('gauge', ['state']), 'ledger_blobs': ('gauge', ['state']), 'lines_resent': ('counter', []),
    'spool_bytes': ('gauge', []), 'spool_limit_bytes': ('gauge', []), 'spool_oldest_seconds': ('gauge', []),
    'spool_full_in_seconds': ('gauge', []), 'ack_seconds': ('histogram', ['call']), 'delivery_seconds': ('histogram', ['call']),
    'client_requests': ('counter', ['call', 'code']), 'upstream_requests': ('counter', ['call', 'code']),
    'upstream_state': ('gauge', ['upstream']), 'tunnels': ('gauge', []), 'denied': ('counter', ['rule']),
    'config_generation': ('gauge', []), 'reload_failures': ('counter', []), 'certificate_expiry_seconds': ('gauge', ['name']),
    'build_info': ('gauge', ['version']),
}
SECRETS = ['token-Planted-7f3a', 'text-Planted-91bc', 'query-Planted-55aa', 'apikey-Planted-00ff']


class Format(Exception):
    pass


def check(condition, line):
    if not condition:
        raise Format(repr(line))


def number(text, line):
    check(re.fullmatch(r'[+-]?(Inf|\d+(\.\d+)?([eE][+-]?\d+)?)|NaN', text), line)
    return float(text.replace('Inf', 'inf'))


def parse(text, openmetrics):
    """A strict reader of both formats: {family: (type, {(sample, labels): value})}."""
    check(text.endswith('# EOF\n') == openmetrics and text.endswith('\n'), text[-20:])
    families, current = {}, None
    for line in text.split('\n')[:-2 if openmetrics else -1]:
        if line.startswith('# HELP '):
            name, _, words = line[7:].partition(' ')
            check(name not in families and words, line)
            check(not re.search(r'\\(?![\\n"])', words), line)
            current, families[name] = name, None
        elif line.startswith('# TYPE '):
            name, kind = line[7:].split(' ')
            check(name == current and families[name] is None and kind in ('counter', 'gauge', 'histogram'), line)
            check((kind == 'counter') <= (name.endswith('_total') != openmetrics), line)
            families[name] = (kind, {})
        else:
            found = re.fullmatch(r'([a-z_]+)(?:\{(.*)\})? (\S+)', line)
            check(found and families.get(current), line)
            sample, inside, value = found.groups()
            kind, samples = families[current]
            base = current if kind != 'counter' or not openmetrics else current + '_total'
            check(sample in ([base] if kind != 'histogram' else [base + s for s in ('_bucket', '_sum', '_count')]), line)
            labels = []
            for part in re.findall(r'([a-z_]+)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|$)', inside or ''):
                labels.append(part)
            check(inside is None or ','.join(f'{k}="{v}"' for k, v in labels) == inside, line)
            check(len({k for k, _ in labels}) == len(labels) and (sample, tuple(labels)) not in samples, line)
            samples[sample, tuple(labels)] = number(value, line)
    check(all(families.values()), families)
    return families


def scrape(gw, openmetrics=False):
    accept = 'application/openmetrics-text; version=1.0.0' if openmetrics else 'text/plain'
    status, text = gw.get('/metrics', {'Accept': accept})
    assert status == 200
    return parse(text, openmetrics)


def check_histograms(families):
    """Buckets grow, the last is +Inf and equals the count; the sum fits between the bounds."""
    seen = 0
    for name, (kind, samples) in families.items():
        if kind != 'histogram':
            continue
        series = {}
        for (sample, labels), value in samples.items():
            rest = tuple(x for x in labels if x[0] != 'le')
            one = series.setdefault(rest, {'buckets': []})
            if sample.endswith('_bucket'):
                one['buckets'].append((float(dict(labels)['le'].replace('Inf', 'inf')), value))
            else:
                one[sample.rsplit('_', 1)[1]] = value
        for rest, one in series.items():
            bounds = [b for b, _ in one['buckets']]
            counts = [c for _, c in one['buckets']]
            assert bounds == sorted(set(bounds)) and bounds[-1] == float('inf'), (name, rest)
            assert counts == sorted(counts) and counts[-1] == one['count'], (name, rest)
            low = sum((c - p) * b for (b, c), p, b in
                      zip(one['buckets'], [0] + counts, [0] + bounds))
            assert one['sum'] >= low - 1e-9, (name, rest)
            if counts[-2] == counts[-1]:
                high = sum((c - p) * b for (b, c), p in zip(one['buckets'][:-1], [0] + counts))
                assert one['sum'] <= high + 1e-9, (name, rest)
            seen += one['count']
    return seen


def busy(api, far, gw, n=20):
    assert api.open(key())[0] == 204
    for i in range(n):
        assert api.put(key(), f'line {i}\n', start=i)[0] == 204
    assert api.put_raw(key(), b'bad')[0] == 400
    assert api.blob(key(), b'{"out":"x"}\n')[0] == 204
    assert api.delete(key())[0] == 204
    gw.wait_delivered()


# --- metrics --------------------------------------------------------------------------------------

@pytest.mark.parametrize('openmetrics', [False, True])
def test_metrics_are_well_formed_and_all_there(far, gateway_at, ca, openmetrics):
    cert, tls_key = ca.issue('127.0.0.1')
    gw = gateway_at(far.url, listen={'tls': {'mode': 'upstream', 'address': '127.0.0.1:0', 'certificate': cert, 'key': tls_key}})
    api = Api(gw.log_url)
    busy(api, far, gw)
    raw(gw.port, b'GET /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    families = scrape(gw, openmetrics)
    for name, (kind, labels) in PROMISED.items():
        full = 'tailrace_' + name + ('_total' if kind == 'counter' and not openmetrics else '')
        assert full in families, name
        got, samples = families[full]
        assert got == kind and samples, name
        for sample, pairs in samples:
            assert [k for k, _ in pairs if k != 'le'] == labels, (name, pairs)
    assert all(name.startswith('tailrace_') for name in families)
    assert check_histograms(families) >= 22
    expiry = families['tailrace_certificate_expiry_seconds'][1]
    assert 29 * 86400 < expiry['tailrace_certificate_expiry_seconds', (('name', 'listen.tls'),)] <= 30 * 86400
    api.close()


def test_both_formats_say_the_same(far, gw, api):
    busy(api, far, gw)
    plain, open_ = scrape(gw), scrape(gw, True)
    assert {n.removesuffix('_total') for n in plain} == set(open_)


def test_the_format_is_negotiated(gw):
    def kind(accept):
        data = raw(gw.ports['admin'], b'GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n' + accept + b'\r\n')
        return re.search(rb'content-type: (\S+);', data, re.I).group(1).decode()
    prometheus = (b'Accept: application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,'
                  b'text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n')
    assert kind(prometheus) == 'application/openmetrics-text'
    assert kind(b'') == kind(b'Accept: */*\r\n') == kind(b'Accept: text/plain\r\n') == 'text/plain'
    assert kind(b'Accept: application/openmetrics-text;q=0, text/plain\r\n') == 'text/plain'


def test_counters_count_what_happened(far, gw, api):
    api.open(key('down'))
    busy(api, far, gw, n=20)
    assert gw.metric('client_requests_total', call='lines', code='204') == 20
    assert gw.metric('client_requests_total', call='lines', code='400') == 1
    assert gw.metric('ack_seconds_count', call='lines') == 20
    assert gw.metric('upstream_requests_total', call='lines', code='204') == gw.metric('delivery_seconds_count', call='lines')
    assert gw.metric('upstream_requests_total', call='lines', code='204') == far.counts()['requests']['lines']['204']
    assert gw.metric('spool_limit_bytes') == 512 << 20
    assert gw.metric('upstream_state', upstream='harness') == 0
    far.stop()
    api.put(key('down'), 'x\n')
    wait_for(lambda: gw.metric('upstream_state', upstream='harness') > 0)
    wait_for(lambda: gw.metric('spool_oldest_seconds') > 0.5)
    assert gw.metric('upstream_requests_total', code='none') > 0
    assert 0 < gw.metric('spool_bytes') <= gw.metric('spool_limit_bytes')
    far.start()
    wait_for(lambda: gw.metric('upstream_state', upstream='harness') == 0, timeout=30)


def test_the_ledger_balances_while_load_runs(far, gw):
    """Fifty scrapes in the middle of calls, refusals, uploads, closes and a short outage."""
    stop, counts = threading.Event(), []

    def load(i):
        api, n = Api(gw.log_url), 0
        while not stop.is_set():
            name = key(f's{i}-{n % 5}')
            if n % 5 == 0:
                api.open(name)
            api.put(name, *[f'{n} {k}\n' for k in range(7)], start=7 * n)
            if n % 11 == 3:
                api.blob(name, b'{"out":"x"}\n')
            if n % 23 == 7:
                api.delete(name)
            n += 1
        api.close()
        counts.append(7 * n)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load, i) for i in range(4)]
        try:
            last = -1
            for sample in range(50):
                if sample == 20:
                    far.stop()
                if sample == 30:
                    far.start()
                lines, blobs = gw.ledger(), gw.ledger('blobs')
                assert lines['accepted'] >= last and min(lines.values()) >= 0 and min(blobs.values()) >= 0
                last = lines['accepted']
                time.sleep(0.02)  # between two scrapes
        finally:
            stop.set()
        for job in jobs:
            job.result(30)
    far.start()
    assert gw.ledger()['accepted'] == sum(counts) > 0


def test_scrapes_by_many_and_in_the_middle_of_nothing(gw):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert {s for s, _ in pool.map(lambda _: gw.get('/metrics'), range(200))} == {200}
    scrape(gw)


# --- health ---------------------------------------------------------------------------------------

def test_health_and_readiness(far, gw, api):
    assert gw.get('/healthz') == (200, 'ok\n')
    assert gw.get('/readyz') == (200, 'ready\n')
    far.stop()
    api.put(key(), 'x\n')
    wait_for(lambda: gw.metric('upstream_state') > 0)
    assert gw.get('/readyz')[0] == 200, 'upstream down is what it is for'
    far.start()
    assert gw.get('/nothing')[0] == 404
    assert b' 405 ' in raw(gw.ports['admin'], b'POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')


def test_not_ready_while_draining(far, gw, api):
    far.fault('slow_body', 'lines', rate=200)
    assert api.open(key())[0] == 204 and api.put(key(), 'x' * 1000 + '\n')[0] == 204
    wait_for(lambda: far.counts()['started'].get('lines'))
    gw.signal(signal.SIGTERM)
    wait_for(lambda: gw.get('/readyz')[0] != 200)
    gw.process.wait(30)
    assert gw.process.returncode == 0


def test_the_admin_listener_serves_nothing_else(far, gw):
    before = len(far.log())
    for request in (b'PUT /log-service/stream?accountID=a&key=k HTTP/1.1\r\nContent-Length: 2', b'GET /api/x HTTP/1.1'):
        data = raw(gw.ports['admin'], request + b'\r\nHost: x\r\nX-Harness-Token: t\r\nConnection: close\r\n\r\n[]')
        assert b' 404 ' in data.split(b'\r\n')[0]
    assert len(far.log()) == before


# --- the command line -----------------------------------------------------------------------------

GOOD = '''harness:
  url: https://app.harness.io
listen:
  upstream: { address: "127.0.0.1:8443" }
spool: { directory: /tmp/nowhere }
'''


def tailrace(*args, env=None):
    done = subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=20, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout, done.stderr


def config(tmp_path, text, name='tailrace.yaml'):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_check_good(tmp_path):
    path = config(tmp_path, GOOD)
    code, out, err = tailrace('check', '-c', path)
    assert (code, out.splitlines()[0], err) == (0, f'{path}: good', '')


BAD = {
    'choice': (GOOD.replace('io\n', 'io\n  upload-logs: follw\n', 1), 3, 'harness.upload-logs: "follw": use follow, googleapis or harness'),
    'unknown-key': (GOOD + 'log: { levle: info }\n', 6, 'level'),
    'unknown-section': (GOOD + 'lisen: {}\n', 6, 'listen'),
    'duplicate-key': (GOOD + 'harness: { url: https://x.example }\n', 6, 'harness'),
    'unset-variable': (GOOD + 'log:\n  file: ${TAILRACE_NO_SUCH_VARIABLE}\n', 7, 'TAILRACE_NO_SUCH_VARIABLE'),
    'out-of-range': (GOOD + 'limits: { body: 1MiB }\n', 6, 'limits.body'),
    'not-a-size': (GOOD + 'limits: { body: plenty }\n', 6, 'limits.body'),
    'not-yaml': (GOOD + 'x: [1, 2\n', None, ''),
    'missing': ('listen:\n  upstream: { address: "127.0.0.1:8443" }\n', None, 'harness.url'),
    'key-without-certificate': (GOOD.replace(':8443"', ':8443", key: a.pem'), 4, 'listen.upstream.certificate'),
}


@pytest.mark.parametrize('name', BAD)
def test_check_bad(tmp_path, name):
    text, line, words = BAD[name]
    path = config(tmp_path, text)
    code, out, err = tailrace('check', '-c', path)
    assert code == 1 and out == '' and words in err
    assert re.match(re.escape(path) + (f':{line}: ' if line else r'(:\d+)?: '), err), err
    assert tailrace('serve', '-c', path)[0] == 1


@pytest.mark.parametrize('args', [[], ['nonsense'], ['check', '--nonsense'], ['check', '-c'], ['check', 'extra', 'more']])
def test_usage(args):
    code, out, err = tailrace(*args)
    assert code == 2 and out == '' and 'usage' in err.lower()


def test_check_of_what_is_not_there(tmp_path):
    code, _, err = tailrace('check', '-c', str(tmp_path / 'none.yaml'))
    assert code == 1 and 'none.yaml' in err
    assert tailrace('check', '-c', str(tmp_path))[0] == 1


def test_version_and_help():
    code, out, _ = tailrace('version')
    assert code == 0 and re.match(r'tailrace \d+\.\d+\.\d+', out)
    assert tailrace('--version')[1] == out
    assert tailrace('--help')[0] == 0


def test_dump_config_reads_back_to_itself(far, gw, tmp_path):
    code, dumped, _ = tailrace('check', '--dump-config', '-c', str(gw.config_path))
    assert code == 0 and 'upload-logs: follow' in dumped
    again = tailrace('check', '--dump-config', '-c', config(tmp_path, dumped, 'dumped.yaml'))
    assert again == (0, dumped, '')
    with Gateway(tmp_path / 'second', far.url, start=False) as other:
        other.write_config()
        text = dumped.replace(str(gw.directory), str(other.directory))
        text = re.sub(r'127\.0\.0\.1:(%d|%d)' % tuple(gw.ports.values()), '127.0.0.1:0', text)
        assert tailrace('check', '-c', config(tmp_path, text, 'third.yaml'))[0] == 0


def test_serve_says_why_it_cannot(far, gw, tmp_path):
    """The address is taken, the directory cannot be made, the certificate is none, the spool is in use."""
    base = {'harness': {'url': far.url}, 'spool': {'directory': str(tmp_path / 's')}}
    (tmp_path / 'none.pem').write_text('nothing')
    cases = [({'listen': {'upstream': {'address': '203.0.113.1:1'}}}, 'listen.upstream'),
             ({'listen': {'upstream': {'address': '127.0.0.1:0'}}, 'spool': {'directory': '/proc/none'}}, '/proc/none'),
             ({'listen': {'upstream': {'address': '127.0.0.1:0', 'certificate': str(tmp_path / 'none.pem'),
                                       'key': str(tmp_path / 'none.pem')}}}, 'none.pem'),
             ({'listen': {'upstream': {'address': '127.0.0.1:0'}}, 'spool': {'directory': str(gw.directory / 'spool')}}, 'spool')]
    for more, word in cases:
        path = config(tmp_path, to_yaml(dict(base, **more)))
        code, _, err = tailrace('serve', '-c', path)
        assert code == 1 and word in err and 'level=error' in err, (word, err)


# --- the log --------------------------------------------------------------------------------------

def test_logfmt_is_well_formed(far, gw, api):
    busy(api, far, gw)
    far.stop()
    raw(gw.port, b'GET /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    wait_for(lambda: 'component=relay' in gw.log())
    far.start()
    for line in gw.log().splitlines():
        rest = re.sub(r'[a-z_]+=("(?:[^"\\]|\\.)*"|[^ "=]*)(?: |$)', '', line)
        assert rest == '' and re.match(r'time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=[a-z]+ component=[a-z]+ msg=', line), line


def test_json_log(far, gateway_at):
    gw = gateway_at(far.url, start=False, log={'format': 'json'})
    gw.start(wait=False)

    def ports():
        found = [json.loads(x) for x in gw.log().splitlines() if x.endswith('}')]
        return len([x for x in found if x['msg'] == 'listening']) == 2 and found
    gw.ports = {x['listener']: int(x['address'].rsplit(':', 1)[1]) for x in wait_for(ports) if x['msg'] == 'listening'}
    wait_for(lambda: gw.get('/readyz')[0] == 200)
    api = Api(gw.log_url)
    busy(api, far, gw)
    api.close()
    gw.stop()
    for line in gw.log().splitlines():
        value = json.loads(line)
        assert {'time', 'level', 'component', 'msg'} <= set(value)


@pytest.mark.parametrize('form', ['logfmt', 'json'])
def test_no_secret_and_no_log_text_in_log_or_metrics(far, gateway_at, form, tmp_path):
    """A busy gateway at debug level, with all kinds of trouble: what was planted is found nowhere."""
    gw = gateway_at(far.url, log={'level': 'debug'}, stream={'idle': '1s'})
    if form == 'json':
        gw.write_config(log={'format': 'json'})
        gw.signal(signal.SIGHUP)
        wait_for(lambda: gw.metric('config_generation') == 2)
    token, text, query, apikey = SECRETS
    api = Api(gw.log_url, token=token)
    assert api.open(key())[0] == 204 and api.put(key(), text + '\n')[0] == 204
    gw.wait_delivered()
    for kind, args in (('status', {'code': 500}), ('status', {'code': 400, 'body': f'{{"error_msg": "{text} {token}"}}'}),
                       ('reset', {'where': 'before'}), ('ok_on_error', {}), ('corrupt', {}), ('half_then_500', {})):
        far.fault(kind, ['lines', 'blob', 'put-object', 'link'], count=1, **args)
        assert api.put(key(), text + '\n', start=os.getpid())[0] == 204
        assert api.put_raw(key(), b'[{"out":"' + text.encode() + b'"')[0] == 400
        api.blob(key(), b'{"out":"%s"}\n' % text.encode())
        link = json.loads(api.link(key(kind))[1])['link']
        api.put_to(link, b'{"out":"%s %s"}\n' % (text.encode(), kind.encode()))
        assert token not in link and link.rsplit('/', 1)[1] not in gw.log()
        far.clear_faults()
    plain = {'headers': {}}
    api.request('PUT', api.target('/stream', key('q'), f'&X-Harness-Token={query}'), body_of(text), **plain)
    api.request('PUT', api.target('/stream', key('k')), body_of(text), {'x-api-key': apikey})
    api.request('PUT', f'{api.base}/stream?accountID=..&key=k&X-Harness-Token={query}', body_of(text), **plain)
    wait_for(lambda: far.counts()['started'].get('put-object'), what='a signed link in use')
    far.tokens(bad=[token])
    api.put(key(), text + '\n', start=1)
    api.request('GET', f'/api/x?token={query}', None, {'Authorization': f'Delegate {token}'})
    far.stop()
    api.request('GET', f'/api/x?token={query}', None, {'Authorization': f'Delegate {token}'})
    raw(gw.port, f'GET /{query} HTTP/9.9\r\nX-Harness-Token: {token}\r\n\r\n'.encode())
    raw(gw.port, f'{token} {query}\r\n\r\n'.encode())
    far.start()
    api.delete(key(), '&snapshot=true')
    far.tokens(clear=True)
    signatures = set(re.findall(r'X-Amz-Signature=(\w+)', json.dumps(far.log())))
    assert signatures, 'signed links were used'
    metrics = gw.get('/metrics')[1]
    api.close()
    gw.stop()
    assert len(gw.log().splitlines()) > 5
    for secret in SECRETS + list(signatures):
        assert secret not in gw.log(), secret
        assert secret not in metrics, secret


def test_log_file_is_reopened_by_sighup(far, gateway_at, tmp_path):
    """As logrotate does it: move, then a signal."""
    gw = gateway_at(far.url, audit={'file': str(tmp_path / 'unused')})  # so that it may write there
    path = tmp_path / 'tailrace.log'
    gw.write_config(log={'file': str(path)})
    gw.signal(signal.SIGHUP)
    wait_for(lambda: path.exists() and 'generation=2' in path.read_text())
    path.rename(tmp_path / 'tailrace.log.1')
    gw.signal(signal.SIGHUP)
    wait_for(lambda: path.exists() and 'generation=3' in path.read_text())
    assert 'generation=3' not in (tmp_path / 'tailrace.log.1').read_text()
    assert gw.fds() < 100
    for _ in range(10):
        gw.signal(signal.SIGHUP)
        time.sleep(0.01)  # signals that come together are one
    wait_for(lambda: gw.metric('config_generation') > 3)
    before = gw.fds()
    generation = gw.metric('config_generation')
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') > generation)
    assert gw.fds() <= before + 2


def test_log_level_changes_by_reload(far, gw):
    assert gw.metric('config_generation') == 1
    gw.write_config(log={'level': 'error'}, audit={'to': 'none'})
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == 2)
    size = len(gw.log())
    far.stop()
    raw(gw.port, b'GET /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    far.start()
    assert len(gw.log()) == size


def test_reload_takes_up_a_new_certificate(far, gateway_at, ca, tmp_path):
    import shutil
    import ssl
    files = [tmp_path / 'server.pem', tmp_path / 'server.key']
    for source, to in zip(ca.issue('127.0.0.1'), files):
        shutil.copy(source, to)
    gw = gateway_at(far.url, cert=files[0], key=files[1])
    first = ssl.get_server_certificate(('127.0.0.1', gw.port))
    for source, to in zip(ca.issue('localhost', '127.0.0.1'), files):
        shutil.copy(source, to)
    gw.signal(signal.SIGHUP)
    wait_for(lambda: ssl.get_server_certificate(('127.0.0.1', gw.port)) != first)
    files[1].write_text('no key')
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('reload_failures_total') == 1)
    assert ssl.get_server_certificate(('127.0.0.1', gw.port)) != first, 'the good one stays'
